//! Opening, reading, commenting, reviewing, closing pull requests, alone and many at once.

use crate::bench::{Bench, NOW_MS, new_pull_request, person};
use greenroom_forge::{NewPullRequest, PullRequestFilter};
use greenroom_protocol::client::pull_request::{
    AddComment, AddReview, LinePosition, Mergeability, PullRequestState, ReviewVerdict,
};

fn comment(body: &str, position: Option<(&str, u64)>) -> AddComment {
    AddComment {
        body: body.to_owned(),
        position: position.map(|(path, line)| LinePosition {
            path: path.to_owned(),
            line,
        }),
    }
}

fn review(verdict: ReviewVerdict, body: &str) -> AddReview {
    AddReview {
        verdict,
        body: body.to_owned(),
    }
}

#[tokio::test]
async fn a_pull_request_follows_its_head_until_it_is_closed() {
    let bench = Bench::new().await;
    let tree = bench.sample().await;
    let forge = &bench.forge;
    let first = tree.push_branch("work", "a", "a\n");
    let opened = bench.open_work().await;
    assert_eq!((opened.number, opened.state), (1, PullRequestState::Open));
    assert_eq!(
        (opened.base_branch.as_str(), &opened.head_commit),
        ("main", &first)
    );
    assert_eq!(opened.mergeability, Mergeability::Clean);
    assert_eq!(opened.created_at_ms, NOW_MS);

    tree.git(&["switch", "-q", "work"]);
    let second = tree.commit("a", "b\n", "more");
    tree.git(&["push", "-q", "origin", "work"]);
    let now = forge.pull_request("r", 1).await.unwrap();
    assert_eq!(now.head_commit, second);
    let commits = forge.pull_request_commits("r", 1).await.unwrap();
    let messages: Vec<_> = commits.iter().map(|c| c.message.as_str()).collect();
    assert_eq!(messages, ["change a", "more"]);
    let diff = forge.pull_request_diff("r", 1).await.unwrap();
    assert_eq!(diff.files[0].patch, "--- /dev/null\n+++ b/a\n@@ -0,0 +1 @@\n+b\n");

    let closed = forge.close_pull_request("r", 1, &person(3, "Cy")).await.unwrap();
    assert_eq!(
        (closed.state, &closed.mergeability),
        (PullRequestState::Closed, &Mergeability::NotApplicable)
    );
    tree.commit("a", "c\n", "after closing");
    tree.git(&["push", "-q", "origin", "work"]);
    assert_eq!(forge.pull_request("r", 1).await.unwrap().head_commit, second);
    let error = forge
        .close_pull_request("r", 1, &person(3, "Cy"))
        .await
        .unwrap_err();
    assert_eq!(error.problem().code, "not_open");
    let error = forge.delete_head_branch("r", 1).await.unwrap_err();
    assert_eq!(
        error.problem().code,
        "head_moved",
        "commits nobody has seen are kept"
    );

    let reopened = forge.reopen_pull_request("r", 1, &person(3, "Cy")).await.unwrap();
    assert_ne!(reopened.head_commit, second);
    forge.close_pull_request("r", 1, &person(3, "Cy")).await.unwrap();
    assert!(
        forge
            .delete_head_branch("r", 1)
            .await
            .unwrap()
            .is_head_branch_deleted
    );
    assert!(
        forge
            .delete_head_branch("r", 1)
            .await
            .unwrap()
            .is_head_branch_deleted,
        "again"
    );
    let error = forge
        .reopen_pull_request("r", 1, &person(3, "Cy"))
        .await
        .unwrap_err();
    assert_eq!(error.problem().code, "branch_unknown");
    assert_eq!(
        forge.pull_request_commits("r", 1).await.unwrap().len(),
        3,
        "the commits stay"
    );
}

#[tokio::test]
async fn what_cannot_be_opened_says_why() {
    let bench = Bench::new().await;
    let tree = bench.sample().await;
    let forge = &bench.forge;
    tree.push_branch("work", "a", "a\n");
    tree.git(&["push", "-q", "origin", "main:same"]);
    tree.git(&["switch", "-q", "--orphan", "other"]);
    tree.commit("z", "z", "unrelated");
    tree.git(&["push", "-q", "origin", "other"]);
    bench.open_work().await;
    let titled = |title: &str| NewPullRequest {
        title: title.to_owned(),
        ..new_pull_request("work")
    };
    for (new, code) in [
        (new_pull_request("work"), "pull_request_exists"),
        (new_pull_request("none"), "branch_unknown"),
        (new_pull_request("../x"), "branch_unknown"),
        (new_pull_request("same"), "nothing_to_merge"),
        (new_pull_request("main"), "nothing_to_merge"),
        (new_pull_request("other"), "unrelated_histories"),
        (titled(" "), "pull_request_invalid"),
        (titled("a\nb"), "pull_request_invalid"),
        (titled(&"x".repeat(257)), "pull_request_invalid"),
        (
            NewPullRequest {
                body: "x".repeat(65 * 1024),
                ..titled("t")
            },
            "pull_request_invalid",
        ),
        (
            NewPullRequest {
                base_branch: Some("none".to_owned()),
                ..titled("t")
            },
            "branch_unknown",
        ),
    ] {
        let error = forge.open_pull_request("r", &new).await.unwrap_err();
        assert_eq!(error.problem().code, code, "{new:?}");
    }
    let error = forge
        .open_pull_request("none", &new_pull_request("work"))
        .await
        .unwrap_err();
    assert_eq!(error.problem().code, "repository_unknown");
    let error = forge.pull_request("r", 2).await.unwrap_err();
    assert_eq!(error.problem().code, "pull_request_unknown");
}

