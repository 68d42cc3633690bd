//! The sandboxes of one state directory: start, find, stop, remove, reap. Keeps no list in memory: what lies on disk and
//! who holds which lock is the truth, so a restarted server knows as much as one that never stopped.

use crate::backend::{self, Below, Launch, MachineConfig, make_private};
use crate::base::{Base, host_base};
use crate::blank::Blanks;
use crate::embedded::{Programs, hex, install};
use crate::expose::{Ports, Registry};
use crate::failure::HostError;
use crate::link::Link;
use crate::registry::Pulls;
use crate::route::RouteHandler;
use crate::sandbox::Sandbox;
use crate::snapshot::{Busy, HeldStill};
use crate::supervisor;
use crate::usage::{self, Meter};
use greenroom_images::oci;
use greenroom_images::{ImageStore, OwnRoot, Owner, Packer, tree};
use greenroom_protocol::environment::Backend;
use greenroom_protocol::id::{SandboxId, SnapshotId};
use greenroom_sandbox::cgroup::{self, Placement};
use greenroom_sandbox::identity;
use greenroom_sandbox::spec::{AGENT_ID, EXIT_NAME, LaunchSpec, Limits, Privilege, ROOT_ID};
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the kernel may take to let go of a resource group.
const CGROUP_PATIENCE: Duration = Duration::from_secs(5);

/// How long a supervisor that another host started may take until it listens.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// How long after a start the next one is prepared: on two processors the first program of a sandbox would wait for it.
const REFILL_DELAY: Duration = Duration::from_millis(4);

/// How long processes that were killed may go on writing.
const REMOVE_PATIENCE: Duration = Duration::from_secs(5);

/// Begins the name of a sandbox's directory while it is removed.
const LEAVING: &str = ".leaving-";

/// The agent's environment before what a caller adds.
const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "PATH",
        "/home/agent/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", "/home/agent"),
    ("USER", "agent"),
    ("LOGNAME", "agent"),
    ("SHELL", "/bin/bash"),
    ("LANG", "C.UTF-8"),
    // A git that was built for /usr/local looks for it elsewhere.
    ("GIT_CONFIG_SYSTEM", "/etc/gitconfig"),
    // /usr is read-only; installing for the agent alone works.
    ("NPM_CONFIG_PREFIX", "/home/agent/.local"),
    // There is no other way out. Both cases, because programs differ; curl, for one, ignores HTTP_PROXY.
    ("http_proxy", HTTP_PROXY),
    ("HTTP_PROXY", HTTP_PROXY),
    ("https_proxy", HTTP_PROXY),
    ("HTTPS_PROXY", HTTP_PROXY),
    // Not the SOCKS port: common Python clients fail at start when they find a SOCKS address here.
    ("all_proxy", HTTP_PROXY),
    ("ALL_PROXY", HTTP_PROXY),
    ("no_proxy", NO_PROXY),
    ("NO_PROXY", NO_PROXY),
    // Node.js 22.21 and 24 follow the variables above only when told to.
    ("NODE_USE_ENV_PROXY", "1"),
];

/// Where the agent's own programs go.
const OWN_PROGRAMS: &str = "/home/agent/.local/bin";

/// Port of [`greenroom_protocol::guest::HTTP_PROXY_PORT`].
const HTTP_PROXY: &str = "http://127.0.0.1:7419";

/// What stays in the sandbox, git's port among it.
const NO_PROXY: &str = "localhost,127.0.0.1,::1";

/// Where a host keeps its sandboxes.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Made if missing. On a filesystem that can be an overlay's upper layer (ext4, xfs, btrfs, tmpfs); elsewhere sandboxes
    /// start a little slower. Only this host may use it.
    pub state_dir: PathBuf,
    /// For sandboxes in virtual machines.
    pub machines: MachineConfig,
    /// Whether layers of images are packed into one file each, where the machine can: as root, with mkfs.erofs, from Linux 6.12 on.
    pub packs_layers: bool,
}

impl HostConfig {
    /// Without virtual machines.
    pub fn new(state_dir: PathBuf) -> Self {
        Self {
            state_dir,
            machines: MachineConfig::default(),
            packs_layers: false,
        }
    }
}

