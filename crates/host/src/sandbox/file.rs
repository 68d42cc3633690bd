//! Reading and writing files of a sandbox: the calls that move a file's bytes.

use super::{CALL_TIMEOUT, Sandbox, within};
use crate::failure::SandboxError;
use crate::link::Event;
use greenroom_protocol::guest::call::{Call, CallError, CallErrorCode, FileBytes, Reply, Scope};
use greenroom_protocol::guest::frame::FrameKind;

/// Bytes of a file that one read brings into memory. More is read in parts.
pub const MAX_READ_BYTES: u64 = 64 << 20;

impl Sandbox {
    /// At most `max_bytes` of a file from `offset`, and never more than [`MAX_READ_BYTES`]; and its whole size in bytes.
    pub async fn read_file(
        &self,
        path: &str,
        scope: Scope,
        offset: u64,
        max_bytes: u64,
    ) -> Result<FileBytes, SandboxError> {
        let max_bytes = max_bytes.min(MAX_READ_BYTES);
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
        if self.meter.is_disk_full() {
            return Err(SandboxError::Call(CallError {
                code: CallErrorCode::NoSpace,
                message: format!("{path}: the sandbox takes more disk than it may; remove something first"),
            }));
        }
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
}
