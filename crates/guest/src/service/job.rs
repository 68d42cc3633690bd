//! One program that a service runs: itself, what comes before it, or a look whether it is ready. A pump on a thread of its
//! own; its end rings the service.

use crate::exec;
use crate::failure::{self, CallResult};
use crate::pump::Console;
use crate::reaper;
use crate::stream::Input;
use crate::wake::Wake;
use greenroom_protocol::guest::call::{Exec, Exit};
use greenroom_protocol::guest::frame::FrameKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What becomes of a program's output.
pub type Take = Box<dyn Fn(FrameKind, &[u8]) + Send + Sync>;

pub struct Job {
    exit: Mutex<Option<Exit>>,
    is_cancelled: AtomicBool,
    pump: Arc<Wake>,
    take: Take,
}

impl Job {
    /// Starts it; `bell` rings at its end.
    pub fn start(exec: &Exec, bell: &Arc<Wake>, take: Take) -> CallResult<Arc<Self>> {
        let os = |error: std::io::Error| failure::of(&error, "service");
        let wake = Arc::new(Wake::new().map_err(os)?);
        let pump = exec::start(exec, Arc::clone(&wake))?;
        let pid = pump.pid();
        reaper::end_group_with_leader(pid);
        let job = Arc::new(Self {
            exit: Mutex::default(),
            is_cancelled: AtomicBool::new(false),
            pump: wake,
            take,
        });
        let (pumped, bell) = (Arc::clone(&job), Arc::clone(bell));
        let started = std::thread::Builder::new()
            .name("service job".into())
            .stack_size(256 << 10)
            .spawn(move || {
                let exit = pump.run(&*pumped);
                *pumped.exit.lock().unwrap_or_else(PoisonError::into_inner) = Some(exit);
                bell.ring();
            });
        match started {
            Ok(_) => Ok(job),
            Err(error) => {
                reaper::signal_group(pid, libc::SIGKILL);
                Err(os(error))
            }
        }
    }

    /// How it ended, once it did.
    pub fn exit(&self) -> Option<Exit> {
        self.exit.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends its group: TERM, a while later KILL.
    pub fn kill(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
        self.pump.ring();
    }
}

impl Console for Job {
    fn room(&self) -> usize {
        usize::MAX
    }

    fn put(&self, kind: FrameKind, bytes: &[u8]) {
        (self.take)(kind, bytes);
    }

    fn next_input(&self) -> Input {
        Input::Pending
    }

    fn took_input(&self, _: usize) {}

    fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }
}
