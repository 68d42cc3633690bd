//! `apply_patch`: changes several files at once, all or none. Reads everything and works the result out before it writes.

mod apply;
mod envelope;
mod patch;
#[cfg(test)]
mod tests;
mod unified;

use super::{Access, Tool, ToolContext, ToolFailure, ToolOutput, file_change, text_file, unexpected};
use crate::world::WorkspaceError;
use greenroom_protocol::client::event::ItemBody;
use greenroom_protocol::guest::call::{Call, CallErrorCode, Entry, EntryKind, Exec, Reply, Scope};
use patch::{Action, FilePatch, ParseError};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ApplyPatch {
    /// The patch: `*** Begin Patch` … `*** End Patch`, or a unified diff.
    patch: String,
}

impl Tool for ApplyPatch {
    const NAME: &'static str = "apply_patch";
    const DESCRIPTION: &'static str = "Change several files at once; if anything does not fit, nothing is changed. Takes \
        unified diffs, or this form:\n*** Begin Patch\n*** Update File: src/a.py\n*** Move to: src/b.py\n@@ def f():\n \
        context line\n-old line\n+new line\n*** Add File: c.txt\n+its only line\n*** Delete File: d.txt\n*** End Patch\n\
        Lines of a hunk start with a space, - or +. Give about 3 lines of context around a change, and a line above it \
        behind @@ if they occur more than once. End a hunk with *** End of File if it must be at the end.";
    const ACCESS: Access = Access::Changes;

    fn summary(&self) -> String {
        match parse(&self.patch) {
            Ok(files) => {
                let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
                paths.join(", ")
            }
            Err(_) => String::new(),
        }
    }

    async fn run(self, ctx: &ToolContext) -> Result<ToolOutput, ToolFailure> {
        let files = parse(&self.patch).map_err(|error| refused(&error))?;
        let mut changes = Vec::new();
        for file in &files {
            changes.push(prepare(ctx, file).await?);
        }
        // What cannot be put back with its mode and links goes last.
        changes.sort_by_key(|change| matches!(change.effect, Effect::Delete));
        let mut undo = Vec::new();
        for change in &changes {
            if let Err(failure) = write(ctx, change, &mut undo).await {
                return Err(roll_back(ctx, failure, undo).await);
            }
        }
        let mut text = String::new();
        for change in &changes {
            text.push_str(&format!("{}\n", change.describe()));
        }
        Ok(ToolOutput {
            items: changes.iter().map(Change::item).collect(),
            ..ToolOutput::text(text)
        })
    }
}

/// The files a patch changes, each named once.
fn parse(text: &str) -> Result<Vec<FilePatch>, ParseError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.lines().collect();
    let Some(first) = lines.iter().find(|line| !line.trim().is_empty()) else {
        return Err(ParseError::Empty);
    };
    let files = if first.trim_end() == envelope::BEGIN {
        envelope::parse(&lines)?
    } else if lines.iter().any(|line| unified::is_start(line)) {
        unified::parse(&lines)?
    } else {
        return Err(ParseError::NoPatch);
    };
    if files.is_empty() {
        return Err(ParseError::Empty);
    }
    patch::refuse_twice(&files)?;
    Ok(files)
}

/// A change that fits, worked out but not written.
#[derive(Debug)]
struct Change {
    path: String,
    /// Text before; of an added file none.
    old: Option<String>,
    /// Text after; of a deleted file none.
    new: Option<String>,
    effect: Effect,
    /// Directories that the change makes, deepest first.
    new_directories: Vec<String>,
}

#[derive(Debug)]
enum Effect {
    Add { is_executable: bool },
    Update,
    Move { to: String },
    Delete,
}

impl Change {
    fn describe(&self) -> String {
        let path = &self.path;
        match &self.effect {
            Effect::Add { .. } => format!("created {path}"),
            Effect::Update => format!("changed {path}"),
            Effect::Move { to } if self.old == self.new => format!("moved {path} to {to}"),
            Effect::Move { to } => format!("moved {path} to {to} and changed it"),
            Effect::Delete => format!("deleted {path}"),
        }
    }

    fn item(&self) -> ItemBody {
        let (old, new) = (self.old.as_deref(), self.new.as_deref());
        let Effect::Move { to } = &self.effect else {
            return file_change::item(&self.path, old, new);
        };
        let mut item = file_change::item(to, old, new);
        if let ItemBody::FileChange { patch, .. } = &mut item {
            let from = &self.path;
            let hunks = patch.strip_prefix(&format!("--- a/{to}\n")).unwrap_or(patch);
            let old_name = if hunks.is_empty() {
                String::new()
            } else {
                format!("--- a/{from}\n")
            };
            *patch =
                format!("diff --git a/{from} b/{to}\nrename from {from}\nrename to {to}\n{old_name}{hunks}");
        }
        item
    }
}

fn refused(reason: &dyn std::fmt::Display) -> ToolFailure {
    ToolFailure::Answer(format!("{}\nNothing was changed.", reason.to_string().trim_end()))
}

