//! Adding, importing, listing, deleting repositories; branches and diffs of branches.

use crate::bench::{Bench, gits, open};
use greenroom_forge::RepositoryError;
use greenroom_protocol::client::pull_request::FileStatus;
use std::time::{Duration, Instant};

fn leftovers(bench: &Bench) -> usize {
    std::fs::read_dir(bench.dir.path().join("forge/.tmp"))
        .unwrap()
        .count()
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_import_has_all_branches_and_tags_and_no_uncommitted_work() {
    for git in gits() {
        let bench = Bench::with_git(git).await;
        let tree = bench.tree("source");
        tree.git(&["init", "-q", "-b", "trunk"]);
        let first = tree.commit("a", "a\n", "first");
        tree.git(&["tag", "v1"]);
        tree.git(&["branch", "side"]);
        tree.write("a", "not committed");
        tree.write("b", "not added");
        let source = tree.dir.to_str().unwrap();
        let repository = bench.forge.add_repository("r", Some(source)).await.unwrap();
        assert_eq!(repository.default_branch.as_deref(), Some("trunk"));
        assert_eq!(repository.clone_url, "http://127.0.0.1:1/git/r.git");
        assert_eq!(repository.source.as_deref(), Some(source));
        let branches = bench.forge.branches("r").await.unwrap();
        let seen: Vec<_> = branches
            .iter()
            .map(|b| (b.name.as_str(), b.commit.as_str()))
            .collect();
        assert_eq!(seen, [("side", first.as_str()), ("trunk", first.as_str())]);
        assert_eq!(
            tree.git(&["ls-remote", "--tags", bench.bare("r").to_str().unwrap()]),
            format!("{first}\trefs/tags/v1")
        );
        assert_eq!(bench.forge.repositories().await.unwrap(), [repository]);
        let commit = bench.forge.commit_info("r", "trunk").await.unwrap();
        assert_eq!(
            (commit.author_name.as_str(), commit.message.as_str()),
            ("Ann Author", "first")
        );
        assert_eq!(commit.committed_at_ms, 1_600_000_001_000);
        bench.forge.delete_repository("r").await.unwrap();
        assert_eq!(bench.forge.repositories().await.unwrap(), []);
        assert!(matches!(
            bench.forge.branches("r").await,
            Err(RepositoryError::Unknown { .. })
        ));
        assert_eq!(leftovers(&bench), 0);
    }
}

#[tokio::test]
async fn empty_shallow_and_detached_sources_work() {
    let bench = Bench::new().await;
    assert_eq!(
        bench
            .forge
            .add_repository("new", None)
            .await
            .unwrap()
            .default_branch,
        None
    );
    let empty = bench.tree("empty");
    empty.git(&["init", "-q", "-b", "main"]);
    let added = bench
        .forge
        .add_repository("empty", empty.dir.to_str())
        .await
        .unwrap();
    assert_eq!(added.default_branch, None);

    let tree = bench.tree("source");
    tree.git(&["init", "-q", "-b", "work"]);
    tree.commit("a", "1", "one");
    tree.commit("a", "2", "two");
    tree.git(&["switch", "-q", "--detach"]);
    let added = bench
        .forge
        .add_repository("detached", tree.dir.to_str())
        .await
        .unwrap();
    assert_eq!(added.default_branch.as_deref(), Some("work"));

    let shallow = bench.dir.path().join("shallow");
    let url = format!("file://{}", tree.dir.display());
    tree.git(&[
        "clone",
        "-q",
        "--depth=1",
        "-b",
        "work",
        &url,
        shallow.to_str().unwrap(),
    ]);
    let added = bench
        .forge
        .add_repository("shallow", shallow.to_str())
        .await
        .unwrap();
    assert_eq!(added.default_branch.as_deref(), Some("work"));
}

#[tokio::test]
async fn hostile_and_wrong_names_and_sources_leave_nothing() {
    let bench = Bench::new().await;
    bench.sample().await;
    let plain = bench.dir.path().join("plain");
    std::fs::create_dir(&plain).unwrap();
    std::fs::write(plain.join("file"), "x").unwrap();
    let (plain, file) = (plain.to_str().unwrap().to_owned(), plain.join("file"));
    let file = file.to_str().unwrap();
    for (name, source, code) in [
        ("../x", None, "repository_name_invalid"),
        ("a.git", None, "repository_name_invalid"),
        ("", None, "repository_name_invalid"),
        ("ünï", None, "repository_name_invalid"),
        ("a/b", None, "repository_name_invalid"),
        (".tmp", None, "repository_name_invalid"),
        ("r", None, "repository_name_taken"),
        ("x", Some("relative/path"), "source_invalid"),
        ("x", Some("ext::sh -c 'touch /tmp/x'"), "source_invalid"),
        ("x", Some("http://127.0.0.1/x"), "source_invalid"),
        ("x", Some("https://me:secret@127.0.0.1/x"), "source_invalid"),
        ("x", Some("--upload-pack=/bin/sh"), "source_invalid"),
        ("x", Some(plain.as_str()), "source_not_a_repository"),
        ("x", Some(file), "source_not_a_repository"),
        ("x", Some("/no/such/folder"), "source_not_a_repository"),
        ("x", Some("https://127.0.0.1:1/x.git"), "source_not_a_repository"),
    ] {
        let error = bench.forge.add_repository(name, source).await.unwrap_err();
        assert_eq!(error.problem().code, code, "{name:?} {source:?}: {error}");
    }
    for name in ["../r", "r.git", "r/", "", ".", ".."] {
        let error = bench.forge.branches(name).await.unwrap_err();
        assert_eq!(error.problem().code, "repository_unknown", "{name:?}");
    }
    let names: Vec<_> = bench
        .forge
        .repositories()
        .await
        .unwrap()
        .into_iter()
        .map(|r| r.name)
        .collect();
    assert_eq!(names, ["r"]);
    until("no leftovers", || leftovers(&bench) == 0).await;
}

#[tokio::test]
async fn an_import_that_is_given_up_leaves_nothing() {
    let bench = Bench::new().await;
    let tree = bench.tree("source");
    tree.git(&["init", "-q", "-b", "main"]);
    for n in 0..40 {
        tree.write(&format!("f{n}"), format!("{n}").repeat(50_000));
    }
    tree.commit("a", "a", "many");
    let source = tree.dir.to_str().unwrap().to_owned();
    let forge = bench.forge.clone();
    let import = tokio::spawn(async move { forge.add_repository("r", Some(&source)).await });
    until("the import has begun", || {
        leftovers(&bench) == 1 || import.is_finished()
    })
    .await;
    import.abort();
    let ended = import.await;
    if ended.is_err() {
        until("no leftovers", || leftovers(&bench) == 0).await;
        assert_eq!(bench.forge.repositories().await.unwrap(), []);
    }
    // What a killed server leaves is removed at the next start.
    let left = bench.dir.path().join("forge/.tmp/left.git/objects");
    std::fs::create_dir_all(&left).unwrap();
    let forge = open(bench.dir.path(), &bench.git).await;
    assert_eq!(leftovers(&bench), 0);
    forge.repositories().await.unwrap();
}

#[tokio::test]
async fn two_imports_of_one_name_make_one_repository() {
    let bench = Bench::new().await;
    let (one, other) = tokio::join!(
        bench.forge.add_repository("x", None),
        bench.forge.add_repository("x", None)
    );
    let errors: Vec<_> = [one, other].into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].problem().code, "repository_name_taken");
}

