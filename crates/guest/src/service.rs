//! Services: programs that the guest keeps running beside the agent. One controller thread each does what its lifecycle
//! says: runs, probes, kills, waits. They live without any link.

mod job;
mod lifecycle;

use crate::failure::{self, CallResult, failed};
use crate::ring::{self, Ring};
use crate::wake::{self, Wake};
use greenroom_protocol::guest::call::{CallErrorCode, Exec, Reply};
use greenroom_protocol::guest::service::{Readiness, Service, ServiceStatus};
use job::Job;
use lifecycle::{Effect, Input, Lifecycle};
use rustix::event::PollFlags;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Services at once; each has up to three threads.
const MAX_SERVICES: usize = 16;

/// Between two looks whether a service is ready.
const PROBE_PAUSE: Duration = Duration::from_millis(50);

/// Longest look at a port.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Longest run of a program that looks, in milliseconds.
const PROBE_TIMEOUT_MS: u64 = 10_000;

/// Longest line that is searched for the text that means ready, in bytes.
const MAX_LINE_BYTES: usize = 16 << 10;

/// Output in one reply: JSON may write each byte as six.
const READ_BYTES: usize = 40 * 1024;

static SERVICES: Mutex<BTreeMap<String, Entry>> = Mutex::new(BTreeMap::new());

struct Entry {
    controlled: Arc<Controlled>,
    thread: JoinHandle<()>,
}

/// What controller and calls share.
struct Controlled {
    definition: Service,
    began: Instant,
    wake: Arc<Wake>,
    lifecycle: Mutex<Lifecycle>,
    log: Arc<Mutex<Ring>>,
    is_stop_wanted: AtomicBool,
}

fn services() -> MutexGuard<'static, BTreeMap<String, Entry>> {
    lock(&SERVICES)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is shared is whole after every operation.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts one, replaces one of another definition, or leaves it alone.
pub fn start(definition: Service) -> CallResult {
    check(&definition)?;
    let mut services = services();
    let old = match services.get(&definition.name) {
        Some(entry) if entry.controlled.definition == definition => {
            if !entry.controlled.is_leaving() {
                return Ok(Reply::Done);
            }
            services.remove(&definition.name)
        }
        Some(_) => services.remove(&definition.name),
        None if services.len() >= MAX_SERVICES => {
            return Err(failed(
                CallErrorCode::TooLarge,
                format!("a sandbox runs at most {MAX_SERVICES} services"),
            ));
        }
        None => None,
    };
    // At once: should there be no thread for the new one, the old does not stay behind unseen.
    if let Some(old) = &old {
        old.controlled.stop();
    }
    let log = match &old {
        Some(old) if old.controlled.definition == definition => Arc::clone(&old.controlled.log),
        Some(_) | None => Arc::default(),
    };
    let os = |error: std::io::Error| failure::of(&error, "service");
    let ready_timeout = Duration::from_millis(definition.ready_timeout_ms);
    let (lifecycle, effect) = Lifecycle::begin(definition.restart, ready_timeout, Duration::ZERO);
    let name = definition.name.clone();
    let controlled = Arc::new(Controlled {
        definition,
        began: Instant::now(),
        wake: Arc::new(Wake::new().map_err(os)?),
        lifecycle: Mutex::new(lifecycle),
        log,
        is_stop_wanted: AtomicBool::new(false),
    });
    let control = Arc::clone(&controlled);
    let thread = std::thread::Builder::new()
        .name("service".into())
        .stack_size(256 << 10)
        .spawn(move || {
            // Two of one name never run beside each other.
            if let Some(old) = old {
                // It cannot panic, and if it did its programs are nobody's.
                let _ = old.thread.join();
            }
            Controller {
                controlled: control,
                program: None,
                probe: None,
                next_probe: Instant::now(),
                has_said_it: Arc::default(),
            }
            .run(effect);
        })
        .map_err(os)?;
    services.insert(name, Entry { controlled, thread });
    Ok(Reply::Done)
}

fn check(definition: &Service) -> CallResult<()> {
    let invalid = |message: &str| Err(failed(CallErrorCode::Invalid, message));
    let name = definition.name.as_bytes();
    let is_name = (1..=63).contains(&name.len())
        && name[0].is_ascii_lowercase()
        && name
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-');
    if !is_name {
        return invalid("a service's name has 1 to 63 of a-z, 0-9 and -, and begins with a letter");
    }
    if definition.argv.is_empty() {
        return invalid("no program was given for the service");
    }
    match &definition.ready {
        Readiness::Command { argv } if argv.is_empty() => {
            invalid("no program was given that looks if it is ready")
        }
        Readiness::Output { text } if text.is_empty() => invalid("no text was given that means ready"),
        Readiness::Port { port: 0 } => invalid("0 is no port"),
        Readiness::Started
        | Readiness::Port { .. }
        | Readiness::Command { .. }
        | Readiness::Output { .. } => Ok(()),
    }
}

