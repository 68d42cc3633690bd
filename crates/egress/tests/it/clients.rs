//! Programs that people use, with the variables that a sandbox has.

use crate::origin::Origin;
use crate::world::{PATIENCE, Proxy, SECRET, bearer, loopback, names, policy};
use greenroom_egress::EgressLimits;
use std::path::Path;
use std::process::{Output, Stdio};
use tokio::process::Command;

struct Scene {
    proxy: Proxy,
    origin: Origin,
    temp: tempfile::TempDir,
}

/// A proxy with a credential for a TLS server, and the sandbox's file of trust.
async fn scene(files: Option<&Path>) -> Scene {
    let temp = tempfile::tempdir().unwrap();
    let origin = match files {
        Some(files) => Origin::secure_files("secure.test", files.to_owned()).await,
        None => Origin::secure("secure.test").await,
    };
    let policy = policy(&[format!("secure.test:{}", origin.port)]).allow_addresses(loopback());
    let credentials = vec![bearer("secure.test", origin.port)];
    let roots = origin.root.clone().into_iter().collect();
    let proxy = Proxy::start(policy, credentials, names(), EgressLimits::default(), roots).await;
    let trust = proxy.egress.trust().unwrap();
    std::fs::write(temp.path().join(trust.file_name), trust.pem).unwrap();
    Scene { proxy, origin, temp }
}

impl Scene {
    fn url(&self, path: &str) -> String {
        format!("https://secure.test:{}{path}", self.origin.port)
    }

    /// Runs a program as a sandbox would; `None`, said loudly, if the machine lacks it.
    async fn run(&self, program: &str, arguments: &[&str]) -> Option<Output> {
        let url = self.proxy.http_url();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.temp.path())
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("NODE_USE_ENV_PROXY", "1")
            .env("NO_PROXY", "localhost,127.0.0.1,::1")
            .env("no_proxy", "localhost,127.0.0.1,::1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        // Where version managers keep what PATH leads to.
        for name in ["PYENV_ROOT", "PYENV_VERSION"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        for name in ["http_proxy", "https_proxy", "all_proxy"] {
            command.env(name, &url).env(name.to_uppercase(), &url);
        }
        let trust = self.proxy.egress.trust().unwrap();
        let file = self.temp.path().join(trust.file_name);
        for (name, _) in trust.variables {
            command.env(name, &file);
        }
        let output = match tokio::time::timeout(PATIENCE * 2, command.output())
            .await
            .expect("the program ends in time")
        {
            Ok(output) => output,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("SKIPPED-FEATURE: {program} is not installed");
                return None;
            }
            Err(error) => panic!("{program}: {error}"),
        };
        assert!(!text(&output).contains(SECRET), "{}", text(&output));
        Some(output)
    }

    #[track_caller]
    fn assert_credential_arrived(&self) {
        let seen = self.origin.seen();
        assert!(!seen.is_empty());
        for request in seen {
            assert_eq!(request.all("authorization"), [format!("Bearer {SECRET}")]);
        }
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[tokio::test]
async fn curl() {
    let scene = scene(None).await;
    let Some(output) = scene.run("curl", &["-sSi", &scene.url("/leak")]).await else {
        return;
    };
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("you sent Bearer ***"), "{}", text(&output));
    scene.assert_credential_arrived();
    // The reason is seen also where the body of a refused CONNECT is not shown.
    let output = scene
        .run("curl", &["-sSv", "https://not-allowed.test/"])
        .await
        .unwrap();
    assert!(!output.status.success());
    assert!(
        text(&output).contains("403 egress_refused: not-allowed.test:443 is not allowed"),
        "{}",
        text(&output)
    );
    let socks = format!("127.0.0.1:{}", scene.proxy.socks_port);
    let output = scene
        .run(
            "curl",
            &["-sSi", "--socks5-hostname", &socks, &scene.url("/by-socks")],
        )
        .await
        .unwrap();
    assert!(text(&output).contains("GET /by-socks"), "{}", text(&output));
    let output = scene
        .run(
            "curl",
            &["-sS", "--socks5-hostname", &socks, "http://not-allowed.test/"],
        )
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(97), "{}", text(&output));
    scene.assert_credential_arrived();
}

