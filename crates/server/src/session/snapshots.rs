//! Snapshots of sessions: taken when a turn has changed something and before a sandbox is stopped, used when its files are lost, and
//! kept for a while. Which are kept is decided by [`outdated`], which is pure.

use super::services::SessionServices;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::SessionSnapshot;
use greenroom_protocol::id::{SandboxId, SessionId, SnapshotId};
use greenroom_stdx::step;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// How snapshots of sessions are taken and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotBounds {
    /// The newest of each session, besides those that are pinned; 0: none is taken by itself.
    pub kept: usize,
    pub max_age: Duration,
    /// Of all of them; the oldest go first. Layers that snapshots share count in each.
    pub max_disk_bytes: u64,
    /// A sandbox that wrote more is not copied by itself.
    pub max_sandbox_bytes: u64,
}

/// Takes a snapshot of a session's sandbox if it has not written too much, and forgets those that are not needed any more.
/// What goes wrong is no fault of the turn.
pub async fn take_by_itself(services: &SessionServices, session: &SessionId, sandbox: &SandboxId) {
    let bounds = &services.snapshots;
    if bounds.kept == 0 {
        return;
    }
    let taken = async {
        if services.sandboxes.disk_bytes(sandbox).await? > bounds.max_sandbox_bytes {
            tracing::debug!(session = %session, "a sandbox has written too much to be copied by itself");
            return Ok(());
        }
        take(services, session, sandbox, false).await.map(drop)
    };
    match taken.await {
        Ok(()) => {}
        // Such sandboxes have none.
        Err(problem) if problem.code == "snapshot_unsupported" => {}
        Err(problem) => {
            tracing::warn!(session = %session, code = problem.code, "no snapshot was taken: {}", problem.message);
        }
    }
}

/// Takes a snapshot of a session's sandbox, whether it runs or not.
pub async fn take(
    services: &SessionServices,
    session: &SessionId,
    sandbox: &SandboxId,
    is_pinned: bool,
) -> Result<SessionSnapshot, Problem> {
    // Before the files: what is in them was said.
    let seq = services.store.last_seq(session).await;
    let seq = seq.map_err(|error| error.problem())?;
    let sealed = services.sandboxes.snapshot(sandbox).await?;
    step::reached("snapshot.taken");
    let snapshot = SessionSnapshot {
        seq,
        id: sealed.id,
        session_id: session.clone(),
        created_at_ms: services.clock.now_ms(),
        size_bytes: sealed.size_bytes,
        is_pinned,
    };
    keep_record(services, &snapshot).await?;
    step::reached("snapshot.listed");
    forget_outdated(services).await?;
    Ok(snapshot)
}

/// Puts a snapshot on record; what cannot be, such as one of a session that was deleted meanwhile, takes no place on disk.
pub(super) async fn keep_record(
    services: &SessionServices,
    snapshot: &SessionSnapshot,
) -> Result<(), Problem> {
    let Err(error) = services.catalog.put_snapshot(snapshot).await else {
        return Ok(());
    };
    if let Err(problem) = services
        .sandboxes
        .remove_snapshots(std::slice::from_ref(&snapshot.id))
        .await
    {
        tracing::warn!(snapshot = %snapshot.id, code = problem.code, "a snapshot without a record stays until the next start: {}", problem.message);
    }
    Err(error.problem())
}

/// The newest snapshot of a session.
pub async fn newest(
    services: &SessionServices,
    session: &SessionId,
) -> Result<Option<SessionSnapshot>, Problem> {
    let all = services.catalog.snapshots(session).await;
    Ok(all.map_err(|error| error.problem())?.into_iter().next())
}

/// Removes those that are not kept.
pub async fn forget_outdated(services: &SessionServices) -> Result<(), Problem> {
    let all = services.catalog.all_snapshots().await;
    let all = all.map_err(|error| error.problem())?;
    let gone = outdated(&all, &services.snapshots, services.clock.now_ms());
    remove(services, &gone).await
}

/// Forgets snapshots. The record goes first: one without files would be used in vain.
pub async fn remove(services: &SessionServices, ids: &[SnapshotId]) -> Result<(), Problem> {
    if ids.is_empty() {
        return Ok(());
    }
    for id in ids {
        let removed = services.catalog.remove_snapshot(id).await;
        removed.map_err(|error| error.problem())?;
    }
    step::reached("snapshot.unlisted");
    services.sandboxes.remove_snapshots(ids).await
}

/// Which of all snapshots, the oldest first, are not kept. The newest of a session that is left goes last.
pub fn outdated(all: &[SessionSnapshot], bounds: &SnapshotBounds, now_ms: i64) -> Vec<SnapshotId> {
    let max_age_ms = i64::try_from(bounds.max_age.as_millis()).unwrap_or(i64::MAX);
    let mut of_session: HashMap<&SessionId, usize> = HashMap::new();
    let mut gone: HashSet<&SnapshotId> = HashSet::new();
    let mut bytes: u64 = 0;
    for snapshot in all.iter().rev() {
        let seen = of_session.entry(&snapshot.session_id).or_default();
        let is_old = now_ms.saturating_sub(snapshot.created_at_ms) > max_age_ms;
        if !snapshot.is_pinned {
            *seen += 1;
            if *seen > bounds.kept || is_old {
                gone.insert(&snapshot.id);
                continue;
            }
        }
        bytes = bytes.saturating_add(snapshot.size_bytes);
        if bytes > bounds.max_disk_bytes && !snapshot.is_pinned {
            gone.insert(&snapshot.id);
        }
    }
    let is_gone = |snapshot: &&SessionSnapshot| gone.contains(&snapshot.id);
    all.iter()
        .filter(is_gone)
        .map(|snapshot| snapshot.id.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * 60 * 60 * 1000;

    fn snapshot(number: u128, session: u128, days_ago: i64, is_pinned: bool) -> SessionSnapshot {
        SessionSnapshot {
            id: SnapshotId::from_bits(number),
            session_id: SessionId::from_bits(session),
            seq: 1,
            created_at_ms: 1000 * DAY_MS - days_ago * DAY_MS,
            size_bytes: 100,
            is_pinned,
        }
    }

    #[track_caller]
    fn check(all: &[SessionSnapshot], max_disk_bytes: u64, expected: &[u128]) {
        let bounds = SnapshotBounds {
            kept: 2,
            max_age: Duration::from_secs(30 * 24 * 60 * 60),
            max_disk_bytes,
            max_sandbox_bytes: 0,
        };
        let expected: Vec<_> = expected
            .iter()
            .map(|number| SnapshotId::from_bits(*number))
            .collect();
        assert_eq!(outdated(all, &bounds, 1000 * DAY_MS), expected);
    }

    #[test]
    fn count_age_and_disk_decide_and_pins_stay() {
        let all = [
            snapshot(1, 1, 40, true),
            snapshot(2, 2, 31, false),
            snapshot(3, 1, 5, false),
            snapshot(4, 1, 4, false),
            snapshot(5, 3, 3, false),
            snapshot(6, 1, 2, false),
        ];
        check(&all, u64::MAX, &[2, 3]);
        check(&all, 250, &[2, 3, 4]);
        check(&all, 0, &[2, 3, 4, 5, 6]);
        check(&[], 0, &[]);
    }
}
