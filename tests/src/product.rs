//! A `greenroom up` process with its own data directory on port 0. Ends with its test, and its sandboxes with it. Keeps its
//! log when the test fails, and fails the test when the log holds a warning nobody expected or when anything of a sandbox
//! outlives the server.

use crate::api::Api;
use greenroom_testkit::leftovers;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take before a test gives up. Far more than it takes, so that a loaded machine is no failure.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// Nobody's id on any machine.
const ORDINARY_USER: u32 = 54_321;

/// Who runs the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Whoever runs the tests, usually root.
    Tester,
    /// One without any right that an ordinary user does not have.
    OrdinaryUser,
}

/// Makes one test per user out of scenarios `async fn name(who: Who)`.
#[macro_export]
macro_rules! for_both_users {
    ($($name:ident),+ $(,)?) => {
        mod as_tester {
            $(#[tokio::test] async fn $name() {
                super::$name($crate::product::Who::Tester).await;
            })+
        }
        mod as_ordinary_user {
            $(#[tokio::test] async fn $name() {
                super::$name($crate::product::Who::OrdinaryUser).await;
            })+
        }
    };
}

/// Gives a file, or a directory with what is in it, to a user and the group of that number.
fn give(path: &Path, user: u32) {
    std::os::unix::fs::lchown(path, Some(user), Some(user)).expect("give it to the user");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("read the directory") {
            give(&entry.expect("an entry").path(), user);
        }
    }
}

/// Gives what a test made to the user who owns the directory it lies in: git reads no repository of somebody else's.
pub fn give_to_owner_of_parent(path: &Path) {
    let owner = |path: &Path| fs::metadata(path).expect("look at the owner").uid();
    let parent = owner(path.parent().expect("a parent"));
    if parent != owner(path) {
        give(path, parent);
    }
}

/// The `greenroom` binary that the workspace built.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("GREENROOM_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a test has a path");
    let directory = test
        .parent()
        .and_then(Path::parent)
        .expect("target/<profile>/deps/<test>");
    let binary = directory.join("greenroom");
    assert!(
        binary.exists(),
        "{} is missing; run `cargo build -p greenroom` first",
        binary.display()
    );
    binary
}

/// A server with everything it needs, in one temporary directory.
pub struct Product {
    root: TempDir,
    process: Option<Child>,
    expected_warnings: Vec<String>,
    starts: u32,
    env: Vec<(String, String)>,
    user: Option<u32>,
    /// Files and sockets that each process may have open.
    open_files: Option<u32>,
}

