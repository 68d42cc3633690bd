//! Sandboxes are started, used and ended by a process that is killed at random points, as are their launchers, supervisors
//! and guests. After each, a new host reaps: what is wanted and lived goes on, the rest is gone, and at the end nothing is
//! left on the machine.

use crate::world::{Isolation, World, eventually, fresh_id, is_root, open, shell};
use greenroom_host::{Host, refuse_routes};
use greenroom_protocol::id::SandboxId;
use greenroom_sandbox::lock;
use greenroom_testkit::leftovers;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Tells a test that it is the copy of itself that is to be killed; holds its [`Orders`].
const WORKER: &str = "GREENROOM_TEST_WORKER";

/// Repeats the cycles of an earlier run.
const SEED: &str = "GREENROOM_TEST_SEED";

/// How many cycles, for whoever looks for something rare.
const CYCLES: &str = "GREENROOM_TEST_CYCLES";

/// Sandboxes that go on from one cycle to the next.
const MOST_WANTED: usize = 2;

const TEST: &str = "nothing_is_left_after_kills_at_random_points";

macro_rules! survival {
    ($($module:ident, $run:ident, $isolation:expr;)+) => {$(
        mod $module {
            use crate::world::Isolation;

            #[test]
            fn nothing_is_left_after_kills_at_random_points() {
                if !super::worked($isolation) {
                    let name = concat!(module_path!(), "::nothing_is_left_after_kills_at_random_points");
                    crate::world::$run(name, $isolation, |world| {
                        Box::pin(super::many_cycles(world, stringify!($module)))
                    });
                }
            }
        }
    )+};
}

survival! {
    as_root, as_root, Isolation::Namespace;
    as_user, as_user, Isolation::Namespace;
    crun_as_root, as_root, Isolation::Oci("crun");
    crun_as_user, as_user, Isolation::Oci("crun");
    runc_as_root, as_root, Isolation::Oci("runc");
    runsc_as_root, as_root, Isolation::Oci("runsc");
}

/// What the process that is to be killed does.
#[derive(Debug, Clone)]
struct Orders {
    state: PathBuf,
    id: SandboxId,
    ending: Ending,
}

/// How a cycle's sandbox ends, if nobody is killed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    Left,
    Stopped,
    Removed,
}

/// Where a cycle is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Starting,
    Running,
    Ending,
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Host,
    Launcher,
    Supervisor,
    Guest,
    Nobody,
}

/// Random enough, and the same again from the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// Does the worker's part if this process is one.
fn worked(isolation: Isolation) -> bool {
    let Ok(orders) = std::env::var(WORKER) else {
        return false;
    };
    let mut words = orders.split('\n');
    let mut next = || words.next().unwrap();
    let orders = Orders {
        state: next().into(),
        id: next().parse().unwrap(),
        ending: match next() {
            "Left" => Ending::Left,
            "Stopped" => Ending::Stopped,
            _ => Ending::Removed,
        },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    // Errors are part of it: somebody else may be killed.
    if let Err(error) = runtime.block_on(work(&orders, isolation)) {
        tell(&format!("failed: {error}"));
    }
    tell("phase Done");
    true
}

fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "\n{line}").and_then(|()| out.flush());
}

async fn work(orders: &Orders, isolation: Isolation) -> Result<(), Box<dyn std::error::Error>> {
    let host = open(&orders.state).await;
    tell("phase Starting");
    let sandbox = match host.find(&orders.id, refuse_routes()).await? {
        Some(sandbox) => sandbox,
        None => host.start(isolation.start(&orders.id, refuse_routes())).await?,
    };
    sandbox
        .spawn(shell(
            "setsid sleep 600 & while echo x >> log; do mkdir -p a/b; sleep 0.01; rm -r a; done",
        ))
        .await?;
    tell("phase Running");
    crate::world::run_exec(&sandbox, shell("echo output; ls /; sleep 0.01")).await?;
    tell("phase Ending");
    match orders.ending {
        Ending::Left => {}
        Ending::Stopped => host.stop(&orders.id).await?,
        Ending::Removed => host.remove(&orders.id).await?,
    }
    Ok(())
}

