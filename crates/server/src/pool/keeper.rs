//! Keeps the warm pool: starts what is wanted, checks it before it is offered, freezes what waits, ends what is old.

use super::book::{Book, Kind, Reservation};
use super::borrow::Place;
use super::demand::Arrivals;
use super::routes::SwitchedRoutes;
use crate::broker::build_routes;
use crate::egress::{Advice, EgressLedger, SandboxEgress};
use crate::environment::{BoundedEnvironment, RepositoryEgress};
use crate::image::{IMAGE_MARK, environment_digest, environment_of};
use crate::repositories::{self, heads, repositories};
use crate::sandbox::{Frozen, RouteHandler, Sandbox};
use crate::session::services::SessionServices;
use crate::session::{Runner, is_usable, place, start_and_await_services};
use crate::start_request::start_request;
use crate::workspace_git::{self, CLONE, MARK};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::WorkspaceRepository;
use greenroom_protocol::environment::Backend;
use greenroom_protocol::guest::WORKSPACE_PATH;
use greenroom_protocol::id::{PersonId, SandboxId, SnapshotId};
use greenroom_stdx::id::fresh_bits;
use greenroom_stdx::step;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Between two looks for people who fell silent, and at all repositories. What changes is looked at at once.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_AT_ALL_EVERY: Duration = Duration::from_secs(60);

/// After a start that failed the same is not started for so long; what was changed since is.
const FAILURE_PAUSE_MS: i64 = 30_000;

/// Between two signs of one person's typing, at least.
const TYPING_PAUSE_MS: i64 = 500;

/// A sandbox that waits longer than this is replaced.
const DEFAULT_TTL_MINUTES: u64 = 60;

/// Sandboxes that start at once: more would keep people's own from starting.
const MAX_STARTING: usize = 2;

/// A sandbox of the pool that was taken.
pub struct Claimed {
    pub id: SandboxId,
    pub sandbox: Arc<dyn Sandbox>,
    /// The commits that are checked out, of the kind's repository first.
    pub heads: Vec<String>,
    repositories: Vec<WorkspaceRepository>,
    routes: SwitchedRoutes,
    kind: Kind,
    version: String,
}

impl Claimed {
    /// Leads its connections to its session's broker. From now on it is the session's.
    pub fn lead(&self, routes: RouteHandler) {
        self.routes.switch(routes);
    }
}

pub(super) struct Held {
    sandbox: Arc<dyn Sandbox>,
    repositories: Vec<WorkspaceRepository>,
    heads: Vec<String>,
    routes: SwitchedRoutes,
    /// Dropped before anybody uses it.
    frozen: Option<Frozen>,
}

impl Held {
    /// For whoever uses it; it goes on.
    pub(super) fn into_sandbox(self) -> Arc<dyn Sandbox> {
        self.sandbox
    }
}

/// What is known of a kind.
#[derive(Default)]
struct Known {
    arrivals: Arrivals,
    failed: Option<Failed>,
    /// Whether its environment asks for any, when it was looked at last. Looking takes two git processes.
    wants_pool: Option<bool>,
    /// Names of other repositories in it.
    others: Vec<String>,
}

/// A start that failed: what was started, and when.
struct Failed {
    version: String,
    at_ms: i64,
}

/// The warm pool of a server.
#[derive(Default)]
pub struct WarmPool {
    book: Mutex<Book>,
    held: Mutex<HashMap<SandboxId, Held>>,
    known: Mutex<HashMap<Kind, Known>>,
    starting: Mutex<usize>,
    /// Who typed in the last moment, and when.
    typed: Mutex<HashMap<PersonId, i64>>,
    changed: Notify,
    /// Sandboxes that somebody has beside sessions.
    borrowed: Arc<AtomicUsize>,
}

impl WarmPool {
    /// Takes a sandbox for somebody's first prompt, if one fits. Notes that somebody came, whether or not.
    pub async fn claim(
        &self,
        services: &SessionServices,
        kind: &Kind,
        environment: &BoundedEnvironment,
        person: &PersonId,
    ) -> Option<Claimed> {
        let now_ms = services.clock.now_ms();
        lock(&self.known)
            .entry(kind.clone())
            .or_default()
            .arrivals
            .arrived(now_ms);
        self.changed.notify_one();
        if lock(&self.book).count() == 0 {
            return None;
        }
        let version = version(services, kind, environment).await.ok()?.0;
        loop {
            let id = lock(&self.book).claim(kind, &version, person)?;
            let held = lock(&self.held).remove(&id);
            match held {
                Some(held) if held.sandbox.is_alive() => {
                    step::reached("claim.booked");
                    drop(held.frozen);
                    step::reached("claim.thawed");
                    return Some(Claimed {
                        id,
                        sandbox: held.sandbox,
                        repositories: held.repositories,
                        heads: held.heads,
                        routes: held.routes,
                        kind: kind.clone(),
                        version,
                    });
                }
                // It died while it waited.
                _ => end(services, &id).await,
            }
        }
    }