/// Adds to a failure of looking that nothing was done yet.
fn untouched(failure: ToolFailure) -> ToolFailure {
    match failure {
        ToolFailure::Answer(text) => refused(&text),
        ToolFailure::Lost(problem) => ToolFailure::Lost(problem),
    }
}

/// Reads what the change needs and works out what comes of it. Writes nothing.
async fn prepare(ctx: &ToolContext, file: &FilePatch) -> Result<Change, ToolFailure> {
    let path = &file.path;
    let fitted = |error: apply::ApplyError| refused(&format!("{path}: {error}"));
    let (old, new, effect) = match &file.action {
        Action::Add {
            content,
            is_executable,
        } => {
            refuse_existing(ctx, path).await?;
            let effect = Effect::Add {
                is_executable: *is_executable,
            };
            (None, Some(content.clone()), effect)
        }
        Action::Delete { hunks } => {
            let old = existing(ctx, path).await?;
            require_file(ctx, path).await?;
            if !hunks.is_empty() && !apply::apply(&old, hunks).map_err(fitted)?.is_empty() {
                return Err(refused(&format!(
                    "{path}: the patch deletes the file, but the file has more lines than the patch removes"
                )));
            }
            (Some(old), None, Effect::Delete)
        }
        Action::Update { move_to, hunks } => {
            let old = existing(ctx, path).await?;
            let new = if hunks.is_empty() {
                old.clone()
            } else {
                apply::apply(&old, hunks).map_err(fitted)?
            };
            let effect = match move_to {
                None => Effect::Update,
                Some(to) => {
                    require_file(ctx, path).await?;
                    refuse_existing(ctx, to).await?;
                    Effect::Move { to: to.clone() }
                }
            };
            (Some(old), Some(new), effect)
        }
    };
    let made = match &effect {
        Effect::Add { .. } => Some(path.as_str()),
        Effect::Move { to } => Some(to.as_str()),
        Effect::Update | Effect::Delete => None,
    };
    let new_directories = match made {
        Some(made) => missing_directories(ctx, made).await?,
        None => Vec::new(),
    };
    Ok(Change {
        path: path.clone(),
        old,
        new,
        effect,
        new_directories,
    })
}

async fn existing(ctx: &ToolContext, path: &str) -> Result<String, ToolFailure> {
    match text_file::load(&*ctx.workspace, path).await {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(refused(&format!("{path} does not exist"))),
        Err(failure) => Err(untouched(failure)),
    }
}

/// What a path names, links not followed; `None` if nothing.
async fn stat(ctx: &ToolContext, path: &str) -> Result<Option<Entry>, ToolFailure> {
    let call = Call::Stat {
        path: path.to_owned(),
        scope: Scope::Workspace,
    };
    match ctx.workspace.call(call).await {
        Ok(Reply::Stat { entry }) => Ok(Some(entry)),
        Ok(Reply::Failed(error)) | Err(WorkspaceError::Call(error)) => match error.code {
            CallErrorCode::NotFound => Ok(None),
            _ => Err(refused(&error.message)),
        },
        Ok(reply) => Err(untouched(unexpected(&reply))),
        Err(WorkspaceError::Lost(problem)) => Err(ToolFailure::Lost(problem)),
    }
}

async fn refuse_existing(ctx: &ToolContext, path: &str) -> Result<(), ToolFailure> {
    match stat(ctx, path).await? {
        None => Ok(()),
        Some(_) => Err(refused(&format!(
            "{path} exists already; update it, or delete it in an earlier call"
        ))),
    }
}

/// Only plain files are moved and deleted: a link could not be put back.
async fn require_file(ctx: &ToolContext, path: &str) -> Result<(), ToolFailure> {
    match stat(ctx, path).await? {
        Some(entry) if entry.kind == EntryKind::File => Ok(()),
        Some(_) => Err(refused(&format!("{path} is not a regular file; use bash"))),
        None => Err(refused(&format!("{path} does not exist"))),
    }
}

async fn missing_directories(ctx: &ToolContext, path: &str) -> Result<Vec<String>, ToolFailure> {
    let mut missing = Vec::new();
    let mut rest = path;
    while let Some((parent, _)) = rest.rsplit_once('/') {
        match stat(ctx, parent).await? {
            Some(_) => break,
            None => missing.push(parent.to_owned()),
        }
        rest = parent;
    }
    Ok(missing)
}

/// How to take back one step.
#[derive(Debug)]
enum Undo {
    /// Removes what was made; it may not be there.
    Remove(String),
    /// Puts the former text back.
    Restore {
        path: String,
        text: String,
        is_executable: bool,
    },
    Rename {
        from: String,
        to: String,
    },
}

