//! From sending a prompt to the model request that it causes, through the real server: HTTP, authorisation, the durable log, the
//! turn, the model client. The model is a socket of ours that notes when the request comes; the floor is a request of the same
//! server that does nothing.

use crate::report::{Aim, Measured};
use crate::stats::Samples;
use anyhow::{Context as _, Result, bail};
use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::client::prompt::SendPrompt;
use greenroom_protocol::client::repository::AddRepository;
use greenroom_protocol::client::session::CreateSession;
use greenroom_protocol::id::SessionId;
use greenroom_sdk::{Client, IdempotencyKey, Secret};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// What this file measures.
pub const NAMES: &[&str] = &[
    "prompt.to_model_request",
    "prompt.to_model_request_cold",
    "server.ready",
];

const WARM_UP: usize = 10;
const WARM_ROUNDS: usize = 300;
const COLD_ROUNDS: usize = 60;
const READY_ROUNDS: usize = 10;
/// The aims of SPECIFICATION.md.
const TO_MODEL: Aim = Aim {
    p50: Some(5.0),
    p99: Some(20.0),
};
const READY: Aim = Aim {
    p50: Some(200.0),
    p99: None,
};

/// Runs all of them.
pub async fn run() -> Result<Vec<Measured>> {
    let temp = tempfile::Builder::new().prefix("gr-bench-").tempdir()?;
    let (model_url, mut arrivals) = model().await?;
    let config = temp.path().join("greenroom.toml");
    std::fs::write(
        &config,
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = {:?}\n[models]\ndefault = \"bench/model\"\n\
             [[providers]]\nid = \"bench\"\nkind = \"openai-chat\"\nbase_url = \"{model_url}\"\nmodels = [\"model\"]\n",
            temp.path().join("data")
        ),
    )?;
    let mut ready = Samples::default();
    for _ in 1..READY_ROUNDS {
        let (server, took) = Server::start(&config, temp.path())?;
        ready.push(took);
        drop(server);
    }
    let (server, took) = Server::start(&config, temp.path())?;
    ready.push(took);
    let client = server.client()?;
    let source = repository(temp.path())?;
    client
        .add_repository(&AddRepository {
            name: "bench".to_owned(),
            source: Some(source),
        })
        .await?;

    let (mut warm, mut cold, mut floor) = (Samples::default(), Samples::default(), Samples::default());
    let session = new_session(&client).await?;
    for round in 0..WARM_UP + WARM_ROUNDS {
        let idle = nothing(&client).await?;
        let took = prompt(&client, &session, &mut arrivals).await?;
        if round >= WARM_UP {
            warm.push(took);
            floor.push(idle);
        }
    }
    for round in 0..WARM_UP + COLD_ROUNDS {
        let session = new_session(&client).await?;
        let took = prompt(&client, &session, &mut arrivals).await?;
        if round >= WARM_UP {
            cold.push(took);
        }
    }
    drop(server);
    Ok([
        Measured::duration(
            "prompt.to_model_request",
            &warm,
            TO_MODEL,
            &[("http round trip", &floor)],
        ),
        Measured::duration(
            "prompt.to_model_request_cold",
            &cold,
            TO_MODEL,
            &[("http round trip", &floor)],
        ),
        Measured::duration("server.ready", &ready, READY, &[]),
    ]
    .into_iter()
    .flatten()
    .collect())
}

/// From the call to the request's arrival; returns when the turn is over, so that rounds do not meet.
async fn prompt(
    client: &Client,
    session: &SessionId,
    arrivals: &mut mpsc::Receiver<Instant>,
) -> Result<Duration> {
    let before = client.session(session).await?.last_seq;
    let prompt = SendPrompt {
        text: "Say hello.".to_owned(),
        images: Vec::new(),
        model: None,
    };
    let began = Instant::now();
    client
        .send_prompt(session, &prompt, &IdempotencyKey::fresh())
        .await?;
    let arrived = tokio::time::timeout(Duration::from_secs(30), arrivals.recv())
        .await?
        .context("the model is gone")?;
    loop {
        let page = client.events(session, before, 500).await?;
        let ended = page.events.iter().find_map(|event| match &event.body {
            EventBody::TurnCompleted { outcome, .. } => Some(format!("{outcome:?}")),
            _ => None,
        });
        match ended {
            Some(outcome) if outcome == "Completed" => return Ok(arrived.duration_since(began)),
            Some(outcome) => bail!("the turn ended with {outcome}"),
            None => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}

async fn nothing(client: &Client) -> Result<Duration> {
    let began = Instant::now();
    client.health().await?;
    Ok(began.elapsed())
}

async fn new_session(client: &Client) -> Result<SessionId> {
    let create = CreateSession {
        repository: "bench".to_owned(),
        base_branch: None,
        model: None,
        prompt: None,
        images: Vec::new(),
    };
    Ok(client
        .create_session(&create, &IdempotencyKey::fresh())
        .await?
        .session
        .id)
}

/// A model that answers each request with one word, and says when the request's first byte came.
async fn model() -> Result<(String, mpsc::Receiver<Instant>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/v1", listener.local_addr()?);
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, sender.clone()));
        }
    });
    Ok((url, receiver))
}

async fn answer(mut stream: TcpStream, sender: mpsc::Sender<Instant>) -> Result<()> {
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

fn repository(temp: &Path) -> Result<String> {
    let directory = temp.join("repository");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("README.md"), "A repository.\n")?;
    for arguments in [
        &["init", "-q", "-b", "main"][..],
        &["add", "-A"],
        &[
            "-c",
            "user.name=Bench",
            "-c",
            "user.email=bench@example.com",
            "commit",
            "-q",
            "-m",
            "First",
        ],
    ] {
        let status = Command::new("git")
            .args(arguments)
            .current_dir(&directory)
            .status()?;
        anyhow::ensure!(status.success(), "git {arguments:?} failed");
    }
    Ok(directory.to_string_lossy().into_owned())
}

/// A server process; ends with this value.
struct Server {
    child: Child,
    data_dir: PathBuf,
}

impl Server {
    /// Starts it and measures until it answers.
    fn start(config: &Path, temp: &Path) -> Result<(Self, Duration)> {
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

    fn client(&self) -> Result<Client> {
        let info: serde_json::Value =
            serde_json::from_slice(&std::fs::read(self.data_dir.join("server.json"))?)?;
        let token = std::fs::read_to_string(self.data_dir.join("cli-token"))?;
        let url = info["url"].as_str().context("no address")?;
        Ok(Client::new(url, Secret::new(token.trim()))?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM, so that sandboxes end as well.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}