/// All of them, by name.
pub fn list() -> Reply {
    let services = services()
        .iter()
        .map(|(name, entry)| {
            let lifecycle = lock(&entry.controlled.lifecycle);
            ServiceStatus {
                name: name.clone(),
                state: lifecycle.state(),
                restarts: lifecycle.restarts(),
                last_exit: lifecycle.last_exit().cloned(),
                reason: lifecycle.reason().to_owned(),
            }
        })
        .collect();
    Reply::Services { services }
}

/// Ends one; one that ended is fine.
pub fn stop(name: &str) -> CallResult {
    with(name, |controlled| {
        controlled.stop();
        Reply::Done
    })
}

/// Output from a cursor, over all starts.
pub fn read_log(name: &str, after_offset: u64, max_bytes: u64) -> CallResult {
    let max_bytes = usize::try_from(max_bytes).unwrap_or(READ_BYTES).min(READ_BYTES);
    with(name, |controlled| {
        let lifecycle = lock(&controlled.lifecycle);
        let is_over = lifecycle.is_over();
        let exit = lifecycle.last_exit().filter(|_| is_over).cloned();
        drop(lifecycle);
        let log = lock(&controlled.log);
        let (start_offset, end_offset, output) = log.text(after_offset, max_bytes, is_over);
        Reply::ProcessOutput {
            start_offset,
            end_offset,
            output,
            exit: exit.filter(|_| end_offset == log.end()),
        }
    })
}

fn with(name: &str, act: impl FnOnce(&Controlled) -> Reply) -> CallResult {
    match services().get(name) {
        Some(entry) => Ok(act(&entry.controlled)),
        None => Err(failed(
            CallErrorCode::NotFound,
            format!("there is no service {name:?}"),
        )),
    }
}

impl Controlled {
    fn stop(&self) {
        self.is_stop_wanted.store(true, Ordering::Relaxed);
        self.wake.ring();
    }

    /// Whether it will not run any more by itself.
    fn is_leaving(&self) -> bool {
        self.is_stop_wanted.load(Ordering::Relaxed) || lock(&self.lifecycle).is_over()
    }

    fn exec(&self, argv: &[String], timeout_ms: Option<u64>) -> Exec {
        Exec {
            argv: argv.to_vec(),
            cwd: self.definition.cwd.clone(),
            env: self.definition.env.clone(),
            is_merged: true,
            timeout_ms,
            ..Exec::default()
        }
    }
}

/// What the service's thread holds.
struct Controller {
    controlled: Arc<Controlled>,
    /// The service, or what runs before it.
    program: Option<Program>,
    probe: Option<Arc<Job>>,
    next_probe: Instant,
    /// Whether the current start wrote the text that means ready.
    has_said_it: Arc<AtomicBool>,
}

struct Program {
    job: Arc<Job>,
    is_before: bool,
}

impl Controller {
    fn run(mut self, first: Option<Effect>) {
        self.act(first);
        let mut has_stopped = false;
        loop {
            self.controlled.wake.clear();
            if !has_stopped && self.controlled.is_stop_wanted.load(Ordering::Relaxed) {
                has_stopped = true;
                self.step(Input::Stop);
            }
            // Before its end: one that was ready and ended at once was ready.
            self.look_if_ready();
            self.look_at_program();
            let now = self.controlled.began.elapsed();
            let deadline = lock(&self.controlled.lifecycle).deadline();
            if deadline.is_some_and(|at| now >= at) {
                self.step(Input::Due);
                continue;
            }
            let lifecycle = lock(&self.controlled.lifecycle);
            if lifecycle.is_over() {
                return;
            }
            let probe = lifecycle.is_starting().then_some(self.next_probe);
            drop(lifecycle);
            let until = deadline.map(|at| self.controlled.began + at);
            let until = [until, probe].into_iter().flatten().min();
            wake::wait(&mut [wake::on(&self.controlled.wake, PollFlags::IN)], until);
        }
    }

    fn step(&mut self, input: Input) {
        let mut lifecycle = lock(&self.controlled.lifecycle);
        let (next, effect) = lifecycle.clone().step(input, self.controlled.began.elapsed());
        *lifecycle = next;
        let is_starting = lifecycle.is_starting();
        drop(lifecycle);
        if !is_starting && let Some(probe) = self.probe.take() {
            probe.kill();
        }
        self.act(effect);
    }

