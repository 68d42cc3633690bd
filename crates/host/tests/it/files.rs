//! File calls: whole writes, ranges, confinement to the workspace, search.

use crate::impostor::Peer;
use crate::world::{World, assert_code, eventually, fresh_id, sh, shell};
use greenroom_host::{SandboxFile, StartSandbox, refuse_routes};
use greenroom_protocol::GUEST_GENERATION;
use greenroom_protocol::guest::call::{Call, CallErrorCode, EntryKind, Grep, Reply, Scope, Walk};
use greenroom_protocol::guest::frame::{FrameKind, STREAM_WINDOW_BYTES};

crate::scenarios_on_each_kernel!(
    files_round_trip_at_any_size,
    paths_do_not_leave_the_workspace,
    writes_keep_modes_and_follow_links_inside,
    absolute_links_into_the_workspace_are_followed,
    searches_respect_gitignore,
    odd_files_are_told_apart,
    odd_names_are_listed_and_searched,
    writes_that_do_not_end_leave_nothing,
    files_that_change_while_read_end,
    a_full_disk_leaves_the_old_file,
    given_files_are_there_and_stay_as_given,
);

async fn files_round_trip_at_any_size(world: &World) {
    let sandbox = world.start().await;
    for len in [0_usize, 1, 64 * 1024, 512 * 1024, 512 * 1024 + 1, 5_000_000] {
        let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        sandbox
            .write_file("deep/er/file", Scope::Workspace, bytes.clone())
            .await
            .unwrap();
        let read = sandbox
            .read_file("/workspace/deep/er/file", Scope::Workspace, 0, u64::MAX)
            .await
            .unwrap();
        assert_eq!(read.size_bytes, len as u64);
        assert!(read.bytes == bytes, "{len} bytes differ");
    }
    let part = sandbox
        .read_file("deep/er/file", Scope::Workspace, 10, 3)
        .await
        .unwrap();
    assert_eq!(
        (part.bytes.as_slice(), part.size_bytes),
        ([10, 11, 12].as_slice(), 5_000_000)
    );
    let Reply::Entries {
        entries,
        is_truncated,
    } = sandbox
        .call(Call::ListDirectory {
            path: "deep/er".into(),
            scope: Scope::Workspace,
            max_entries: 10,
        })
        .await
        .unwrap()
    else {
        panic!()
    };
    assert_eq!(
        (entries.len(), entries[0].name.as_str(), is_truncated),
        (1, "file", false),
        "no draft is left"
    );
}

async fn paths_do_not_leave_the_workspace(world: &World) {
    let sandbox = world.start().await;
    sh(
        &sandbox,
        "ln -s /etc out; ln -s /etc/passwd passwd; ln -s ../../etc/passwd up; ln -s .. parent; ln -s /proc/self/root magic; \
         echo inside > real; ln -s real inside; echo private > ~/private",
    )
    .await
    .ok();
    for path in [
        "/etc/passwd",
        "../etc/passwd",
        "out/passwd",
        "passwd",
        "up",
        "parent/etc/passwd",
        "magic/etc/passwd",
        "a/../../etc/passwd",
        "/workspace/../etc/passwd",
        "/home/agent/private",
        "/workspacex",
    ] {
        let read = sandbox.read_file(path, Scope::Workspace, 0, 10).await;
        // A path through something that does not exist may say so instead.
        if path.starts_with("a/") {
            assert!(read.is_err(), "{path}");
        } else {
            assert_code(read, CallErrorCode::OutsideWorkspace);
        }
        let write = sandbox.write_file(path, Scope::Workspace, b"x".to_vec()).await;
        assert!(write.is_err(), "{path} was written");
    }
    let rename = Call::Rename {
        from: "real".into(),
        to: "../stolen".into(),
        scope: Scope::Workspace,
    };
    assert_code(sandbox.call(rename).await, CallErrorCode::OutsideWorkspace);
    for call in [
        Call::Glob {
            path: "parent".into(),
            scope: Scope::Workspace,
            pattern: "*".into(),
            max_entries: 5,
        },
        Call::ListDirectory {
            path: "out".into(),
            scope: Scope::Workspace,
            max_entries: 5,
        },
        Call::Stat {
            path: "../home".into(),
            scope: Scope::Workspace,
        },
        Call::Remove {
            path: "../home/agent/private".into(),
            scope: Scope::Workspace,
        },
    ] {
        assert_code(sandbox.call(call).await, CallErrorCode::OutsideWorkspace);
    }
    assert_eq!(
        sandbox
            .read_file("inside", Scope::Workspace, 0, 99)
            .await
            .unwrap()
            .bytes,
        b"inside\n"
    );
    assert_eq!(
        sandbox
            .read_file("/home/agent/private", Scope::Sandbox, 0, 99)
            .await
            .unwrap()
            .bytes,
        b"private\n"
    );
}

