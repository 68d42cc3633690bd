//! Real git clients over real HTTP, in both protocol versions.

use crate::bench::{Bench, Server, Tree, client, gits, serve};
use greenroom_forge::{Member, OwnBranchOnly, PushPolicy, RefUpdate};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A policy that remembers what was pushed.
#[derive(Default)]
struct Remembering(Mutex<Vec<String>>);

impl PushPolicy for Remembering {
    fn decide(&self, update: &RefUpdate) -> greenroom_forge::Decision {
        Member.decide(update)
    }

    fn pushed(&self, updates: &[RefUpdate]) {
        let names = updates.iter().map(|update| update.name.clone());
        self.0.lock().unwrap().extend(names);
    }
}

async fn member(bench: &Bench) -> Server {
    serve(&bench.forge, Some(Arc::new(Member))).await
}

async fn clone(bench: &Bench, server: &Server, name: &str, options: &[&str]) -> Tree {
    let (parent, url) = (bench.tree(""), format!("{}/r.git", server.url));
    let args: Vec<String> = ["clone", "-q"]
        .iter()
        .chain(options)
        .map(|o| (*o).to_owned())
        .chain([url, name.to_owned()])
        .collect();
    client(move || parent.git(&args.iter().map(String::as_str).collect::<Vec<_>>())).await;
    bench.tree(name)
}

async fn git(tree: &Tree, args: &[&str]) -> String {
    let (tree, args): (Tree, Vec<String>) = (tree.clone(), args.iter().map(|a| (*a).to_owned()).collect());
    client(move || tree.git(&args.iter().map(String::as_str).collect::<Vec<_>>())).await
}

