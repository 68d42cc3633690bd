//! One running sandbox as its users see it: calls here, files and programs in the files below. Everything ends in bounded
//! time, whatever the guest does.

mod file;
mod forward;
mod program;
mod watch;

pub use file::MAX_READ_BYTES;
pub use forward::ForwardStream;
pub use program::Program;
pub use watch::Changes;

use crate::expose::Ports;
use crate::failure::SandboxError;
use crate::link::{Event, Link, Stream};
use crate::usage::Meter;
use greenroom_protocol::guest::call::{Call, CallError, CallErrorCode, Reply};
use greenroom_protocol::guest::frame::{FrameKind, MAX_PAYLOAD_BYTES};
use greenroom_protocol::id::SandboxId;
use std::sync::Arc;
use std::time::Duration;

/// How long a guest may take for any call but a program, and between two pieces of a file.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A link to a running sandbox; clones are the same link. Dropping all of them leaves the sandbox running.
#[derive(Clone)]
pub struct Sandbox {
    id: SandboxId,
    link: Link,
    meter: Arc<Meter>,
    end: Arc<EndLink>,
    ports: Arc<Ports>,
}

/// Ends the link with the last clone, so that the tasks that serve it end too.
pub(crate) struct EndLink(Link);

impl Drop for EndLink {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Forgets a stream when its user is done, or gives it up when its user was dropped in the middle.
struct Lease {
    link: Link,
    stream: Arc<Stream>,
    is_done: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_done {
            self.link.close(&self.stream);
        } else {
            self.link.abandon(&self.stream);
        }
    }
}

impl Sandbox {
    /// A fresh link. Opens the ports that the sandbox exposes. Blocking.
    pub(crate) fn new(id: SandboxId, link: Link, meter: Arc<Meter>, ports: Arc<Ports>) -> Self {
        let end = Arc::new(EndLink(link.clone()));
        ports.attach(link.clone(), Arc::clone(&meter), &end);
        Self {
            id,
            link,
            meter,
            end,
            ports,
        }
    }

    /// Over any socket whose other end claims to be a guest; for fuzzers, which have no sandbox.
    #[cfg(fuzzing)]
    pub async fn over(
        socket: tokio::net::UnixStream,
        routes: crate::route::RouteHandler,
    ) -> std::io::Result<Self> {
        let link = Link::open(socket, routes).await?;
        let id = SandboxId::from_bits(0);
        let nowhere = std::path::Path::new("/nonexistent");
        let ports = crate::expose::Registry::default().ports(&id, nowhere);
        let meter = Arc::new(Meter::open(nowhere.to_owned(), &[]));
        Ok(Self::new(id, link, meter, ports))
    }

    /// Another handle over a link that is open.
    pub(crate) fn assemble(
        id: SandboxId,
        link: Link,
        meter: Arc<Meter>,
        end: Arc<EndLink>,
        ports: Arc<Ports>,
    ) -> Self {
        Self {
            id,
            link,
            meter,
            end,
            ports,
        }
    }

    pub fn id(&self) -> &SandboxId {
        &self.id
    }

    /// Generation of the guest protocol that this sandbox speaks; below [`greenroom_protocol::GUEST_GENERATION`] in one that
    /// an older server started. It answers a newer call with [`CallErrorCode::Unsupported`].
    pub fn generation(&self) -> u32 {
        self.link.generation()
    }

    /// Returns once the link is over: the sandbox ended, the guest broke the protocol, or another process took it over.
    pub async fn closed(&self) {
        self.link.closed().await;
    }

    /// Any call without data streams (everything but `Exec` in the foreground, `Attach`, `ReadFile`, `WriteFile`, `Watch`,
    /// `Forward`).
    pub async fn call(&self, call: Call) -> Result<Reply, SandboxError> {
        self.require(&call)?;
        let streams_data = match &call {
            Call::Exec(exec) => !exec.is_background,
            Call::Attach { .. }
            | Call::ReadFile { .. }
            | Call::WriteFile { .. }
            | Call::Watch { .. }
            | Call::Forward { .. } => true,
            Call::ResizeTerminal { .. }
            | Call::ListProcesses
            | Call::ReadProcess { .. }
            | Call::SignalProcess { .. }
            | Call::Stat { .. }
            | Call::ListDirectory { .. }
            | Call::Glob { .. }
            | Call::Grep(_)
            | Call::Walk(_)
            | Call::Rename { .. }
            | Call::Remove { .. }
            | Call::StartService(_)
            | Call::ListServices
            | Call::StopService { .. }
            | Call::ReadServiceLog { .. }
            | Call::MeasureProcesses
            | Call::Ping => false,
        };
        if streams_data {
            return Err(invalid("this call has its own method because it moves data"));
        }
        let mut lease = self.open(&call).await?;
        let event = within(CALL_TIMEOUT, lease.stream.next()).await?;
        lease.is_done = true;
        match event {
            Event::Reply(Reply::Failed(error)) => Err(SandboxError::Call(error)),
            Event::Reply(reply) => Ok(reply),
            Event::Gone => Err(self.lost()),
            Event::Data { .. } | Event::End => Err(self.distrust()),
        }
    }

    /// Refuses what the guest is too old for.
    fn require(&self, call: &Call) -> Result<(), SandboxError> {
        if call.since_generation() <= self.link.generation() {
            return Ok(());
        }
        Err(SandboxError::Call(CallError {
            code: CallErrorCode::Unsupported,
            message:
                "This sandbox was started by an older version that cannot do this; once started anew, it can."
                    .to_owned(),
        }))
    }

    async fn open(&self, call: &Call) -> Result<Lease, SandboxError> {
        self.require(call)?;
        let json = serde_json::to_vec(call).map_err(|_| invalid("the call cannot be written"))?;
        if json.len() > MAX_PAYLOAD_BYTES {
            return Err(SandboxError::Call(CallError {
                code: CallErrorCode::TooLarge,
                message: "The arguments are too long.".to_owned(),
            }));
        }
        let lease = Lease {
            link: self.link.clone(),
            stream: self.link.stream(),
            is_done: false,
        };
        within(
            CALL_TIMEOUT,
            self.link.send(FrameKind::Call, lease.stream.id(), &json),
        )
        .await?;
        Ok(lease)
    }

    fn unexpected(&self, event: Event) -> SandboxError {
        match event {
            Event::Reply(Reply::Failed(error)) => SandboxError::Call(error),
            Event::Gone => self.lost(),
            Event::Reply(_) | Event::Data { .. } | Event::End => self.distrust(),
        }
    }

    /// Why the link is gone, as far as the supervisor said.
    fn lost(&self) -> SandboxError {
        self.meter
            .ended_by()
            .map_or_else(SandboxError::lost, SandboxError::ended_by)
    }

    /// A guest that answers nonsense is not spoken to any more.
    fn distrust(&self) -> SandboxError {
        tracing::warn!(sandbox = %self.id, "guest gave an answer that makes no sense");
        self.link.end();
        SandboxError::misbehaved()
    }
}

fn invalid(message: &str) -> SandboxError {
    SandboxError::Call(CallError {
        code: CallErrorCode::Invalid,
        message: message.to_owned(),
    })
}

async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, SandboxError> {
    tokio::time::timeout(limit, future)
        .await
        .map_err(|_| SandboxError::unresponsive())
}