async fn many_cycles(world: &World, module: &str) {
    let given = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let cycles = given(CYCLES).unwrap_or(match world.isolation {
        Isolation::Namespace if is_root() => 1000,
        Isolation::Namespace => 250,
        Isolation::Oci(_) => 30,
    });
    let seed: u64 = given(SEED).unwrap_or_else(|| greenroom_stdx::id::fresh_bits() as u64);
    eprintln!("{SEED}={seed} {CYCLES}={cycles}");
    let mut dice = Dice(seed);
    let mut killed: BTreeMap<(Phase, Victim), u32> = BTreeMap::new();
    let mut wanted: Vec<SandboxId> = Vec::new();
    let descriptors = open_descriptors();
    for number in 0..cycles {
        let victim = dice.pick(&[
            Victim::Host,
            Victim::Host,
            Victim::Host,
            Victim::Launcher,
            Victim::Supervisor,
            Victim::Guest,
            Victim::Nobody,
        ]);
        let phase = match victim {
            // It is gone once the supervisor stands.
            Victim::Launcher => Phase::Starting,
            _ => dice.pick(&[Phase::Starting, Phase::Starting, Phase::Running, Phase::Ending]),
        };
        let orders = Orders {
            state: world.state.clone(),
            // Sometimes one that runs or ran before.
            id: match dice.below(4) {
                0 if !wanted.is_empty() => wanted[dice.below(wanted.len() as u64) as usize].clone(),
                _ => fresh_id(),
            },
            ending: dice.pick(&[Ending::Left, Ending::Stopped, Ending::Removed]),
        };
        let what = format!("cycle {number} of seed {seed}: {victim:?} killed while {phase:?}, {orders:?}");
        let worker = Worker::start(&orders, module);
        // Meanwhile, so that the host can look before a killed one's launchers have come to their end.
        let host = open(&world.state).await;
        let was_killed = worker.cut(phase, victim, start_time(world.isolation), &mut dice);
        *killed
            .entry((phase, if was_killed { victim } else { Victim::Nobody }))
            .or_default() += 1;
        let present = names(&world.state.join("sb"));
        wanted = present.iter().filter_map(|name| name.parse().ok()).collect();
        while wanted.len() > MOST_WANTED || (!wanted.is_empty() && dice.below(3) == 0) {
            wanted.swap_remove(dice.below(wanted.len() as u64) as usize);
        }
        if let Err(error) = host.reap(&wanted).await {
            panic!("{what}: reap: {error} {error:?}");
        }
        let left: Vec<String> = names(&world.state.join("sb"))
            .into_iter()
            .filter(|name| wanted.iter().all(|id| id.as_str() != name))
            .collect();
        assert_eq!(left, Vec::<String>::new(), "{what}");
        for id in &wanted {
            answers_or_ended(&host, &world.state, id, &what).await;
        }
        if number % 20 == 0 {
            nothing_of_others(&world.state, &wanted, &what).await;
        }
    }
    world.host.reap(&[]).await.unwrap();
    nothing_of_others(&world.state, &[], "at the end").await;
    eventually("every descriptor is closed again", async || {
        (open_descriptors() <= descriptors).then_some(())
    })
    .await;
    let total: u32 = killed.values().sum();
    eprintln!("{total} cycles; killed in each phase: {killed:?}");
    // Chance leaves none of the kinds out.
    for victim in [Victim::Host, Victim::Launcher, Victim::Supervisor, Victim::Guest] {
        let is_there = killed.keys().any(|(_, other)| *other == victim);
        assert!(is_there || cycles < 100, "no {victim:?} was killed");
    }
}

/// The process that is to be killed.
struct Worker {
    process: Child,
    output: Lines<BufReader<ChildStdout>>,
    lock: PathBuf,
}

