//! Puts this machine's host behind the server's view of sandboxes. Only translation: neither side knows the other.

use async_trait::async_trait;
use greenroom_host::{Host, HostError, Limits, Login, SandboxFile, SandboxUser, StartSandbox};
use greenroom_protocol::client::event::SandboxUsage;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::environment::Base;
use greenroom_protocol::guest::call::{Call, ChangeBatch, Exec, Exit, FileBytes, OutputChunk, Reply, Scope};
use greenroom_protocol::id::{SandboxId, SnapshotId};
use greenroom_protocol::reference::Reference;
use greenroom_server::sandbox::{
    Artifact, FileChanges, Frozen, Measure, Origin, Pulled, RouteHandler, Sandbox, SandboxError,
    SandboxProvider, SandboxResources, Sealed, StartRequest, StepObserver, TerminalInput,
};
use greenroom_stdx::secret::Secret;
use greenroom_store::catalog::Catalog;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Sandboxes of this machine.
pub struct LocalSandboxes {
    host: Host,
    /// Has the logins of registries.
    catalog: Arc<Catalog>,
    /// Of an image that is pulled.
    max_base_bytes: u64,
}

impl LocalSandboxes {
    /// All of one host.
    pub fn new(host: Host, catalog: Arc<Catalog>, max_base_bytes: u64) -> Self {
        Self {
            host,
            catalog,
            max_base_bytes,
        }
    }

    /// The snapshot that a base is; `None`: the host's own programs.
    async fn base(&self, base: &Base, say: &StepObserver) -> Result<Option<SnapshotId>, Problem> {
        let found = match base {
            Base::Host => return Ok(None),
            Base::Image(reference) => {
                let login = self.login(&reference.registry).await?;
                self.host
                    .pull(reference, login, self.max_base_bytes, &**say)
                    .await
            }
            Base::Files(path) => self.host.import(path, self.max_base_bytes).await,
        };
        let found = found.map_err(|error| {
            let cause = greenroom_stdx::chain::Chain(&error);
            tracing::info!(%base, error = %cause, "a base cannot be had");
            error.problem()
        })?;
        match found.root {
            Some(_) => Ok(Some(found.id)),
            None => Err(Problem::permanent(
                "base_is_no_root",
                "The base holds only what lies above a host's own programs.",
            )
            .with_hint("It was pushed from a sandbox over the base `host`. Pull it with `greenroom image pull` instead.")),
        }
    }

    /// A login is a secret that is named for the registry.
    async fn login(&self, registry: &str) -> Result<Option<Login>, Problem> {
        let name = format!("registry.{}", registry.replace(':', "_"));
        let stored = self
            .catalog
            .secret(&name)
            .await
            .map_err(|error| error.problem())?;
        let Some(stored) = stored else {
            return Ok(None);
        };
        match stored.expose().split_once(':') {
            Some((username, password)) => Ok(Some(Login {
                registry: registry.to_owned(),
                username: username.to_owned(),
                password: Secret::new(password.to_owned()),
            })),
            None => Err(Problem::permanent(
                "registry_login_invalid",
                format!("The secret {name} is no login."),
            )
            .with_hint("Set it to NAME:PASSWORD.")),
        }
    }
}

#[async_trait]
impl SandboxProvider for LocalSandboxes {
    async fn start(&self, request: StartRequest) -> Result<(Arc<dyn Sandbox>, Origin), Problem> {
        let found = self.host.find(&request.id, request.routes.clone()).await;
        if let Some(sandbox) = found.map_err(|error| error.problem())? {
            return Ok((LocalSandbox::watch(&self.host, sandbox), Origin::Found));
        }
        let mut from = request.from;
        if from.is_none() && request.base != Base::Host && self.host.is_new(&request.id).await {
            from = self
                .base(&request.base, &(Arc::new(|_| {}) as StepObserver))
                .await?;
        }
        let files = request.files.into_iter();
        let start = StartSandbox {
            env: request.variables,
            limits: limits(&request.resources),
            user: SandboxUser {
                is_root: request.is_root || request.user.as_deref() == Some("root"),
                name: request.user,
            },
            backend: request.backend,
            runtime: request.runtime,
            files: files.map(|(name, bytes)| SandboxFile { name, bytes }).collect(),
            root_variables: request.root_variables,
            from,
            ..StartSandbox::new(request.id, request.routes)
        };
        let started = self.host.start(start).await.map_err(|error| error.problem())?;
        Ok((LocalSandbox::watch(&self.host, started), Origin::Started))
    }

