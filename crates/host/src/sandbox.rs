//! One running sandbox as its users see it: calls, files, programs. Everything ends in bounded time, whatever the guest does.

use crate::failure::SandboxError;
use crate::link::{Event, Link, Stream};
use greenroom_protocol::guest::call::{
    Call, CallError, CallErrorCode, Exec, Exit, FileBytes, OutputChunk, Reply, Scope,
};
use greenroom_protocol::guest::frame::{FrameKind, MAX_PAYLOAD_BYTES};
use greenroom_protocol::id::SandboxId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a guest may take for any call but a program, and between two pieces of a file.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a guest may take to end a program beyond its time limit or after a cancellation: TERM, 2 s, KILL, the rest
/// of the output.
const EXIT_TIMEOUT: Duration = Duration::from_secs(15);

/// A link to a running sandbox; clones are the same link. Dropping all of them leaves the sandbox running.
#[derive(Clone)]
pub struct Sandbox {
    id: SandboxId,
    link: Link,
    _end: Arc<EndLink>,
}

/// Ends the link with the last clone, so that the tasks that serve it end too.
struct EndLink(Link);

impl Drop for EndLink {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Forgets a stream when its user is done, or gives it up when its user was dropped in the middle.
struct Lease<'a> {
    link: &'a Link,
    stream: Arc<Stream>,
    is_done: bool,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if self.is_done {
            self.link.close(&self.stream);
        } else {
            self.link.abandon(&self.stream);
        }
    }
}

impl Sandbox {
    pub(crate) fn new(id: SandboxId, link: Link) -> Self {
        Self {
            id,
            _end: Arc::new(EndLink(link.clone())),
            link,
        }
    }

    pub fn id(&self) -> &SandboxId {
        &self.id
    }

    /// Returns once the link is over: the sandbox ended, the guest broke the protocol, or another process took it over.
    pub async fn closed(&self) {
        self.link.closed().await;
    }

    /// Any call without data streams (everything but `Exec` in the foreground, `ReadFile`, `WriteFile`).
    pub async fn call(&self, call: Call) -> Result<Reply, SandboxError> {
        let streams_data = match &call {
            Call::Exec(exec) => !exec.is_background,
            Call::ReadFile { .. } | Call::WriteFile { .. } => true,
            _ => false,
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
            Event::Gone => Err(SandboxError::lost()),
            Event::Data { .. } | Event::End => Err(self.distrust()),
        }
    }

    /// At most `max_bytes` of a file from `offset`, and its whole size in bytes.
    pub async fn read_file(
        &self,
        path: &str,
        scope: Scope,
        offset: u64,
        max_bytes: u64,
    ) -> Result<FileBytes, SandboxError> {
        let mut lease = self
            .open(&Call::ReadFile {
                path: path.to_owned(),
                scope,
                offset,
                max_bytes,
            })
            .await?;
        let size_bytes = match within(CALL_TIMEOUT, lease.stream.next()).await? {
            Event::Reply(Reply::File { size_bytes, .. }) => size_bytes,
            other => {
                lease.is_done = true;
                return Err(self.unexpected(other));
            }
        };
        let mut bytes = Vec::new();
        loop {
            match within(CALL_TIMEOUT, lease.stream.next()).await? {
                Event::Data { bytes: more, .. } => {
                    if (bytes.len() + more.len()) as u64 > max_bytes {
                        return Err(self.distrust());
                    }
                    bytes.extend_from_slice(&more);
                    self.link.grant(&lease.stream, more.len()).await;
                }
                Event::End => {
                    lease.is_done = true;
                    return Ok(FileBytes { bytes, size_bytes });
                }
                other => {
                    lease.is_done = true;
                    return Err(self.unexpected(other));
                }
            }
        }
    }

    /// Replaces a file at once and completely.
    pub async fn write_file(&self, path: &str, scope: Scope, bytes: Vec<u8>) -> Result<(), SandboxError> {
        self.put_file(path, scope, bytes, false).await
    }

    /// Replaces a file at once and completely, and makes it executable.
    pub async fn write_program(&self, path: &str, scope: Scope, bytes: Vec<u8>) -> Result<(), SandboxError> {
        self.put_file(path, scope, bytes, true).await
    }

