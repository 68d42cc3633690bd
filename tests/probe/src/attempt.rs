//! What an attempt is, and how all of them are made: each in a forked process, so that one that crashes, hangs or changes
//! its own rights does not disturb the next.

mod files;
mod kernel;
#[cfg(target_arch = "x86_64")]
mod legacy;
mod mounts;
mod namespaces;
mod network;
mod process;
mod rights;

use greenroom_probe::{Outcome, Proof, Report, Target};
use std::borrow::Cow;
use std::io::{Read as _, Write as _};
use std::os::fd::FromRawFd as _;
use std::time::{Duration, Instant};

/// Longest that one attempt may take before it counts as broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// Something that must not work inside a sandbox.
pub struct Attempt {
    name: &'static str,
    run: fn(&Target) -> Finding,
    proof: Proof,
}

/// What an attempt found.
pub enum Finding {
    Refused(String),
    Succeeded(String),
    Unavailable(String),
}

/// An attempt that succeeds for root on the host.
const fn proven(name: &'static str, run: fn(&Target) -> Finding) -> Attempt {
    Attempt {
        name,
        run,
        proof: Proof::Host,
    }
}

/// An attempt that succeeds on the host for root with capability `number`.
const fn proven_with(number: u32, name: &'static str, run: fn(&Target) -> Finding) -> Attempt {
    Attempt {
        name,
        run,
        proof: Proof::Capability { number },
    }
}

/// An attempt that is not made on the host.
const fn spared(name: &'static str, why: &'static str, run: fn(&Target) -> Finding) -> Attempt {
    Attempt {
        name,
        run,
        proof: Proof::Spared {
            why: Cow::Borrowed(why),
        },
    }
}

fn tables() -> Vec<&'static [Attempt]> {
    vec![
        files::ATTEMPTS,
        process::ATTEMPTS,
        network::ATTEMPTS,
        mounts::ATTEMPTS,
        namespaces::ATTEMPTS,
        kernel::ATTEMPTS,
        rights::ATTEMPTS,
        #[cfg(target_arch = "x86_64")]
        legacy::ATTEMPTS,
    ]
}

/// Makes the attempts of these names, or all if there are none, and prints a line for each.
pub fn run_all(target: &Target, names: &[&str]) {
    for attempt in tables().into_iter().flatten() {
        if names.is_empty() || names.contains(&attempt.name) {
            print(&run_apart(attempt, target));
        }
    }
}

/// Prints a line for each attempt without making it.
pub fn list_all() {
    for attempt in tables().into_iter().flatten() {
        print(&Report {
            name: attempt.name.to_owned(),
            outcome: Outcome::Unavailable,
            detail: "not made".to_owned(),
            proof: attempt.proof.clone(),
        });
    }
}

fn print(report: &Report) {
    let mut line = serde_json::to_vec(report).unwrap_or_default();
    line.push(b'\n');
    let mut out = std::io::stdout();
    // Nobody reads any more: there is nobody to tell.
    let _ = out.write_all(&line).and_then(|()| out.flush());
}

fn run_apart(attempt: &Attempt, target: &Target) -> Report {
    let report = |outcome, detail: String| Report {
        name: attempt.name.to_owned(),
        outcome,
        detail,
        proof: attempt.proof.clone(),
    };
    let text = match in_child(|| match (attempt.run)(target) {
        Finding::Refused(detail) => format!("r{detail}"),
        Finding::Succeeded(detail) => format!("s{detail}"),
        Finding::Unavailable(detail) => format!("u{detail}"),
    }) {
        Ok(text) => text,
        Err(reason) => return report(Outcome::Broken, reason),
    };
    let outcome = match text.as_bytes().first() {
        Some(b'r') => Outcome::Refused,
        Some(b's') => Outcome::Succeeded,
        Some(b'u') => Outcome::Unavailable,
        _ => Outcome::Broken,
    };
    report(outcome, text.get(1..).unwrap_or_default().to_owned())
}

