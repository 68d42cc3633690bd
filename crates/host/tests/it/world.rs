//! What every scenario needs: a host with a directory of its own, run as the right user, and a check that nothing is left.

use greenroom_host::{Host, HostConfig, RouteHandler, Sandbox, SandboxError, StartSandbox, refuse_routes};
use greenroom_protocol::environment::Backend;
use greenroom_protocol::guest::call::{CallErrorCode, Exec, Exit, OutputChunk};
use greenroom_protocol::id::SandboxId;
use greenroom_testkit::leftovers;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Longest that any state is waited for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Tells a test that it is the copy of itself that runs as an ordinary user.
const AS_USER: &str = "GREENROOM_TEST_AS_USER";

/// An uid that no account has.
const ORDINARY_UID: u32 = 61_234;

/// Makes one test per user out of a scenario `async fn name(world: &World)`, with sandboxes by namespaces.
#[macro_export]
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        $crate::scenarios_with!(as_root, as_root, Isolation::Namespace, $($name),+);
        $crate::scenarios_with!(as_user, as_user, Isolation::Namespace, $($name),+);
    };
}

/// Makes one test per backend, runtime and user out of a scenario. It starts sandboxes by [`World::start`] and
/// [`World::plain`].
#[macro_export]
macro_rules! scenarios_everywhere {
    ($($name:ident),+ $(,)?) => {
        $crate::scenarios!($($name),+);
        $crate::scenarios_with!(crun_as_root, as_root, Isolation::Oci("crun"), $($name),+);
        $crate::scenarios_with!(crun_as_user, as_user, Isolation::Oci("crun"), $($name),+);
        $crate::scenarios_with!(runc_as_root, as_root, Isolation::Oci("runc"), $($name),+);
        $crate::scenarios_with!(runsc_as_root, as_root, Isolation::Oci("runsc"), $($name),+);
    };
}

/// Like [`scenarios_everywhere`], for what a guest does by itself: that depends on the kernel and on what the guest may, not
/// on which runtime of a kernel started it. One for each kernel, with the fewer rights where there are two, saves minutes.
#[macro_export]
macro_rules! scenarios_on_each_kernel {
    ($($name:ident),+ $(,)?) => {
        $crate::scenarios!($($name),+);
        $crate::scenarios_with!(crun_as_user, as_user, Isolation::Oci("crun"), $($name),+);
        $crate::scenarios_with!(runsc_as_root, as_root, Isolation::Oci("runsc"), $($name),+);
    };
}

/// One test per scenario, in a module named for the backend and the user.
#[macro_export]
macro_rules! scenarios_with {
    ($module:ident, $run:ident, $isolation:expr, $($name:ident),+) => {
        mod $module {
            use $crate::world::Isolation;
            $(#[test] fn $name() {
                $crate::world::$run(
                    concat!(module_path!(), "::", stringify!($name)),
                    $isolation,
                    |world| Box::pin(super::$name(world)),
                )
            })+
        }
    };
}

/// What isolates the sandboxes of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    Namespace,
    /// By an OCI runtime.
    Oci(&'static str),
}

impl Isolation {
    /// Whether sandboxes have a kernel of their own: what they see of /proc and limits is that kernel's.
    pub fn has_own_kernel(self) -> bool {
        self == Self::Oci("runsc")
    }

    /// A start of a sandbox without anything special.
    pub fn start(self, id: &SandboxId, routes: RouteHandler) -> StartSandbox {
        let start = StartSandbox::new(id.clone(), routes);
        match self {
            Self::Namespace => start,
            Self::Oci(runtime) => StartSandbox {
                backend: Backend::Oci,
                runtime: Some(runtime.to_owned()),
                ..start
            },
        }
    }

    /// Whether the machine can do it; says so if not.
    pub fn is_possible(self) -> bool {
        let Self::Oci(runtime) = self else {
            return true;
        };
        let is_installed = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"]
            .iter()
            .any(|directory| std::path::Path::new(directory).join(runtime).exists());
        if !is_installed {
            eprintln!("SKIPPED-FEATURE: {runtime} is not installed; sandboxes by it are not tested");
        }
        is_installed
    }
}

type Scenario = for<'a> fn(&'a World) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'a>>;

pub fn as_root(_test: &str, isolation: Isolation, scenario: Scenario) {
    if !isolation.is_possible() {
        return;
    }
    if is_root() {
        run_with(isolation, scenario);
    } else {
        eprintln!("SKIPPED-FEATURE: root is needed for sandboxes started by root");
    }
}

pub fn as_user(test: &str, isolation: Isolation, scenario: Scenario) {
    if !isolation.is_possible() {
        return;
    }
    if !is_root() || std::env::var_os(AS_USER).is_some() {
        return run_with(isolation, scenario);
    }
    // Through a descriptor, because the directories above the program may be closed to that user.
    let program = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    rustix::io::fcntl_setfd(&program, rustix::io::FdFlags::empty()).unwrap();
    let name = test.split_once("::").unwrap().1;
    let output = std::process::Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
        .args([name, "--exact", "--nocapture"])
        .env_clear()
        .env(AS_USER, "1")
        .env("RUST_BACKTRACE", "1")
        .current_dir("/")
        .uid(ORDINARY_UID)
        .gid(ORDINARY_UID)
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && text.contains("1 passed"),
        "as an ordinary user:\n{text}"
    );
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs a scenario as whoever this process is.
pub fn run_with(isolation: Isolation, scenario: Scenario) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let world = runtime.block_on(World::new(isolation));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(scenario(&world))
    }));
    if let Err(panic) = outcome {
        // A failed scenario leaves nothing behind either; what it failed of is the message to see.
        let _ = runtime.block_on(world.host.reap(&[]));
        runtime.block_on(world.host.close());
        std::panic::resume_unwind(panic);
    }
    runtime.block_on(world.end());
}

