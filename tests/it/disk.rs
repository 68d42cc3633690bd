//! Disks that are full, slow, or read-only for a while: the sender is told, nothing that was accepted is lost, nobody waits who asks for
//! nothing of the disk, and work goes on when it can.

use crate::invariants;
use crate::script::add;
use greenroom_system_tests::api::{assert_gapless, of_type};
use greenroom_system_tests::product::Product;
use greenroom_system_tests::repo;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SCRIPT: &str = r#"
[[script]]
name = "say"
prompt_contains = "hello"
[[script.step]]
say = "Hello."
"#;

/// A small file system of its own under the data directory; gone with this value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(directory: &Path) -> Option<Self> {
        std::fs::create_dir_all(directory).unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=48m,mode=700", "greenroom-test"])
            .arg(directory)
            .status();
        status
            .is_ok_and(|status| status.success())
            .then(|| Self(directory.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for size in [1 << 20, 1 << 12, 1 << 9] {
        let bytes = vec![1_u8; size];
        while file.write_all(&bytes).is_ok() {}
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_survived() {
    let mut product = Product::with_script(SCRIPT);
    let Some(disk) = SmallDisk::mount(&product.data_dir()) else {
        eprintln!("SKIPPED-FEATURE: a full disk needs the right to mount a small one (root)");
        return;
    };
    // What a full disk makes the server say is part of this test.
    for part in [
        "disk",
        "Disk",
        "space",
        "full",
        "cannot",
        "could not",
        "out of date",
        "request failed",
        "effect",
    ] {
        product.expect_warning(part);
    }
    let source = repo::with_files(product.root(), "answer", &[("answer.txt", "41\n")]);
    let api = product.start().await;
    add(&api, "answer", &source).await;
    let session = api.start_session("answer", "hello first").await;
    api.wait_for_turns(&session, 1).await;

    let filler = product.data_dir().join("filler");
    fill(&filler);
    let mut refused = None;
    // Files that exist have some room left inside; a few large prompts use it up.
    for round in 0..60 {
        let (status, answer) = api
            .prompt(
                &session,
                &format!("full-{round}"),
                &format!("hello {}", "x".repeat(50_000)),
            )
            .await;
        if status != 202 {
            refused = Some((status, answer));
            break;
        }
    }
    let (status, answer) = refused.expect("a full disk refuses a prompt");
    assert_eq!(
        (status, answer["code"].as_str()),
        (507, Some("disk_full")),
        "{answer}"
    );
    assert!(answer["hint"].is_string(), "{answer}");
    assert_eq!(
        api.get(&format!("/v1/sessions/{session}")).await.0,
        200,
        "what is there can be read"
    );

    std::fs::remove_file(&filler).unwrap();
    let (status, answer) = api.prompt(&session, "after", "hello again").await;
    assert_eq!(status, 202, "{answer}");
    let events = api.events(&session).await;
    let queued = of_type(&events, "prompt.queued").len();
    let events = api.wait_for_turns(&session, queued).await;
    assert_gapless(&events);
    for end in of_type(&events, "turn.completed") {
        assert!(
            ["completed", "failed"].contains(&end["outcome"]["result"].as_str().unwrap()),
            "{end}"
        );
    }
    assert_eq!(
        of_type(&events, "turn.completed").last().unwrap()["outcome"]["result"],
        "completed"
    );
    product.stop();
    drop(disk);
}

/// Has every sync of a server's files take long, as on a disk that is busy, until this value is gone.
struct SlowDisk(Child);

impl SlowDisk {
    fn attach(pid: u32, log: &Path) -> Option<Self> {
        let mut strace = Command::new("strace")
            .args(["-f", "-e", "trace=fdatasync,fsync"])
            .args(["-e", "inject=fdatasync,fsync:delay_enter=150000"])
            .args(["-p", &pid.to_string(), "-o"])
            .arg(log)
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let status = format!("/proc/{pid}/status");
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline && strace.try_wait().is_ok_and(|end| end.is_none()) {
            let status = std::fs::read_to_string(&status).unwrap_or_default();
            let is_traced = |line: &str| {
                line.strip_prefix("TracerPid:")
                    .is_some_and(|pid| pid.trim() != "0")
            };
            if status.lines().any(is_traced) {
                return Some(Self(strace));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = strace.kill();
        let _ = strace.wait();
        None
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // SAFETY: plain system call on a child that was not waited for. It lets the server go when it is asked to end.
        unsafe { libc::kill(libc::pid_t::try_from(self.0.id()).unwrap(), libc::SIGINT) };
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_slow_disk_holds_up_those_alone_who_need_it() {
    let mut product = Product::with_script(SCRIPT);
    let source = repo::with_files(product.root(), "answer", &[("answer.txt", "41\n")]);
    let api = product.start().await;
    add(&api, "answer", &source).await;
    let session = api.start_session("answer", "hello first").await;
    let other = api.start_session("answer", "hello other").await;
    api.wait_for_turns(&session, 1).await;
    api.wait_for_turns(&other, 1).await;
    let mut watching = api.stream(&other, 0).await;
    watching.until(|frame| frame["frame"] == "caught_up").await;

    let traced = product.root().join("syncs");
    let Some(slow) = SlowDisk::attach(product.pid(), &traced) else {
        eprintln!("SKIPPED-FEATURE: a slow disk needs strace, and the right to trace another process");
        return product.stop();
    };
    let mut answered_meanwhile = 0;
    for round in 0..4 {
        let sender = api.clone();
        let to = session.clone();
        let sent = tokio::spawn(async move {
            let (one, two) = (format!("{round}-1"), format!("{round}-2"));
            tokio::join!(
                sender.prompt(&to, &one, "hello one"),
                sender.prompt(&to, &two, "hello two")
            )
        });
        while !sent.is_finished() {
            for path in ["/v1/me", "/v1/sessions", &format!("/v1/sessions/{other}/events")] {
                assert_eq!(api.get(path).await.0, 200);
            }
            watching
                .say(serde_json::json!({"frame": "presence", "draft": {"length": round, "cursor": 0}}))
                .await;
            answered_meanwhile += usize::from(!sent.is_finished());
        }
        let (one, two) = sent.await.unwrap();
        assert_eq!((one.0, two.0), (202, 202), "{} {}", one.1, two.1);
    }
    assert!(answered_meanwhile > 4, "who only looks waits for the disk");
    drop(slow);
    let syncs = std::fs::read_to_string(&traced).unwrap();
    assert!(syncs.contains("DELAYED"), "no sync was slow: {syncs}");
    let events = api.wait_for_turns(&session, 9).await;
    assert_gapless(&events);
    assert_eq!(of_type(&events, "prompt.queued").len(), 9);
    product.stop();
    invariants::hold(&product.data_dir());
}

/// A directory that nobody can make or change files in until this value is gone.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn mount(directory: &Path) -> Option<Self> {
        let mount = |options: &str| {
            let mut command = Command::new("mount");
            command.args(["-o", options]).arg(directory).arg(directory);
            command.status().is_ok_and(|status| status.success())
        };
        if !mount("bind") {
            return None;
        }
        let bound = Self(directory.to_owned());
        let remounted = Command::new("mount")
            .args(["-o", "remount,bind,ro"])
            .arg(directory)
            .status();
        remounted.is_ok_and(|status| status.success()).then_some(bound)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_disk_that_turns_read_only_is_said_and_survived() {
    let mut product = Product::with_script(SCRIPT);
    for part in [
        "read-only",
        "Read-only",
        "readonly",
        "cannot",
        "could not",
        "request failed",
        "effect",
    ] {
        product.expect_warning(part);
    }
    let source = repo::with_files(product.root(), "answer", &[("answer.txt", "41\n")]);
    let api = product.start().await;
    add(&api, "answer", &source).await;
    let session = api.start_session("answer", "hello first").await;
    api.wait_for_turns(&session, 1).await;
    // None of its files is open when the next server starts, so that it has to open them on a disk that cannot be written.
    product.stop();
    let api = product.start().await;
    let Some(disk) = ReadOnly::mount(&product.data_dir().join("sessions")) else {
        eprintln!("SKIPPED-FEATURE: a read-only disk needs the right to mount one (root)");
        return product.stop();
    };
    for (key, path, body) in [
        (
            "new",
            "/v1/sessions".to_owned(),
            serde_json::json!({"repository": "answer", "prompt": "hello"}),
        ),
        (
            "more",
            format!("/v1/sessions/{session}/prompts"),
            serde_json::json!({"text": "hello"}),
        ),
    ] {
        let request = api.request(reqwest::Method::POST, &path);
        let (status, answer) = api.send(request.header("idempotency-key", key).json(&body)).await;
        assert_eq!(
            (status, answer["code"].as_str()),
            (503, Some("disk_read_only")),
            "{answer}"
        );
        assert!(answer["hint"].is_string(), "{answer}");
    }
    assert_eq!(
        api.get("/v1/sessions").await.0,
        200,
        "what is in memory is still told"
    );
    drop(disk);
    let (status, answer) = api.prompt(&session, "more", "hello").await;
    assert_eq!(status, 202, "{answer}");
    let events = api.wait_for_turns(&session, 2).await;
    assert_gapless(&events);
    assert_eq!(of_type(&events, "prompt.queued").len(), 2);
    let new = api.start_session("answer", "hello new").await;
    api.wait_for_turns(&new, 1).await;
    product.stop();
    invariants::hold(&product.data_dir());
}
