//! Ignore files that are no files, or far too large: whoever lists or searches a tree gets past them.

use crate::world::{PATIENCE, World, sh};
use greenroom_host::Sandbox;
use greenroom_protocol::guest::call::{Call, Grep, Reply, Scope, Walk};
use tokio::time::timeout;

crate::scenarios!(
    odd_ignore_files_hold_nobody_up,
    huge_ignore_files_are_honoured_in_part,
    linked_worktrees_keep_their_excludes,
);
crate::scenarios_with!(
    runsc_as_root,
    as_root,
    Isolation::Oci("runsc"),
    odd_ignore_files_hold_nobody_up
);

/// Names below a directory by listing, glob and grep, which all leave out the same.
async fn names_below(sandbox: &Sandbox, path: &str) -> Vec<String> {
    let (path, scope) = (path.to_owned(), Scope::Workspace);
    let walk = Call::Walk(Walk {
        path: path.clone(),
        scope,
        respects_ignore_files: true,
        after: None,
        max_entries: 1000,
    });
    let glob = Call::Glob {
        path: path.clone(),
        scope,
        pattern: "**/*.rs".to_owned(),
        max_entries: 1000,
    };
    let grep = Call::Grep(Grep {
        path: path.clone(),
        scope,
        pattern: "needle".to_owned(),
        is_case_insensitive: false,
        glob: None,
        context_lines: 0,
        max_matches: 1000,
    });
    let mut answers = Vec::new();
    for call in [walk, glob, grep] {
        let reply = timeout(PATIENCE, sandbox.call(call))
            .await
            .expect("in time")
            .unwrap();
        let names: Vec<String> = match reply {
            Reply::Entries { entries, .. } => entries
                .into_iter()
                .filter(|entry| entry.name.ends_with(".rs"))
                .map(|entry| format!("{path}/{}", entry.name))
                .collect(),
            Reply::Paths { paths, .. } => paths,
            Reply::Matches { lines, .. } => lines.into_iter().map(|line| line.path).collect(),
            other => panic!("{other:?}"),
        };
        answers.push(names);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    answers.remove(0)
}

async fn odd_ignore_files_hold_nobody_up(world: &World) {
    let sandbox = world.start().await;
    for (number, name) in [
        ".gitignore",
        ".ignore",
        ".rgignore",
        ".git/info/exclude",
        ".git",
        ".git/commondir",
    ]
    .into_iter()
    .enumerate()
    {
        for (kind, make) in [
            ("fifo", "mkfifo".to_owned()),
            ("directory", "mkdir".to_owned()),
            ("link", "ln -s /dev/zero".to_owned()),
            (
                "socket",
                "python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])'".to_owned(),
            ),
        ] {
            let top = format!("{kind}{number}");
            let script = format!(
                "mkdir -p {top}/deep && cd {top} && echo needle > one.rs && echo needle > deep/two.rs && echo out.rs > deep/.gitignore \
                 && echo needle > deep/out.rs && mkdir -p $(dirname {name}) && {make} {name}"
            );
            sh(&sandbox, &script).await.ok();
            let expected = [format!("{top}/deep/two.rs"), format!("{top}/one.rs")];
            assert_eq!(names_below(&sandbox, &top).await, expected, "{kind} as {name}");
            let watched = timeout(PATIENCE, sandbox.watch(&top, Scope::Workspace)).await;
            watched.expect("in time").unwrap();
        }
    }
    // The agent's own configuration of git is not asked either.
    sh(
        &sandbox,
        "mkdir -p ~/.config/git own && mkfifo ~/.gitconfig ~/.config/git/ignore && echo needle > own/a.rs",
    )
    .await
    .ok();
    assert_eq!(names_below(&sandbox, "own").await, ["own/a.rs"]);
}

async fn huge_ignore_files_are_honoured_in_part(world: &World) {
    let sandbox = world.start().await;
    // Patterns without number, one without end, a file without end, and a level of them in every directory.
    sh(
        &sandbox,
        "python3 - <<'EOF'\nimport os\nfor d, text in {'many': ''.join(f'*{i}*x{i}?\\n' for i in range(300000)),\n\
         \x20'long': 'x'*5000000+'\\n', 'stars': '*a'*2000+'\\n', 'braces': '{a,b}'*300+'\\n'}.items():\n\
         \x20os.makedirs(d)\n open(d+'/.gitignore','w').write('left.rs\\n'+text)\n\
         \x20for n in ('kept.rs','left.rs'): open(d+'/'+n,'w').write('needle\\n')\n\
         os.makedirs('sparse')\nopen('sparse/kept.rs','w').write('needle\\n')\nopen('sparse/.gitignore','w').truncate(1<<30)\n\
         d='deep'\nfor i in range(40):\n d+='/d'; os.makedirs(d)\n open(d+'/.gitignore','w').write('left.rs\\n'+''.join(f'*{j}*x{j}?\\n' for j in range(20000)))\n\
         \x20for n in ('kept.rs','left.rs'): open(d+'/'+n,'w').write('needle\\n')\nEOF",
    )
    .await
    .ok();
    for directory in ["many", "long", "stars", "braces", "sparse"] {
        let expected = [format!("{directory}/kept.rs")];
        assert_eq!(names_below(&sandbox, directory).await, expected, "{directory}");
    }
    let names = names_below(&sandbox, "deep").await;
    assert!(
        names.len() == 40 && names.iter().all(|name| name.ends_with("/kept.rs")),
        "{names:?}"
    );
    assert_eq!(sh(&sandbox, "echo alive").await.ok(), "alive\n");
}

async fn linked_worktrees_keep_their_excludes(world: &World) {
    let sandbox = world.start().await;
    sh(
        &sandbox,
        "git init -q main && cd main && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m one \
         && git worktree add -q ../tree && echo left.rs >> .git/info/exclude && cd ../tree \
         && echo needle > kept.rs && echo needle > left.rs",
    )
    .await
    .ok();
    assert_eq!(names_below(&sandbox, "tree").await, ["tree/kept.rs"]);
}
