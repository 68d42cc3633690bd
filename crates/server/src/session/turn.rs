//! One turn of a session: gives the driver its world, and when it is done brings the work to the forge.

use super::actor::Actor;
use super::changes::{self, ChangeAuthor};
use super::command::{Command, SessionHandle};
use super::files;
use super::first_request::FirstRequest;
use super::hub::Hub;
use super::platform::SessionPlatform;
use super::services::SessionServices;
use super::state::{RunningTurn, SessionFold};
use super::workspace::{SessionWorkspace, service_fact};
use crate::environment::BoundedEnvironment;
use async_trait::async_trait;
use futures_util::FutureExt as _;
use greenroom_agent::world::{
    Inserted, MessageOf, Record, RecordError, Recorder, SessionFacts, TurnEnd, TurnInput, TurnResult,
};
use greenroom_llm::conversation::TokenUsage;
use greenroom_llm::failure::ModelFailure;
use greenroom_protocol::client::event::{EventBody, Item, ItemBody, SandboxUsage};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::stream::DeltaChannel;
use greenroom_protocol::environment::EgressPreset;
use greenroom_protocol::id::{ItemId, TurnId};
use greenroom_stdx::id::fresh_bits;
use greenroom_store::session_log::{Batch, Intent};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a stopped turn may still take to push what it changed.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Whether the turn is new or was cut by a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Fresh,
    Resumed,
}

/// Starts the turn as a task; it reports back with [`Command::TurnEnded`].
pub(super) fn spawn(actor: &Actor, running: RunningTurn, start: Start) {
    // Without a sender nobody can reach this session any more, and the turn resumes when it is loaded again.
    let Some(handle) = actor.own_handle() else {
        return;
    };
    let services = actor.services.clone();
    let fold = actor.fold.clone();
    let stop = actor.stop.clone();
    let tasks = services.tasks.clone();
    tasks.spawn(async move {
        let turn_id = running.turn_id.clone();
        let ran = AssertUnwindSafe(run(services, &handle, fold, running, start, stop))
            .catch_unwind()
            .await;
        let (end, sandbox) = ran.unwrap_or_else(|_| {
            tracing::error!(turn = %turn_id, "a turn panicked");
            let end = failed(
                Problem::permanent("internal", "Something in the server broke in this turn.")
                    .with_hint("The workspace kept what was done. Please report this with the server's log."),
            );
            (end, None)
        });
        // The mailbox only closes when the server goes down; the log then still says "running".
        let ended = Command::TurnEnded {
            turn_id,
            end,
            sandbox,
        };
        let _ = handle.sender.send(ended.into()).await;
    });
}

