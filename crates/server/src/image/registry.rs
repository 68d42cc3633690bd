//! The images of all repositories: asks for builds by schedule and by hand, lets a bounded number run, keeps what is needed.

use super::build::{self, Progress, environment_of};
use super::log::{self, BuildLog};
use super::plan::{self, Attempts, Facts, INTERRUPTED};
use super::queue::{Queue, Waiting};
use crate::environment::BoundedEnvironment;
use crate::repositories::{heads, repositories};
use crate::session::services::SessionServices;
use greenroom_protocol::client::image::{Image, ImageList, ImageLog, ImageState, ImageTrigger};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::id::{ImageId, SnapshotId};
use greenroom_stdx::chain::Chain;
use greenroom_stdx::id::fresh_bits;
use greenroom_stdx::step;
use greenroom_store::catalog::CatalogError;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Between two looks at all repositories whether an image is due. One that changes is looked at at once.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Before the end of a build that could not be written is tried again.
const KEEP_RETRY: Duration = Duration::from_secs(2);

/// Images that a list shows of one repository.
const LISTED: u32 = 50;

/// Bounds on building.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageBounds {
    /// Logs of builds lie here.
    pub logs: PathBuf,
    /// Builds that run at once, at least 1.
    pub max_builds: usize,
    /// Bytes of all layers of all images; more are built only when others went.
    pub max_disk_bytes: u64,
    /// Whether images are built by themselves.
    pub is_scheduled: bool,
}

/// All images of this server.
pub struct ImageRegistry {
    pub(super) services: Arc<SessionServices>,
    bounds: ImageBounds,
    queue: Mutex<Queue>,
    /// When an image of a repository was asked for by schedule.
    asked: Mutex<HashMap<String, Instant>>,
    /// A build waits, or one ended.
    changed: Notify,
    /// Held by whoever publishes what was pulled.
    pub(super) publishing: tokio::sync::Mutex<()>,
}

/// What an image would be built of now.
struct Today {
    environment: BoundedEnvironment,
    /// The commits of the branches, the repository's own first.
    heads: Vec<String>,
    environment_digest: String,
    base_digest: String,
}

impl Today {
    fn facts(&self, now_ms: i64) -> Facts<'_> {
        Facts {
            environment_digest: &self.environment_digest,
            base_digest: &self.base_digest,
            plan: &self.environment.image,
            now_ms,
        }
    }
}

impl ImageRegistry {
    pub fn new(services: Arc<SessionServices>, bounds: ImageBounds) -> Arc<Self> {
        Arc::new(Self {
            services,
            bounds,
            queue: Mutex::default(),
            asked: Mutex::default(),
            changed: Notify::new(),
            publishing: tokio::sync::Mutex::default(),
        })
    }

    /// The images of a repository, the newest first.
    pub async fn list(&self, repository: &str) -> Result<ImageList, Problem> {
        let found = self.services.forge.repository(repository).await;
        let branch = found.map_err(|error| error.problem())?.default_branch;
        let current = match &branch {
            Some(branch) => self.current(repository, branch).await?,
            None => None,
        };
        Ok(ImageList {
            images: kept(self.services.catalog.images(repository, LISTED).await)?,
            current: current.map(|image| image.id),
        })
    }

    /// The image that sandboxes of a branch begin with.
    pub(super) async fn current(&self, repository: &str, branch: &str) -> Result<Option<Image>, Problem> {
        kept(self.services.catalog.current_image(repository, branch).await)
    }

    /// One image.
    pub async fn image(&self, id: &ImageId) -> Result<Image, Problem> {
        kept(self.services.catalog.image(id).await)?.ok_or_else(|| {
            Problem::permanent("image_unknown", "There is no such image.")
                .with_hint("List a repository's images with `greenroom image list REPOSITORY`.")
        })
    }

    /// Part of the log of an image's build.
    pub async fn log(&self, id: &ImageId, after: u64) -> Result<ImageLog, Problem> {
        let image = self.image(id).await?;
        log::read(&self.bounds.logs, id, after, image.state.is_final()).await
    }