async fn writes_keep_modes_and_follow_links_inside(world: &World) {
    let sandbox = world.start().await;
    sh(
        &sandbox,
        "echo old > script; chmod 750 script; mkdir d; ln -s ../script d/link",
    )
    .await
    .ok();
    sandbox
        .write_file("d/link", Scope::Workspace, b"new\n".to_vec())
        .await
        .unwrap();
    assert_eq!(
        sh(&sandbox, "cat script; stat -c %a script; readlink d/link")
            .await
            .ok(),
        "new\n750\n../script\n"
    );
    sandbox
        .write_program("run", Scope::Workspace, b"#!/bin/sh\necho ran\n".to_vec())
        .await
        .unwrap();
    assert_eq!(sh(&sandbox, "./run").await.ok(), "ran\n");
    let Reply::Stat { entry } = sandbox
        .call(Call::Stat {
            path: "d/link".into(),
            scope: Scope::Workspace,
        })
        .await
        .unwrap()
    else {
        panic!()
    };
    assert_eq!(
        (entry.kind, entry.link_target.as_deref()),
        (EntryKind::Symlink, Some("../script"))
    );
}

async fn absolute_links_into_the_workspace_are_followed(world: &World) {
    let sandbox = world.start().await;
    sh(
        &sandbox,
        "mkdir -p real/deep && echo needle > real/deep/file && ln -s /workspace/real way && ln -s /workspace/way/deep/file last \
         && ln -s /workspace top && ln -s /workspace/../etc/passwd out && ln -s /workspace/way/../../etc around",
    )
    .await
    .ok();
    let scope = Scope::Workspace;
    for path in [
        "last",
        "way/deep/file",
        "/workspace/way/deep/../deep/file",
        "top/way/deep/file",
    ] {
        let read = sandbox.read_file(path, scope, 0, 99).await.unwrap();
        assert_eq!(read.bytes, b"needle\n", "{path}");
    }
    for path in [
        "out",
        "around/passwd",
        "way/../../etc/passwd",
        "top/../etc/passwd",
    ] {
        assert_code(
            sandbox.read_file(path, scope, 0, 99).await,
            CallErrorCode::OutsideWorkspace,
        );
        let written = sandbox.write_file(path, scope, b"x".to_vec()).await;
        assert!(written.is_err(), "{path} was written");
    }
    let path = "way/deep".to_owned();
    let stat = Call::Stat {
        path: "way/deep/file".to_owned(),
        scope,
    };
    let Reply::Stat { entry } = sandbox.call(stat).await.unwrap() else {
        panic!()
    };
    assert_eq!((entry.kind, entry.size_bytes), (EntryKind::File, 7));
    for call in [
        Call::ListDirectory {
            path: path.clone(),
            scope,
            max_entries: 10,
        },
        Call::Walk(Walk {
            path: path.clone(),
            scope,
            respects_ignore_files: true,
            after: None,
            max_entries: 10,
        }),
    ] {
        let Reply::Entries { entries, .. } = sandbox.call(call).await.unwrap() else {
            panic!()
        };
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["file"]);
    }
    // Searches say where things really are.
    let glob = Call::Glob {
        path: path.clone(),
        scope,
        pattern: "*".to_owned(),
        max_entries: 10,
    };
    let Reply::Paths { paths, .. } = sandbox.call(glob).await.unwrap() else {
        panic!()
    };
    assert_eq!(paths, ["real/deep/file"]);
    let grep = Call::Grep(Grep {
        path,
        scope,
        pattern: "needle".to_owned(),
        is_case_insensitive: false,
        glob: None,
        context_lines: 0,
        max_matches: 10,
    });
    let Reply::Matches { lines, .. } = sandbox.call(grep).await.unwrap() else {
        panic!()
    };
    assert_eq!((lines.len(), lines[0].path.as_str()), (1, "real/deep/file"));
    // Writing, making, moving and removing go through the same links.
    for path in ["last", "way/new/file"] {
        sandbox
            .write_file(path, scope, b"written".to_vec())
            .await
            .unwrap();
    }
    let rename = Call::Rename {
        from: "way/new/file".to_owned(),
        to: "top/moved".to_owned(),
        scope,
    };
    sandbox.call(rename).await.unwrap();
    let remove = Call::Remove {
        path: "top/way/new".to_owned(),
        scope,
    };
    sandbox.call(remove).await.unwrap();
    assert_eq!(
        sh(&sandbox, "cat real/deep/file moved; ls real; readlink last")
            .await
            .ok(),
        "writtenwrittendeep\n/workspace/way/deep/file\n"
    );
}

