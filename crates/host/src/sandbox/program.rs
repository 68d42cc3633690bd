//! Programs of a sandbox: run to their end, started to be followed and left, found again, typed to.

use super::{CALL_TIMEOUT, Lease, Sandbox, invalid, within};
use crate::failure::SandboxError;
use crate::link::Event;
use crate::usage::Reading;
use greenroom_protocol::guest::call::{
    BackgroundProcess, Call, Exec, Exit, OutputChunk, Reply, TerminalSize,
};
use greenroom_protocol::guest::frame::FrameKind;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a guest may take to end a program beyond its time limit or after a cancellation: TERM, 2 s, KILL, the rest
/// of the output.
const EXIT_TIMEOUT: Duration = Duration::from_secs(15);

impl Sandbox {
    /// Runs a program without input, passing output on as it comes. On cancellation the process group is killed and the
    /// exit is still returned. A full `output` channel slows the program down; a closed one discards output. With a key it
    /// goes on when this future is dropped or the link breaks, and a second call with the key joins it.
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
        self.bound_output(&mut exec);
        // A guest of the first generation knows neither; the program runs, and ends with its link.
        if self.generation() < 2 {
            exec.key = None;
        }
        if exec.key.is_some() || exec.terminal.is_some() {
            return self.begin(exec).await?.follow(input, output, cancel).await;
        }
        let timeout = exec.timeout_ms.map(Duration::from_millis);
        let before = self.meter.read();
        let lease = self.open(&Call::Exec(exec)).await?;
        let exit = self.follow(lease, timeout, input, output, cancel).await;
        self.name_limits(exit, before)
    }

    /// Starts a program that has a key or a terminal, or joins the one that has this key already, and returns once the
    /// guest names its process. What it wrote waits until [`Program::follow`].
    pub async fn begin(&self, mut exec: Exec) -> Result<Program, SandboxError> {
        if exec.is_background || (exec.key.is_none() && exec.terminal.is_none()) {
            return Err(invalid(
                "only a program with a key or a terminal can be followed later",
            ));
        }
        self.bound_output(&mut exec);
        let timeout = exec.timeout_ms.map(Duration::from_millis);
        self.program(&Call::Exec(exec), timeout).await
    }

    /// Finds a process again, also one that an earlier link started or that has ended: its output from `after_offset`, or
    /// from the first that is still kept, then its exit.
    pub async fn attach(&self, process_id: u32, after_offset: u64) -> Result<Program, SandboxError> {
        let call = Call::Attach {
            process_id,
            after_offset,
        };
        self.program(&call, None).await
    }

    /// Processes with a key, on a terminal or in the background, running and ended, oldest first.
    pub async fn processes(&self) -> Result<Vec<BackgroundProcess>, SandboxError> {
        match self.call(Call::ListProcesses).await? {
            Reply::Processes { processes, .. } => Ok(processes),
            _ => Err(self.distrust()),
        }
    }

    /// Tells what runs on a terminal of its new size.
    pub async fn resize_terminal(&self, process_id: u32, size: TerminalSize) -> Result<(), SandboxError> {
        match self.call(Call::ResizeTerminal { process_id, size }).await? {
            Reply::Done => Ok(()),
            _ => Err(self.distrust()),
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

    async fn program(&self, call: &Call, timeout: Option<Duration>) -> Result<Program, SandboxError> {
        let before = self.meter.read();
        let mut lease = self.open(call).await?;
        match within(CALL_TIMEOUT, lease.stream.next()).await? {
            Event::Reply(Reply::Started { process_id }) => Ok(Program {
                sandbox: self.clone(),
                lease,
                process_id,
                timeout,
                before,
            }),
            other => {
                lease.is_done = true;
                Err(self.unexpected(other))
            }
        }
    }

    /// What is typed and read on a terminal has no end.
    fn bound_output(&self, exec: &mut Exec) {
        if exec.terminal.is_none() {
            let most = self.meter.limits().max_output_bytes;
            exec.max_output_bytes = Some(exec.max_output_bytes.map_or(most, |wanted| wanted.min(most)));
        }
    }

    /// Adds the limits that were hit since `before`, which the guest cannot know.
    fn name_limits(&self, exit: Result<Exit, SandboxError>, before: Reading) -> Result<Exit, SandboxError> {
        exit.map(|exit| Exit {
            limits_hit: self.meter.hit_since(before, &exit),
            ..exit
        })
    }

    async fn follow(
        &self,
        mut lease: Lease,
        timeout: Option<Duration>,
        input: Option<mpsc::Receiver<Vec<u8>>>,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, SandboxError> {
        let exit = {
            let feed = self.feed(&lease, input);
            let take = self.take(&lease, timeout, output, cancel);
            tokio::pin!(feed, take);
            let mut is_feeding = true;
            loop {
                tokio::select! {
                    exit = &mut take => break exit,
                    () = &mut feed, if is_feeding => is_feeding = false,
                }
            }
        };
        // Without an exit the guest may still be running it.
        lease.is_done = matches!(exit, Ok(_) | Err(SandboxError::Call(_)));
        exit
    }

    async fn feed(&self, lease: &Lease, input: Option<mpsc::Receiver<Vec<u8>>>) {
        let Some(mut input) = input else { return };
        let stream = &lease.stream;
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

    async fn take(
        &self,
        lease: &Lease,
        timeout: Option<Duration>,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, SandboxError> {
        let stream = &lease.stream;
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
}

/// A program that the guest keeps by itself. Dropping it leaves the program running, but for one on a terminal without a
/// key, which is hung up.
pub struct Program {
    sandbox: Sandbox,
    lease: Lease,
    process_id: u32,
    timeout: Option<Duration>,
    /// Of the limits, when it was started or found.
    before: Reading,
}

impl Program {
    /// What [`Sandbox::attach`] finds it by.
    pub fn process_id(&self) -> u32 {
        self.process_id
    }

    /// Passes output on, and input in if it takes any, until the program ends; at the end of `input` its standard input is
    /// closed. Cancellation kills its group and still returns the exit; dropping this future leaves it running.
    pub async fn follow(
        self,
        input: Option<mpsc::Receiver<Vec<u8>>>,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, SandboxError> {
        let Self {
            sandbox,
            lease,
            timeout,
            before,
            process_id: _,
        } = self;
        let exit = sandbox.follow(lease, timeout, input, output, cancel).await;
        sandbox.name_limits(exit, before)
    }
}
