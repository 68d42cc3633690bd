//! Terminals: of an environment, in a sandbox that is removed afterwards, and of a session's sandbox. Whoever may prompt may do
//! there what an agent may.

use super::access::{self, Entered, Viewer};
use super::app::App;
use super::audit;
use super::caller::{Caller, sign_in_required};
use super::failure::ApiFailure;
use super::names::{Named, SessionPath};
use super::parameters::{InPath, InQuery};
use super::rights::RightsChange;
use super::socket;
use crate::pool::{Borrowed, Kind};
use crate::sandbox::{Sandbox, SandboxError, TerminalInput};
use crate::session::command::{SessionHandle, shutting_down};
use crate::session::ending::check_not_archived;
use crate::session::right::role_required;
use crate::session::{ChangeAuthor, git_identity};
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use futures_util::stream::SplitStream;
use futures_util::{SinkExt as _, StreamExt as _};
use greenroom_protocol::client::member::Role;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::shell::{ShellControl, ShellFrame, ShellQuery};
use greenroom_protocol::guest::call::{Exec, Exit, OutputChunk, TerminalSize};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often a client is asked whether it is still there and signed in.
const LOOK_EVERY: Duration = Duration::from_secs(25);
/// A client that gave no sign for so long is gone. One whose output is held, such as by a pager, gives none.
const SILENCE: Duration = Duration::from_secs(15 * 60);
/// How long the last messages may take when everything ends.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// What ends the input of a terminal. Typed again until the shell ends: one that was typed ahead is lost when a program takes the
/// terminal over, and the end of a file stays one.
const END_OF_FILE: &[u8] = &[4];
const END_EVERY: Duration = Duration::from_millis(250);
/// Largest message of a client: what somebody pastes comes in several.
const MAX_CLIENT_MESSAGE_BYTES: usize = 64 * 1024;
/// Messages between the client and the program (channels `shell input`, `shell output`).
const WAITING_MESSAGES: usize = 32;

/// For whoever comes with something else than a WebSocket.
const HINT: &str = "Open it with a WebSocket client, or use `greenroom env shell`.";

/// The shell that people know, if there is one.
const SHELL: &str = "exec \"$(command -v bash || command -v sh)\"";

