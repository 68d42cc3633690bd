//! The product as benchmarks use it: a server process, and a model that answers each request with one word.

use anyhow::{Context as _, Result, bail, ensure};
use greenroom_sdk::{Client, Secret};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Writes a configuration with that model and `more` of it, and says where it is.
pub fn config(temp: &Path, model_url: &str, more: &str) -> Result<PathBuf> {
    let path = temp.join("greenroom.toml");
    std::fs::write(
        &path,
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = {:?}\n[models]\ndefault = \"bench/model\"\n\
             [[providers]]\nid = \"bench\"\nkind = \"openai-chat\"\nbase_url = \"{model_url}\"\nmodels = [\"model\"]\n{more}",
            temp.join("data")
        ),
    )?;
    Ok(path)
}

/// A model that answers each request with one word.
pub struct Model {
    pub url: String,
    /// When the first byte of each request came.
    pub arrivals: mpsc::Receiver<Instant>,
    /// Until the first word of each answer, in milliseconds; 0 until it is set.
    pub think_ms: Arc<AtomicU64>,
}

/// Starts it.
pub async fn model() -> Result<Model> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/v1", listener.local_addr()?);
    let (sender, arrivals) = mpsc::channel(64);
    let think_ms = Arc::new(AtomicU64::new(0));
    let think = think_ms.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, sender.clone(), think.clone()));
        }
    });
    Ok(Model {
        url,
        arrivals,
        think_ms,
    })
}

async fn answer(
    mut stream: TcpStream,
    sender: mpsc::Sender<Instant>,
    think_ms: Arc<AtomicU64>,
) -> Result<()> {
    const BODY: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"Hello.\"},\"finish_reason\":null}]}\n\n\
        data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let mut request = Vec::new();
    let mut buffer = [0; 64 * 1024];
    loop {
        let mut arrived = None;
        let length = loop {
            let read = stream.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            arrived.get_or_insert_with(Instant::now);
            request.extend_from_slice(&buffer[..read]);
            if let Some(length) = request_length(&request)
                && request.len() >= length
            {
                break length;
            }
        };
        request.drain(..length);
        if let Some(arrived) = arrived {
            sender.send(arrived).await?;
        }
        tokio::time::sleep(Duration::from_millis(think_ms.load(Ordering::Relaxed))).await;
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n",
            BODY.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(BODY.as_bytes()).await?;
    }
}

/// Bytes of the request at the front, head and body, once the head is whole.
fn request_length(bytes: &[u8]) -> Option<usize> {
    let head_length = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..head_length]).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    Some(head_length + length.unwrap_or(0))
}

/// A server process; ends with this value.
pub struct Server {
    child: Child,
    data_dir: PathBuf,
}

impl Server {
    /// Starts it and measures until it answers.
    pub fn start(config: &Path, temp: &Path) -> Result<(Self, Duration)> {
        Self::start_with(config, temp, &[])
    }

    /// The same with more in its environment.
    pub fn start_with(config: &Path, temp: &Path, env: &[(&str, &str)]) -> Result<(Self, Duration)> {
        let binary =
            std::env::var_os("GREENROOM_BIN").context("set GREENROOM_BIN to a release build of greenroom")?;
        let data_dir = temp.join("data");
        let address = data_dir.join("server.json");
        let _ = std::fs::remove_file(&address);
        let log = std::fs::File::create(temp.join("server.log"))?;
        let began = Instant::now();
        let mut command = Command::new(binary);
        command
            .arg("up")
            .env("GREENROOM_CONFIG", config)
            .envs(env.iter().copied())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().context("start greenroom")?;
        let mut server = Self { child, data_dir };
        // The file is written once the port is open and everything is in place.
        while !address.exists() {
            if let Some(status) = server.child.try_wait()? {
                bail!(
                    "greenroom up ended with {status}: {}",
                    std::fs::read_to_string(temp.join("server.log"))?
                );
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok((server, began.elapsed()))
    }

    /// With the rights of this machine's command line.
    pub fn client(&self) -> Result<Client> {
        let info: serde_json::Value =
            serde_json::from_slice(&std::fs::read(self.data_dir.join("server.json"))?)?;
        let token = std::fs::read_to_string(self.data_dir.join("cli-token"))?;
        let url = info["url"].as_str().context("no address")?;
        Ok(Client::new(url, Secret::new(token.trim()))?)
    }
}

/// Within which a server gives back what sessions had that left memory.
const GIVES_MEMORY_BACK: Duration = Duration::from_secs(3);

impl Server {
    /// Waits until no session is in memory, and what they had went back to the system, for which the server looks each second.
    pub async fn asleep(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(120);
        while Instant::now() < deadline {
            let metrics = self.get("/metrics")?;
            if metrics.lines().any(|line| line == "greenroom_sessions_awake 0") {
                tokio::time::sleep(GIVES_MEMORY_BACK).await;
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bail!("sessions do not fall asleep")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> Result<String> {
        let info: serde_json::Value =
            serde_json::from_slice(&std::fs::read(self.data_dir.join("server.json"))?)?;
        let url = info["url"].as_str().context("no address")?;
        Ok(url.strip_prefix("http://").context("not plain HTTP")?.to_owned())
    }

    /// Of this machine's command line.
    pub fn token(&self) -> Result<String> {
        let token = std::fs::read_to_string(self.data_dir.join("cli-token"))?;
        Ok(token.trim().to_owned())
    }

    /// What it takes of the machine's memory, in KiB.
    pub fn memory_kb(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let text = line.context("no memory in the process's status")?;
        Ok(text.trim().trim_end_matches(" kB").parse()?)
    }

    /// What it answers at a path that the client does not know.
    pub fn get(&self, path: &str) -> Result<String> {
        let (address, token) = (self.address()?, self.token()?);
        let mut socket = std::net::TcpStream::connect(&address)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
        );
        socket.write_all(request.as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        let status = answer.lines().next().unwrap_or_default();
        ensure!(status.contains(" 200 "), "GET {path} was answered {status:?}");
        Ok(answer)
    }

    /// An address of the server's git with the right to use it.
    pub fn with_token(&self, clone_url: &str) -> Result<String> {
        Ok(clone_url.replacen("://", &format!("://greenroom:{}@", self.token()?), 1))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM, so that sandboxes end as well.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}
