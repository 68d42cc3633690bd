//! Greenroom under load: real sessions with sandboxes, whose scripted model streams text and calls a tool in each step.

use super::http::{Http, Target};
use super::scenario::{self, Audience, Delivered, IDLE_SECONDS, Taken, cpu_seconds, new_sessions};
use crate::product::Server;
use crate::prompt::repository;
use anyhow::{Context as _, Result, bail};
use greenroom_protocol::client::repository::AddRepository;
use std::path::Path;
use std::time::{Duration, Instant};

/// A step is ten pieces of text in three seconds, which is forty tokens a second, and a call that reads a file.
const STEPS: usize = 14;
const CHUNKS: usize = 10;
const CHUNK_CHARS: usize = 48;
const CHUNK_DELAY_MS: usize = 300;
/// Within which all turns begin, one after another.
const BEGIN_WITHIN: Duration = Duration::from_secs(6);
/// How long is looked at, while all turns run.
const LOOK: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(300);

pub struct Ours {
    pub target: Target,
    server: Server,
}

impl Ours {
    pub async fn start(temp: &Path) -> Result<Self> {
        let script = temp.join("load.toml");
        std::fs::write(&script, load_script())?;
        let config = temp.join("greenroom.toml");
        std::fs::write(
            &config,
            format!(
                "[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = {:?}\nsession_idle_seconds = {IDLE_SECONDS}\n[models]\ndefault = \"bench/demo\"\n\
                 [[providers]]\nid = \"bench\"\nkind = \"scripted\"\nscript = {script:?}\n\
                 [sandbox]\nmax_running = 1000\n[snapshot]\nkeep = 0\n",
                temp.join("data")
            ),
        )?;
        let (server, _) = Server::start(&config, temp)?;
        let source = repository(temp)?;
        let add = AddRepository {
            name: "bench".to_owned(),
            source: Some(source),
        };
        server.client()?.add_repository(&add).await?;
        let target = Target {
            address: server.address()?,
            token: server.token()?,
            new_session: "{\"repository\":\"bench\"}",
        };
        Ok(Self { target, server })
    }

    pub async fn memory(&self, sessions: usize, watchers: usize) -> Result<Taken> {
        scenario::memory(&self.target, self.server.pid(), sessions, watchers).await
    }

    /// What those who watch so many sessions see while a turn runs in each.
    pub async fn delivery(&self, sessions: usize, watchers: usize) -> Result<Delivered> {
        let sessions = new_sessions(&self.target, sessions).await?;
        // Their sandboxes start first: that is another number.
        for part in sessions.chunks(8) {
            self.prompt(part, "hello", Duration::ZERO).await?;
            self.until_all("idle", part).await?;
        }
        let audience = Audience::gather(&self.target, sessions, watchers).await?;
        let count = u32::try_from(audience.sessions.len())?;
        self.prompt(&audience.sessions, "load", BEGIN_WITHIN / count)
            .await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let sessions = audience.sessions.clone();
        let pid = self.server.pid();
        let delivered = audience.look(LOOK, || cpu_seconds(pid)).await?;
        self.all_are("running", &sessions)
            .await
            .context("a turn ended while it was looked at")?;
        Ok(delivered)
    }

    async fn prompt(&self, sessions: &[String], text: &str, apart: Duration) -> Result<()> {
        let mut http = Http::connect(&self.target).await?;
        let mut next = Instant::now();
        for session in sessions {
            tokio::time::sleep_until(next.into()).await;
            next += apart;
            let path = format!("/v1/sessions/{session}/prompts");
            let body = format!("{{\"text\":{text:?}}}");
            http.send("POST", &path, Some(text), &body).await?;
        }
        Ok(())
    }

    async fn all_are(&self, state: &str, sessions: &[String]) -> Result<()> {
        let mut http = Http::connect(&self.target).await?;
        for session in sessions {
            let row = http
                .send("GET", &format!("/v1/sessions/{session}"), None, "")
                .await?;
            let row: serde_json::Value = serde_json::from_str(&row)?;
            if row["state"] != state || !row["last_error_code"].is_null() {
                bail!("{session} is {} ({})", row["state"], row["last_error_code"]);
            }
        }
        Ok(())
    }

    async fn until_all(&self, state: &str, sessions: &[String]) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.all_are(state, sessions).await {
            if Instant::now() > deadline {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

fn load_script() -> String {
    let mut script = "[[script]]\nname = \"hello\"\nprompt_contains = \"hello\"\n[[script.step]]\n\
        [[script.step.call]]\ntool = \"read\"\narguments = { path = \"README.md\" }\n[[script.step]]\nsay = \"Hello.\"\n\
        [[script]]\nname = \"load\"\nprompt_contains = \"load\"\n"
        .to_owned();
    let text = "word ".repeat(CHUNKS * CHUNK_CHARS / 5);
    for _ in 0..STEPS {
        script += &format!(
            "[[script.step]]\nsay = {text:?}\nchunk_chars = {CHUNK_CHARS}\ndelay_ms = {CHUNK_DELAY_MS}\n\
             [[script.step.call]]\ntool = \"read\"\narguments = {{ path = \"README.md\" }}\n"
        );
    }
    script + "[[script.step]]\nsay = \"Done.\"\n"
}