async fn searches_respect_gitignore(world: &World) {
    let sandbox = world.start().await;
    sh(
        &sandbox,
        "mkdir -p src target .git; echo target > .gitignore; echo 'fn main() {}' > src/main.rs; \
         printf 'one\\ntwo needle\\nthree\\n' > src/lib.rs; echo needle > target/out.rs; echo needle > .git/x.rs; \
         printf 'needle\\0binary' > blob",
    )
    .await
    .ok();
    let glob = |pattern: &str, max_entries| Call::Glob {
        path: String::new(),
        scope: Scope::Workspace,
        pattern: pattern.into(),
        max_entries,
    };
    let Reply::Paths { paths, is_truncated } = sandbox.call(glob("**/*.rs", 10)).await.unwrap() else {
        panic!()
    };
    assert_eq!(
        (paths, is_truncated),
        (vec!["src/lib.rs".to_owned(), "src/main.rs".to_owned()], false)
    );
    let Reply::Paths { paths, is_truncated } = sandbox.call(glob("*.rs", 1)).await.unwrap() else {
        panic!()
    };
    assert_eq!((paths.len(), is_truncated), (1, true));
    assert_code(sandbox.call(glob("[", 1)).await, CallErrorCode::Invalid);
    let grep = |pattern: &str| Grep {
        path: String::new(),
        scope: Scope::Workspace,
        pattern: pattern.into(),
        is_case_insensitive: true,
        glob: Some("*.rs".into()),
        context_lines: 1,
        max_matches: 10,
    };
    let Reply::Matches { lines, is_truncated } = sandbox.call(Call::Grep(grep("NEEDLE"))).await.unwrap()
    else {
        panic!()
    };
    let shown: Vec<_> = lines
        .iter()
        .map(|line| (line.path.as_str(), line.line, line.text.as_str(), line.is_match))
        .collect();
    assert_eq!(
        shown,
        [
            ("src/lib.rs", 1, "one", false),
            ("src/lib.rs", 2, "two needle", true),
            ("src/lib.rs", 3, "three", false)
        ]
    );
    assert!(!is_truncated);
    assert_code(sandbox.call(Call::Grep(grep("("))).await, CallErrorCode::Invalid);
}

async fn odd_files_are_told_apart(world: &World) {
    let sandbox = world.start().await;
    sh(
        &sandbox,
        "mkdir dir; mkfifo pipe; ln -s loop loop; echo x > plain; echo x > closed; chmod 000 closed",
    )
    .await
    .ok();
    for (path, expected) in [
        ("missing", CallErrorCode::NotFound),
        ("dir", CallErrorCode::IsDirectory),
        ("pipe", CallErrorCode::Invalid),
        ("plain/below", CallErrorCode::NotDirectory),
        ("nul\0", CallErrorCode::Invalid),
        ("closed", CallErrorCode::PermissionDenied),
    ] {
        assert_code(sandbox.read_file(path, Scope::Workspace, 0, 1).await, expected);
    }
    for device in ["/dev/zero", "/dev/tty", "/dev/null", "/dev/random"] {
        assert!(
            sandbox.read_file(device, Scope::Sandbox, 0, 1).await.is_err(),
            "{device} was read"
        );
    }
    for long in ["n".repeat(256), "d/".repeat(3000), "x".repeat(100_000)] {
        assert!(sandbox.read_file(&long, Scope::Workspace, 0, 1).await.is_err());
        let written = sandbox.write_file(&long, Scope::Workspace, b"x".to_vec()).await;
        assert!(written.is_err());
    }
    for path in ["dir", "loop", "pipe", "plain/below", "", ".", ".."] {
        let result = sandbox.write_file(path, Scope::Workspace, b"x".to_vec()).await;
        assert!(result.is_err(), "{path:?} was written");
    }
    assert_code(
        sandbox.write_file("/usr/x", Scope::Sandbox, b"x".to_vec()).await,
        CallErrorCode::PermissionDenied,
    );
}

