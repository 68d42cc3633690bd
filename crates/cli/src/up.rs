//! `greenroom up`: puts all roles into one process and serves until it is told to stop. The one place where the crates meet.

use crate::config::{Config, EgressConfig};
use crate::models;
use crate::sandboxes::LocalSandboxes;
use anyhow::Context as _;
use greenroom_agent::driver::BuiltInDriver;
use greenroom_agent::world::TurnLimits;
use greenroom_forge::{Forge, ForgeConfig};
use greenroom_host::{Host, HostConfig};
use greenroom_protocol::client::problem::Problem;
use greenroom_server::api::app::Settings;
use greenroom_server::egress::EgressSettings;
use greenroom_server::environment::Bounds;
use greenroom_server::image::ImageBounds;
use greenroom_server::models::ModelDirectory;
use greenroom_server::sandbox::SandboxResources;
use greenroom_server::server::{Server, ServerParts};
use greenroom_server::session::ending::Retention;
use greenroom_server::session::running::RunningBounds;
use greenroom_server::session::snapshots::SnapshotBounds;
use greenroom_stdx::chain::Chain;
use greenroom_stdx::clock::Clock;
use greenroom_store::catalog::Catalog;
use greenroom_store::data_dir::{DataDir, ServerInfo};
use greenroom_store::sqlite_session_store::{SqliteSessionStore, StoreOptions};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use url::Url;

/// What `up` tells whoever started it, once it listens.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Address people open.
    pub url: String,
    /// One-time sign-in link of the owner.
    pub sign_in_link: String,
    /// Labels of the models, the default first.
    pub models: Vec<String>,
    /// Whether the default model plays a script.
    pub is_scripted: bool,
    /// Whether the web app is in this binary.
    pub has_web_app: bool,
}

/// Why the server could not start, with what a person can do.
#[derive(Debug, Error)]
#[error("{}", .0.message)]
pub struct UpError(pub Problem);

/// Serves until SIGTERM or SIGINT. `ready` is called once, when requests are answered.
pub async fn up(config: Config, ready: impl FnOnce(&Ready)) -> anyhow::Result<()> {
    // Listening for signals first: one that comes while the server starts must not leave files behind.
    let stop = stop_on_signals()?;
    let data = DataDir::open(&config.server.data_dir).map_err(|error| UpError(error.problem()))?;
    let listener = listen(config.server.listen).await?;
    let address = listener.local_addr().context("read the listening address")?;
    let url = config
        .server
        .public_url
        .clone()
        .unwrap_or_else(|| format!("http://{address}"));
    let clock = Clock::system();

    let catalog = Catalog::open(&data.catalog(), &data.secret_key())
        .await
        .map_err(|error| UpError(error.problem()))?;
    let catalog = Arc::new(catalog);
    let open_files = raise_open_files();
    let options = StoreOptions {
        // Three for each, and most of them for sockets and sandboxes.
        max_open: (open_files / 16).clamp(16, 1024),
        ..StoreOptions::default()
    };
    let store =
        SqliteSessionStore::open(data.sessions(), options).map_err(|error| UpError(error.problem()))?;
    let forge = Forge::open(ForgeConfig::new(data.forge(), &url, clock.clone()))
        .await
        .map_err(|error| UpError(error.problem()))?;
    let state_dir = config
        .sandbox
        .state_dir
        .clone()
        .unwrap_or_else(|| data.sandboxes());
    let host = Host::open(HostConfig {
        machines: config.sandbox.machines(),
        packs_layers: config.image.packs_layers,
        ..HostConfig::new(state_dir)
    })
    .await
    .map_err(|error| UpError(error.problem()))?;
    let models = ModelDirectory::new(models::registry(&config, &catalog)?);
    let server = Server::new(ServerParts {
        settings: Settings {
            max_connections: max_connections(open_files),
            ..settings(&config, &url)
        },
        catalog: catalog.clone(),
        store: Arc::new(store),
        forge: Arc::new(forge),
        models: models.clone(),
        driver: Arc::new(BuiltInDriver),
        sandboxes: Arc::new(LocalSandboxes::new(
            host.clone(),
            catalog.clone(),
            config.image.disk_mb.saturating_mul(MIB),
        )),
        clock: clock.clone(),
        bounds: bounds(&config),
        egress: egress(&config.egress)?,
        running: RunningBounds {
            idle: Duration::from_secs_f64(config.sandbox.idle_minutes * 60.0),
            still_after: Some(Duration::from_secs_f64(config.sandbox.still_seconds))
                .filter(|after| !after.is_zero()),
            session_idle: config.server.session_idle,
            max_running: config.sandbox.max_running,
            sync_timeout: Duration::from_secs(config.sandbox.sync_timeout_seconds),
        },
        images: ImageBounds {
            logs: data.image_logs(),
            max_builds: config.image.max_builds,
            max_disk_bytes: config.image.disk_mb.saturating_mul(MIB),
            is_scheduled: config.image.is_scheduled,
        },
        snapshots: SnapshotBounds {
            kept: config.snapshot.kept,
            max_age: Duration::from_secs(config.snapshot.max_age_days.saturating_mul(24 * 60 * 60)),
            max_disk_bytes: config.snapshot.disk_mb.saturating_mul(MIB),
            max_sandbox_bytes: config.snapshot.max_sandbox_mb.saturating_mul(MIB),
        },
        limits: TurnLimits {
            max_steps: config.agent.max_steps,
            max_output_tokens: config.agent.max_output_tokens,
            ..TurnLimits::default()
        },
    });

    server.clean_up().await;
    let token = server
        .owner_token("command line on the server's machine")
        .await
        .map_err(UpError)?;
    data.write_cli_token(&token)
        .map_err(|failure| UpError(failure.problem()))?;
    let sign_in_link = server.owner_sign_in_link().await.map_err(UpError)?;
    let info = ServerInfo {
        pid: std::process::id(),
        url: url.clone(),
        started_at_ms: clock.now_ms(),
    };
    data.write_server_info(&info)
        .map_err(|failure| UpError(failure.problem()))?;
    let listed = models.list();
    ready(&Ready {
        url,
        sign_in_link,
        is_scripted: listed.first().is_some_and(|model| model.is_scripted),
        models: listed.into_iter().map(|model| model.label).collect(),
        has_web_app: greenroom_server::has_web_app(),
    });
    let served = server.run(listener, stop).await.context("serve requests");
    // An orderly end leaves no process behind; the files stay, and sandboxes start over them when they are needed.
    stop_sandboxes(&host, &catalog).await;
    host.close().await;
    if let Err(failure) = data.clear_server_info() {
        tracing::warn!(error = %Chain(&failure), "the server's address file is still there");
    }
    served
}

