//! The guest protocol: what a host and the first process of a sandbox say to each other over one Unix socket.
//!
//! A link is a sequence of [`frame::Frame`]s both ways. Each frame belongs to a numbered stream; the host opens odd
//! numbers with a [`call::Call`], the guest even numbers with an [`OpenRoute`]. Neither side trusts the other's lengths.

pub mod call;
pub mod frame;
pub mod service;

use serde::{Deserialize, Serialize};

/// First frame of each side on a fresh link (stream 0).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// See [`crate::GUEST_GENERATION`]; a side that cannot serve the other's generation closes the link.
    pub generation: u32,
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
}

/// Loopback port inside every sandbox where the guest accepts connections for [`Route::Git`].
pub const GIT_PORT: u16 = 7418;

/// Loopback port inside every sandbox for [`Route::HttpProxy`].
pub const HTTP_PROXY_PORT: u16 = 7419;

/// Loopback port inside every sandbox for [`Route::Socks`].
pub const SOCKS_PORT: u16 = 7420;

/// Where the repository is checked out inside a sandbox.
pub const WORKSPACE_PATH: &str = "/workspace";