    /// Asks for an image of a repository's default branch. One that waits already is it.
    pub async fn request(
        &self,
        repository: &str,
        trigger: ImageTrigger,
        from_scratch: bool,
    ) -> Result<Image, Problem> {
        let found = self.services.forge.repository(repository).await;
        let found = found.map_err(|error| error.problem())?;
        let Some(branch) = found.default_branch else {
            return Err(
                Problem::permanent("repository_empty", "The repository has no commit yet.")
                    .with_hint("Push a commit, then build an image of it."),
            );
        };
        let joined = self.queue().joined(repository, from_scratch);
        if let Some(id) = joined {
            return self.image(&id).await;
        }
        // The newest is the one that was asked for last, also when the clock was set back.
        let newest = kept(self.services.catalog.images(repository, 1).await)?.pop();
        let after_ms = newest.map_or(i64::MIN, |newest| newest.created_at_ms.saturating_add(1));
        let now_ms = self.services.clock.now_ms().max(after_ms);
        let image = Image {
            id: ImageId::from_bits(fresh_bits()),
            repository: repository.to_owned(),
            branch,
            commit: None,
            repositories: Vec::new(),
            state: ImageState::Scheduled,
            trigger,
            built_on: None,
            steps: Vec::new(),
            problem: None,
            environment_digest: String::new(),
            policy_digest: String::new(),
            base: String::new(),
            base_digest: String::new(),
            snapshot_id: None,
            layers: Vec::new(),
            size_bytes: None,
            created_at_ms: now_ms,
            finished_at_ms: None,
            line_began_at_ms: now_ms,
            line_length: 0,
        };
        // Before it waits, because who takes it from the queue looks for it.
        kept(self.services.catalog.put_image(&image).await)?;
        step::reached("build.requested");
        let joined = {
            let mut queue = self.queue();
            let joined = queue.joined(repository, from_scratch);
            if joined.is_none() {
                queue.push(Waiting {
                    image: image.id.clone(),
                    repository: repository.to_owned(),
                    from_scratch,
                });
            }
            joined
        };
        match joined {
            // Somebody else was faster.
            Some(id) => {
                kept(self.services.catalog.remove_image(&image.id).await)?;
                self.image(&id).await
            }
            None => {
                self.changed.notify_one();
                Ok(image)
            }
        }
    }

    /// Builds images until the server goes down. What an earlier server was building has failed.
    pub async fn run(self: Arc<Self>) {
        let shutdown = self.services.shutdown.clone();
        let mut changes = self.services.changes.listen();
        self.give_up_interrupted().await;
        let mut changed = None;
        let mut look_at = Instant::now();
        loop {
            if self.bounds.is_scheduled && (changed.is_some() || look_at <= Instant::now()) {
                if changed.is_none() {
                    look_at = Instant::now() + LOOK_EVERY;
                }
                if let Err(problem) = self.request_due(changed.as_deref()).await {
                    tracing::warn!(
                        code = problem.code,
                        "which images are due is not known: {}",
                        problem.message
                    );
                }
            }
            self.start_waiting();
            changed = tokio::select! {
                () = self.changed.notified() => None,
                repository = changes.next() => match repository {
                    Some(repository) => Some(repository),
                    None => { look_at = Instant::now(); None }
                },
                () = tokio::time::sleep_until(look_at), if self.bounds.is_scheduled => None,
                () = shutdown.cancelled() => return,
            };
        }
    }

    fn start_waiting(self: &Arc<Self>) {
        loop {
            let Some(next) = self.queue().next(self.bounds.max_builds) else {
                return;
            };
            let registry = self.clone();
            self.services.tasks.spawn(async move {
                registry.build(&next).await;
                registry.queue().done(&next.repository);
                registry.changed.notify_one();
            });
        }
    }

    async fn build(&self, waiting: &Waiting) {
        let Ok(mut image) = self.image(&waiting.image).await else {
            return;
        };
        let built = self.build_into(&mut image, waiting.from_scratch).await;
        image.finished_at_ms = Some(self.services.clock.now_ms());
        image.state = match built {
            Ok(()) => ImageState::Published,
            Err(problem) => {
                tracing::info!(image = %image.id, repository = image.repository, code = problem.code, "an image was not built: {}", problem.message);
                image.problem = Some(problem);
                ImageState::Failed
            }
        };
        while let Err(error) = self.services.catalog.put_image(&image).await {
            // Nobody would build another one as long as this seems to be at work.
            tracing::warn!(image = %image.id, error = %Chain(&error), "how an image build ended is not kept yet");
            tokio::select! {
                () = tokio::time::sleep(KEEP_RETRY) => {}
                () = self.services.shutdown.cancelled() => return,
            }
        }
        step::reached("build.published");
        // Whoever keeps sandboxes of the image before.
        self.services.changes.tell(&image.repository);
        if let Err(problem) = self.forget_outdated(&image.repository).await {
            tracing::warn!(code = problem.code, "old images are kept: {}", problem.message);
        }
    }

