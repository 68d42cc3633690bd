//! What can be asked of a session's actor, and the handle to ask it.

use super::conversation::Conversation;
use super::hub::Hub;
use super::registry::SessionRegistry;
use super::right::Right;
use super::sandbox_slot::SandboxSlot;
use super::state::SessionFold;
use greenroom_agent::world::{Inserted, MessageOf, Record, TurnEnd};
use greenroom_protocol::client::event::{EventBody, SandboxUsage};
use greenroom_protocol::client::member::Role;
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::prompt::{ChangePrompt, Delivery, PromptReceipt};
use greenroom_protocol::client::session::{Session, UpdateSession};
use greenroom_protocol::id::{PersonId, PromptId, SessionId, TurnId};
use greenroom_store::session_log::{Batch, Blob};
use std::sync::{Arc, Weak};
use tokio::sync::mpsc::error::SendError;
use tokio::sync::{mpsc, oneshot};

/// Commands that may wait for one actor.
pub const MAILBOX_COMMANDS: usize = 64;

/// A prompt as it was sent, checked.
#[derive(Debug, Clone)]
pub struct Sent {
    pub author: Person,
    pub text: String,
    pub images: Vec<Blob>,
    pub model: Option<String>,
    /// `None`: the session's default.
    pub delivery: Option<Delivery>,
    /// The sender's idempotency key.
    pub key: String,
    /// Digest of everything the sender sent under this key.
    pub digest: String,
}

/// A command under an idempotency key: it is carried out once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    pub person: PersonId,
    pub key: String,
    /// Of all that it asks for.
    pub digest: String,
}

/// What a command is refused with that was carried out before: its receipt has the answer.
pub const COMMAND_REPEATED: &str = "command_repeated";

/// What comes to the actor.
pub struct Mail {
    /// What whoever asks has to have for it; `None`: the platform itself asks.
    pub right: Option<Right>,
    pub once: Option<Once>,
    pub command: Command,
}

impl From<Command> for Mail {
    fn from(command: Command) -> Self {
        Self {
            right: None,
            once: None,
            command,
        }
    }
}

/// A message to the actor. Each is answered, unless the server goes down.
pub enum Command {
    Send {
        sent: Sent,
        reply: oneshot::Sender<Result<PromptReceipt, Problem>>,
    },
    CancelPrompt {
        prompt_id: PromptId,
        by: PersonId,
        reply: oneshot::Sender<Result<Session, Problem>>,
    },
    ChangePrompt {
        prompt_id: PromptId,
        change: ChangePrompt,
        by: PersonId,
        reply: oneshot::Sender<Result<Session, Problem>>,
    },
    Stop {
        by: PersonId,
        /// Whether what waits stays until somebody lets it go on.
        pauses_queue: bool,
        reply: oneshot::Sender<Result<Session, Problem>>,
    },
    Update {
        change: UpdateSession,
        by: PersonId,
        reply: oneshot::Sender<Result<Session, Problem>>,
    },
    SetMember {
        person: Person,
        /// `None`: no member any more.
        role: Option<Role>,
        by: PersonId,
        reply: oneshot::Sender<Result<(), Problem>>,
    },
    /// Somebody comes by a link.
    Join {
        person: Person,
        role: Role,
        reply: oneshot::Sender<Result<(), Problem>>,
    },
    /// Nothing is done any more for whoever may not prompt here now.
    EndUnentitled {
        by: PersonId,
        reply: oneshot::Sender<Result<(), Problem>>,
    },
    RetryEffect {
        key: String,
        by: PersonId,
        reply: oneshot::Sender<Result<Session, Problem>>,
    },
    Archive {
        why: Reason,
        reply: oneshot::Sender<Result<Session, Problem>>,
    },
    Unarchive {
        by: PersonId,
        reply: oneshot::Sender<Result<Session, Problem>>,
    },
    /// There is no such session from here on.
    Delete {
        why: Reason,
        reply: oneshot::Sender<Result<(), Problem>>,
    },
    /// What people inserted into the running turn; `record` is written before them.
    TakeInserted {
        turn_id: TurnId,
        record: Record,
        message_of: MessageOf,
        reply: oneshot::Sender<Result<Inserted, Problem>>,
    },
    /// A step of the running turn.
    Record {
        turn_id: TurnId,
        record: Record,
        reply: oneshot::Sender<Result<(), Problem>>,
    },
    /// Facts and effects from the platform around a turn.
    Append {
        batch: Batch,
        reply: oneshot::Sender<Result<u64, Problem>>,
    },
    TurnEnded {
        turn_id: TurnId,
        end: TurnEnd,
        /// What it used of the sandbox, if that could be measured.
        sandbox: Option<SandboxUsage>,
    },
    /// The session as it is now.
    Row {
        reply: oneshot::Sender<Result<SessionFold, Problem>>,
    },
}