/// A sandbox to start.
#[derive(Clone)]
pub struct StartSandbox {
    pub id: SandboxId,
    /// Environment of everything that runs in it; later ones win. No secrets: it is readable inside and kept on disk.
    pub env: Vec<(String, String)>,
    pub limits: Limits,
    /// Serves what the sandbox asks of the host.
    pub routes: RouteHandler,
    /// As whom programs run; other than the agent only with [`Backend::Namespace`] and a root of its own.
    pub user: SandboxUser,
    pub backend: Backend,
    /// Program of an OCI runtime, a name or a path; only with [`Backend::Oci`]. `None`: the first found of runsc, crun, runc.
    pub runtime: Option<String>,
    /// Files for this start. Names are unique.
    pub files: Vec<SandboxFile>,
    /// Added to the variables of a root of its own, for it and all that begin with its snapshots; `${NAME}` stands for what a variable of the
    /// root was. Of account as `from` is.
    pub root_variables: Vec<(String, String)>,
    /// What the sandbox begins with. Of no account for one that was started before: it goes on with its own files.
    pub from: Option<SnapshotId>,
}

impl StartSandbox {
    /// With the default backend and limits, no added variables, no files and no snapshot.
    pub fn new(id: SandboxId, routes: RouteHandler) -> Self {
        Self {
            id,
            env: Vec::new(),
            limits: Limits::default(),
            routes,
            user: SandboxUser::default(),
            backend: Backend::default(),
            runtime: None,
            files: Vec::new(),
            root_variables: Vec::new(),
            from: None,
        }
    }
}

/// As whom programs of a sandbox run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxUser {
    /// With the number 0 instead of the agent's. That root may no more than the agent, but is told that it may.
    pub is_root: bool,
    /// Whose name and home directory they have, of an image's users; `None`: the agent's.
    pub name: Option<String>,
}

impl SandboxUser {
    fn id(&self) -> u32 {
        match self.is_root {
            true => ROOT_ID,
            false => AGENT_ID,
        }
    }
}

/// A file that appears in a sandbox as `/etc/greenroom/NAME`, mode 0644, for one start. Nobody inside can change it; in an
/// ordinary user's sandbox it belongs to the agent, and only the kernel's Landlock stands in the way. In a root that is the agent's own
/// the agent can put others in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxFile {
    /// One component of a path.
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Cheap to clone; dropping it leaves the sandboxes running.
#[derive(Debug, Clone)]
pub struct Host(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    state_dir: PathBuf,
    programs: Programs,
    blanks: Blanks,
    pub(crate) base: Base,
    /// Where resource groups of sandboxes are made, one per hierarchy.
    groups: Vec<Placement>,
    is_privileged: bool,
    /// Closes its listeners with the last clone.
    exposed: Registry,
    machines: MachineConfig,
    pub(crate) images: Arc<ImageStore>,
    pub(crate) registry: oci::Registry,
    /// One image is pulled once at a time.
    pub(crate) pulls: Pulls,
    /// Who starts a sandbox or takes its files holds its name.
    pub(crate) busy: Busy,
}

impl Host {
    /// Prepares the state directory: programs, base, resource groups. Does not touch sandboxes that run.
    pub async fn open(config: HostConfig) -> Result<Self, HostError> {
        blocking(move || Self::open_blocking(&config)).await
    }

