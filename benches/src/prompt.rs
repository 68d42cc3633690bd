//! From sending a prompt to the model request that it causes, through the real server: HTTP, authorisation, the durable log, the
//! turn, the model client. The model is a socket of ours that notes when the request comes; the floor is a request of the same
//! server that does nothing.

use crate::product::{self, Server};
use crate::report::{Aim, Measured};
use crate::stats::Samples;
use anyhow::{Context as _, Result, bail};
use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::client::prompt::SendPrompt;
use greenroom_protocol::client::repository::AddRepository;
use greenroom_protocol::client::session::CreateSession;
use greenroom_protocol::id::SessionId;
use greenroom_sdk::{Client, IdempotencyKey};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What this file measures.
pub const NAMES: &[&str] = &[
    "prompt.to_model_request",
    "prompt.to_model_request_cold",
    "server.ready",
];

const WARM_UP: usize = 10;
const WARM_ROUNDS: usize = 300;
const COLD_ROUNDS: usize = 60;
/// A fast model's time to first token, in which the session's sandbox starts: the next session's first prompt does not meet it.
const THINK_MS: u64 = 300;
const READY_ROUNDS: usize = 10;
/// The aims of SPECIFICATION.md.
const TO_MODEL: Aim = Aim {
    p50: Some(5.0),
    p99: Some(20.0),
};
const READY: Aim = Aim {
    p50: Some(200.0),
    p99: None,
};

/// Runs all of them.
pub async fn run() -> Result<Vec<Measured>> {
    let temp = tempfile::Builder::new().prefix("gr-bench-").tempdir()?;
    let mut model = product::model().await?;
    let config = product::config(temp.path(), &model.url, "")?;
    let mut ready = Samples::default();
    for _ in 1..READY_ROUNDS {
        let (server, took) = Server::start(&config, temp.path())?;
        ready.push(took);
        drop(server);
    }
    let (server, took) = Server::start(&config, temp.path())?;
    ready.push(took);
    let client = server.client()?;
    let source = repository(temp.path())?;
    client
        .add_repository(&AddRepository {
            name: "bench".to_owned(),
            source: Some(source),
        })
        .await?;

    let (mut warm, mut cold, mut floor) = (Samples::default(), Samples::default(), Samples::default());
    let session = new_session(&client).await?;
    for round in 0..WARM_UP + WARM_ROUNDS {
        let idle = nothing(&client).await?;
        let took = prompt(&client, &session, &mut model.arrivals).await?;
        if round >= WARM_UP {
            warm.push(took);
            floor.push(idle);
        }
    }
    model.think_ms.store(THINK_MS, Ordering::Relaxed);
    for round in 0..WARM_UP + COLD_ROUNDS {
        let session = new_session(&client).await?;
        let took = prompt(&client, &session, &mut model.arrivals).await?;
        if round >= WARM_UP {
            cold.push(took);
        }
    }
    drop(server);
    Ok([
        Measured::duration(
            "prompt.to_model_request",
            &warm,
            TO_MODEL,
            &[("http round trip", &floor)],
        ),
        Measured::duration(
            "prompt.to_model_request_cold",
            &cold,
            TO_MODEL,
            &[("http round trip", &floor)],
        ),
        Measured::duration("server.ready", &ready, READY, &[]),
    ]
    .into_iter()
    .flatten()
    .collect())
}

/// From the call to the request's arrival; returns when the turn is over, so that rounds do not meet.
async fn prompt(
    client: &Client,
    session: &SessionId,
    arrivals: &mut mpsc::Receiver<Instant>,
) -> Result<Duration> {
    let before = client.session(session).await?.last_seq;
    let prompt = SendPrompt {
        text: "Say hello.".to_owned(),
        images: Vec::new(),
        model: None,
        delivery: None,
    };
    let began = Instant::now();
    client
        .send_prompt(session, &prompt, &IdempotencyKey::fresh())
        .await?;
    let arrived = tokio::time::timeout(Duration::from_secs(30), arrivals.recv())
        .await?
        .context("the model is gone")?;
    loop {
        let page = client.events(session, before, 500).await?;
        let ended = page.events.iter().find_map(|event| match &event.body {
            EventBody::TurnCompleted { outcome, .. } => Some(format!("{outcome:?}")),
            _ => None,
        });
        match ended {
            Some(outcome) if outcome == "Completed" => return Ok(arrived.duration_since(began)),
            Some(outcome) => bail!("the turn ended with {outcome}"),
            None => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}

async fn nothing(client: &Client) -> Result<Duration> {
    let began = Instant::now();
    client.health().await?;
    Ok(began.elapsed())
}

async fn new_session(client: &Client) -> Result<SessionId> {
    let create = CreateSession {
        repository: "bench".to_owned(),
        base_branch: None,
        model: None,
        prompt: None,
        access: None,
        images: Vec::new(),
    };
    Ok(client
        .create_session(&create, &IdempotencyKey::fresh())
        .await?
        .session
        .id)
}

pub fn repository(temp: &Path) -> Result<String> {
    let directory = temp.join("repository");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("README.md"), "A repository.\n")?;
    for arguments in [
        &["init", "-q", "-b", "main"][..],
        &["add", "-A"],
        &[
            "-c",
            "user.name=Bench",
            "-c",
            "user.email=bench@example.com",
            "commit",
            "-q",
            "-m",
            "First",
        ],
    ] {
        let status = Command::new("git")
            .args(arguments)
            .current_dir(&directory)
            .status()?;
        anyhow::ensure!(status.success(), "git {arguments:?} failed");
    }
    Ok(directory.to_string_lossy().into_owned())
}
