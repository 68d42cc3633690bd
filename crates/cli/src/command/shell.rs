//! A terminal in a sandbox: what is typed here goes there, what is shown there comes here.

use crate::failure::{Exit, Failure};
use crate::terminal::{Span, Style, Terminal};
use greenroom_protocol::client::shell::{ShellControl, ShellQuery};
use greenroom_sdk::{ClientError, Shell, ShellEvent, ShellEvents, ShellInput};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::task::Poll;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Bytes of input sent at once.
const INPUT_BYTES: usize = 8 * 1024;

/// What this terminal is like.
pub fn query(branch: Option<String>) -> ShellQuery {
    let size = tcgetwinsize(std::io::stdout())
        .ok()
        .filter(|size| size.ws_col > 0 && size.ws_row > 0);
    ShellQuery {
        columns: size.map(|size| size.ws_col.min(1000)),
        rows: size.map(|size| size.ws_row.min(1000)),
        term: std::env::var("TERM")
            .ok()
            .filter(|term| !term.is_empty() && term != "dumb"),
        branch,
        ticket: None,
    }
}

/// Stays with a shell to its end; its exit status is the command's.
pub async fn run(shell: Shell, terminal: Terminal) -> Result<Exit, Failure> {
    let Shell { input, mut events } = shell;
    let mut progress = None;
    loop {
        match events.next().await? {
            ShellEvent::Starting => progress = Some(terminal.progress("starting a sandbox")),
            ShellEvent::Ready => break,
            ShellEvent::Closed(problem) => return Err(problem.into()),
            ShellEvent::Output(_) | ShellEvent::Exited { .. } => {}
        }
    }
    drop(progress);
    if std::io::stdin().is_terminal() {
        terminal.note(&[Span::new(Style::Dim, "exit or Ctrl-D leaves")]);
    }
    let _raw = Raw::enter();
    let mut ends = Vec::new();
    for kind in [
        SignalKind::terminate(),
        SignalKind::hangup(),
        SignalKind::interrupt(),
    ] {
        ends.push(signal(kind).map_err(unusable)?);
    }
    let ended = first_of(ends);
    tokio::select! {
        exit = show(&mut events) => exit,
        failure = pass_input(input) => Err(failure),
        // So that this terminal is left as it was.
        () = ended => Ok(Exit::Interrupted),
    }
}

/// Returns with the first signal.
async fn first_of(mut signals: Vec<Signal>) {
    std::future::poll_fn(|context| {
        let is_there = signals
            .iter_mut()
            .any(|signal| signal.poll_recv(context).is_ready());
        match is_there {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

fn unusable(error: std::io::Error) -> Failure {
    Failure::new(
        "terminal_unusable",
        format!("the terminal cannot be watched: {error}"),
    )
}

/// The connection ended before the shell did.
fn lost(error: ClientError) -> Failure {
    let failure = Failure::from(error);
    Failure {
        exit: Exit::Unreachable,
        ..Failure::new(
            "shell_lost",
            format!("the connection to the shell broke: {}", failure.message),
        )
    }
    .with_hint("what ran in it was ended; in a session's sandbox, files stay")
}

/// Shows what comes until the shell ends.
async fn show(events: &mut ShellEvents) -> Result<Exit, Failure> {
    loop {
        match events.next().await.map_err(lost)? {
            ShellEvent::Output(bytes) => {
                let mut out = std::io::stdout().lock();
                if out.write_all(&bytes).and_then(|()| out.flush()).is_err() {
                    return Ok(Exit::PipeClosed);
                }
            }
            ShellEvent::Exited { code, signal } => return Ok(Exit::Program(status(code, signal))),
            ShellEvent::Closed(problem) => return Err(problem.into()),
            ShellEvent::Starting | ShellEvent::Ready => {}
        }
    }
}

/// Passes on what is typed and how large the terminal is; returns only if that cannot be done. What is shown says why, if it can.
async fn pass_input(mut shell: ShellInput) -> Failure {
    let mut typed = input();
    let (mut is_typing, mut is_line_open) = (true, false);
    let mut resized = match signal(SignalKind::window_change()) {
        Ok(resized) => resized,
        Err(error) => return unusable(error),
    };
    loop {
        let sent = tokio::select! {
            bytes = typed.recv(), if is_typing => match bytes {
                Some(bytes) => {
                    is_line_open = bytes.last() != Some(&b'\n');
                    shell.send(bytes).await
                }
                None => {
                    is_typing = false;
                    // The end of a file ends its last line too; a terminal takes an end only at the beginning of a line.
                    let line = match is_line_open {
                        true => shell.send(b"\n".to_vec()).await,
                        false => Ok(()),
                    };
                    match line {
                        Ok(()) => shell.control(ShellControl::End).await,
                        broken => broken,
                    }
                }
            },
            _ = resized.recv() => match tcgetwinsize(std::io::stdout()) {
                Ok(size) => {
                    let (columns, rows) = (size.ws_col, size.ws_row);
                    shell.control(ShellControl::Resize { columns, rows }).await
                }
                Err(_) => Ok(()),
            },
        };
        if sent.is_err() {
            // The other direction ends too, and says why.
            return std::future::pending().await;
        }
    }
}

/// What a shell would report.
fn status(code: Option<i32>, signal: Option<i32>) -> u8 {
    let status = code.or(signal.map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(status).unwrap_or(1)
}

/// Standard input piece by piece. On a thread of its own: a read of a terminal cannot be ended, and the program must not wait for it.
fn input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut bytes = vec![0; INPUT_BYTES];
        while let Ok(count @ 1..) = stdin.read(&mut bytes) {
            if sender.blocking_send(bytes[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// This terminal passes on every key, Ctrl-C too, until this is dropped. What was typed ahead is kept.
struct Raw(Termios);

impl Raw {
    fn enter() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Drain, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::status;

    #[test]
    fn the_exit_status_is_the_shells() {
        for (code, signal, expected) in [
            (Some(0), None, 0),
            (Some(7), None, 7),
            (None, Some(9), 137),
            (Some(300), None, 1),
            (None, None, 1),
        ] {
            assert_eq!(status(code, signal), expected);
        }
    }
}