    fn open_blocking(config: &HostConfig) -> Result<Self, HostError> {
        let given = &config.state_dir;
        make_private(given).map_err(HostError::file("make directory", given))?;
        let state_dir = fs::canonicalize(given).map_err(HostError::file("find directory", given))?;
        let sandboxes = state_dir.join("sb");
        make_private(&sandboxes).map_err(HostError::file("make directory", &sandboxes))?;
        tree::spread(&sandboxes).map_err(HostError::file("open directory", &sandboxes))?;
        let blanks = Blanks::open(state_dir.join("blank"));
        let programs = install(&state_dir.join("bin"))?;
        let base = host_base(&state_dir.join("base"))?;
        let place = state_dir.join("images");
        let images = ImageStore::open(&place, &sandboxes, &base.lower, Owner::current())?;
        let packer = config
            .packs_layers
            .then(|| Packer::find(&place))
            .and_then(|found| {
                found
                    .inspect_err(|why| tracing::warn!("layers are not packed: {why}"))
                    .ok()
            });
        let images = images.with_packer(packer);
        let groups = cgroup::prepare(&group_name(&state_dir));
        // After that, because it may move this process to another group, and the launcher must be in the same.
        programs.launchers.refill();
        blanks.refill();
        Ok(Self(Arc::new(Inner {
            state_dir,
            programs,
            blanks,
            base,
            groups,
            is_privileged: identity::is_privileged(),
            exposed: Registry::default(),
            machines: config.machines.clone(),
            images: Arc::new(images),
            registry: oci::Registry::new()?,
            pulls: Pulls::default(),
            busy: Busy::default(),
        })))
    }

    /// Starts a sandbox, fresh or over the files that an earlier one of this id left. Returns when its guest answers.
    pub async fn start(&self, start: StartSandbox) -> Result<Sandbox, HostError> {
        let host = self.clone();
        let (id, routes) = (start.id.clone(), start.routes.clone());
        let found = blocking(move || host.launch(start)).await;
        let sandbox = match found {
            Ok(found) => link(id.clone(), found, routes).await,
            Err(error) => Err(error),
        };
        if let Err(HostError::GuestSilent { .. }) = &sandbox {
            // It runs and is of no use, but would be in the way of the next start.
            if let Err(error) = self.stop(&id).await {
                let error = greenroom_stdx::chain::Chain(&error);
                tracing::warn!(sandbox = %id, %error, "a sandbox that does not answer cannot be stopped");
            }
        }
        let (programs, blanks) = (self.0.programs.clone(), self.0.blanks.clone());
        // For the next one, which need not wait for it, and after this one's first program has had the processors.
        tokio::spawn(async move {
            tokio::time::sleep(REFILL_DELAY).await;
            let refill = move || {
                programs.launchers.refill();
                blanks.refill();
            };
            let _ = tokio::task::spawn_blocking(refill).await;
        });
        sandbox
    }

    /// Finds a sandbox that runs, also one that another server process started; `None` if it does not run. A link that
    /// another process (or an earlier call) holds is replaced by this one.
    pub async fn find(&self, id: &SandboxId, routes: RouteHandler) -> Result<Option<Sandbox>, HostError> {
        let (host, wanted) = (self.clone(), id.clone());
        let found = blocking(move || {
            let directory = host.directory(&wanted);
            if !supervisor::is_alive(&directory)? {
                return Ok(None);
            }
            HeldStill::release(&directory);
            let deadline = Instant::now() + START_PATIENCE;
            loop {
                match supervisor::connect(&directory) {
                    Ok(socket) => return Ok(Some(host.found(&wanted, socket))),
                    // It ended between the two looks.
                    Err(_) if !supervisor::is_alive(&directory)? => return Ok(None),
                    // The launcher of a host that was killed holds the lock before anything listens.
                    Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                    // Its supervisor is about to follow its guest.
                    Err(_) if supervisor::ends(&directory)? => return Ok(None),
                    Err(source) => return Err(HostError::GuestSilent { id: wanted, source }),
                }
            }
        })
        .await?;
        let Some(found) = found else {
            return Ok(None);
        };
        match link(id.clone(), found, routes).await {
            Err(silent @ HostError::GuestSilent { .. }) => {
                // It took the connection and is ending, as when its time is over.
                let directory = self.directory(id);
                match blocking(move || supervisor::ends(&directory)).await? {
                    true => Ok(None),
                    false => Err(silent),
                }
            }
            linked => linked.map(Some),
        }
    }

    /// Ends a sandbox's processes; its files stay for a later [`Host::start`]. One that does not run is fine.
    pub async fn stop(&self, id: &SandboxId) -> Result<(), HostError> {
        let (host, id) = (self.clone(), id.clone());
        blocking(move || host.stop_blocking(&id)).await
    }

