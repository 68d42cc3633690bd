//! What is done to a server, whichever it is: commands to one session and to many, and what those who watch see.

use super::http::{Http, Target, text_of};
use super::watch::{Seen, now_us, watch};
use crate::stats::Samples;
use anyhow::{Context as _, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Commands to one session, one after another.
pub const APPENDS: usize = 1_000;
const WARM_UP: usize = 100;
/// How long commands are sent to many sessions.
const FOR: Duration = Duration::from_secs(5);
/// Connections that send them.
const CONNECTIONS: usize = 64;
/// Sockets opened at once.
const AT_ONCE: usize = 32;
/// After which workerd hibernates an object of which nothing is asked, and so a session here.
pub const IDLE_SECONDS: u64 = 10;

/// What commands came to.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    pub accepted: usize,
    pub per_second: f64,
}

/// What those who watched saw in the middle of the turns.
pub struct Delivered {
    pub sessions: usize,
    /// That were appended, each seen by all who watch its session.
    pub events: usize,
    /// For each event at each socket.
    pub times: Samples,
    /// The median of the session that was served worst, as a multiple of the median of all.
    pub worst: f64,
    /// Of one processor, by the server alone.
    pub cpu_percent: f64,
    /// Mean time between two events of one session.
    pub interval: Duration,
    /// Mean size of an event's frame.
    pub bytes: usize,
}

/// A fresh session.
pub async fn new_session(http: &mut Http, target: &Target) -> Result<String> {
    let made = http
        .send("POST", "/v1/sessions", None, target.new_session)
        .await?;
    text_of(&made, "/session/id")
}

/// Commands to one session over one connection.
pub struct Appends {
    http: Http,
    path: String,
}

impl Appends {
    pub async fn begin(target: &Target) -> Result<Self> {
        let mut http = Http::connect(target).await?;
        let session = new_session(&mut http, target).await?;
        Ok(Self {
            http,
            path: format!("/v1/sessions/{session}"),
        })
    }

    pub async fn next(&mut self, round: usize, times: &mut Samples) -> Result<()> {
        let body = change(round);
        let began = Instant::now();
        self.http
            .send("PATCH", &self.path, Some(&format!("key-{round}")), body)
            .await?;
        if round >= WARM_UP {
            times.push(began.elapsed());
        }
        Ok(())
    }
}

/// A command that changes something each time.
fn change(round: usize) -> &'static str {
    match round.is_multiple_of(2) {
        true => "{\"delivery\":\"insert\"}",
        false => "{\"delivery\":\"queue\"}",
    }
}