    /// Gives back what was taken for nothing and is nobody's yet.
    pub async fn give_back(&self, services: &SessionServices, claimed: Claimed) {
        let id = claimed.id;
        let held = Held {
            frozen: services.sandboxes.freeze(&id).await.ok(),
            sandbox: claimed.sandbox,
            repositories: claimed.repositories,
            heads: claimed.heads,
            routes: claimed.routes,
        };
        lock(&self.held).insert(id.clone(), held);
        let is_kept = {
            let mut book = lock(&self.book);
            let now_ms = services.clock.now_ms();
            book.starting(id.clone(), claimed.kind, claimed.version, None, now_ms);
            book.available(&id)
        };
        if !is_kept {
            lock(&self.held).remove(&id);
            end(services, &id).await;
        }
        self.changed.notify_one();
    }

    /// How many sandboxes the pool has, those that start and those that somebody has beside sessions included.
    pub fn count(&self) -> usize {
        lock(&self.book).count() + self.borrowed.load(Ordering::SeqCst)
    }

    /// Counts one more that somebody has.
    pub(super) fn place(&self) -> Place {
        Place::take(&self.borrowed)
    }

    /// Ends one to make room for somebody's own. Whether there was one.
    pub async fn make_room(&self, services: &SessionServices) -> bool {
        let Some(id) = lock(&self.book).evict() else {
            return false;
        };
        lock(&self.held).remove(&id);
        end(services, &id).await;
        true
    }

    /// Somebody types a prompt for a repository: one sandbox waits for this person for a minute, or is started.
    pub async fn typing(
        self: &Arc<Self>,
        services: &Arc<SessionServices>,
        kind: &Kind,
        person: &PersonId,
    ) -> Result<Reservation, Problem> {
        let now_ms = services.clock.now_ms();
        self.check_pace(person, now_ms)?;
        let environment = environment_of(services, &kind.repository, &kind.branch).await?;
        let (version, image) = version(services, kind, &environment).await?;
        let reservation = lock(&self.book).typing(kind, &version, person, now_ms);
        match reservation {
            Reservation::Wanted if self.may_start(services, kind, &version, now_ms) => {
                let person = Some(person.clone());
                self.start(services, kind, environment, version, image, person);
                Ok(Reservation::Starting)
            }
            Reservation::Wanted => Ok(Reservation::Refused),
            reservation => Ok(reservation),
        }
    }

    /// One person cannot make the server look at repositories all the time.
    fn check_pace(&self, person: &PersonId, now_ms: i64) -> Result<(), Problem> {
        let mut typed = lock(&self.typed);
        let is_recent = |at: i64| (0..TYPING_PAUSE_MS).contains(&(now_ms - at));
        typed.retain(|_, at| is_recent(*at));
        if typed.contains_key(person) {
            return Err(Problem {
                retry_after_ms: u64::try_from(TYPING_PAUSE_MS).ok(),
                ..Problem::transient("rate_limited", "Typing was told a moment ago.")
                    .with_hint("Tell it every ten seconds at most.")
            });
        }
        typed.insert(person.clone(), now_ms);
        Ok(())
    }

    fn may_start(&self, services: &SessionServices, kind: &Kind, version: &str, now_ms: i64) -> bool {
        let rests = lock(&self.known).get(kind).is_some_and(|known| {
            known.failed.as_ref().is_some_and(|failed| {
                failed.version == version && (0..FAILURE_PAUSE_MS).contains(&(now_ms - failed.at_ms))
            })
        });
        let running = services.running.count() + self.count();
        !rests && running < services.running.max_running() && *lock(&self.starting) < MAX_STARTING
    }

