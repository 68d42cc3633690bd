//! A sandbox that is used up harms one turn, not the session; and turns that follow one another quickly share one sandbox.

use crate::script::start_with_answer;
use greenroom_system_tests::api::of_type;
use greenroom_system_tests::product::Product;

const SCRIPT: &str = r#"
[[script]]
name = "fill"
prompt_contains = "fill"
[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = "for i in $(seq 200); do setsid sleep 100000 & done; echo started" }
[[script.step]]
say = "Processes everywhere."

[[script]]
name = "again"
prompt_contains = "again"
[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = "echo fine" }
[[script.step]]
expect_result_contains = "fine"
say = "It works again."

[[script]]
name = "hello"
prompt_contains = "hello"
[[script.step]]
say = "Hello."
"#;

#[tokio::test]
async fn a_sandbox_full_of_processes_is_replaced() {
    let mut product = Product::with_config(SCRIPT, "\n[sandbox]\nmax_processes = 64\n");
    // Programs that could not start are what this is about.
    product.expect_warning("sandbox");
    product.expect_warning("process");
    let api = start_with_answer(&mut product).await;
    let session = api.start_session("answer", "fill it").await;
    api.wait_for_turns(&session, 1).await;
    assert_eq!(api.prompt(&session, "again", "try again").await.0, 202);
    let events = api.wait_for_turns(&session, 2).await;
    let end = *of_type(&events, "turn.completed").last().unwrap();
    assert_eq!(end["outcome"]["result"], "completed", "{end}");
    product.stop();
}

#[tokio::test]
async fn quick_turns_do_not_fight_over_the_sandbox() {
    let mut product = Product::with_script(SCRIPT);
    let api = start_with_answer(&mut product).await;
    // The first turns end while the sandbox still starts; the last one needs it.
    let session = api.start_session("answer", "hello 0").await;
    for number in 1..5 {
        assert_eq!(
            api.prompt(&session, &format!("{number}"), &format!("hello {number}"))
                .await
                .0,
            202
        );
    }
    assert_eq!(api.prompt(&session, "last", "again").await.0, 202);
    let events = api.wait_for_turns(&session, 6).await;
    for end in of_type(&events, "turn.completed") {
        assert_eq!(end["outcome"]["result"], "completed", "{end}");
    }
    let lost = of_type(&events, "sandbox.state_changed")
        .into_iter()
        .filter(|event| event["state"] == "lost")
        .count();
    assert_eq!(lost, 0, "one sandbox serves all turns");
    product.stop();
}
