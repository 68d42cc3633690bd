//! Every merge method, with and without conflicts, races and crashes.

use crate::bench::{Bench, NOW_MS, Tree, gits, new_pull_request, open, person};
use greenroom_protocol::client::pull_request::{
    MergeMethod, MergePullRequest, Mergeability, PullRequestState,
};

const METHODS: [MergeMethod; 3] = [MergeMethod::Merge, MergeMethod::Squash, MergeMethod::Rebase];

fn by(method: MergeMethod) -> MergePullRequest {
    MergePullRequest {
        method,
        expected_head_commit: None,
        delete_head_branch: false,
    }
}

/// All refs, to show that nothing moved.
fn refs(tree: &Tree, bench: &Bench) -> String {
    tree.git(&["--git-dir", bench.bare("r").to_str().unwrap(), "for-each-ref"])
}

/// A diverged branch of two commits by another author, the second one empty of conflict.
fn diverge(tree: &Tree) -> String {
    tree.git(&["switch", "-q", "-c", "work", "main"]);
    tree.commit("a", "a\n", "add a\n\nGreenroom-Session: ses_x");
    tree.write("README", "one\ntwo\n3\n");
    tree.git(&["add", "-A"]);
    tree.git(&[
        "commit",
        "-q",
        "--author=Dee Dev <dee@example.org>",
        "-m",
        "change README",
    ]);
    tree.git(&["push", "-q", "origin", "work"]);
    let head = tree.git(&["rev-parse", "HEAD"]);
    tree.git(&["switch", "-q", "main"]);
    tree.commit("README", "1\ntwo\nthree\n", "meanwhile");
    tree.git(&["push", "-q", "origin", "main"]);
    head
}

#[tokio::test]
async fn every_method_merges_what_diverged() {
    for git in gits() {
        for method in METHODS {
            let bench = Bench::with_git(git.clone()).await;
            let tree = bench.sample().await;
            let head = diverge(&tree);
            let base = bench.forge.branch_commit("r", "main").await.unwrap();
            bench.open_work().await;
            let request = MergePullRequest {
                delete_head_branch: true,
                expected_head_commit: Some(head.clone()),
                ..by(method)
            };
            let cy = person(3, "Cy");
            let merged = bench
                .forge
                .merge_pull_request("r", 1, &cy, &request)
                .await
                .unwrap();
            assert_eq!(merged.state, PullRequestState::Merged);
            assert_eq!((&merged.head_commit, &merged.base_commit), (&head, &base));
            assert!(merged.is_head_branch_deleted);
            let record = merged.merge.clone().unwrap();
            assert_eq!((record.method, &record.by, record.at_ms), (method, &cy, NOW_MS));

            tree.git(&["pull", "-q", "--ff-only", "origin", "main"]);
            assert_eq!(tree.git(&["rev-parse", "main"]), record.commit);
            assert_eq!(
                std::fs::read_to_string(tree.dir.join("README")).unwrap(),
                "1\ntwo\n3\n"
            );
            assert!(tree.dir.join("a").exists());
            let log = tree.git(&[
                "log",
                "--topo-order",
                "--format=%an|%cn|%ad|%s",
                "--date=raw",
                &format!("{base}..main"),
            ]);
            let expected = match method {
                MergeMethod::Merge => {
                    "Cy|Cy|1700000000 +0000|Merge pull request #1 from work\n\
                    Dee Dev|Cy Committer|1600000000 +0200|change README\nAnn Author|Cy Committer|1600000000 +0200|add a"
                }
                MergeMethod::Squash => "Ann|Cy|1700000000 +0000|Merge work (#1)",
                MergeMethod::Rebase => {
                    "Dee Dev|Cy|1600000000 +0200|change README\nAnn Author|Cy|1600000000 +0200|add a"
                }
            };
            assert_eq!(log, expected, "{method:?}");
            if method == MergeMethod::Squash {
                let message = tree.git(&["log", "-1", "--format=%B"]);
                assert_eq!(
                    message,
                    "Merge work (#1)\n\nBecause.\n\nGreenroom-Session: ses_x\nCo-authored-by: Dee Dev <dee@example.org>"
                );
            }
            tree.git(&["fsck", "--strict", "--no-dangling"]);
            bench.forge.maintain("r").await.unwrap();
            assert_eq!(
                bench.forge.pull_request_commits("r", 1).await.unwrap().len(),
                2,
                "still shown"
            );
            assert_eq!(
                bench.forge.pull_request_diff("r", 1).await.unwrap().files.len(),
                2
            );
            let error = bench
                .forge
                .merge_pull_request("r", 1, &cy, &by(method))
                .await
                .unwrap_err();
            assert_eq!(error.problem().code, "not_open");
        }
    }
}