async fn given_files_are_there_and_stay_as_given(world: &World) {
    let id = fresh_id();
    let with = |name: &str, text: &str| StartSandbox {
        files: vec![SandboxFile {
            name: name.to_owned(),
            bytes: text.as_bytes().to_vec(),
        }],
        ..world.plain(&id)
    };
    let sandbox = world.host.start(with("one.pem", "first\n")).await.unwrap();
    let shown = "cd /etc/greenroom; cat one.pem; stat -c %a one.pem; ls";
    assert_eq!(sh(&sandbox, shown).await.ok(), "first\n644\ngit-hooks\none.pem\n");
    world.host.stop(&id).await.unwrap();
    let again = world.host.start(with("one.pem", "second\n")).await.unwrap();
    assert_eq!(sh(&again, "cat /etc/greenroom/one.pem").await.ok(), "second\n");
    world.host.stop(&id).await.unwrap();
    let without = world.host.start(world.plain(&id)).await.unwrap();
    assert_eq!(
        sh(&without, "cat /etc/greenroom/one.pem").await.exit.code,
        Some(1)
    );
    world.host.stop(&id).await.unwrap();
    for name in ["", ".", "..", "a/b", "../up"] {
        assert!(world.host.start(with(name, "x")).await.is_err(), "{name:?}");
    }
}

async fn odd_names_are_listed_and_searched(world: &World) {
    let sandbox = world.start().await;
    let make = "mkdir odd && cd odd && echo needle > \"$(printf 'bad\\377')\" && echo needle > \"$(printf 'two\\nlines')\" \
        && echo needle > closed && chmod 000 closed";
    sh(&sandbox, make).await.ok();
    let (path, scope) = ("odd".to_owned(), Scope::Workspace);
    let expected = ["bad\u{fffd}", "closed", "two\nlines"];
    for call in [
        Call::ListDirectory {
            path: path.clone(),
            scope,
            max_entries: 10,
        },
        Call::Walk(Walk {
            path: path.clone(),
            scope,
            respects_ignore_files: false,
            after: None,
            max_entries: 10,
        }),
    ] {
        let Reply::Entries { entries, .. } = sandbox.call(call).await.unwrap() else {
            panic!()
        };
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, expected);
    }
    let glob = Call::Glob {
        path: path.clone(),
        scope,
        pattern: "*".to_owned(),
        max_entries: 10,
    };
    let Reply::Paths { paths, .. } = sandbox.call(glob).await.unwrap() else {
        panic!()
    };
    assert_eq!(paths, expected.map(|name| format!("odd/{name}")));
    let grep = Call::Grep(Grep {
        path,
        scope,
        pattern: "needle".to_owned(),
        is_case_insensitive: false,
        glob: None,
        context_lines: 0,
        max_matches: 10,
    });
    let Reply::Matches { lines, .. } = sandbox.call(grep).await.unwrap() else {
        panic!()
    };
    let paths: Vec<_> = lines.iter().map(|line| line.path.as_str()).collect();
    // What may not be read is passed over.
    assert_eq!(paths, ["odd/bad\u{fffd}", "odd/two\nlines"]);
}

