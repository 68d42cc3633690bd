//! What nobody uses: sandboxes stand still, then stop; sessions leave memory, and memory goes back to the system.

use crate::api::app::App;
use crate::session::Leave;
use crate::session::command::SessionHandle;
use crate::session::follow_files;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::SessionState;
use greenroom_protocol::id::SandboxId;
use greenroom_stdx::chain::Chain;
use greenroom_stdx::memory;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between two looks at how many sessions are in memory.
const LOOK_AT_MEMORY: Duration = Duration::from_secs(1);
/// Fewer than this many that left memory are not worth the look for what is free.
const WORTH_A_LOOK: usize = 32;

/// Gives memory back to the system when most sessions have left it. Many sessions that were awake at once leave theirs in pieces all over,
/// which would be kept for the next many.
pub async fn memory(app: App, shutdown: CancellationToken) {
    let mut most = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_AT_MEMORY) => {}
            () = shutdown.cancelled() => return,
        }
        let awake = app.sessions.awake().await;
        most = awake.max(most);
        if has_mostly_left(most, awake) {
            most = awake;
            let _ = tokio::task::spawn_blocking(memory::give_back_free).await;
        }
    }
}

fn has_mostly_left(most: usize, awake: usize) -> bool {
    most - awake >= WORTH_A_LOOK.max(most / 2)
}

/// Holds sandboxes still that nobody uses, later stops them, those from before this start included, and forgets conversations that nobody
/// goes on with.
pub async fn idle_sandboxes(app: App, shutdown: CancellationToken) {
    adopt_sandboxes(&app).await;
    let services = &app.services;
    loop {
        tokio::select! {
            () = tokio::time::sleep(services.running.look_every()) => {}
            () = shutdown.cancelled() => return,
        }
        for handle in app.sessions.loaded().await {
            handle.conversation.rest(services.clock.now_ms());
        }
        app.sessions.sweep().await;
        hold_still(&app).await;
        for (sandbox, handle) in services.running.overdue(services.clock.now_ms()) {
            let is_archived = handle
                .fold()
                .await
                .is_ok_and(|fold| fold.row.state == SessionState::Archived);
            let leave = match is_archived {
                true => Leave::ForGood,
                false => Leave::WithSnapshot,
            };
            match handle.sandbox.rest(services, &handle, &sandbox, leave).await {
                Ok(true) => tracing::info!(%sandbox, "an idle sandbox was stopped"),
                Ok(false) => {}
                Err(problem) => {
                    tracing::warn!(%sandbox, code = problem.code, "an idle sandbox could not be stopped: {}", problem.message);
                }
            }
        }
    }
}

/// Counts the sandboxes that an earlier server left running, and serves them on.
async fn adopt_sandboxes(app: &App) {
    let sandboxes = match app.catalog.sandboxes().await {
        Ok(sandboxes) => sandboxes,
        Err(error) => {
            tracing::error!(error = %Chain(&error), "cannot list sandboxes, so idle ones of before keep running");
            return;
        }
    };
    for (session, sandbox) in sandboxes {
        if app.shutdown.is_cancelled() {
            return;
        }
        match app.services.sandboxes.is_running(&sandbox).await {
            Ok(false) => continue,
            Ok(true) => {}
            Err(problem) => {
                tracing::warn!(%sandbox, code = problem.code, "whether a sandbox runs is not known: {}", problem.message);
                continue;
            }
        }
        match app.sessions.get(&session).await {
            Ok(handle) => {
                let now_ms = app.services.clock.now_ms();
                app.services.running.adopt(&sandbox, &handle, now_ms);
                if let Err(problem) = adopt(app, &handle, &sandbox).await
                    && !app.shutdown.is_cancelled()
                {
                    tracing::warn!(%session, %sandbox, code = problem.code, "a sandbox has no way out until its next turn: {}", problem.message);
                }
            }
            Err(problem) => {
                tracing::warn!(%session, %sandbox, code = problem.code, "a sandbox runs for a session that cannot be loaded");
            }
        }
    }
}

async fn adopt(app: &App, handle: &SessionHandle, sandbox: &SandboxId) -> Result<(), Problem> {
    let row = handle.fold().await?.row;
    handle.sandbox.adopt(&app.services, &row, sandbox).await?;
    if let Some(running) = handle.sandbox.serving() {
        // Until a turn takes the sandbox over, by which this link to it ends.
        app.services.tasks.spawn(follow_files(running, handle.clone()));
    }
    Ok(())
}

/// Holds those still that nobody has used for a while.
async fn hold_still(app: &App) {
    let services = &app.services;
    let Some(after) = services.running.still_after() else {
        return;
    };
    for (sandbox, handle) in services.running.unused_for(after, services.clock.now_ms()) {
        match handle.sandbox.hold_still(services, &sandbox, after).await {
            Ok(true) => tracing::debug!(%sandbox, "an idle sandbox stands still"),
            Ok(false) => {}
            Err(problem) => {
                tracing::warn!(%sandbox, code = problem.code, "an idle sandbox goes on: {}", problem.message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::has_mostly_left;

    #[test]
    fn memory_goes_back_when_most_are_gone() {
        for (most, awake, expected) in [
            (0, 0, false),
            (31, 0, false),
            (32, 0, true),
            (64, 32, true),
            (1_000, 501, false),
            (1_000, 500, true),
        ] {
            assert_eq!(has_mostly_left(most, awake), expected, "{awake} of {most}");
        }
    }
}
