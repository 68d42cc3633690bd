//! A large repository: 50,000 files, 1.4 GB. How long its image takes from nothing and after a commit of one line, and how long a session
//! takes until its sandbox has the newest commit, when the image is 200 commits old.

use crate::product::{self, Server};
use crate::report::{Aim, Measured};
use crate::stats::Samples;
use anyhow::{Context as _, Result, bail, ensure};
use greenroom_protocol::client::event::{EventBody, SandboxState};
use greenroom_protocol::client::image::{BuildImage, ImageState};
use greenroom_protocol::client::prompt::SendPrompt;
use greenroom_protocol::client::repository::{AddRepository, WarmSandbox};
use greenroom_protocol::client::session::CreateSession;
use greenroom_sdk::{Client, IdempotencyKey};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What this file measures.
pub const NAMES: &[&str] = &[
    "image.from_nothing",
    "image.rebuild",
    "sync.prompt_to_ready",
    "sync.typing_to_ready",
];

const FILES: usize = 50_000;
const FILE_BYTES: usize = 28_000;
const COMMITS: usize = 200;
/// Files that one of those commits changes.
const CHANGED: usize = 5;

const REBUILDS: usize = 5;
const SESSIONS: usize = 20;

/// Runs all of them.
pub async fn run() -> Result<Vec<Measured>> {
    let temp = tempfile::Builder::new().prefix("gr-bench-").tempdir()?;
    let mut model = product::model().await?;
    let model_url = model.url.clone();
    // A turn that ends before the work for its sandbox begins, as none does with a real model, starts none.
    model.think_ms.store(300, Ordering::Relaxed);
    tokio::spawn(async move { while model.arrivals.recv().await.is_some() {} });
    let config = product::config(temp.path(), &model_url, "[image]\nschedule = \"off\"\n")?;
    let (server, _) = Server::start(&config, temp.path())?;
    let client = server.client()?;
    let source = temp.path().join("large");
    generate(&source)?;
    let added = AddRepository {
        name: "large".to_owned(),
        source: Some(source.to_string_lossy().into_owned()),
    };
    let repository = client.add_repository(&added).await?;
    let url = server.with_token(&repository.clone_url)?;
    let (mut scratch, mut rebuild, mut ready) = (Samples::default(), Samples::default(), Samples::default());
    let mut cloned = Samples::default();

    let began = Instant::now();
    let target = temp.path().join("clone");
    git(temp.path(), &["clone", "-q", &url, "clone"])?;
    cloned.push(began.elapsed());
    std::fs::remove_dir_all(target)?;
    scratch.push(build(&client).await?);
    for round in 0..REBUILDS {
        commit(&source, &url, round, 1)?;
        rebuild.push(build(&client).await?);
    }
    for round in 0..COMMITS {
        commit(&source, "", REBUILDS + round, CHANGED)?;
    }
    git(&source, &["push", "-q", &url, "main"])?;
    for _ in 0..SESSIONS {
        ready.push(session(&client).await?);
    }
    let sandboxes = temp.path().join("data/sandboxes/sb");
    let (mut typed, mut warm) = (Samples::default(), Samples::default());
    for _ in 0..SESSIONS {
        typed.push(typing(&client, &sandboxes).await?);
        // Takes it away, so that the next one begins from nothing.
        warm.push(session(&client).await?);
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    drop(server);
    Ok([
        Measured::duration(
            "image.from_nothing",
            &scratch,
            Aim::default(),
            &[("git clone", &cloned)],
        ),
        Measured::duration(
            "image.rebuild",
            &rebuild,
            Aim {
                p50: Some(10_000.0),
                p99: None,
            },
            &[("git clone", &cloned)],
        ),
        Measured::duration("sync.warm_prompt_to_ready", &warm, Aim::default(), &[]),
        Measured::duration(
            "sync.typing_to_ready",
            &typed,
            Aim {
                p50: Some(1_000.0),
                p99: None,
            },
            &[("git clone", &cloned)],
        ),
        Measured::duration(
            "sync.prompt_to_ready",
            &ready,
            Aim {
                p50: Some(1_000.0),
                p99: None,
            },
            &[("git clone", &cloned)],
        ),
    ]
    .into_iter()
    .flatten()
    .collect())
}

/// From asking for an image until it is published.
async fn build(client: &Client) -> Result<Duration> {
    let began = Instant::now();
    let asked = client.build_image("large", &BuildImage::default()).await?;
    loop {
        let image = client.image(asked.id.as_str()).await?;
        match image.state {
            ImageState::Published => return Ok(began.elapsed()),
            ImageState::Failed => bail!("the image was not built: {:?}", image.problem),
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// From the first sign of typing until a sandbox has the newest commit. The mark of that is seen on disk; asking the server would be as
/// coarse as its bound on asking.
async fn typing(client: &Client, sandboxes: &Path) -> Result<Duration> {
    let marked = || -> Result<usize> {
        let entries = std::fs::read_dir(sandboxes)?.collect::<std::io::Result<Vec<_>>>()?;
        let is_marked =
            |entry: &std::fs::DirEntry| entry.path().join("upper/home/agent/.greenroom/image").exists();
        Ok(entries.iter().filter(|entry| is_marked(entry)).count())
    };
    let before = marked()?;
    let began = Instant::now();
    client.typing("large").await?;
    while marked()? == before {
        ensure!(
            began.elapsed() < Duration::from_secs(120),
            "no sandbox ever waits"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = began.elapsed();
    // What follows the checkout, so that the session after this takes it.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let report = client.typing("large").await?;
    ensure!(report.sandbox == WarmSandbox::Ready, "{report:?}");
    Ok(took)
}

/// From sending the first prompt of a session until its sandbox has the newest commit.
async fn session(client: &Client) -> Result<Duration> {
    let create = CreateSession {
        repository: "large".to_owned(),
        base_branch: None,
        model: None,
        prompt: None,
        access: None,
        images: Vec::new(),
    };
    let created = client.create_session(&create, &IdempotencyKey::fresh()).await?;
    let id = created.session.id;
    let prompt = SendPrompt {
        text: "Say hello.".to_owned(),
        images: Vec::new(),
        model: None,
        delivery: None,
    };
    let began = Instant::now();
    client.send_prompt(&id, &prompt, &IdempotencyKey::fresh()).await?;
    let mut took = None;
    let mut is_over = false;
    // The turn may end first: its model needs no tool.
    while took.is_none() || !is_over {
        let page = client.events(&id, 0, 500).await?;
        for event in &page.events {
            match &event.body {
                EventBody::SandboxStateChanged {
                    state: SandboxState::Ready,
                    ..
                } => {
                    took.get_or_insert_with(|| began.elapsed());
                }
                EventBody::SandboxStateChanged {
                    problem: Some(problem),
                    ..
                } => bail!("{problem:?}"),
                EventBody::TurnCompleted { .. } => is_over = true,
                _ => {}
            }
        }
        ensure!(
            began.elapsed() < Duration::from_secs(120),
            "the sandbox is never ready: {:?}",
            page.events.iter().map(|event| &event.body).collect::<Vec<_>>()
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    took.context("the sandbox was never ready")
}

/// Writes the repository as a stream for git, which is a hundred times faster than adding files.
fn generate(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    git(directory, &["init", "-q", "-b", "main"])?;
    git(directory, &["config", "core.compression", "0"])?;
    let mut import = Command::new("git")
        .args(["fast-import", "--quiet"])
        .current_dir(directory)
        .stdin(Stdio::piped())
        .spawn()?;
    let stdin = import.stdin.take().context("git has no input")?;
    let mut stream = std::io::BufWriter::with_capacity(1 << 20, stdin);
    write!(
        stream,
        "commit refs/heads/main\ncommitter Bench <bench@example.com> 1700000000 +0000\ndata 5\nFirst\n"
    )?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut content = vec![0; FILE_BYTES];
    for file in 0..FILES {
        for word in content.chunks_mut(8) {
            // xorshift: content that does not compress and differs from file to file.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_ne_bytes()[..word.len()]);
        }
        write!(stream, "M 644 inline {}\ndata {FILE_BYTES}\n", path_of(file))?;
        stream.write_all(&content)?;
        stream.write_all(b"\n")?;
    }
    stream.into_inner().map_err(|error| error.into_error())?;
    ensure!(import.wait()?.success(), "git fast-import failed");
    git(directory, &["symbolic-ref", "HEAD", "refs/heads/main"])
}

fn path_of(file: usize) -> String {
    format!("d{:02}/e{:02}/file{file}.bin", file / 1000, file / 50 % 20)
}

/// A commit that changes some files by one line each, pushed if there is an address.
fn commit(directory: &Path, url: &str, number: usize, changed: usize) -> Result<()> {
    let mut stream = format!(
        "commit refs/heads/main\ncommitter Bench <bench@example.com> {} +0000\ndata 6\nChange\nfrom refs/heads/main^0\n",
        1_700_000_001 + number
    );
    for file in 0..changed {
        let path = path_of((number * 977 + file * 7919) % FILES);
        let line = format!("changed by {number}\n");
        stream.push_str(&format!("M 644 inline {path}\ndata {}\n{line}\n", line.len()));
    }
    let mut import = Command::new("git")
        .args(["fast-import", "--quiet"])
        .current_dir(directory)
        .stdin(Stdio::piped())
        .spawn()?;
    import
        .stdin
        .take()
        .context("git has no input")?
        .write_all(stream.as_bytes())?;
    ensure!(import.wait()?.success(), "git fast-import failed");
    match url {
        "" => Ok(()),
        url => git(directory, &["push", "-q", url, "main"]),
    }
}

fn git(directory: &Path, arguments: &[&str]) -> Result<()> {
    let status = Command::new("git")
        .args(arguments)
        .current_dir(directory)
        .status()?;
    ensure!(status.success(), "git {arguments:?} failed");
    Ok(())
}