    /// Starts one in the background.
    fn start(
        self: &Arc<Self>,
        services: &Arc<SessionServices>,
        kind: &Kind,
        environment: BoundedEnvironment,
        version: String,
        image: Option<SnapshotId>,
        person: Option<PersonId>,
    ) {
        let id = SandboxId::from_bits(fresh_bits());
        let now_ms = services.clock.now_ms();
        lock(&self.book).starting(id.clone(), kind.clone(), version.clone(), person, now_ms);
        *lock(&self.starting) += 1;
        let (pool, services, kind) = (self.clone(), services.clone(), kind.clone());
        services.tasks.clone().spawn(async move {
            let prepared = tokio::select! {
                prepared = prepare(&services, &id, &kind, &environment, image) => prepared,
                () = services.shutdown.cancelled() => Err(Problem::transient("server_stopping", "The server is stopping.")),
            };
            *lock(&pool.starting) -= 1;
            match prepared {
                Ok(held) => {
                    lock(&pool.held).insert(id.clone(), held);
                    if !lock(&pool.book).available(&id) {
                        lock(&pool.held).remove(&id);
                        end(&services, &id).await;
                    }
                }
                Err(problem) => {
                    // Whatever ends one that is not wanted any more makes its start fail.
                    if lock(&pool.book).remove(&id) {
                        tracing::info!(repository = kind.repository, code = problem.code, "a sandbox was not started ahead: {}", problem.message);
                        services.metrics.pool_start_failed(&problem.code);
                        let at_ms = services.clock.now_ms();
                        lock(&pool.known).entry(kind).or_default().failed = Some(Failed { version, at_ms });
                    }
                    end(&services, &id).await;
                }
            }
            pool.changed.notify_one();
        });
    }

    /// Brings one kind to what is wanted of it.
    async fn look(self: &Arc<Self>, services: &Arc<SessionServices>, kind: &Kind) -> Result<(), Problem> {
        let now_ms = services.clock.now_ms();
        let known = async {
            let Kind { repository, branch } = kind;
            let environment = environment_of(services, repository, branch).await?;
            let repositories = repositories(&services.forge, repository, branch, &environment).await?;
            Ok::<_, Problem>((environment, repositories))
        };
        let (environment, repositories) = match known.await {
            Ok(known) => known,
            Err(problem) => {
                if !problem.retryable {
                    // No session can use what waits.
                    let gone = lock(&self.book).outdated(kind, "", 0, 0, services.clock.now_ms());
                    self.end_all(services, gone).await;
                }
                return Err(problem);
            }
        };
        let (version, image) = version(services, kind, &environment).await?;
        let target = {
            let mut known = lock(&self.known);
            let known = known.entry(kind.clone()).or_default();
            let settings = &environment.pool;
            known.others = repositories[1..].iter().map(|other| other.name.clone()).collect();
            known.wants_pool = Some(settings.maximum.or(settings.minimum).unwrap_or(0) > 0);
            known.arrivals.target(settings, now_ms)
        };
        let ttl = environment.pool.ttl_minutes.unwrap_or(DEFAULT_TTL_MINUTES);
        let ttl_ms = i64::try_from(ttl.saturating_mul(60_000)).unwrap_or(i64::MAX);
        // Whoever takes one has at least half of its life.
        let life_ms = i64::try_from(environment.resources.wall_time.as_millis()).unwrap_or(i64::MAX);
        let ttl_ms = ttl_ms.min(life_ms / 2);
        let dead: Vec<_> = lock(&self.held)
            .iter()
            .filter(|(_, held)| !held.sandbox.is_alive())
            .map(|(id, _)| id.clone())
            .collect();
        let mut gone = {
            let mut book = lock(&self.book);
            // What was given back a moment ago must not look as if it were of a time to come.
            book.outdated(kind, &version, ttl_ms, target, services.clock.now_ms())
        };
        for id in dead {
            lock(&self.book).remove(&id);
            gone.push(id);
        }
        self.end_all(services, gone).await;
        let missing = lock(&self.book).missing(kind, &version, target);
        for _ in 0..missing {
            if !self.may_start(services, kind, &version, now_ms) {
                break;
            }
            self.start(
                services,
                kind,
                environment.clone(),
                version.clone(),
                image.clone(),
                None,
            );
        }
        self.sync(services, kind, &repositories).await
    }

    async fn bring_along(&self, services: &SessionServices, id: SandboxId, mut held: Held) {
        held.frozen = None;
        let checked_out = tokio::select! {
            checked_out = check_out(&held.sandbox, &held.repositories) => checked_out,
            () = services.shutdown.cancelled() => return,
        };
        match checked_out {
            Ok(heads) => {
                held.heads = heads;
                held.frozen = services.sandboxes.freeze(&id).await.ok();
                lock(&self.held).insert(id.clone(), held);
                if !lock(&self.book).available(&id) {
                    lock(&self.held).remove(&id);
                    end(services, &id).await;
                }
            }
            Err(problem) => {
                tracing::info!(sandbox = %id, code = problem.code, "a sandbox of the pool is given up: {}", problem.message);
                lock(&self.book).remove(&id);
                end(services, &id).await;
            }
        }
        self.changed.notify_one();
    }

