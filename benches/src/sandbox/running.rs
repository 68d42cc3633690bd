//! In a sandbox that runs already: the first program after it stood still, as in the warm pool (`sandbox.claim`); the first over a
//! fresh link, as after the server was restarted (`sandbox.find`); and one more over the same (`sandbox.exec`), beside what starting a
//! program takes without us.

use super::{WARM_UP, exec, exec_true, start};
use crate::report::{Aim, Measured};
use crate::stats::Samples;
use anyhow::{Context as _, Result, ensure};
use greenroom_host::{Host, refuse_routes};
use std::process::{Command, Stdio};
use std::time::Instant;

const ROUNDS: usize = 500;

/// Programs that a shell in the sandbox starts one after another, for the floor there.
const SHELL_ROUNDS: usize = 20;

/// What a round trip may take beyond fork and exec, in milliseconds.
const BEYOND_MS: f64 = 1.0;

pub(super) async fn measure(host: &Host) -> Result<Vec<Measured>> {
    let sandbox = start(host).await?;
    let id = sandbox.id().clone();
    drop(sandbox);
    let (mut claim, mut found, mut executed) = (Samples::default(), Samples::default(), Samples::default());
    let (mut floor, mut inside) = (Samples::default(), Samples::default());
    let many = format!("for i in $(seq {SHELL_ROUNDS}); do /bin/true; done");
    for round in 0..WARM_UP + ROUNDS {
        let began = Instant::now();
        let sandbox = host
            .find(&id, refuse_routes())
            .await?
            .context("the sandbox runs")?;
        exec_true(&sandbox).await?;
        let found_in = began.elapsed();
        let frozen = host.freeze(&id).await?;
        let began = Instant::now();
        drop(frozen);
        exec_true(&sandbox).await?;
        let claimed = began.elapsed();
        let began = Instant::now();
        exec_true(&sandbox).await?;
        let round_trip = began.elapsed();
        let began = Instant::now();
        let status = Command::new("/bin/true").stdin(Stdio::null()).status()?;
        let spawned = began.elapsed();
        ensure!(status.success(), "/bin/true fails");
        if round < WARM_UP {
            continue;
        }
        claim.push(claimed);
        found.push(found_in);
        executed.push(round_trip);
        floor.push(spawned);
        if round % SHELL_ROUNDS == 0 {
            let began = Instant::now();
            exec(&sandbox, &["/bin/bash", "-c", &many]).await?;
            inside.push(began.elapsed() / SHELL_ROUNDS as u32);
        }
    }
    host.remove(&id).await?;
    let peers = [("fork+exec on host", &floor), ("by a shell inside", &inside)];
    let claim_aim = Aim {
        p50: Some(1.0),
        p99: Some(5.0),
    };
    let exec_aim = Aim {
        p50: floor.summary_ms().map(|floor| floor.p50 + BEYOND_MS),
        p99: Some(5.0),
    };
    Ok([
        Measured::duration("sandbox.find", &found, Aim::default(), &peers),
        Measured::duration("sandbox.claim", &claim, claim_aim, &peers),
        Measured::duration("sandbox.exec", &executed, exec_aim, &peers),
    ]
    .into_iter()
    .flatten()
    .collect())
}
