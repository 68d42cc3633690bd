//! OCI runtimes that fail in every way: none of them leaves anything behind, each is told by its own words, and the sandbox's
//! files can still be used. Scripts stand for the runtimes; what works is tested with real ones everywhere else.

use crate::world::{Isolation, World, fresh_id, run_exec, sh, shell};
use greenroom_host::{HostError, StartSandbox};
use greenroom_protocol::environment::Backend;
use greenroom_protocol::id::SandboxId;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

crate::scenarios!(
    a_runtime_that_is_not_there_is_named,
    the_last_words_of_a_runtime_are_told,
    a_runtime_that_dies_after_its_start_is_noticed,
);

crate::scenarios_with!(
    slowly_as_root,
    as_root,
    Isolation::Namespace,
    a_runtime_that_hangs_is_given_up
);

/// An executable script.
fn script(world: &World, name: &str, text: &str) -> PathBuf {
    let path = world.state.with_file_name(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn by_runtime(world: &World, id: &SandboxId, runtime: &str) -> StartSandbox {
    StartSandbox {
        backend: Backend::Oci,
        runtime: Some(runtime.to_owned()),
        ..world.plain(id)
    }
}

/// Fails to start by a runtime; then everything but files is gone, and another backend starts over them.
async fn refused(world: &World, runtime: &str) -> HostError {
    let id = fresh_id();
    let sandbox = world.host.start(world.plain(&id)).await.unwrap();
    sh(&sandbox, "echo kept >file").await.ok();
    drop(sandbox);
    world.host.stop(&id).await.unwrap();
    let Err(error) = world.host.start(by_runtime(world, &id, runtime)).await else {
        panic!("{runtime} started a sandbox");
    };
    let left = greenroom_testkit::leftovers::processes(&world.state.join("sb").join(id.as_str()));
    assert_eq!(left, Vec::<String>::new(), "{runtime}");
    let again = world.host.start(world.plain(&id)).await.unwrap();
    assert_eq!(sh(&again, "cat file").await.ok(), "kept\n");
    world.host.remove(&id).await.unwrap();
    error
}

async fn a_runtime_that_is_not_there_is_named(world: &World) {
    let plain = world.state.with_file_name("plain-file");
    std::fs::write(&plain, "#!/bin/sh\n").unwrap();
    for runtime in ["no-such-runtime", "/nowhere/crun", plain.to_str().unwrap()] {
        let error = refused(world, runtime).await;
        let problem = error.problem();
        assert_eq!(problem.code, "runtime_missing", "{error:?}");
        assert!(
            problem.message.contains(runtime) && problem.hint.is_some(),
            "{problem:?}"
        );
    }
}

async fn the_last_words_of_a_runtime_are_told(world: &World) {
    let long = "x".repeat(1000);
    for (name, text, expected) in [
        (
            "fails",
            "echo at first >&2; echo no luck >&2; echo >&2; exit 3",
            "no luck",
        ),
        ("silent", "exit 1", "it ended without a word"),
        ("well", "exit 0", "it ended without a word"),
        ("killed", "echo and then >&2; kill -9 $$", "and then"),
        (
            "garbage",
            "echo this is no guest; sleep 600",
            "it put something before what the guest says",
        ),
        ("closes", "exec >&-; sleep 600", "it ended without a word"),
        (
            "children",
            "echo left alone >&2; sleep 600 & exit 1",
            "left alone",
        ),
        ("long", &format!("echo {long} >&2; exit 1"), &long[..400]),
        (
            "much",
            "yes much | head -c 3000000 >&2; echo the end >&2; exit 1",
            "the end",
        ),
    ] {
        let runtime = script(world, name, text);
        let error = refused(world, runtime.to_str().unwrap()).await;
        let HostError::RuntimeRefused { reason, .. } = &error else {
            panic!("{name}: {error:?}")
        };
        assert_eq!(reason, expected, "{name}");
        let problem = error.problem();
        assert_eq!(problem.code, "runtime_refused");
        assert!(
            problem.hint.as_ref().is_some_and(|hint| hint.contains(expected)),
            "{problem:?}"
        );
    }
    // A program that cannot be executed at all.
    let broken = world.state.with_file_name("broken");
    std::fs::write(&broken, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = refused(world, broken.to_str().unwrap()).await;
    assert!(
        matches!(&error, HostError::Launch(failure) if failure.step == "execute runtime"),
        "{error:?}"
    );
    assert_eq!(error.problem().code, "sandbox_start_failed");
}

async fn a_runtime_that_dies_after_its_start_is_noticed(world: &World) {
    // Says that the guest serves, which it does not.
    for (name, text) in [
        ("dies", "head -c 8 /dev/zero; sleep 0.1; echo gone >&2; exit 1"),
        ("raves", "head -c 8 /dev/zero; read -r line; yes; sleep 600"),
    ] {
        let error = refused(world, script(world, name, text).to_str().unwrap()).await;
        assert!(
            matches!(error, HostError::GuestSilent { .. }),
            "{name}: {error:?}"
        );
        assert_eq!(error.problem().code, "sandbox_unresponsive");
    }
    // One that did start it, and is killed.
    if !Isolation::Oci("crun").is_possible() {
        return;
    }
    let id = fresh_id();
    let sandbox = world.host.start(by_runtime(world, &id, "crun")).await.unwrap();
    let lock = world.state.join("sb").join(id.as_str()).join("lock");
    let supervisor = greenroom_sandbox::lock::holder(&lock).unwrap().unwrap();
    let runtime = greenroom_sandbox::processes::tree(supervisor.as_raw_nonzero().get())[1];
    let kill = async {
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(runtime).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
    };
    let (ran, ()) = tokio::join!(run_exec(&sandbox, shell("echo kept >file; sleep 600")), kill);
    assert!(
        matches!(&ran, Err(greenroom_host::SandboxError::Lost(problem)) if problem.code == "sandbox_lost"),
        "{ran:?}"
    );
    // It is over, and can be started anew.
    crate::world::eventually("the supervisor ends", async || {
        let found = world.host.find(&id, greenroom_host::refuse_routes()).await;
        found.is_ok_and(|found| found.is_none()).then_some(())
    })
    .await;
    let again = world.host.start(by_runtime(world, &id, "crun")).await.unwrap();
    assert_eq!(sh(&again, "echo alive").await.ok(), "alive\n");
}

/// As long as a runtime is waited for.
async fn a_runtime_that_hangs_is_given_up(world: &World) {
    let runtime = script(world, "hangs", "sleep 600 & sleep 600");
    let error = refused(world, runtime.to_str().unwrap()).await;
    assert!(
        matches!(&error, HostError::RuntimeRefused { reason, .. } if reason == "it did not start the guest in time"),
        "{error:?}"
    );
}