    /// Kinds of which there is one, or of which people took some and may want more.
    fn kinds_in_use(&self) -> Vec<Kind> {
        let mut kinds = lock(&self.book).kinds();
        for (kind, known) in lock(&self.known).iter() {
            if !known.arrivals.is_empty() && known.wants_pool != Some(false) && !kinds.contains(kind) {
                kinds.push(kind.clone());
            }
        }
        kinds
    }

    /// Whether sandboxes of a kind have another repository in them.
    fn has_other(&self, kind: &Kind, repository: &str) -> bool {
        let known = lock(&self.known);
        known
            .get(kind)
            .is_some_and(|known| known.others.iter().any(|other| other == repository))
    }

    async fn end_all(&self, services: &SessionServices, gone: Vec<SandboxId>) {
        for id in gone {
            lock(&self.held).remove(&id);
            end(services, &id).await;
        }
    }

    /// Brings those that wait to the newest commit of their branch, in the background.
    async fn sync(
        self: &Arc<Self>,
        services: &Arc<SessionServices>,
        kind: &Kind,
        repositories: &[WorkspaceRepository],
    ) -> Result<(), Problem> {
        let heads = heads(&services.forge, repositories).await?;
        let waiting = lock(&self.book).waiting();
        for (id, _) in waiting.into_iter().filter(|(_, other)| other == kind) {
            let is_behind = lock(&self.held).get(&id).is_some_and(|held| held.heads != heads);
            if !is_behind || !lock(&self.book).syncing(&id) {
                continue;
            }
            let Some(held) = lock(&self.held).remove(&id) else {
                lock(&self.book).remove(&id);
                continue;
            };
            let (pool, services) = (self.clone(), services.clone());
            services
                .tasks
                .clone()
                .spawn(async move { pool.bring_along(&services, id, held).await });
        }
        Ok(())
    }
}

/// Why the keeper looks.
enum Woken {
    /// A sandbox was taken, or one is ready.
    ByUse,
    /// A repository changed.
    ByChange(String),
    /// Anything may have changed.
    ForAll,
    /// Somebody may be silent by now.
    ByTime,
}

/// Keeps the pool until the server goes down; then nothing of it is left.
pub async fn keep(services: Arc<SessionServices>) {
    let pool = services.pool.clone();
    let mut changes = services.changes.listen();
    let mut look_at_all = Instant::now();
    let mut woken = Woken::ByTime;
    loop {
        let has_released = lock(&pool.book).release_silent(services.clock.now_ms());
        if look_at_all <= Instant::now() {
            look_at_all = Instant::now() + LOOK_AT_ALL_EVERY;
            woken = Woken::ForAll;
        }
        let mut kinds = match &woken {
            Woken::ByTime if !has_released => Vec::new(),
            Woken::ByTime | Woken::ByUse => pool.kinds_in_use(),
            Woken::ForAll | Woken::ByChange(_) => {
                let mut kinds = pool.kinds_in_use();
                let others = all_kinds(&services).await.into_iter();
                kinds.extend(others.filter(|kind| !kinds.contains(kind)).collect::<Vec<_>>());
                kinds
            }
        };
        if let Woken::ByChange(repository) = &woken {
            kinds.retain(|kind| kind.repository == *repository || pool.has_other(kind, repository));
        }
        for kind in kinds {
            if let Err(problem) = pool.look(&services, &kind).await {
                tracing::debug!(
                    repository = kind.repository,
                    code = problem.code,
                    "the pool is not kept: {}",
                    problem.message
                );
            }
        }
        services.metrics.set_pool_size(lock(&pool.book).count());
        woken = tokio::select! {
            () = pool.changed.notified() => Woken::ByUse,
            repository = changes.next() => repository.map_or(Woken::ForAll, Woken::ByChange),
            () = tokio::time::sleep(LOOK_EVERY) => Woken::ByTime,
            () = services.shutdown.cancelled() => break,
        };
    }
    let all = lock(&pool.book).close();
    lock(&pool.held).clear();
    for id in all {
        end(&services, &id).await;
    }
}