async fn run(
    services: Arc<SessionServices>,
    handle: &SessionHandle,
    fold: SessionFold,
    running: RunningTurn,
    start: Start,
    stop: CancellationToken,
) -> (TurnEnd, Option<SandboxUsage>) {
    let row = &fold.row;
    let model_id = running.prompt.model.as_ref().unwrap_or(&row.model);
    let model = match services.models.resolve(Some(model_id)) {
        Ok(model) => model,
        Err(problem) => return (failed(problem), None),
    };
    let author = ChangeAuthor {
        person: running.prompt.author.clone(),
        session: row.id.clone(),
    };
    let workspace = SessionWorkspace::new(
        services.clone(),
        handle.clone(),
        row.clone(),
        running.turn_id.clone(),
        author.clone(),
        handle.sandbox.clone(),
    );
    // Both are reads of the disk; the environment is one more for the sandbox's start, and for what the model is told.
    let (conversation, environment) = tokio::join!(
        handle.conversation.of_turn(&services, &row.id, &running.turn_id),
        workspace.environment(),
    );
    let (history, resumed) = match conversation {
        Ok(conversation) => conversation,
        Err(problem) => return (failed(problem), None),
    };
    // One that is wrong is said where the sandbox is needed.
    let environment = environment.ok();
    let ledger = &handle.sandbox.ledger;
    let begun = ledger.begin_turn(&running.turn_id).events;
    handle.tell(begun, "a decision about connections").await;
    // While the model thinks, which needs no sandbox.
    let first_request = Arc::new(FirstRequest::new(model.client));
    workspace.prepare(first_request.left());
    let recorder = Arc::new(SessionRecorder {
        services: services.clone(),
        handle: handle.clone(),
        turn_id: running.turn_id.clone(),
        hub: handle.hub.clone(),
    });
    let platform = Arc::new(SessionPlatform {
        services: services.clone(),
        handle: handle.clone(),
        workspace: workspace.clone(),
        prompt: (*running.prompt).clone(),
        turn_id: running.turn_id.clone(),
    });
    let input = TurnInput {
        turn_id: running.turn_id.clone(),
        prompt: (*running.prompt).clone(),
        history,
        resumed: if start == Start::Resumed {
            resumed
        } else {
            Vec::new()
        },
        facts: SessionFacts {
            model: model.name,
            repository: row.repository.clone(),
            base_branch: row.base_branch.clone(),
            branch: row.branch.clone(),
            repositories: workspace.other_repositories().await,
            today: today(services.clock.now_ms()),
            cache_key: row.id.as_str().to_owned(),
            network: environment.map(network).unwrap_or_default(),
            services: handle
                .sandbox
                .running_services()
                .or_else(|| Some(environment?.services.iter().map(service_fact).collect()))
                .unwrap_or_default(),
            limits: services.limits,
        },
        model: first_request,
        workspace: workspace.clone(),
        platform,
        recorder: recorder.clone(),
        stop,
    };
    let stopping = input.stop.clone();
    let end = services.driver.run_turn(input).await;
    let mut notices = Vec::new();
    // A resumed turn may have ended before the crash, with its changes still to be brought home.
    if workspace.has_unpushed() {
        let subject = super::state::title_from_prompt(&running.prompt.text);
        let home = bring_home(&services, handle, &workspace, &subject, &stopping).await;
        // What could not be pushed is in the sandbox, and nowhere else; the next turn tries again.
        let is_certain = home.has_commits || !home.problems.is_empty();
        workspace.keep_snapshot(is_certain).await;
        notices.extend(home.problems);
    }
    let sandbox = workspace.usage().await;
    workspace.leave().await;
    let decided = ledger.end_turn();
    handle.tell(decided.events, "a decision about connections").await;
    if decided.beyond > 0 {
        notices.push(
            Problem::permanent(
                "egress_unrecorded",
                format!(
                    "{} more connections to other hosts were decided and not listed.",
                    decided.beyond
                ),
            )
            .with_hint("The server's metrics count them."),
        );
    }
    if !notices.is_empty() {
        let items = notices.into_iter().map(|problem| Item {
            id: ItemId::from_bits(fresh_bits()),
            body: ItemBody::Notice { problem },
        });
        // If this cannot be recorded, neither can the turn's end, and that is said there.
        let _ = recorder
            .record(Record {
                completed: items.collect(),
                ..Record::default()
            })
            .await;
    }
    (end, sandbox)
}

/// Where the sandbox may connect to, in words for the model.
fn network(environment: &BoundedEnvironment) -> Vec<String> {
    let egress = &environment.egress;
    let preset = match egress.preset {
        EgressPreset::None => None,
        EgressPreset::PackageRegistries => {
            Some("the public registries of common package managers".to_owned())
        }
    };
    let credentials = egress
        .credentials
        .iter()
        .map(|credential| credential.host.clone());
    preset
        .into_iter()
        .chain(egress.allow.iter().cloned())
        .chain(credentials)
        .collect()
}