/// Commands to so many sessions by turns, as fast as they are accepted.
pub async fn appends_per_second(target: &Target, sessions: usize) -> Result<Rate> {
    let paths = Arc::new(
        new_sessions(target, sessions)
            .await?
            .into_iter()
            .map(|id| format!("/v1/sessions/{id}"))
            .collect::<Vec<_>>(),
    );
    let accepted = Arc::new(AtomicUsize::new(0));
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (paths, accepted, next) = (paths.clone(), accepted.clone(), next.clone());
        let mut http = Http::connect(target).await?;
        clients.spawn(async move {
            while began.elapsed() < FOR {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let path = &paths[number % paths.len()];
                let body = format!("{{\"title\":\"Title {number}\"}}");
                http.send("PATCH", path, Some(&format!("{sessions}-{number}")), &body)
                    .await?;
                accepted.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let accepted = accepted.load(Ordering::Relaxed);
    Ok(Rate {
        accepted,
        per_second: accepted as f64 / began.elapsed().as_secs_f64(),
    })
}

pub async fn new_sessions(target: &Target, count: usize) -> Result<Vec<String>> {
    let mut http = Http::connect(target).await?;
    let mut made = Vec::new();
    for _ in 0..count {
        made.push(new_session(&mut http, target).await?);
    }
    Ok(made)
}

/// What each session that people watch takes of a server's memory, in KB.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// Right after something was asked of it.
    pub awake: f64,
    /// When nothing was asked of it for [`IDLE_SECONDS`].
    pub asleep: f64,
}

/// Commands to each of many new sessions, everybody who watches being there; then nothing.
pub async fn memory(target: &Target, pid: u32, sessions: usize, watchers: usize) -> Result<Taken> {
    // What a server takes once is no session's.
    new_sessions(target, WARM_UP).await?;
    let before = memory_kb(pid)?;
    let made = new_sessions(target, sessions).await?;
    let audience = Audience::gather(target, made, watchers).await?;
    let mut http = Http::connect(target).await?;
    for round in 0..2 {
        for session in &audience.sessions {
            let path = format!("/v1/sessions/{session}");
            let key = format!("memory-{round}");
            http.send("PATCH", &path, Some(&key), change(round)).await?;
        }
    }
    let each = |kb: u64| kb.saturating_sub(before) as f64 / sessions as f64;
    let awake = each(memory_kb(pid)?);
    // Both look for idle sessions every few seconds.
    tokio::time::sleep(Duration::from_secs(2 * IDLE_SECONDS + 5)).await;
    let asleep = each(memory_kb(pid)?);
    audience.leave().await?;
    Ok(Taken { awake, asleep })
}

/// Everybody who watches, and what they see.
pub struct Audience {
    pub sessions: Vec<String>,
    seen: Vec<Arc<Seen>>,
    watching: Vec<JoinHandle<Result<()>>>,
    stop: CancellationToken,
}

impl Audience {
    /// So many for each of the sessions.
    pub async fn gather(target: &Target, sessions: Vec<String>, watchers: usize) -> Result<Self> {
        let stop = CancellationToken::new();
        let seen: Vec<Arc<Seen>> = sessions.iter().map(|_| Arc::default()).collect();
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut opening = Vec::new();
        for (session, seen) in sessions.iter().zip(&seen) {
            for _ in 0..watchers {
                let place = places.clone().acquire_owned().await?;
                let (target, session, seen, stop) =
                    (target.clone(), session.clone(), seen.clone(), stop.clone());
                opening.push(tokio::spawn(async move {
                    let _place = place;
                    watch(&target, &session, seen, stop).await
                }));
            }
        }
        let mut watching = Vec::new();
        for socket in opening {
            watching.push(socket.await??);
        }
        Ok(Self {
            sessions,
            seen,
            watching,
            stop,
        })
    }

    /// Looks for so long; `cpu_seconds` tells what the server has taken so far.
    pub async fn look(self, span: Duration, cpu_seconds: impl Fn() -> Result<f64>) -> Result<Delivered> {
        let watchers = self.watching.len() / self.sessions.len();
        let (from_us, cpu) = (now_us(), cpu_seconds()?);
        let bytes_before = self.bytes();
        tokio::time::sleep(span).await;
        let (until_us, cpu) = (now_us(), cpu_seconds()? - cpu);
        let bytes = self.bytes() - bytes_before;
        self.stop.cancel();
        for socket in self.watching {
            socket.await??;
        }
        let mut times = Samples::default();
        let (mut medians, mut all, mut deliveries) = (Vec::new(), Vec::new(), 0);
        for seen in &self.seen {
            let events = seen.events.lock().unwrap_or_else(PoisonError::into_inner);
            let mut own: Vec<u32> = events
                .iter()
                .filter(|(came, _)| (from_us..until_us).contains(came))
                .map(|(_, took)| *took)
                .collect();
            deliveries += own.len();
            for took in &own {
                times.push(Duration::from_micros(u64::from(*took)));
            }
            all.extend_from_slice(&own);
            medians.push(median(&mut own));
        }
        let middle = median(&mut all).max(1);
        let worst = medians.into_iter().max().unwrap_or(0);
        let events = deliveries / watchers.max(1);
        Ok(Delivered {
            sessions: self.sessions.len(),
            events,
            times,
            worst: f64::from(worst) / f64::from(middle),
            cpu_percent: 100.0 * cpu / span.as_secs_f64(),
            interval: span.mul_f64(self.sessions.len() as f64 / events.max(1) as f64),
            bytes: usize::try_from(bytes).unwrap_or(0) / deliveries.max(1),
        })
    }

    async fn leave(self) -> Result<()> {
        self.stop.cancel();
        for socket in self.watching {
            socket.await??;
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.seen
            .iter()
            .map(|seen| seen.bytes.load(Ordering::Relaxed))
            .sum()
    }
}

fn median(values: &mut [u32]) -> u32 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// Memory that a process has, with its threads.
fn memory_kb(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let text = line.context("no memory in the process's status")?;
    Ok(text.trim().trim_end_matches(" kB").parse()?)
}

/// Processor time that a process has taken, with its threads.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    // Fields 14 and 15 of proc(5), counted from the one behind the name, which is the third.
    let ticks = |place: usize| {
        fields
            .get(place)
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0)
    };
    // SAFETY: asks for a constant of the system.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Ok((ticks(11) + ticks(12)) as f64 / per_second as f64)
}
