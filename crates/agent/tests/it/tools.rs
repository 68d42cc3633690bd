//! Each tool's run against a workspace in memory, as the turn loop calls it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod apply_patch;

use greenroom_agent::fake::{FakePlatform, MemoryWorkspace, Ran};
use greenroom_agent::tools::{self, ToolContext, ToolFailure, ToolOutput};
use greenroom_llm::conversation::{Block, ToolCall};
use greenroom_protocol::client::event::ItemBody;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::guest::call::CallErrorCode;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

/// A workspace with tools on it.
struct World {
    workspace: Arc<MemoryWorkspace>,
    platform: Arc<FakePlatform>,
    cancel: CancellationToken,
    shown: Arc<Mutex<String>>,
}

impl World {
    fn new(workspace: MemoryWorkspace) -> Self {
        Self {
            workspace: Arc::new(workspace),
            platform: Arc::default(),
            cancel: CancellationToken::new(),
            shown: Arc::default(),
        }
    }

    fn with_files(files: &[(&str, &str)]) -> Self {
        let world = Self::new(MemoryWorkspace::default());
        for (path, text) in files {
            world.workspace.set(path, text);
        }
        world
    }

    async fn run_raw(&self, name: &str, arguments_json: &str) -> Result<ToolOutput, ToolFailure> {
        let shown = Arc::clone(&self.shown);
        let ctx = ToolContext {
            workspace: self.workspace.clone(),
            platform: self.platform.clone(),
            // Each call has its own, as its item has.
            key: format!("itm_{}", self.workspace.execs().len()),
            cancel: self.cancel.clone(),
            show_output: Box::new(move |text| shown.lock().unwrap().push_str(text)),
        };
        let call = ToolCall {
            id: "c1".into(),
            name: name.into(),
            arguments_json: arguments_json.into(),
        };
        tools::run(&call, &ctx).await
    }

    async fn run(&self, name: &str, arguments: Value) -> Result<ToolOutput, ToolFailure> {
        self.run_raw(name, &arguments.to_string()).await
    }

    #[track_caller]
    fn file(&self, path: &str) -> String {
        String::from_utf8(self.workspace.get(path).unwrap()).unwrap()
    }
}

