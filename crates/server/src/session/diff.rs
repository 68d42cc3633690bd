//! What a session changed against its base branches: as pushed, or as the files in its running sandbox are now.

use super::command::SessionHandle;
use super::services::SessionServices;
use super::state::SessionFold;
use crate::sandbox::{Sandbox, SandboxError};
use crate::workspace_git::{self, LIVE_DIFF};
use greenroom_forge::{DIFF_TREE, MAX_DIFF_BYTES, read_diff};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::pull_request::{Diff, DiffSource, SessionDiff};
use greenroom_protocol::client::session::{Session, WorkspaceRepository};
use greenroom_protocol::guest::call::{Exec, KillReason, OutputChunk};
use std::sync::{Arc, Weak};
use std::time::Instant;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

/// Time to look at one repository.
const TIMEOUT_MS: u64 = 30_000;
/// Bytes read of what git says of one repository: its list, which names every file, and the patches.
const MAX_OUTPUT_BYTES: usize = 3 * MAX_DIFF_BYTES;

/// The newest look at a sandbox's files. Who asks while another look runs waits for the next one, and all who wait share it.
#[derive(Debug, Default)]
pub struct LastLook(Mutex<Option<(Instant, Weak<SessionDiff>)>>);

/// What the sandbox's files change now; what was pushed if it does not run.
pub async fn live(
    services: &SessionServices,
    handle: &SessionHandle,
    fold: &SessionFold,
) -> Result<Arc<SessionDiff>, Problem> {
    let asked_at = Instant::now();
    let slot = &handle.sandbox;
    let Some((sandbox, _in_use)) = slot.to_ask().await else {
        return pushed(services, fold).await.map(Arc::new);
    };
    let mut last = slot.last_look.0.lock().await;
    if let Some((began_at, diff)) = &*last
        && *began_at >= asked_at
        && let Some(diff) = diff.upgrade()
    {
        return Ok(diff);
    }
    let began_at = Instant::now();
    let own = || {
        vec![WorkspaceRepository::own(
            &fold.row.repository,
            &fold.row.base_branch,
        )]
    };
    let repositories = slot.repositories().unwrap_or_else(own);
    let mut whole = Whole::default();
    for repository in &repositories {
        match look(&sandbox, repository).await {
            Ok(diff) => whole.add(repository, diff),
            // It went to rest, or away, in between.
            Err(_) if !sandbox.is_alive() => return pushed(services, fold).await.map(Arc::new),
            Err(problem) if repository.is_own() => return Err(problem),
            Err(_) => whole.lacks_something(),
        }
    }
    let diff = Arc::new(whole.from(DiffSource::Workspace));
    *last = Some((began_at, Arc::downgrade(&diff)));
    Ok(diff)
}

/// What was pushed; empty before the first push.
pub async fn pushed(services: &SessionServices, fold: &SessionFold) -> Result<SessionDiff, Problem> {
    let Session {
        repository,
        base_branch,
        branch,
        ..
    } = &fold.row;
    let own = WorkspaceRepository::own(repository, base_branch);
    let mut whole = Whole::default();
    for pushed in &fold.pushed {
        let repository = pushed.repository.as_ref().unwrap_or(&own);
        let (name, base) = (&repository.name, &repository.base_branch);
        let diff = services.forge.diff_branches(name, base, branch).await;
        match diff.map_err(|error| error.problem()) {
            Ok(diff) => whole.add(repository, diff),
            // One that is gone, or whose branch is, does not hide what the session's own shows.
            Err(problem) if !problem.retryable && !repository.is_own() => whole.lacks_something(),
            Err(problem) => return Err(problem),
        }
    }
    Ok(whole.from(DiffSource::Pushed))
}

/// The diff of a whole workspace.
struct Whole(Diff);

impl Default for Whole {
    fn default() -> Self {
        Self(Diff {
            files: Vec::new(),
            additions: 0,
            deletions: 0,
            is_truncated: false,
        })
    }
}

impl Whole {
    fn add(&mut self, repository: &WorkspaceRepository, diff: Diff) {
        let Self(whole) = self;
        whole.additions += diff.additions;
        whole.deletions += diff.deletions;
        whole.is_truncated |= diff.is_truncated;
        whole.files.extend(diff.files.into_iter().map(|mut file| {
            if !repository.is_own() {
                file.path = format!("{}/{}", repository.path, file.path);
                file.old_path = file.old_path.map(|path| format!("{}/{path}", repository.path));
                file.patch = in_directory(&file.patch, &repository.path);
            }
            file
        }));
    }

    fn lacks_something(&mut self) {
        self.0.is_truncated = true;
    }

    fn from(self, source: DiffSource) -> SessionDiff {
        let Self(mut diff) = self;
        diff.files.sort_by(|one, other| one.path.cmp(&other.path));
        SessionDiff { diff, source }
    }
}

