//! Launcher processes. One is kept executed ahead, so that a start does not wait for a program to be loaded; without it, or
//! if it died, a start executes its own. Blocking; called from worker threads only.

use crate::ahead::Ahead;
use crate::failure::HostError;
use greenroom_sandbox::spec::{LaunchOrders, LaunchReport};
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

/// What a launcher is called.
const NAME: &str = "greenroom-launcher";

/// Largest report that is read from a launcher.
const MAX_REPORT_BYTES: u64 = 64 * 1024;

/// The launchers of one host; clones share the spare one.
#[derive(Debug, Clone)]
pub(crate) struct Launchers {
    program: PathBuf,
    spare: Ahead<Blank>,
}

impl Launchers {
    pub(crate) fn new(program: PathBuf) -> Self {
        Self {
            program,
            spare: Ahead::default(),
        }
    }

    /// Has a launcher carry out orders. Returns its warnings.
    pub(crate) fn launch(&self, orders: &LaunchOrders) -> Result<Vec<String>, HostError> {
        if let Some(spare) = self.spare.take() {
            match spare.launch(orders) {
                // Somebody killed it while it waited.
                Err(HostError::LauncherSilent(_)) => {}
                done => return done,
            }
        }
        Blank::execute(&self.program)?.launch(orders)
    }

    /// Makes sure that there is a spare one. A failure shows at the next start, which tries again.
    pub(crate) fn refill(&self) {
        self.spare.refill(|| Blank::execute(&self.program));
    }

    /// Ends the spare one and returns when it is gone. No other follows.
    pub(crate) fn end(&self) {
        if let Some(Blank { orders, mut answers }) = self.spare.close() {
            drop(orders);
            // It ends because nobody can give it orders any more, and the pipe with it.
            let _ = answers.read_to_end(&mut Vec::new());
        }
    }
}

/// A launcher that waits for its orders. It forked away from this process; it ends when this is dropped.
#[derive(Debug)]
struct Blank {
    orders: ChildStdin,
    answers: ChildStdout,
}

impl Blank {
    fn execute(program: &Path) -> Result<Self, HostError> {
        let mut child = Command::new(program)
            // Seen inside, as the command line of the guest, which must show no path of this machine.
            .arg0(NAME)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It opens its log in the sandbox's directory once it knows that.
            .stderr(Stdio::null())
            .spawn()
            .map_err(HostError::file("execute", program))?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        child.wait().map_err(HostError::file("execute", program))?;
        match (orders, answers) {
            (Some(orders), Some(answers)) => Ok(Self { orders, answers }),
            _ => Err(HostError::LauncherSilent("it has no pipes".to_owned())),
        }
    }

    fn launch(mut self, orders: &LaunchOrders) -> Result<Vec<String>, HostError> {
        let silent = |error: io::Error| HostError::LauncherSilent(error.to_string());
        let text = serde_json::to_vec(orders).map_err(|error| silent(error.into()))?;
        self.orders.write_all(&text).map_err(silent)?;
        drop(self.orders);
        let mut answer = Vec::new();
        // The supervisor lets go of it after its report.
        self.answers
            .take(MAX_REPORT_BYTES)
            .read_to_end(&mut answer)
            .map_err(silent)?;
        match serde_json::from_slice(&answer) {
            Ok(LaunchReport::Started { warnings }) => Ok(warnings),
            Ok(LaunchReport::Failed(failure)) => Err(HostError::Launch(failure)),
            Err(_) => Err(HostError::LauncherSilent(format!(
                "{} bytes that are no report",
                answer.len()
            ))),
        }
    }
}
