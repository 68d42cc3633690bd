//! `apply_patch`: every file or none, and what is put back when writing fails.

use super::{World, answer, text};
use greenroom_agent::fake::{MemoryWorkspace, Ran};
use greenroom_protocol::client::event::ItemBody;
use greenroom_protocol::guest::call::CallErrorCode;
use serde_json::json;

const ALL: &str = "*** Begin Patch\n*** Delete File: gone\n*** Add File: new/deep/file\n+hello\n*** Update File: kept\n@@\n-a\n+b\n*** Update File: old\n*** Move to: moved/here\n@@\n-x\n+y\n*** End Patch\n";

fn files() -> World {
    let world = World::with_files(&[("gone", "1\n"), ("kept", "a\r\n"), ("old", "x\nz")]);
    world.workspace.set_executable("old", true);
    world
}

#[tokio::test]
async fn a_patch_changes_all_its_files() {
    let world = files();
    let output = world.run("apply_patch", json!({"patch": ALL})).await;
    let changed: Vec<(String, u64, u64)> = output
        .as_ref()
        .unwrap()
        .items
        .iter()
        .map(|item| match item {
            ItemBody::FileChange {
                path,
                additions,
                deletions,
                ..
            } => (path.clone(), *additions, *deletions),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        changed,
        [
            ("new/deep/file".to_owned(), 1, 0),
            ("kept".to_owned(), 1, 1),
            ("moved/here".to_owned(), 1, 1),
            ("gone".to_owned(), 0, 1),
        ]
    );
    let ItemBody::FileChange { patch, .. } = &output.as_ref().unwrap().items[2] else {
        panic!("a file change")
    };
    assert!(
        patch.starts_with("diff --git a/old b/moved/here\nrename from old\nrename to moved/here\n--- a/old\n+++ b/moved/here\n@@"),
        "{patch}"
    );
    assert_eq!(
        text(output),
        "created new/deep/file\nchanged kept\nmoved old to moved/here and changed it\ndeleted gone\n"
    );
    assert_eq!(world.file("new/deep/file"), "hello\n");
    assert_eq!(world.file("kept"), "b\r\n");
    assert_eq!(world.file("moved/here"), "y\nz");
    assert!(world.workspace.is_executable("moved/here"));
    assert_eq!(world.workspace.files().len(), 3);
}

#[tokio::test]
async fn a_failed_write_puts_everything_back() {
    for failing in ["gone", "new/deep/file", "kept", "old", "moved/here"] {
        let world = files();
        world
            .workspace
            .fail_changes_of(failing, CallErrorCode::NoSpace, "has no space left on disk");
        let before = world.workspace.files();
        let error = answer(world.run("apply_patch", json!({"patch": ALL})).await);
        assert_eq!(
            error,
            format!("{failing}: has no space left on disk\nNothing was changed.")
        );
        assert_eq!(world.workspace.files(), before, "{failing}");
        assert!(world.workspace.is_executable("old"), "{failing}");
        for made in ["new", "new/deep", "moved"] {
            assert!(!world.workspace.has_directory(made), "{failing}: {made}");
        }
    }
}

#[tokio::test]
async fn whatever_does_not_fit_changes_nothing() {
    let world = files();
    world.workspace.set("binary", b"\xff\xfe");
    world.workspace.set("d/x", "");
    let before = world.workspace.files();
    // Behind a change that fits.
    for (section, expected) in [
        ("*** Update File: none\n@@\n-a\n", "none does not exist"),
        ("*** Delete File: none\n", "none does not exist"),
        ("*** Update File: binary\n@@\n-a\n", "binary is not UTF-8"),
        ("*** Update File: d\n@@\n-a\n", "d: is a directory"),
        ("*** Delete File: d\n", "d: is a directory"),
        ("*** Add File: old\n+x\n", "old exists already"),
        ("*** Add File: d\n+x\n", "d exists already"),
        ("*** Update File: old\n*** Move to: gone\n", "gone exists already"),
        ("*** Update File: ../x\n@@\n-a\n", "`..`"),
        (
            "*** Update File: old\n@@\n-q\n",
            "old: hunk 1 (patch line 7) does not match",
        ),
        ("*** Add File: old/x\n+x\n", "old/x: is not in a directory"),
        ("", "kept: the patch changes nothing"),
    ] {
        let change = if section.is_empty() {
            "@@\n a\n"
        } else {
            "@@\n-a\n+b\n"
        };
        let patch = format!("*** Begin Patch\n*** Update File: kept\n{change}{section}*** End Patch");
        let error = answer(world.run("apply_patch", json!({"patch": patch})).await);
        assert!(error.contains(expected), "{section}: {error}");
        assert!(error.ends_with("\nNothing was changed."), "{error}");
        assert_eq!(world.workspace.files(), before, "{section}");
    }
    let patch = "--- a/old\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n";
    let error = answer(world.run("apply_patch", json!({"patch": patch})).await);
    assert!(error.contains("more lines than the patch removes"), "{error}");
    assert_eq!(world.workspace.files(), before);
}

#[tokio::test]
async fn new_programs_are_executable() {
    let patch =
        "diff --git a/run b/run\nnew file mode 100755\n--- /dev/null\n+++ b/run\n@@ -0,0 +1 @@\n+#!/bin/sh\n";
    let world = World::new(MemoryWorkspace::new(|workspace, exec| {
        assert_eq!(exec.argv, ["chmod", "+x", "--", "run"]);
        workspace.set_executable("run", true);
        Ran::exited(0, "")
    }));
    assert_eq!(
        text(world.run("apply_patch", json!({"patch": patch})).await),
        "created run\n"
    );
    assert!(world.workspace.is_executable("run"));
    // Without chmod the file must not stay half made.
    let world = World::with_files(&[]);
    let error = answer(world.run("apply_patch", json!({"patch": patch})).await);
    assert_eq!(error, "run: could not be made executable\nNothing was changed.");
    assert!(world.workspace.files().is_empty());
}