    async fn put_file(
        &self,
        path: &str,
        scope: Scope,
        bytes: Vec<u8>,
        is_executable: bool,
    ) -> Result<(), SandboxError> {
        let mut lease = self
            .open(&Call::WriteFile {
                path: path.to_owned(),
                scope,
                is_executable,
            })
            .await?;
        let send = async {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let Some(room) = within(CALL_TIMEOUT, lease.stream.room()).await? else {
                    return Ok(());
                };
                let len = room.min(rest.len()).min(64 * 1024);
                self.link.send_data(&lease.stream, &rest[..len]).await;
                rest = &rest[len..];
            }
            self.link.send(FrameKind::End, lease.stream.id(), &[]).await;
            // Only the reply ends the call.
            std::future::pending::<Result<(), SandboxError>>().await
        };
        // The guest may refuse before it took everything.
        let reply = tokio::select! {
            event = within(CALL_TIMEOUT * 10, lease.stream.next()) => event?,
            result = send => {
                result?;
                Event::Gone
            }
        };
        lease.is_done = true;
        match reply {
            Event::Reply(Reply::Done) => Ok(()),
            other => Err(self.unexpected(other)),
        }
    }

    /// Runs a program without input, passing output on as it comes. On cancellation the process group is killed and the
    /// exit is still returned. A full `output` channel slows the program down; a closed one discards output.
    pub async fn exec(
        &self,
        exec: Exec,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, SandboxError> {
        self.exec_with_input(exec, None, output, cancel).await
    }

    /// Like [`Sandbox::exec`]; `input` is the program's standard input, at its end closed.
    pub async fn exec_with_input(
        &self,
        mut exec: Exec,
        input: Option<mpsc::Receiver<Vec<u8>>>,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, SandboxError> {
        if exec.is_background {
            return Err(invalid("a background program is started with spawn"));
        }
        exec.has_input = input.is_some();
        let timeout = exec.timeout_ms.map(Duration::from_millis);
        let mut lease = self.open(&Call::Exec(exec)).await?;
        let stream = Arc::clone(&lease.stream);
        let feed = self.feed(&stream, input);
        let follow = self.follow(&stream, timeout, output, cancel);
        tokio::pin!(feed, follow);
        let mut is_feeding = true;
        let exit = loop {
            tokio::select! {
                exit = &mut follow => break exit,
                () = &mut feed, if is_feeding => is_feeding = false,
            }
        };
        // Without an exit the guest may still be running it.
        lease.is_done = matches!(exit, Ok(_) | Err(SandboxError::Call(_)));
        exit
    }

    async fn feed(&self, stream: &Stream, input: Option<mpsc::Receiver<Vec<u8>>>) {
        let Some(mut input) = input else { return };
        while let Some(bytes) = input.recv().await {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let Some(room) = stream.room().await else { return };
                let len = room.min(rest.len()).min(64 * 1024);
                self.link.send_data(stream, &rest[..len]).await;
                rest = &rest[len..];
            }
        }
        self.link.send(FrameKind::End, stream.id(), &[]).await;
    }

    async fn follow(
        &self,
        stream: &Stream,
        timeout: Option<Duration>,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, SandboxError> {
        // When the guest must have answered. Time in which the caller does not take output does not count.
        let mut deadline = timeout.map(|timeout| Instant::now() + timeout + EXIT_TIMEOUT);
        let mut is_cancelled = false;
        let mut chunk: Option<OutputChunk> = None;
        loop {
            let overdue = async {
                match deadline {
                    Some(deadline) if chunk.is_none() => tokio::time::sleep_until(deadline).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = cancel.cancelled(), if !is_cancelled => {
                    is_cancelled = true;
                    deadline = Some(Instant::now() + EXIT_TIMEOUT);
                    self.link.send(FrameKind::Cancel, stream.id(), &[]).await;
                }
                permit = output.reserve(), if chunk.is_some() => {
                    let chunk = chunk.take().unwrap_or(OutputChunk { is_error_output: false, bytes: Vec::new() });
                    let len = chunk.bytes.len();
                    // Nobody listens any more: the program goes on, its output is dropped.
                    if let Ok(permit) = permit {
                        permit.send(chunk);
                    }
                    self.link.grant(stream, len).await;
                    if is_cancelled {
                        deadline = Some(Instant::now() + EXIT_TIMEOUT);
                    }
                }
                event = stream.next(), if chunk.is_none() => match event {
                    Event::Data { bytes, is_error_output } => chunk = Some(OutputChunk { is_error_output, bytes }),
                    Event::Reply(Reply::Exited(exit)) => return Ok(exit),
                    other => return Err(self.unexpected(other)),
                },
                () = overdue => {
                    self.link.end();
                    return Err(SandboxError::unresponsive());
                }
            }
        }
    }

    /// Starts a background process and returns its number.
    pub async fn spawn(&self, exec: Exec) -> Result<u32, SandboxError> {
        match self
            .call(Call::Exec(Exec {
                is_background: true,
                ..exec
            }))
            .await?
        {
            Reply::Started { process_id } => Ok(process_id),
            _ => Err(self.distrust()),
        }
    }

    async fn open(&self, call: &Call) -> Result<Lease<'_>, SandboxError> {
        let json = serde_json::to_vec(call).map_err(|_| invalid("the call cannot be written"))?;
        if json.len() > MAX_PAYLOAD_BYTES {
            return Err(SandboxError::Call(CallError {
                code: CallErrorCode::TooLarge,
                message: "The arguments are too long.".to_owned(),
            }));
        }
        let lease = Lease {
            link: &self.link,
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
            Event::Gone => SandboxError::lost(),
            Event::Reply(_) | Event::Data { .. } | Event::End => self.distrust(),
        }
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
