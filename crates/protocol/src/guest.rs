//! The guest protocol: what a host and the first process of a sandbox say to each other over one Unix socket.
//!
//! A link is a sequence of [`frame::Frame`]s both ways. Each frame belongs to a numbered stream; the host opens odd
//! numbers with a [`call::Call`], the guest even numbers with an [`OpenRoute`]. Neither side trusts the other's lengths.

pub mod call;
pub mod frame;
pub mod service;
pub mod trunk;

use crate::{GUEST_GENERATION, OLDEST_GUEST_GENERATION};
use serde::{Deserialize, Serialize};

/// First frame of each side on a fresh link (stream 0).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// See [`crate::GUEST_GENERATION`]; a side that cannot serve the other's generation closes the link.
    pub generation: u32,
}

impl Hello {
    /// What this program says first.
    pub const OURS: Self = Self {
        generation: GUEST_GENERATION,
    };

    /// The generation that both sides speak after the other side's hello: the older of the two. `None` if the other side is
    /// older than this program can serve.
    pub fn spoken_generation(&self) -> Option<u32> {
        (self.generation >= OLDEST_GUEST_GENERATION).then(|| self.generation.min(GUEST_GENERATION))
    }
}

/// The guest asks the host to serve a connection that a process in the sandbox made to a loopback port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRoute {
    pub route: Route,
}

/// What a loopback port of the sandbox leads to. The host's broker decides what the session may do there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// Git smart HTTP of this session's repository, without credentials.
    Git,
    /// An HTTP proxy (absolute-form requests and CONNECT, RFC 9110) that applies the egress policy. Since generation 2.
    HttpProxy,
    /// A SOCKS5 proxy (RFC 1928, no authentication, CONNECT only) that applies the egress policy. Since generation 2.
    Socks,
}

impl Route {
    /// Every route with the loopback port on which the guest accepts connections for it.
    pub const PORTS: [(Self, u16); 3] = [
        (Self::Git, GIT_PORT),
        (Self::HttpProxy, HTTP_PROXY_PORT),
        (Self::Socks, SOCKS_PORT),
    ];

    /// First generation of hosts that can read it in an [`OpenRoute`].
    pub fn since_generation(self) -> u32 {
        match self {
            Self::Git => 1,
            Self::HttpProxy | Self::Socks => 2,
        }
    }
}

/// Loopback port inside every sandbox where the guest accepts connections for [`Route::Git`].
pub const GIT_PORT: u16 = 7418;

/// Loopback port inside every sandbox for [`Route::HttpProxy`].
pub const HTTP_PROXY_PORT: u16 = 7419;

/// Loopback port inside every sandbox for [`Route::Socks`].
pub const SOCKS_PORT: u16 = 7420;

/// Where the repository is checked out inside a sandbox.
pub const WORKSPACE_PATH: &str = "/workspace";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_speak_the_older_generation() {
        let newest = GUEST_GENERATION;
        for (generation, expected) in [
            (0, None),
            (OLDEST_GUEST_GENERATION, Some(OLDEST_GUEST_GENERATION)),
            (newest, Some(newest)),
            (newest + 1, Some(newest)),
            (u32::MAX, Some(newest)),
        ] {
            assert_eq!(Hello { generation }.spoken_generation(), expected, "{generation}");
        }
    }
}
