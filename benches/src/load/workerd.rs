//! The peer: workerd with one Durable Object for each session. Its events come from timers, of the same size and as often as ours did; it has
//! no model, no sandbox and no text that is being written, so it does less.

use super::http::{Http, Target};
use super::scenario::{self, Audience, Delivered, Taken, cpu_seconds, new_sessions};
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/workerd");
const LOOK: Duration = Duration::from_secs(20);

pub struct Workerd {
    pub target: Target,
    process: Child,
}

impl Workerd {
    /// Installs it below the cache if need be.
    pub async fn start(temp: &Path) -> Result<Self> {
        let program = installed()?;
        let data = temp.join("workerd");
        std::fs::create_dir(&data)?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let log = std::fs::File::create(temp.join("workerd.log"))?;
        let process = Command::new(program)
            .arg("serve")
            .arg(format!("{PEER}/config.capnp"))
            .arg("--socket-addr")
            .arg(format!("http={address}"))
            .arg("--directory-path")
            .arg(format!("data={}", data.display()))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start workerd")?;
        let target = Target {
            address,
            token: "none".to_owned(),
            new_session: "{}",
        };
        let mut started = Self { target, process };
        let deadline = Instant::now() + Duration::from_secs(20);
        while Http::connect(&started.target).await.is_err() {
            if let Some(status) = started.process.try_wait()? {
                bail!("workerd ended with {status}");
            }
            if Instant::now() > deadline {
                bail!("workerd does not listen");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(started)
    }

    pub async fn memory(&self, sessions: usize, watchers: usize) -> Result<Taken> {
        scenario::memory(&self.target, self.process.id(), sessions, watchers).await
    }

    /// The same for those who watch as `ours` was.
    pub async fn delivery(&self, sessions: usize, watchers: usize, ours: &Delivered) -> Result<Delivered> {
        let sessions = new_sessions(&self.target, sessions).await?;
        let audience = Audience::gather(&self.target, sessions, watchers).await?;
        let interval_ms = ours.interval.as_millis().max(1);
        let events = (LOOK.as_millis() * 3) / interval_ms;
        // An event's frame is larger than its text by what is around it, about a hundred bytes here.
        let body = format!(
            "{{\"events\":{events},\"interval_ms\":{interval_ms},\"bytes\":{}}}",
            ours.bytes.saturating_sub(100).max(1)
        );
        let mut http = Http::connect(&self.target).await?;
        // Spread over a whole interval, so that their timers do not meet.
        let apart = ours.interval / u32::try_from(audience.sessions.len())?;
        let mut next = Instant::now();
        for session in &audience.sessions {
            tokio::time::sleep_until(next.into()).await;
            next += apart;
            http.send("POST", &format!("/v1/sessions/{session}/turn"), None, &body)
                .await?;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let pid = self.process.id();
        audience.look(LOOK, || cpu_seconds(pid)).await
    }
}

impl Drop for Workerd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program, from the package that `peers/workerd` pins.
fn installed() -> Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("no HOME")?).join(".cache"),
    };
    let directory = cache.join("greenroom-ci/peers/workerd");
    std::fs::create_dir_all(&directory)?;
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(Path::new(PEER).join(file), directory.join(file))?;
    }
    let name = match std::env::consts::ARCH {
        "aarch64" => "workerd-linux-arm64",
        _ => "workerd-linux-64",
    };
    let program = directory
        .join("node_modules/@cloudflare")
        .join(name)
        .join("bin/workerd");
    if !program.exists() {
        let installed = Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&directory)
            .stdout(Stdio::null())
            .status()
            .context("run npm")?;
        if !installed.success() || !program.exists() {
            bail!("npm could not install workerd");
        }
    }
    Ok(program)
}
