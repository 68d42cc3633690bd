//! Programs on a terminal: what they see of it, typing, job control, size, the end of input, and finding it again.

use crate::world::{PATIENCE, World, assert_code, eventually, sh, shell};
use greenroom_host::{Sandbox, SandboxError, refuse_routes};
use greenroom_protocol::guest::call::{CallErrorCode, Exec, Exit, OutputChunk, TerminalSize};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

crate::scenarios_on_each_kernel!(
    programs_see_a_terminal_of_the_given_size,
    keys_signal_the_foreground_job,
    a_new_size_is_told,
    the_end_of_input_is_typed,
    a_terminal_is_found_again,
    a_terminal_without_a_key_is_hung_up_with_its_link,
    a_child_that_holds_the_terminal_does_not_hold_the_exit,
    jobs_of_a_cancelled_shell_end_too,
);

const SIZE: TerminalSize = TerminalSize {
    rows: 33,
    columns: 101,
};

fn on_terminal(argv: &[&str], key: Option<&str>) -> Exec {
    Exec {
        argv: argv.iter().map(|text| (*text).to_owned()).collect(),
        terminal: Some(SIZE),
        key: key.map(str::to_owned),
        ..Exec::default()
    }
}

const SHELL: &[&str] = &["/bin/bash", "--norc", "--noprofile", "-i"];

/// A person at a terminal.
struct Screen {
    process_id: u32,
    keys: Option<mpsc::Sender<Vec<u8>>>,
    output: mpsc::Receiver<OutputChunk>,
    seen: String,
    cancel: CancellationToken,
    followed: JoinHandle<Result<Exit, SandboxError>>,
}

impl Screen {
    fn of(program: greenroom_host::Program) -> Self {
        let (keys, input) = mpsc::channel(4);
        let (tx, output) = mpsc::channel(16);
        let cancel = CancellationToken::new();
        Self {
            process_id: program.process_id(),
            keys: Some(keys),
            output,
            seen: String::new(),
            followed: tokio::spawn(program.follow(Some(input), tx, cancel.clone())),
            cancel,
        }
    }

    async fn open(sandbox: &Sandbox, exec: Exec) -> Self {
        Self::of(sandbox.begin(exec).await.unwrap())
    }

    async fn types(&self, text: &str) {
        let keys = self.keys.as_ref().unwrap();
        keys.send(text.as_bytes().to_vec()).await.unwrap();
    }

    /// Waits for a text behind what was looked at before.
    async fn shows(&mut self, text: &str) {
        let look = async {
            loop {
                if let Some(at) = self.seen.find(text) {
                    self.seen.drain(..at + text.len());
                    return;
                }
                match self.output.recv().await {
                    Some(chunk) => self.seen.push_str(&String::from_utf8_lossy(&chunk.bytes)),
                    None => panic!("{text:?} never came; at the end: {:?}", self.seen),
                }
            }
        };
        let waited = tokio::time::timeout(PATIENCE, look).await;
        assert!(waited.is_ok(), "{text:?} never came; so far: {:?}", self.seen);
    }

    async fn exit(mut self) -> Exit {
        let drain = async { while self.output.recv().await.is_some() {} };
        let both = async { tokio::join!(drain, &mut self.followed).1 };
        let exit = tokio::time::timeout(PATIENCE, both).await.expect("in time");
        exit.unwrap().unwrap()
    }
}

async fn programs_see_a_terminal_of_the_given_size(world: &World) {
    let sandbox = world.start().await;
    // gVisor shows no foreground group in /proc, and its /dev/tty is no way to the terminal.
    let (own, is_foreground) = match world.isolation.has_own_kernel() {
        true => ("", "10\r\n"),
        false => ("echo </dev/tty;", "11\r\n"),
    };
    let script = &format!(
        "tty; stty size; echo $TERM; ps -o pid=,sid=,tpgid= -p $$ | awk '{{print ($1==$2)($1==$3)}}'; \
         echo error >&2; {own} exit 4"
    );
    let mut screen = Screen::open(&sandbox, on_terminal(&["/bin/sh", "-c", script], None)).await;
    screen.types("\n").await;
    for line in [
        "/dev/pts/",
        "33 101\r\n",
        "xterm-256color\r\n",
        is_foreground,
        "error\r\n",
    ] {
        screen.shows(line).await;
    }
    assert_eq!(screen.exit().await.code, Some(4));
    let exec = Exec {
        env: vec![("TERM".to_owned(), "dumb".to_owned())],
        ..on_terminal(&["/bin/sh", "-c", "echo $TERM"], None)
    };
    let mut screen = Screen::open(&sandbox, exec).await;
    screen.shows("dumb\r\n").await;
    assert_eq!(screen.exit().await.code, Some(0));
}

async fn keys_signal_the_foreground_job(world: &World) {
    let sandbox = world.start().await;
    let mut screen = Screen::open(&sandbox, on_terminal(SHELL, None)).await;
    // What is typed is shown too; the quotes tell it from what is printed.
    screen.types("echo at'' work; sleep 600\n").await;
    screen.shows("at work\r\n").await;
    let runs = async |job: &str| {
        let script = format!("pgrep -fc '[s]leep {job}' || true");
        eventually("the job runs", async || {
            let count = sh(&sandbox, &script).await.ok();
            (count.trim() == "1").then_some(())
        })
        .await;
    };
    runs("600").await;
    screen.types("\x03").await;
    screen.types("echo code'' $?\n").await;
    screen.shows("code 130\r\n").await;
    screen.types("sleep 601\n").await;
    runs("601").await;
    screen.types("\x1a").await;
    screen.shows("Stopped").await;
    screen.types("kill %1; exit 7\n").await;
    screen.types("exit 7\n").await;
    assert_eq!(screen.exit().await.code, Some(7));
}