impl Worker {
    fn start(orders: &Orders, module: &str) -> Self {
        let mut process = Command::new("/proc/self/exe")
            .args([
                &format!("survival::{module}::{TEST}"),
                "--exact",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(
                WORKER,
                format!("{}\n{}\n{:?}", orders.state.display(), orders.id, orders.ending),
            )
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        Self {
            process,
            output,
            lock: lock_of(&orders.state, &orders.id),
        }
    }

    /// Lets it come to a phase, kills somebody at a random moment in it, and waits for its end. Returns whether there was
    /// somebody to kill.
    fn cut(mut self, phase: Phase, victim: Victim, start_time: Duration, dice: &mut Dice) -> bool {
        let wanted_line = format!("phase {phase:?}");
        let has_come = self
            .output
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line == wanted_line || line == "phase Done");
        assert!(has_come, "the worker ended early");
        let moment = Duration::from_micros(dice.below(match phase {
            Phase::Starting => start_time.as_micros() as u64,
            Phase::Running => 20_000,
            Phase::Ending => 6_000,
        }));
        let worker = Pid::from_child(&self.process);
        let supervisor = || lock::holder(&self.lock).ok().flatten();
        let was_killed = match victim {
            Victim::Nobody => false,
            Victim::Host => {
                std::thread::sleep(moment);
                kill_process(worker, Signal::KILL).is_ok()
            }
            Victim::Launcher => kill_soon(start_time / 30, start_time, dice, || {
                children(worker).first().copied()
            }),
            Victim::Supervisor => {
                std::thread::sleep(moment);
                kill_soon(start_time / 8, start_time, dice, supervisor)
            }
            Victim::Guest => {
                std::thread::sleep(moment);
                kill_soon(start_time / 8, start_time, dice, || {
                    children(supervisor()?).first().copied()
                })
            }
        };
        // To its end by itself, unless it was the one; it must not hang whoever dies.
        let deadline = Instant::now() + crate::world::PATIENCE * 2;
        for _ in self.output.map_while(Result::ok) {}
        while self.process.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the worker hangs");
            std::thread::sleep(Duration::from_millis(1));
        }
        was_killed
    }
}

fn lock_of(state: &Path, id: &SandboxId) -> PathBuf {
    state
        .join("sb")
        .join(id.as_str())
        .join(greenroom_sandbox::spec::LOCK_NAME)
}

/// About as long as a start takes.
fn start_time(isolation: Isolation) -> Duration {
    Duration::from_millis(match isolation {
        Isolation::Namespace => 12,
        Isolation::Oci("crun") => 20,
        Isolation::Oci("runc") => 60,
        Isolation::Oci(_) => 200,
    })
}

/// Looks for a process for a short while and kills it a moment after it is seen.
fn kill_soon(
    most: Duration,
    patience: Duration,
    dice: &mut Dice,
    mut look: impl FnMut() -> Option<Pid>,
) -> bool {
    // Some are there for a moment only, and this process may not have a processor then.
    let deadline = Instant::now() + patience.max(Duration::from_millis(30));
    let moment = Duration::from_micros(dice.below(most.as_micros() as u64));
    while Instant::now() < deadline {
        if let Some(pid) = look() {
            std::thread::sleep(moment);
            return kill_process(pid, Signal::KILL).is_ok();
        }
        std::thread::yield_now();
    }
    false
}

/// Children of all threads of a process (proc_tid_children(5)).
fn children(parent: Pid) -> Vec<Pid> {
    let tasks = format!("/proc/{}/task", parent.as_raw_nonzero());
    let mut found = Vec::new();
    for task in std::fs::read_dir(tasks).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(
            text.split_whitespace()
                .filter_map(|word| Pid::from_raw(word.parse().ok()?)),
        );
    }
    found
}

/// One that runs is found and does what it is told; one whose start was cut may also end, but then it is over.
async fn answers_or_ended(host: &Host, state: &Path, id: &SandboxId, what: &str) {
    let deadline = Instant::now() + crate::world::PATIENCE;
    loop {
        let reason = match host.find(id, refuse_routes()).await {
            Ok(None) => return,
            Ok(Some(sandbox)) => {
                let run = crate::world::run_exec(&sandbox, shell("echo alive"));
                match tokio::time::timeout(crate::world::PATIENCE, run).await {
                    Ok(Ok(ran)) if ran.output == "alive\n" => return,
                    other => format!("{other:?}"),
                }
            }
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(
            Instant::now() < deadline,
            "{what}: it neither answers nor ends: {reason}; {}",
            leftovers::processes(state).join("; ")
        );
    }
}

/// No process anywhere belongs to a sandbox that is not wanted. One that was killed may take a moment to be gone.
async fn nothing_of_others(state: &Path, wanted: &[SandboxId], what: &str) {
    let deadline = Instant::now() + crate::world::PATIENCE;
    loop {
        let strangers: Vec<String> = leftovers::processes(&state.join("sb"))
            .into_iter()
            .filter(|line| !wanted.iter().any(|id| line.contains(id.as_str())))
            .collect();
        if strangers.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {strangers:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn names(directory: &Path) -> Vec<String> {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

/// Descriptors that this process has open.
fn open_descriptors() -> usize {
    names(Path::new("/proc/self/fd")).len()
}
