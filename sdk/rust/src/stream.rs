//! A session's stream as one unbroken sequence: reconnects by cursor, so that each event comes exactly once and in order.

mod connection;

use crate::client::Client;
use crate::failure::ClientError;
use connection::{Connection, Received};
use futures_util::Stream;
use futures_util::future::BoxFuture;
use greenroom_protocol::CLIENT_GENERATION;
use greenroom_protocol::client::stream::StreamFrame;
use greenroom_protocol::id::SessionId;
use greenroom_stdx::backoff::Backoff;
use std::time::Duration;
use tokio::time::Instant;

/// How long a stream puts up with a server that is away.
#[derive(Debug, Clone, Copy)]
pub struct StreamPatience {
    /// Upper bound of the first wait before connecting again; doubles up to `longest_delay`.
    pub first_delay: Duration,
    pub longest_delay: Duration,
    /// After this long without any connection the stream ends with [`ClientError::Unreachable`].
    pub give_up_after: Duration,
    /// Silence after which the server is asked whether it is still there; the same time again ends the connection.
    pub probe_after: Duration,
}

impl Default for StreamPatience {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(200),
            longest_delay: Duration::from_secs(5),
            give_up_after: Duration::from_secs(120),
            probe_after: Duration::from_secs(20),
        }
    }
}

/// The frames of a session. Events come in order of `seq` with no gap and no repetition, also across reconnects; each
/// connection starts with a `Hello`, and its deltas start over at offset 0.
pub struct SessionStream {
    client: Client,
    session: SessionId,
    cursor: u64,
    /// Whether it begins with what is recent; only while it has nothing.
    is_recent: bool,
    patience: StreamPatience,
    connection: Option<Connection>,
    /// The attempt under way, kept so that a caller who drops [`SessionStream::next`] does not start it over.
    opening: Option<BoxFuture<'static, Result<Connection, ClientError>>>,
    /// When the last connection was lost, while there is none; `None` before the first.
    lost_at: Option<Instant>,
    failed_attempts: u32,
    not_before: Option<Instant>,
    is_ended: bool,
}

impl std::fmt::Debug for SessionStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionStream")
            .field("session", &self.session)
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

impl SessionStream {
    pub(crate) fn new(client: Client, session: SessionId, after: u64, is_recent: bool) -> Self {
        Self {
            client,
            session,
            cursor: after,
            is_recent,
            patience: StreamPatience::default(),
            connection: None,
            opening: None,
            lost_at: None,
            failed_attempts: 0,
            not_before: None,
            is_ended: false,
        }
    }

    /// Uses other waiting times.
    pub fn with_patience(self, patience: StreamPatience) -> Self {
        Self { patience, ..self }
    }

    /// Number of the last event that was given out; what to pass as `after` to go on later.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The next frame; `None` after the server closed the stream for good, or after an error. Dropping the future loses
    /// nothing: the next call goes on from the cursor.
    pub async fn next(&mut self) -> Option<Result<StreamFrame, ClientError>> {
        if self.is_ended {
            return None;
        }
        let result = self.next_frame().await;
        match &result {
            Err(_) => self.is_ended = true,
            Ok(StreamFrame::Closing { problem, .. }) if !problem.retryable => self.is_ended = true,
            Ok(_) => {}
        }
        Some(result)
    }

    /// The same as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = Result<StreamFrame, ClientError>> + Send {
        futures_util::stream::unfold(self, |mut stream| async move {
            let frame = stream.next().await?;
            Some((frame, stream))
        })
    }

    async fn next_frame(&mut self) -> Result<StreamFrame, ClientError> {
        loop {
            let Some(connection) = &mut self.connection else {
                self.connect().await?;
                continue;
            };
            match connection.receive(self.patience.probe_after).await {
                Received::Frame(frame) => {
                    if let Some(frame) = self.admit(*frame)? {
                        return Ok(frame);
                    }
                }
                Received::Malformed(context) => return Err(self.client.malformed(context)),
                Received::Lost(reason) => {
                    tracing::debug!(session = %self.session, cursor = self.cursor, reason, "stream lost");
                    self.lose();
                }
            }
        }
    }

    /// Keeps the sequence whole: `None` for what was seen before, a reconnect for what is out of order.
    fn admit(&mut self, frame: StreamFrame) -> Result<Option<StreamFrame>, ClientError> {
        match frame {
            StreamFrame::Hello { generation, .. } if generation != CLIENT_GENERATION => {
                Err(ClientError::Generation {
                    server_generation: generation,
                    client_generation: CLIENT_GENERATION,
                })
            }
            StreamFrame::Event { event } => {
                self.is_recent = false;
                if event.seq <= self.cursor {
                    return Ok(None);
                }
                if event.seq != self.cursor + 1 {
                    tracing::debug!(expected = self.cursor + 1, got = event.seq, "gap in stream");
                    self.lose();
                    return Ok(None);
                }
                self.cursor = event.seq;
                // Only progress shows that the server is well: one that closes each connection at once is not.
                self.failed_attempts = 0;
                self.lost_at = None;
                Ok(Some(StreamFrame::Event { event }))
            }
            StreamFrame::Overview { overview } => {
                self.cursor = overview.seq;
                self.is_recent = false;
                Ok(Some(StreamFrame::Overview { overview }))
            }
            StreamFrame::CaughtUp { last_seq } => {
                self.failed_attempts = 0;
                self.lost_at = None;
                Ok(Some(StreamFrame::CaughtUp { last_seq }))
            }
            StreamFrame::Closing { problem, last_seq } if problem.retryable => {
                let delay = Duration::from_millis(problem.retry_after_ms.unwrap_or(0));
                tracing::debug!(code = problem.code, last_seq, "server asks to reconnect");
                self.lose();
                self.not_before = Some(Instant::now() + delay.min(self.patience.longest_delay));
                Ok(None)
            }
            other => Ok(Some(other)),
        }
    }

    fn lose(&mut self) {
        self.connection = None;
        self.lost_at.get_or_insert_with(Instant::now);
        self.plan_attempt();
    }

    fn plan_attempt(&mut self) {
        self.failed_attempts += 1;
        let backoff = Backoff {
            first: self.patience.first_delay,
            max: self.patience.longest_delay,
        };
        self.not_before = Some(Instant::now() + backoff.delay(self.failed_attempts, Backoff::random()));
    }

    /// Connects once, or plans the next attempt. An error ends the stream.
    async fn connect(&mut self) -> Result<(), ClientError> {
        let opening = self.opening.get_or_insert_with(|| {
            let (client, session, cursor) = (self.client.clone(), self.session.clone(), self.cursor);
            let (not_before, is_recent) = (self.not_before, self.is_recent);
            Box::pin(async move {
                if let Some(not_before) = not_before {
                    tokio::time::sleep_until(not_before).await;
                }
                Connection::open(&client, &session, cursor, is_recent).await
            })
        });
        let opened = opening.await;
        self.opening = None;
        match opened {
            Ok(connection) => {
                self.connection = Some(connection);
                self.not_before = None;
                Ok(())
            }
            // The first connection fails at once: there is nothing to resume, and the address may be wrong.
            Err(error) => match self.lost_at {
                Some(lost_at) if error.is_retryable() && lost_at.elapsed() < self.patience.give_up_after => {
                    self.plan_attempt();
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }
}
