//! One conversation of a client with `git upload-pack` or `git receive-pack`: feeds, reads, and ends it in time.

use super::Service;
use super::body::{ByteStream, GitBody};
use super::policy::RefUpdateKind;
use super::push_request::{Push, drain};
use crate::forge::Forge;
use crate::git::process::Running;
use crate::git::{GitError, read_stderr};
use crate::pull_request::record::PULLS;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use greenroom_stdx::chain::Chain;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Pieces of output on their way to the client.
const CHUNKS_AHEAD: usize = 8;
/// How long a client that does not read is waited for before its answer is cut.
const CUT_WAIT: Duration = Duration::from_secs(5);
const CHUNK_BYTES: usize = 64 * 1024;

/// What git is fed.
pub(crate) struct Input {
    first: Bytes,
    rest: ByteStream,
    /// Bytes `rest` may have.
    limit: u64,
}

impl Input {
    /// `first`, then at most `limit` bytes of `rest`.
    pub(crate) fn new(first: Bytes, rest: ByteStream, limit: u64) -> Self {
        Self { first, rest, limit }
    }
}

/// An exchange that is about to start.
pub(crate) struct Exchange {
    pub(crate) service: Service,
    pub(crate) repository: String,
    pub(crate) dir: PathBuf,
    pub(crate) protocol: Option<String>,
    pub(crate) input: Input,
    /// The updates of a push.
    pub(crate) push: Option<Push>,
}

/// Why an exchange stopped before git had said everything.
#[derive(Debug)]
enum ExchangeError {
    /// The client broke off or sent too much.
    Client(io::Error),
}

impl Exchange {
    /// Starts git and a task that sees the exchange through; returns the body it speaks into.
    pub(crate) fn start(self, forge: &Forge, turn: OwnedSemaphorePermit) -> Result<GitBody, GitError> {
        let mut command = forge.git().command(Some(&self.dir));
        if self.push.as_ref().is_some_and(|push| !push.policy.allows_force()) {
            command.args(["-c", "receive.denyNonFastForwards=true"]);
        }
        command.args([self.service.command(), "--stateless-rpc", "."]);
        if let Some(protocol) = &self.protocol {
            command.env("GIT_PROTOCOL", protocol);
        }
        let running = forge.git().start(&mut command)?;
        let (tx, rx) = mpsc::channel(CHUNKS_AHEAD);
        let forge = forge.clone();
        tokio::spawn(async move {
            let _turn = turn;
            self.see_through(&forge, running, tx).await;
        });
        Ok(GitBody::live(rx))
    }

