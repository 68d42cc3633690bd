//! Starts programs: argument checks, pipes or a terminal, and the child's way to exec.

use crate::call::without_nul;
use crate::failure::{self, CallResult, failed};
use crate::pump::{Console, Pump};
use crate::spawn::Program;
use crate::stream::{Input, Stream};
use crate::wake::Wake;
use crate::{reaper, terminal};
use greenroom_protocol::guest::WORKSPACE_PATH;
use greenroom_protocol::guest::call::{CallErrorCode, Exec, Reply};
use greenroom_protocol::guest::frame::FrameKind;
use rustix::fd::OwnedFd;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What programs on a terminal are told of it, if the call says nothing else.
const TERMINAL_KIND: &str = "xterm-256color";

/// A program whose life is its call's: streams until the end, then replies with the exit.
pub fn run(stream: &Arc<Stream>, exec: &Exec) -> CallResult {
    let pump = start(exec, Arc::clone(&stream.wake))?;
    Ok(Reply::Exited(pump.run(&**stream)))
}

impl Console for Stream {
    fn room(&self) -> usize {
        self.credit()
    }

    fn put(&self, kind: FrameKind, bytes: &[u8]) {
        self.send_data(kind, bytes);
    }

    fn next_input(&self) -> Input {
        Self::next_input(self)
    }

    fn took_input(&self, len: usize) {
        self.grant(len);
    }

    fn is_cancelled(&self) -> bool {
        Self::is_cancelled(self)
    }
}

/// Both ends of what a program reads and writes.
struct Ends {
    theirs: [OwnedFd; 3],
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
}

/// Starts the program. `wake` rings when it ends.
pub fn start(exec: &Exec, wake: Arc<Wake>) -> CallResult<Pump> {
    let Some(name) = exec.argv.first() else {
        return Err(failed(CallErrorCode::Invalid, "no program was given"));
    };
    let cwd = checked(exec)?;
    let os = |error: io::Error| failure::of(&error, name);
    let ends = match exec.terminal {
        Some(size) => on_terminal(size),
        None => on_pipes(exec),
    }
    .map_err(os)?;
    let mut variables = exec.env.clone();
    if exec.terminal.is_some() {
        variables.insert(0, ("TERM".to_owned(), TERMINAL_KIND.to_owned()));
    }
    let program = Program::new(&exec.argv, &variables, &cwd, ends.theirs, exec.terminal.is_some());
    let mut pump = Pump::new(exec, wake);
    let ended = pump.ended();
    // Its copies of the other ends go with it; with them open, output would never end.
    let pid = program
        .and_then(|program| reaper::spawn(&program, ended))
        .map_err(os)?;
    for fd in [Some(&ends.stdout), ends.stderr.as_ref(), ends.stdin.as_ref()]
        .into_iter()
        .flatten()
    {
        rustix::io::ioctl_fionbio(fd, true).map_err(|error| os(error.into()))?;
    }
    pump.connect(pid, ends.stdin, ends.stdout, ends.stderr);
    Ok(pump)
}

/// The directory to run in, if everything of the call can be given to the kernel.
fn checked(exec: &Exec) -> CallResult<std::path::PathBuf> {
    for text in exec.argv.iter().chain([&exec.cwd]) {
        without_nul(text)?;
    }
    for (name, value) in &exec.env {
        without_nul(value)?;
        if name.is_empty() || without_nul(name)?.contains('=') {
            return Err(failed(
                CallErrorCode::Invalid,
                format!("{name:?} is no name for a variable"),
            ));
        }
    }
    let cwd = Path::new(WORKSPACE_PATH).join(&exec.cwd);
    if !cwd.is_dir() {
        let shown = cwd.display();
        return Err(failed(
            CallErrorCode::NotFound,
            format!("{shown}: is no directory to run a program in"),
        ));
    }
    Ok(cwd)
}

fn on_pipes(exec: &Exec) -> io::Result<Ends> {
    let (stdout, out_write) = pipe()?;
    let (stderr, err_write) = match exec.is_merged {
        true => (None, out_write.try_clone()?),
        false => pipe().map(|(read, write)| (Some(read), write))?,
    };
    let (stdin_read, stdin) = match exec.has_input {
        true => pipe().map(|(read, write)| (read, Some(write)))?,
        false => (std::fs::File::open("/dev/null")?.into(), None),
    };
    Ok(Ends {
        theirs: [stdin_read, out_write, err_write],
        stdin,
        stdout,
        stderr,
    })
}

fn on_terminal(size: greenroom_protocol::guest::call::TerminalSize) -> io::Result<Ends> {
    let (ours, theirs) = terminal::open(size)?;
    Ok(Ends {
        theirs: [theirs.try_clone()?, theirs.try_clone()?, theirs],
        stdin: Some(ours.try_clone()?),
        stdout: ours,
        stderr: None,
    })
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}