pub struct World {
    pub host: Host,
    pub state: PathBuf,
    pub isolation: Isolation,
    temp: tempfile::TempDir,
}

impl World {
    async fn new(isolation: Isolation) -> Self {
        let temp = tempfile::Builder::new()
            .prefix("gr-host-")
            .tempdir_in("/tmp")
            .unwrap();
        std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let state = temp.path().join("state");
        let host = open(&state).await;
        Self {
            host,
            state,
            isolation,
            temp,
        }
    }

    pub async fn start(&self) -> Sandbox {
        self.host.start(self.plain(&fresh_id())).await.unwrap()
    }

    /// A start without anything special.
    pub fn plain(&self, id: &SandboxId) -> StartSandbox {
        self.with_routes(id, refuse_routes())
    }

    pub fn with_routes(&self, id: &SandboxId, routes: RouteHandler) -> StartSandbox {
        self.isolation.start(id, routes)
    }

    /// Everything is removed, and nothing of it is left anywhere.
    async fn end(self) {
        let state = self.state.clone();
        let snapshots = self.host.snapshots().await.unwrap();
        let snapshots: Vec<_> = snapshots.into_iter().map(|snapshot| snapshot.id).collect();
        self.host.remove_snapshots(&snapshots).await.unwrap();
        self.host.reap(&[]).await.unwrap();
        let layers = std::fs::read_dir(state.join("images/layers")).unwrap();
        assert_eq!(layers.count(), 0, "layers that nobody needs");
        self.host.close().await;
        // A helper of a supervisor, such as one that counts files, ends by itself a moment after it.
        let deadline = std::time::Instant::now() + HELPERS_END;
        while !leftovers::of(&state).is_empty() && std::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(leftovers::of(&state), Vec::<String>::new(), "left behind");
        self.temp.close().unwrap();
    }
}

pub async fn open(state: &std::path::Path) -> Host {
    Host::open(HostConfig::new(state.to_owned())).await.unwrap()
}

pub fn fresh_id() -> SandboxId {
    SandboxId::from_bits(greenroom_stdx::id::fresh_bits())
}

/// Longer than any helper of a supervisor that was ended may take.
const HELPERS_END: Duration = Duration::from_secs(5);

/// A start by namespaces, without anything special.
pub fn plain(id: &SandboxId) -> StartSandbox {
    StartSandbox::new(id.clone(), refuse_routes())
}

/// Whether sandboxes of this world have a resource group of a v1 or v2 controller.
pub fn has_group(world: &World, controller: &str) -> bool {
    leftovers::named_groups(&world.state).any(|group| holds(&group, controller))
}

/// A file of a sandbox's own group.
pub fn group_file(world: &World, sandbox: &Sandbox, controller: &str, name: &str) -> PathBuf {
    let group = leftovers::named_groups(&world.state)
        .find(|group| holds(group, controller))
        .expect("a group of it");
    group.join(sandbox.id().as_str()).join(name)
}

fn holds(group: &std::path::Path, controller: &str) -> bool {
    let file = match controller {
        "cpuacct" => ["cpuacct.usage", "cpu.stat"],
        "cpu" => ["cpu.cfs_quota_us", "cpu.max"],
        "memory" => ["memory.limit_in_bytes", "memory.max"],
        _ => ["pids.max", "pids.max"],
    };
    file.iter().any(|name| group.join(name).exists())
}

/// What a program printed, merged, and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub exit: Exit,
    pub output: String,
}

impl Ran {
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.exit.code, Some(0), "{self:?}");
        self.output
    }
}

pub fn shell(script: &str) -> Exec {
    Exec {
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        is_merged: true,
        ..Exec::default()
    }
}

pub async fn run_exec(sandbox: &Sandbox, exec: Exec) -> Result<Ran, SandboxError> {
    let (tx, mut rx) = mpsc::channel::<OutputChunk>(8);
    let collect = async {
        let mut output = Vec::new();
        while let Some(chunk) = rx.recv().await {
            output.extend(chunk.bytes);
        }
        output
    };
    let (exit, output) = tokio::join!(sandbox.exec(exec, tx, CancellationToken::new()), collect);
    Ok(Ran {
        exit: exit?,
        output: String::from_utf8_lossy(&output).into_owned(),
    })
}

pub async fn sh(sandbox: &Sandbox, script: &str) -> Ran {
    tokio::time::timeout(PATIENCE * 2, run_exec(sandbox, shell(script)))
        .await
        .expect("in time")
        .unwrap()
}

#[track_caller]
pub fn assert_code<T: std::fmt::Debug>(result: Result<T, SandboxError>, expected: CallErrorCode) {
    match result {
        Err(SandboxError::Call(error)) => assert_eq!(error.code, expected, "{error:?}"),
        other => panic!("{expected:?} expected, got {other:?}"),
    }
}

/// Waits for a state that nothing announces.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
