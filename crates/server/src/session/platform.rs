//! What the platform does for the agent: brings the work to the forge and opens the pull request, in the name of the
//! person who asked.

use super::changes;
use super::command::SessionHandle;
use super::files;
use super::outbox::{self, OpenPayload};
use super::services::SessionServices;
use super::workspace::SessionWorkspace;
use async_trait::async_trait;
use greenroom_agent::world::{Platform, PullRequestOpened, PullRequestRequest};
use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::prompt::Prompt;
use greenroom_protocol::id::TurnId;
use greenroom_protocol::reference::Digest;
use greenroom_stdx::id::fresh_bits;
use greenroom_store::session_log::{Batch, Intent};
use std::collections::HashMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The platform as one turn sees it.
pub struct SessionPlatform {
    pub services: Arc<SessionServices>,
    pub handle: SessionHandle,
    pub workspace: Arc<SessionWorkspace>,
    pub prompt: Prompt,
    pub turn_id: TurnId,
}

#[async_trait]
impl Platform for SessionPlatform {
    async fn keep_file(&self, media_type: &str, bytes: Vec<u8>) -> Result<Digest, Problem> {
        let kept = files::keep(&self.services, &self.handle.id, media_type, bytes).await;
        kept.map_err(|error| error.problem())
    }

    async fn open_pull_request(&self, request: PullRequestRequest) -> Result<PullRequestOpened, Problem> {
        let services = &self.services;
        let pushed = changes::commit_and_push(
            services,
            &self.handle,
            &self.workspace,
            &request.title,
            &CancellationToken::new(),
        )
        .await?;
        let row = self.handle.fold().await?.row;
        let asked = request.repository.as_deref().unwrap_or(&row.repository);
        let Some(proposed) = pushed.iter().find(|one| one.repository.name == asked) else {
            let known: Vec<_> = pushed.iter().map(|one| one.repository.name.as_str()).collect();
            return Err(Problem::permanent(
                "repository_unknown",
                format!("{asked} is not a repository of this workspace."),
            )
            .with_hint(format!("There are: {}.", known.join(", "))));
        };
        if proposed.commit.clone()?.is_none() {
            return Err(
                Problem::permanent("nothing_to_propose", "No file differs from the base branch.")
                    .with_hint("Change something first, then open the pull request."),
            );
        }
        let payload = OpenPayload {
            repository: (!proposed.repository.is_own()).then(|| proposed.repository.clone()),
            title: request.title,
            body: request.body,
            author: self.prompt.author.clone(),
            prompted_by: self.prompters().await?,
        };
        // Fresh for each call: a call that a crash cut is answered "interrupted", never made again under the same key.
        let key = format!("{}/{:x}", self.turn_id, fresh_bits());
        let intent = outbox::open_intent(key, &payload)?;
        self.handle
            .append(Batch {
                intents: vec![intent.clone()],
                ..Batch::default()
            })
            .await?;
        let intent = Intent {
            key: intent.key,
            kind: intent.kind,
            digest: intent.digest,
            payload: intent.payload,
            created_at_ms: services.clock.now_ms(),
            attempts: 0,
            next_attempt_at_ms: 0,
            outcome: None,
            is_final: false,
        };
        // A task of its own: a stop ends the waiting, not the effect, whose result must be recorded.
        let (services, handle) = (services.clone(), self.handle.clone());
        let dispatched = self
            .services
            .tasks
            .spawn(async move { outbox::dispatch(&services, &handle, &row, &intent).await });
        dispatched.await.unwrap_or_else(|_| {
            Err(Problem::transient(
                "internal",
                "Opening the pull request broke off.",
            ))
        })
    }
}

impl SessionPlatform {
    /// Authors of all prompts that ran in this session, in order of their first.
    async fn prompters(&self) -> Result<Vec<Person>, Problem> {
        let session = self.handle.fold().await?.row.id;
        let mut people: Vec<Person> = Vec::new();
        let mut waiting = HashMap::new();
        let mut after = 0;
        loop {
            let page = self
                .services
                .store
                .read(&session, after, 1000)
                .await
                .map_err(|error| error.problem())?;
            let Some(last) = page.last() else {
                return Ok(people);
            };
            after = last.seq;
            for event in &page {
                // Whose prompt was never told to the agent had no part in it.
                match &event.body {
                    EventBody::PromptQueued { prompt, .. } => {
                        waiting.insert(prompt.id.clone(), prompt.author.clone());
                    }
                    EventBody::TurnStarted { prompt_id, .. }
                    | EventBody::PromptInserted { prompt_id, .. } => {
                        let author = waiting.remove(prompt_id);
                        let is_new = |author: &Person| people.iter().all(|person| person.id != author.id);
                        let author = author.filter(is_new);
                        people.extend(author);
                    }
                    _ => {}
                }
            }
        }
    }
}