impl Product {
    /// A server whose scripted model plays `script` (TOML), not started yet.
    pub fn with_script(script: &str) -> Self {
        let root = tempfile::Builder::new()
            .prefix("greenroom-test-")
            .tempdir()
            .expect("make a directory");
        fs::write(root.path().join("script.toml"), script).expect("write the script");
        let product = Self {
            root,
            process: None,
            expected_warnings: Vec::new(),
            starts: 0,
            env: Vec::new(),
            user: None,
            open_files: None,
        };
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = {:?}\n\n[models]\ndefault = \"test/demo\"\n\n\
             [[providers]]\nid = \"test\"\nkind = \"scripted\"\nscript = {:?}\n\n[log]\nlevel = \"info\"\nformat = \"json\"\n",
            product.data_dir(),
            product.root.path().join("script.toml"),
        );
        fs::write(product.config(), config).expect("write the configuration");
        product
    }

    /// The same with more lines of configuration.
    pub fn with_config(script: &str, more: &str) -> Self {
        let product = Self::with_script(script);
        let config = fs::read_to_string(product.config()).expect("read the configuration");
        fs::write(product.config(), config + more).expect("write the configuration");
        product
    }

    /// Warnings and errors whose text holds `part` are part of this test.
    pub fn expect_warning(&mut self, part: &str) {
        self.expected_warnings.push(part.to_owned());
    }

    /// Runs everything as `who`, an ordinary user with a copy of the binary that such a user may read. Tests that run as an
    /// ordinary user show the same thing anyway.
    pub fn run_as(&mut self, who: Who) {
        // SAFETY: a plain system call without arguments.
        let is_root = unsafe { libc::geteuid() == 0 };
        if who == Who::Tester || !is_root {
            return;
        }
        fs::copy(binary(), self.root.path().join("greenroom")).expect("copy the binary");
        give(self.root.path(), ORDINARY_USER);
        self.user = Some(ORDINARY_USER);
    }

    /// Every process started from now on may have so many files and sockets open.
    pub fn limit_open_files(&mut self, count: u32) {
        self.open_files = Some(count);
    }

    /// Sets a variable of every process started from now on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Every file below the data directory and every log, with its bytes.
    pub fn all_files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        let mut directories = vec![self.data_dir()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let Ok(kind) = entry.file_type() else { continue };
                if kind.is_dir() {
                    directories.push(entry.path());
                } else if kind.is_file() {
                    files.push((entry.path(), fs::read(entry.path()).unwrap_or_default()));
                }
            }
        }
        files.push((PathBuf::from("the server's log"), self.log().into_bytes()));
        files
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// Where the host keeps sandboxes.
    pub fn sandboxes(&self) -> PathBuf {
        self.data_dir().join("sandboxes")
    }

    pub fn config(&self) -> PathBuf {
        self.root.path().join("greenroom.toml")
    }

    /// Starts `greenroom up` and waits until it answers.
    pub async fn start(&mut self) -> Api {
        assert!(self.process.is_none(), "it runs already");
        self.starts += 1;
        let log = fs::File::create(self.log_path(self.starts)).expect("make the log");
        let out = fs::File::create(self.root.path().join("stdout.log")).expect("make the output file");
        let mut command = self.command(&["up"]);
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(log)
            .spawn()
            .expect("start greenroom");
        self.process = Some(child);
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self
                .process
                .as_mut()
                .and_then(|child| child.try_wait().expect("wait"))
            {
                panic!("greenroom up ended with {status}: {}", self.log());
            }
            if let Some(api) = self.api().await {
                return api;
            }
            assert!(
                Instant::now() < deadline,
                "greenroom up did not get ready: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn api(&self) -> Option<Api> {
        let info: Value =
            serde_json::from_slice(&fs::read(self.data_dir().join("server.json")).ok()?).ok()?;
        let pid = self.process.as_ref().map(Child::id)?;
        if info["pid"].as_u64() != Some(u64::from(pid)) {
            return None;
        }
        let token = fs::read_to_string(self.data_dir().join("cli-token")).ok()?;
        let api = Api::new(info["url"].as_str()?, token.trim());
        (api.get("/v1/me").await.0 == 200).then_some(api)
    }

    /// A command of the binary under test, with this product's configuration and nothing of the machine's.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match (self.user, self.open_files) {
            (None, None) => Command::new(binary()),
            (None, Some(count)) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--nofile={count}:{count}")).arg(binary());
                command
            }
            (Some(user), _) => {
                let mut command = Command::new("setpriv");
                command.args([
                    format!("--reuid={user}"),
                    format!("--regid={user}"),
                    "--clear-groups".to_owned(),
                ]);
                command.arg(self.root.path().join("greenroom"));
                command
            }
        };
        command
            .args(arguments)
            .env("GREENROOM_CONFIG", self.config())
            .env("HOME", self.root.path())
            .env("NO_COLOR", "1");
        for name in [
            "ANTHROPIC_API_KEY",
            "OPENAI_API_KEY",
            "ANTHROPIC_BASE_URL",
            "OPENAI_BASE_URL",
        ] {
            command.env_remove(name);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.root.path());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("run greenroom")
    }

    /// The one-time link that `greenroom up` printed.
    pub fn printed_sign_in_link(&self) -> String {
        let output =
            fs::read_to_string(self.root.path().join("stdout.log")).unwrap_or_default() + &self.log();
        let start = output.find("/sign-in#token=").expect("a sign-in link is printed");
        let begin = output[..start].rfind("http").expect("the link is absolute");
        output[begin..]
            .split_whitespace()
            .next()
            .expect("a link")
            .trim_end_matches('"')
            .to_owned()
    }

    /// Process id of the running server.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().map(Child::id).expect("it runs")
    }

    /// SIGKILL, as if the machine's memory had run out.
    pub fn kill(&mut self) {
        let mut child = self.process.take().expect("it runs");
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    /// Whether the server ended by itself; then it can be started again.
    pub fn has_ended(&mut self) -> bool {
        let child = self.process.as_mut();
        if child.is_some_and(|child| child.try_wait().expect("wait").is_some()) {
            self.process = None;
        }
        self.process.is_none()
    }

    /// SIGTERM, and wait for its end, and with it that of its sandboxes.
    pub fn stop(&mut self) {
        let Some(mut child) = self.process.take() else {
            return;
        };
        let pid = libc::pid_t::try_from(child.id()).expect("a pid");
        // SAFETY: plain system call on the pid of a child that was not waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let deadline = Instant::now() + DEADLINE;
        loop {
            match child.try_wait().expect("wait") {
                Some(status) => {
                    assert!(
                        status.success(),
                        "greenroom up ended with {status} after SIGTERM: {}",
                        self.log()
                    );
                    return self.assert_nothing_left();
                }
                None if Instant::now() > deadline => {
                    let _ = child.kill();
                    let _ = child.wait();
                    panic!("greenroom up did not end after SIGTERM: {}", self.log());
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// No process, mount or resource group of a sandbox is there. Their files may be. What was made ahead just now ends by itself when
    /// the server has.
    fn assert_nothing_left(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let left = leftovers::alive(&self.sandboxes());
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind: {left:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log_path(&self, start: u32) -> PathBuf {
        self.root.path().join(format!("server-{start}.log"))
    }

    /// The log of all starts.
    pub fn log(&self) -> String {
        (1..=self.starts)
            .map(|start| fs::read_to_string(self.log_path(start)).unwrap_or_default())
            .collect()
    }

    fn unexpected_warnings(&self) -> Vec<String> {
        self.log()
            .lines()
            .filter(|line| {
                line.contains("\"level\":\"WARN\"")
                    || line.contains("\"level\":\"ERROR\"")
                    || line.contains("panicked")
            })
            .filter(|line| !self.expected_warnings.iter().any(|part| line.contains(part)))
            .map(ToOwned::to_owned)
            .collect()
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        let failed_already = std::thread::panicking();
        if failed_already {
            if let Some(mut child) = self.process.take() {
                // A kill leaves sandboxes behind; a second start would find them, here nobody starts again.
                let pid = libc::pid_t::try_from(child.id()).unwrap_or_default();
                // SAFETY: as in `stop`.
                unsafe { libc::kill(pid, libc::SIGTERM) };
                let deadline = Instant::now() + Duration::from_secs(20);
                while child.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(20));
                }
                let _ = child.kill();
                let _ = child.wait();
            }
            leftovers::end(&self.sandboxes());
            eprintln!("--- server log ---\n{}", self.log());
            return;
        }
        self.stop();
        // Also after a kill as its last act.
        self.assert_nothing_left();
        let warnings = self.unexpected_warnings();
        assert!(warnings.is_empty(), "warnings nobody expected: {warnings:#?}");
    }
}
