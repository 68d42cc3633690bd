//! A terminal in a sandbox, over a WebSocket.

use crate::client::Client;
use crate::failure::ClientError;
use crate::socket;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::shell::{ShellControl, ShellFrame, ShellQuery};
use greenroom_protocol::id::SessionId;
use reqwest::Upgraded;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// An open terminal in its two directions, which do not wait for each other. Dropping both hangs it up.
#[derive(Debug)]
pub struct Shell {
    pub input: ShellInput,
    pub events: ShellEvents,
}

/// What is typed.
#[derive(Debug)]
pub struct ShellInput {
    client: Client,
    socket: SplitSink<WebSocketStream<Upgraded>, Message>,
}

/// What is shown.
#[derive(Debug)]
pub struct ShellEvents {
    client: Client,
    socket: SplitStream<WebSocketStream<Upgraded>>,
}

/// What a terminal tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShellEvent {
    /// Its sandbox is being started.
    Starting,
    /// It runs.
    Ready,
    /// To be shown.
    Output(Vec<u8>),
    /// It ended; the last event. The exit status, or the number of the signal that ended it.
    Exited { code: Option<i32>, signal: Option<i32> },
    /// The server ended it; the last event.
    Closed(Problem),
}

impl Client {
    /// A terminal in a sandbox of a repository's environment, which is removed afterwards.
    pub async fn environment_shell(
        &self,
        repository: &str,
        query: &ShellQuery,
    ) -> Result<Shell, ClientError> {
        self.shell(&["repositories", repository, "shell"], query).await
    }

    /// A terminal in a session's sandbox; 422 `sandbox_not_running`.
    pub async fn session_shell(&self, session: &SessionId, query: &ShellQuery) -> Result<Shell, ClientError> {
        self.shell(&["sessions", session.as_str(), "shell"], query).await
    }

    async fn shell(&self, path: &[&str], query: &ShellQuery) -> Result<Shell, ClientError> {
        let mut url = self.url(path);
        let numbers = [("columns", query.columns), ("rows", query.rows)];
        let numbers = numbers.map(|(name, value)| (name, value.map(|value| value.to_string())));
        let texts = [("term", query.term.clone()), ("branch", query.branch.clone())];
        for (name, value) in numbers.into_iter().chain(texts) {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, &value);
            }
        }
        let (sink, stream) = socket::open(self, url).await?.split();
        Ok(Shell {
            input: ShellInput {
                client: self.clone(),
                socket: sink,
            },
            events: ShellEvents {
                client: self.clone(),
                socket: stream,
            },
        })
    }
}

impl ShellEvents {
    /// Waits for the next event. After the last one, or when the connection broke, an error. May be dropped at any moment without losing
    /// one.
    pub async fn next(&mut self) -> Result<ShellEvent, ClientError> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Binary(bytes))) => return Ok(ShellEvent::Output(bytes.to_vec())),
                Some(Ok(Message::Text(text))) => {
                    let frame = serde_json::from_str(&text);
                    match frame.map_err(|error| self.client.malformed(error.to_string()))? {
                        ShellFrame::Starting => return Ok(ShellEvent::Starting),
                        ShellFrame::Ready => return Ok(ShellEvent::Ready),
                        ShellFrame::Exited { code, signal } => {
                            return Ok(ShellEvent::Exited { code, signal });
                        }
                        ShellFrame::Closing { problem } => return Ok(ShellEvent::Closed(problem)),
                        ShellFrame::Unknown(_) => {}
                    }
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) | None => {
                    return Err(self.client.unreachable("the connection closed"));
                }
                Some(Err(error)) => return Err(self.client.unreachable(error)),
            }
        }
    }
}

impl ShellInput {
    /// Types something. Waits while the program there reads nothing.
    pub async fn send(&mut self, bytes: Vec<u8>) -> Result<(), ClientError> {
        self.send_message(Message::Binary(bytes.into())).await
    }

    /// Tells the size of the terminal, or that nothing more is typed.
    pub async fn control(&mut self, control: ShellControl) -> Result<(), ClientError> {
        let text =
            serde_json::to_string(&control).map_err(|error| self.client.malformed(error.to_string()))?;
        self.send_message(Message::Text(text.into())).await
    }

    async fn send_message(&mut self, message: Message) -> Result<(), ClientError> {
        self.socket
            .send(message)
            .await
            .map_err(|error| self.client.unreachable(error))
    }
}
