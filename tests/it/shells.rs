//! Terminals: in a sandbox of an environment that is gone afterwards, and in a session's.

use crate::script::{add, commands, outputs};
use greenroom_system_tests::api::{Api, pretty};
use greenroom_system_tests::product::{Product, Who};
use greenroom_system_tests::repo;
use std::io::{BufRead as _, Write as _};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

greenroom_system_tests::for_both_users! {
    an_environment_is_tried_in_a_shell_that_leaves_nothing,
    a_shell_is_a_terminal,
    a_shell_ends_with_its_client_and_with_its_server,
    people_work_in_a_sessions_sandbox,
}

const PATIENCE: Duration = Duration::from_secs(40);

async fn shop(product: &mut Product) -> Api {
    let files = [
        ("README.md", "A shop.\n"),
        (".greenroom/environment.toml", "[variables]\nCOLOUR = \"green\"\n"),
    ];
    let source = repo::with_files(product.root(), "shop", &files);
    let api = product.start().await;
    add(&api, "shop", &source).await;
    api
}

fn begin(product: &Product, arguments: &[&str], input: &str) -> Child {
    let mut child = product
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    child
}

fn run(product: &Product, arguments: &[&str], input: &str) -> (Option<i32>, String) {
    let child = begin(product, arguments, input);
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    let (sender, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = ended.recv_timeout(PATIENCE) else {
        // SAFETY: plain system call on the pid of a child that was not waited for.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        panic!("{arguments:?} never ends");
    };
    let Output {
        status,
        stdout,
        stderr,
    } = output.unwrap();
    let text = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (status.code(), text.concat())
}

/// Waits until no sandbox has files any more.
fn nothing_is_left(product: &Product) {
    let deadline = Instant::now() + PATIENCE;
    let sandboxes = product.sandboxes().join("sb");
    while std::fs::read_dir(&sandboxes).unwrap().count() > 0 {
        assert!(Instant::now() < deadline, "a sandbox is left");
        std::thread::sleep(Duration::from_millis(20));
    }
}

async fn an_environment_is_tried_in_a_shell_that_leaves_nothing(who: Who) {
    let mut product = Product::with_config(
        &commands(&[("none", "true")]),
        "[image]\nschedule = \"off\"\n\n[sandbox]\nmax_running = 1\n",
    );
    product.run_as(who);
    let api = shop(&mut product).await;
    let typed = "cat README.md; echo colour $COLOUR; git fetch -q && echo fetched\n\
        git commit -q --allow-empty -m mine; git log -1 --format='%an <%ae>'; git push -q origin HEAD:refs/heads/main 2> /dev/null || echo refused\n\
        exit 7\n";
    let (status, text) = run(&product, &["env", "shell", "shop"], typed);
    assert_eq!(status, Some(7), "{text}");
    for part in ["A shop.", "colour green", "fetched", "Owner <owner@", "refused"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    nothing_is_left(&product);
    // The end of input is the end of the shell.
    let (status, text) = run(
        &product,
        &["env", "shell", "shop", "--branch", "main"],
        "echo a$((1+1))b",
    );
    assert!(status == Some(0) && text.contains("a2b"), "{status:?} {text}");
    nothing_is_left(&product);

    for (arguments, code) in [
        (&["env", "shell", "nowhere"][..], "repository_unknown"),
        (&["env", "shell", "shop", "--branch", "none"], "branch_unknown"),
        (
            &["session", "shell", "ses_00000000000000000000000000"],
            "session_unknown",
        ),
    ] {
        let (status, text) = run(&product, arguments, "");
        assert!(
            status == Some(1) && text.contains(code),
            "{code}: {status:?} {text}"
        );
    }
    let path = "/v1/repositories/shop/shell";
    for (query, status, code) in [
        ("", 426, "upgrade_required"),
        ("?columns=0", 422, "terminal_invalid"),
        ("?rows=60000", 422, "terminal_invalid"),
        ("?term=a%20b", 422, "terminal_invalid"),
        ("?columns=x", 422, "query_invalid"),
    ] {
        let (found, problem) = api.get(&format!("{path}{query}")).await;
        assert_eq!(
            (found, problem["code"].as_str()),
            (status, Some(code)),
            "{query}: {problem}"
        );
    }
    let nobody = api
        .anonymous()
        .get(format!("{}{path}", api.url))
        .send()
        .await
        .unwrap();
    assert_eq!(nobody.status(), 401);

    // One that is open takes a place of those that may run.
    let mut open = begin(&product, &["env", "shell", "shop"], "echo op''ened; sleep 600\n");
    let mut shown = String::new();
    let mut stdout = std::io::BufReader::new(open.stdout.take().unwrap());
    while !shown.contains("opened") {
        assert!(stdout.read_line(&mut shown).unwrap() > 0, "it ended: {shown}");
    }
    let (status, text) = run(&product, &["env", "shell", "shop"], "exit 0\n");
    assert!(
        status == Some(1) && text.contains("sandboxes_exhausted"),
        "{status:?} {text}"
    );
    open.kill().unwrap();
    open.wait().unwrap();
    nothing_is_left(&product);
    let (status, text) = run(&product, &["env", "shell", "shop"], "exit 3\n");
    assert_eq!(status, Some(3), "its place is free again: {text}");
    product.stop();
}

/// Drives the program on a terminal of its own.
const DRIVER: &str = r#"
import fcntl, os, pty, select, signal, struct, sys, termios, time
pid, master = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm"
    os.execvp(sys.argv[1], sys.argv[1:])
def size(columns, rows):
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
seen = b""
def until(text, seconds=40):
    global seen
    end = time.time() + seconds
    while text not in seen:
        ready, _, _ = select.select([master], [], [], max(0, end - time.time()))
        if not ready:
            sys.exit("never saw %r in %r" % (text, seen))
        try:
            piece = os.read(master, 4096)
        except OSError:
            piece = b""
        if not piece:
            sys.exit("it ended before %r: %r" % (text, seen))
        seen += piece
    seen = seen[seen.index(text) + len(text):]
def type(text):
    os.write(master, text)
until(b"leaves")
type(b"stty size; echo $TERM; test -t 0 && echo tty''yes\n")
until(b"24 80"), until(b"xterm"), until(b"ttyyes")
size(100, 30)
time.sleep(0.5)
type(b"stty size\n")
until(b"30 100")
type(b"sleep 600; echo slept=$?\n")
time.sleep(0.5)
type(b"\x03")
type(b"true; echo go''ing on\n")
until(b"going on")
type(b"\x04")
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status) and "status %d" % status)
"#;

