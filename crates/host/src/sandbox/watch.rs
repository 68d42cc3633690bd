//! Changes of files, as they happen.

use super::{CALL_TIMEOUT, EndLink, Lease, Sandbox, within};
use crate::failure::SandboxError;
use crate::link::Event;
use greenroom_protocol::guest::call::{Call, ChangeBatch, Reply, Scope};
use greenroom_protocol::guest::frame::MAX_PAYLOAD_BYTES;
use std::collections::VecDeque;
use std::sync::Arc;

impl Sandbox {
    /// Watches everything below a directory but `.git` and what .gitignore names. Changes after this returned are reported.
    /// While nobody calls [`Changes::next`] they are gathered inside, within bounds.
    pub async fn watch(&self, path: &str, scope: Scope) -> Result<Changes, SandboxError> {
        let call = Call::Watch {
            path: path.to_owned(),
            scope,
        };
        let mut lease = self.open(&call).await?;
        match within(CALL_TIMEOUT, lease.stream.next()).await? {
            Event::Reply(Reply::Done) => Ok(Changes {
                lease,
                sandbox: self.clone(),
                _end: Arc::clone(&self.end),
                line: Vec::new(),
                batches: VecDeque::new(),
                owed: 0,
            }),
            other => {
                lease.is_done = true;
                Err(self.unexpected(other))
            }
        }
    }
}

/// Changes below a watched directory. Dropping it ends the watching.
pub struct Changes {
    lease: Lease,
    sandbox: Sandbox,
    /// Keeps the link open.
    _end: Arc<EndLink>,
    /// Of the next batch, what arrived so far.
    line: Vec<u8>,
    batches: VecDeque<ChangeBatch>,
    /// Bytes that were taken and not yet granted again, so that a dropped future loses none.
    owed: usize,
}

impl Changes {
    /// The next batch, at some point after the first change in it; `None` once the directory itself is gone. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<ChangeBatch>, SandboxError> {
        loop {
            if let Some(batch) = self.batches.pop_front() {
                return Ok(Some(batch));
            }
            if self.owed > 0 {
                self.lease.link.grant(&self.lease.stream, self.owed).await;
                self.owed = 0;
            }
            match self.lease.stream.next().await {
                Event::Data { bytes, .. } => {
                    self.owed += bytes.len();
                    self.take(&bytes)?;
                }
                Event::End => {
                    self.lease.is_done = true;
                    return match self.line.is_empty() {
                        true => Ok(None),
                        false => Err(self.sandbox.distrust()),
                    };
                }
                other => {
                    self.lease.is_done = true;
                    return Err(self.sandbox.unexpected(other));
                }
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), SandboxError> {
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        // Splitting yields at least one piece; what follows the last line end is the beginning of the next batch.
        let mut piece = pieces.next().unwrap_or_default();
        loop {
            if self.line.len() + piece.len() > MAX_PAYLOAD_BYTES {
                return Err(self.sandbox.distrust());
            }
            self.line.extend_from_slice(piece);
            let Some(next) = pieces.next() else { return Ok(()) };
            let line = std::mem::take(&mut self.line);
            match serde_json::from_slice(&line) {
                Ok(batch) => self.batches.push_back(batch),
                Err(_) => return Err(self.sandbox.distrust()),
            }
            piece = next;
        }
    }
}
