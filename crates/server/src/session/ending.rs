//! How sessions end: archived, deleted, or both by their age. That a session is deleted is one row of the catalog; removing what it has on
//! disk can be cut off anywhere and is gone on with at the next start.

use super::command::{Reason, SessionHandle};
use super::registry::SessionRegistry;
use super::sandbox_slot::Leave;
use super::services::SessionServices;
use super::snapshots;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::{Session, SessionState};
use greenroom_protocol::id::{PersonId, SessionId};
use greenroom_stdx::chain::Chain;
use greenroom_stdx::step;
use std::time::Duration;

/// Longest time between two looks for sessions that are too old.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// When sessions end by themselves; `None`: never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Nothing happened in them for this long.
    pub archive_after: Option<Duration>,
    /// They were archived this long ago.
    pub delete_after: Option<Duration>,
}

impl Retention {
    /// How often to look; `None`: there is nothing to look for.
    fn look_every(&self) -> Option<Duration> {
        let shortest = [self.archive_after, self.delete_after]
            .into_iter()
            .flatten()
            .min()?;
        Some((shortest / 4).clamp(Duration::from_millis(200), LOOK_EVERY))
    }
}

/// Refuses what changes a session that is archived.
pub fn check_not_archived(row: &Session) -> Result<(), Problem> {
    match row.state {
        SessionState::Archived => Err(Problem::permanent(
            "session_archived",
            "This session is archived: it is kept for reading only.",
        )
        .with_hint("Its owner can take it back with `greenroom session unarchive`, or fork it.")),
        _ => Ok(()),
    }
}

/// What those get who want to delete another one.
pub fn not_archived() -> Problem {
    Problem::permanent("session_not_archived", "Only an archived session can be deleted.")
        .with_hint("Archive it first; from there it can be taken back.")
}

/// Keeps a session for reading only and stops its sandbox, whatever runs in it; its files stay.
pub async fn archive(
    services: &SessionServices,
    handle: &SessionHandle,
    why: Reason,
) -> Result<Session, Problem> {
    let archived = handle.archive(why).await?;
    // What follows is no part of the command that was carried out.
    let handle = &handle.clone().under(None);
    let Some(sandbox) = handle.fold().await?.sandbox else {
        return Ok(archived);
    };
    let id = &sandbox.sandbox_id;
    // If somebody uses it just now, it is stopped when it is idle.
    if let Err(problem) = handle.sandbox.rest(services, handle, id, Leave::ForGood).await {
        tracing::warn!(sandbox = %id, code = problem.code, "the sandbox of an archived session goes on for now: {}", problem.message);
    }
    Ok(archived)
}

/// Removes a deleted session's sandbox, snapshots and log. Doing it again is fine.
pub async fn remove(services: &SessionServices, id: &SessionId) -> Result<(), Problem> {
    let sandbox = services.catalog.sandbox(id).await;
    if let Some(sandbox) = sandbox.map_err(|error| error.problem())? {
        services.sandboxes.remove(&sandbox).await?;
        services.running.gone(&sandbox);
        let removed = services.catalog.remove_sandbox(id).await;
        removed.map_err(|error| error.problem())?;
    }
    step::reached("deletion.sandbox");
    let all = services.catalog.snapshots(id).await;
    let all = all.map_err(|error| error.problem())?;
    let ids: Vec<_> = all.into_iter().map(|snapshot| snapshot.id).collect();
    snapshots::remove(services, &ids).await?;
    step::reached("deletion.snapshots");
    let removed = services.store.remove(id).await;
    removed.map_err(|error| error.problem())?;
    step::reached("deletion.log");
    let noted = services.catalog.session_removed(id).await;
    noted.map_err(|error| error.problem())
}

