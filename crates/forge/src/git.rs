//! Runs the real `git` program in a closed environment. Decides nothing about repositories or pull requests.
//!
//! Nothing of the machine's or a person's git configuration is read, no hook runs, nothing asks on a terminal,
//! output and time are bounded, and a call whose future is dropped takes its processes with it.

pub(crate) mod commits;
pub(crate) mod diff;
pub(crate) mod merge;
pub(crate) mod process;
pub(crate) mod refs;

use process::Running;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// Oldest git with all that is used here (`merge-tree --write-tree` came with 2.38).
const OLDEST: (u32, u32) = (2, 38);
/// Time for one ordinary call; imports and HTTP exchanges have limits of their own.
const CALL_LIMIT: Duration = Duration::from_secs(120);
/// Most that is read of one call's standard output.
const OUTPUT_LIMIT: usize = 64 * 1024 * 1024;
/// Most that is kept of what git says on standard error.
pub(crate) const STDERR_LIMIT: usize = 16 * 1024;

/// Why git could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// No such program, or it does not start.
    #[error("start {}", program.display())]
    Missing {
        /// What was tried.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The program is older than 2.38.
    #[error("git is too old: {found}")]
    TooOld {
        /// What `git version` printed.
        found: String,
    },
    /// The file system is full, or a quota is used up.
    #[error("no space left for `git {what}`")]
    DiskFull {
        /// The subcommand.
        what: String,
    },
    /// The call took too long and was ended.
    #[error("`git {what}` took longer than {} s", limit.as_secs())]
    TimedOut {
        /// The subcommand.
        what: String,
        /// The time it had.
        limit: Duration,
    },
    /// The call printed more than is ever useful and was ended.
    #[error("`git {what}` printed more than {limit_bytes} bytes")]
    TooMuchOutput {
        /// The subcommand.
        what: String,
        /// The bound.
        limit_bytes: usize,
    },
    /// git said no.
    #[error("`git {what}` failed with {code:?}: {stderr}")]
    Failed {
        /// The subcommand.
        what: String,
        /// Its exit code; absent if a signal ended it.
        code: Option<i32>,
        /// The first 16 KiB of its standard error.
        stderr: String,
    },
    /// git printed something that this version of the forge does not understand.
    #[error("`git {what}` printed something unexpected")]
    Unexpected {
        /// The subcommand.
        what: String,
    },
    /// Talking with the process failed.
    #[error("talk with `git {what}`")]
    Pipe {
        /// The subcommand.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// The program and the environment it always runs in.
#[derive(Debug, Clone)]
pub(crate) struct Git {
    program: PathBuf,
    config: PathBuf,
}

/// Where a program is that is named without a path.
fn in_path(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return None;
    }
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).map(|directory| directory.join(program));
    places.find(|place| place.is_file())
}

/// One call: what to run, where, on what input.
#[derive(Debug)]
pub(crate) struct Call {
    args: Vec<OsString>,
    dir: Option<PathBuf>,
    stdin: Vec<u8>,
    env: Vec<(OsString, OsString)>,
    limit: Duration,
}

/// What a call that ran to its end left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) what: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Call {
    /// `git ARGS…` with no repository, no input and two minutes of time.
    pub(crate) fn new<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Self {
        Self {
            args: args.into_iter().map(|arg| arg.as_ref().to_owned()).collect(),
            dir: None,
            stdin: Vec::new(),
            env: Vec::new(),
            limit: CALL_LIMIT,
        }
    }

    /// In the bare repository `dir`.
    pub(crate) fn within(self, dir: &Path) -> Self {
        Self {
            dir: Some(dir.to_owned()),
            ..self
        }
    }

    pub(crate) fn stdin(self, stdin: impl Into<Vec<u8>>) -> Self {
        Self {
            stdin: stdin.into(),
            ..self
        }
    }

    pub(crate) fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    pub(crate) fn limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// The subcommand, for messages.
    fn what(&self) -> String {
        self.args
            .first()
            .map_or_else(String::new, |arg| arg.to_string_lossy().into_owned())
    }
}

impl Finished {
    /// Standard output of a call that succeeded.
    pub(crate) fn success(self) -> Result<Vec<u8>, GitError> {
        match self.code {
            Some(0) => Ok(self.stdout),
            _ => Err(self.failure()),
        }
    }

    /// The error of a call that did not.
    pub(crate) fn failure(self) -> GitError {
        if self.stderr.contains("No space left on device") || self.stderr.contains("Disk quota exceeded") {
            return GitError::DiskFull { what: self.what };
        }
        GitError::Failed {
            what: self.what,
            code: self.code,
            stderr: self.stderr.trim().to_owned(),
        }
    }
}

impl Git {
    /// `program` with the configuration file `config` as the only one outside the repositories.
    pub(crate) async fn find(program: PathBuf, config: PathBuf) -> Result<Self, GitError> {
        // With its path: a program that has to be looked for is started by copying this whole process first.
        let program = in_path(&program).unwrap_or(program);
        let git = Self { program, config };
        let printed = git.run(Call::new(["version"])).await?.success()?;
        let found = String::from_utf8_lossy(&printed).trim().to_owned();
        match parse_version(&found) {
            Some(version) if version >= OLDEST => Ok(git),
            _ => Err(GitError::TooOld { found }),
        }
    }