async fn all_kinds(services: &SessionServices) -> Vec<Kind> {
    let repositories = services.forge.repositories().await.unwrap_or_default();
    let kinds = repositories.into_iter().filter_map(|repository| {
        Some(Kind {
            branch: repository.default_branch?,
            repository: repository.name,
        })
    });
    kinds.collect()
}

/// What makes sandboxes of a kind the same, and what they begin with.
pub(super) async fn version(
    services: &SessionServices,
    kind: &Kind,
    environment: &BoundedEnvironment,
) -> Result<(String, Option<SnapshotId>), Problem> {
    let image = services
        .catalog
        .current_image(&kind.repository, &kind.branch)
        .await;
    // One over another base serves nobody.
    let image = image.map_err(|error| error.problem())?;
    let image = image.filter(|image| crate::image::fits(image, environment));
    let digest = environment_digest(environment);
    let name = image.as_ref().map_or("none", |image| image.id.as_str());
    let resources = format!("{:?}", environment.resources);
    let snapshot = image
        .as_ref()
        .and_then(|image| image.snapshot_id.clone())
        .filter(|_| environment.backend != Backend::Microvm);
    Ok((format!("{name} {digest} {resources}"), snapshot))
}

/// Starts a sandbox, brings the repository into it, starts its services, checks that it works, and freezes it.
pub(super) async fn prepare(
    services: &Arc<SessionServices>,
    id: &SandboxId,
    kind: &Kind,
    environment: &BoundedEnvironment,
    image: Option<SnapshotId>,
) -> Result<Held, Problem> {
    let egress = SandboxEgress::new(
        services.catalog.clone(),
        services.egress.clone(),
        id.clone(),
        environment.egress.clone(),
        Advice::new(
            &kind.repository,
            environment.source,
            services.bounds.repository_egress == RepositoryEgress::Any,
        ),
        Arc::new(EgressLedger::default()),
        services.metrics.clone(),
    );
    let claimed = CancellationToken::new();
    let first = build_routes(
        services.clone(),
        repositories::names(&kind.repository, environment),
        claimed.clone(),
        egress.clone(),
    );
    let repositories = repositories(&services.forge, &kind.repository, &kind.branch, environment).await?;
    let routes = SwitchedRoutes::new(first, claimed);
    let request = start_request(environment, id, &egress, routes.handler(), image)?;
    let (sandbox, _) = services.sandboxes.start(request).await?;
    step::reached("pool.started");
    let heads = check_out(&sandbox, &repositories).await?;
    start_and_await_services(&sandbox, &environment.services).await;
    if !is_usable(&sandbox).await {
        return Err(Problem::transient(
            "sandbox_unusable",
            "A sandbox that was started ahead cannot run a program.",
        ));
    }
    // Nothing in it takes time until somebody comes. One that cannot be frozen waits as it is.
    let frozen = services.sandboxes.freeze(id).await.ok();
    step::reached("pool.frozen");
    Ok(Held {
        sandbox,
        repositories,
        heads,
        routes,
        frozen,
    })
}

/// Brings the repositories in, or to the newest commits; returns which those are.
async fn check_out(
    sandbox: &Arc<dyn Sandbox>,
    repositories: &[WorkspaceRepository],
) -> Result<Vec<String>, Problem> {
    let cancel = CancellationToken::new();
    let own = workspace_git::environment;
    let mut heads = Vec::with_capacity(repositories.len());
    for repository in repositories {
        let runner = |directory| Runner {
            sandbox,
            directory,
            cancel: &cancel,
        };
        if !repository.is_own() {
            place(runner(WORKSPACE_PATH), repository).await?;
        }
        let directory = repository.directory();
        let remote = repository.remote();
        let name = match repository.is_own() {
            true => "",
            false => &repository.name,
        };
        let clone = workspace_git::command(CLONE, &[&repository.base_branch, &remote, name]);
        runner(&directory)
            .checked(&clone, own(), "checkout_failed")
            .await?;
        let head = match repository.is_own() {
            true => workspace_git::command(MARK, &[IMAGE_MARK]),
            false => vec!["git", "rev-parse", "HEAD"],
        };
        heads.push(
            runner(&directory)
                .checked(&head, own(), "checkout_failed")
                .await?,
        );
    }
    Ok(heads)
}

pub(super) async fn end(services: &SessionServices, id: &SandboxId) {
    if let Err(problem) = services.sandboxes.remove(id).await {
        tracing::warn!(sandbox = %id, code = problem.code, "a sandbox of the pool is still there: {}", problem.message);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