/// Why a session ends.
#[derive(Debug, Clone)]
pub enum Reason {
    Person(PersonId),
    /// The server's settings say so of one in which nothing happened since then.
    Age {
        quiet_since_ms: i64,
    },
}

impl Reason {
    /// Who wanted it.
    pub fn person(self) -> Option<PersonId> {
        match self {
            Self::Person(person) => Some(person),
            Self::Age { .. } => None,
        }
    }
}

impl Command {
    /// Does not do it.
    pub(super) fn refuse(self, problem: Problem) {
        // A caller that went away needs no answer.
        match self {
            Self::Send { reply, .. } => drop(reply.send(Err(problem))),
            Self::CancelPrompt { reply, .. }
            | Self::ChangePrompt { reply, .. }
            | Self::Stop { reply, .. }
            | Self::Update { reply, .. }
            | Self::RetryEffect { reply, .. }
            | Self::Archive { reply, .. }
            | Self::Unarchive { reply, .. } => drop(reply.send(Err(problem))),
            Self::SetMember { reply, .. }
            | Self::Join { reply, .. }
            | Self::EndUnentitled { reply, .. }
            | Self::Delete { reply, .. }
            | Self::Record { reply, .. } => drop(reply.send(Err(problem))),
            Self::TakeInserted { reply, .. } => drop(reply.send(Err(problem))),
            Self::Append { reply, .. } => drop(reply.send(Err(problem))),
            Self::Row { reply } => drop(reply.send(Err(problem))),
            Self::TurnEnded { .. } => {}
        }
    }
}

/// How everyone else reaches a session.
#[derive(Clone)]
pub struct SessionHandle {
    pub id: SessionId,
    pub(super) sender: mpsc::Sender<Mail>,
    /// What whoever asks through this handle has to have.
    pub(super) right: Option<Right>,
    /// What is asked for through this handle, if it is to be carried out once.
    pub(super) once: Option<Once>,
    /// Wakes the session when it sleeps.
    pub(super) registry: Weak<SessionRegistry>,
    pub hub: Arc<Hub>,
    /// The session's sandbox.
    pub sandbox: Arc<SandboxSlot>,
    /// What its model was told and said.
    pub conversation: Arc<Conversation>,
}

impl SessionHandle {
    /// Queues a prompt; when this returns it is on disk.
    pub async fn send(&self, sent: Sent) -> Result<PromptReceipt, Problem> {
        self.ask(|reply| Command::Send { sent, reply }).await?
    }

    /// Takes a prompt out of the queue.
    pub async fn cancel_prompt(&self, prompt_id: PromptId, by: PersonId) -> Result<Session, Problem> {
        self.ask(|reply| Command::CancelPrompt { prompt_id, by, reply })
            .await?
    }

    /// Writes a prompt that waits anew, or lets it run earlier or later.
    pub async fn change_prompt(
        &self,
        prompt_id: PromptId,
        change: ChangePrompt,
        by: PersonId,
    ) -> Result<Session, Problem> {
        self.ask(|reply| Command::ChangePrompt {
            prompt_id,
            change,
            by,
            reply,
        })
        .await?
    }