    /// A command in the closed environment, its own process group, all streams piped.
    pub(crate) fn command(&self, dir: Option<&Path>) -> Command {
        let mut command = Command::new(&self.program);
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", "/nonexistent")
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", &self.config)
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "/bin/false")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_LITERAL_PATHSPECS", "1")
            .env("GIT_DEFAULT_HASH", "sha1")
            .env("GIT_DEFAULT_REF_FORMAT", "files")
            .env("GIT_ALLOW_PROTOCOL", "none")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(dir) = dir {
            command.env("GIT_DIR", dir).current_dir(dir);
        }
        command
    }

    /// Starts a prepared command.
    pub(crate) fn start(&self, command: &mut Command) -> Result<Running, GitError> {
        Running::start(command).map_err(|source| GitError::Missing {
            program: self.program.clone(),
            source,
        })
    }

    /// Runs to the end, whatever the exit code. A dropped future ends the processes.
    ///
    /// # Errors
    /// The program does not start, takes too long or prints too much.
    pub(crate) async fn run(&self, call: Call) -> Result<Finished, GitError> {
        let (what, limit) = (call.what(), call.limit);
        match tokio::time::timeout(limit, self.run_unbounded(call, &what)).await {
            Ok(finished) => finished,
            Err(_) => Err(GitError::TimedOut { what, limit }),
        }
    }

    async fn run_unbounded(&self, call: Call, what: &str) -> Result<Finished, GitError> {
        let mut command = self.command(call.dir.as_deref());
        command.args(&call.args).envs(call.env);
        let mut running = self.start(&mut command)?;
        let (mut stdin, stdout, stderr) = running.pipes();
        let feed = async {
            // A program that ends without reading its input is no error of ours: its exit code speaks.
            let _ = stdin.write_all(&call.stdin).await;
            drop(stdin);
        };
        let ((), stdout, stderr) =
            tokio::join!(feed, read_bounded(stdout, OUTPUT_LIMIT), read_stderr(stderr));
        let pipe = |source| GitError::Pipe {
            what: what.to_owned(),
            source,
        };
        let stdout = stdout.map_err(pipe)?.ok_or_else(|| GitError::TooMuchOutput {
            what: what.to_owned(),
            limit_bytes: OUTPUT_LIMIT,
        })?;
        let status = running.wait().await.map_err(pipe)?;
        Ok(Finished {
            what: what.to_owned(),
            code: status.code(),
            stdout,
            stderr,
        })
    }

    /// Trimmed standard output of a call that must succeed, as text.
    pub(crate) async fn text(&self, call: Call) -> Result<String, GitError> {
        let printed = self.run(call).await?.success()?;
        Ok(String::from_utf8_lossy(&printed).trim().to_owned())
    }

    /// The commit id that a call which must succeed prints.
    pub(crate) async fn object_id(&self, call: Call) -> Result<String, GitError> {
        let what = call.what();
        let text = self.text(call).await?;
        if is_object_id(&text) {
            Ok(text)
        } else {
            Err(GitError::Unexpected { what })
        }
    }
}

/// Whether `text` is a full object id: 40 lower-case hexadecimal digits.
pub(crate) fn is_object_id(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn parse_version(printed: &str) -> Option<(u32, u32)> {
    let mut numbers = printed.strip_prefix("git version ")?.split('.');
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some((major, minor))
}

/// Everything up to `limit` bytes; `None` if there is more.
async fn read_bounded(mut from: impl AsyncRead + Unpin, limit: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut all = Vec::new();
    (&mut from).take(limit as u64 + 1).read_to_end(&mut all).await?;
    Ok((all.len() <= limit).then_some(all))
}

/// Reads to the end so that the writer never blocks, keeps the beginning.
pub(crate) async fn read_stderr(mut from: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        let room = STDERR_LIMIT - kept.len();
        kept.extend_from_slice(&chunk[..read.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        for (printed, expected) in [
            ("git version 2.39.5", Some((2, 39))),
            ("git version 2.47.3", Some((2, 47))),
            ("git version 2.39.5 (Apple Git-154)", Some((2, 39))),
            ("git version 3.0.rc1", Some((3, 0))),
            ("git version", None),
            ("gut version 2.39.5", None),
        ] {
            assert_eq!(parse_version(printed), expected, "{printed}");
        }
    }

    #[test]
    fn object_ids_are_forty_lower_case_digits() {
        assert!(is_object_id("4b825dc642cb6eb9a060e54bf8d69288fbee4904"));
        for text in [
            "",
            "HEAD",
            "4B825DC642CB6EB9A060E54BF8D69288FBEE4904",
            "4b825dc642cb6eb9a060e54bf8d69288fbee490",
        ] {
            assert!(!is_object_id(text), "{text}");
        }
    }

    #[test]
    fn a_full_disk_is_recognised() {
        let finished = Finished {
            what: "hash-object".to_owned(),
            code: Some(128),
            stdout: Vec::new(),
            stderr: "error: unable to write file: No space left on device".to_owned(),
        };
        assert!(matches!(finished.failure(), GitError::DiskFull { .. }));
    }
}