/// What one repository's files change. What git says there may be anything: an agent decides what its files and its git say.
async fn look(sandbox: &Arc<dyn Sandbox>, repository: &WorkspaceRepository) -> Result<Diff, Problem> {
    let arguments = [&[repository.base_branch.as_str()], &DIFF_TREE[..]].concat();
    let argv = workspace_git::command(LIVE_DIFF, &arguments);
    let exec = Exec {
        argv: argv.into_iter().map(str::to_owned).collect(),
        cwd: repository.directory(),
        env: workspace_git::environment(),
        timeout_ms: Some(TIMEOUT_MS),
        ..Exec::default()
    };
    let cancel = CancellationToken::new();
    let (sender, mut receiver) = mpsc::channel::<OutputChunk>(16);
    let collect = async {
        let (mut said, mut complaint) = (Vec::new(), Vec::new());
        while let Some(chunk) = receiver.recv().await {
            let of = if chunk.is_error_output {
                &mut complaint
            } else {
                &mut said
            };
            of.extend_from_slice(&chunk.bytes);
            if said.len() + complaint.len() > MAX_OUTPUT_BYTES {
                cancel.cancel();
                break;
            }
        }
        drop(receiver);
        (said, complaint)
    };
    let (exit, (said, complaint)) = tokio::join!(sandbox.exec(exec, sender, cancel.clone()), collect);
    let exit = match exit {
        Ok(exit) => exit,
        Err(SandboxError::Call(error)) => return Err(failed(&error.message)),
        Err(SandboxError::Lost(problem)) => return Err(problem),
    };
    let is_cut =
        cancel.is_cancelled() || exit.killed == Some(KillReason::OutputLimit) || !exit.limits_hit.is_empty();
    if exit.killed == Some(KillReason::TimedOut) {
        let message = "The workspace's changes cannot be told in time.".to_owned();
        return Err(Problem::transient("live_diff_slow", message)
            .with_hint("Look at what was pushed, without `live`, or try again when less is at work there."));
    }
    if exit.code != Some(0) && !is_cut {
        let complaint = String::from_utf8_lossy(&complaint);
        return Err(failed(super::run::cause(complaint.trim())));
    }
    let mut diff = read(&said).ok_or_else(|| failed("git printed something else"))?;
    diff.is_truncated |= is_cut;
    Ok(diff)
}

fn failed(why: &str) -> Problem {
    Problem::permanent(
        "live_diff_failed",
        format!("The workspace's changes cannot be told: {why}"),
    )
    .with_hint("Look at what was pushed, without `live`, or ask the agent about the state of its repository.")
}

/// Reads what [`LIVE_DIFF`] prints.
fn read(said: &[u8]) -> Option<Diff> {
    let (completeness, rest) = split_line(said)?;
    let (length, rest) = split_line(rest)?;
    let length: usize = str::from_utf8(length).ok()?.trim().parse().ok()?;
    let (list, patches) = rest.split_at_checked(length)?;
    let mut diff = read_diff(list, patches)?;
    diff.is_truncated |= match completeness {
        b"whole" => false,
        b"partial" => true,
        _ => return None,
    };
    Some(diff)
}

fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == b'\n')?;
    Some((&text[..end], &text[end + 1..]))
}

/// A patch with the names of its header below a directory.
fn in_directory(patch: &str, directory: &str) -> String {
    let (header, rest) = match patch.find("\n@@") {
        Some(end) => patch.split_at(end),
        None => (patch, ""),
    };
    let lines: Vec<_> = header
        .split('\n')
        .map(|line| {
            for begin in ["--- a/", "+++ b/", "--- \"a/", "+++ \"b/"] {
                if let Some(name) = line.strip_prefix(begin) {
                    return format!("{begin}{directory}/{name}");
                }
            }
            line.to_owned()
        })
        .collect();
    lines.join("\n") + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_says_in_a_sandbox_is_read_or_refused() {
        let list = format!(":000000 100644 {0} {0} A\0a\0", "1".repeat(40)) + "1\t0\ta\0";
        let patch = "diff --git a/a b/a\nnew file mode 100644\n--- /dev/null\n+++ b/a\n@@ -0,0 +1 @@\n+one\n";
        let said = |completeness: &str, length: usize| format!("{completeness}\n{length}\n{list}{patch}");
        let diff = read(said("whole", list.len()).as_bytes()).unwrap();
        assert_eq!((diff.additions, diff.is_truncated), (1, false));
        assert_eq!(
            diff.files[0].patch,
            "--- /dev/null\n+++ b/a\n@@ -0,0 +1 @@\n+one\n"
        );
        assert!(read(said("partial", list.len()).as_bytes()).unwrap().is_truncated);
        let none = read(b"whole\n  0\n").unwrap();
        assert!(none.files.is_empty() && !none.is_truncated);
        for broken in [
            String::new(),
            "whole\n".to_owned(),
            "whole\n-1\n".to_owned(),
            "whole\n99999999999999999999\n".to_owned(),
            said("whole", list.len() + patch.len() + 1),
            said("whole", list.len() - 2),
            said("something", list.len()),
        ] {
            assert_eq!(read(broken.as_bytes()), None, "{broken:?}");
        }
    }

    #[test]
    fn patches_name_files_of_the_workspace() {
        for (patch, expected) in [
            (
                "--- a/x\n+++ b/x\n@@ -1 +1 @@\n--- a/x\n",
                "--- a/d/x\n+++ b/d/x\n@@ -1 +1 @@\n--- a/x\n",
            ),
            (
                "--- /dev/null\n+++ \"b/\\303\"\n@@ -0,0 +1 @@\n",
                "--- /dev/null\n+++ \"b/d/\\303\"\n@@ -0,0 +1 @@\n",
            ),
            ("", ""),
        ] {
            assert_eq!(in_directory(patch, "d"), expected);
        }
    }
}
