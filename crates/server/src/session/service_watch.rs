//! Starts the services of an environment in a sandbox, follows their states and tells of them, without flooding the log.

use super::command::SessionHandle;
use crate::sandbox::{Sandbox, SandboxError};
use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::guest::call::{Call, Reply};
use greenroom_protocol::guest::service::{Service, ServiceState, ServiceStatus};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long the first tool call waits for services to be ready.
pub const READY_PATIENCE: Duration = Duration::from_secs(10);
/// How long services may take where nobody follows them.
const UNWATCHED_PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks while something is on its way, and when all is settled.
const LOOK_SOON: Duration = Duration::from_millis(100);
const LOOK_LATER: Duration = Duration::from_secs(3);
/// How long looks come soon after the last change.
const LIVELY: Duration = Duration::from_secs(60);
/// Changes told of for one start of a sandbox; a service that never settles must not fill the log.
const MAX_TOLD: usize = 200;

/// Asks the guest to run the services; which cannot be asked for counts as failed. Returns at once.
pub async fn start(sandbox: &Arc<dyn Sandbox>, services: &[Service], handle: &SessionHandle) {
    for service in services {
        let started = sandbox.call(Call::StartService(service.clone())).await;
        let reason = match started {
            Ok(_) => continue,
            Err(SandboxError::Call(error)) => error.message,
            Err(SandboxError::Lost(problem)) => problem.message,
        };
        tell(
            handle,
            vec![EventBody::ServiceStateChanged {
                name: service.name.clone(),
                state: ServiceState::Failed,
                reason,
            }],
        )
        .await;
    }
}

/// Starts services where nobody follows them, and waits for them for a while: one may never be ready, or need what only comes
/// later. Says which are not, one sentence each.
pub async fn start_and_await(sandbox: &Arc<dyn Sandbox>, services: &[Service]) -> Vec<String> {
    let mut lacking = Vec::new();
    for service in services {
        if let Err(error) = sandbox.call(Call::StartService(service.clone())).await {
            lacking.push(format!("the service {} cannot be started: {error}", service.name));
        }
    }
    let deadline = tokio::time::Instant::now() + UNWATCHED_PATIENCE;
    while !services.is_empty() {
        let Ok(statuses) = statuses(sandbox).await else {
            break;
        };
        let is_over = tokio::time::Instant::now() >= deadline;
        if is_over || statuses.iter().all(|status| is_settled(status.state)) {
            let others = statuses
                .iter()
                .filter(|status| status.state != ServiceState::Ready);
            lacking.extend(
                others.map(|status| format!("the service {} is not ready: {}", status.name, status.reason)),
            );
            break;
        }
        tokio::time::sleep(LOOK_SOON).await;
    }
    lacking
}

/// Follows the services until the sandbox is gone. `settled` is true while none is on its way.
pub async fn follow(sandbox: Arc<dyn Sandbox>, handle: SessionHandle, settled: watch::Sender<bool>) {
    let mut told = Told::default();
    let mut last_change = tokio::time::Instant::now();
    loop {
        let statuses = tokio::select! {
            statuses = statuses(&sandbox) => statuses,
            () = handle.closed() => return,
        };
        let Ok(statuses) = statuses else { break };
        let events = told.changes(&statuses);
        if !events.is_empty() {
            last_change = tokio::time::Instant::now();
            tell(&handle, events).await;
        }
        let is_settled = statuses.iter().all(|status| is_settled(status.state));
        settled.send_replace(is_settled);
        let is_lively = !is_settled && last_change.elapsed() < LIVELY;
        let pause = if is_lively { LOOK_SOON } else { LOOK_LATER };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = handle.closed() => return,
        }
        if !sandbox.is_alive() {
            break;
        }
    }
    // Nobody waits for what cannot come any more.
    settled.send_replace(true);
}

/// The services as the guest sees them.
pub async fn statuses(sandbox: &Arc<dyn Sandbox>) -> Result<Vec<ServiceStatus>, SandboxError> {
    match sandbox.call(Call::ListServices).await? {
        Reply::Services { services } => Ok(services),
        // A guest that answers something else has none that could be shown.
        _ => Ok(Vec::new()),
    }
}

async fn tell(handle: &SessionHandle, events: Vec<EventBody>) {
    handle.tell(events, "the state of a service").await;
}

fn is_settled(state: ServiceState) -> bool {
    match state {
        ServiceState::Starting | ServiceState::Waiting => false,
        ServiceState::Ready | ServiceState::Ended | ServiceState::Failed | ServiceState::Stopped => true,
    }
}

/// What was told of each service.
#[derive(Debug, Default)]
struct Told {
    states: HashMap<String, ServiceState>,
    count: usize,
}

impl Told {
    fn changes(&mut self, statuses: &[ServiceStatus]) -> Vec<EventBody> {
        let mut events = Vec::new();
        for status in statuses {
            let before = self.states.get(&status.name).copied();
            if !is_news(before, status.state) || self.count >= MAX_TOLD {
                continue;
            }
            self.count += 1;
            self.states.insert(status.name.clone(), status.state);
            events.push(EventBody::ServiceStateChanged {
                name: status.name.clone(),
                state: status.state,
                reason: status.reason.clone(),
            });
        }
        events
    }
}

/// A service that is started again and again is told of once, until it is ready or given up.
fn is_news(before: Option<ServiceState>, now: ServiceState) -> bool {
    match (before, now) {
        (Some(before), now) if before == now => false,
        (Some(ServiceState::Waiting), ServiceState::Starting) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_never_settles_is_told_of_once() {
        use ServiceState::{Failed, Ready, Starting, Waiting};
        let mut told = Told::default();
        let mut states = Vec::new();
        for state in [
            Starting, Starting, Waiting, Starting, Waiting, Starting, Ready, Ready, Waiting, Starting, Failed,
        ] {
            let status = ServiceStatus {
                name: "db".to_owned(),
                state,
                restarts: 0,
                last_exit: None,
                reason: String::new(),
            };
            for event in told.changes(&[status]) {
                let EventBody::ServiceStateChanged { state, .. } = event else {
                    panic!("{event:?}")
                };
                states.push(state);
            }
        }
        assert_eq!(states, [Starting, Waiting, Ready, Waiting, Failed]);
    }
}
