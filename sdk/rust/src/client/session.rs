//! Endpoints about sessions, their prompts and their events.

use super::repository::registry_image;
use super::{CALL_TIMEOUT, Client, Repeat};
use crate::failure::ClientError;
use crate::idempotency::IdempotencyKey;
use crate::stream::SessionStream;
use greenroom_protocol::client::environment::{ServiceLog, SessionServices};
use greenroom_protocol::client::event::EventPage;
use greenroom_protocol::client::image::RegistryImage;
use greenroom_protocol::client::overview::History;
use greenroom_protocol::client::prompt::{ChangePrompt, OpenPrompts, PromptReceipt, SendPrompt};
use greenroom_protocol::client::pull_request::SessionDiff;
use greenroom_protocol::client::session::{
    CreateSession, CreatedSession, ForkSession, ForkedSession, RetryEffect, Session, SessionList,
    SessionSnapshot, SessionSnapshotList, UpdateSession,
};
use greenroom_protocol::id::{PromptId, SessionId};
use greenroom_protocol::reference::Digest;
use reqwest::Method;

/// Which part of the sessions list to get.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// At most this many, 1 to 200; the server's own page size if absent.
    pub limit: Option<u32>,
    /// What `next_cursor` of the page before held.
    pub cursor: Option<String>,
    /// Only sessions on this repository.
    pub repository: Option<String>,
    /// Only sessions whose title, or one prompt of which, has all these words or words that begin so.
    pub words: Option<String>,
    pub archived: Archived,
}

/// What becomes of archived sessions in a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Archived {
    #[default]
    Exclude,
    /// Archived ones alone.
    Only,
    Include,
}

