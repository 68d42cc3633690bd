//! With what files a session's sandbox begins, and what people and the model hear if it is not what they would expect.

use super::SessionWorkspace;
use super::checkout::{CheckedOut, Rejoined};
use crate::environment::BoundedEnvironment;
use crate::sandbox::{Origin, Sandbox, StartRequest};
use crate::session::snapshots;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::WorkspaceRepository;
use greenroom_protocol::environment::Backend;
use greenroom_protocol::id::{SandboxId, SnapshotId};
use greenroom_stdx::chain::Chain;
use greenroom_store::catalog::CatalogError;
use std::sync::Arc;

/// Files that one note names.
const MAX_NAMED: usize = 10;

/// With what files a sandbox begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Beginning {
    /// Those that it has.
    Kept,
    /// Of an image, else none, so that the repository is cloned.
    Image(Option<SnapshotId>),
    /// Those of another session, at one moment.
    Given(SnapshotId),
    /// Its own of some time ago, because those that it had are lost.
    Restored(SnapshotId),
    /// Like [`Beginning::Image`], because those that it had are lost and nobody has others.
    Anew(Option<SnapshotId>),
}

impl Beginning {
    pub(super) fn snapshot(&self) -> Option<&SnapshotId> {
        match self {
            Self::Kept => None,
            Self::Image(image) | Self::Anew(image) => image.as_ref(),
            Self::Given(snapshot) | Self::Restored(snapshot) => Some(snapshot),
        }
    }
}

impl SessionWorkspace {
    /// What the next start of the sandbox begins with.
    pub(super) async fn beginning(&self, id: &SandboxId, environment: &BoundedEnvironment) -> Beginning {
        // A virtual machine has a disk of its own, which is not looked into.
        if environment.backend == Backend::Microvm {
            return Beginning::Image(None);
        }
        let fold = self.handle.fold().await.ok();
        let had_sandbox = fold.as_ref().is_some_and(|fold| fold.had_sandbox);
        let had_files = fold.is_some_and(|fold| fold.forked_snapshot.is_some());
        let newest = snapshots::newest(&self.services, &self.row.id).await;
        let newest = newest.unwrap_or_else(|problem| {
            tracing::warn!(session = %self.row.id, code = problem.code, "whether there are snapshots is not known: {}", problem.message);
            None
        });
        if newest.is_none() && !had_sandbox && !had_files {
            // The first start, on which somebody waits; should there be files all the same, they go before the image.
            return Beginning::Image(self.image(environment).await);
        }
        if !self.services.sandboxes.is_new(id).await {
            return Beginning::Kept;
        }
        match (newest, had_sandbox) {
            (Some(newest), true) => Beginning::Restored(newest.id),
            (Some(newest), false) => Beginning::Given(newest.id),
            (None, _) => Beginning::Anew(self.image(environment).await),
        }
    }

    /// The image that a fresh sandbox begins with; `None`: an empty workspace, into which the repository is cloned.
    async fn image(&self, environment: &BoundedEnvironment) -> Option<SnapshotId> {
        let catalog = &self.services.catalog;
        match catalog
            .current_image(&self.row.repository, &self.row.base_branch)
            .await
        {
            Ok(None) => None,
            // One over another base is not what the environment asks for.
            Ok(Some(image)) if crate::image::fits(&image, environment) => image.snapshot_id,
            Ok(Some(_)) => None,
            Err(error) => {
                tracing::warn!(session = %self.row.id, error = %Chain(&error), "a session begins without an image");
                None
            }
        }
    }

    /// Starts it; without its snapshot, if that cannot be used. Returns with what it really began.
    pub(super) async fn start_with(
        &self,
        beginning: Beginning,
        request: StartRequest,
    ) -> Result<(Arc<dyn Sandbox>, Origin, Beginning), Problem> {
        let sandboxes = &self.services.sandboxes;
        match sandboxes.start(request.clone()).await {
            Err(problem) if request.from.is_some() && problem.code.starts_with("snapshot_") => {
                tracing::warn!(session = %self.row.id, code = problem.code, "a sandbox begins without its snapshot: {}", problem.message);
                let request = StartRequest {
                    from: None,
                    ..request
                };
                let (sandbox, origin) = sandboxes.start(request).await?;
                let beginning = match beginning {
                    Beginning::Kept | Beginning::Image(_) => Beginning::Image(None),
                    Beginning::Given(_) | Beginning::Restored(_) | Beginning::Anew(_) => {
                        Beginning::Anew(None)
                    }
                };
                Ok((sandbox, origin, beginning))
            }
            started => started.map(|(sandbox, origin)| (sandbox, origin, beginning)),
        }
    }

