//! Sessions at rest: what they take of the server's memory with people watching, and how soon they are back.

use crate::product::{self, Server};
use crate::prompt::repository;
use crate::report::{Aim, Measured};
use crate::stats::Samples;
use anyhow::{Context as _, Result, bail};
use greenroom_protocol::client::repository::AddRepository;
use greenroom_protocol::client::session::CreateSession;
use greenroom_protocol::client::stream::StreamFrame;
use greenroom_protocol::id::SessionId;
use greenroom_sdk::{Client, IdempotencyKey, SessionStream};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Semaphore;

/// What this file measures.
pub const NAMES: &[&str] = &["session.wake", "session.idle_memory", "session.sockets_memory"];

const SESSIONS: usize = 5_000;
const WAKES: usize = 300;
/// Sockets opened at once.
const AT_ONCE: usize = 16;
const IDLE_SECONDS: &str = "2";
const WAKE: Aim = Aim {
    p50: Some(5.0),
    p99: Some(20.0),
};
/// Of each session, with one socket.
const IDLE_KB: f64 = 40.0;
/// Of the whole server, with two sockets on each session.
const SOCKETS_MB: f64 = 300.0;

/// Runs all of them.
pub async fn run() -> Result<Vec<Measured>> {
    let temp = tempfile::Builder::new().prefix("gr-bench-").tempdir()?;
    let model = product::model().await?;
    let config = product::config(temp.path(), &model.url, "")?;
    let env = [("GREENROOM_SESSION_IDLE_SECONDS", IDLE_SECONDS)];
    let (server, _) = Server::start_with(&config, temp.path(), &env)?;
    let client = server.client()?;
    let source = repository(temp.path())?;
    let add = AddRepository {
        name: "bench".to_owned(),
        source: Some(source),
    };
    client.add_repository(&add).await?;
    let mut sessions = Vec::new();
    // What a server takes that has had sessions, but has none in memory.
    for _ in 0..100 {
        sessions.push(create(&client).await?);
    }
    server.asleep().await?;
    let empty_kb = server.memory_kb()?;
    while sessions.len() < SESSIONS {
        sessions.push(create(&client).await?);
    }
    let first = watch_all(&client, &sessions).await?;
    server.asleep().await?;
    let one_each_kb = server.memory_kb()?;
    let second = watch_all(&client, &sessions).await?;
    server.asleep().await?;
    let two_each_kb = server.memory_kb()?;
    drop((first, second));

    let mut wakes = Samples::default();
    for session in sessions.iter().take(WAKES) {
        let began = Instant::now();
        let mut stream = client.stream(session, 0);
        loop {
            match stream.next().await.context("the stream ended")?? {
                StreamFrame::Event { .. } => break,
                StreamFrame::Closing { problem, .. } => bail!("{}", problem.message),
                _ => {}
            }
        }
        wakes.push(began.elapsed());
    }
    drop(server);
    let each_kb = one_each_kb.saturating_sub(empty_kb) as f64 / SESSIONS as f64;
    let whole_mb = two_each_kb as f64 / 1024.0;
    let amounts = [
        Measured::amount("session.idle_memory", "KB", SESSIONS, each_kb, Some(IDLE_KB)),
        Measured::amount(
            "session.sockets_memory",
            "MB",
            2 * SESSIONS,
            whole_mb,
            Some(SOCKETS_MB),
        ),
    ];
    let wake = Measured::duration("session.wake", &wakes, WAKE, &[]);
    Ok(wake.into_iter().chain(amounts).collect())
}

async fn create(client: &Client) -> Result<SessionId> {
    let create = CreateSession {
        repository: "bench".to_owned(),
        base_branch: None,
        model: None,
        prompt: None,
        images: Vec::new(),
        access: None,
    };
    Ok(client
        .create_session(&create, &IdempotencyKey::fresh())
        .await?
        .session
        .id)
}

/// A socket on each session that has told all there is.
async fn watch_all(client: &Client, sessions: &[SessionId]) -> Result<Vec<SessionStream>> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut opening = Vec::new();
    for session in sessions {
        let place = places.clone().acquire_owned().await?;
        let mut stream = client.stream(session, 0);
        opening.push(tokio::spawn(async move {
            let _place = place;
            while let Some(frame) = stream.next().await {
                if matches!(frame?, StreamFrame::CaughtUp { .. }) {
                    return Ok(stream);
                }
            }
            bail!("the stream ended")
        }));
    }
    let mut open = Vec::new();
    for stream in opening {
        open.push(stream.await??);
    }
    Ok(open)
}