impl Client {
    /// A page of sessions, newest activity first.
    pub async fn sessions(&self, filter: &SessionFilter) -> Result<SessionList, ClientError> {
        let query = [
            ("limit", filter.limit.map(|limit| limit.to_string())),
            ("cursor", filter.cursor.clone()),
            ("repository", filter.repository.clone()),
            ("words", filter.words.clone()),
            (
                "archived",
                match filter.archived {
                    Archived::Exclude => None,
                    Archived::Only => Some("only".to_owned()),
                    Archived::Include => Some("include".to_owned()),
                },
            ),
        ];
        let query: Vec<_> = query
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name, value)))
            .collect();
        self.get_with(&["sessions"], &query).await
    }

    /// Starts a session; with a prompt in `create`, that prompt is on disk when this returns.
    pub async fn create_session(
        &self,
        create: &CreateSession,
        key: &IdempotencyKey,
    ) -> Result<CreatedSession, ClientError> {
        self.post_keyed(&["sessions"], create, key).await
    }

    /// One session; 404 `session_unknown`.
    pub async fn session(&self, id: &SessionId) -> Result<Session, ClientError> {
        self.get(&["sessions", id.as_str()]).await
    }

    /// Up to `limit` (1 to 1000) stored events behind `after`.
    pub async fn events(&self, id: &SessionId, after: u64, limit: u32) -> Result<EventPage, ClientError> {
        let query = [("after", after.to_string()), ("limit", limit.to_string())];
        self.get_with(&["sessions", id.as_str(), "events"], &query).await
    }

    /// Queues a prompt; it is on disk when this returns.
    pub async fn send_prompt(
        &self,
        id: &SessionId,
        prompt: &SendPrompt,
        key: &IdempotencyKey,
    ) -> Result<PromptReceipt, ClientError> {
        self.post_keyed(&["sessions", id.as_str(), "prompts"], prompt, key)
            .await
    }

    /// The prompt whose turn runs, and those that wait.
    pub async fn open_prompts(&self, id: &SessionId) -> Result<OpenPrompts, ClientError> {
        self.get(&["sessions", id.as_str(), "prompts"]).await
    }

    /// Takes a prompt out of the queue; 409 `prompt_not_queued` if it already ran.
    pub async fn cancel_prompt(&self, id: &SessionId, prompt: &PromptId) -> Result<(), ClientError> {
        let url = self.url(&["sessions", id.as_str(), "prompts", prompt.as_str()]);
        self.acknowledge(self.change(Method::DELETE, url)).await
    }

    /// Changes what a prompt that waits says, or when it runs; 409 `prompt_not_queued` if it already ran.
    pub async fn change_prompt(
        &self,
        id: &SessionId,
        prompt: &PromptId,
        change: &ChangePrompt,
    ) -> Result<(), ClientError> {
        let url = self.url(&["sessions", id.as_str(), "prompts", prompt.as_str()]);
        self.acknowledge(self.change(Method::PATCH, url).json(change))
            .await
    }

    /// Deletes an archived session for good; 409 `session_not_archived`.
    pub async fn delete_session(&self, id: &SessionId) -> Result<(), ClientError> {
        let url = self.url(&["sessions", id.as_str()]);
        self.acknowledge(self.change(Method::DELETE, url)).await
    }

    /// Changes a session's title, how its prompts are delivered, or whether its queue is paused; 409 `queue_empty` if nothing waits
    /// that could be paused.
    pub async fn update_session(
        &self,
        id: &SessionId,
        change: &UpdateSession,
    ) -> Result<Session, ClientError> {
        let url = self.url(&["sessions", id.as_str()]);
        let request = self.change(Method::PATCH, url).json(change);
        self.json(request.timeout(CALL_TIMEOUT), Repeat::Safe).await
    }

    /// Tries something outside again that was given up; 409 `effect_not_failed` if nothing of that key was.
    pub async fn retry_effect(&self, id: &SessionId, key: &str) -> Result<Session, ClientError> {
        let body = RetryEffect {
            effect_key: key.to_owned(),
        };
        self.post(&["sessions", id.as_str(), "effect-retries"], &body)
            .await
    }

    /// Asks the running turn to stop; 409 `nothing_to_stop` if none runs. What waits goes on, or stays if `pauses_queue`.
    pub async fn stop_session(&self, id: &SessionId, pauses_queue: bool) -> Result<Session, ClientError> {
        let url = self.url(&["sessions", id.as_str(), "stop"]);
        let query = [("pauses_queue", pauses_queue)];
        let request = self.change(Method::POST, url).query(&query);
        self.json(request.timeout(CALL_TIMEOUT), Repeat::Safe).await
    }

    /// What the session changed against its base branches: as pushed, or, if `is_live`, as the files in its sandbox are now, if it runs.
    pub async fn session_diff(&self, id: &SessionId, is_live: bool) -> Result<SessionDiff, ClientError> {
        let query = [("live", is_live.to_string())];
        self.get_with(&["sessions", id.as_str(), "diff"], &query).await
    }

    /// A file that the session keeps, such as an image of a prompt; 404 `blob_unknown`.
    pub async fn blob(&self, id: &SessionId, digest: &Digest) -> Result<Vec<u8>, ClientError> {
        self.bytes(&["sessions", id.as_str(), "blobs", digest.as_str()])
            .await
    }

    /// Services of the session's sandbox; empty while it does not run.
    pub async fn session_services(&self, id: &SessionId) -> Result<SessionServices, ClientError> {
        self.get(&["sessions", id.as_str(), "services"]).await
    }

    /// What a service wrote behind `after`; 409 `not_running`, 404 `service_unknown`.
    pub async fn service_log(
        &self,
        id: &SessionId,
        name: &str,
        after: u64,
    ) -> Result<ServiceLog, ClientError> {
        let query = [("after", after.to_string())];
        self.get_with(&["sessions", id.as_str(), "services", name, "log"], &query)
            .await
    }

    /// Snapshots of the session's sandbox, the newest first.
    pub async fn session_snapshots(&self, id: &SessionId) -> Result<SessionSnapshotList, ClientError> {
        self.get(&["sessions", id.as_str(), "snapshots"]).await
    }

    /// Takes a snapshot of the session's sandbox, which may go on; 422 `sandbox_none`.
    pub async fn take_snapshot(&self, id: &SessionId) -> Result<SessionSnapshot, ClientError> {
        self.command(Method::POST, &["sessions", id.as_str(), "snapshots"])
            .await
    }

    /// Puts a snapshot into a registry; answers the reference with its digest. Waits as long as it takes; again, it uploads what is
    /// missing.
    pub async fn push_snapshot(
        &self,
        id: &SessionId,
        snapshot: &str,
        reference: &str,
    ) -> Result<RegistryImage, ClientError> {
        let url = self.url(&["sessions", id.as_str(), "snapshots", snapshot, "push"]);
        let request = self.change(Method::POST, url).json(&registry_image(reference));
        self.json(request, Repeat::Safe).await
    }

    /// Removes a snapshot; 404 `snapshot_unknown`.
    pub async fn remove_snapshot(&self, id: &SessionId, snapshot: &str) -> Result<(), ClientError> {
        let url = self.url(&["sessions", id.as_str(), "snapshots", snapshot]);
        self.acknowledge(self.change(Method::DELETE, url)).await
    }

    /// Makes sessions that begin with this one's files and conversation; 404 `snapshot_unknown`, 422 `fork_count_invalid`.
    pub async fn fork_session(
        &self,
        id: &SessionId,
        fork: &ForkSession,
        key: &IdempotencyKey,
    ) -> Result<ForkedSession, ClientError> {
        self.post_keyed(&["sessions", id.as_str(), "forks"], fork, key)
            .await
    }

    /// All events behind `after`, then live ones; reconnects by itself. Sends nothing before the first
    /// [`SessionStream::next`].
    pub fn stream(&self, id: &SessionId, after: u64) -> SessionStream {
        SessionStream::new(self.clone(), id.clone(), after, false)
    }

    /// Of a long session an overview and the events behind it, then live ones; what came before is read by [`Client::history`].
    pub fn stream_recent(&self, id: &SessionId) -> SessionStream {
        SessionStream::new(self.clone(), id.clone(), 0, true)
    }

    /// The events up to number `before`, back to the overview before it; 422 `cursor_ahead`.
    pub async fn history(&self, id: &SessionId, before: u64) -> Result<History, ClientError> {
        let query = [("before", before.to_string())];
        self.get_with(&["sessions", id.as_str(), "history"], &query).await
    }
}