async fn a_shell_is_a_terminal(who: Who) {
    let mut product = Product::with_config(&commands(&[("none", "true")]), "[image]\nschedule = \"off\"\n");
    product.run_as(who);
    let _api = shop(&mut product).await;
    let shell = product.command(&["env", "shell", "shop"]);
    let mut driver = std::process::Command::new("python3");
    driver
        .args(["-c", DRIVER])
        .arg(shell.get_program())
        .args(shell.get_args());
    for (name, value) in shell.get_envs() {
        match value {
            Some(value) => driver.env(name, value),
            None => driver.env_remove(name),
        };
    }
    let output = driver.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    nothing_is_left(&product);
    product.stop();
}

async fn a_shell_ends_with_its_client_and_with_its_server(who: Who) {
    let mut product = Product::with_config(&commands(&[("none", "true")]), "[image]\nschedule = \"off\"\n");
    product.run_as(who);
    let _api = shop(&mut product).await;
    let mut client = begin(&product, &["env", "shell", "shop"], "sleep 600\n");
    let deadline = Instant::now() + PATIENCE;
    while std::fs::read_dir(product.sandboxes().join("sb")).unwrap().count() == 0 {
        assert!(Instant::now() < deadline, "no sandbox");
        std::thread::sleep(Duration::from_millis(20));
    }
    client.kill().unwrap();
    client.wait().unwrap();
    nothing_is_left(&product);

    let client = begin(&product, &["env", "shell", "shop"], "echo be''gun; sleep 600\n");
    std::thread::sleep(Duration::from_millis(1500));
    product.kill();
    let output = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    product.start().await;
    nothing_is_left(&product);
    product.stop();
}

async fn people_work_in_a_sessions_sandbox(who: Who) {
    let script = commands(&[
        ("work", "echo agent > agent.txt"),
        ("show", "cat person.txt"),
        ("go", "touch /tmp/go; sleep 0.2"),
    ]) + "[[script]]\nname = \"say\"\nprompt_contains = \"nothing\"\n[[script.step]]\nsay = \"Nothing to do.\"\n";
    let mut product = Product::with_script(&script);
    product.run_as(who);
    let api = shop(&mut product).await;
    let session = api.create_session("shop").await;
    let (status, text) = run(&product, &["session", "shell", &session], "");
    assert!(
        status == Some(1) && text.contains("sandbox_not_running"),
        "{status:?} {text}"
    );
    assert_eq!(api.prompt(&session, "one", "work").await.0, 202);
    api.wait_for_turns(&session, 1).await;
    let typed = "cat agent.txt; echo person > person.txt; git add -A; git commit -q -m mine; git log -1 --format='by %an%n%B'; exit\n";
    let (status, text) = run(&product, &["session", "shell", &session], typed);
    assert!(
        status == Some(0)
            && text.contains("agent")
            && text.contains("by Owner")
            && text.contains(&format!("Greenroom-Session: {session}")),
        "{status:?} {text}"
    );
    // Also what is changed while a turn pushes, and by a turn that does nothing itself.
    let mut open = begin(
        &product,
        &["session", "shell", &session],
        "echo on > on.txt\nuntil [ -e /tmp/go ]; do sleep 0.05; done; echo late > late.txt; exit\n",
    );
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(api.prompt(&session, "meanwhile", "go").await.0, 202);
    api.wait_for_turns(&session, 2).await;
    assert!(open.wait().unwrap().success());
    assert_eq!(api.prompt(&session, "say", "nothing").await.0, 202);
    api.wait_for_turns(&session, 3).await;
    let paths = changed(&api, &session).await;
    assert_eq!(paths, ["agent.txt", "late.txt", "on.txt", "person.txt"]);
    // What was changed is pushed with the next turn, also when the server was another meanwhile.
    let (status, text) = run(
        &product,
        &["session", "shell", &session],
        "echo again >> person.txt; exit\n",
    );
    assert_eq!(status, Some(0), "{text}");
    product.kill();
    let api = product.start().await;
    assert_eq!(api.prompt(&session, "two", "show").await.0, 202);
    let events = api.wait_for_turns(&session, 4).await;
    let said = outputs(&events).pop().unwrap();
    assert!(said.starts_with("person\nagain\n"), "{}", pretty(&events));
    assert_eq!(changed(&api, &session).await, paths);
    product.stop();
}

/// Paths that differ from the base branch on the forge.
async fn changed(api: &Api, session: &str) -> Vec<String> {
    let diff = api.must_get(&format!("/v1/sessions/{session}/diff")).await;
    let files = diff["files"].as_array().unwrap().iter();
    files
        .map(|file| file["path"].as_str().unwrap().to_owned())
        .collect()
}
