//! The same journey without any right that an ordinary user does not have.

use crate::script::{FIX, start_with_answer};
use greenroom_system_tests::api::of_type;
use greenroom_system_tests::product::{Product, Who};

#[tokio::test]
async fn an_ordinary_user_gets_a_pull_request_too() {
    let mut product = Product::with_script(FIX);
    product.run_as(Who::OrdinaryUser);
    let api = start_with_answer(&mut product).await;
    let session = api.start_session("answer", "Please fix the answer.").await;
    let events = api.wait_for_turns(&session, 1).await;
    let end = of_type(&events, "turn.completed")[0];
    assert_eq!(end["outcome"]["result"], "completed", "{end}");
    let pull_request = api.must_get("/v1/repositories/answer/pull-requests/1").await;
    assert_eq!(pull_request["state"], "open");
    product.stop();
}