    /// Whether a sandbox runs. Does not touch its link.
    pub async fn is_running(&self, id: &SandboxId) -> Result<bool, HostError> {
        let (host, id) = (self.clone(), id.clone());
        blocking(move || supervisor::is_alive(&host.directory(&id))).await
    }

    /// Ends a sandbox and removes its files. One that does not exist is fine.
    pub async fn remove(&self, id: &SandboxId) -> Result<(), HostError> {
        let (host, id) = (self.clone(), id.clone());
        blocking(move || host.remove_blocking(&id)).await
    }

    /// Removes every sandbox that is not wanted, with processes, resource groups and files, and every leftover of
    /// sandboxes that died unseen. Returns what was removed.
    pub async fn reap(&self, wanted: &[SandboxId]) -> Result<Vec<SandboxId>, HostError> {
        let host = self.clone();
        let wanted: HashSet<SandboxId> = wanted.iter().cloned().collect();
        blocking(move || host.reap_blocking(&wanted)).await
    }

    /// Ends the launcher and the directory that wait for the next start, and removes the host's own resource groups if no sandbox runs in
    /// them. For an orderly end; nothing else depends on it.
    pub async fn close(self) {
        let _ = blocking(move || {
            self.0.programs.launchers.end();
            self.0.blanks.end();
            for group in &self.0.groups {
                let _ = fs::remove_dir(&group.directory);
            }
            Ok(())
        })
        .await;
    }

    /// What the host keeps beside the link of a sandbox that runs.
    fn found(&self, id: &SandboxId, socket: UnixStream) -> Found {
        Found {
            socket,
            ports: self.0.exposed.ports(id, &self.directory(id)),
            meter: Arc::new(self.meter(id)),
        }
    }

    /// Looks at a sandbox from outside, whether it runs or not.
    pub(crate) fn meter(&self, id: &SandboxId) -> Meter {
        Meter::open(self.directory(id), &self.placements(id))
    }

    /// The resource groups of a sandbox; made while it runs.
    fn placements(&self, id: &SandboxId) -> Vec<Placement> {
        let below = |group| cgroup::below(group, id.as_str());
        self.0.groups.iter().map(below).collect()
    }

    pub(crate) fn directory(&self, id: &SandboxId) -> PathBuf {
        self.0.state_dir.join("sb").join(id.as_str())
    }

    /// Puts the sandbox's directory in order, starts it and connects to its guest.
    fn launch(&self, start: StartSandbox) -> Result<Found, HostError> {
        let id = &start.id;
        let directory = self.directory(id);
        let _busy = self.0.busy.hold(id);
        let backend = backend::choose(
            start.backend,
            start.runtime.as_deref(),
            self.0.is_privileged,
            &self.0.machines,
            &self.0.state_dir,
        )?;
        if supervisor::is_alive(&directory)? {
            return Err(HostError::AlreadyRunning(id.clone()));
        }
        let privilege = match self.0.is_privileged {
            true => Privilege::Root,
            false => Privilege::User,
        };
        let is_blank = self.0.blanks.become_directory(&directory);
        let below = self.layers(&start, &directory, is_blank)?;
        let (own_root, sealed_bytes) = (below.root, below.own_bytes);
        if let Some(name) = &start.user.name
            && !own_root
                .as_ref()
                .is_some_and(|root| root.homes.contains_key(name))
        {
            return Err(HostError::UserUnknown(name.clone()));
        }
        let base = own_root.is_none().then_some(&self.0.base);
        let below = Below {
            layers: below.layers,
            base: base.map(|base| base.lower.clone()),
        };
        let root = backend::prepare_root(&directory, is_blank, below, privilege, &start.files)?;
        let _ = fs::remove_file(directory.join(EXIT_NAME));
        let limits = Limits {
            disk_bytes: start.limits.disk_bytes.saturating_sub(sealed_bytes),
            ..start.limits
        };
        usage::keep_limits(&directory, &limits, sealed_bytes)?;
        backend.launch(Launch {
            spec: LaunchSpec {
                directory: directory.clone(),
                root,
                privilege,
                read_only: base.map(|base| base.read_only.clone()).unwrap_or_default(),
                is_root_open: own_root.is_some(),
                user_id: start.user.id(),
                guest: self.0.programs.guest.clone(),
                hostname: "sandbox".to_owned(),
                env: environment(own_root.as_ref(), &start.user, start.env),
                limits,
                cgroups: self.placements(id),
            },
            id,
            programs: &self.0.programs,
            base: &self.0.base,
            files: &start.files,
        })?;
        match supervisor::connect(&directory) {
            // While the guest makes itself ready.
            Ok(socket) => Ok(self.found(id, socket)),
            Err(source) => Err(HostError::GuestSilent {
                id: id.clone(),
                source,
            }),
        }
    }