    fn act(&mut self, effect: Option<Effect>) {
        match effect {
            None => {}
            Some(Effect::Prepare) if self.controlled.definition.before.is_empty() => {
                self.step(Input::Prepared)
            }
            Some(Effect::Prepare) => self.launch(true),
            Some(Effect::Start) => {
                self.has_said_it = Arc::default();
                self.next_probe = Instant::now();
                self.launch(false);
            }
            Some(Effect::Kill) => match &self.program {
                Some(program) => program.job.kill(),
                // Ended in this moment.
                None => self.step(Input::Broke(String::new(), None)),
            },
        }
    }

    fn launch(&mut self, is_before: bool) {
        let definition = &self.controlled.definition;
        let argv = match is_before {
            true => &definition.before,
            false => &definition.argv,
        };
        let log = Arc::clone(&self.controlled.log);
        let watch = match &definition.ready {
            Readiness::Output { text } if !is_before => Some(Watch {
                text: text.clone().into_bytes(),
                line: Vec::new(),
                found: Arc::clone(&self.has_said_it),
                bell: Arc::clone(&self.controlled.wake),
            }),
            Readiness::Output { .. }
            | Readiness::Started
            | Readiness::Port { .. }
            | Readiness::Command { .. } => None,
        }
        .map(Mutex::new);
        let take = Box::new(move |kind, bytes: &[u8]| {
            lock(&log).put(kind, bytes, ring::bound(), u64::MAX);
            if let Some(watch) = &watch {
                lock(watch).see(bytes);
            }
        });
        match Job::start(&self.controlled.exec(argv, None), &self.controlled.wake, take) {
            Ok(job) => self.program = Some(Program { job, is_before }),
            Err(error) => self.step(Input::Broke(
                format!("It could not be started: {}.", error.message),
                None,
            )),
        }
    }

    fn look_at_program(&mut self) {
        let Some(exit) = self.program.as_ref().and_then(|program| program.job.exit()) else {
            return;
        };
        let is_before = self.program.take().is_some_and(|program| program.is_before);
        self.step(match (is_before, exit.code) {
            (true, Some(0)) => Input::Prepared,
            (true, _) => Input::Broke("What runs before it failed.".to_owned(), Some(exit)),
            (false, _) => Input::Exited(exit),
        });
    }

    fn look_if_ready(&mut self) {
        if !lock(&self.controlled.lifecycle).is_starting() {
            return;
        }
        let is_ready = match &self.controlled.definition.ready {
            Readiness::Started => true,
            Readiness::Output { .. } => {
                self.next_probe = Instant::now() + CONNECT_TIMEOUT;
                self.has_said_it.load(Ordering::Relaxed)
            }
            Readiness::Port { port } => {
                if Instant::now() < self.next_probe {
                    return;
                }
                let is_open = accepts(*port);
                self.next_probe = Instant::now() + PROBE_PAUSE;
                is_open
            }
            Readiness::Command { argv } => match self.probe.take() {
                Some(probe) => match probe.exit() {
                    Some(exit) => exit.code == Some(0),
                    None => {
                        self.next_probe = Instant::now() + CONNECT_TIMEOUT;
                        self.probe = Some(probe);
                        false
                    }
                },
                None if Instant::now() < self.next_probe => false,
                None => {
                    let exec = self.controlled.exec(argv, Some(PROBE_TIMEOUT_MS));
                    self.next_probe = Instant::now() + PROBE_PAUSE;
                    // One that cannot be started is tried again, until the service's own time is over.
                    self.probe = Job::start(&exec, &self.controlled.wake, Box::new(|_, _| {})).ok();
                    false
                }
            },
        };
        if is_ready {
            self.step(Input::BecameReady);
        }
    }
}

fn accepts(port: u16) -> bool {
    [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
        .into_iter()
        .any(|ip| TcpStream::connect_timeout(&SocketAddr::new(ip, port), CONNECT_TIMEOUT).is_ok())
}

/// Looks for a text in lines of output.
struct Watch {
    text: Vec<u8>,
    line: Vec<u8>,
    found: Arc<AtomicBool>,
    bell: Arc<Wake>,
}

impl Watch {
    fn see(&mut self, bytes: &[u8]) {
        if self.found.load(Ordering::Relaxed) {
            return;
        }
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = MAX_LINE_BYTES.saturating_sub(self.line.len());
            self.line.extend(part.iter().take(room));
            // Also a line without end, such as a prompt.
            if self
                .line
                .windows(self.text.len())
                .any(|window| window == self.text)
            {
                self.found.store(true, Ordering::Relaxed);
                self.bell.ring();
                return;
            }
            if part.ends_with(b"\n") {
                self.line.clear();
            }
        }
    }
}