/// `GET /v1/repositories/{name}/shell`.
pub async fn of_environment(
    State(app): State<App>,
    InPath(Named { name }): InPath<Named>,
    InQuery(query): InQuery<ShellQuery>,
    headers: HeaderMap,
    caller: Result<Caller, ApiFailure>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiFailure> {
    let caller = caller?;
    socket::admit(&app, &caller, query.ticket.as_deref(), &headers)?;
    let exec = exec(&query, git_identity(&caller.person))?;
    let repository = app.forge.repository(&name).await;
    let repository = repository.map_err(|error| error.problem())?;
    let branch = query.branch.or(repository.default_branch).ok_or_else(|| {
        Problem::permanent("repository_empty", "This repository has no commit yet.")
            .with_hint("Push a first commit to it.")
    })?;
    let head = app.forge.branch_commit(&name, &branch).await;
    head.map_err(|error| error.problem())?;
    let kind = Kind {
        repository: name,
        branch,
    };
    let upgrade = socket::upgraded(upgrade, MAX_CLIENT_MESSAGE_BYTES, HINT)?;
    let target = format!("/v1/repositories/{}/shell", kind.repository);
    let opened = Some(StatusCode::SWITCHING_PROTOCOLS);
    audit::happens(&app, &caller.person, "openShell", &target, opened).await?;
    Ok(upgrade.on_upgrade(move |socket| async move {
        // The server waits for it before it ends.
        let tasks = app.services.tasks.clone();
        tasks.spawn(async move {
            let mut shell = Shell::new(app, caller, None, socket);
            let end = shell.in_environment(&kind, exec).await;
            shell.close(end).await;
        });
    }))
}

/// `GET /v1/sessions/{id}/shell`.
pub async fn of_session(
    State(app): State<App>,
    InPath(SessionPath { id }): InPath<SessionPath>,
    InQuery(query): InQuery<ShellQuery>,
    headers: HeaderMap,
    caller: Result<Caller, ApiFailure>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiFailure> {
    let caller = caller?;
    socket::admit(&app, &caller, query.ticket.as_deref(), &headers)?;
    let Entered { handle, fold, .. } = access::enter(&app, &caller, &id, Role::Editor).await?;
    check_not_archived(&fold.row)?;
    // What is committed there is the session's, by this person.
    let author = ChangeAuthor {
        person: caller.person.clone(),
        session: handle.id.clone(),
    };
    let exec = exec(&query, author.git_environment())?;
    let work = handle.sandbox.for_person().await.ok_or_else(|| {
        Problem::permanent("sandbox_not_running", "The session's sandbox does not run now.")
            .with_hint("It starts with the next prompt.")
    })?;
    let upgrade = socket::upgraded(upgrade, MAX_CLIENT_MESSAGE_BYTES, HINT)?;
    let target = format!("/v1/sessions/{}/shell", handle.id);
    let opened = Some(StatusCode::SWITCHING_PROTOCOLS);
    audit::happens(&app, &caller.person, "openShell", &target, opened).await?;
    Ok(upgrade.on_upgrade(move |socket| async move {
        let tasks = app.services.tasks.clone();
        tasks.spawn(async move {
            let mut shell = Shell::new(app, caller, Some(handle), socket);
            let end = shell.run(work.sandbox(), exec).await;
            drop(work);
            shell.close(end).await;
        });
    }))
}

/// The shell, with the person's identity.
fn exec(query: &ShellQuery, identity: Vec<(String, String)>) -> Result<Exec, Problem> {
    let term = query.term.as_deref().unwrap_or("xterm-256color");
    let is_term = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'+' | b'_');
    if !(1..=64).contains(&term.len()) || !term.bytes().all(is_term) {
        return Err(
            Problem::permanent("terminal_invalid", "This is no kind of terminal.")
                .with_hint("Send what your terminal calls itself in TERM, or leave `term` out."),
        );
    }
    let size = size(query.columns.unwrap_or(80), query.rows.unwrap_or(24))?;
    let term = ("TERM".to_owned(), term.to_owned());
    Ok(Exec {
        argv: ["/bin/sh", "-c", SHELL].map(str::to_owned).to_vec(),
        env: [vec![term], identity].concat(),
        terminal: Some(size),
        ..Exec::default()
    })
}

fn size(columns: u16, rows: u16) -> Result<TerminalSize, Problem> {
    match (1..=1000).contains(&columns) && (1..=1000).contains(&rows) {
        true => Ok(TerminalSize { rows, columns }),
        false => Err(
            Problem::permanent("terminal_invalid", "A terminal has 1 to 1000 columns and rows.")
                .with_hint("Send the size of your terminal, or leave it out."),
        ),
    }
}

/// How a shell ended, as the client is told.
enum End {
    /// The client went away; there is nobody to tell.
    Gone,
    Exited(Exit),
    Problem(Problem),
}

struct Shell {
    app: App,
    caller: Caller,
    /// In whose sandbox it is; `None`: in one of its own.
    session: Option<SessionHandle>,
    /// What goes to the client, one message after the other, as fast as it reads.
    told: mpsc::Sender<Message>,
    heard: SplitStream<WebSocket>,
    writer: JoinHandle<()>,
}

impl Shell {
    fn new(app: App, caller: Caller, session: Option<SessionHandle>, socket: WebSocket) -> Self {
        let (mut sink, heard) = socket.split();
        let (told, mut messages) = mpsc::channel(WAITING_MESSAGES);
        let writer = tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                if sink.send(message).await.is_err() {
                    return;
                }
            }
        });
        Self {
            app,
            caller,
            session,
            told,
            heard,
            writer,
        }
    }

    async fn in_environment(&mut self, kind: &Kind, exec: Exec) -> End {
        if self.tell(&ShellFrame::Starting).await.is_err() {
            return End::Gone;
        }
        let (services, person) = (self.app.services.clone(), self.caller.person.id.clone());
        let borrow = async {
            let pool = services.pool.clone();
            pool.borrow(&services, kind, &person).await
        };
        // What somebody types ahead waits in the socket; one who went away is noticed when there is something to tell.
        let borrowed: Borrowed = match borrow.await {
            Ok(borrowed) => borrowed,
            Err(problem) => return End::Problem(problem),
        };
        let end = self.run(&borrowed.sandbox, exec).await;
        borrowed.end(&services).await;
        end
    }

    async fn run(&mut self, sandbox: &Arc<dyn Sandbox>, exec: Exec) -> End {
        if self.tell(&ShellFrame::Ready).await.is_err() {
            return End::Gone;
        }
        let (typed, input) = mpsc::channel(WAITING_MESSAGES);
        let (output, mut shown) = mpsc::channel::<OutputChunk>(WAITING_MESSAGES);
        let cancel = CancellationToken::new();
        let running = sandbox.terminal(exec, input, output, cancel.clone());
        tokio::pin!(running);
        let mut is_at_end = false;
        let mut end = tokio::time::interval(END_EVERY);
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.tick().await;
        let mut heard_at = Instant::now();
        let shutdown = self.app.shutdown.clone();
        let mut rights = self.app.rights.watch();
        if let Err(end) = self.check_still().await {
            return end;
        }
        let (viewer, session) = (Viewer::Person(self.caller.clone()), self.session.clone());
        let concerns = |change: &RightsChange| match &session {
            Some(session) => viewer.is_concerned(&session.id, change),
            None => matches!(change, RightsChange::Person(person) if viewer.is_person(person)),
        };
        let told = self.told.clone();
        let mut next: Option<Message> = None;
        let exit = loop {
            // A program that reads nothing must not keep what it shows from being seen.
            let has_room = typed.capacity() > 0;
            tokio::select! {
                // What happens from time to time goes before what one side can do without end.
                biased;
                () = shutdown.cancelled() => break Err(End::Problem(shutting_down())),
                () = rights.changed(concerns) => {
                    if let Err(end) = self.check_still().await {
                        break Err(end);
                    }
                }
                _ = look.tick() => {
                    if let Err(end) = self.look(heard_at).await {
                        break Err(end);
                    }
                }
                _ = end.tick(), if is_at_end && has_room => {
                    let _ = typed.try_send(TerminalInput::Bytes(END_OF_FILE.to_vec()));
                }
                exit = &mut running => break Ok(exit),
                message = self.heard.next(), if has_room => {
                    heard_at = Instant::now();
                    match message {
                        None | Some(Err(_) | Ok(Message::Close(_))) => break Err(End::Gone),
                        Some(Ok(message)) => is_at_end |= take(message, &typed),
                    }
                }
                // Only what the client takes is taken from the program, which waits meanwhile.
                place = told.reserve(), if next.is_some() => match (place, next.take()) {
                    (Ok(place), Some(message)) => place.send(message),
                    (Ok(_), None) => {}
                    (Err(_), _) => break Err(End::Gone),
                },
                Some(chunk) = shown.recv(), if next.is_none() => {
                    next = Some(Message::Binary(chunk.bytes.into()));
                }
            }
        };
        match exit {
            Ok(exit) => {
                let rest = std::iter::from_fn(|| shown.try_recv().ok());
                let rest: Vec<_> = rest.map(|chunk| Message::Binary(chunk.bytes.into())).collect();
                for message in next.into_iter().chain(rest) {
                    if self.send(message).await.is_err() {
                        return End::Gone;
                    }
                }
                match exit {
                    Ok(exit) => End::Exited(exit),
                    Err(SandboxError::Call(error)) => {
                        End::Problem(Problem::permanent("shell_failed", error.message))
                    }
                    Err(SandboxError::Lost(problem)) => End::Problem(problem),
                }
            }
            Err(end) => {
                // Its programs are hung up, as by closing a terminal.
                cancel.cancel();
                end
            }
        }
    }

    async fn check_still(&mut self) -> Result<(), End> {
        let checked = match &self.session {
            Some(session) => {
                let viewer = Viewer::Person(self.caller.clone());
                let row = session.fold().await.map_err(End::Problem)?.row;
                match viewer.role_still(&self.app, &row).await {
                    Ok(role) if role >= Role::Editor => Ok(()),
                    Ok(_) => Err(role_required(&row, Role::Editor)),
                    Err(problem) => Err(problem),
                }
            }
            None => match self.caller.again(&self.app).await {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err(sign_in_required()),
                Err(problem) => Err(problem),
            },
        };
        checked.map_err(End::Problem)
    }

    /// Whether the client is still welcome and there.
    async fn look(&mut self, heard_at: Instant) -> Result<(), End> {
        self.check_still().await?;
        if heard_at.elapsed() > SILENCE {
            return Err(End::Gone);
        }
        // One that reads nothing now is asked when it does.
        let _ = self.told.try_send(Message::Ping(Vec::new().into()));
        Ok(())
    }

    async fn tell(&mut self, frame: &ShellFrame) -> Result<(), End> {
        let text = serde_json::to_string(frame).map_err(|_| End::Gone)?;
        self.send(Message::Text(text.into())).await
    }

    /// For what comes before and after everything else.
    async fn send(&mut self, message: Message) -> Result<(), End> {
        let hurry = async {
            self.app.shutdown.cancelled().await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            sent = self.told.send(message) => sent.map_err(|_| End::Gone),
            () = tokio::time::sleep(SILENCE) => Err(End::Gone),
            () = hurry => Err(End::Gone),
        }
    }

    async fn close(mut self, end: End) {
        let frame = match end {
            End::Gone => return,
            End::Exited(exit) => ShellFrame::Exited {
                code: exit.code,
                signal: exit.signal,
            },
            End::Problem(problem) => ShellFrame::Closing { problem },
        };
        let _ = self.tell(&frame).await;
        let frame = CloseFrame {
            code: 1000,
            reason: "".into(),
        };
        let _ = self.send(Message::Close(Some(frame))).await;
        let Self { told, writer, .. } = self;
        drop(told);
        let _ = tokio::time::timeout(LAST_WORDS, writer).await;
    }
}

/// Passes on what a client sends. There is room for it. Returns whether nothing more will be typed.
fn take(message: Message, typed: &mpsc::Sender<TerminalInput>) -> bool {
    let input = match message {
        Message::Binary(bytes) => Some(TerminalInput::Bytes(bytes.to_vec())),
        Message::Text(text) => match serde_json::from_str(&text) {
            Ok(ShellControl::Resize { columns, rows }) => size(columns, rows).ok().map(TerminalInput::Resize),
            Ok(ShellControl::End) => return true,
            // Of a newer client.
            Err(_) => None,
        },
        _ => None,
    };
    if let Some(input) = input {
        let _ = typed.try_send(input);
    }
    false
}
