//! Services: ready in every way there is, restarted by policy, stopped, replaced, found again; and a real database.

use crate::world::{PATIENCE, World, assert_code, eventually, sh};
use greenroom_host::{Sandbox, refuse_routes};
use greenroom_protocol::guest::call::{Call, CallErrorCode, Reply};
use greenroom_protocol::guest::service::{Readiness, RestartPolicy, Service, ServiceState, ServiceStatus};

crate::scenarios_on_each_kernel!(
    services_become_ready_in_each_way,
    a_service_that_is_not_ready_in_time_is_killed,
    ends_are_answered_by_policy,
    a_definition_is_started_once_and_replaced_by_another,
    a_stopped_service_stays_stopped,
    services_go_on_without_the_link,
    bad_definitions_are_refused,
    a_database_serves_and_comes_back,
);

fn service(name: &str, script: &str) -> Service {
    Service {
        name: name.to_owned(),
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        cwd: String::new(),
        env: Vec::new(),
        before: Vec::new(),
        ready: Readiness::Started,
        ready_timeout_ms: 20_000,
        restart: RestartPolicy::OnFailure,
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

async fn start(sandbox: &Sandbox, service: &Service) {
    let reply = sandbox.call(Call::StartService(service.clone())).await.unwrap();
    assert_eq!(reply, Reply::Done);
}

async fn stop(sandbox: &Sandbox, name: &str) {
    let name = name.to_owned();
    assert_eq!(
        sandbox.call(Call::StopService { name }).await.unwrap(),
        Reply::Done
    );
}

async fn all(sandbox: &Sandbox) -> Vec<ServiceStatus> {
    match sandbox.call(Call::ListServices).await.unwrap() {
        Reply::Services { services } => services,
        other => panic!("{other:?}"),
    }
}

async fn status(sandbox: &Sandbox, name: &str) -> ServiceStatus {
    let services = all(sandbox).await;
    services.into_iter().find(|service| service.name == name).unwrap()
}

/// Waits for a state, with at least so many starts beyond the first.
async fn reaches(sandbox: &Sandbox, name: &str, state: ServiceState, restarts: u32) -> ServiceStatus {
    let mut last = None;
    let found = in_time(async || {
        let now = status(sandbox, name).await;
        last = Some(now.clone());
        (now.state == state && now.restarts >= restarts).then_some(now)
    })
    .await;
    found.unwrap_or_else(|| panic!("{name} is never {state:?}; it is {last:?}"))
}

/// Like [`eventually`], for callers that have more to say when it never happens.
async fn in_time<T>(mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < deadline {
        if let Some(found) = look().await {
            return Some(found);
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    None
}

async fn log(sandbox: &Sandbox, name: &str) -> String {
    let mut log = String::new();
    let mut after_offset = 0;
    loop {
        let call = Call::ReadServiceLog {
            name: name.to_owned(),
            after_offset,
            max_bytes: 1 << 20,
        };
        match sandbox.call(call).await.unwrap() {
            Reply::ProcessOutput {
                end_offset, output, ..
            } if end_offset > after_offset => {
                after_offset = end_offset;
                log.push_str(&output);
            }
            Reply::ProcessOutput { .. } => return log,
            other => panic!("{other:?}"),
        }
    }
}

async fn services_become_ready_in_each_way(world: &World) {
    let sandbox = world.start().await;
    let wait = "while [ ! -e go ]; do sleep 0.02; done;";
    let server =
        "import socket, time\nlistening = socket.create_server(('127.0.0.1', 5000))\ntime.sleep(600)";
    let started = service("started", "sleep 600");
    let port = Service {
        ready: Readiness::Port { port: 5000 },
        ..service("port", &format!("{wait} exec python3 -c \"{server}\""))
    };
    let command = Service {
        before: words("/bin/sh -c echo${IFS}prepared;touch${IFS}prepared"),
        ready: Readiness::Command {
            argv: words("/bin/grep -q up state"),
        },
        ..service(
            "command",
            &format!("[ -e prepared ] || exit 1; {wait} echo up > state; sleep 600"),
        )
    };
    let output = Service {
        env: vec![("WORD".to_owned(), "ready".to_owned())],
        cwd: "/tmp".to_owned(),
        ready: Readiness::Output {
            text: "now ready".to_owned(),
        },
        ..service(
            "output",
            "pwd; cd /workspace; while [ ! -e go ]; do sleep 0.02; done; printf 'now '; echo $WORD; sleep 600",
        )
    };
    for service in [&started, &port, &command, &output] {
        start(&sandbox, service).await;
    }
    reaches(&sandbox, "started", ServiceState::Ready, 0).await;
    for name in ["port", "command", "output"] {
        assert_eq!(
            status(&sandbox, name).await.state,
            ServiceState::Starting,
            "{name}"
        );
    }
    sh(&sandbox, "touch go").await.ok();
    for name in ["port", "command", "output"] {
        let ready = reaches(&sandbox, name, ServiceState::Ready, 0).await;
        assert_eq!((ready.restarts, ready.reason.as_str()), (0, ""), "{ready:?}");
    }
    let names: Vec<String> = all(&sandbox)
        .await
        .into_iter()
        .map(|service| service.name)
        .collect();
    assert_eq!(names, ["command", "output", "port", "started"]);
    assert_eq!(log(&sandbox, "command").await, "prepared\n");
    assert_eq!(log(&sandbox, "output").await, "/tmp\nnow ready\n");
}

async fn a_service_that_is_not_ready_in_time_is_killed(world: &World) {
    let sandbox = world.start().await;
    let slow = Service {
        ready: Readiness::Port { port: 5001 },
        ready_timeout_ms: 200,
        restart: RestartPolicy::Never,
        ..service("slow", "trap '' TERM; sleep 600 & sleep 600; sleep 600")
    };
    start(&sandbox, &slow).await;
    let failed = reaches(&sandbox, "slow", ServiceState::Failed, 0).await;
    assert!(failed.reason.contains("not ready within 0.2 s"), "{failed:?}");
    let left = sh(&sandbox, "pgrep -c sleep || true").await.ok();
    assert_eq!(left, "0\n");
    let unprepared = Service {
        before: words("/bin/false"),
        restart: RestartPolicy::Never,
        ..service("unprepared", "echo never")
    };
    start(&sandbox, &unprepared).await;
    let failed = reaches(&sandbox, "unprepared", ServiceState::Failed, 0).await;
    assert!(failed.reason.contains("before it failed"), "{failed:?}");
    assert_eq!(log(&sandbox, "unprepared").await, "");
}

async fn ends_are_answered_by_policy(world: &World) {
    let sandbox = world.start().await;
    for (name, script, restart, state) in [
        ("never-well", "exit 0", RestartPolicy::Never, ServiceState::Ended),
        (
            "never-badly",
            "exit 3",
            RestartPolicy::Never,
            ServiceState::Failed,
        ),
        ("once", "exit 0", RestartPolicy::OnFailure, ServiceState::Ended),
    ] {
        let service = Service {
            restart,
            ..service(name, script)
        };
        start(&sandbox, &service).await;
        let ended = reaches(&sandbox, name, state, 0).await;
        assert_eq!(ended.restarts, 0);
        assert_eq!(
            ended.last_exit.unwrap().code,
            Some(if script == "exit 0" { 0 } else { 3 })
        );
    }
    let missing = Service {
        argv: words("no-such-program"),
        ..service("missing", "")
    };
    start(&sandbox, &missing).await;
    let waiting = reaches(&sandbox, "missing", ServiceState::Waiting, 0).await;
    assert!(waiting.reason.contains("no-such-program"), "{waiting:?}");
    for (name, restart, code) in [
        ("again", RestartPolicy::Always, 0),
        ("after-failure", RestartPolicy::OnFailure, 7),
    ] {
        // Fails twice, then stays.
        let script =
            format!("echo x >> {name}; echo start; [ $(wc -l < {name}) -gt 2 ] || exit {code}; sleep 600");
        start(
            &sandbox,
            &Service {
                restart,
                ..service(name, &script)
            },
        )
        .await;
    }
    for (name, code) in [("again", 0), ("after-failure", 7)] {
        let ready = reaches(&sandbox, name, ServiceState::Ready, 2).await;
        assert_eq!(ready.last_exit.unwrap().code, Some(code));
        eventually("the third line of its log", async || {
            (log(&sandbox, name).await == "start\nstart\nstart\n").then_some(())
        })
        .await;
    }
}

async fn a_definition_is_started_once_and_replaced_by_another(world: &World) {
    let sandbox = world.start().await;
    let first = service(
        "one",
        "echo first; echo $$ > first; trap '' TERM; while :; do sleep 1; done",
    );
    for _ in 0..3 {
        start(&sandbox, &first).await;
    }
    eventually("its start", async || {
        (log(&sandbox, "one").await == "first\n").then_some(())
    })
    .await;
    let second = service(
        "one",
        "kill -0 $(cat first) && echo together; echo second; sleep 600",
    );
    start(&sandbox, &second).await;
    eventually("the other's start", async || {
        (log(&sandbox, "one").await.ends_with("second\n")).then_some(())
    })
    .await;
    let log = log(&sandbox, "one").await;
    assert!(
        !log.contains("together"),
        "two of one name ran beside each other: {log}"
    );
    let now = reaches(&sandbox, "one", ServiceState::Ready, 0).await;
    assert_eq!(now.restarts, 0);
    assert_eq!(all(&sandbox).await.len(), 1);
}

async fn a_stopped_service_stays_stopped(world: &World) {
    let sandbox = world.start().await;
    let gentle = Service {
        restart: RestartPolicy::Always,
        ..service(
            "gentle",
            "trap 'echo bye; exit 0' TERM; echo hello; while :; do sleep 0.05; done",
        )
    };
    start(&sandbox, &gentle).await;
    eventually("it traps", async || {
        (log(&sandbox, "gentle").await == "hello\n").then_some(())
    })
    .await;
    stop(&sandbox, "gentle").await;
    let stopped = eventually("its end", async || {
        let now = status(&sandbox, "gentle").await;
        (now.last_exit.is_some()).then_some(now)
    })
    .await;
    assert_eq!(
        (stopped.state, stopped.last_exit.unwrap().code),
        (ServiceState::Stopped, Some(0))
    );
    stop(&sandbox, "gentle").await;
    let first = log(&sandbox, "gentle").await;
    assert!(
        first.starts_with("hello\n") && first.ends_with("bye\n"),
        "{first}"
    );
    // The same one again goes on in the same log.
    start(&sandbox, &gentle).await;
    reaches(&sandbox, "gentle", ServiceState::Ready, 0).await;
    eventually("its second hello", async || {
        (log(&sandbox, "gentle").await == format!("{first}hello\n")).then_some(())
    })
    .await;
    assert_code(
        sandbox
            .call(Call::StopService {
                name: "other".to_owned(),
            })
            .await,
        CallErrorCode::NotFound,
    );
}

async fn services_go_on_without_the_link(world: &World) {
    let sandbox = world.start().await;
    let id = sandbox.id().clone();
    start(
        &sandbox,
        &service(
            "ticks",
            "while :; do echo tick; sleep 0.05; [ -e stop ] && exit 1; done",
        ),
    )
    .await;
    reaches(&sandbox, "ticks", ServiceState::Ready, 0).await;
    drop(sandbox);
    let sandbox = world.host.find(&id, refuse_routes()).await.unwrap().unwrap();
    let before = log(&sandbox, "ticks").await.len();
    eventually("it goes on", async || {
        (log(&sandbox, "ticks").await.len() > before + 10).then_some(())
    })
    .await;
    // It is started again with nobody there to ask for it.
    sh(&sandbox, "touch stop").await.ok();
    drop(sandbox);
    let sandbox = world.host.find(&id, refuse_routes()).await.unwrap().unwrap();
    reaches(&sandbox, "ticks", ServiceState::Waiting, 1).await;
}

async fn bad_definitions_are_refused(world: &World) {
    let sandbox = world.start().await;
    let good = service("good", "sleep 600");
    let named = |name: &str| Service {
        name: name.to_owned(),
        ..good.clone()
    };
    let ready = |ready: Readiness| Service {
        ready,
        ..good.clone()
    };
    for bad in [
        named(""),
        named("Up"),
        named("1st"),
        named("a b"),
        named(&"a".repeat(64)),
        Service {
            argv: Vec::new(),
            ..good.clone()
        },
        ready(Readiness::Port { port: 0 }),
        ready(Readiness::Command { argv: Vec::new() }),
        ready(Readiness::Output { text: String::new() }),
    ] {
        assert_code(
            sandbox.call(Call::StartService(bad)).await,
            CallErrorCode::Invalid,
        );
    }
    for number in 0..16 {
        start(&sandbox, &named(&format!("s{number}"))).await;
    }
    assert_code(
        sandbox.call(Call::StartService(named("one-too-many"))).await,
        CallErrorCode::TooLarge,
    );
    start(&sandbox, &named("s3")).await;
}

/// Where Debian's package keeps the server's programs.
fn postgresql_programs() -> Option<String> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<_> = versions
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|path| path.join("initdb").exists())
        .collect();
    found.sort();
    Some(found.pop()?.display().to_string())
}

async fn a_database_serves_and_comes_back(world: &World) {
    let Some(programs) = postgresql_programs() else {
        eprintln!("SKIPPED-FEATURE: PostgreSQL is not installed, so no real service was run");
        return;
    };
    let sandbox = world.start().await;
    let data = "/home/agent/database";
    let initialise = format!(
        "[ -e {data}/PG_VERSION ] || {programs}/initdb --pgdata={data} --auth=trust --username=agent --no-sync"
    );
    let database = Service {
        name: "postgresql".to_owned(),
        argv: [
            &format!("{programs}/postgres"),
            "-D",
            data,
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
        ]
        .map(str::to_owned)
        .to_vec(),
        cwd: String::new(),
        env: Vec::new(),
        before: ["/bin/sh", "-c", &initialise].map(str::to_owned).to_vec(),
        // Its port is open a while before it serves again what it has to recover.
        ready: Readiness::Command {
            argv: [&format!("{programs}/pg_isready"), "-q", "-h", "127.0.0.1"]
                .map(str::to_owned)
                .to_vec(),
        },
        ready_timeout_ms: 60_000,
        restart: RestartPolicy::OnFailure,
    };
    start(&sandbox, &database).await;
    let ready = async |restarts| {
        for _ in 0..3 {
            let reached = in_time(async || {
                let now = status(&sandbox, "postgresql").await;
                (now.state == ServiceState::Ready && now.restarts >= restarts).then_some(now)
            });
            if let Some(now) = reached.await {
                return now;
            }
        }
        panic!(
            "{:?}\n{}",
            status(&sandbox, "postgresql").await,
            log(&sandbox, "postgresql").await
        )
    };
    let query = async |sql: &str| {
        let psql = format!("{programs}/psql -h 127.0.0.1 -U agent -d postgres -At -c \"{sql}\"");
        sh(&sandbox, &psql).await.ok()
    };
    assert_eq!(ready(0).await.restarts, 0);
    assert_eq!(query("select 6 * 7").await, "42\n");
    query("create table kept (word text); insert into kept values ('still here'); checkpoint").await;
    sh(&sandbox, &format!("kill -9 $(head -1 {data}/postmaster.pid)"))
        .await
        .ok();
    let back = ready(1).await;
    assert_eq!(back.last_exit.unwrap().signal, Some(9));
    // Its port is open while it still recovers.
    let psql = format!("{programs}/psql -h 127.0.0.1 -U agent -d postgres -At -c 'select word from kept'");
    let kept = in_time(async || {
        let ran = sh(&sandbox, &psql).await;
        (ran.exit.code == Some(0)).then_some(ran.output)
    })
    .await;
    assert_eq!(kept.as_deref(), Some("still here\n"));
    let log = log(&sandbox, "postgresql").await;
    for said in [
        "Success. You can now start",
        "database system was interrupted",
        "ready to accept connections",
    ] {
        assert!(log.contains(said), "{said:?} is not in the log: {log}");
    }
    stop(&sandbox, "postgresql").await;
    reaches(&sandbox, "postgresql", ServiceState::Stopped, 1).await;
}