/// Does one change and notes how to take it back.
async fn write(ctx: &ToolContext, change: &Change, undo: &mut Vec<Undo>) -> Result<(), ToolFailure> {
    let path = &change.path;
    let old = || change.old.clone().unwrap_or_default();
    let new = || change.new.clone().unwrap_or_default();
    // Undone in reverse: the file first, then its directories from the deepest up.
    let directories = change.new_directories.iter().rev();
    undo.extend(directories.map(|path| Undo::Remove(path.clone())));
    match &change.effect {
        Effect::Add { is_executable } => {
            put(ctx, path, new()).await?;
            undo.push(Undo::Remove(path.clone()));
            if *is_executable {
                make_executable(ctx, path).await?;
            }
        }
        Effect::Update => {
            put(ctx, path, new()).await?;
            undo.push(restore(path, old()));
        }
        Effect::Move { to } => {
            // Renamed first: writing keeps the mode only of a file that is there.
            rename(ctx, path, to).await?;
            undo.push(Undo::Rename {
                from: to.clone(),
                to: path.clone(),
            });
            if change.old != change.new {
                put(ctx, to, new()).await?;
                undo.push(restore(to, old()));
            }
        }
        Effect::Delete => {
            let is_executable = stat(ctx, path).await?.is_some_and(|entry| entry.is_executable);
            remove(ctx, path).await?;
            undo.push(Undo::Restore {
                path: path.clone(),
                text: old(),
                is_executable,
            });
        }
    }
    Ok(())
}

/// Of a file that is still there, so that it keeps its mode.
fn restore(path: &str, text: String) -> Undo {
    Undo::Restore {
        path: path.to_owned(),
        text,
        is_executable: false,
    }
}

async fn put(ctx: &ToolContext, path: &str, text: String) -> Result<(), ToolFailure> {
    let written = ctx
        .workspace
        .write_file(path, Scope::Workspace, text.into_bytes())
        .await;
    Ok(written?)
}

async fn rename(ctx: &ToolContext, from: &str, to: &str) -> Result<(), ToolFailure> {
    let call = Call::Rename {
        from: from.to_owned(),
        to: to.to_owned(),
        scope: Scope::Workspace,
    };
    done(ctx, call).await
}

async fn remove(ctx: &ToolContext, path: &str) -> Result<(), ToolFailure> {
    let call = Call::Remove {
        path: path.to_owned(),
        scope: Scope::Workspace,
    };
    done(ctx, call).await
}

async fn done(ctx: &ToolContext, call: Call) -> Result<(), ToolFailure> {
    match ctx.call(call).await? {
        Reply::Done => Ok(()),
        reply => Err(unexpected(&reply)),
    }
}

/// The protocol writes files but sets no modes, so chmod(1) does.
async fn make_executable(ctx: &ToolContext, path: &str) -> Result<(), ToolFailure> {
    let exec = Exec {
        argv: ["chmod", "+x", "--", path].map(str::to_owned).to_vec(),
        is_merged: true,
        timeout_ms: Some(10_000),
        ..Exec::default()
    };
    let (sender, mut receiver) = mpsc::channel(4);
    let drain = async { while receiver.recv().await.is_some() {} };
    // Not the turn's token: half a patch is worse than a chmod that ends a moment after a stop.
    let run = ctx.workspace.exec(exec, sender, CancellationToken::new());
    let (exit, ()) = tokio::join!(run, drain);
    match exit?.code {
        Some(0) => Ok(()),
        _ => Err(ToolFailure::Answer(format!(
            "{path}: could not be made executable"
        ))),
    }
}

/// Takes everything back, last step first, and says so; names the files where that failed too.
async fn roll_back(ctx: &ToolContext, failure: ToolFailure, undo: Vec<Undo>) -> ToolFailure {
    let reason = match failure {
        ToolFailure::Answer(reason) => reason,
        ToolFailure::Lost(problem) => return ToolFailure::Lost(problem),
    };
    let mut left = Vec::new();
    for step in undo.into_iter().rev() {
        let (path, undone) = match step {
            Undo::Remove(path) => {
                // A directory whose file could not be written may never have been made.
                let undone = match stat(ctx, &path).await {
                    Ok(None) => Ok(()),
                    Ok(Some(_)) => remove(ctx, &path).await,
                    Err(failure) => Err(failure),
                };
                (path, undone)
            }
            Undo::Rename { from, to } => {
                let undone = rename(ctx, &from, &to).await;
                (from, undone)
            }
            Undo::Restore {
                path,
                text,
                is_executable,
            } => {
                let mut undone = put(ctx, &path, text).await;
                if undone.is_ok() && is_executable {
                    undone = make_executable(ctx, &path).await;
                }
                (path, undone)
            }
        };
        match undone {
            Ok(()) => {}
            Err(ToolFailure::Lost(problem)) => return ToolFailure::Lost(problem),
            Err(ToolFailure::Answer(error)) => left.push(format!("{path} ({error})")),
        }
    }
    if left.is_empty() {
        return refused(&reason);
    }
    ToolFailure::Answer(format!(
        "{reason}\nTaking back what was written failed for: {}. Look at these files before you go on.",
        left.join(", ")
    ))
}