/// Runs `work` in a forked process in its own group and returns its text; in words what became of the process if there
/// is none.
fn in_child(work: impl FnOnce() -> String) -> Result<String, String> {
    let mut pipe = [0; 2];
    // SAFETY: an array of two, as pipe2 wants.
    if unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(format!("pipe: {}", last_error()));
    }
    // SAFETY: this program never starts a thread outside of forked processes.
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(format!("fork: {}", last_error())),
        0 => {
            // SAFETY: only changes this process; the descriptor is the child's own copy.
            let mut writer = unsafe {
                libc::setpgid(0, 0);
                std::fs::File::from_raw_fd(pipe[1])
            };
            let text = work();
            let _ = writer.write_all(text.as_bytes());
            // SAFETY: ends the process at once; destructors are the parent's business.
            unsafe { libc::_exit(0) }
        }
        _ => {
            // SAFETY: both ends are this process's own; the writer is the child's now.
            let mut reader = unsafe {
                libc::close(pipe[1]);
                std::fs::File::from_raw_fd(pipe[0])
            };
            let status = wait(child);
            // SAFETY: what the child left behind is in its group.
            unsafe { libc::kill(-child, libc::SIGKILL) };
            let mut text = String::new();
            // Whoever else holds the pipe has just been killed.
            let _ = reader.read_to_string(&mut text);
            match (text.is_empty(), status) {
                (false, _) => Ok(text),
                (true, None) => Err("it hung".to_owned()),
                (true, Some(status)) => Err(format!("it ended without an answer, status {status:#x}")),
            }
        }
    }
}

/// Waits for a child's end and returns its status; kills it and returns `None` if it takes too long.
fn wait(child: i32) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut status = 0;
        // SAFETY: a valid int.
        let result = unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) };
        if result == child {
            return Some(status);
        }
        if Instant::now() > deadline {
            // SAFETY: a child that was not waited for.
            unsafe {
                libc::kill(child, libc::SIGKILL);
                libc::waitpid(child, &raw mut status, 0);
            }
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Exchanges two names until it is killed.
pub fn swap_for_ever(one: &str, other: &str) -> ! {
    let text = |path: &str| std::ffi::CString::new(path).unwrap_or_default();
    let (one, other) = (text(one), text(other));
    loop {
        // SAFETY: two NUL-terminated paths. A failure is tried again; whoever started this ends it.
        unsafe {
            libc::renameat2(
                libc::AT_FDCWD,
                one.as_ptr(),
                libc::AT_FDCWD,
                other.as_ptr(),
                libc::RENAME_EXCHANGE,
            )
        };
    }
}

fn last_error() -> std::io::Error {
    std::io::Error::last_os_error()
}

fn last_errno() -> i32 {
    last_error().raw_os_error().unwrap_or(0)
}

/// The finding of a system call that returns -1 for a refusal.
fn answer(result: libc::c_long) -> Finding {
    answer_or(result, &[])
}

/// The same for a call whose arguments are wrong on purpose: an errno of `passed` comes only after the kernel has found the
/// caller entitled, so it is a success that does no harm.
fn answer_or(result: libc::c_long, passed: &[i32]) -> Finding {
    if result != -1 {
        return Finding::Succeeded(format!("returned {result}"));
    }
    let errno = last_errno();
    match errno {
        _ if passed.contains(&errno) => Finding::Succeeded(format!("was entitled: {}", last_error())),
        // Not said by a filter only, but then the call is just as gone.
        libc::ENOSYS => Finding::Unavailable(last_error().to_string()),
        _ => Finding::Refused(last_error().to_string()),
    }
}

/// The finding of a library call.
fn result_of<T>(result: std::io::Result<T>) -> Finding {
    match result {
        Ok(_) => Finding::Succeeded("it worked".to_owned()),
        Err(error) => Finding::Refused(error.to_string()),
    }
}

/// Whether bytes that were reached are the secret.
fn compare(what: &str, bytes: &[u8], target: &Target) -> Finding {
    if bytes
        .windows(target.secret.len())
        .any(|window| window == target.secret.as_bytes())
    {
        Finding::Succeeded(format!("{what} gave the secret"))
    } else {
        Finding::Refused(format!("{what} is something else"))
    }
}

/// The first success of several ways, or all refusals.
fn first_success(findings: impl IntoIterator<Item = (String, Finding)>) -> Finding {
    let (mut refused, mut unavailable) = (Vec::new(), Vec::new());
    for (what, finding) in findings {
        match finding {
            Finding::Succeeded(detail) => return Finding::Succeeded(format!("{what}: {detail}")),
            Finding::Refused(detail) => refused.push(format!("{what}: {detail}")),
            Finding::Unavailable(detail) => unavailable.push(format!("{what}: {detail}")),
        }
    }
    if refused.is_empty() {
        return Finding::Unavailable(match unavailable.is_empty() {
            true => "there is nothing to try".to_owned(),
            false => unavailable.join("; "),
        });
    }
    refused.truncate(4);
    Finding::Refused(refused.join("; "))
}
