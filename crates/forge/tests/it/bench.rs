//! What the tests stand on: a forge, an HTTP server in front of it, git clients. Holds no expectation itself.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::TryStreamExt as _;
use greenroom_forge::{Forge, ForgeConfig, GitAccess, GitMethod, GitRequest, NewPullRequest, PushPolicy};
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::pull_request::PullRequest;
use greenroom_protocol::id::PersonId;
use greenroom_stdx::clock::Clock;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// 2023-11-14, so that commit times are easy to recognise.
pub const NOW_MS: i64 = 1_700_000_000_000;

/// All git programs of this machine, each once.
pub fn gits() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<PathBuf> = std::env::split_paths(&path)
        .map(|dir| dir.join("git"))
        .filter_map(|git| git.canonicalize().ok())
        .collect();
    found.sort();
    found.dedup();
    assert!(!found.is_empty(), "these tests need git in PATH");
    if found.len() == 1 {
        eprintln!("SKIPPED-FEATURE: only one git in PATH; other versions are not tested");
    }
    found
}

/// A forge in its own folder.
pub struct Bench {
    pub forge: Forge,
    pub dir: tempfile::TempDir,
    pub git: PathBuf,
}

impl Bench {
    pub async fn new() -> Self {
        Self::with_git(gits().remove(0)).await
    }

    pub async fn with_git(git: PathBuf) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let forge = open(dir.path(), &git).await;
        Self { forge, dir, git }
    }

    /// A client's working tree of a new repository with one commit on `main`, and the repository `r` made from it.
    pub async fn sample(&self) -> Tree {
        let tree = self.tree("source");
        tree.git(&["init", "-q", "-b", "main"]);
        tree.commit("README", "one\ntwo\nthree\n", "first");
        self.forge
            .add_repository("r", Some(tree.dir.to_str().unwrap()))
            .await
            .unwrap();
        tree.git(&["remote", "add", "origin", self.bare("r").to_str().unwrap()]);
        tree
    }

    /// Opens the pull request of the branch `work` in `r`.
    pub async fn open_work(&self) -> PullRequest {
        self.forge
            .open_pull_request("r", &new_pull_request("work"))
            .await
            .unwrap()
    }

    pub fn tree(&self, name: &str) -> Tree {
        let dir = self.dir.path().join("trees").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Tree {
            dir,
            git: self.git.clone(),
        }
    }

    pub fn bare(&self, name: &str) -> PathBuf {
        self.dir.path().join("forge").join(format!("{name}.git"))
    }
}

pub async fn open(dir: &Path, git: &Path) -> Forge {
    let config = ForgeConfig::new(dir.join("forge"), "http://127.0.0.1:1/", Clock::fixed(NOW_MS));
    let config = ForgeConfig {
        git_program: git.to_owned(),
        ..config
    };
    Forge::open(config).await.unwrap()
}

/// A folder in which a git client works.
#[derive(Clone)]
pub struct Tree {
    pub dir: PathBuf,
    pub git: PathBuf,
}

impl Tree {
    pub fn try_git(&self, args: &[&str]) -> Output {
        std::process::Command::new(&self.git)
            .args(args)
            .current_dir(&self.dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.dir)
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_AUTHOR_NAME", "Ann Author")
            .env("GIT_AUTHOR_EMAIL", "ann@example.org")
            .env("GIT_AUTHOR_DATE", "1600000000 +0200")
            .env("GIT_COMMITTER_NAME", "Cy Committer")
            .env("GIT_COMMITTER_EMAIL", "cy@example.org")
            .env("GIT_COMMITTER_DATE", "1600000001 +0200")
            .output()
            .unwrap()
    }

    /// Standard output of a call that must succeed.
    pub fn git(&self, args: &[&str]) -> String {
        let output = self.try_git(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {args:?}: {stderr}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Standard error of a call that must fail.
    pub fn refused(&self, args: &[&str]) -> String {
        let output = self.try_git(args);
        assert!(!output.status.success(), "git {args:?} must fail");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub fn commit(&self, path: &str, content: impl AsRef<[u8]>, message: &str) -> String {
        self.write(path, content);
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// A branch from `main` with one commit, pushed.
    pub fn push_branch(&self, branch: &str, path: &str, content: &str) -> String {
        self.git(&["switch", "-q", "-c", branch, "main"]);
        let commit = self.commit(path, content, &format!("change {path}"));
        self.git(&["push", "-q", "origin", branch]);
        self.git(&["switch", "-q", "main"]);
        commit
    }
}

pub fn person(number: u128, name: &str) -> Person {
    Person {
        id: PersonId::from_bits(number),
        name: name.to_owned(),
        email: format!("{}@example.org", name.to_lowercase()),
    }
}

pub fn new_pull_request(head: &str) -> NewPullRequest {
    NewPullRequest {
        title: format!("Merge {head}"),
        body: "Because.".to_owned(),
        head_branch: head.to_owned(),
        base_branch: None,
        author: person(1, "Ann"),
        session: None,
        prompted_by: vec![person(2, "Bob")],
        idempotency_key: None,
    }
}

/// An HTTP server in front of a forge; ends when dropped.
pub struct Server {
    pub url: String,
    /// Requests whose body came packed.
    pub gzipped: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Front {
    forge: Forge,
    access: GitAccess,
    gzipped: Arc<AtomicUsize>,
}

pub async fn serve(forge: &Forge, policy: Option<Arc<dyn PushPolicy>>) -> Server {
    let access = policy.map_or(GitAccess::Read, GitAccess::Push);
    let forge = forge.clone();
    let gzipped = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&gzipped);
    let app = axum::Router::new().fallback(answer).with_state(Front {
        forge,
        access,
        gzipped: counted,
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    Server { url, gzipped, task }
}

async fn answer(State(front): State<Front>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let text = |name: HeaderName| Some(parts.headers.get(name)?.to_str().ok()?.to_owned());
    let path = parts.uri.path().trim_start_matches('/');
    let Some((name, suffix)) = path.split_once(".git/") else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if parts.headers.contains_key(header::CONTENT_ENCODING) {
        front.gzipped.fetch_add(1, Ordering::Relaxed);
    }
    let request = GitRequest {
        method: match parts.method {
            Method::GET => GitMethod::Get,
            Method::POST => GitMethod::Post,
            _ => GitMethod::Other,
        },
        path_suffix: suffix.to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        content_type: text(header::CONTENT_TYPE),
        content_encoding: text(header::CONTENT_ENCODING),
        git_protocol: text(HeaderName::from_static("git-protocol")),
        body: Box::pin(body.into_data_stream().map_err(std::io::Error::other)),
    };
    match front.forge.serve_git(name, request, front.access).await {
        Ok(answer) => {
            let mut response = Response::builder().status(answer.status);
            for (name, value) in &answer.headers {
                response = response.header(*name, value);
            }
            response.body(Body::from_stream(answer.body)).unwrap()
        }
        Err(error) => {
            let status = StatusCode::from_u16(error.status()).unwrap();
            (status, error.problem().code).into_response()
        }
    }
}

/// Runs blocking client calls beside the server.
pub async fn client<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}
