//! From nothing to the end of the first program. Ours has an overlay that can be written, resource groups with limits, a
//! seccomp filter, Landlock, and a guest that answers over a socket; a launcher process waits ahead (see
//! `greenroom-host`'s `launcher`), everything else is made in the measured time. The end of a sandbox is not measured.

use super::{WARM_UP, exec_true, peers, start};
use crate::report::{Aim, Measured};
use crate::stats::Samples;
use anyhow::Result;
use greenroom_host::Host;
use std::path::Path;
use std::time::Instant;

const ROUNDS: usize = 100;

/// Sandboxes started one after another.
const RATE_ROUNDS: usize = 1000;

/// How many of the first and of the last are compared.
const EDGE: usize = 100;

/// How much slower the last may be than the first and still count as flat.
const FLAT: f64 = 1.2;

/// `sandbox.cold_start`; peers take turns with ours.
pub(super) async fn cold(host: &Host, temp: &Path) -> Result<Option<Measured>> {
    let mut ours = Samples::default();
    let mut peers = peers::find(&temp.join("state/base"), &temp.join("peers"))?;
    for round in 0..WARM_UP + ROUNDS {
        let began = Instant::now();
        let sandbox = start(host).await?;
        exec_true(&sandbox).await?;
        let took = began.elapsed();
        host.remove(sandbox.id()).await?;
        for peer in &mut peers {
            peer.take_turn(round, round >= WARM_UP)?;
        }
        if round >= WARM_UP {
            ours.push(took);
        }
    }
    let aim = Aim {
        p50: Some(5.0),
        p99: Some(20.0),
    };
    let peers: Vec<(&str, &Samples)> = peers.iter().map(|peer| (peer.name, &peer.samples)).collect();
    Ok(Measured::duration("sandbox.cold_start", &ours, aim, &peers))
}

/// `sandbox.start_rate`: the last of many starts, each ended before the next, beside the first.
pub(super) async fn rate(host: &Host) -> Result<Option<Measured>> {
    let (mut first, mut last) = (Samples::default(), Samples::default());
    for round in 0..WARM_UP + RATE_ROUNDS {
        let began = Instant::now();
        let sandbox = start(host).await?;
        exec_true(&sandbox).await?;
        let took = began.elapsed();
        host.remove(sandbox.id()).await?;
        if (WARM_UP..WARM_UP + EDGE).contains(&round) {
            first.push(took);
        } else if round >= WARM_UP + RATE_ROUNDS - EDGE {
            last.push(took);
        }
    }
    Ok(compared("sandbox.start_rate", &first, &last))
}

/// The last starts, which should take no longer than the first.
pub(super) fn compared(name: &str, first: &Samples, last: &Samples) -> Option<Measured> {
    let aim = Aim {
        p50: Some(first.summary_ms()?.p50 * FLAT),
        p99: None,
    };
    Measured::duration(name, last, aim, &[("the first", first)])
}