#[tokio::test]
async fn a_missing_git_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let clock = greenroom_stdx::clock::Clock::system();
    let config = greenroom_forge::ForgeConfig {
        git_program: "/no/such/git".into(),
        ..greenroom_forge::ForgeConfig::new(dir.path(), "http://x", clock)
    };
    let error = greenroom_forge::Forge::open(config).await.unwrap_err();
    assert_eq!(error.problem().code, "git_missing");
}

#[tokio::test]
async fn diffs_show_what_a_branch_changes() {
    for git in gits() {
        let bench = Bench::with_git(git).await;
        let tree = bench.sample().await;
        tree.commit("gone", "x\n", "to delete");
        tree.commit("old name", "1\n2\n3\n4\n5\n6\n", "to rename");
        tree.git(&["push", "-q", "origin", "main"]);
        tree.git(&["switch", "-q", "-c", "work"]);
        tree.git(&["rm", "-q", "gone"]);
        tree.git(&["mv", "old name", "new\tname"]);
        tree.write("ünï", "hello\n");
        tree.write("bin", [0, 1, 2, 255]);
        tree.commit("README", "one\n2\nthree\nfour", "work");
        tree.git(&["push", "-q", "origin", "work"]);
        tree.git(&["switch", "-q", "main"]);
        tree.commit("later", "on main\n", "later");
        tree.git(&["push", "-q", "origin", "main"]);

        let diff = bench.forge.diff_branches("r", "main", "work").await.unwrap();
        let seen: Vec<_> = diff
            .files
            .iter()
            .map(|f| (f.path.as_str(), f.status, f.additions, f.deletions, f.is_binary))
            .collect();
        assert_eq!(
            seen,
            [
                ("README", FileStatus::Modified, 2, 1, false),
                ("bin", FileStatus::Added, 0, 0, true),
                ("gone", FileStatus::Deleted, 0, 1, false),
                ("new\tname", FileStatus::Renamed, 0, 0, false),
                ("ünï", FileStatus::Added, 1, 0, false),
            ]
        );
        assert_eq!((diff.additions, diff.deletions, diff.is_truncated), (3, 2, false));
        assert_eq!(
            diff.files[0].patch,
            "--- a/README\n+++ b/README\n@@ -1,3 +1,4 @@\n one\n-two\n+2\n three\n+four\n\\ No newline at end of file\n"
        );
        assert_eq!(diff.files[1].patch, "");
        assert_eq!(diff.files[3].old_path.as_deref(), Some("old name"));
        assert_eq!(
            diff.files[4].patch,
            "--- /dev/null\n+++ b/ünï\n@@ -0,0 +1 @@\n+hello\n"
        );
        let error = bench.forge.diff_branches("r", "main", "none").await.unwrap_err();
        assert_eq!(error.problem().code, "branch_unknown");
        for branch in ["../../x", "main^{tree}", "-x", "main:README", ""] {
            let error = bench.forge.diff_branches("r", "main", branch).await.unwrap_err();
            assert_eq!(error.problem().code, "branch_unknown", "{branch:?}");
        }
    }
}

