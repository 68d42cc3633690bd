//! The supervisor's watch over a sandbox that runs, whatever isolates it: carries what is to be carried, ends it when asked or
//! when its time is over, holds it to its disk limit, and says in the end how it was. Single-threaded; starts no process but
//! short-lived copies of itself.

use crate::cgroup::Placement;
use crate::disk_rules::Action;
use crate::disk_watch::DiskWatch;
use crate::processes::Inside;
use crate::spec::{
    EndingLimit, ExitRecord, HITS_NAME, LaunchFailure, LaunchReport, LaunchSpec, LimitHits, Limits, Privilege,
};
use crate::supervise::{
    Post, exit_record, finish, kill, next_signal, release_host, remove_cgroups, report, wait,
    wait_without_reaping,
};
use crate::usage::{Counters, Refusals};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::path::Path;
use std::time::{Duration, Instant};

/// Before the first look at the disk, so that it does not compete with the start.
const FIRST_LOOK: Duration = Duration::from_millis(100);

/// Why there is nobody to talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The guest's ends are closed.
    Closed,
    /// It says what makes no sense.
    Nonsense,
}

/// A sandbox that runs, as its kind of isolation has it.
pub(crate) trait Held {
    /// The child of this process with which the sandbox ends. It is waited for by the watch alone.
    fn child(&self) -> i32;

    /// Adds what must be waited for to a poll set.
    fn wait_for<'a>(&'a self, _fds: &mut Vec<PollFd<'a>>) {}

    /// Does everything that is possible without waiting.
    fn serve(&mut self) -> Result<(), Gone> {
        Ok(())
    }

    /// Its namespaces, where they are those of this kernel.
    fn inside(&self) -> Option<&Inside>;

    /// Kills all programs of the sandbox and leaves the guest. It need not have happened yet on return; one that does not
    /// happen shows at the next look.
    fn kill_programs(&mut self);
}

/// What a sandbox is held to, and where.
pub(crate) struct Terms<'a> {
    pub directory: &'a Path,
    pub cgroups: &'a [Placement],
    pub limits: &'a Limits,
    /// With which rights its disk is watched; `None` if something else bounds it.
    pub watched_as: Option<Privilege>,
}

impl<'a> Terms<'a> {
    pub(crate) fn of(spec: &'a LaunchSpec) -> Self {
        Self {
            directory: &spec.directory,
            cgroups: &spec.cgroups,
            limits: &spec.limits,
            watched_as: Some(spec.privilege),
        }
    }
}

/// What a start gives.
pub(crate) struct Started<H> {
    pub held: H,
    /// Kept for the life of this process.
    pub post: Post,
    /// Limits that could not be set, one sentence each.
    pub warnings: Vec<String>,
}

/// Tells the host how the start went, and stays until the sandbox's end. Returns the exit code of the launcher.
pub(crate) fn hold(terms: &Terms<'_>, started: Result<Started<impl Held>, LaunchFailure>) -> i32 {
    let Started {
        mut held,
        post,
        warnings,
    } = match started {
        Ok(started) => started,
        Err(failure) => {
            remove_cgroups(terms.cgroups);
            report(&LaunchReport::Failed(failure));
            return 1;
        }
    };
    report(&LaunchReport::Started { warnings });
    release_host();
    let record = Guard::new(terms).run(&mut held, &post);
    finish(terms.directory, terms.cgroups, &record);
    0
}

struct Guard<'a> {
    directory: &'a Path,
    /// `None` without end.
    end_at: Option<Instant>,
    counters: Counters,
    /// At the last look.
    refusals: Refusals,
    watch: Option<DiskWatch>,
    look_at: Option<Instant>,
    hits: LimitHits,
    was_stopped: bool,
}

impl<'a> Guard<'a> {
    fn new(terms: &Terms<'a>) -> Self {
        let began = Instant::now();
        let limit = terms.limits.disk_bytes;
        let watch = terms
            .watched_as
            .and_then(|_| DiskWatch::new(terms.directory, limit).ok());
        Self {
            directory: terms.directory,
            end_at: terms.limits.wall_time.and_then(|life| began.checked_add(life)),
            counters: Counters::open(terms.cgroups),
            refusals: Refusals::default(),
            look_at: watch.as_ref().map(|_| began + FIRST_LOOK),
            watch,
            hits: LimitHits::default(),
            was_stopped: false,
        }
    }

