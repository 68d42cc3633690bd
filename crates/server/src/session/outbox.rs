//! Effects outside the session: written as an intent first, then done, then recorded, so that a crash in between is made
//! good by doing it again with the same key. The forge recognises the key and answers what it answered before.

use super::command::SessionHandle;
use super::services::SessionServices;
use greenroom_agent::world::PullRequestOpened;
use greenroom_forge::{NewPullRequest, PullRequestError};
use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::{Session, WorkspaceRepository};
use greenroom_stdx::backoff::Backoff;
use greenroom_store::session_log::{Batch, Intent, IntentResult, NewIntent};
use ring::digest;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Kind of an intent that opens or updates the session's pull request.
pub const OPEN_PULL_REQUEST: &str = "open_pull_request";

/// Stands in the key of an intent before how often a person tried again.
const RETRY: char = '~';

/// Tries before a person must look.
const MAX_ATTEMPTS: u32 = 5;
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(200),
    max: Duration::from_secs(10),
};

/// Payload of [`OPEN_PULL_REQUEST`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenPayload {
    /// `None`: the session's own.
    #[serde(default)]
    pub repository: Option<WorkspaceRepository>,
    pub title: String,
    pub body: String,
    pub author: Person,
    /// Everyone whose prompts led to the change.
    pub prompted_by: Vec<Person>,
}

/// Lower-case hexadecimal SHA-256 of what is asked for.
pub fn digest_of(parts: &[&[u8]]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        // Lengths keep ("ab", "c") and ("a", "bc") apart.
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// An intent to open the session's pull request, under `key`.
pub fn open_intent(key: String, payload: &OpenPayload) -> Result<NewIntent, Problem> {
    let payload = serde_json::to_value(payload)
        .map_err(|_| Problem::permanent("internal", "The pull request cannot be written as JSON."))?;
    let digest = digest_of(&[OPEN_PULL_REQUEST.as_bytes(), payload.to_string().as_bytes()]);
    Ok(NewIntent {
        key,
        kind: OPEN_PULL_REQUEST.to_owned(),
        digest,
        payload,
    })
}

/// An intent that was given up, to be tried again. Outside it is the same as before.
pub fn retry_intent(given_up: &Intent) -> NewIntent {
    let tries = given_up
        .key
        .rsplit_once(RETRY)
        .map_or(0, |(_, tries)| tries.parse().unwrap_or(0));
    NewIntent {
        key: format!("{}{RETRY}{}", first_key(&given_up.key), tries + 1_u32),
        kind: given_up.kind.clone(),
        digest: given_up.digest.clone(),
        payload: given_up.payload.clone(),
    }
}

/// The key under which it was tried first, which the other side knows.
fn first_key(key: &str) -> &str {
    key.split_once(RETRY).map_or(key, |(first, _)| first)
}

/// What was given up before and is of no use any more. A later try of something old makes nothing new superfluous.
async fn superseded(handle: &SessionHandle, row: &Session, intent: &Intent) -> Vec<EventBody> {
    if first_key(&intent.key) != intent.key {
        return Vec::new();
    }
    let Ok(fold) = handle.fold().await else {
        return Vec::new();
    };
    let repository = repository_of(intent, row);
    let failed = fold.row.failed_effects.into_iter();
    failed
        .filter(|failed| failed.effect == intent.kind && failed.repository == repository)
        .map(|failed| EventBody::EffectSuperseded {
            effect_key: failed.key,
        })
        .collect()
}

/// Which repository an intent concerns, if it can be read.
fn repository_of(intent: &Intent, row: &Session) -> Option<String> {
    let payload: OpenPayload = serde_json::from_value(intent.payload.clone()).ok()?;
    let other = payload.repository.map(|repository| repository.name);
    Some(other.unwrap_or_else(|| row.repository.clone()))
}

/// Does what the intent says, again if the failure may pass, and records the one result.
pub async fn dispatch(
    services: &SessionServices,
    handle: &SessionHandle,
    row: &Session,
    intent: &Intent,
) -> Result<PullRequestOpened, Problem> {
    let mut attempt = 1;
    let result = loop {
        match perform(services, handle, row, intent).await {
            Err(problem) if problem.retryable && attempt < MAX_ATTEMPTS => {
                tracing::info!(session = %row.id, effect = intent.kind, attempt, code = problem.code, "effect is tried again");
                tokio::time::sleep(BACKOFF.delay(attempt, Backoff::random())).await;
                attempt += 1;
            }
            result => break result,
        }
    };
    let (events, outcome) = match &result {
        Ok((opened, events)) => {
            let mut events = events.clone();
            events.extend(superseded(handle, row, intent).await);
            (events, serde_json::to_value(opened).unwrap_or_default())
        }
        Err(problem) => {
            let failed = EventBody::EffectFailed {
                effect: intent.kind.clone(),
                effect_key: Some(intent.key.clone()),
                repository: repository_of(intent, row),
                problem: problem.clone(),
            };
            (vec![failed], serde_json::to_value(problem).unwrap_or_default())
        }
    };
    let results = vec![IntentResult {
        key: intent.key.clone(),
        outcome,
        is_final: true,
    }];
    handle
        .append(Batch {
            events,
            results,
            ..Batch::default()
        })
        .await?;
    result.map(|(opened, _)| opened)
}

async fn perform(
    services: &SessionServices,
    handle: &SessionHandle,
    row: &Session,
    intent: &Intent,
) -> Result<(PullRequestOpened, Vec<EventBody>), Problem> {
    if intent.kind != OPEN_PULL_REQUEST {
        return Err(
            Problem::permanent("effect_unknown", "This server does not know this kind of effect.")
                .with_hint("It was written by a newer Greenroom; upgrade this server."),
        );
    }
    let payload: OpenPayload = serde_json::from_value(intent.payload.clone())
        .map_err(|_| Problem::permanent("effect_unreadable", "A stored effect cannot be read."))?;
    let forge = &services.forge;
    let own = WorkspaceRepository::own(&row.repository, &row.base_branch);
    let proposed = payload.repository.unwrap_or(own);
    let repository = &proposed.name;
    let new = NewPullRequest {
        title: payload.title,
        body: payload.body,
        head_branch: row.branch.clone(),
        base_branch: Some(proposed.base_branch.clone()),
        author: payload.author,
        session: Some(row.id.clone()),
        prompted_by: payload.prompted_by,
        idempotency_key: Some(format!("{}/{}", row.id, first_key(&intent.key))),
    };
    let (pull_request, is_new) = match forge.open_pull_request(repository, &new).await {
        Ok(pull_request) => (pull_request, true),
        Err(PullRequestError::Exists { number }) => {
            for prompter in &new.prompted_by {
                forge
                    .add_prompter(repository, number, prompter)
                    .await
                    .map_err(|error| error.problem())?;
            }
            let text = (Some(new.title.as_str()), Some(new.body.as_str()));
            let updated = forge
                .update_pull_request(repository, number, &new.author, text)
                .await;
            (updated.map_err(|error| error.problem())?, false)
        }
        Err(error) => return Err(error.problem()),
    };
    let number = pull_request.number;
    let path = crate::paths::pull_request(repository, number);
    let known = handle.fold().await?.row.pull_requests;
    let is_known = known
        .iter()
        .any(|link| link.repository == *repository && link.number == number);
    let events = if is_known {
        Vec::new()
    } else {
        vec![EventBody::PullRequestOpened {
            repository: repository.clone(),
            number,
            title: pull_request.title,
            path: path.clone(),
        }]
    };
    Ok((PullRequestOpened { number, path, is_new }, events))
}