#[tokio::test]
async fn python() {
    let scene = scene(None).await;
    let script = format!(
        "import urllib.request, urllib.error\n\
         print(urllib.request.urlopen({url:?}).read().decode())\n\
         try: urllib.request.urlopen('https://not-allowed.test/')\n\
         except OSError as error: print(error)\n\
         try: urllib.request.urlopen('http://not-allowed.test/')\n\
         except urllib.error.HTTPError as error: print(error.code, error.read().decode())\n",
        url = scene.url("/leak")
    );
    let Some(output) = scene.run("python3", &["-c", &script]).await else {
        return;
    };
    let shown = text(&output);
    assert!(shown.contains("you sent Bearer ***"), "{shown}");
    assert!(
        shown.contains("Tunnel connection failed: 403 egress_refused: not-allowed.test:443 is not allowed"),
        "{shown}"
    );
    assert!(shown.contains("403 {\"code\":\"egress_refused\""), "{shown}");
    scene.assert_credential_arrived();
    let script = format!(
        "import requests\nprint(requests.get({:?}).text)",
        scene.url("/leak")
    );
    let output = scene.run("python3", &["-c", &script]).await.unwrap();
    if text(&output).contains("No module named 'requests'") {
        eprintln!("SKIPPED-FEATURE: python's requests is not installed");
        return;
    }
    assert!(text(&output).contains("you sent Bearer ***"), "{}", text(&output));
}

#[tokio::test]
async fn node() {
    let scene = scene(None).await;
    // fetch follows the variables since 22.21 and 24; before, a tunnel by hand is what programs do.
    let script = format!(
        "const [major, minor] = process.versions.node.split('.').map(Number);\n\
         if (major >= 24 || (major === 22 && minor >= 21)) {{\n\
           fetch({url:?}).then((response) => response.text()).then(console.log);\n\
         }} else {{\n\
           console.log('NO-FETCH');\n\
           const proxy = new URL(process.env.https_proxy);\n\
           const ask = require('http').request({{host: proxy.hostname, port: proxy.port, method: 'CONNECT', path: {host:?}}});\n\
           ask.on('connect', (_, socket) => {{\n\
             const get = require('https').get({{path: '/leak', host: 'secure.test', port: {port}, socket, agent: false}});\n\
             get.on('response', (response) => response.on('data', (data) => console.log(data.toString())));\n\
           }});\n\
           ask.end();\n\
         }}",
        url = scene.url("/leak"),
        host = format!("secure.test:{}", scene.origin.port),
        port = scene.origin.port,
    );
    let Some(output) = scene.run("node", &["-e", &script]).await else {
        return;
    };
    if text(&output).contains("NO-FETCH") {
        eprintln!(
            "SKIPPED-FEATURE: this Node.js is older than 22.21, so its fetch knows no proxy; a tunnel by hand was tried"
        );
    }
    assert!(text(&output).contains("you sent Bearer ***"), "{}", text(&output));
    scene.assert_credential_arrived();
}

#[tokio::test]
async fn git() {
    let files = tempfile::tempdir().unwrap();
    let script = "set -e; export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null; cd \"$0\"; \
        git init -q -b main work; cd work; echo hello > file; git add file; \
        git -c user.name=a -c user.email=a@example.com commit -qm first; cd ..; \
        git clone -q --bare work repository.git; git -C repository.git update-server-info";
    let made = std::process::Command::new("sh")
        .args(["-c", script])
        .arg(files.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made));
    let scene = scene(Some(files.path())).await;
    let target = scene.temp.path().join("clone");
    let output = scene
        .run(
            "git",
            &[
                "clone",
                "-q",
                &scene.url("/repository.git"),
                target.to_str().unwrap(),
            ],
        )
        .await
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(std::fs::read_to_string(target.join("file")).unwrap(), "hello\n");
    scene.assert_credential_arrived();
    let output = scene
        .run("git", &["ls-remote", "https://not-allowed.test/repository.git"])
        .await
        .unwrap();
    assert!(text(&output).contains("403"), "{}", text(&output));
}
