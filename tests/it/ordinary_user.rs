//! The same journey without any right that an ordinary user does not have.

use crate::script::{FIX, add, answer_repository};
use greenroom_system_tests::api::of_type;
use greenroom_system_tests::product::Product;
use std::process::Command;

/// Nobody's id on any machine.
const USER: u32 = 54_321;

fn is_root() -> bool {
    // SAFETY: a plain system call without arguments.
    unsafe { libc::geteuid() == 0 }
}

#[tokio::test]
async fn an_ordinary_user_gets_a_pull_request_too() {
    let mut product = Product::with_script(FIX);
    let source = answer_repository(&product);
    // Tests that run as an ordinary user already show the same thing.
    if is_root() {
        product.run_as(USER);
        // Git reads no repository of somebody else's.
        let owner = format!("{USER}:{USER}");
        let status = Command::new("chown")
            .args(["-R", &owner])
            .arg(&source)
            .status()
            .unwrap();
        assert!(status.success(), "give the repository to the user");
    }
    let api = product.start().await;
    add(&api, "answer", &source).await;
    let session = api.start_session("answer", "Please fix the answer.").await;
    let events = api.wait_for_turns(&session, 1).await;
    let end = of_type(&events, "turn.completed")[0];
    assert_eq!(end["outcome"]["result"], "completed", "{end}");
    let pull_request = api.must_get("/v1/repositories/answer/pull-requests/1").await;
    assert_eq!(pull_request["state"], "open");
    product.stop();
}