    async fn find(&self, id: &SandboxId, routes: RouteHandler) -> Result<Option<Arc<dyn Sandbox>>, Problem> {
        let found = self.host.find(id, routes).await;
        Ok(found
            .map_err(|error| error.problem())?
            .map(|sandbox| LocalSandbox::watch(&self.host, sandbox)))
    }

    async fn is_running(&self, id: &SandboxId) -> Result<bool, Problem> {
        self.host.is_running(id).await.map_err(|error| error.problem())
    }

    async fn stop(&self, id: &SandboxId) -> Result<(), Problem> {
        self.host.stop(id).await.map_err(|error| error.problem())
    }

    async fn remove(&self, id: &SandboxId) -> Result<(), Problem> {
        self.host.remove(id).await.map_err(|error| error.problem())
    }

    async fn seal(&self, id: &SandboxId) -> Result<Sealed, Problem> {
        let seal = async {
            let snapshot = self.host.seal_image(id).await?;
            let size_bytes = self.host.snapshot_bytes(&snapshot).await?;
            Ok(Sealed {
                id: snapshot.id,
                layers: snapshot.layers,
                size_bytes,
            })
        };
        seal.await.map_err(|error: HostError| error.problem())
    }

    async fn snapshot(&self, id: &SandboxId) -> Result<Sealed, Problem> {
        let take = async {
            let snapshot = self.host.snapshot(id).await?.snapshot;
            let size_bytes = self.host.snapshot_bytes(&snapshot).await?;
            Ok(Sealed {
                id: snapshot.id,
                layers: snapshot.layers,
                size_bytes,
            })
        };
        take.await.map_err(|error: HostError| error.problem())
    }

    async fn copy_snapshot(&self, id: &SnapshotId) -> Result<SnapshotId, Problem> {
        let copied = self.host.copy_snapshot(id).await;
        Ok(copied.map_err(|error| error.problem())?.id)
    }

    async fn is_new(&self, id: &SandboxId) -> bool {
        self.host.is_new(id).await
    }

    async fn find_text(
        &self,
        id: &SandboxId,
        texts: Vec<Secret>,
    ) -> Result<Option<(String, usize)>, Problem> {
        let found = self.host.find_text(id, texts).await;
        let found = found.map_err(|error| error.problem())?;
        Ok(found.map(|(path, which)| (path.display().to_string(), which)))
    }

    async fn remove_snapshots(&self, ids: &[SnapshotId]) -> Result<(), Problem> {
        let removed = self.host.remove_snapshots(ids).await;
        removed.map(|_| ()).map_err(|error| error.problem())
    }

    async fn retain_snapshots(&self, wanted: &[SnapshotId]) -> Result<(), Problem> {
        let removed = self.host.retain_snapshots(wanted).await;
        removed.map(|_| ()).map_err(|error| error.problem())
    }

    fn file_clock(&self) -> SystemTime {
        greenroom_host::file_clock()
    }

    async fn has_changed_since(&self, id: &SandboxId, since: SystemTime) -> Result<bool, Problem> {
        let has_changed = self.host.has_changed_since(id, since).await;
        has_changed.map_err(|error| error.problem())
    }

    async fn snapshot_bytes(&self, ids: &[SnapshotId]) -> Result<u64, Problem> {
        let bytes = self.host.bytes_of_snapshots(ids).await;
        bytes.map_err(|error| error.problem())
    }