/// Deletes an archived session. `ended` is called when nobody finds it any more, before what it has on disk goes; what could not be removed
/// is removed later.
pub async fn delete(
    services: &SessionServices,
    handle: &SessionHandle,
    why: Reason,
    ended: impl FnOnce(),
) -> Result<(), Problem> {
    // Before anything is waited for.
    if handle.fold().await?.row.state != SessionState::Archived {
        return Err(not_archived());
    }
    // Whoever stops its sandbox comes to an end first.
    let sandbox = handle.sandbox.ready.lock().await;
    handle.delete(why).await?;
    step::reached("deletion.noted");
    drop(sandbox);
    ended();
    handle.closed().await;
    if let Err(problem) = remove(services, &handle.id).await {
        tracing::warn!(session = %handle.id, code = problem.code, "what a deleted session has on disk stays for now: {}", problem.message);
    }
    Ok(())
}

/// Deletes a session whose log cannot be read: what is left of it is removed too.
pub async fn delete_unreadable(
    services: &SessionServices,
    sessions: &SessionRegistry,
    id: &SessionId,
    by: &PersonId,
) -> Result<(), Problem> {
    sessions.is_deleted(id);
    let deleted = services.catalog.delete_session(id, Some(by)).await;
    deleted.map_err(|error| error.problem())?;
    if let Err(problem) = remove(services, id).await {
        tracing::warn!(session = %id, code = problem.code, "what a deleted session has on disk stays for now: {}", problem.message);
    }
    Ok(())
}

/// Goes on with what was cut off. Before the first request, `sessions` learns of them, so that none is loaded again.
pub async fn finish(services: &SessionServices, sessions: &SessionRegistry) {
    let unremoved = match services.catalog.unremoved_sessions().await {
        Ok(unremoved) => unremoved,
        Err(error) => {
            tracing::error!(error = %Chain(&error), "which sessions were deleted is not known");
            return;
        }
    };
    for id in unremoved {
        sessions.is_deleted(&id);
        if let Err(problem) = remove(services, &id).await {
            tracing::warn!(session = %id, code = problem.code, "what a deleted session has on disk stays for now: {}", problem.message);
        }
    }
}

/// Archives and deletes sessions as they grow old, until the server goes down.
/// `ended` hears of each that is deleted.
pub async fn by_age(
    services: &SessionServices,
    sessions: &SessionRegistry,
    retention: Retention,
    ended: impl Fn(&SessionId),
) {
    let Some(look_every) = retention.look_every() else {
        return;
    };
    loop {
        for (is_archived, age) in [(false, retention.archive_after), (true, retention.delete_after)] {
            let Some(age) = age else { continue };
            let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            let quiet_since_ms = services.clock.now_ms().saturating_sub(age_ms);
            let quiet = match services.catalog.quiet_sessions(is_archived, quiet_since_ms).await {
                Ok(quiet) => quiet,
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "which sessions are old is not known");
                    continue;
                }
            };
            for id in quiet {
                if services.shutdown.is_cancelled() {
                    return;
                }
                let why = Reason::Age { quiet_since_ms };
                let done = match sessions.get(&id).await {
                    Ok(handle) if is_archived => delete(services, &handle, why, || ended(&id)).await,
                    Ok(handle) => archive(services, &handle, why).await.map(drop),
                    Err(problem) => Err(problem),
                };
                match done {
                    Ok(()) if is_archived => {
                        tracing::info!(session = %id, "a session that was archived long ago was deleted");
                    }
                    Ok(()) => tracing::info!(session = %id, "an old session was archived"),
                    // Somebody came first, or it is damaged, which was told then.
                    Err(problem) => {
                        tracing::debug!(session = %id, code = problem.code, "an old session stays: {}", problem.message);
                    }
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(look_every) => {}
            () = services.shutdown.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_as_often_as_the_shortest_age_needs() {
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        for (archive_after, delete_after, expected) in [
            (None, None, None),
            (days(30), None, Some(LOOK_EVERY)),
            (
                days(30),
                Some(Duration::from_secs(40)),
                Some(Duration::from_secs(10)),
            ),
            (Some(Duration::ZERO), days(1), Some(Duration::from_millis(200))),
        ] {
            let retention = Retention {
                archive_after,
                delete_after,
            };
            assert_eq!(retention.look_every(), expected);
        }
    }
}