    async fn see_through(self, forge: &Forge, mut running: Running, tx: mpsc::Sender<io::Result<Bytes>>) {
        let Self {
            service,
            repository,
            dir,
            input,
            push,
            ..
        } = self;
        let (stdin, stdout, stderr) = running.pipes();
        let conversation = async {
            tokio::try_join!(
                async { feed(stdin, input, &tx, service).await },
                async { speak(stdout, &tx, service).await },
                async { Ok(read_stderr(stderr).await) },
            )
        };
        let limit = forge.inner.config.exchange_limit;
        let outcome = tokio::time::timeout(limit, conversation).await;
        let complaint = match outcome {
            Ok(Ok(((), (), stderr))) => stderr,
            Ok(Err(ExchangeError::Client(error))) => {
                tracing::debug!(repository, service = service.command(), %error, "a git client broke off");
                // `running` ends git when it goes; the error makes the client see a cut, not an end.
                cut(&tx, error).await;
                return;
            }
            Err(_) => {
                tracing::warn!(
                    repository,
                    service = service.command(),
                    "a git exchange took too long"
                );
                cut(&tx, io::Error::from(io::ErrorKind::TimedOut)).await;
                return;
            }
        };
        match running.wait().await {
            // The client has heard the reason from git itself.
            Ok(status) if !status.success() => {
                tracing::info!(repository, service = service.command(), %status, stderr = complaint, "git ended with a complaint");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(repository, %error, "git's end is unknown"),
        }
        if let Some(push) = push {
            settle(forge, &repository, &dir, &push).await;
        }
        // Only now does the client see the end, so whoever asks after a push finds everything in order.
        drop(tx);
    }
}

/// Lets a client that still reads see that the answer is cut, not ended.
async fn cut(tx: &mpsc::Sender<io::Result<Bytes>>, error: io::Error) {
    let _ = tokio::time::timeout(CUT_WAIT, tx.send(Err(error))).await;
}

/// Passes the input on. A git that stops reading early has a reason it tells the client, so the rest is drained.
///
/// A push whose client breaks off is not killed: its input ends, git finds the pack cut, removes its quarantine (which
/// it leaves behind on a signal) and moves no ref.
async fn feed(
    mut stdin: ChildStdin,
    input: Input,
    tx: &mpsc::Sender<io::Result<Bytes>>,
    service: Service,
) -> Result<(), ExchangeError> {
    let Input {
        first,
        mut rest,
        limit,
    } = input;
    let mut passed = 0_u64;
    let mut is_reading = stdin.write_all(&first).await.is_ok();
    while is_reading {
        let next = tokio::select! {
            next = rest.next() => next,
            () = tx.closed() => Some(Err(io::Error::from(io::ErrorKind::ConnectionAborted))),
        };
        let Some(chunk) = next else { break };
        let chunk = chunk.and_then(|chunk| {
            passed = passed.saturating_add(chunk.len() as u64);
            // A little more than the largest pack, so that git itself says what is wrong with a larger one.
            if passed <= limit.saturating_add(CHUNK_BYTES as u64) {
                Ok(chunk)
            } else {
                Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    "the request is too large",
                ))
            }
        });
        match (chunk, service) {
            (Ok(chunk), _) => is_reading = stdin.write_all(&chunk).await.is_ok(),
            (Err(error), Service::ReceivePack) => {
                tracing::debug!(%error, "a push was broken off");
                return Ok(());
            }
            (Err(error), Service::UploadPack) => return Err(ExchangeError::Client(error)),
        }
    }
    drop(stdin);
    if !is_reading {
        drain(&mut rest, limit).await;
    }
    Ok(())
}

/// Passes output on until git has said everything. A fetch ends when the client no longer listens, a push goes on.
async fn speak(
    mut stdout: ChildStdout,
    tx: &mpsc::Sender<io::Result<Bytes>>,
    service: Service,
) -> Result<(), ExchangeError> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK_BYTES);
        let read = match service {
            Service::ReceivePack => stdout.read_buf(&mut buffer).await,
            Service::UploadPack => tokio::select! {
                read = stdout.read_buf(&mut buffer) => read,
                () = tx.closed() => Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
            },
        };
        match read {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(ExchangeError::Client(error)),
        }
        // Nobody listens: the next turn of the loop decides whether that matters.
        let _ = tx.send(Ok(buffer.split().freeze())).await;
    }
}

/// After a push: an unborn default branch is settled, pull requests' mirrors follow, the policy hears what moved.
async fn settle(forge: &Forge, repository: &str, dir: &std::path::Path, push: &Push) {
    let refs = match forge
        .git()
        .refs(dir, &["refs/heads", "refs/tags", PULLS, "refs/pull"])
        .await
    {
        Ok(refs) => refs,
        Err(error) => {
            tracing::error!(repository, error = %Chain(&error), "cannot read refs after a push");
            return;
        }
    };
    if let Err(error) = forge.settle_head(dir, &refs).await {
        tracing::error!(repository, error = %Chain(&error), "cannot set the default branch after a push");
    }
    if let Err(error) = forge.mirror_heads(dir, &refs).await {
        tracing::error!(repository, error = %Chain(&error), "cannot update pull requests after a push");
    }
    // git tells only the client how it went; all updates of a push are done or none.
    let is_done = push.updates.iter().all(|update| match update.kind {
        RefUpdateKind::Delete => refs.get(&update.name).is_none(),
        RefUpdateKind::Create | RefUpdateKind::Update => refs.get(&update.name) == Some(update.new.as_str()),
    });
    if is_done {
        push.policy.pushed(&push.updates);
    }
}