    async fn build_into(&self, image: &mut Image, from_scratch: bool) -> Result<(), Problem> {
        let created = tokio::fs::create_dir_all(&self.bounds.logs).await;
        let log = match created {
            Ok(()) => BuildLog::create(&self.bounds.logs, &image.id).await,
            Err(error) => Err(error),
        };
        let mut log = log.map_err(|error| {
            Problem::transient(
                "log_unwritable",
                format!("The build's log cannot be written: {error}."),
            )
            .with_hint("Check that the data directory is writable and not full.")
        })?;
        self.make_room().await?;
        let previous = match from_scratch {
            true => None,
            false => self.current(&image.repository, &image.branch).await?,
        };
        let built = build::build(&self.services, image, previous, &mut log, self).await;
        match &built {
            Ok(()) => log.line("published").await,
            Err(problem) => log.line(&format!("failed: {}", problem.message)).await,
        }
        built
    }

    /// Makes room for another image, if there is none, by forgetting those that nothing begins with any more.
    pub(super) async fn make_room(&self) -> Result<(), Problem> {
        loop {
            let images = kept(self.services.catalog.all_images().await)?;
            let snapshots: Vec<_> = images
                .iter()
                .filter_map(|image| image.snapshot_id.clone())
                .collect();
            let taken = self.services.sandboxes.snapshot_bytes(&snapshots).await?;
            if taken < self.bounds.max_disk_bytes {
                return Ok(());
            }
            let Some(spare) = plan::spare(&images) else {
                let message = format!(
                    "Images take {} MiB, and {} MiB are the most.",
                    taken >> 20,
                    self.bounds.max_disk_bytes >> 20
                );
                return Err(Problem::transient("images_disk_full", message).with_hint(
                    "Let the operator raise `image.disk_mb`, or let steps of environments write less.",
                ));
            };
            tracing::info!(image = %spare.id, repository = spare.repository, "an older image is removed to make room");
            self.forget(spare).await?;
        }
    }

    /// Asks for every image that is due, of one repository or of all.
    async fn request_due(&self, only: Option<&str>) -> Result<(), Problem> {
        let services = &self.services;
        let repositories = services
            .forge
            .repositories()
            .await
            .map_err(|error| error.problem())?;
        let users = match only {
            Some(changed) => self.users_of(changed).await?,
            None => HashSet::new(),
        };
        let looked_at = repositories.into_iter().filter(|repository| {
            only.is_none_or(|only| only == repository.name) || users.contains(&repository.name)
        });
        for repository in looked_at {
            let Some(branch) = repository.default_branch else {
                continue;
            };
            match self.is_due(&repository.name, &branch).await {
                Ok(true) => {
                    lock(&self.asked).insert(repository.name.clone(), Instant::now());
                    self.request(&repository.name, ImageTrigger::Schedule, false)
                        .await?;
                }
                Ok(false) => {}
                // Its sessions say so.
                Err(problem) => {
                    tracing::debug!(
                        repository = repository.name,
                        code = problem.code,
                        "no image is built: {}",
                        problem.message
                    );
                }
            }
        }
        Ok(())
    }

    /// Repositories whose images have another one in them.
    async fn users_of(&self, other: &str) -> Result<HashSet<String>, Problem> {
        let images = kept(self.services.catalog.all_images().await)?;
        let with_it = images
            .into_iter()
            .filter(|image| image.repositories.iter().any(|one| one.name == other));
        Ok(with_it.map(|image| image.repository).collect())
    }