async fn writes_that_do_not_end_leave_nothing(world: &World) {
    let sandbox = world.start().await;
    sh(&sandbox, "mkdir cut && echo old > cut/file").await.ok();
    // The call is given up, or its whole link is, when half of the content has come.
    for kind in [FrameKind::Cancel, FrameKind::Reset, FrameKind::Hello] {
        let mut peer = Peer::connect(world, sandbox.id());
        peer.hello(GUEST_GENERATION);
        let write = Call::WriteFile {
            path: "cut/file".to_owned(),
            scope: Scope::Workspace,
            is_executable: false,
        };
        peer.call(1, &write);
        peer.send(FrameKind::Input, 1, b"half");
        // Credit says that it was written.
        while peer.next().unwrap().0 != FrameKind::Credit {}
        // A second hello is wrong, which ends the link.
        peer.send(kind, 1, &[]);
        let reply = peer.next_reply(1);
        assert_eq!(
            matches!(reply, Some(Reply::Failed(_))),
            kind != FrameKind::Hello,
            "{reply:?}"
        );
        let again = world
            .host
            .find(sandbox.id(), refuse_routes())
            .await
            .unwrap()
            .unwrap();
        eventually("the draft goes", async || {
            let left = sh(&again, "ls -A cut; cat cut/file").await.ok();
            (left == "file\nold\n").then_some(())
        })
        .await;
    }
}

async fn files_that_change_while_read_end(world: &World) {
    const WHOLE: usize = 3_000_000;
    let sandbox = world.start().await;
    for (change, expected) in [
        // What was there when the reading began, however fast it grows.
        ("head -c 1000000 /dev/zero >> file", WHOLE),
        ("truncate -s 1000000 file", 1_000_000),
        ("rm file", WHOLE),
        ("echo new > other; mv other file", WHOLE),
    ] {
        let found = world.host.find(sandbox.id(), refuse_routes()).await.unwrap();
        sh(&found.unwrap(), &format!("rm -f file; truncate -s {WHOLE} file"))
            .await
            .ok();
        let mut peer = Peer::connect(world, sandbox.id());
        peer.hello(GUEST_GENERATION);
        let read = Call::ReadFile {
            path: "file".to_owned(),
            scope: Scope::Workspace,
            offset: 0,
            max_bytes: u64::MAX,
        };
        peer.call(1, &read);
        let Some(Reply::File { size_bytes, .. }) = peer.next_reply(1) else {
            panic!()
        };
        assert_eq!(size_bytes, WHOLE as u64);
        let mut len = 0;
        // The guest stands still when it has sent what it may.
        while len < STREAM_WINDOW_BYTES as usize {
            len += peer.next().unwrap().2.len();
        }
        peer.call(3, &Call::Exec(shell(change)));
        assert!(matches!(peer.next_reply(3), Some(Reply::Exited(_))), "{change}");
        peer.send(FrameKind::Credit, 1, &STREAM_WINDOW_BYTES.to_be_bytes());
        loop {
            match peer.next().unwrap() {
                (FrameKind::Output, 1, bytes) => {
                    len += bytes.len();
                    peer.send(FrameKind::Credit, 1, &(bytes.len() as u32).to_be_bytes());
                }
                (FrameKind::End, 1, _) => break,
                (_, 3, _) => {}
                other => panic!("{change}: {:?}", other.0),
            }
        }
        assert_eq!(len, expected, "{change}");
    }
    // Files that the kernel makes up say that they are empty.
    let again = world.host.find(sandbox.id(), refuse_routes()).await.unwrap();
    let made_up = again
        .unwrap()
        .read_file("/proc/self/status", Scope::Sandbox, 0, 1000)
        .await;
    assert!(!made_up.unwrap().bytes.is_empty());
}

async fn a_full_disk_leaves_the_old_file(world: &World) {
    let sandbox = world.start().await;
    let scope = Scope::Sandbox;
    let make = "mkdir /dev/shm/d && echo old > /dev/shm/d/file && cat /dev/zero > /dev/shm/fill";
    let made = sh(&sandbox, make).await;
    assert!(made.output.contains("No space left"), "{made:?}");
    for path in ["/dev/shm/d/file", "/dev/shm/d/other"] {
        let written = sandbox.write_file(path, scope, vec![b'x'; 1 << 20]).await;
        assert_code(written, CallErrorCode::NoSpace);
    }
    let left = "cd /dev/shm; ls -A d; cat d/file; rm fill";
    assert_eq!(sh(&sandbox, left).await.ok(), "file\nold\n");
    sandbox
        .write_file("/dev/shm/d/file", scope, vec![b'x'; 1 << 20])
        .await
        .unwrap();
    assert_eq!(
        sh(&sandbox, "ls -A /dev/shm/d; stat -c %s /dev/shm/d/file")
            .await
            .ok(),
        "file\n1048576\n"
    );
}