#[tokio::test]
async fn an_idempotency_key_finds_the_one_that_exists() {
    let bench = Bench::new().await;
    let tree = bench.sample().await;
    tree.push_branch("work", "a", "a\n");
    tree.push_branch("else", "b", "b\n");
    let keyed = |head| NewPullRequest {
        idempotency_key: Some("key-1".to_owned()),
        ..new_pull_request(head)
    };
    let first = bench.forge.open_pull_request("r", &keyed("work")).await.unwrap();
    let again = bench.forge.open_pull_request("r", &keyed("work")).await.unwrap();
    assert_eq!(first, again);
    let error = bench
        .forge
        .open_pull_request("r", &keyed("else"))
        .await
        .unwrap_err();
    assert_eq!(error.problem().code, "idempotency_conflict");
    let all = bench
        .forge
        .all_pull_requests(PullRequestFilter::All)
        .await
        .unwrap();
    assert_eq!(all, [first]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_lose_nothing() {
    let bench = Bench::new().await;
    let tree = bench.sample().await;
    for n in 0..4 {
        tree.push_branch(&format!("work-{n}"), &format!("f{n}"), "x\n");
    }
    // Each branch twice: one of the two is told about the other.
    let opens = (0..8).map(|n| {
        let forge = bench.forge.clone();
        tokio::spawn(async move {
            forge
                .open_pull_request("r", &new_pull_request(&format!("work-{}", n % 4)))
                .await
        })
    });
    let mut numbers = Vec::new();
    for open in opens.collect::<Vec<_>>() {
        match open.await.unwrap() {
            Ok(opened) => numbers.push(opened.number),
            Err(error) => assert_eq!(error.problem().code, "pull_request_exists"),
        }
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4]);

    let comments = (0..12).map(|n| {
        let forge = bench.forge.clone();
        tokio::spawn(async move {
            let author = person(n, "Someone");
            match n % 3 {
                0 => {
                    forge
                        .add_review("r", 1, &author, &review(ReviewVerdict::RequestChanges, "no"))
                        .await
                }
                _ => {
                    forge
                        .add_comment("r", 1, &author, &comment(&format!("remark {n}"), None))
                        .await
                }
            }
        })
    });
    for comment in comments.collect::<Vec<_>>() {
        comment.await.unwrap().unwrap();
    }
    let after = bench.forge.pull_request("r", 1).await.unwrap();
    let ids: Vec<_> = after.comments.iter().map(|c| c.id).collect();
    assert_eq!(ids, (1..=8).collect::<Vec<_>>());
    assert_eq!(after.reviews.len(), 4);
    let open = bench
        .forge
        .pull_requests("r", PullRequestFilter::In(PullRequestState::Open))
        .await
        .unwrap();
    let listed: Vec<_> = open.iter().map(|one| one.number).collect();
    assert_eq!(listed, [4, 3, 2, 1], "newest first");
    // The history of the ref is the audit trail: one opening, eight comments, four reviews.
    let log = tree.git(&[
        "--git-dir",
        bench.bare("r").to_str().unwrap(),
        "log",
        "--first-parent",
        "--format=%s",
        "refs/greenroom/pulls/1",
    ]);
    assert_eq!(
        log.lines().filter(|line| line.contains("pull request 1")).count(),
        13,
        "{log}"
    );
}

#[tokio::test]
async fn comments_and_reviews_are_checked() {
    let bench = Bench::new().await;
    let tree = bench.sample().await;
    let forge = &bench.forge;
    let head = tree.push_branch("work", "dir/a", "1\n2");
    bench.open_work().await;
    let (ann, bob, cy) = (person(1, "Ann"), person(2, "Bob"), person(3, "Cy"));
    forge
        .add_comment("r", 1, &ann, &comment("here", Some(("dir/a", 2))))
        .await
        .unwrap();
    for wrong in [
        comment(" ", None),
        comment("x", Some(("dir/a", 3))),
        comment("x", Some(("dir/a", 0))),
        comment("x", Some(("none", 1))),
        comment("x", Some(("../../etc/passwd", 1))),
        comment("x", Some(("dir/a\nHEAD", 1))),
    ] {
        let error = forge.add_comment("r", 1, &ann, &wrong).await.unwrap_err();
        assert_eq!(error.problem().code, "pull_request_invalid", "{wrong:?}");
    }
    for (who, verdict, body, code) in [
        (&ann, ReviewVerdict::Approve, "", Some("own_change")),
        (&bob, ReviewVerdict::Approve, "", Some("own_change")),
        (&bob, ReviewVerdict::RequestChanges, "not yet", None),
        (&cy, ReviewVerdict::Comment, "", Some("pull_request_invalid")),
        (&cy, ReviewVerdict::Approve, "", None),
    ] {
        let result = forge.add_review("r", 1, who, &review(verdict, body)).await;
        assert_eq!(
            result.as_ref().err().map(|e| e.problem().code).as_deref(),
            code,
            "{who:?} {verdict:?}"
        );
        if let Ok(after) = result {
            assert_eq!(after.reviews.last().unwrap().commit, head);
        }
    }
    forge.add_prompter("r", 1, &cy).await.unwrap();
    let error = forge
        .add_review("r", 1, &cy, &review(ReviewVerdict::Approve, ""))
        .await
        .unwrap_err();
    assert_eq!(
        error.problem().code,
        "own_change",
        "whoever prompts later may not approve either"
    );
    let edited = forge
        .update_pull_request("r", 1, &ann, (Some("New title"), None))
        .await
        .unwrap();
    assert_eq!(
        (edited.title.as_str(), edited.body.as_str()),
        ("New title", "Because.")
    );
}