    async fn is_due(&self, repository: &str, branch: &str) -> Result<bool, Problem> {
        let services = &self.services;
        let newest = kept(services.catalog.images(repository, 2).await)?;
        let since_asked = lock(&self.asked).get(repository).map(Instant::elapsed);
        let attempts = Attempts {
            latest: newest.first(),
            was_interrupted_before: newest.get(1).is_some_and(plan::was_interrupted),
            since_asked,
        };
        let today = self.today(repository, branch).await?;
        let current = self.current(repository, branch).await?;
        let facts = today.facts(services.clock.now_ms());
        Ok(plan::is_due(&attempts, current.as_ref(), &today.heads, &facts))
    }

    /// Asks for an image of a repository's default branch unless the one that serves would be the same.
    pub async fn request_if_stale(
        &self,
        repository: &str,
        trigger: ImageTrigger,
    ) -> Result<Option<Image>, Problem> {
        let found = self.services.forge.repository(repository).await;
        let branch = found.map_err(|error| error.problem())?.default_branch;
        if let Some(branch) = branch
            && let Some(current) = self.current(repository, &branch).await?
            // What is wrong with the environment is said by the build.
            && let Ok(today) = self.today(repository, &branch).await
            && !plan::is_stale(&current, &today.heads, &today.facts(self.services.clock.now_ms()))
        {
            return Ok(None);
        }
        self.request(repository, trigger, false).await.map(Some)
    }

    async fn today(&self, repository: &str, branch: &str) -> Result<Today, Problem> {
        let services = &self.services;
        let environment = environment_of(services, repository, branch).await?;
        let repositories = repositories(&services.forge, repository, branch, &environment).await?;
        Ok(Today {
            heads: heads(&services.forge, &repositories).await?,
            environment_digest: plan::environment_digest(&environment),
            base_digest: services.sandboxes.base_digest(&environment.base).await?,
            environment,
        })
    }

    /// Whether an image has these files; several may that were pulled.
    async fn is_named(&self, snapshot: &SnapshotId) -> Result<bool, Problem> {
        let images = kept(self.services.catalog.all_images().await)?;
        Ok(images
            .iter()
            .any(|image| image.snapshot_id.as_ref() == Some(snapshot)))
    }

    async fn forget_outdated(&self, repository: &str) -> Result<(), Problem> {
        let images = kept(self.services.catalog.images(repository, u32::MAX >> 1).await)?;
        for image in plan::outdated(&images) {
            self.forget(image).await?;
        }
        Ok(())
    }

    async fn forget(&self, image: &Image) -> Result<(), Problem> {
        kept(self.services.catalog.remove_image(&image.id).await)?;
        log::remove(&self.bounds.logs, &image.id).await;
        if let Some(snapshot) = &image.snapshot_id
            && !self.is_named(snapshot).await?
        {
            let snapshots = std::slice::from_ref(snapshot);
            self.services.sandboxes.remove_snapshots(snapshots).await?;
        }
        Ok(())
    }

    async fn give_up_interrupted(&self) {
        let images = match self.services.catalog.all_images().await {
            Ok(images) => images,
            Err(error) => {
                tracing::error!(error = %Chain(&error), "images cannot be listed");
                return;
            }
        };
        let known: HashSet<_> = images.iter().map(|image| image.id.clone()).collect();
        log::remove_others(&self.bounds.logs, &known).await;
        for mut image in images {
            if !image.state.is_final() {
                image.state = ImageState::Failed;
                image.finished_at_ms = Some(self.services.clock.now_ms());
                image.problem = Some(Problem::transient(
                    INTERRUPTED,
                    "The server ended while the image was built.",
                ));
                self.changed(&image).await;
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Progress for ImageRegistry {
    async fn changed(&self, image: &Image) {
        if let Err(error) = self.services.catalog.put_image(image).await {
            tracing::warn!(image = %image.id, error = %Chain(&error), "how an image build goes on is not kept");
        }
    }
}

/// Snapshots that images need.
pub async fn wanted_snapshots(services: &SessionServices) -> Result<Vec<SnapshotId>, Problem> {
    let images = kept(services.catalog.all_images().await)?;
    let sessions = kept(services.catalog.all_snapshots().await)?;
    let images = images.into_iter().filter_map(|image| image.snapshot_id);
    Ok(images
        .chain(sessions.into_iter().map(|snapshot| snapshot.id))
        .collect())
}

pub(super) fn kept<T>(result: Result<T, CatalogError>) -> Result<T, Problem> {
    result.map_err(|error| error.problem())
}