async fn refused(tree: &Tree, args: &[&str]) -> String {
    let (tree, args): (Tree, Vec<String>) = (tree.clone(), args.iter().map(|a| (*a).to_owned()).collect());
    client(move || tree.refused(&args.iter().map(String::as_str).collect::<Vec<_>>())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn clone_fetch_and_push_with_every_git_and_protocol() {
    for git_program in gits() {
        for version in ["protocol.version=0", "protocol.version=1", "protocol.version=2"] {
            let bench = Bench::with_git(git_program.clone()).await;
            let source = bench.sample().await;
            let policy = Arc::new(Remembering::default());
            let server = serve(&bench.forge, Some(policy.clone())).await;
            let tree = clone(&bench, &server, "one", &[]).await;
            let other = clone(&bench, &server, "two", &["--depth=1"]).await;
            for n in 0..8 {
                tree.commit("f", format!("{n}"), &format!("commit {n}"));
            }
            tree.git(&["tag", "-a", "-m", "a tag", "v1"]);
            git(&tree, &["-c", version, "push", "-q", "origin", "main", "v1"]).await;
            assert_eq!(
                bench.forge.branch_commit("r", "main").await.unwrap(),
                tree.git(&["rev-parse", "main"])
            );
            assert_eq!(*policy.0.lock().unwrap(), ["refs/heads/main", "refs/tags/v1"]);
            git(&other, &["-c", version, "pull", "-q", "--ff-only"]).await;
            git(&other, &["-c", version, "fetch", "-q", "--unshallow"]).await;
            assert_eq!(other.git(&["rev-list", "--count", "HEAD"]), "9");
            git(&other, &["-c", version, "fetch", "-q", "origin"]).await;
            // A request long enough that git packs it with gzip.
            for n in 0..60 {
                source.commit("s", format!("{n}"), "local only");
            }
            let url = format!("{}/r.git", server.url);
            git(&source, &["-c", version, "fetch", "-q", &url, "main"]).await;
            assert_eq!(
                source.git(&["rev-parse", "FETCH_HEAD"]),
                tree.git(&["rev-parse", "main"])
            );
            assert!(
                server.gzipped.load(Ordering::Relaxed) > 0,
                "no request was packed"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_pushes_come_in_chunks() {
    for git_program in gits() {
        let bench = Bench::with_git(git_program).await;
        bench.sample().await;
        let server = member(&bench).await;
        let tree = clone(&bench, &server, "one", &[]).await;
        // Bytes that do not compress, so that the pack exceeds http.postBuffer (1 MiB).
        let mut seed = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 56) as u8
        })
        .take(5 * 1024 * 1024)
        .collect();
        let large = tree.commit("large", &noise, "large");
        // A refused large push ends with the reason, not with a broken connection.
        let strict = OwnBranchOnly {
            branch: "own".to_owned(),
        };
        let sandbox = serve(&bench.forge, Some(Arc::new(strict))).await;
        let stderr = refused(&tree, &["push", &format!("{}/r.git", sandbox.url), "main"]).await;
        assert!(stderr.contains("this session may push only to own"), "{stderr}");
        git(&tree, &["push", "-q", "origin", "main"]).await;
        assert_eq!(bench.forge.branch_commit("r", "main").await.unwrap(), large);
        let again = clone(&bench, &server, "two", &[]).await;
        assert_eq!(std::fs::read(again.dir.join("large")).unwrap(), noise);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_pushes_its_own_branch_and_nothing_else() {
    for git_program in gits() {
        let bench = Bench::with_git(git_program).await;
        bench.sample().await;
        let policy = OwnBranchOnly {
            branch: "greenroom/x-1".to_owned(),
        };
        let server = serve(&bench.forge, Some(Arc::new(policy))).await;
        let tree = clone(&bench, &server, "one", &[]).await;
        let main = tree.git(&["rev-parse", "main"]);
        tree.commit("a", "a\n", "work");
        let own = "HEAD:refs/heads/greenroom/x-1";
        let stderr = refused(&tree, &["push", "origin", own, "HEAD:main", "HEAD:refs/tags/t"]).await;
        assert!(
            stderr.contains("main (this session may push only to greenroom/x-1)"),
            "{stderr}"
        );
        assert!(
            stderr.contains("greenroom/x-1 (not done because another ref was refused)"),
            "{stderr}"
        );
        assert!(stderr.contains("[remote rejected] HEAD -> t"), "{stderr}");
        assert_eq!(bench.forge.branches("r").await.unwrap().len(), 1, "none is done");
        git(&tree, &["push", "-q", "origin", own]).await;
        tree.git(&["commit", "-q", "--amend", "-m", "again"]);
        git(&tree, &["push", "-q", "--force", "origin", own]).await;
        for wrong in [
            ":greenroom/x-1",
            "HEAD:main",
            ":main",
            "HEAD:refs/pull/1/head",
            "HEAD:refs/greenroom/pulls/1",
        ] {
            refused(&tree, &["push", "--force", "origin", wrong]).await;
        }
        assert_eq!(bench.forge.branch_commit("r", "main").await.unwrap(), main);
        assert_eq!(
            bench.forge.branch_commit("r", "greenroom/x-1").await.unwrap(),
            tree.git(&["rev-parse", "HEAD"])
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_push_anything_but_the_forge_s_own_refs() {
    let bench = Bench::new().await;
    bench.sample().await.push_branch("work", "a", "a\n");
    bench.open_work().await;
    let server = member(&bench).await;
    let tree = clone(&bench, &server, "one", &[]).await;
    let listed = git(&tree, &["ls-remote", "origin"]).await;
    assert!(
        listed.contains("refs/pull/1/head") && !listed.contains("refs/greenroom"),
        "{listed}"
    );
    for wrong in [
        "HEAD:refs/pull/1/head",
        "HEAD:refs/greenroom/pulls/1",
        ":refs/greenroom/pulls/1",
        "HEAD:refs/notes/x",
        ":main",
    ] {
        refused(&tree, &["push", "--force", "origin", wrong]).await;
    }
    git(
        &tree,
        &[
            "push",
            "-q",
            "origin",
            "HEAD:refs/heads/ünï/%2e%2e;x'$(id)",
            ":work",
        ],
    )
    .await;
    assert!(bench.forge.branch_commit("r", "ünï/%2e%2e;x'$(id)").await.is_ok());
    assert!(
        bench
            .forge
            .pull_request("r", 1)
            .await
            .unwrap()
            .is_head_branch_deleted
    );
    // A pushed head shows at once.
    tree.commit("b", "b\n", "b");
    git(&tree, &["push", "-q", "origin", "HEAD:work"]).await;
    let listed = git(&tree, &["ls-remote", "origin", "refs/pull/1/head"]).await;
    assert!(listed.starts_with(&tree.git(&["rev-parse", "HEAD"])), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_push_to_an_empty_repository_settles_its_default_branch() {
    let bench = Bench::new().await;
    bench.forge.add_repository("r", None).await.unwrap();
    let server = member(&bench).await;
    let tree = clone(&bench, &server, "one", &[]).await;
    tree.git(&["switch", "-q", "-c", "trunk"]);
    tree.commit("a", "a\n", "a");
    git(&tree, &["push", "-q", "origin", "trunk"]).await;
    assert_eq!(
        bench.forge.default_branch("r").await.unwrap().as_deref(),
        Some("trunk")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_at_once_to_one_branch_let_one_win_and_to_many_let_all() {
    let bench = Bench::new().await;
    bench.sample().await;
    let server = member(&bench).await;
    let mut trees = Vec::new();
    for n in 0..4 {
        let tree = clone(&bench, &server, &format!("t{n}"), &[]).await;
        tree.commit("a", format!("{n}"), "mine");
        trees.push(tree);
    }
    let pushes: Vec<_> = trees
        .iter()
        .cloned()
        .enumerate()
        .map(|(n, tree)| {
            tokio::task::spawn_blocking(move || {
                tree.git(&["push", "-q", "origin", &format!("HEAD:own-{n}")]);
                tree.try_git(&["push", "-q", "origin", "HEAD:main"])
                    .status
                    .success()
            })
        })
        .collect();
    let mut winners = 0;
    for push in pushes {
        winners += usize::from(push.await.unwrap());
    }
    assert_eq!(winners, 1);
    assert_eq!(bench.forge.branches("r").await.unwrap().len(), 5);
}

async fn raw(server: &Server, request: &str) -> String {
    let address = server.url.trim_start_matches("http://");
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_but_the_three_routes_is_refused() {
    let bench = Bench::new().await;
    bench.sample().await;
    let server = member(&bench).await;
    let reader = serve(&bench.forge, None).await;
    let get = |path: &str| format!("GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let post = |path: &str, kind: &str, body: &str| {
        let length = body.len();
        format!(
            "POST /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-git-{kind}-request\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    for (server, request, status) in [
        (&server, get("r.git/info/refs"), "403"),
        (&server, get("r.git/info/refs?service=git-upload-archive"), "403"),
        (&server, get("r.git/HEAD"), "403"),
        (&server, get("r.git/objects/info/packs"), "403"),
        (&server, get("r.git/../r.git/config"), "403"),
        (&server, get("none.git/info/refs?service=git-upload-pack"), "404"),
        (&server, get("r.git/git-upload-pack"), "405"),
        (&server, get("r.git/info/refs?service=git-receive-pack"), "200"),
        (&reader, get("r.git/info/refs?service=git-receive-pack"), "403"),
        (
            &reader,
            post("r.git/git-receive-pack", "receive-pack", "0000"),
            "403",
        ),
        (
            &server,
            post("r.git/git-receive-pack", "receive-pack", "0000"),
            "200",
        ),
        (
            &server,
            post("r.git/git-upload-pack", "upload-pack", "0000"),
            "200",
        ),
        (
            &server,
            post("r.git/git-receive-pack", "upload-pack", "0000"),
            "415",
        ),
        (
            &server,
            post("r.git/git-receive-pack", "receive-pack", "PACKPACK"),
            "400",
        ),
        (
            &server,
            post("r.git/git-receive-pack", "receive-pack", "00"),
            "400",
        ),
        (
            &server,
            post("r.git/git-receive-pack", "receive-pack", "0009bad\n\n0000"),
            "400",
        ),
        (
            &server,
            post("r.git/info/refs?service=git-upload-pack", "upload-pack", ""),
            "405",
        ),
    ] {
        let answer = raw(server, &request).await;
        assert_eq!(answer.get(9..12), Some(status), "{request}\n{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_packs_are_refused_and_leave_the_refs() {
    let bench = Bench::new().await;
    bench.sample().await;
    let server = member(&bench).await;
    let zero = "0".repeat(40);
    let line = format!("{zero} {} refs/heads/new\0 report-status", "1".repeat(40));
    let body = format!("{:04x}{line}0000PACKnonsense", line.len() + 4);
    let answer = raw(&server, &format!("POST /r.git/git-receive-pack HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-git-receive-pack-request\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
    assert!(answer.contains("ng refs/heads/new"), "{answer}");
    assert_eq!(bench.forge.branches("r").await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_the_middle_of_a_push_leaves_nothing() {
    let bench = Bench::new().await;
    bench.sample().await;
    let server = member(&bench).await;
    let address = server.url.trim_start_matches("http://").to_owned();
    let line = format!(
        "{} {} refs/heads/new\0 report-status",
        "0".repeat(40),
        "1".repeat(40)
    );
    let list = format!("{:04x}{line}0000PACK\0\0\0\u{2}\0\0\u{3}\0", line.len() + 4);
    let head = "POST /r.git/git-receive-pack HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-git-receive-pack-request\r\nContent-Length: 1000000\r\n\r\n";
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket
        .write_all(format!("{head}{list}").as_bytes())
        .await
        .unwrap();
    let objects = bench.bare("r").join("objects");
    let quarantines = || {
        let entries = std::fs::read_dir(&objects).unwrap();
        entries
            .filter(|e| {
                e.as_ref()
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .contains("incoming")
            })
            .count()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while quarantines() == 0 {
        assert!(std::time::Instant::now() < deadline, "the push never reached git");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    drop(socket);
    while quarantines() > 0 {
        assert!(std::time::Instant::now() < deadline, "the quarantine stays");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(bench.forge.branches("r").await.unwrap().len(), 1);
}

/// A policy that keeps history.
struct NoForce;

impl PushPolicy for NoForce {
    fn decide(&self, update: &RefUpdate) -> greenroom_forge::Decision {
        Member.decide(update)
    }

    fn allows_force(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_can_forbid_force_and_then_nothing_of_the_push_is_done() {
    for git_program in gits() {
        let bench = Bench::with_git(git_program).await;
        bench.sample().await;
        let server = serve(&bench.forge, Some(Arc::new(NoForce))).await;
        let tree = clone(&bench, &server, "one", &[]).await;
        let first = tree.git(&["rev-parse", "HEAD"]);
        tree.git(&["commit", "-q", "--amend", "-m", "rewritten"]);
        let stderr = refused(&tree, &["push", "--force", "origin", "HEAD:main", "HEAD:new"]).await;
        assert!(stderr.contains("non-fast-forward"), "{stderr}");
        assert_eq!(bench.forge.branch_commit("r", "main").await.unwrap(), first);
        assert_eq!(bench.forge.branches("r").await.unwrap().len(), 1, "none is done");
    }
}
