//! Many sessions at work with many who watch, through the public protocol: what each takes of memory, how many commands are accepted for good in a second, how long an
//! event takes from its append to everybody, and whether any session is served worse than others. Beside it workerd, the runtime of Durable
//! Objects, doing the part of this work that it can (`peers/workerd`), driven by the same clients in the same run.

mod http;
mod ours;
mod scenario;
mod watch;
mod workerd;

use crate::report::{Aim, Measured, Peer};
use crate::stats::Samples;
use anyhow::Result;
use scenario::{Delivered, Rate};

/// What this file measures.
pub const NAMES: &[&str] = &[
    "session.memory",
    "session.memory_asleep",
    "session.append",
    "session.appends_per_s_16",
    "session.appends_per_s_500",
    "session.delivery",
    "session.delivery_worst",
    "session.delivery_cpu",
];

/// Sessions at work at once, and who watches each.
const SESSIONS: usize = 500;
const WATCHERS: usize = 10;

const DELIVERY: Aim = Aim {
    p50: None,
    p99: Some(10.0),
};

/// Runs those whose name begins with `prefix`. What is printed of workerd is missing if it cannot be installed here.
pub async fn run(prefix: &str) -> Result<Vec<Measured>> {
    let wants = |names: &[&str]| names.iter().any(|name| name.starts_with(prefix));
    let temp = tempfile::Builder::new().prefix("gr-bench-").tempdir()?;
    let ours = ours::Ours::start(temp.path()).await?;
    let peer = workerd::Workerd::start(temp.path()).await?;
    let mut results = Vec::new();
    // First, while neither has room left over from anything else.
    if wants(&["session.memory", "session.memory_asleep"]) {
        let own = ours.memory(SESSIONS, WATCHERS).await?;
        let other = peer.memory(SESSIONS, WATCHERS).await?;
        results.push(memory("session.memory", own.awake, other.awake));
        results.push(memory("session.memory_asleep", own.asleep, other.asleep));
    }
    if wants(&["session.append"]) {
        // Alternately, so that what else the machine does concerns both.
        let (mut own, mut other) = (Samples::default(), Samples::default());
        let (mut own_calls, mut other_calls) = (
            scenario::Appends::begin(&ours.target).await?,
            scenario::Appends::begin(&peer.target).await?,
        );
        for round in 0..scenario::APPENDS {
            own_calls.next(round, &mut own).await?;
            other_calls.next(round, &mut other).await?;
        }
        results.extend(Measured::duration(
            "session.append",
            &own,
            Aim::default(),
            &[("workerd", &other)],
        ));
    }
    for (name, sessions) in [
        ("session.appends_per_s_16", 16),
        ("session.appends_per_s_500", SESSIONS),
    ] {
        if wants(&[name]) {
            let own = scenario::appends_per_second(&ours.target, sessions).await?;
            let other = scenario::appends_per_second(&peer.target, sessions).await?;
            results.push(rate(name, own, other));
        }
    }
    if wants(&[
        "session.delivery",
        "session.delivery_worst",
        "session.delivery_cpu",
    ]) {
        let own = ours.delivery(SESSIONS, WATCHERS).await?;
        let other = peer.delivery(SESSIONS, WATCHERS, &own).await?;
        results.extend(delivery(&own, &other));
    }
    Ok(results)
}

/// Less than the peer.
fn memory(name: &str, own: f64, other: f64) -> Measured {
    let mut measured = Measured::amount(name, "KB", SESSIONS, own, Some(other));
    let peer = Peer {
        p50: other,
        p99: other,
    };
    measured.peers.insert("workerd".to_owned(), peer);
    measured
}

/// More is better, so that the aim is what the peer does.
fn rate(name: &str, own: Rate, other: Rate) -> Measured {
    let mut measured = Measured::amount(name, "1/s", own.accepted, own.per_second, None);
    let peer = Peer {
        p50: other.per_second,
        p99: other.per_second,
    };
    measured.peers.insert("workerd".to_owned(), peer);
    // Four times what it does.
    measured.aim_p50 = Some(4.0 * other.per_second);
    measured.met = own.per_second >= 4.0 * other.per_second;
    measured
}

fn delivery(own: &Delivered, other: &Delivered) -> Vec<Measured> {
    let times = Measured::duration(
        "session.delivery",
        &own.times,
        DELIVERY,
        &[("workerd", &other.times)],
    );
    // Of the session that was served worst, over that of the one in the middle.
    let mut worst = Measured::amount("session.delivery_worst", "x", own.sessions, own.worst, Some(2.0));
    let peer = |value| Peer {
        p50: value,
        p99: value,
    };
    worst.peers.insert("workerd".to_owned(), peer(other.worst));
    let mut cpu = Measured::amount("session.delivery_cpu", "%", own.events, own.cpu_percent, None);
    cpu.peers.insert("workerd".to_owned(), peer(other.cpu_percent));
    times.into_iter().chain([worst, cpu]).collect()
}