    /// Tells people and the model what is missing, and what was brought together.
    pub(super) async fn tell_beginning(&self, beginning: &Beginning, checked_out: &CheckedOut) {
        let notes = &self.slot.workspace_notes;
        match beginning {
            Beginning::Kept | Beginning::Image(_) | Beginning::Given(_) => {}
            Beginning::Restored(_) => {
                let message =
                    "The files of the sandbox were lost. It goes on from its last snapshot.".to_owned();
                let hint = "What was changed after that and not pushed is missing.";
                let problem = Problem::transient("sandbox_restored", message).with_hint(hint);
                self.tell(vec![problem]).await;
                notes.note(
                    "the sandbox was lost and goes on from an earlier state: files may be missing or older than you remember, and \
                     programs that you started do not run any more; look before you rely on them"
                        .to_owned(),
                );
            }
            Beginning::Anew(_) => {
                let message =
                    "The files of the sandbox are lost. It begins anew with what was pushed.".to_owned();
                let hint = "What was changed and not pushed is missing.";
                let problem = Problem::transient("sandbox_files_lost", message).with_hint(hint);
                self.tell(vec![problem]).await;
                notes.note(
                    "the sandbox was lost and the repository was checked out anew: changes that were not pushed are gone, and \
                     programs that you started do not run any more; look before you rely on them"
                        .to_owned(),
                );
            }
        }
        for problem in &checked_out.problems {
            notes.note(format!(
                "{} {}",
                problem.message,
                problem.hint.as_deref().unwrap_or_default()
            ));
        }
        self.tell(checked_out.problems.clone()).await;
        for (repository, rejoined) in &checked_out.rejoined {
            self.tell(vec![self.note_rejoined(repository, rejoined)]).await;
        }
    }

    /// Tells the model that others' commits were taken in, or why not; returns what people are to be told.
    pub fn note_rejoined(&self, repository: &WorkspaceRepository, rejoined: &Rejoined) -> Problem {
        let own = &self.row.branch;
        let (branch, place) = match repository.is_own() {
            true => (own.clone(), "this branch".to_owned()),
            false => (
                format!("{own} of {}", repository.name),
                format!(
                    "this session's branch of {} (in {})",
                    repository.name, repository.path
                ),
            ),
        };
        let (problem, note) = match rejoined {
            Rejoined::Joined => (
                Problem::transient(
                    "branch_joined",
                    format!("Commits that were pushed to {branch} meanwhile were taken in."),
                ),
                format!(
                    "commits that others pushed to {place} were taken in, so that files may differ from what you saw; your own \
                     changes are on top of them"
                ),
            ),
            Rejoined::Busy => (
                Problem::transient(
                    "branch_busy",
                    "A merge, a rebase or the like is under way in the sandbox, so that nothing was pushed.",
                )
                .with_hint("Ask the agent to end it."),
                format!(
                    "a merge, a rebase or the like is under way here, so that your work cannot be pushed to {branch}; end it, or abort it"
                ),
            ),
            Rejoined::Conflict(files) => (
                Problem::transient(
                    "branch_conflict",
                    format!(
                        "Commits that others pushed to {branch} conflict with what is in the sandbox: {}.",
                        named(files)
                    ),
                )
                .with_hint("Both are kept, and nothing was pushed. Ask the agent to resolve the conflict."),
                format!(
                    "commits that others pushed to {place} (origin/{own}) conflict with yours in: {}; nothing was pushed. Resolve it \
                     where these files have conflict markers, else by `git merge origin/{own}`",
                    named(files)
                ),
            ),
        };
        self.slot.workspace_notes.note(note);
        problem
    }

    /// What a fork began with need not stay for ever once its sandbox runs.
    pub(super) async fn release_origin(&self) {
        if self.row.forked_from.is_none() {
            return;
        }
        let Ok(Some(origin)) = self.handle.fold().await.map(|fold| fold.forked_snapshot) else {
            return;
        };
        let (catalog, session) = (&self.services.catalog, &self.row.id);
        let release = async {
            for mut snapshot in catalog.snapshots(session).await? {
                if snapshot.id == origin && snapshot.is_pinned {
                    snapshot.is_pinned = false;
                    catalog.put_snapshot(&snapshot).await?;
                }
            }
            Ok::<_, CatalogError>(())
        };
        if let Err(error) = release.await {
            tracing::warn!(%session, error = %Chain(&error), "what a fork began with stays until its next start");
        }
    }
}

fn named(files: &[String]) -> String {
    let mut named = files
        .iter()
        .take(MAX_NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if let Some(more) = files.len().checked_sub(MAX_NAMED).filter(|more| *more > 0) {
        named.push_str(&format!(" and {more} more"));
    }
    named
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn many_files_are_counted() {
        let files: Vec<String> = (1..=12).map(|number| number.to_string()).collect();
        assert_eq!(named(&files[..2]), "1, 2");
        assert_eq!(named(&files[..10]), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10");
        assert_eq!(named(&files), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more");
    }
}