    async fn disk_bytes(&self, id: &SandboxId) -> Result<u64, Problem> {
        let usage = self.host.usage(id).await.map_err(|error| error.problem())?;
        Ok(usage.disk_bytes)
    }

    async fn freeze(&self, id: &SandboxId) -> Result<Frozen, Problem> {
        let frozen = self.host.freeze(id).await.map_err(|error| error.problem())?;
        Ok(Box::new(frozen))
    }

    async fn prepare_base(&self, base: &Base, say: StepObserver) -> Result<(), Problem> {
        self.base(base, &say).await.map(drop)
    }

    async fn pin_image(&self, reference: &Reference) -> Result<Reference, Problem> {
        let login = self.login(&reference.registry).await?;
        let pinned = self.host.pin_image(reference, login).await;
        pinned.map_err(|error| error.problem())
    }

    async fn pull_artifact(&self, reference: &Reference, file: &str) -> Result<Artifact, Problem> {
        let login = self.login(&reference.registry).await?;
        let pulled = self.host.pull_artifact(reference, login, file).await;
        let (archive, file) = pulled.map_err(|error| error.problem())?;
        Ok(Artifact { archive, file })
    }

    async fn push_snapshot(
        &self,
        id: &SnapshotId,
        reference: &Reference,
        annotations: BTreeMap<String, String>,
        say: StepObserver,
    ) -> Result<Reference, Problem> {
        let login = self.login(&reference.registry).await?;
        let pushed = self.host.push(id, reference, login, annotations, &*say).await;
        pushed.map_err(|error| error.problem())
    }

    async fn pull_snapshot(&self, reference: &Reference, say: StepObserver) -> Result<Pulled, Problem> {
        let login = self.login(&reference.registry).await?;
        let pull = async {
            let pulled = self
                .host
                .pull(reference, login, self.max_base_bytes, &*say)
                .await?;
            Ok(Pulled {
                size_bytes: self.host.snapshot_bytes(&pulled).await?,
                id: pulled.id,
                layers: pulled.layers,
                annotations: pulled.annotations,
            })
        };
        pull.await.map_err(|error: HostError| error.problem())
    }

    async fn base_digest(&self, base: &Base) -> Result<String, Problem> {
        match base {
            Base::Host => Ok(self.host.base_digest()),
            Base::Image(reference) => self.host.image_digest(reference).map_err(|error| error.problem()),
            Base::Files(path) => self
                .host
                .files_digest(path)
                .await
                .map_err(|error| error.problem()),
        }
    }

    async fn reap(&self, wanted: &[SandboxId]) -> Result<(), Problem> {
        let removed = self.host.reap(wanted).await.map_err(|error| error.problem())?;
        if !removed.is_empty() {
            tracing::info!(count = removed.len(), "removed sandboxes that no session wants");
        }
        Ok(())
    }
}

fn limits(resources: &SandboxResources) -> Limits {
    Limits {
        memory_bytes: resources.memory_bytes,
        max_processes: resources.max_processes,
        cpu_millis: resources.cpu_millis,
        max_open_files: resources.max_open_files,
        disk_bytes: resources.disk_bytes,
        wall_time: Some(resources.wall_time),
        max_output_bytes: resources.max_output_bytes,
        ..Limits::default()
    }
}

struct LocalSandbox {
    host: Host,
    sandbox: greenroom_host::Sandbox,
    is_closed: Arc<AtomicBool>,
}

impl LocalSandbox {
    fn watch(host: &Host, sandbox: greenroom_host::Sandbox) -> Arc<dyn Sandbox> {
        let is_closed = Arc::new(AtomicBool::new(false));
        let (watched, flag) = (sandbox.clone(), is_closed.clone());
        // Ends with the link.
        tokio::spawn(async move {
            watched.closed().await;
            flag.store(true, Ordering::Relaxed);
        });
        Arc::new(Self {
            host: host.clone(),
            sandbox,
            is_closed,
        })
    }
}

