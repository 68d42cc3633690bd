//! How client commands find a server, and what they say when there is none.

use crate::program::{Home, Ran};
use std::io::{Read, Write};
use std::net::TcpListener;

#[test]
fn without_a_server_the_hint_is_to_start_one() {
    let home = Home::new();
    for arguments in [
        &["session", "list"][..],
        &["run", "x", "--repo", "shop"],
        &["models"],
        &["sign-in-link"],
    ] {
        let ran = home.run(arguments);
        assert_eq!(ran.status, 3, "{arguments:?}: {}", ran.err);
        assert!(
            ran.err.starts_with("error[server_not_running]: "),
            "{arguments:?}: {}",
            ran.err
        );
        assert!(
            ran.err.contains("hint: start one with `greenroom up`"),
            "{arguments:?}: {}",
            ran.err
        );
    }
}

#[test]
fn what_a_dead_server_left_behind_counts_as_no_server() {
    let home = Home::new();
    // Bound and closed: nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    home.write(
        "data/server.json",
        &format!(r#"{{"url":"http://127.0.0.1:{port}","pid":1,"version":"0"}}"#),
    );
    home.write("data/cli-token", "token\n");
    let output = home
        .command(&["models"])
        .env("GREENROOM_DATA_DIR", "data")
        .output()
        .unwrap();
    let ran = Ran::from(output);
    assert_eq!(ran.status, 3);
    assert!(ran.err.starts_with("error[server_not_running]: "), "{}", ran.err);
}

#[test]
fn a_named_server_needs_a_token_and_a_safe_address() {
    let home = Home::new();
    let ran = home.run(&["models", "--server", "http://127.0.0.1:1"]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.starts_with("error[token_missing]: "), "{}", ran.err);
    let run = |server: &str| {
        let mut command = home.command(&["models", "--server", server]);
        Ran::from(command.env("GREENROOM_TOKEN", "hush-hush").output().unwrap())
    };
    let ran = run("http://greenroom.example");
    assert_eq!(ran.status, 2);
    assert!(ran.err.starts_with("error[server_address]: "), "{}", ran.err);
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let ran = run(&format!("http://127.0.0.1:{port}"));
    assert_eq!(ran.status, 3);
    assert!(ran.err.starts_with("error[server_unreachable]: "), "{}", ran.err);
    assert!(!ran.err.contains("hush-hush"));
}

/// Answers one request and gives back what was asked.
fn serve_once(status: &str, body: &str) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let response = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut chunk = [0; 1024];
        while !request.windows(4).any(|window| window == b"\r\n\r\n") {
            let count = socket.read(&mut chunk).unwrap();
            assert!(count > 0, "the request ended early");
            request.extend_from_slice(&chunk[..count]);
        }
        socket.write_all(response.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    });
    (url, server)
}

#[test]
fn the_server_of_the_data_directory_is_asked_with_its_token() {
    let home = Home::new();
    let (url, server) = serve_once(
        "200 OK",
        r#"{"models":[{"id":"scripted/demo","label":"\u001b[2Jscripted","is_scripted":true,"is_default":true}]}"#,
    );
    home.write(
        "data/server.json",
        &format!(r#"{{"url":"{url}","pid":1,"version":"0"}}"#),
    );
    home.write("data/cli-token", "hush-hush\n");
    let output = home
        .command(&["models"])
        .env("GREENROOM_DATA_DIR", "data")
        // A proxy must not see a token meant for this machine.
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .env("http_proxy", "http://127.0.0.1:1")
        .output()
        .unwrap();
    let ran = Ran::from(output);
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert!(
        ran.out.contains("scripted/demo  default  [2Jscripted"),
        "control characters are removed: {:?}",
        ran.out
    );
    let request = server.join().unwrap().to_ascii_lowercase();
    assert!(request.starts_with("get /v1/models "), "{request}");
    assert!(
        request.contains("authorization: bearer hush-hush\r\n"),
        "{request}"
    );
}

#[test]
fn a_refusal_shows_its_code_and_hint() {
    let home = Home::new();
    let (url, server) = serve_once(
        "401 Unauthorized",
        r#"{"code":"sign_in_required","message":"Sign in first","retryable":false}"#,
    );
    let mut command = home.command(&["models", "--server", &url]);
    let ran = Ran::from(command.env("GREENROOM_TOKEN", "wrong").output().unwrap());
    server.join().unwrap();
    assert_eq!(ran.status, 1);
    assert!(
        ran.err
            .starts_with("error[sign_in_required]: Sign in first\nhint: "),
        "{}",
        ran.err
    );
}
