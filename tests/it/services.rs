//! Services of an environment run beside the agent, in every sandbox of its own; and turns tell what they used.

use crate::script::{add, outputs};
use greenroom_system_tests::api::{of_type, pretty};
use greenroom_system_tests::product::{Product, Who};
use greenroom_system_tests::repo;

greenroom_system_tests::for_both_users! {
    services_are_ready_used_and_readable_in_each_sandbox,
    a_limit_that_a_command_hits_is_named_and_counted,
}

const SCRIPT: &str = r#"
[[script]]
name = "use"
prompt_contains = "use"
[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = "curl -sS http://127.0.0.1:8765/who.txt" }
[[script.step]]
say = "Used."

[[script]]
name = "burn"
prompt_contains = "burn"
[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = "python3 -c 'x = bytearray(200 << 20); print(len(x))'" }
[[script.step]]
say = "Burnt."
"#;

const ENVIRONMENT: &str = r#"
[[services]]
name = "web"
before = "mkdir -p ~/site && hostname > ~/site/who.txt"
command = "cd ~/site && exec python3 -u -m http.server 8765 --bind 127.0.0.1"
ready_port = 8765

[[services]]
name = "broken"
command = "echo cannot start; exit 3"
ready_port = 8766
restart = "never"
"#;

async fn services_are_ready_used_and_readable_in_each_sandbox(who: Who) {
    let mut product = Product::with_script(SCRIPT);
    product.run_as(who);
    let source = repo::with_files(
        product.root(),
        "shop",
        &[(".greenroom/environment.toml", ENVIRONMENT)],
    );
    let api = product.start().await;
    add(&api, "shop", &source).await;
    // Two at once: each has its own service on the same port.
    let (one, two) = tokio::join!(api.start_session("shop", "use"), api.start_session("shop", "use"));
    let mut hosts = Vec::new();
    for session in [&one, &two] {
        let events = api.wait_for_turns(session, 1).await;
        hosts.push(outputs(&events).concat().trim().to_owned());
        let states = |name: &str| -> Vec<String> {
            of_type(&events, "service.state_changed")
                .into_iter()
                .filter(|event| event["name"] == name)
                .map(|event| event["state"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(
            states("web").last().map(String::as_str),
            Some("ready"),
            "{}",
            pretty(&events)
        );
        assert_eq!(
            states("broken").last().map(String::as_str),
            Some("failed"),
            "{}",
            pretty(&events)
        );
        let end = of_type(&events, "turn.completed")[0];
        assert!(
            end["sandbox"]["cpu_ms"].as_u64().is_some_and(|cpu_ms| cpu_ms > 0),
            "{end}"
        );
        assert!(
            end["sandbox"]["disk_bytes"]
                .as_u64()
                .is_some_and(|bytes| bytes > 0),
            "{end}"
        );
    }
    assert!(!hosts[0].is_empty(), "{hosts:?}");

    let listed = api.must_get(&format!("/v1/sessions/{one}/services")).await;
    let names: Vec<_> = listed["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|service| service["name"].clone())
        .collect();
    assert_eq!(names, ["broken", "web"], "{listed}");
    let log = api
        .must_get(&format!("/v1/sessions/{one}/services/web/log"))
        .await;
    assert!(log["output"].as_str().unwrap().contains("GET /who.txt"), "{log}");
    let rest = api
        .must_get(&format!(
            "/v1/sessions/{one}/services/web/log?after={}",
            log["end_offset"]
        ))
        .await;
    assert_eq!(rest["output"], "");
    let (status, unknown) = api.get(&format!("/v1/sessions/{one}/services/nothing/log")).await;
    assert_eq!(
        (status, unknown["code"].as_str()),
        (404, Some("service_unknown")),
        "{unknown}"
    );
    let shown = product.run(&["session", "services", &one]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        text.contains("web") && text.contains("ready") && text.contains("failed"),
        "{text}"
    );
    let shown = product.run(&["session", "services", &one, "--log", "broken"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("cannot start"));
    product.stop();
}

async fn a_limit_that_a_command_hits_is_named_and_counted(who: Who) {
    let mut product = Product::with_script(SCRIPT);
    product.run_as(who);
    let source = repo::with_files(
        product.root(),
        "shop",
        &[(".greenroom/environment.toml", "[resources]\nmemory_mb = 96\n")],
    );
    let api = product.start().await;
    add(&api, "shop", &source).await;
    let session = api.start_session("shop", "burn").await;
    let events = api.wait_for_turns(&session, 1).await;
    let output = outputs(&events).concat();
    if output.contains("209715200") {
        eprintln!("SKIPPED-FEATURE: this machine holds no sandbox to its memory");
        product.stop();
        return;
    }
    assert!(output.contains("memory"), "the limit is named: {output}");
    let metrics = api.text("/metrics").await;
    assert!(
        metrics.contains("greenroom_sandbox_limit_hits_total{limit=\"memory\"} 1"),
        "{metrics}"
    );
    product.stop();
}