fn translated(error: greenroom_host::SandboxError) -> SandboxError {
    match error {
        greenroom_host::SandboxError::Call(error) => SandboxError::Call(error),
        greenroom_host::SandboxError::Lost(problem) => SandboxError::Lost(problem),
    }
}

struct LocalChanges(greenroom_host::Changes);

#[async_trait]
impl FileChanges for LocalChanges {
    async fn next(&mut self) -> Result<Option<ChangeBatch>, SandboxError> {
        self.0.next().await.map_err(translated)
    }
}

#[async_trait]
impl Sandbox for LocalSandbox {
    async fn call(&self, call: Call) -> Result<Reply, SandboxError> {
        self.sandbox.call(call).await.map_err(translated)
    }

    async fn read_file(
        &self,
        path: &str,
        scope: Scope,
        offset: u64,
        max_bytes: u64,
    ) -> Result<FileBytes, SandboxError> {
        self.sandbox
            .read_file(path, scope, offset, max_bytes)
            .await
            .map_err(translated)
    }

    async fn write_file(&self, path: &str, scope: Scope, bytes: Vec<u8>) -> Result<(), SandboxError> {
        self.sandbox
            .write_file(path, scope, bytes)
            .await
            .map_err(translated)
    }

    async fn exec(
        &self,
        exec: Exec,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, SandboxError> {
        self.sandbox.exec(exec, output, cancel).await.map_err(translated)
    }

    async fn attach(
        &self,
        process_id: u32,
        after_offset: u64,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, SandboxError> {
        let program = self
            .sandbox
            .attach(process_id, after_offset)
            .await
            .map_err(translated)?;
        program.follow(None, output, cancel).await.map_err(translated)
    }

    async fn terminal(
        &self,
        exec: Exec,
        mut input: mpsc::Receiver<TerminalInput>,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, SandboxError> {
        let program = self.sandbox.begin(exec).await.map_err(translated)?;
        let process_id = program.process_id();
        let (typed, bytes) = mpsc::channel(1);
        let feed = async move {
            while let Some(input) = input.recv().await {
                match input {
                    TerminalInput::Bytes(bytes) => {
                        if typed.send(bytes).await.is_err() {
                            return;
                        }
                    }
                    // A program that is just ending has no size.
                    TerminalInput::Resize(size) => {
                        drop(self.sandbox.resize_terminal(process_id, size).await);
                    }
                }
            }
        };
        let fed = async {
            feed.await;
            std::future::pending().await
        };
        tokio::select! {
            exit = program.follow(Some(bytes), output, cancel) => exit.map_err(translated),
            never = fed => never,
        }
    }

    async fn watch(&self, path: &str, scope: Scope) -> Result<Box<dyn FileChanges>, SandboxError> {
        let changes = self.sandbox.watch(path, scope).await.map_err(translated)?;
        Ok(Box::new(LocalChanges(changes)))
    }

    async fn spawn(&self, exec: Exec) -> Result<u32, SandboxError> {
        self.sandbox.spawn(exec).await.map_err(translated)
    }

    async fn begin_measure(&self) -> Result<Arc<dyn Measure>, Problem> {
        let measure = self.host.begin_measure(&self.sandbox).await;
        Ok(Arc::new(LocalMeasure(measure.map_err(|error| error.problem())?)))
    }

    fn is_alive(&self) -> bool {
        !self.is_closed.load(Ordering::Relaxed)
    }
}

struct LocalMeasure(greenroom_host::Measure);

#[async_trait]
impl Measure for LocalMeasure {
    async fn usage(&self) -> Result<SandboxUsage, Problem> {
        let usage = self.0.usage().await.map_err(|error| error.problem())?;
        Ok(SandboxUsage {
            cpu_ms: usage.cpu_ms,
            peak_memory_bytes: usage.peak_memory_bytes,
            disk_bytes: usage.disk_bytes,
        })
    }
}