#[tokio::test]
async fn conflicts_name_their_paths_and_change_nothing() {
    for git in gits() {
        let bench = Bench::with_git(git).await;
        let tree = bench.sample().await;
        tree.git(&["switch", "-q", "-c", "work"]);
        tree.write("z file", "mine\n");
        tree.commit("README", "mine\n", "mine");
        tree.git(&["push", "-q", "origin", "work"]);
        tree.git(&["switch", "-q", "main"]);
        tree.write("z file", "theirs\n");
        tree.commit("README", "theirs\n", "theirs");
        tree.git(&["push", "-q", "origin", "main"]);
        let opened = bench.open_work().await;
        let paths = vec!["README".to_owned(), "z file".to_owned()];
        assert_eq!(opened.mergeability, Mergeability::Conflicting { paths });
        let before = refs(&tree, &bench);
        for method in METHODS {
            let error = bench
                .forge
                .merge_pull_request("r", 1, &person(3, "Cy"), &by(method))
                .await
                .unwrap_err();
            let problem = error.problem();
            assert_eq!(problem.code, "merge_conflict");
            assert!(problem.message.contains("README, z file"), "{}", problem.message);
        }
        assert_eq!(refs(&tree, &bench), before);
        assert_eq!(
            bench.forge.pull_request("r", 1).await.unwrap().state,
            PullRequestState::Open
        );
    }
}

#[tokio::test]
async fn a_rebase_drops_merges_and_what_is_there_already() {
    for git in gits() {
        let bench = Bench::with_git(git).await;
        let tree = bench.sample().await;
        tree.git(&["switch", "-q", "-c", "work"]);
        tree.commit("a", "a\n", "picked");
        tree.git(&["switch", "-q", "main"]);
        tree.git(&["cherry-pick", "work"]);
        tree.commit("m", "m\n", "on main");
        tree.git(&["push", "-q", "origin", "main"]);
        tree.git(&["switch", "-q", "work"]);
        tree.git(&["merge", "-q", "-m", "merge main", "main"]);
        tree.commit("b", "b\n", "kept");
        tree.git(&["push", "-q", "origin", "work"]);
        bench.open_work().await;
        let merged = bench
            .forge
            .merge_pull_request("r", 1, &person(3, "Cy"), &by(MergeMethod::Rebase))
            .await
            .unwrap();
        tree.git(&["fetch", "-q", "origin"]);
        let log = tree.git(&[
            "log",
            "--format=%s",
            &format!("{}..{}", merged.base_commit, merged.merge.unwrap().commit),
        ]);
        assert_eq!(log, "kept");
    }
}

