//! Names that lead where they should not, at once, in part, or the second time.

use crate::origin::Origin;
use crate::world::{Proxy, assert_status, loopback, policy};
use greenroom_egress::{AddressKind, EgressLimits, Reason, fake::FakeResolver};

async fn resolving(answers: &[&[&str]], allowed: &str, exceptions: bool) -> Proxy {
    let resolver = answers
        .iter()
        .fold(FakeResolver::default(), |resolver, addresses| {
            resolver.answer("name.test", addresses)
        });
    let mut policy = policy(&[allowed.to_owned()]);
    if exceptions {
        policy = policy.allow_addresses(loopback());
    }
    Proxy::start(policy, Vec::new(), resolver, EgressLimits::default(), Vec::new()).await
}

#[tokio::test]
async fn an_allowed_name_with_a_private_address_is_refused() {
    for (addresses, code) in [
        (&["127.0.0.1"][..], "loopback_address"),
        (&["10.0.0.1"], "private_address"),
        (&["169.254.169.254"], "metadata_address"),
        (&["0.0.0.0"], "unspecified_address"),
        (&["::1"], "loopback_address"),
        (&["::ffff:192.168.0.1"], "private_address"),
        (&["::ffff:169.254.169.254"], "metadata_address"),
        (&["fd00:ec2::254"], "metadata_address"),
        (&["fe80::1"], "link_local_address"),
        (&["64:ff9b::7f00:1"], "loopback_address"),
        (&["2002:7f00:1::1"], "tunnel_address"),
        // One of several is enough, wherever it stands.
        (&["192.0.66.2", "127.0.0.1"], "loopback_address"),
        (&["127.0.0.1", "192.0.66.2"], "loopback_address"),
        (&["2606:4700::1111", "192.0.66.2", "fc00::1"], "private_address"),
        // A name without addresses.
        (&[], "name_unknown"),
    ] {
        let proxy = resolving(&[addresses], "name.test", false).await;
        for request in [
            "GET http://name.test/ HTTP/1.1\r\nconnection: close\r\n\r\n",
            "CONNECT name.test:443 HTTP/1.1\r\nconnection: close\r\n\r\n",
        ] {
            let response = proxy.say(request).await;
            assert_status(&response, if code == "name_unknown" { 502 } else { 403 });
            assert!(response.contains(&format!("\"reason\":\"{code}\"")), "{response}");
        }
    }
}

#[tokio::test]
async fn an_address_without_a_name_needs_a_rule_and_is_checked_too() {
    let proxy = resolving(&[], "127.0.0.1:80", false).await;
    for host in [
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        "127.0.0.1.",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
    ] {
        let response = proxy.get(&format!("http://{host}/")).await;
        assert_status(&response, 403);
        let decision = proxy.last_decision();
        assert_eq!(decision.reason, Reason::Address(AddressKind::Loopback), "{host}");
        assert_eq!(decision.host, "127.0.0.1", "{host}");
    }
    for host in [
        "127.0.0.2",
        "[::1]",
        "0",
        "0xa9fea9fe",
        "169.254.169.254",
        "[fd00:ec2::254]",
    ] {
        assert_status(&proxy.get(&format!("http://{host}/")).await, 403);
        assert_eq!(proxy.last_decision().reason, Reason::NotAllowed, "{host}");
    }
}

#[tokio::test]
async fn a_name_that_changes_is_checked_each_time() {
    let origin = Origin::plain().await;
    let allowed = format!("name.test:{}", origin.port);
    let proxy = resolving(
        &[
            &["127.0.0.1"],
            &["10.0.0.1"],
            &["127.0.0.1", "10.0.0.1"],
            &["127.0.0.1"],
        ],
        &allowed,
        true,
    )
    .await;
    for status in [200, 403, 403, 200] {
        let response = proxy.get(&format!("http://name.test:{}/", origin.port)).await;
        assert_status(&response, status);
    }
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn the_connection_goes_to_the_address_that_was_checked() {
    // Asked a second time the name would lead to a port where nobody is; one question per connection is all there is.
    let origin = Origin::plain().await;
    let proxy = resolving(
        &[&["127.0.0.1"], &["127.0.0.9"]],
        &format!("name.test:{}", origin.port),
        true,
    )
    .await;
    assert_status(
        &proxy.get(&format!("http://name.test:{}/", origin.port)).await,
        200,
    );
    assert_eq!(proxy.last_decision().address, Some("127.0.0.1".parse().unwrap()));
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_refuses() {
    let origin = Origin::plain().await;
    let proxy = resolving(
        &[&["127.0.0.9", "127.0.0.1"]],
        &format!("name.test:{}", origin.port),
        true,
    )
    .await;
    assert_status(
        &proxy.get(&format!("http://name.test:{}/", origin.port)).await,
        200,
    );
    assert_eq!(proxy.last_decision().address, Some("127.0.0.1".parse().unwrap()));
}
