//! Measures durable appends: `append_rate DIR SESSIONS SECONDS`. Each session appends one event of 300 bytes after the other;
//! prints the rate and how long an append took.

#![allow(clippy::print_stdout)]

use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::id::SessionId;
use greenroom_stdx::id::fresh_bits;
use greenroom_store::session_log::{Batch, SessionStore};
use greenroom_store::sqlite_session_store::{SqliteSessionStore, StoreOptions};
use std::sync::Arc;
use std::time::{Duration, Instant};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or_else(|| format!("missing argument {what}"));
    let (dir, sessions, seconds) = (next("DIR")?, next("SESSIONS")?, next("SECONDS")?);
    let (sessions, seconds): (usize, u64) = (sessions.parse()?, seconds.parse()?);
    let options = StoreOptions {
        max_open: sessions.max(256),
        ..StoreOptions::default()
    };
    let store = Arc::new(SqliteSessionStore::open(dir, options)?);
    let mut writers = Vec::new();
    let mut epochs = Vec::new();
    let creating = Instant::now();
    for _ in 0..sessions {
        let session = SessionId::from_bits(fresh_bits());
        store.create(&session).await?;
        let lease = store
            .acquire(&session, "bench", Duration::from_secs(3600))
            .await?;
        epochs.push((session, lease.epoch));
    }
    let created_in = creating.elapsed();
    let end = Instant::now() + Duration::from_secs(seconds);
    for (session, epoch) in epochs {
        let store = Arc::clone(&store);
        writers.push(tokio::spawn(async move {
            let (mut seq, mut took) = (0, Vec::new());
            while Instant::now() < end {
                let batch = Batch {
                    events: vec![EventBody::SessionTitled {
                        title: "x".repeat(260),
                        by: None,
                    }],
                    ..Batch::default()
                };
                let start = Instant::now();
                seq = store.append(&session, epoch, seq, batch).await?;
                took.push(start.elapsed());
            }
            Ok::<_, AnyError>(took)
        }));
    }
    let mut took = Vec::new();
    for writer in writers {
        took.extend(writer.await??);
    }
    took.sort();
    let at = |pct: usize| took[(took.len() * pct / 100).min(took.len() - 1)];
    println!(
        "{sessions} sessions: {} appends/s, p50 {:?}, p99 {:?}, max {:?}; create and acquire {:?} each",
        took.len() as u64 / seconds,
        at(50),
        at(99),
        at(100),
        created_in / u32::try_from(sessions)?
    );
    Ok(())
}
