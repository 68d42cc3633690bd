//! One image build, in a sandbox of its own: clone, the environment's steps, seal. The sandbox reaches the repository only until it is
//! cloned, so before any code of the repository runs.

use super::IMAGE_MARK;
use super::features::{self, Feature};
use super::log::BuildLog;
use super::plan::{self, Facts, Inputs};
use crate::broker::build_routes;
use crate::egress::{Advice, EgressLedger, SandboxEgress};
use crate::environment::{BoundedEnvironment, RepositoryEgress};
use crate::repositories;
use crate::sandbox::{Sandbox, SandboxError, StartRequest, StepObserver};
use crate::session::services::SessionServices;
use crate::session::{Runner, look, place, start_and_await_services};
use crate::start_request::start_request;
use crate::workspace_git::{self, CLONE, TIDY, TIDY_OTHER};
use greenroom_protocol::client::image::{
    Image, ImageRepository, ImageState, ImageStep, StepName, StepOutcome,
};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::WorkspaceRepository;
use greenroom_protocol::environment::StepDefinition;
use greenroom_protocol::guest::WORKSPACE_PATH;
use greenroom_protocol::guest::call::{Exec, Exit, KillReason, LimitKind, OutputChunk, Scope};
use greenroom_protocol::id::SandboxId;
use greenroom_protocol::reference::ReferenceError;
use greenroom_stdx::id::fresh_bits;
use greenroom_stdx::secret::Secret;
use greenroom_stdx::step;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// For programs of ours, such as git.
const OWN_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// What a feature's archive says of it.
const DESCRIPTION: &str = "devcontainer-feature.json";

/// Where a step finds its secrets: memory, not disk.
const SECRETS_PLACE: &str = "/run/secrets";
const HIDE_SECRETS: &str = "rm -rf /run/secrets";

/// Output kept of a program of ours, in bytes.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Shortest value of a secret that is looked for: shorter ones are in files by chance.
const MIN_SECRET_BYTES: usize = 8;

/// Whoever is told how a build goes on.
pub trait Progress: Send + Sync {
    /// Keeps the image as it is now.
    fn changed(&self, image: &Image) -> impl Future<Output = ()> + Send;
}

/// Builds an image, changing it on the way. Nothing is left of the sandbox; of a failed build nothing but its record and its log.
pub async fn build<P: Progress>(
    services: &Arc<SessionServices>,
    image: &mut Image,
    previous: Option<Image>,
    log: &mut BuildLog,
    progress: &P,
) -> Result<(), Problem> {
    let environment = environment_of(services, &image.repository, &image.branch).await?;
    let (name, branch) = (&image.repository, &image.branch);
    let repositories = repositories::repositories(&services.forge, name, branch, &environment).await?;
    image.environment_digest = plan::environment_digest(&environment);
    image.policy_digest = plan::policy_digest(&environment);
    image.base = environment.base.to_string();
    image.base_digest = services.sandboxes.base_digest(&environment.base).await?;
    let facts = Facts {
        environment_digest: &image.environment_digest.clone(),
        base_digest: &image.base_digest.clone(),
        plan: &environment.image,
        now_ms: services.clock.now_ms(),
    };
    let previous = previous.filter(|previous| plan::can_build_on(previous, &facts));
    image.built_on = previous.as_ref().map(|previous| previous.id.clone());
    (image.line_began_at_ms, image.line_length) = match &previous {
        Some(previous) => (previous.line_began_at_ms, previous.line_length + 1),
        None => (image.created_at_ms, 0),
    };
    let id = SandboxId::from_bits(fresh_bits());
    let mut build = Build {
        services,
        environment: &environment,
        repositories,
        facts,
        image,
        previous,
        features: Vec::new(),
        log,
        progress,
        id: id.clone(),
    };
    let built = build.run().await;
    step::reached("build.ended");
    if let Err(problem) = services.sandboxes.remove(&id).await {
        tracing::warn!(sandbox = %id, code = problem.code, "the sandbox of a build is still there: {}", problem.message);
    }
    built
}