    fn stop_blocking(&self, id: &SandboxId) -> Result<(), HostError> {
        let directory = self.directory(id);
        self.0.exposed.forget(id);
        supervisor::stop(id, &directory)?;
        // A supervisor that was killed could not do it.
        self.remove_groups(id)
    }

    fn remove_blocking(&self, id: &SandboxId) -> Result<(), HostError> {
        self.stop_blocking(id)?;
        // Whoever starts it, copies it or removes it too gets to an end first.
        let _busy = self.0.busy.hold(id);
        let (directory, leaving) = (self.directory(id), self.leaving(id));
        self.finish_removal(id)?;
        // The launcher of a host that was killed may still be on its way. By the old name it finds nothing any more; if it
        // took the lock before, the lock has come along.
        match fs::rename(&directory, &leaving) {
            Ok(()) => self.finish_removal(id),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(HostError::file("rename", &directory)(error)),
        }
    }

    /// What a sandbox's directory is called while it is removed.
    fn leaving(&self, id: &SandboxId) -> PathBuf {
        self.0.state_dir.join("sb").join(format!("{LEAVING}{id}"))
    }

    /// Removes what an earlier removal, perhaps of a host that was killed in the middle, has renamed.
    fn finish_removal(&self, id: &SandboxId) -> Result<(), HostError> {
        let leaving = self.leaving(id);
        if !leaving.is_dir() {
            return Ok(());
        }
        supervisor::stop(id, &leaving)?;
        self.remove_groups(id)?;
        // Processes of a supervisor that was killed end a moment after it, and may write until then.
        let deadline = Instant::now() + REMOVE_PATIENCE;
        loop {
            match tree::remove(&leaving) {
                Err(error)
                    if error.kind() == io::ErrorKind::DirectoryNotEmpty && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
                done => return done.map_err(HostError::file("remove", &leaving)),
            }
        }
    }

    fn remove_groups(&self, id: &SandboxId) -> Result<(), HostError> {
        for group in &self.0.groups {
            let path = cgroup::below(group, id.as_str()).directory;
            cgroup::remove(&path, CGROUP_PATIENCE)
                .map_err(HostError::file("remove resource group", &path))?;
        }
        Ok(())
    }

    fn reap_blocking(&self, wanted: &HashSet<SandboxId>) -> Result<Vec<SandboxId>, HostError> {
        let mut removed = Vec::new();
        let sandboxes = self.0.state_dir.join("sb");
        for name in names(&sandboxes).map_err(HostError::file("list", &sandboxes))? {
            if let Some(id) = name.strip_prefix(LEAVING).and_then(|id| id.parse().ok()) {
                self.finish_removal(&id)?;
                continue;
            }
            match name.parse::<SandboxId>() {
                Ok(id) if wanted.contains(&id) => {}
                Ok(id) => {
                    self.remove_blocking(&id)?;
                    removed.push(id);
                }
                Err(_) => tracing::warn!(name, "unknown entry among the sandboxes"),
            }
        }
        for group in &self.0.groups {
            for name in names(&group.directory).unwrap_or_default() {
                let Ok(id) = name.parse::<SandboxId>() else {
                    continue;
                };
                if !supervisor::is_alive(&self.directory(&id))? {
                    let path = group.directory.join(name);
                    cgroup::remove(&path, CGROUP_PATIENCE)
                        .map_err(HostError::file("remove resource group", &path))?;
                }
            }
        }
        self.0.images.collect()?;
        self.remove_unused("bin", |name| {
            name.contains("greenroom-") && !self.is_program(name)
        });
        if wanted.is_empty() {
            let current = self.0.base.lower.clone();
            self.remove_unused("base", |name| {
                current
                    .file_name()
                    .is_none_or(|file| file.to_string_lossy() != name)
            });
        }
        Ok(removed)
    }