#[tokio::test]
async fn large_diffs_are_cut_and_say_so() {
    let bench = Bench::new().await;
    let tree = bench.sample().await;
    tree.git(&["switch", "-q", "-c", "work"]);
    tree.write("big", "a line of text\n".repeat(100_000));
    for n in 0..310 {
        tree.write(&format!("many/{n:03}"), "x\n");
    }
    tree.commit("long line", "y".repeat(900_000), "large");
    tree.git(&["push", "-q", "origin", "work"]);
    let diff = bench.forge.diff_branches("r", "main", "work").await.unwrap();
    assert!(diff.is_truncated);
    assert_eq!(diff.files.len(), greenroom_forge::MAX_DIFF_FILES);
    assert_eq!(
        (diff.files[0].path.as_str(), diff.files[0].patch.len()),
        ("big", 0)
    );
    assert_eq!(diff.files[0].additions, 100_000);
    assert!(diff.files[1].patch.len() > 900_000, "{}", diff.files[1].path);
    assert!(diff.files[2].patch.ends_with("+x\n"));
    assert_eq!(diff.additions, 100_000 + 1 + 310);
}

#[tokio::test]
async fn one_file_of_a_branch_is_read_up_to_a_bound() {
    use greenroom_forge::FileAtCommit;
    let bench = Bench::new().await;
    let tree = bench.tree("source");
    tree.git(&["init", "-q", "-b", "main"]);
    tree.write("deep/file.toml", "a = 1\n");
    std::os::unix::fs::symlink("/etc/passwd", tree.dir.join("link")).unwrap();
    tree.git(&["add", "-A"]);
    tree.commit("other", "x", "first");
    tree.git(&["switch", "-q", "-c", "side"]);
    tree.commit("deep/file.toml", "a = 2\n", "second");
    bench.forge.add_repository("r", tree.dir.to_str()).await.unwrap();
    let read = async |branch: &str, path: &str| bench.forge.read_file("r", branch, path, 6).await;
    for (branch, path, expected) in [
        (
            "main",
            "deep/file.toml",
            FileAtCommit::Content(b"a = 1\n".to_vec()),
        ),
        (
            "side",
            "deep/file.toml",
            FileAtCommit::Content(b"a = 2\n".to_vec()),
        ),
        ("main", "missing", FileAtCommit::Missing),
        ("main", "deep/*.toml", FileAtCommit::Missing),
        ("main", "deep", FileAtCommit::NotAFile),
        ("main", "link", FileAtCommit::NotAFile),
    ] {
        assert_eq!(read(branch, path).await.unwrap(), expected, "{branch} {path}");
    }
    assert_eq!(
        bench
            .forge
            .read_file("r", "main", "deep/file.toml", 5)
            .await
            .unwrap(),
        FileAtCommit::TooLarge { size_bytes: 6 }
    );
    assert!(matches!(
        read("gone", "deep/file.toml").await,
        Err(RepositoryError::BranchUnknown { .. })
    ));
}

/// What was read is kept as long as the branch stays where it is, however its head is written down.
#[tokio::test]
async fn a_file_that_is_read_again_is_that_of_the_branch_as_it_is_then() {
    use greenroom_forge::FileAtCommit;
    let bench = Bench::new().await;
    let tree = bench.tree("source");
    tree.git(&["init", "-q", "-b", "main"]);
    tree.commit("file", "1", "first");
    bench.forge.add_repository("r", tree.dir.to_str()).await.unwrap();
    let url = bench.bare("r");
    for round in 2..8 {
        let before = (round - 1).to_string().into_bytes();
        for _ in 0..2 {
            let read = bench.forge.read_file("r", "main", "file", 9).await.unwrap();
            assert_eq!(read, FileAtCommit::Content(before.clone()), "round {round}");
        }
        if round % 3 == 0 {
            tree.git(&["--git-dir", url.to_str().unwrap(), "pack-refs", "--all"]);
            let read = bench.forge.read_file("r", "main", "file", 9).await.unwrap();
            assert_eq!(read, FileAtCommit::Content(before.clone()), "packed");
        }
        tree.commit("file", round.to_string(), "next");
        tree.git(&["push", "-q", url.to_str().unwrap(), "main"]);
    }
    // Back to where it was.
    let read = bench.forge.read_file("r", "main", "file", 9).await.unwrap();
    assert_eq!(read, FileAtCommit::Content(b"7".to_vec()));
    tree.git(&["push", "-q", "-f", url.to_str().unwrap(), "HEAD~2:main"]);
    let read = bench.forge.read_file("r", "main", "file", 9).await.unwrap();
    assert_eq!(read, FileAtCommit::Content(b"5".to_vec()));
}
