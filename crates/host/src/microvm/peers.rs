//! The calls held against Firecracker's own OpenAPI file and against the released program (crates/host/tests/peers).

use super::client::{ApiError, Client};
use super::image;
use super::request::{Machine, Method, Request};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where `setup.sh` put the peers; `None`, said loudly, if it did not run. In the full suite it must have.
pub(crate) fn peer(name: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("GREENROOM_TEST_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
            cache.unwrap_or_else(|| home.join(".cache")).join("greenroom-ci")
        });
    let path = cache.join("host-peers").join(name);
    if path.exists() {
        return Some(path);
    }
    assert!(
        std::env::var_os("GREENROOM_REQUIRE_PEERS").is_none() || !cfg!(target_arch = "x86_64"),
        "{} is missing: run crates/host/tests/peers/setup.sh",
        path.display()
    );
    eprintln!(
        "SKIPPED-FEATURE: Firecracker's {name} is not here; crates/host/tests/peers/setup.sh fetches it"
    );
    None
}

fn machine(directory: &Path) -> Machine {
    Machine {
        kernel: directory.join("vmlinux"),
        base_image: directory.join("base.ext4"),
        upper_image: directory.join("upper.ext4"),
        read_only_images: vec![("usr".to_owned(), directory.join("usr.ext4"))],
        orders: directory.join("orders"),
        socket: directory.join("vsock.sock"),
        processors: 2,
        memory_mib: 128,
    }
}

struct Validator(Child);

impl Validator {
    fn start(python: &Path, spec: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/validate.py");
        let child = Command::new(python)
            .arg(script)
            .arg(spec)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// What is wrong with each call, in order.
    fn check(mut self, calls: &[serde_json::Value]) -> Vec<Vec<String>> {
        let mut stdin = self.0.stdin.take().unwrap();
        for call in calls {
            writeln!(stdin, "{call}").unwrap();
        }
        drop(stdin);
        let answers = BufReader::new(self.0.stdout.take().unwrap())
            .lines()
            .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
            .collect();
        assert!(self.0.wait().unwrap().success());
        answers
    }
}

fn call(request: &Request) -> serde_json::Value {
    let (method, body) = match request.method {
        Method::Get => ("GET", serde_json::Value::Null),
        Method::Put => ("PUT", serde_json::from_str(&request.body).unwrap()),
    };
    serde_json::json!({ "method": method, "path": request.path, "body": body })
}

#[test]
fn every_call_is_valid_by_the_specification() {
    let (Some(python), Some(spec)) = (peer("python/bin/python"), peer("firecracker.yaml")) else {
        return;
    };
    let mut requests = machine(Path::new("/srv")).preparation();
    requests.extend([Machine::start(), Machine::describe()]);
    let mut calls: Vec<_> = requests.iter().map(call).collect();
    // What the specification does not know must be noticed, or the check says nothing.
    calls.push(serde_json::json!({ "method": "PUT", "path": "/vsock", "body": { "guest_cid": 1 } }));
    let mut answers = Validator::start(&python, &spec).check(&calls);
    assert!(!answers.pop().unwrap().is_empty(), "a wrong call passed");
    assert_eq!(answers.len(), requests.len());
    for (request, problems) in requests.iter().zip(answers) {
        assert_eq!(problems, Vec::<String>::new(), "{}", request.path);
    }
}

struct Firecracker(Child);

impl Drop for Firecracker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Firecracker {
    fn start(program: &Path, socket: &Path) -> Self {
        let child = Command::new(program)
            .arg("--api-sock")
            .arg(socket)
            .args(["--level", "Error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !socket.exists() {
            assert!(Instant::now() < deadline, "Firecracker does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self(child)
    }
}

#[tokio::test]
async fn the_released_program_accepts_the_whole_preparation() {
    let Some(program) = peer("firecracker") else {
        return;
    };
    let temp = tempfile::tempdir().unwrap();
    let machine = machine(temp.path());
    // Only the calls are on trial: what boots is another question, and this is no kernel.
    std::fs::write(&machine.kernel, b"no kernel").unwrap();
    for path in [
        &machine.base_image,
        &machine.upper_image,
        &machine.read_only_images[0].1,
    ] {
        image::writable(path, 16 << 20).unwrap();
    }
    std::fs::write(&machine.orders, vec![0; 4096]).unwrap();
    let socket = temp.path().join("api.sock");
    let _process = Firecracker::start(&program, &socket);
    let mut client = Client::connect(&socket).await.unwrap();
    let described = client.send(&Machine::describe()).await.unwrap();
    assert!(described.contains("Not started"), "{described}");
    client.send_all(&machine.preparation()).await.unwrap();
    // It understands the start too, and says that this is no kernel (or that the machine has no KVM).
    match client.send(&Machine::start()).await {
        Err(ApiError::Refused { path, fault }) => {
            assert_eq!(path, "/actions");
            assert!(!fault.is_empty());
        }
        other => panic!("a machine without a kernel started: {other:?}"),
    }
}

#[tokio::test]
async fn a_refusal_carries_the_programs_own_words() {
    let Some(program) = peer("firecracker") else {
        return;
    };
    let temp = tempfile::tempdir().unwrap();
    let socket = temp.path().join("api.sock");
    let _process = Firecracker::start(&program, &socket);
    let mut client = Client::connect(&socket).await.unwrap();
    match client.send_all(&machine(temp.path()).preparation()).await {
        Err(ApiError::Refused { path, fault }) => {
            assert_eq!(path, "/boot-source");
            assert!(fault.contains("vmlinux") || fault.contains("kernel"), "{fault}");
        }
        other => panic!("a kernel that is not there was accepted: {other:?}"),
    }
}
