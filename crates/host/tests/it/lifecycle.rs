//! A sandbox's life beyond one host: found again, started over its files, killed, reaped.

use crate::world::{World, eventually, fresh_id, open, sh};
use greenroom_host::{HostError, refuse_routes};
use greenroom_protocol::guest::call::{Call, Reply};

crate::scenarios_everywhere!(
    it_is_found_again_after_the_host_is_gone,
    it_starts_again_over_its_files,
    a_killed_supervisor_takes_its_sandbox_along,
    unwanted_ones_are_reaped,
    one_id_runs_once,
    a_newer_link_wins,
);

async fn it_is_found_again_after_the_host_is_gone(world: &World) {
    let sandbox = world.start().await;
    let id = sandbox.id().clone();
    let process_id = sandbox
        .spawn(crate::world::shell("echo kept; sleep 600"))
        .await
        .unwrap();
    drop(sandbox);
    let second = open(&world.state).await;
    let found = second
        .find(&id, refuse_routes())
        .await
        .unwrap()
        .expect("it still runs");
    let call = Call::ReadProcess {
        process_id,
        after_offset: 0,
        max_bytes: 100,
    };
    eventually("its output", async || {
        match found.call(call.clone()).await.unwrap() {
            Reply::ProcessOutput {
                output, exit: None, ..
            } if output == "kept\n" => Some(()),
            _ => None,
        }
    })
    .await;
    assert!(second.find(&fresh_id(), refuse_routes()).await.unwrap().is_none());
}

async fn it_starts_again_over_its_files(world: &World) {
    let sandbox = world.start().await;
    let id = sandbox.id().clone();
    sh(
        &sandbox,
        "mkdir -p a/b && echo kept > a/b/file && mv a c && echo mine > ~/note",
    )
    .await
    .ok();
    world.host.stop(&id).await.unwrap();
    sandbox.closed().await;
    assert!(world.host.find(&id, refuse_routes()).await.unwrap().is_none());
    let again = world.host.start(world.plain(&id)).await.unwrap();
    assert_eq!(sh(&again, "cat c/b/file ~/note").await.ok(), "kept\nmine\n");
    world.host.remove(&id).await.unwrap();
    let fresh = world.host.start(world.plain(&id)).await.unwrap();
    assert_eq!(sh(&fresh, "ls -A").await.ok(), "");
}

async fn a_killed_supervisor_takes_its_sandbox_along(world: &World) {
    let sandbox = world.start().await;
    sandbox.spawn(crate::world::shell("sleep 600")).await.unwrap();
    let lock = world.state.join("sb").join(sandbox.id().as_str()).join("lock");
    let pid = greenroom_sandbox::lock::holder(&lock)
        .unwrap()
        .expect("a supervisor holds it");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    tokio::time::timeout(crate::world::PATIENCE, sandbox.closed())
        .await
        .expect("the link ends");
    assert!(sandbox.call(Call::Ping).await.is_err());
    let again = world.host.start(world.plain(sandbox.id())).await.unwrap();
    assert_eq!(sh(&again, "pgrep -c sleep || true").await.ok(), "0\n");
}

async fn unwanted_ones_are_reaped(world: &World) {
    let wanted = world.start().await;
    let unwanted = world.start().await;
    sh(&unwanted, "mkdir -p closed/inner && chmod 0 closed/inner closed")
        .await
        .ok();
    let removed = world.host.reap(std::slice::from_ref(wanted.id())).await.unwrap();
    assert_eq!(removed, [unwanted.id().clone()]);
    unwanted.closed().await;
    assert_eq!(sh(&wanted, "echo alive").await.ok(), "alive\n");
}

async fn one_id_runs_once(world: &World) {
    let sandbox = world.start().await;
    let again = world.host.start(world.plain(sandbox.id())).await;
    assert!(matches!(again, Err(HostError::AlreadyRunning(_))));
    assert_eq!(sh(&sandbox, "echo alive").await.ok(), "alive\n");
}

async fn a_newer_link_wins(world: &World) {
    let old = world.start().await;
    let newer = world.host.find(old.id(), refuse_routes()).await.unwrap().unwrap();
    old.closed().await;
    assert_eq!(sh(&newer, "echo alive").await.ok(), "alive\n");
}