    fn is_program(&self, name: &str) -> bool {
        [&self.0.programs.launcher, &self.0.programs.guest]
            .into_iter()
            .any(|path| {
                path.file_name()
                    .is_some_and(|file| file.to_string_lossy() == name)
            })
    }

    /// Removes what earlier versions left; trying again next time is enough.
    fn remove_unused(&self, directory: &str, is_unused: impl Fn(&str) -> bool) {
        let directory = self.0.state_dir.join(directory);
        for name in names(&directory)
            .unwrap_or_default()
            .into_iter()
            .filter(|name| is_unused(name))
        {
            let path = directory.join(name);
            let _ = fs::remove_file(&path).or_else(|_| tree::remove(&path));
        }
    }
}

/// A sandbox that runs, not yet spoken to.
struct Found {
    socket: UnixStream,
    ports: Arc<Ports>,
    meter: Arc<Meter>,
}

async fn link(id: SandboxId, found: Found, routes: RouteHandler) -> Result<Sandbox, HostError> {
    let silent = |source| HostError::GuestSilent {
        id: id.clone(),
        source,
    };
    let socket = tokio::net::UnixStream::from_std(found.socket).map_err(silent)?;
    let link = Link::open(socket, routes).await.map_err(silent)?;
    Ok(Sandbox::new(id, link, found.meter, found.ports))
}

/// The resource group of all sandboxes of a state directory.
fn group_name(state_dir: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    format!(
        "greenroom-{}",
        &hex(&Sha256::digest(state_dir.as_os_str().as_bytes()))[..12]
    )
}

/// Variables of a sandbox: of its image, ours, of its user, and those that were asked for. Later ones win; only `PATH` is joined.
fn environment(
    root: Option<&OwnRoot>,
    user: &SandboxUser,
    added: Vec<(String, String)>,
) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    let images = root.map(|root| root.variables.clone()).unwrap_or_default();
    let path = images.iter().find(|(name, _)| name == "PATH");
    let path = path.map(|(_, path)| format!("{OWN_PROGRAMS}:{path}"));
    let given = ENVIRONMENT.iter().map(|(name, value)| match (*name, &path) {
        ("PATH", Some(path)) => ("PATH".to_owned(), path.clone()),
        _ => ((*name).to_owned(), (*value).to_owned()),
    });
    let home = user.name.as_ref().and_then(|name| root?.homes.get(name));
    let users = match (&user.name, home) {
        (Some(name), Some(home)) => vec![("HOME", home), ("USER", name), ("LOGNAME", name)],
        _ => Vec::new(),
    };
    let users = users
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.clone()));
    for (name, value) in images.into_iter().chain(given).chain(users).chain(added) {
        match env.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => env.push((name, value)),
        }
    }
    env
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Runs `work` on a worker thread.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HostError> + Send + 'static,
) -> Result<T, HostError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(HostError::Cancelled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_variables_name_the_guests_port() {
        let port = greenroom_protocol::guest::HTTP_PROXY_PORT;
        assert_eq!(HTTP_PROXY, format!("http://127.0.0.1:{port}"));
    }

    #[test]
    fn later_variables_win() {
        let env = environment(
            None,
            &SandboxUser::default(),
            vec![
                ("HOME".into(), "/x".into()),
                ("A".into(), "1".into()),
                ("A".into(), "2".into()),
            ],
        );
        let value = |name: &str| {
            env.iter()
                .filter(|(known, _)| known == name)
                .map(|(_, v)| v.as_str())
                .collect::<Vec<_>>()
        };
        assert_eq!(value("HOME"), ["/x"]);
        assert_eq!(value("A"), ["2"]);
        assert_eq!(value("USER"), ["agent"]);
    }
}
