//! The sandboxes of one state directory: start, find, stop, remove, reap. Keeps no list in memory: what lies on disk and
//! who holds which lock is the truth, so a restarted server knows as much as one that never stopped.

use crate::base::{Base, host_base};
use crate::embedded::{Programs, hex, install};
use crate::failure::HostError;
use crate::link::Link;
use crate::route::RouteHandler;
use crate::sandbox::Sandbox;
use crate::{supervisor, tree};
use greenroom_protocol::id::SandboxId;
use greenroom_sandbox::cgroup::{self, Placement};
use greenroom_sandbox::identity;
use greenroom_sandbox::spec::{EXIT_NAME, LaunchSpec, Limits, Privilege, ROOT_NAME, Root};
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long the kernel may take to let go of a resource group.
const CGROUP_PATIENCE: Duration = Duration::from_secs(5);

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
    // /usr is read-only; installing for the agent alone works.
    ("NPM_CONFIG_PREFIX", "/home/agent/.local"),
];

/// Where a host keeps its sandboxes.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Made if missing. On a filesystem that can be an overlay's upper layer (ext4, xfs, btrfs, tmpfs); elsewhere sandboxes
    /// start a little slower. Only this host may use it.
    pub state_dir: PathBuf,
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
}

/// Cheap to clone; dropping it leaves the sandboxes running.
#[derive(Debug, Clone)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state_dir: PathBuf,
    programs: Programs,
    base: Base,
    /// Where resource groups of sandboxes are made, one per hierarchy.
    groups: Vec<Placement>,
    is_privileged: bool,
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
        let programs = install(&state_dir.join("bin"))?;
        let base = host_base(&state_dir.join("base"))?;
        let groups = cgroup::prepare(&group_name(&state_dir));
        Ok(Self(Arc::new(Inner {
            state_dir,
            programs,
            base,
            groups,
            is_privileged: identity::is_privileged(),
        })))
    }

    /// Starts a sandbox, fresh or over the files that an earlier one of this id left. Returns when its guest answers.
    pub async fn start(&self, start: StartSandbox) -> Result<Sandbox, HostError> {
        let host = self.clone();
        let StartSandbox {
            id,
            env,
            limits,
            routes,
        } = start;
        let launched = id.clone();
        let socket = blocking(move || {
            let directory = host.directory(&launched);
            let mut spec = host.prepare(&launched, env, limits)?;
            let warnings = match supervisor::launch(&host.0.programs.launcher, &spec) {
                Err(HostError::Launch(failure)) if failure.step == "mount overlay" => {
                    tracing::warn!(%failure, "no overlay on the data directory; copying the root instead");
                    spec.root = copied_root(&host.0.base, &directory)?;
                    supervisor::launch(&host.0.programs.launcher, &spec)?
                }
                result => result?,
            };
            for warning in warnings {
                tracing::warn!(sandbox = %launched, "{warning}");
            }
            supervisor::connect(&directory).map_err(|source| HostError::GuestSilent {
                id: launched.clone(),
                source,
            })
        })
        .await?;
        self.link(id, socket, routes).await
    }

    /// Finds a sandbox that runs, also one that another server process started; `None` if it does not run. A link that
    /// another process (or an earlier call) holds is replaced by this one.
    pub async fn find(&self, id: &SandboxId, routes: RouteHandler) -> Result<Option<Sandbox>, HostError> {
        let (host, wanted) = (self.clone(), id.clone());
        let socket = blocking(move || {
            let directory = host.directory(&wanted);
            if !supervisor::is_alive(&directory)? {
                return Ok(None);
            }
            match supervisor::connect(&directory) {
                Ok(socket) => Ok(Some(socket)),
                // It ended between the two looks.
                Err(_) if !supervisor::is_alive(&directory)? => Ok(None),
                Err(source) => Err(HostError::GuestSilent { id: wanted, source }),
            }
        })
        .await?;
        match socket {
            Some(socket) => Ok(Some(self.link(id.clone(), socket, routes).await?)),
            None => Ok(None),
        }
    }

    /// Ends a sandbox's processes; its files stay for a later [`Host::start`]. One that does not run is fine.
    pub async fn stop(&self, id: &SandboxId) -> Result<(), HostError> {
        let (host, id) = (self.clone(), id.clone());
        blocking(move || host.stop_blocking(&id)).await
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

    /// Removes the host's own resource groups if no sandbox runs in them. For an orderly end; nothing else depends on it.
    pub async fn close(self) {
        let _ = blocking(move || {
            for group in &self.0.groups {
                let _ = fs::remove_dir(&group.directory);
            }
            Ok(())
        })
        .await;
    }

    async fn link(
        &self,
        id: SandboxId,
        socket: std::os::unix::net::UnixStream,
        routes: RouteHandler,
    ) -> Result<Sandbox, HostError> {
        let silent = |source| HostError::GuestSilent {
            id: id.clone(),
            source,
        };
        let socket = tokio::net::UnixStream::from_std(socket).map_err(silent)?;
        let link = Link::open(socket, routes).await.map_err(silent)?;
        Ok(Sandbox::new(id, link))
    }

    fn directory(&self, id: &SandboxId) -> PathBuf {
        self.0.state_dir.join("sb").join(id.as_str())
    }

    /// Puts the sandbox's directory in order and says how to launch it.
    fn prepare(
        &self,
        id: &SandboxId,
        env: Vec<(String, String)>,
        limits: Limits,
    ) -> Result<LaunchSpec, HostError> {
        let directory = self.directory(id);
        if supervisor::is_alive(&directory)? {
            return Err(HostError::AlreadyRunning(id.clone()));
        }
        let privilege = match self.0.is_privileged {
            true => Privilege::Root {
                host_id: identity::host_id(id.as_str()),
            },
            false => Privilege::User,
        };
        let root = self
            .root(&directory, privilege)
            .map_err(HostError::file("prepare", &directory))?;
        let _ = fs::remove_file(directory.join(EXIT_NAME));
        Ok(LaunchSpec {
            directory,
            root,
            privilege,
            read_only: self.0.base.read_only.clone(),
            guest: self.0.programs.guest.clone(),
            hostname: "sandbox".to_owned(),
            env: environment(env),
            limits,
            cgroups: self
                .0
                .groups
                .iter()
                .map(|group| cgroup::below(group, id.as_str()))
                .collect(),
        })
    }

    fn root(&self, directory: &Path, privilege: Privilege) -> io::Result<Root> {
        make_private(directory)?;
        make_private(&directory.join(ROOT_NAME))?;
        let copied = directory.join("copy");
        if copied.is_dir() {
            return Ok(Root::Directory { path: copied });
        }
        let (upper, work) = (directory.join("upper"), directory.join("work"));
        // Left by an overlay that was not synced on purpose; the kernel would refuse it (option `volatile`).
        tree::remove(&work)?;
        make_private(&work)?;
        if !upper.is_dir() {
            let draft = directory.join("upper.new");
            tree::remove(&draft)?;
            fs::create_dir(&draft)?;
            let owner = match privilege {
                Privilege::Root { host_id } => Some(host_id),
                Privilege::User => None,
            };
            for (name, mode, is_agents) in [
                ("home", 0o755, false),
                ("home/agent", 0o755, true),
                ("workspace", 0o755, true),
                ("tmp", 0o1777, true),
            ] {
                let path = draft.join(name);
                fs::create_dir(&path)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
                if let (Some(owner), true) = (owner, is_agents) {
                    chown(&path, Some(owner), Some(owner))?;
                }
            }
            fs::set_permissions(&draft, fs::Permissions::from_mode(0o755))?;
            fs::rename(&draft, &upper)?;
        }
        Ok(Root::Overlay {
            lower: vec![self.0.base.lower.clone()],
            upper,
            work,
        })
    }

    fn stop_blocking(&self, id: &SandboxId) -> Result<(), HostError> {
        supervisor::stop(id, &self.directory(id))?;
        // A supervisor that was killed could not do it.
        for group in &self.0.groups {
            let path = cgroup::below(group, id.as_str()).directory;
            cgroup::remove(&path, CGROUP_PATIENCE)
                .map_err(HostError::file("remove resource group", &path))?;
        }
        Ok(())
    }

    fn remove_blocking(&self, id: &SandboxId) -> Result<(), HostError> {
        self.stop_blocking(id)?;
        let directory = self.directory(id);
        tree::remove(&directory).map_err(HostError::file("remove", &directory))
    }

    fn reap_blocking(&self, wanted: &HashSet<SandboxId>) -> Result<Vec<SandboxId>, HostError> {
        let mut removed = Vec::new();
        let sandboxes = self.0.state_dir.join("sb");
        for name in names(&sandboxes).map_err(HostError::file("list", &sandboxes))? {
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

/// The resource group of all sandboxes of a state directory.
fn group_name(state_dir: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    format!(
        "greenroom-{}",
        &hex(&Sha256::digest(state_dir.as_os_str().as_bytes()))[..12]
    )
}

/// Copies the base, for where there can be no overlay. Small: /usr is not in it.
fn copied_root(base: &Base, directory: &Path) -> Result<Root, HostError> {
    let (draft, copy) = (directory.join("upper"), directory.join("copy"));
    tree::copy_missing(&base.lower, &draft).map_err(HostError::file("copy base", &draft))?;
    fs::rename(&draft, &copy).map_err(HostError::file("publish root", &copy))?;
    Ok(Root::Directory { path: copy })
}

fn environment(added: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    let given = ENVIRONMENT
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    for (name, value) in given.chain(added) {
        match env.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => env.push((name, value)),
        }
    }
    env
}

fn make_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Runs `work` on a worker thread.
async fn blocking<T: Send + 'static>(
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
    fn later_variables_win() {
        let env = environment(vec![
            ("HOME".into(), "/x".into()),
            ("A".into(), "1".into()),
            ("A".into(), "2".into()),
        ]);
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