async fn stop_sandboxes(host: &Host, catalog: &Catalog) {
    let sandboxes = match catalog.sandboxes().await {
        Ok(sandboxes) => sandboxes,
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "sandboxes still run, because they cannot be listed");
            return;
        }
    };
    for (session, sandbox) in sandboxes {
        if let Err(error) = host.stop(&sandbox).await {
            tracing::warn!(%session, %sandbox, error = %Chain(&error), "a sandbox still runs");
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, UpError> {
    TcpListener::bind(address).await.map_err(|error| {
        let problem = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                Problem::permanent("port_in_use", format!("Something else listens on {address}."))
                    .with_hint("Stop it, or choose another address with GREENROOM_LISTEN or `server.listen`.")
            }
            std::io::ErrorKind::PermissionDenied => Problem::permanent(
                "port_forbidden",
                format!("This user may not listen on {address}."),
            )
            .with_hint("Choose a port above 1023."),
            _ => Problem::permanent("listen_failed", format!("Cannot listen on {address}: {error}."))
                .with_hint("Check `server.listen`: it must be an address of this machine."),
        };
        UpError(problem)
    })
}

/// Most descriptors that are kept for what those who are connected ask for: databases of sessions, links to sandboxes, git.
const DESCRIPTORS_FOR_WORK: usize = 8192;

/// How many connections a process takes that may open so many files.
fn max_connections(open_files: usize) -> usize {
    (open_files - (open_files / 2).min(DESCRIPTORS_FOR_WORK)).max(64)
}

/// Lets this process have as many files and sockets open as the system allows, and says how many.
fn raise_open_files() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

fn settings(config: &Config, url: &str) -> Settings {
    let host = Url::parse(url)
        .ok()
        .and_then(|url| url.host_str().map(ToOwned::to_owned));
    Settings {
        public_url: url.to_owned(),
        allowed_hosts: host.into_iter().collect(),
        allowed_origins: config.server.allowed_origins.clone(),
        session_access: config.server.session_access,
        audit_age: Duration::from_secs(config.server.audit_days * 24 * 3600),
        retention: Retention {
            archive_after: config.server.archive_after,
            delete_after: config.server.delete_after,
        },
        max_connections: usize::MAX,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

const MIB: u64 = 1024 * 1024;

/// What environments may ask for.
fn bounds(config: &Config) -> Bounds {
    let sandbox = &config.sandbox;
    Bounds {
        maximum: SandboxResources {
            memory_bytes: sandbox.memory_mb.saturating_mul(MIB),
            // The configuration allows 0.1 to 1024 processors.
            cpu_millis: (sandbox.cpus * 1000.0).round() as u32,
            max_processes: u32::try_from(sandbox.max_processes).unwrap_or(u32::MAX),
            disk_bytes: sandbox.disk_mb.saturating_mul(MIB),
            max_open_files: sandbox.max_open_files,
            wall_time: Duration::from_secs(sandbox.wall_time_minutes.saturating_mul(60)),
            max_output_bytes: sandbox.max_output_mb.saturating_mul(MIB),
        },
        backends: sandbox.backends.clone(),
        runtimes: sandbox.runtimes.clone(),
        registries: config.image.registries.clone(),
        repository_egress: config.egress.repositories,
        max_pool: config.max_pool,
    }
}

fn egress(config: &EgressConfig) -> Result<EgressSettings, UpError> {
    let extra_roots = match &config.ca_file {
        None => Vec::new(),
        Some(path) => {
            let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let refuse = |detail: String| {
                let message = format!("{} cannot be used as certificates: {detail}.", path.display());
                UpError(
                    Problem::permanent("egress_ca_unusable", message)
                        .with_hint("Set `egress.ca_file` to a PEM file with certificates."),
                )
            };
            match read {
                Ok(roots) if roots.is_empty() => return Err(refuse("it holds none".to_owned())),
                Ok(roots) => roots,
                Err(error) => return Err(refuse(error.to_string())),
            }
        }
    };
    Ok(EgressSettings {
        address_exceptions: config.allow_addresses.clone(),
        extra_roots,
    })
}

fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let stopped = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopped.cancel();
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::max_connections;

    #[test]
    fn connections_leave_descriptors_for_their_work() {
        for (open_files, expected) in [
            (0, 64),
            (64, 64),
            (1_024, 512),
            (16_384, 8_192),
            (20_000, 11_808),
            (1_048_576, 1_040_384),
        ] {
            assert_eq!(max_connections(open_files), expected, "{open_files}");
        }
    }
}