/// The environment in force at the head of a branch.
pub async fn environment_of(
    services: &SessionServices,
    repository: &str,
    branch: &str,
) -> Result<BoundedEnvironment, Problem> {
    let finder = services.environments(true);
    finder
        .find(repository, Some(branch))
        .await?
        .bounded(&services.bounds)
}

struct Build<'a, P> {
    services: &'a Arc<SessionServices>,
    environment: &'a BoundedEnvironment,
    /// The image's own first.
    repositories: Vec<WorkspaceRepository>,
    facts: Facts<'a>,
    image: &'a mut Image,
    previous: Option<Image>,
    /// Set with the sandbox.
    features: Vec<Feature>,
    log: &'a mut BuildLog,
    progress: &'a P,
    id: SandboxId,
}

impl<P: Progress> Build<'_, P> {
    async fn run(&mut self) -> Result<(), Problem> {
        let began = self.begin(StepName::Clone, ImageState::Cloning).await;
        let mut cloned = self.clone_repository().await;
        if let (Err(problem), true) = (&cloned, self.previous.is_some()) {
            // Steps may have left anything in it.
            let line = format!("the image before cannot be gone on from: {}", problem.message);
            self.log.line(&line).await;
            self.services.sandboxes.remove(&self.id).await?;
            self.begin_anew();
            cloned = self.clone_repository().await;
        }
        let sandbox = self.end(began, StepOutcome::Done, cloned).await?;
        step::reached("build.cloned");

        self.steps(&sandbox).await?;
        step::reached("build.built");

        let began = self.begin(StepName::Seal, ImageState::Sealing).await;
        drop(sandbox);
        let sealed = self.seal().await;
        self.end(began, StepOutcome::Done, sealed).await
    }

    /// Starts a sandbox with the repository in it. Afterwards it has no way to the repository any more.
    async fn clone_repository(&mut self) -> Result<Arc<dyn Sandbox>, Problem> {
        self.prepare_base().await?;
        let is_cloned = CancellationToken::new();
        // Also when this fails.
        let _closes = is_cloned.clone().drop_guard();
        let sandbox = self.start(is_cloned).await?;
        self.image.repositories.clear();
        for repository in &self.repositories.clone() {
            let WorkspaceRepository {
                name,
                base_branch,
                path,
            } = repository;
            let mut own_name = "";
            if !repository.is_own() {
                own_name = name;
                place(in_workspace(&sandbox, &CancellationToken::new()), repository).await?;
            }
            let directory = repository.directory();
            let clone = [base_branch.as_str(), &repository.remote(), own_name];
            self.own_in(&sandbox, &directory, CLONE, &clone).await?;
            let commit = self
                .own_in(&sandbox, &directory, "git rev-parse HEAD", &[])
                .await?;
            match repository.is_own() {
                true => self.image.commit = Some(commit),
                false => self.image.repositories.push(ImageRepository {
                    name: name.clone(),
                    branch: base_branch.clone(),
                    path: path.clone(),
                    commit,
                }),
            }
        }
        Ok(sandbox)
    }

    /// Gets what the sandbox begins with, if nothing was built on it before.
    async fn prepare_base(&mut self) -> Result<(), Problem> {
        if self.previous.is_some() {
            return Ok(());
        }
        let (sender, mut steps) = mpsc::unbounded_channel();
        let say: StepObserver = Arc::new(move |step| drop(sender.send(step)));
        let log = &mut *self.log;
        let follow = async {
            while let Some(step) = steps.recv().await {
                log.line(&step).await;
            }
        };
        let prepare = self.services.sandboxes.prepare_base(&self.environment.base, say);
        let prepared = async { tokio::join!(prepare, follow).0 };
        let prepared = async {
            let prepared = tokio::time::timeout(self.environment.image.step_timeout, prepared).await;
            prepared.unwrap_or_else(|_| {
                Err(
                    Problem::transient("step_timed_out", "The base did not arrive in time.")
                        .with_hint("An environment's image.step_timeout_minutes sets the limit."),
                )
            })
        };
        tokio::select! {
            prepared = prepared => prepared,
            () = self.services.shutdown.cancelled() => Err(Problem::transient(
                plan::INTERRUPTED,
                "The server was stopped while the image was built.",
            )),
        }
    }

    async fn get_features(&mut self) -> Result<(), Problem> {
        self.features.clear();
        for definition in &self.facts.plan.features {
            let reference = definition.reference.parse();
            let reference = reference.map_err(|error: ReferenceError| {
                Problem::permanent("feature_invalid", format!("{error}."))
            })?;
            let artifact = self
                .services
                .sandboxes
                .pull_artifact(&reference, DESCRIPTION)
                .await?;
            let feature = Feature::new(definition.clone(), artifact.archive, artifact.file.as_deref())?;
            for remark in feature.remarks() {
                self.log.line(&remark).await;
            }
            self.features.push(feature);
            let size: usize = self.features.iter().map(Feature::size_bytes).sum();
            if size > features::MAX_ARCHIVES_BYTES {
                return Err(Problem::permanent(
                    "features_too_large",
                    "The features of the environment are too large together.",
                )
                .with_hint("Install some of them in `setup`, or name an image that has them."));
            }
        }
        Ok(())
    }

    /// Takes nothing over from the image before.
    fn begin_anew(&mut self) {
        self.previous = None;
        self.image.built_on = None;
        self.image.line_began_at_ms = self.image.created_at_ms;
        self.image.line_length = 0;
    }

    async fn start(&mut self, is_cloned: CancellationToken) -> Result<Arc<dyn Sandbox>, Problem> {
        let (services, environment) = (self.services, self.environment);
        let egress = SandboxEgress::new(
            services.catalog.clone(),
            services.egress.clone(),
            self.id.clone(),
            environment.egress.clone(),
            Advice::new(
                &self.image.repository,
                environment.source,
                services.bounds.repository_egress == RepositoryEgress::Any,
            ),
            Arc::new(EgressLedger::default()),
            services.metrics.clone(),
        );
        let routes = build_routes(
            services.clone(),
            repositories::names(&self.image.repository, environment),
            is_cloned,
            egress.clone(),
        );
        self.get_features().await?;
        let from = self
            .previous
            .as_ref()
            .and_then(|previous| previous.snapshot_id.clone());
        let mut request = StartRequest {
            // Features are made for root.
            is_root: environment.image.as_root || !environment.image.features.is_empty(),
            ..start_request(environment, &self.id, &egress, routes, from)?
        };
        for (number, feature) in self.features.iter().enumerate() {
            request.files.push(feature.file(number));
        }
        request.root_variables = features::variables(&self.features);
        let started = services.sandboxes.start(request.clone()).await;
        let started = match started {
            // Its files are gone, so it is built from nothing.
            Err(problem) if request.from.is_some() && problem.code.starts_with("snapshot_") => {
                self.log
                    .line(&format!("the image before cannot be used: {}", problem.message))
                    .await;
                self.begin_anew();
                request.from = None;
                services.sandboxes.start(request).await
            }
            started => started,
        };
        Ok(started?.0)
    }

    /// Setup, build and warm, as far as something that they depend on has changed.
    async fn steps(&mut self, sandbox: &Arc<dyn Sandbox>) -> Result<(), Problem> {
        let mut before = String::new();
        let mut has_services = false;
        // Once one has run, what it changed may concern all that follow.
        let mut must_run = false;
        for (name, step) in plan::steps(self.facts.plan) {
            let state = match name {
                StepName::Build => ImageState::Building,
                StepName::Warm => ImageState::Testing,
                _ => ImageState::Installing,
            };
            let began = self.begin(name, state).await;
            let inputs = self.inputs(sandbox, name, step).await;
            let inputs = match inputs {
                Ok(inputs) => inputs,
                Err(problem) => return self.end(began, StepOutcome::Failed, Err(problem)).await,
            };
            let key = plan::key(&self.facts, &before, name, step, &inputs);
            if let Some(step) = self.image.steps.last_mut() {
                step.key.clone_from(&key);
            }
            if !must_run && plan::is_cached(self.previous.as_ref(), name, &key) {
                self.log.line("nothing that it depends on changed").await;
                self.end(began, StepOutcome::Cached, Ok(())).await?;
            } else {
                must_run = true;
                if name != StepName::Setup && !has_services {
                    has_services = true;
                    let services = &self.environment.services;
                    for line in start_and_await_services(sandbox, services).await {
                        self.log.line(&line).await;
                    }
                }
                let ran = match self.show_secrets(sandbox, step).await {
                    Ok(()) => self.step(sandbox, name, step).await,
                    Err(problem) => Err(problem),
                };
                // Also of a step that failed: what follows is not of this build.
                let hidden = match step.secrets.is_empty() {
                    true => Ok(()),
                    false => self.own(sandbox, HIDE_SECRETS, &[]).await.map(drop),
                };
                let ran = ran.and(hidden);
                self.end(began, StepOutcome::Done, ran).await?;
                step::reached("build.step");
            }
            before = key;
        }
        Ok(())
    }

    /// A digest of the files that a step depends on.
    async fn inputs(
        &mut self,
        sandbox: &Arc<dyn Sandbox>,
        name: StepName,
        step: &StepDefinition,
    ) -> Result<String, Problem> {
        let mut inputs = Vec::new();
        for repository in &self.repositories.clone() {
            let digest = match plan::inputs(name, step, &repository.path) {
                Inputs::None => continue,
                Inputs::All => {
                    self.own_in(
                        sandbox,
                        &repository.directory(),
                        "git rev-parse 'HEAD^{tree}'",
                        &[],
                    )
                    .await?
                }
                Inputs::Matching(patterns) => {
                    let patterns: Vec<_> = patterns.iter().map(String::as_str).collect();
                    let script = "git ls-files -s -z -- \"$@\" | sha256sum";
                    self.own_in(sandbox, &repository.directory(), script, &patterns)
                        .await?
                }
            };
            inputs.push(digest);
        }
        Ok(inputs.join(" "))
    }

    /// Puts a step's secrets where no disk is.
    async fn show_secrets(
        &mut self,
        sandbox: &Arc<dyn Sandbox>,
        step: &StepDefinition,
    ) -> Result<(), Problem> {
        for name in &step.secrets {
            let stored = self.services.catalog.secret(name).await;
            let Some(value) = stored.map_err(|error| error.problem())? else {
                let message = format!("There is no secret named {name}.");
                return Err(Problem::permanent("secret_missing", message)
                    .with_hint("Store it with `greenroom secret set NAME`."));
            };
            let path = format!("{SECRETS_PLACE}/{name}");
            let bytes = value.expose().as_bytes().to_vec();
            let written = sandbox.write_file(&path, Scope::Sandbox, bytes).await;
            written.map_err(|error| match error {
                SandboxError::Call(error) => Problem::permanent("secret_unusable", error.message),
                SandboxError::Lost(problem) => problem,
            })?;
        }
        Ok(())
    }

    async fn step(
        &mut self,
        sandbox: &Arc<dyn Sandbox>,
        name: StepName,
        step: &StepDefinition,
    ) -> Result<(), Problem> {
        self.log.line(&format!("$ {}", step.run)).await;
        let installing = features::script(&self.features);
        let script = match name {
            StepName::Features => &installing,
            _ => &step.run,
        };
        let exec = Exec {
            argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
            timeout_ms: u64::try_from(self.facts.plan.step_timeout.as_millis()).ok(),
            ..self.program()
        };
        let (sender, mut receiver) = mpsc::channel::<OutputChunk>(16);
        let log = &mut *self.log;
        let collect = async {
            while let Some(chunk) = receiver.recv().await {
                log.append(&chunk.bytes).await;
            }
        };
        let (exit, ()) = tokio::join!(
            sandbox.exec(exec, sender, self.services.shutdown.clone()),
            collect
        );
        let what = name.name();
        match exit {
            Ok(exit) if exit.code == Some(0) => Ok(()),
            Ok(exit) => Err(self.failed(what, &exit)),
            Err(SandboxError::Call(error)) => Err(Problem::permanent(
                "step_failed",
                format!("{what} could not be started: {}.", error.message),
            )),
            Err(SandboxError::Lost(problem)) => Err(problem),
        }
    }

    fn failed(&self, what: &str, exit: &Exit) -> Problem {
        let hint = "Its log says more: `greenroom image log`.";
        let failed = |code, message: String| Problem::permanent(code, message).with_hint(hint);
        if exit.limits_hit.contains(&LimitKind::Disk) {
            return disk_limit(what);
        }
        match (exit.killed, exit.code, exit.signal) {
            (Some(KillReason::TimedOut), ..) => failed(
                "step_timed_out",
                format!(
                    "{what} did not end within {} minutes.",
                    self.facts.plan.step_timeout.as_secs() / 60
                ),
            )
            .with_hint("An environment's image.step_timeout_minutes sets the limit."),
            (Some(KillReason::OutputLimit), ..) => failed(
                "step_output_limit",
                format!("{what} wrote more output than it may."),
            )
            .with_hint("An environment's resources.max_output_mb sets the limit."),
            (Some(KillReason::Cancelled), ..) => Problem::transient(
                plan::INTERRUPTED,
                "The server was stopped while the image was built.",
            ),
            (None, Some(code), _) => failed("step_failed", format!("{what} ended with code {code}.")),
            (None, None, signal) => failed(
                "step_failed",
                format!("{what} was ended by signal {}.", signal.unwrap_or_default()),
            ),
        }
    }

    /// Ends every process, makes sure that no secret is in the files, and makes them an image.
    async fn seal(&mut self) -> Result<(), Problem> {
        // What steps left running would write on while the workspace is put in order.
        self.services.sandboxes.stop(&self.id).await?;
        step::reached("build.reaped");
        let closed = CancellationToken::new();
        closed.cancel();
        let sandbox = self.start(closed).await?;
        for other in &self.repositories.clone()[1..] {
            // Whatever steps did.
            look(in_workspace(&sandbox, &CancellationToken::new()), other)
                .await?
                .problem(other)
                .map_or(Ok(()), Err)?;
            self.own_in(&sandbox, &other.directory(), TIDY_OTHER, &[]).await?;
        }
        self.own(&sandbox, TIDY, &[IMAGE_MARK]).await?;
        let sandboxes = &self.services.sandboxes;
        sandboxes.stop(&self.id).await?;
        // The limit is watched loosely while programs run; what stays is held to it exactly.
        if sandboxes.disk_bytes(&self.id).await? > self.environment.resources.disk_bytes {
            return Err(disk_limit("The build"));
        }
        let (names, values) = self.secrets().await?;
        if let Some((path, which)) = sandboxes.find_text(&self.id, values).await? {
            let name = names.get(which).map_or("?", String::as_str);
            return Err(Problem::permanent(
                "secret_in_image",
                format!("The file {path} holds the value of the secret `{name}`."),
            )
            .with_hint(
                "Let no step write it to a file; then change the secret, because the log may show it too.",
            ));
        }
        step::reached("build.searched");
        let sealed = sandboxes.seal(&self.id).await?;
        step::reached("build.sealed");
        self.image.snapshot_id = Some(sealed.id);
        self.image.layers = sealed.layers;
        self.image.size_bytes = Some(sealed.size_bytes);
        Ok(())
    }

    /// Values of all secrets that can be told from other texts, and their names.
    async fn secrets(&self) -> Result<(Vec<String>, Vec<Secret>), Problem> {
        let catalog = &self.services.catalog;
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for name in catalog.secret_names().await.map_err(|error| error.problem())? {
            let value = catalog.secret(&name).await.map_err(|error| error.problem())?;
            if let Some(value) = value.filter(|value| value.expose().len() >= MIN_SECRET_BYTES) {
                names.push(name);
                values.push(value);
            }
        }
        Ok((names, values))
    }

    /// Runs a script of ours in the workspace and returns what it said. One that fails says why in the log and the problem.
    async fn own(
        &mut self,
        sandbox: &Arc<dyn Sandbox>,
        script: &str,
        arguments: &[&str],
    ) -> Result<String, Problem> {
        self.own_in(sandbox, WORKSPACE_PATH, script, arguments).await
    }

    async fn own_in(
        &mut self,
        sandbox: &Arc<dyn Sandbox>,
        directory: &str,
        script: &str,
        arguments: &[&str],
    ) -> Result<String, Problem> {
        let argv = workspace_git::command(script, arguments);
        let exec = Exec {
            argv: argv.into_iter().map(str::to_owned).collect(),
            cwd: directory.to_owned(),
            env: workspace_git::environment(),
            timeout_ms: u64::try_from(OWN_TIMEOUT.as_millis()).ok(),
            ..self.program()
        };
        let (sender, mut receiver) = mpsc::channel::<OutputChunk>(16);
        let collect = async {
            let mut bytes = Vec::new();
            while let Some(chunk) = receiver.recv().await {
                let room = MAX_ANSWER_BYTES.saturating_sub(bytes.len());
                bytes.extend_from_slice(&chunk.bytes[..chunk.bytes.len().min(room)]);
            }
            bytes
        };
        let (exit, bytes) = tokio::join!(sandbox.exec(exec, sender, CancellationToken::new()), collect);
        let said = String::from_utf8_lossy(&bytes).trim().to_owned();
        match exit {
            Ok(exit) if exit.code == Some(0) => Ok(said),
            Ok(exit) => {
                self.log.append(said.as_bytes()).await;
                let last = said.lines().next_back().unwrap_or("it said nothing");
                Err(match exit.limits_hit.contains(&LimitKind::Disk) {
                    true => self.failed("Preparing the workspace", &exit),
                    false => Problem::permanent(
                        "image_workspace",
                        format!("The workspace could not be prepared: {last}"),
                    ),
                })
            }
            Err(SandboxError::Call(error)) => Err(Problem::permanent("image_workspace", error.message)),
            Err(SandboxError::Lost(problem)) => Err(problem),
        }
    }

    fn program(&self) -> Exec {
        Exec {
            cwd: WORKSPACE_PATH.to_owned(),
            is_merged: true,
            max_output_bytes: Some(self.environment.resources.max_output_bytes),
            ..Exec::default()
        }
    }

    async fn begin(&mut self, name: StepName, state: ImageState) -> Instant {
        self.log.line(name.name()).await;
        self.image.state = state;
        self.image.steps.push(ImageStep {
            name,
            outcome: StepOutcome::Running,
            duration_ms: 0,
            key: String::new(),
        });
        self.progress.changed(self.image).await;
        Instant::now()
    }

    /// Writes down how the step went that began last.
    async fn end<T>(
        &mut self,
        began: Instant,
        outcome: StepOutcome,
        ended: Result<T, Problem>,
    ) -> Result<T, Problem> {
        if let Some(step) = self.image.steps.last_mut() {
            step.outcome = match ended {
                Ok(_) => outcome,
                Err(_) => StepOutcome::Failed,
            };
            step.duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        }
        self.progress.changed(self.image).await;
        ended
    }
}

fn in_workspace<'a>(sandbox: &'a Arc<dyn Sandbox>, cancel: &'a CancellationToken) -> Runner<'a> {
    Runner {
        sandbox,
        directory: WORKSPACE_PATH,
        cancel,
    }
}

fn disk_limit(what: &str) -> Problem {
    Problem::permanent("step_disk_limit", format!("{what} took more disk than it may."))
        .with_hint("An environment's resources.disk_mb sets the limit.")
}