#[tokio::test]
async fn what_cannot_be_merged_says_why() {
    let bench = Bench::new().await;
    let tree = bench.sample().await;
    let forge = &bench.forge;
    let head = tree.push_branch("work", "a", "a\n");
    bench.open_work().await;
    let cy = person(3, "Cy");
    let merge = async |request: MergePullRequest| forge.merge_pull_request("r", 1, &cy, &request).await;
    let stale = MergePullRequest {
        expected_head_commit: Some("1".repeat(40)),
        ..by(MergeMethod::Merge)
    };
    assert_eq!(merge(stale).await.unwrap_err().problem().code, "head_moved");
    assert_eq!(
        forge.delete_head_branch("r", 1).await.unwrap_err().problem().code,
        "not_closed"
    );
    assert_eq!(
        forge.delete_branch("r", "work").await.unwrap_err().problem().code,
        "branch_in_use"
    );
    assert_eq!(
        forge.delete_branch("r", "main").await.unwrap_err().problem().code,
        "branch_is_default"
    );

    // Another open pull request builds on this head.
    tree.git(&["switch", "-q", "-c", "next", "work"]);
    tree.commit("n", "n\n", "next");
    tree.git(&["push", "-q", "origin", "next"]);
    let next = greenroom_forge::NewPullRequest {
        base_branch: Some("work".to_owned()),
        ..new_pull_request("next")
    };
    forge.open_pull_request("r", &next).await.unwrap();
    let deleting = MergePullRequest {
        delete_head_branch: true,
        ..by(MergeMethod::Merge)
    };
    assert_eq!(merge(deleting).await.unwrap_err().problem().code, "branch_in_use");

    // Merged by a plain push: nothing is left to merge.
    tree.git(&["push", "-q", "origin", "work:main"]);
    assert_eq!(
        forge.pull_request("r", 1).await.unwrap().mergeability,
        Mergeability::NothingToMerge
    );
    for method in METHODS {
        assert_eq!(
            merge(by(method)).await.unwrap_err().problem().code,
            "nothing_to_merge"
        );
    }
    // The head branch is deleted by a push.
    tree.git(&["push", "-q", "origin", ":work"]);
    let gone = forge.pull_request("r", 1).await.unwrap();
    assert_eq!(
        (gone.mergeability, gone.head_commit),
        (Mergeability::NotApplicable, head)
    );
    assert_eq!(
        merge(by(MergeMethod::Merge)).await.unwrap_err().problem().code,
        "branch_unknown"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_mergers_exactly_one_wins() {
    let bench = Bench::new().await;
    let tree = bench.sample().await;
    tree.push_branch("work", "a", "a\n");
    bench.open_work().await;
    // A second forge on the same folder stands for anything this process does not know of.
    let forges = [bench.forge.clone(), open(bench.dir.path(), &bench.git).await];
    let mergers = (0..6).map(|n| {
        let forge = forges[n % 2].clone();
        tokio::spawn(async move {
            forge
                .merge_pull_request("r", 1, &person(10 + n as u128, "Merger"), &by(METHODS[n % 3]))
                .await
        })
    });
    let mut winners = Vec::new();
    for merger in mergers.collect::<Vec<_>>() {
        match merger.await.unwrap() {
            Ok(merged) => winners.push(merged.merge.unwrap()),
            Err(error) => {
                let code = error.problem().code;
                assert!(
                    ["not_open", "merge_in_progress"].contains(&code.as_str()),
                    "{code}"
                );
            }
        }
    }
    assert_eq!(winners.len(), 1);
    let after = bench.forge.pull_request("r", 1).await.unwrap();
    assert_eq!(after.merge.as_ref(), Some(&winners[0]));
    assert_eq!(
        bench.forge.branch_commit("r", "main").await.unwrap(),
        winners[0].commit
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn merges_of_different_pull_requests_all_arrive() {
    let bench = Bench::new().await;
    let tree = bench.sample().await;
    for n in 0..3 {
        tree.push_branch(&format!("w{n}"), &format!("f{n}"), "x\n");
        bench
            .forge
            .open_pull_request("r", &new_pull_request(&format!("w{n}")))
            .await
            .unwrap();
    }
    let mergers = (0..3).map(|n| {
        let forge = bench.forge.clone();
        tokio::spawn(async move {
            forge
                .merge_pull_request("r", n + 1, &person(9, "Cy"), &by(METHODS[n as usize]))
                .await
        })
    });
    for merger in mergers.collect::<Vec<_>>() {
        merger.await.unwrap().unwrap();
    }
    tree.git(&["pull", "-q", "origin", "main"]);
    assert!((0..3).all(|n| tree.dir.join(format!("f{n}")).exists()));
}

#[tokio::test]
async fn a_merge_cut_in_two_is_completed_or_forgotten_at_the_next_start() {
    let bench = Bench::new().await;
    let tree = bench.sample().await;
    tree.push_branch("work", "a", "a\n");
    bench.open_work().await;
    let bare = bench.bare("r").to_str().unwrap().to_owned();
    let git = |args: &[&str]| tree.git(&[&["--git-dir", bare.as_str()], args].concat());
    let (base, open_record) = (
        git(&["rev-parse", "main"]),
        git(&["rev-parse", "refs/greenroom/pulls/1"]),
    );
    let merged = bench
        .forge
        .merge_pull_request("r", 1, &person(3, "Cy"), &by(MergeMethod::Squash))
        .await
        .unwrap();
    let merged_record = git(&["rev-parse", "refs/greenroom/pulls/1"]);

    // As a crash leaves it that came after the base moved, but before anything else did.
    git(&["update-ref", "refs/greenroom/pulls/1", &open_record]);
    git(&["update-ref", "refs/greenroom/merging/1", &merged_record]);
    let forge = open(bench.dir.path(), &bench.git).await;
    assert_eq!(forge.pull_request("r", 1).await.unwrap(), merged);
    assert_eq!(git(&["for-each-ref", "refs/greenroom/merging"]), "");

    // As a crash leaves it that came before the base moved.
    git(&["update-ref", "refs/heads/main", &base]);
    git(&["update-ref", "refs/greenroom/pulls/1", &open_record]);
    git(&["update-ref", "refs/greenroom/merging/1", &merged_record]);
    let forge = open(bench.dir.path(), &bench.git).await;
    assert_eq!(
        forge.pull_request("r", 1).await.unwrap().state,
        PullRequestState::Open
    );
    assert_eq!(git(&["for-each-ref", "refs/greenroom/merging"]), "");
    forge
        .merge_pull_request("r", 1, &person(3, "Cy"), &by(MergeMethod::Squash))
        .await
        .unwrap();
}