/// Commits and pushes; returns whether there was anything. Somebody who stops the turn waits [`STOP_GRACE`] for it and no longer.
async fn bring_home(
    services: &SessionServices,
    handle: &SessionHandle,
    workspace: &SessionWorkspace,
    subject: &str,
    stopping: &CancellationToken,
) -> BroughtHome {
    let cancel = CancellationToken::new();
    let pushing = changes::commit_and_push(services, handle, workspace, subject, &cancel);
    tokio::pin!(pushing);
    let impatient = async {
        stopping.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    let pushed = tokio::select! {
        pushed = &mut pushing => Some(pushed),
        () = impatient => {
            cancel.cancel();
            None
        }
    };
    let pushed = match pushed {
        Some(pushed) => pushed,
        None => pushing.await,
    };
    let mut home = BroughtHome::default();
    for commit in pushed.map_or_else(
        |problem| vec![Err(problem)],
        |all| all.into_iter().map(|one| one.commit).collect(),
    ) {
        match commit {
            Ok(commit) => home.has_commits |= commit.is_some(),
            Err(problem) => home.problems.push(problem),
        }
    }
    home
}

/// What became of a turn's changes.
#[derive(Default)]
struct BroughtHome {
    /// Whether the session has anything on the forge.
    has_commits: bool,
    /// Why something could not be pushed.
    problems: Vec<Problem>,
}

fn failed(problem: Problem) -> TurnEnd {
    TurnEnd {
        result: TurnResult::Failed(problem),
        usage: TokenUsage::default(),
    }
}

/// Goes on with an effect whose result is not on disk, after a restart or because somebody asked.
pub(super) fn resume_intent(actor: &Actor, intent: Intent) {
    let Some(handle) = actor.own_handle() else {
        return;
    };
    let services = actor.services.clone();
    let row = actor.fold.row.clone();
    actor.services.tasks.spawn(async move {
        if let Err(problem) = super::outbox::dispatch(&services, &handle, &row, &intent).await {
            // The session tells it to people.
            tracing::info!(session = %row.id, code = problem.code, "an effect was given up again");
        }
    });
}

/// Passes a turn's steps to the actor and its deltas to the hub.
struct SessionRecorder {
    services: Arc<SessionServices>,
    handle: SessionHandle,
    turn_id: TurnId,
    hub: Arc<Hub>,
}

impl SessionRecorder {
    /// The step with the names of images in the place of their files, which are on disk when this returns.
    async fn with_names(&self, mut record: Record) -> Result<Record, RecordError> {
        let kept = files::keep_images_of(&self.services, &self.handle.id, &mut record).await;
        kept.map(|()| record).map_err(RecordError)
    }
}

#[async_trait]
impl Recorder for SessionRecorder {
    async fn record(&self, record: Record) -> Result<(), RecordError> {
        let record = self.with_names(record).await?;
        let turn_id = self.turn_id.clone();
        let answer = self
            .handle
            .ask(|reply| Command::Record {
                turn_id,
                record,
                reply,
            })
            .await;
        answer.and_then(|result| result).map_err(RecordError)
    }

    async fn take_inserted(&self, record: Record, message_of: MessageOf) -> Result<Inserted, RecordError> {
        let record = self.with_names(record).await?;
        let turn_id = self.turn_id.clone();
        let answer = self
            .handle
            .ask(|reply| Command::TakeInserted {
                turn_id,
                record,
                message_of,
                reply,
            })
            .await;
        answer.and_then(|result| result).map_err(RecordError)
    }

    async fn kept_file(&self, digest: &str) -> Result<Option<Vec<u8>>, RecordError> {
        let Ok(digest) = digest.parse() else {
            return Ok(None);
        };
        let blob = self.services.store.blob(&self.handle.id, &digest).await;
        let blob = blob.map_err(|error| RecordError(error.problem()))?;
        Ok(blob.map(|blob| blob.bytes))
    }

    fn delta(&self, item_id: &ItemId, channel: DeltaChannel, text: &str) {
        self.hub.publish_delta(item_id, channel, text);
    }

    fn retrying(&self, attempt: u32, delay_ms: u64, failure: &ModelFailure) {
        let problem = Problem {
            retryable: failure.kind.is_retryable(),
            ..Problem::permanent(failure.kind.code(), &failure.message)
        };
        let event = EventBody::TurnRetrying {
            turn_id: self.turn_id.clone(),
            attempt,
            delay_ms,
            problem,
        };
        let (reply, _) = tokio::sync::oneshot::channel();
        let batch = Batch {
            events: vec![event],
            ..Batch::default()
        };
        // Best effort by contract: a full mailbox only means that people do not see this one wait.
        let _ = self
            .handle
            .sender
            .try_send(Command::Append { batch, reply }.into());
    }
}

/// `YYYY-MM-DD` in UTC.
fn today(now_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(now_ms)
        .unwrap_or_default()
        .strftime("%Y-%m-%d")
        .to_string()
}