#[track_caller]
fn text(output: Result<ToolOutput, ToolFailure>) -> String {
    match output.unwrap().content.into_iter().next() {
        Some(Block::Text { text }) => text,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn answer(output: Result<ToolOutput, ToolFailure>) -> String {
    match output {
        Err(ToolFailure::Answer(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn bad_calls_are_answered() {
    let world = World::with_files(&[]);
    for (name, arguments, expected) in [
        (
            "rm",
            "{}",
            "there is no tool `rm`; the tools are: read, write, edit, apply_patch, list",
        ),
        ("read", "{", "not valid JSON"),
        ("read", "[]", "not an object"),
        ("read", "{}", "missing field `path`"),
        ("apply_patch", "{\"patch\":\"\",\"x\":1}", "unknown field `x`"),
    ] {
        let error = answer(world.run_raw(name, arguments).await);
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[tokio::test]
async fn failures_of_the_guest_come_through_as_text() {
    let world = World::with_files(&[("f", "a\n"), ("d/x", "")]);
    world.workspace.set("binary", b"\xff\xfe\0");
    world.workspace.set("locked", "a\n");
    world
        .workspace
        .fail_changes_of("locked", CallErrorCode::PermissionDenied, "is not permitted");
    for (name, arguments, expected) in [
        ("read", json!({"path": "none"}), "none: does not exist"),
        ("read", json!({"path": "d"}), "d is a directory; use list"),
        ("read", json!({"path": "binary"}), "binary file of 3 bytes"),
        ("read", json!({"path": "../x"}), "outside the workspace"),
        ("read", json!({"path": "f", "offset": 9}), "behind the end"),
        (
            "write",
            json!({"path": "/etc/x", "content": ""}),
            "outside the workspace",
        ),
        ("write", json!({"path": "d", "content": ""}), "is a directory"),
        (
            "write",
            json!({"path": "f/x", "content": ""}),
            "is not in a directory",
        ),
        (
            "write",
            json!({"path": "locked", "content": ""}),
            "is not permitted",
        ),
        (
            "edit",
            json!({"path": "none", "old_text": "a", "new_text": "b"}),
            "does not exist",
        ),
        (
            "edit",
            json!({"path": "binary", "old_text": "a", "new_text": "b"}),
            "not UTF-8",
        ),
        (
            "edit",
            json!({"path": "d", "old_text": "a", "new_text": "b"}),
            "is a directory",
        ),
        (
            "edit",
            json!({"path": "../f", "old_text": "a", "new_text": "b"}),
            "outside the workspace",
        ),
        (
            "edit",
            json!({"path": "f", "old_text": "z", "new_text": "b"}),
            "does not occur",
        ),
        ("list", json!({"path": "none"}), "does not exist"),
        ("list", json!({"path": "f"}), "is not in a directory"),
        ("list", json!({"path": "/"}), "outside the workspace"),
        ("glob", json!({"pattern": "["}), "glob"),
        ("glob", json!({"pattern": "*", "path": "none"}), "does not exist"),
        ("grep", json!({"pattern": "("}), "regular expression"),
        ("bash", json!({"command": " "}), "command is empty"),
        (
            "bash",
            json!({"command": "x", "timeout_seconds": 0}),
            "must be 1 to 1800",
        ),
        (
            "bash_output",
            json!({"process_id": 7}),
            "there is no background process 7",
        ),
        (
            "bash_kill",
            json!({"process_id": 7}),
            "there is no background process 7",
        ),
        ("open_pr", json!({"title": "a\nb", "body": ""}), "one line"),
    ] {
        let before = world.workspace.files();
        let error = answer(world.run(name, arguments.clone()).await);
        assert!(error.contains(expected), "{name} {arguments}: {error}");
        assert_eq!(world.workspace.files(), before, "{name} {arguments}");
    }
}

#[tokio::test]
async fn files_are_read_written_and_edited() {
    let world = World::with_files(&[("f", "a\nb\nb\n")]);
    assert_eq!(
        text(world.run("read", json!({"path": "f"})).await),
        "     1\ta\n     2\tb\n     3\tb\n"
    );
    let error = answer(
        world
            .run("edit", json!({"path": "f", "old_text": "b", "new_text": "c"}))
            .await,
    );
    assert!(error.contains("occurs 2 times, on lines 2, 3"), "{error}");
    let edited = world
        .run(
            "edit",
            json!({"path": "/workspace/f", "old_text": "a", "new_text": "x"}),
        )
        .await;
    assert!(
        matches!(&edited.as_ref().unwrap().items[..], [ItemBody::FileChange { path, .. }] if path == "f")
    );
    assert_eq!(text(edited), "changed f");
    assert_eq!(world.file("f"), "x\nb\nb\n");
    world.workspace.set_executable("f", true);
    assert_eq!(
        text(world.run("write", json!({"path": "f", "content": "n"})).await),
        "replaced f (1 bytes)"
    );
    assert!(world.workspace.is_executable("f"));
    assert_eq!(
        text(world.run("write", json!({"path": "d/e", "content": "n"})).await),
        "created d/e (1 bytes)"
    );
    assert_eq!(text(world.run("list", json!({})).await), "d/\nf* (1 bytes)\n");
    world.workspace.set(
        "p",
        b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR0123456789abc0000\0\0\0\0IEND0000",
    );
    let image = world.run("read", json!({"path": "p"})).await.unwrap();
    assert!(matches!(&image.content[1], Block::Image { media_type, .. } if media_type == "image/png"));
    world.workspace.set("cut", b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR0123");
    match world.run("read", json!({"path": "cut"})).await {
        Err(ToolFailure::Answer(said)) => assert!(said.contains("not whole"), "{said}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn files_are_shared_as_what_they_are() {
    let world = World::with_files(&[("out/report.txt", "All is well.\n"), ("empty", "")]);
    world.workspace.set("shot.png", b"\x89PNG\r\n\x1a\n rest");
    world.workspace.set("page.html", b"<script>alert(1)</script>");
    world.workspace.set("a.pdf", b"%PDF-1.7 \x00\xff");
    world.workspace.set("a.bin", b"a\x00b");
    world.workspace.set("large", vec![b'x'; 20 * 1024 * 1024 + 1]);
    for (path, name, media_type) in [
        ("out/report.txt", "report.txt", "text/plain; charset=utf-8"),
        ("/workspace/shot.png", "shot.png", "image/png"),
        ("page.html", "page.html", "text/plain; charset=utf-8"),
        ("a.pdf", "a.pdf", "application/pdf"),
        ("a.bin", "a.bin", "application/octet-stream"),
    ] {
        let output = world
            .run("share_file", json!({"path": path, "title": " Look "}))
            .await
            .unwrap();
        let [ItemBody::Artifact(artifact)] = &output.items[..] else {
            panic!("{output:?}");
        };
        let (kept, bytes) = world.platform.files().pop().unwrap();
        assert_eq!((artifact.name.as_str(), artifact.title.as_str()), (name, "Look"));
        assert_eq!(
            (artifact.media_type.as_str(), kept.as_str()),
            (media_type, media_type)
        );
        assert_eq!(artifact.size_bytes, bytes.len() as u64);
    }
    for (arguments, part) in [
        (json!({"path": "none"}), "none"),
        (json!({"path": "empty"}), "is empty"),
        (json!({"path": "large"}), "20971520 are taken"),
        (json!({"path": "a.bin", "title": "a\nb"}), "one line"),
        (json!({"path": "../../etc/passwd"}), ""),
    ] {
        match world.run("share_file", arguments.clone()).await {
            Err(ToolFailure::Answer(said)) => assert!(said.contains(part), "{arguments}: {said}"),
            other => panic!("{arguments}: {other:?}"),
        }
    }
    assert_eq!(world.platform.files().len(), 5);
}

#[tokio::test]
async fn files_are_found() {
    let world = World::with_files(&[
        ("src/a.rs", "one\nTwo\n"),
        ("src/deep/b.rs", "two\n"),
        ("c.txt", "two\n"),
    ]);
    for (name, arguments, expected) in [
        ("glob", json!({"pattern": "**/*.rs"}), "src/a.rs\nsrc/deep/b.rs"),
        ("glob", json!({"pattern": "src/*.rs"}), "src/a.rs"),
        ("glob", json!({"pattern": "*.py"}), "[no file matches]"),
        (
            "grep",
            json!({"pattern": "two", "glob": "*.rs"}),
            "src/deep/b.rs:1:two\n",
        ),
        (
            "grep",
            json!({"pattern": "two", "path": "src", "case_insensitive": true}),
            "src/a.rs:2:Two\nsrc/deep/b.rs:1:two\n",
        ),
        ("grep", json!({"pattern": "zzz"}), "[no line matches]"),
    ] {
        assert_eq!(
            text(world.run(name, arguments.clone()).await),
            expected,
            "{name} {arguments}"
        );
    }
}

#[tokio::test]
async fn programs_run_show_output_and_stop() {
    let world = World::new(MemoryWorkspace::new(|_, exec| match exec.argv[2].as_str() {
        "good" => Ran::exited(0, "fine\n"),
        "bad" => Ran::exited(3, "oh"),
        _ => Ran::runs_on("started\n"),
    }));
    assert_eq!(
        text(world.run("bash", json!({"command": "good"})).await),
        "fine\n[exit code 0]"
    );
    assert_eq!(*world.shown.lock().unwrap(), "fine\n");
    let bad = world.run("bash", json!({"command": "bad", "cwd": "d"})).await;
    assert!(bad.as_ref().unwrap().is_error);
    assert_eq!(text(bad), "oh\n[exit code 3]");
    assert_eq!(world.workspace.execs()[1].cwd, "d");
    let started = text(
        world
            .run("bash", json!({"command": "serve", "background": true}))
            .await,
    );
    assert!(started.contains("as process 3"), "{started}");
    let output = json!({"process_id": 3});
    assert_eq!(
        text(world.run("bash_output", output.clone()).await),
        "started\n[still running; next offset 8]"
    );
    assert_eq!(
        text(world.run("bash_kill", output.clone()).await),
        "killed process 3"
    );
    assert_eq!(
        text(world.run("bash_output", output).await),
        "started\n[killed by signal 9; next offset 8]"
    );
    world.cancel.cancel();
    let stopped = text(world.run("bash", json!({"command": "serve"})).await);
    assert!(
        stopped.contains("killed because the turn was stopped"),
        "{stopped}"
    );
}

#[tokio::test]
async fn pull_requests_are_opened_and_updated() {
    let world = World::with_files(&[]);
    let request = json!({"title": "T", "body": "B"});
    assert_eq!(
        text(world.run("open_pr", request.clone()).await),
        "opened pull request #1 (/pulls/1)"
    );
    assert_eq!(
        text(world.run("open_pr", request.clone()).await),
        "updated pull request #1 (/pulls/1)"
    );
    assert_eq!(world.platform.requests().len(), 2);
    let problem = Problem::permanent("forge_refused", "The forge says no.").with_hint("ask it");
    let refusing = World {
        platform: Arc::new(FakePlatform::refusing(problem)),
        ..World::with_files(&[])
    };
    let error = answer(refusing.run("open_pr", request).await);
    assert_eq!(error, "no pull request: The forge says no. (ask it)");
}

#[tokio::test]
async fn a_lost_workspace_ends_every_tool() {
    let world = World::with_files(&[("f", "a\n")]);
    let problem = Problem::transient("sandbox_lost", "gone");
    world.workspace.lose(problem.clone());
    for (name, arguments) in [
        ("read", json!({"path": "f"})),
        ("write", json!({"path": "f", "content": ""})),
        ("edit", json!({"path": "f", "old_text": "a", "new_text": "b"})),
        (
            "apply_patch",
            json!({"patch": "*** Begin Patch\n*** Delete File: f\n*** End Patch"}),
        ),
        ("list", json!({})),
        ("glob", json!({"pattern": "*"})),
        ("grep", json!({"pattern": "a"})),
        ("bash", json!({"command": "ls"})),
        ("bash", json!({"command": "ls", "background": true})),
        ("bash_output", json!({"process_id": 1})),
        ("bash_kill", json!({"process_id": 1})),
    ] {
        let result = world.run(name, arguments).await;
        assert_eq!(result, Err(ToolFailure::Lost(problem.clone())), "{name}");
    }
}
