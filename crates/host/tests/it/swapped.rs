//! Paths that the host names while the sandbox's own processes change what they mean: links planted beforehand, and a
//! directory that is exchanged with a link out of the workspace all the time.

use crate::world::{World, sh, shell};
use greenroom_host::Sandbox;
use greenroom_protocol::guest::call::{Call, Exec, Grep, Reply, Scope, Walk};

crate::scenarios!(
    planted_links_lead_nowhere,
    an_exchanged_directory_leads_nowhere,
    an_exchanged_absolute_link_leads_nowhere,
);

/// Rounds of all calls against the exchange.
const ROUNDS: usize = 150;

const OUTSIDE: &str = "mkdir -p /tmp/outside && echo OUTSIDE > /tmp/outside/file && echo OUTSIDE > /tmp/outside/only \
    && mkdir -p dir && echo inside > dir/file";

async fn planted_links_lead_nowhere(world: &World) {
    let sandbox = world.start().await;
    let plant = format!(
        "{OUTSIDE} && ln -s /tmp/outside absolute && ln -s ../tmp/outside relative && ln -s /proc/self/root/tmp/outside root \
         && ln -s /proc/self/cwd/../tmp/outside cwd && ln -s /proc/1/root/tmp/outside first && ln -s absolute chain \
         && ln -s /tmp/outside/file dir/link && ln -s .. dir/up"
    );
    sh(&sandbox, &plant).await.ok();
    for directory in [
        "/tmp/outside",
        "../tmp/outside",
        "dir/../../tmp/outside",
        "dir/up/../tmp/outside",
        "/workspace/../tmp/outside",
        "absolute",
        "relative",
        "root",
        "cwd",
        "first",
        "chain",
        "./chain/.",
    ] {
        let reached = reach(&sandbox, directory).await;
        assert_eq!(reached.outside, None, "{directory}");
        assert_eq!(reached.successes, 0, "{directory}");
    }
    let linked = sandbox.read_file("dir/link", Scope::Workspace, 0, 100).await;
    assert!(linked.is_err(), "{linked:?}");
    let written = sandbox
        .write_file("dir/link", Scope::Workspace, b"inside\n".to_vec())
        .await;
    assert!(written.is_err(), "{written:?}");
    untouched(&sandbox).await;
}

async fn an_exchanged_directory_leads_nowhere(world: &World) {
    exchange(world, "ln -s /tmp/outside link", "dir").await;
}

async fn an_exchanged_absolute_link_leads_nowhere(world: &World) {
    let make =
        "mv dir real && ln -s /workspace/real dir && ln -s /tmp/outside link && ln -s /workspace/dir through";
    exchange(world, make, "through").await;
}

/// Reaches for `directory` while `dir` and `link` change places all the time.
async fn exchange(world: &World, make: &str, directory: &str) {
    let sandbox = world.start().await;
    crate::probe::put_probe(&sandbox).await;
    sh(&sandbox, &format!("{OUTSIDE} && {make}")).await.ok();
    let swap = Exec {
        argv: ["/workspace/probe", "swap", "/workspace/dir", "/workspace/link"]
            .map(str::to_owned)
            .to_vec(),
        is_background: true,
        ..shell("")
    };
    sandbox.spawn(swap).await.unwrap();
    let (mut successes, mut refusals) = (0, 0);
    for round in 0..ROUNDS {
        let reached = reach(&sandbox, directory).await;
        assert_eq!(reached.outside, None, "round {round}");
        successes += reached.successes;
        refusals += reached.refusals;
    }
    // Otherwise there was no race.
    assert!(
        successes > 0 && refusals > 0,
        "{successes} successes, {refusals} refusals"
    );
    untouched(&sandbox).await;
}

#[derive(Default)]
struct Reached {
    /// What came from outside, if anything did.
    outside: Option<String>,
    successes: usize,
    refusals: usize,
}

impl Reached {
    /// Notes whether a call worked.
    fn note(&mut self, is_success: bool) {
        if is_success {
            self.successes += 1;
        } else {
            self.refusals += 1;
        }
    }
}

/// Every call that takes a path, on a directory that is or is not the one outside.
async fn reach(sandbox: &Sandbox, directory: &str) -> Reached {
    let (scope, file) = (Scope::Workspace, format!("{directory}/file"));
    let mut reached = Reached::default();
    let read = sandbox.read_file(&file, scope, 0, 100).await;
    if let Ok(read) = &read
        && read.bytes.starts_with(b"OUTSIDE")
    {
        reached.outside = Some("read".to_owned());
    }
    reached.note(read.is_ok());
    let written = sandbox.write_file(&file, scope, b"inside\n".to_vec()).await;
    reached.note(written.is_ok());
    for call in [
        Call::Stat {
            path: format!("{directory}/only"),
            scope,
        },
        Call::ListDirectory {
            path: directory.to_owned(),
            scope,
            max_entries: 100,
        },
        Call::Walk(Walk {
            path: directory.to_owned(),
            scope,
            respects_ignore_files: false,
            after: None,
            max_entries: 100,
        }),
        Call::Glob {
            path: directory.to_owned(),
            scope,
            pattern: "**".to_owned(),
            max_entries: 100,
        },
        Call::Grep(Grep {
            path: directory.to_owned(),
            scope,
            pattern: "OUTSIDE".to_owned(),
            is_case_insensitive: false,
            glob: None,
            context_lines: 0,
            max_matches: 100,
        }),
        Call::Rename {
            from: format!("{directory}/only"),
            to: "stolen".to_owned(),
            scope,
        },
        Call::Rename {
            from: "nothing".to_owned(),
            to: format!("{directory}/planted"),
            scope,
        },
        Call::Remove {
            path: format!("{directory}/only"),
            scope,
        },
    ] {
        let answer = sandbox.call(call).await;
        let is_outside = match &answer {
            Ok(Reply::Stat { .. } | Reply::Done) => true,
            Ok(Reply::Entries { entries, .. }) => entries.iter().any(|entry| entry.name == "only"),
            Ok(Reply::Paths { paths, .. }) => paths.iter().any(|path| path.ends_with("only")),
            Ok(Reply::Matches { lines, .. }) => !lines.is_empty(),
            _ => false,
        };
        if is_outside {
            reached.outside = Some(format!("{answer:?}"));
        }
        // An empty answer says nothing either way.
        if answer.is_err() {
            reached.note(false);
        }
    }
    reached
}

async fn untouched(sandbox: &Sandbox) {
    let outside = sh(sandbox, "ls -A /tmp/outside; cat /tmp/outside/*").await.ok();
    assert_eq!(outside, "file\nonly\nOUTSIDE\nOUTSIDE\n");
}