    /// Until the sandbox's child ends. The signals of [`Post`] are blocked.
    fn run(mut self, held: &mut impl Held, post: &Post) -> ExitRecord {
        loop {
            if wait_without_reaping(held.child()) {
                return self.close(held);
            }
            let now = Instant::now();
            if self.life_end().is_some_and(|at| at <= now) {
                self.end(held, EndingLimit::WallTime);
            }
            if self.look_at.is_some_and(|at| at <= now) {
                self.look(held, now);
            }
            pause(
                held,
                post,
                [self.life_end(), self.look_at].into_iter().flatten().min(),
            );
            while let Some(signal) = next_signal(&post.signals) {
                if signal == libc::SIGTERM || signal == libc::SIGINT {
                    self.was_stopped = true;
                    kill(held.child());
                }
            }
            if held.serve().is_err() {
                // What isolates is no sandbox without a guest.
                kill(held.child());
                return self.close(held);
            }
        }
    }

    fn life_end(&self) -> Option<Instant> {
        self.end_at.filter(|_| self.hits.ended_by.is_none())
    }

    /// Ends the sandbox for a limit.
    fn end(&mut self, held: &impl Held, limit: EndingLimit) {
        self.hits.ended_by = Some(limit);
        record(self.directory, &self.hits);
        kill(held.child());
    }

    fn look(&mut self, held: &mut impl Held, now: Instant) {
        self.refusals = self.counters.refusals();
        let Some(watch) = &mut self.watch else { return };
        let (action, next) = watch.look(held.child(), held.inside(), self.counters.cpu_us(), now);
        if action != Action::None {
            self.hits.disk += 1;
        }
        if action != Action::None || self.hits.is_disk_full != watch.is_over() {
            self.hits.is_disk_full = watch.is_over();
            // Before programs end, so that whoever sees their end knows why.
            record(self.directory, &self.hits);
        }
        match action {
            Action::None => {}
            Action::KillPrograms => held.kill_programs(),
            Action::End => self.end(held, EndingLimit::Disk),
        }
        self.look_at = Some(Instant::now() + next);
    }

    /// Waits for the child, which ended or was killed, and says how it was. Connections of hosts are still open, so that
    /// whoever sees them end can read why.
    fn close(mut self, held: &impl Held) -> ExitRecord {
        let status = wait(held.child(), 0).unwrap_or(0);
        let refusals = self.counters.refusals();
        if self.hits.ended_by.is_none() && !self.was_stopped {
            // It ended by itself, in the moment in which the kernel refused it something.
            self.hits.ended_by = match () {
                () if refusals.memory > self.refusals.memory => Some(EndingLimit::Memory),
                () if refusals.processes > self.refusals.processes => Some(EndingLimit::Processes),
                () => None,
            };
            if self.hits.ended_by.is_some() {
                record(self.directory, &self.hits);
            }
        }
        ExitRecord {
            was_out_of_time: self.hits.ended_by == Some(EndingLimit::WallTime),
            cpu_us: self.counters.cpu_us(),
            peak_memory_bytes: self.counters.peak_memory_bytes(),
            ..exit_record(status, self.was_stopped)
        }
    }
}

/// Waits for anything to happen, at most until `deadline`.
pub(crate) fn pause(held: &impl Held, post: &Post, deadline: Option<Instant>) {
    let mut fds = vec![PollFd::new(&post.signals, PollFlags::IN)];
    held.wait_for(&mut fds);
    let left = deadline.map(|at| {
        let left = at.saturating_duration_since(Instant::now());
        Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        }
    });
    // Interruptions are looked at like everything else.
    let _ = rustix::event::poll(&mut fds, left.as_ref());
}

/// Best effort: without it a limit is still held, but nobody hears of it.
fn record(directory: &Path, hits: &LimitHits) {
    let draft = directory.join(".limits-hit");
    let Ok(text) = serde_json::to_vec(hits) else {
        return;
    };
    let _ = std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, directory.join(HITS_NAME)));
}