async fn a_new_size_is_told(world: &World) {
    let sandbox = world.start().await;
    let script = "import os, signal, time\n\
                  def tell(*_):\n    size = os.get_terminal_size()\n    os.write(1, b'%d %d\\n' % (size.lines, size.columns))\n\
                  signal.signal(signal.SIGWINCH, tell)\n\
                  print('ready', flush=True)\n\
                  while True: time.sleep(0.05)";
    let argv = ["/usr/bin/python3", "-c", script];
    let mut screen = Screen::open(&sandbox, on_terminal(&argv, None)).await;
    screen.shows("ready\r\n").await;
    for (rows, columns) in [(50, 200), (24, 80)] {
        let size = TerminalSize { rows, columns };
        sandbox.resize_terminal(screen.process_id, size).await.unwrap();
        screen.shows(&format!("{rows} {columns}\r\n")).await;
    }
    screen.cancel.cancel();
    assert!(screen.exit().await.killed.is_some());
    let plain = sandbox.spawn(shell("sleep 600")).await.unwrap();
    assert_code(sandbox.resize_terminal(plain, SIZE).await, CallErrorCode::Invalid);
    assert_code(sandbox.resize_terminal(99, SIZE).await, CallErrorCode::NotFound);
}

async fn the_end_of_input_is_typed(world: &World) {
    let sandbox = world.start().await;
    let mut cat = Screen::open(&sandbox, on_terminal(&["/bin/cat"], None)).await;
    cat.types("a line\n").await;
    cat.shows("a line\r\na line\r\n").await;
    let mut shell = Screen::open(&sandbox, on_terminal(SHELL, None)).await;
    // Not while the shell changes the terminal's mode: what is typed ahead then may get lost, as everywhere.
    shell.shows("$ ").await;
    for mut screen in [cat, shell] {
        screen.keys = None;
        let exit = screen.exit().await;
        assert_eq!((exit.code, exit.killed), (Some(0), None));
    }
}

async fn a_terminal_is_found_again(world: &World) {
    let sandbox = world.start().await;
    let mut screen = Screen::open(&sandbox, on_terminal(SHELL, Some("screen"))).await;
    screen.types("word=kept; echo re''ady\n").await;
    screen.shows("ready\r\n").await;
    screen.followed.abort();
    // Only then may its keys go: whoever still follows types the end of input, and the shell ends.
    let _ = (&mut screen.followed).await;
    let id = sandbox.id().clone();
    drop((screen, sandbox));

    let sandbox = world.host.find(&id, refuse_routes()).await.unwrap().unwrap();
    let processes = sandbox.processes().await.unwrap();
    let [found] = processes.as_slice() else {
        panic!("{processes:?}")
    };
    assert!(found.has_terminal && found.key.as_deref() == Some("screen") && found.exit.is_none());
    let process_id = found.process_id;
    let mut screen = Screen::of(sandbox.attach(process_id, 0).await.unwrap());
    screen.shows("ready\r\n").await;
    screen.types("echo still'' $word\n").await;
    screen.shows("still kept\r\n").await;
    // When it shows its prompt, readline sets the size that it found a moment before.
    screen.shows("$ ").await;
    let size = TerminalSize { rows: 5, columns: 7 };
    sandbox.resize_terminal(process_id, size).await.unwrap();
    screen.types("stty size; exit 9\n").await;
    screen.shows("5 7\r\n").await;
    assert_eq!(screen.exit().await.code, Some(9));
    // By its key as well, and after its end.
    let screen = Screen::open(&sandbox, on_terminal(SHELL, Some("screen"))).await;
    assert_eq!(
        (screen.process_id, screen.exit().await.code),
        (process_id, Some(9))
    );
    sandbox.resize_terminal(process_id, SIZE).await.unwrap();
}

async fn a_terminal_without_a_key_is_hung_up_with_its_link(world: &World) {
    let sandbox = world.start().await;
    let mut screen = Screen::open(&sandbox, on_terminal(SHELL, None)).await;
    screen.types("sleep 600 &\n").await;
    screen.types("echo re''ady; sleep 601\n").await;
    screen.shows("ready\r\n").await;
    screen.followed.abort();
    let id = sandbox.id().clone();
    drop((screen, sandbox));
    let sandbox = world.host.find(&id, refuse_routes()).await.unwrap().unwrap();
    nothing_sleeps(&sandbox).await;
}

async fn a_child_that_holds_the_terminal_does_not_hold_the_exit(world: &World) {
    let sandbox = world.start().await;
    let script = "setsid sleep 600 & echo started; exit 2";
    let mut screen = Screen::open(&sandbox, on_terminal(&["/bin/bash", "-c", script], None)).await;
    screen.shows("started\r\n").await;
    assert_eq!(screen.exit().await.code, Some(2));
}

async fn jobs_of_a_cancelled_shell_end_too(world: &World) {
    let sandbox = world.start().await;
    let mut screen = Screen::open(&sandbox, on_terminal(SHELL, Some("jobs"))).await;
    screen
        .types("trap '' HUP; (trap '' HUP TERM; sleep 600) & sleep 601 &\n")
        .await;
    screen.types("echo re''ady\n").await;
    screen.shows("ready\r\n").await;
    screen.cancel.cancel();
    let exit = screen.exit().await;
    assert!(exit.killed.is_some() && exit.signal == Some(9), "{exit:?}");
    nothing_sleeps(&sandbox).await;
}

async fn nothing_sleeps(sandbox: &Sandbox) {
    eventually("every job is gone", async || {
        let left = sh(sandbox, "pgrep -c sleep || true").await.ok();
        (left.trim() == "0").then_some(())
    })
    .await;
}
