//! A disk that is full: the sender is told, nothing that was accepted is lost, and work goes on when there is space again.

use crate::script::add;
use greenroom_system_tests::api::{assert_gapless, of_type};
use greenroom_system_tests::product::Product;
use greenroom_system_tests::repo;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

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
