//! A session of 100,000 events: how soon it is open, what that takes of the server's memory, and whether the next event costs more than
//! the first ones did.

use crate::product::{self, Server};
use crate::prompt::repository;
use crate::report::{Aim, Measured};
use crate::stats::Samples;
use anyhow::{Context as _, Result, bail, ensure};
use greenroom_protocol::client::event::{EventBody, Item, ItemBody, TurnOutcome};
use greenroom_protocol::client::model::Usage;
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::prompt::{Delivery, Prompt};
use greenroom_protocol::client::repository::AddRepository;
use greenroom_protocol::client::session::{CreateSession, UpdateSession};
use greenroom_protocol::client::stream::StreamFrame;
use greenroom_protocol::id::{ItemId, PromptId, SessionId, TurnId};
use greenroom_sdk::{Client, IdempotencyKey, SessionStream};
use greenroom_store::session_log::{Batch, SessionStore as _};
use greenroom_store::sqlite_session_store::{SqliteSessionStore, StoreOptions};
use std::path::Path;
use std::time::{Duration, Instant};

/// What this file measures.
pub const NAMES: &[&str] = &[
    "session.open_100k",
    "session.wake_100k",
    "session.open_100k_memory",
    "session.append_100k",
];

const EVENTS: u64 = 100_000;
/// Messages of one turn, of two events each.
const MESSAGES: u128 = 100;
const OPENS: usize = 100;
const WAKES: usize = 15;
const WHOLE: usize = 3;
const APPENDS: usize = 300;
const WARM_UP: usize = 3;
const OPEN: Aim = Aim {
    p50: Some(200.0),
    p99: Some(200.0),
};
/// After which an idle session leaves memory.
const IDLE_SECONDS: &str = "1";
/// Of the whole server, after all of it.
const MEMORY_MB: f64 = 120.0;

/// Runs all of them.
pub async fn run() -> Result<Vec<Measured>> {
    let temp = tempfile::Builder::new().prefix("gr-bench-").tempdir()?;
    let model = product::model().await?;
    let config = product::config(temp.path(), &model.url, "")?;
    let env = [("GREENROOM_SESSION_IDLE_SECONDS", IDLE_SECONDS)];
    let (server, _) = Server::start_with(&config, temp.path(), &env)?;
    let client = server.client()?;
    let add = AddRepository {
        name: "bench".to_owned(),
        source: Some(repository(temp.path())?),
    };
    client.add_repository(&add).await?;
    let (long, short) = (create(&client).await?, create(&client).await?);
    let author = client.me().await?.person;
    drop(server);
    lengthen(temp.path(), &long, &author).await?;

    let (server, _) = Server::start_with(&config, temp.path(), &env)?;
    let client = server.client()?;
    // The first one who comes makes what the others open it by.
    open(client.stream_recent(&long)).await?;
    let (mut opens, mut wakes, mut whole) = (Samples::default(), Samples::default(), Samples::default());
    for round in 0..WARM_UP + OPENS {
        let took = open(client.stream_recent(&long)).await?.0;
        if round >= WARM_UP {
            opens.push(took);
        }
    }
    for _ in 0..WAKES {
        server.asleep().await?;
        wakes.push(open(client.stream_recent(&long)).await?.0);
    }
    let memory_mb = server.memory_kb()? as f64 / 1024.0;
    for _ in 0..WHOLE {
        let (took, events) = open(client.stream(&long, 0)).await?;
        ensure!(events >= EVENTS, "only {events} events");
        whole.push(took);
    }
    let (mut appends, mut first) = (Samples::default(), Samples::default());
    for round in 0..WARM_UP + APPENDS {
        for (session, samples) in [(&long, &mut appends), (&short, &mut first)] {
            let update = UpdateSession {
                title: Some(format!("Title {round}")),
                ..UpdateSession::default()
            };
            let began = Instant::now();
            client.update_session(session, &update).await?;
            if round >= WARM_UP {
                samples.push(began.elapsed());
            }
        }
    }
    drop(server);
    let none = Aim { p50: None, p99: None };
    let durations = [
        Measured::duration("session.open_100k", &opens, OPEN, &[("all events", &whole)]),
        Measured::duration("session.wake_100k", &wakes, OPEN, &[]),
        Measured::duration(
            "session.append_100k",
            &appends,
            none,
            &[("in a new session", &first)],
        ),
    ];
    let memory = Measured::amount(
        "session.open_100k_memory",
        "MB",
        OPENS + WAKES,
        memory_mb,
        Some(MEMORY_MB),
    );
    Ok(durations.into_iter().flatten().chain([memory]).collect())
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
    let created = client.create_session(&create, &IdempotencyKey::fresh()).await?;
    Ok(created.session.id)
}

/// Writes turns into a session's log as the server would, while none runs.
async fn lengthen(temp: &Path, session: &SessionId, author: &Person) -> Result<()> {
    let store = SqliteSessionStore::open(temp.join("data/sessions"), StoreOptions::default())?;
    let lease = store.acquire(session, "local", Duration::from_secs(60)).await?;
    let mut seq = store.last_seq(session).await?;
    let mut number = 0;
    while seq < EVENTS {
        number += 1;
        let batch = Batch {
            at_ms: 1_800_000_000_000,
            events: turn(number, author),
            ..Batch::default()
        };
        seq = store.append(session, lease.epoch, seq, batch).await?;
    }
    store.release(session, lease.epoch).await?;
    Ok(())
}

fn turn(number: u128, author: &Person) -> Vec<EventBody> {
    let (turn_id, prompt_id) = (TurnId::from_bits(number), PromptId::from_bits(number));
    let prompt = Prompt {
        id: prompt_id.clone(),
        author: author.clone(),
        text: format!("Look at part {number} of the shop and say what you find."),
        images: Vec::new(),
        model: None,
        delivery: Delivery::Queue,
        queued_at_ms: 0,
    };
    let mut events = vec![
        EventBody::PromptQueued { prompt, key: None },
        EventBody::TurnStarted {
            turn_id: turn_id.clone(),
            prompt_id: prompt_id.clone(),
            model: "bench/model".to_owned(),
            is_scripted: false,
        },
    ];
    for message in 0..MESSAGES {
        let item = |text: &str| Item {
            id: ItemId::from_bits(number * 1_000 + message),
            body: ItemBody::Message {
                text: text.to_owned(),
            },
        };
        let turn_id = turn_id.clone();
        events.push(EventBody::ItemStarted {
            turn_id: turn_id.clone(),
            item: item(""),
        });
        events.push(EventBody::ItemCompleted {
            turn_id,
            item: item(&"There is nothing wrong with this part of the shop. ".repeat(6)),
        });
    }
    events.push(EventBody::TurnCompleted {
        turn_id,
        prompt_id,
        outcome: TurnOutcome::Completed,
        usage: Usage::default(),
        sandbox: None,
    });
    events
}

/// Until the client has all that it opens with; how long that took, and how many events it was.
async fn open(mut stream: SessionStream) -> Result<(Duration, u64)> {
    let began = Instant::now();
    let mut events = 0;
    loop {
        match stream.next().await.context("the stream ended")?? {
            StreamFrame::Event { .. } => events += 1,
            StreamFrame::CaughtUp { .. } => return Ok((began.elapsed(), events)),
            StreamFrame::Closing { problem, .. } => bail!("{}", problem.message),
            _ => {}
        }
    }
}