    /// Stops the running turn; returns when that is on disk, not when the turn has ended.
    pub async fn stop(&self, by: PersonId, pauses_queue: bool) -> Result<Session, Problem> {
        self.ask(|reply| Command::Stop {
            by,
            pauses_queue,
            reply,
        })
        .await?
    }

    /// Changes what people can set of a session.
    pub async fn update(&self, change: UpdateSession, by: PersonId) -> Result<Session, Problem> {
        self.ask(|reply| Command::Update { change, by, reply }).await?
    }

    /// Makes somebody a member, gives them another role, or takes it.
    pub async fn set_member(&self, person: Person, role: Option<Role>, by: PersonId) -> Result<(), Problem> {
        self.ask(|reply| Command::SetMember {
            person,
            role,
            by,
            reply,
        })
        .await?
    }

    /// Makes somebody a member who comes by a link; nobody may do less by it.
    pub async fn join(&self, person: Person, role: Role) -> Result<(), Problem> {
        self.ask(|reply| Command::Join { person, role, reply }).await?
    }

    /// Nothing is done any more for whoever may not prompt here now.
    pub async fn end_unentitled(&self, by: PersonId) -> Result<(), Problem> {
        self.ask(|reply| Command::EndUnentitled { by, reply }).await?
    }

    /// The same session for somebody who must have a right when what they ask for is done.
    pub fn with_right(self, right: Right) -> Self {
        Self {
            right: Some(right),
            ..self
        }
    }

    /// The same session for a command that is to be carried out once.
    pub fn under(self, once: Option<Once>) -> Self {
        Self { once, ..self }
    }

    /// Tries something outside again that was given up.
    pub async fn retry_effect(&self, key: String, by: PersonId) -> Result<Session, Problem> {
        self.ask(|reply| Command::RetryEffect { key, by, reply }).await?
    }

    /// Keeps it for reading only; see [`super::ending::archive`] for what else there is to do.
    pub(super) async fn archive(&self, why: Reason) -> Result<Session, Problem> {
        self.ask(|reply| Command::Archive { why, reply }).await?
    }

    /// Takes it back from the archive.
    pub async fn unarchive(&self, by: PersonId) -> Result<Session, Problem> {
        self.ask(|reply| Command::Unarchive { by, reply }).await?
    }

    /// Makes it unknown to everybody; see [`super::ending::delete`] for what else there is to do.
    pub(super) async fn delete(&self, why: Reason) -> Result<(), Problem> {
        self.ask(|reply| Command::Delete { why, reply }).await?
    }

    /// Appends facts, with the time at which the actor takes them.
    pub async fn append(&self, batch: Batch) -> Result<u64, Problem> {
        self.ask(|reply| Command::Append { batch, reply }).await?
    }

    /// Appends facts that nothing depends on. Which cannot be written are logged; a server that goes down loses them.
    pub(super) async fn tell(&self, events: Vec<EventBody>, what: &'static str) {
        if events.is_empty() {
            return;
        }
        let batch = Batch {
            events,
            ..Batch::default()
        };
        match self.append(batch).await {
            Err(problem) if problem.code != SHUTTING_DOWN => {
                tracing::warn!(session = %self.id, code = problem.code, "{what} is not recorded");
            }
            _ => {}
        }
    }

    /// The session as it is now.
    pub async fn fold(&self) -> Result<SessionFold, Problem> {
        self.ask(|reply| Command::Row { reply }).await?
    }

    /// Returns when the actor is gone, however it ended.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }

    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        let mail = Mail {
            right: self.right.clone(),
            once: self.once.clone(),
            command: command(reply),
        };
        if let Err(SendError(mail)) = self.sender.send(mail).await {
            // It sleeps, or the server goes down.
            let registry = self.registry.upgrade().ok_or_else(shutting_down)?;
            registry.deliver(&self.id, mail).await?;
        }
        answer.await.map_err(|_| shutting_down())
    }
}

const SHUTTING_DOWN: &str = "shutting_down";

/// What callers get while the server goes down.
pub fn shutting_down() -> Problem {
    Problem::transient(SHUTTING_DOWN, "The server is shutting down.").with_hint("try again in a moment")
}
