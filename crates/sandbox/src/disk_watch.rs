//! Holds a sandbox to its disk limit where no quota does: the supervisor looks, and kills the programs of a sandbox that took
//! more. Decides when to look and what to do; the supervisor does it.
//!
//! Walking a tree costs time, so it is done only when the limit may have been crossed: the filesystem's free space bounds
//! what anyone can have taken since the last walk. Looks are the rarer the more room is left. Walks take at most a twentieth
//! of the time in the long run, a few may follow each other at once.
//!
//! What a program can take beyond the limit is what it writes in the time of one look, one walk and its death: some tens
//! of milliseconds near the limit. Other writers on the filesystem cost extra walks and no programs; others that free hide what
//! is written in that moment until the next walk, which comes a second later near the limit.

use crate::disk_usage::{self, Tally, natural};
use crate::processes::{self, Inside};
use crate::unnamed::{self, Unnamed};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// No disk takes data faster for long, in bytes per second; with less room left, looks come sooner.
const FASTEST_BYTES_PER_SECOND: u64 = 2 << 30;

/// Between two looks at least and at most.
const MIN_PERIOD: Duration = Duration::from_millis(20);
const MAX_PERIOD: Duration = Duration::from_secs(5);

/// Longest period near the limit while nothing is written.
const QUIET_PERIOD: Duration = Duration::from_millis(200);

/// How old a count may get while programs run.
const MAX_AGE: Duration = Duration::from_secs(60);

/// The same at least, once somebody freed space: what was written meanwhile does not show then. Older where there is more room,
/// by this many bytes per second.
const MIN_AGE: Duration = Duration::from_secs(1);
const DOUBTED_BYTES_PER_SECOND: u64 = 256 << 20;

/// Walks take at most one part in this many of the time.
const WALK_SHARE: u32 = 20;

/// Walking time that may be used at once before that share counts.
const WALK_BURST: Duration = Duration::from_millis(200);

/// What programs may add while their sandbox is over its limit, in bytes: shells write histories, `rm` a log.
const GRACE_BYTES: u64 = 1 << 20;

/// How far beyond twice its limit a sandbox may be and still add, in bytes. Beyond it, it was not held by killing its programs:
/// they are started again and again, or nobody inside obeys.
const OVERDRAFT_BYTES: u64 = 1 << 30;

/// Longest look after which programs are stopped for another.
const MAX_STANDSTILL: Duration = Duration::from_millis(300);

/// How long one look at what processes have open may take.
const UNNAMED_PATIENCE: Duration = Duration::from_millis(150);

/// Between two looks while the next walk is not due.
const WAITING_PERIOD: Duration = Duration::from_millis(100);

/// How often in a row space may be missing while descriptors are on their way.
const MAX_SUSPICIONS: u32 = 3;

/// After programs were killed, until the dead let go of their files.
const SETTLE_PERIOD: Duration = Duration::from_millis(20);

/// Filesystems whose free space shows at once what was written (`*_SUPER_MAGIC` of linux/magic.h): ext4, xfs, tmpfs. Others
/// tell when they write it out.
const PROMPT_FILESYSTEMS: [u64; 3] = [0xEF53, 0x5846_5342, 0x0102_1994];

/// Where a sandbox stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Within,
    /// Programs were killed; what remains is not known yet.
    Killed,
    /// Over the limit; programs run as long as they do not add to it.
    Over {
        tolerated: u64,
    },
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    None,
    KillPrograms,
    /// End the whole sandbox.
    End,
}

/// From where a sandbox stood and what it takes now, in bytes, to where it stands and what is to be done.
pub(crate) fn judge(standing: Standing, used: u64, limit: u64) -> (Standing, Action) {
    match standing {
        _ if used <= limit => (Standing::Within, Action::None),
        Standing::Within => (Standing::Killed, Action::KillPrograms),
        Standing::Killed => (Standing::Over { tolerated: used }, Action::None),
        Standing::Over { tolerated } if used > tolerated.saturating_add(GRACE_BYTES) => {
            let is_past_holding = used > limit.saturating_mul(2).saturating_add(OVERDRAFT_BYTES);
            let action = match is_past_holding {
                true => Action::End,
                false => Action::KillPrograms,
            };
            (Standing::Killed, action)
        }
        // What was freed is not given back before the sandbox is within its limit.
        Standing::Over { tolerated } => {
            let tolerated = tolerated.min(used);
            (Standing::Over { tolerated }, Action::None)
        }
    }
}

/// How long to wait before the next look with `room` bytes left, when nothing was written for `quiet` looks in a row.
fn period(room: u64, quiet: u32) -> Duration {
    let by_room = Duration::from_millis(room.saturating_mul(1000) / FASTEST_BYTES_PER_SECOND);
    let by_quiet = (MIN_PERIOD * quiet.min(100)).min(QUIET_PERIOD);
    by_room.max(by_quiet).clamp(MIN_PERIOD, MAX_PERIOD)
}

/// How old a count may get with `room` bytes left; `is_doubtful` once somebody freed space.
fn max_age(room: u64, is_doubtful: bool) -> Duration {
    match is_doubtful {
        true => Duration::from_secs(room / DOUBTED_BYTES_PER_SECOND).clamp(MIN_AGE, MAX_AGE),
        false => MAX_AGE,
    }
}

/// Time spent on walks, paid back by time that passes.
#[derive(Debug, Default)]
struct Debt {
    owed: Duration,
    at: Option<Instant>,
}

impl Debt {
    fn pay(&mut self, now: Instant) {
        let passed = self
            .at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.owed = self.owed.saturating_sub(passed / WALK_SHARE);
        self.at = Some(now);
    }

    fn add(&mut self, cost: Duration) {
        self.owed += cost;
    }

    /// How long until another walk is due; zero if it may be now.
    fn wait(&self) -> Duration {
        self.owed.saturating_sub(WALK_BURST) * WALK_SHARE
    }
}

/// The last walk, and what the filesystem said since.
#[derive(Debug)]
struct Count {
    used: u64,
    at: Instant,
    /// Free space at the walk and the most since then, in bytes; both without what changed while nothing ran inside.
    free: u64,
    most_free: u64,
    /// Whether space was freed while programs ran, by them or by others.
    is_doubtful: bool,
    cpu_us: Option<u64>,
    /// [`processes::written_bytes`] at the walk.
    written: u64,
}

/// What can be seen of a sandbox.
#[derive(Debug, Clone, Copy)]
struct Sight {
    tally: Tally,
    unnamed: Unnamed,
    written: u64,
}

impl Sight {
    fn used(&self) -> u64 {
        self.tally.bytes.saturating_add(self.unnamed.bytes)
    }
}

/// What a walk found.
struct Counted {
    used: u64,
    written: u64,
}

/// The watch over one sandbox.
pub(crate) struct DiskWatch {
    directory: PathBuf,
    limit: u64,
    filesystem: OwnedFd,
    is_prompt: bool,
    standing: Standing,
    count: Option<Count>,
    debt: Debt,
    last_free: u64,
    last_cpu_us: Option<u64>,
    quiet: u32,
    /// Walks in a row after which space was missing that only messages in sockets can keep.
    suspicions: u32,
}

impl DiskWatch {
    /// Watches what lies in the sandbox's directory.
    pub(crate) fn new(directory: &Path, limit: u64) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let filesystem = rustix::fs::open(directory, flags, Mode::empty())?;
        let kind = rustix::fs::fstatfs(&filesystem)?.f_type;
        Ok(Self {
            directory: directory.to_owned(),
            limit,
            filesystem,
            is_prompt: PROMPT_FILESYSTEMS.contains(&natural(kind)),
            standing: Standing::Within,
            count: None,
            debt: Debt::default(),
            last_free: 0,
            last_cpu_us: None,
            quiet: 0,
            suspicions: 0,
        })
    }

    /// Whether the sandbox takes more than it may.
    pub(crate) fn is_over(&self) -> bool {
        self.standing != Standing::Within
    }

    /// Looks once. Returns what to do now and when to look again. The sandbox's processes are `child` and those below it, and
    /// took `cpu_us` of processor time so far, if that is counted.
    pub(crate) fn look(
        &mut self,
        child: i32,
        inside: Option<&Inside>,
        cpu_us: Option<u64>,
        now: Instant,
    ) -> (Action, Duration) {
        let free = self.free();
        let was_idle = cpu_us.is_some() && cpu_us == self.last_cpu_us;
        self.quiet = if free == self.last_free || was_idle {
            self.quiet + 1
        } else {
            0
        };
        if let Some(count) = &mut self.count {
            if was_idle {
                // Somebody else wrote or freed: a program that does not run does neither.
                for known in [&mut count.free, &mut count.most_free] {
                    *known = known.saturating_add(free).saturating_sub(self.last_free);
                }
            }
            count.most_free = count.most_free.max(free);
            count.is_doubtful |= !was_idle && free > self.last_free;
        }
        (self.last_free, self.last_cpu_us) = (free, cpu_us);

        self.debt.pay(now);
        let ceiling = self.ceiling();
        if !self.must_walk(ceiling, free, cpu_us, now) {
            return (Action::None, period(ceiling - self.estimate(free), self.quiet));
        }
        let wait = self.debt.wait();
        if !wait.is_zero() && self.standing != Standing::Killed {
            // Whoever made walks long does not write meanwhile as much as it likes. Killing is followed by a walk.
            let believed = self.believed(free, processes::written_bytes(child));
            if believed <= ceiling {
                return (Action::None, wait.min(WAITING_PERIOD));
            }
            let action;
            (self.standing, action) = judge(self.standing, believed, self.limit);
            return (action, SETTLE_PERIOD);
        }
        let Some(Counted { used, written }) = self.walk(child, inside, ceiling, free) else {
            return (Action::None, self.debt.wait().clamp(MIN_PERIOD, MAX_PERIOD));
        };
        self.count = Some(Count {
            used,
            at: now,
            free,
            most_free: free,
            is_doubtful: false,
            cpu_us,
            written,
        });
        let action;
        (self.standing, action) = judge(self.standing, used, self.limit);
        let next = match action {
            Action::KillPrograms | Action::End => SETTLE_PERIOD,
            Action::None if self.is_prompt => period(self.ceiling().saturating_sub(used), self.quiet),
            // Only walks show anything there.
            Action::None => {
                let by_room = period(self.ceiling().saturating_sub(used), self.quiet);
                by_room.max(self.debt.wait()).min(MAX_PERIOD)
            }
        };
        (action, next)
    }

    /// Up to where nothing needs to be done, in bytes.
    fn ceiling(&self) -> u64 {
        match self.standing {
            Standing::Within | Standing::Killed => self.limit,
            Standing::Over { tolerated } => tolerated.saturating_add(GRACE_BYTES),
        }
    }

    /// Most that the sandbox can take now, from the last walk and what the filesystem lost since.
    fn estimate(&self, free: u64) -> u64 {
        self.count.as_ref().map_or(u64::MAX, |count| {
            count.used.saturating_add(count.most_free.saturating_sub(free))
        })
    }

    fn must_walk(&self, ceiling: u64, free: u64, cpu_us: Option<u64>, now: Instant) -> bool {
        let Some(count) = &self.count else { return true };
        if self.standing == Standing::Killed || self.estimate(free) > ceiling {
            return true;
        }
        let has_run = cpu_us.is_none() || cpu_us != count.cpu_us;
        // Over the limit, freed space shows how much is tolerated from now on.
        let has_freed = self.is_over() && count.most_free > count.free.saturating_add(GRACE_BYTES);
        let room = ceiling.saturating_sub(count.used);
        let is_old = now.saturating_duration_since(count.at) >= max_age(room, count.is_doubtful);
        has_run && (!self.is_prompt || is_old || has_freed)
    }

    /// Counts what the sandbox takes, in bytes. `None` if that is not clear yet.
    fn walk(&mut self, child: i32, inside: Option<&Inside>, ceiling: u64, free: u64) -> Option<Counted> {
        let began = Instant::now();
        let counted = self.find(child, inside, ceiling, free, began);
        self.debt.add(began.elapsed());
        counted
    }

    fn find(
        &mut self,
        child: i32,
        inside: Option<&Inside>,
        ceiling: u64,
        free: u64,
        began: Instant,
    ) -> Option<Counted> {
        let suspicions = std::mem::take(&mut self.suspicions);
        let mut sight = self.look_at_all(child, inside);
        let done = |sight: Sight, used| {
            Some(Counted {
                used,
                written: sight.written,
            })
        };
        if sight.used() > ceiling || self.estimate(free) <= ceiling {
            return done(sight, sight.used());
        }
        // Something took the space and is not found: others, or something that hides.
        let mut is_hidden = false;
        if sight.tally.has_changed || sight.tally.has_moved {
            if inside.is_some() && began.elapsed() < MAX_STANDSTILL {
                // Perhaps it is where nobody looked because it was renamed meanwhile. Nothing moves while all stand still.
                let stopped = processes::stop(child);
                sight = self.look_at_all(child, inside);
                is_hidden = !stopped.holds(child);
            } else {
                is_hidden = sight.tally.has_moved;
            }
        }
        let used = sight.used();
        let is_in_flight = sight.unnamed.in_flight > 0;
        if used <= ceiling && is_in_flight && suspicions < MAX_SUSPICIONS {
            // Programs do send descriptors, and receive them soon.
            self.suspicions = suspicions + 1;
            return None;
        }
        if used <= ceiling && (is_hidden || is_in_flight || !sight.unnamed.is_whole) {
            return done(sight, used.max(self.believed(free, sight.written)));
        }
        done(sight, used)
    }

    /// What a sandbox that hides something is believed to take: as much more than at the last walk as the filesystem lost since,
    /// but no more than its processes wrote. Others write too, and no sandbox is to end for that.
    fn believed(&self, free: u64, written: u64) -> u64 {
        self.count.as_ref().map_or(0, |count| {
            let lost = count.most_free.saturating_sub(free);
            let wrote = written.saturating_sub(count.written);
            count.used.saturating_add(lost.min(wrote))
        })
    }

    /// Everything of it that can be seen.
    fn look_at_all(&self, child: i32, inside: Option<&Inside>) -> Sight {
        let tally = disk_usage::count(&self.directory);
        let look = || {
            let unnamed = unnamed::count(child, &self.directory, UNNAMED_PATIENCE);
            (unnamed, processes::written_bytes(child))
        };
        // Programs of an ordinary user can close directories and processes to this one, which is the same user. In their user
        // namespace that does not help them.
        let whole = || match tally.is_whole {
            true => tally.bytes,
            false => disk_usage::count(&self.directory).bytes,
        };
        let numbers = inside.and_then(|inside| {
            inside.with_rights(|| {
                let (unnamed, written) = look();
                let is_whole = u64::from(unnamed.is_whole);
                [whole(), unnamed.bytes, unnamed.in_flight, is_whole, written]
            })
        });
        match numbers {
            Some(Ok([bytes, unnamed_bytes, in_flight, is_whole, written])) => Sight {
                tally: Tally { bytes, ..tally },
                unnamed: Unnamed {
                    bytes: unnamed_bytes,
                    in_flight,
                    is_whole: is_whole == 1,
                },
                written,
            },
            Some(Err(_)) | None => {
                let (unnamed, written) = look();
                Sight {
                    tally,
                    unnamed,
                    written,
                }
            }
        }
    }

    /// Free space in bytes, less what the inodes in use count at least. Only its changes mean something.
    fn free(&self) -> u64 {
        rustix::fs::fstatfs(&self.filesystem).map_or(0, |fs| {
            let blocks = natural(fs.f_bfree).saturating_mul(natural(fs.f_bsize));
            let inodes = natural(fs.f_files).saturating_sub(natural(fs.f_ffree));
            // From half of what a number can hold, so that neither end is reached.
            (u64::MAX / 2)
                .saturating_add(blocks)
                .saturating_sub(inodes.saturating_mul(disk_usage::MIN_ENTRY_BYTES))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_killed_when_the_limit_is_crossed_and_when_more_is_added() {
        use Action::{End, KillPrograms, None as Nothing};
        use Standing::{Killed, Over, Within};
        let limit = 100 << 20;
        let over = |mib: u64| Over { tolerated: mib << 20 };
        for (standing, used_mib, expected) in [
            (Within, 0, (Within, Nothing)),
            (Within, 100, (Within, Nothing)),
            (Within, 101, (Killed, KillPrograms)),
            (Killed, 130, (over(130), Nothing)),
            (Killed, 90, (Within, Nothing)),
            // A little may be added, a lot not.
            (over(130), 131, (over(130), Nothing)),
            (over(130), 132, (Killed, KillPrograms)),
            // What was freed stays free.
            (over(130), 110, (over(110), Nothing)),
            (over(110), 130, (Killed, KillPrograms)),
            (over(110), 100, (Within, Nothing)),
            // So much at once is no reason yet; to go on is.
            (Within, 5000, (Killed, KillPrograms)),
            (Killed, 5000, (over(5000), Nothing)),
            (over(5000), 5001, (over(5000), Nothing)),
            (over(5000), 5002, (Killed, End)),
            (over(1000), 1224, (Killed, KillPrograms)),
            (over(1000), 1225, (Killed, End)),
        ] {
            assert_eq!(
                judge(standing, used_mib << 20, limit),
                expected,
                "{standing:?} {used_mib}"
            );
        }
    }

    #[test]
    fn creeping_is_not_tolerated_for_ever() {
        let limit = 100 << 20;
        let mut standing = Standing::Over { tolerated: 110 << 20 };
        let mut used = 110 << 20;
        let killed_at = (0..100).find(|_| {
            used += GRACE_BYTES / 4;
            let action;
            (standing, action) = judge(standing, used, limit);
            action == Action::KillPrograms
        });
        assert_eq!(killed_at, Some(4));
    }

    #[test]
    fn counts_are_doubted_sooner_with_little_room_when_space_was_freed() {
        for (room, is_doubtful, expected_s) in [
            (0, false, 60),
            (0, true, 1),
            (1 << 20, true, 1),
            (1 << 30, true, 4),
            (10 << 30, true, 40),
            (100 << 30, true, 60),
            (u64::MAX, true, 60),
        ] {
            assert_eq!(
                max_age(room, is_doubtful).as_secs(),
                expected_s,
                "{room} {is_doubtful}"
            );
        }
    }

    #[test]
    fn looks_are_rare_with_room_and_frequent_without() {
        for (room, quiet, expected_ms) in [
            (0, 0, 20),
            (1 << 20, 0, 20),
            (1 << 30, 0, 500),
            (100 << 30, 0, 5000),
            (0, 3, 60),
            (0, 1000, 200),
            (1 << 30, 1000, 500),
            (u64::MAX, u32::MAX, 5000),
        ] {
            assert_eq!(period(room, quiet).as_millis(), expected_ms, "{room} {quiet}");
        }
    }

    #[test]
    fn walks_take_a_twentieth_of_the_time_after_a_burst() {
        let mut now = Instant::now();
        let mut debt = Debt::default();
        debt.pay(now);
        let cost = Duration::from_millis(100);
        let mut walked = Duration::ZERO;
        let end = now + Duration::from_secs(60);
        while now < end {
            debt.pay(now);
            match debt.wait() {
                Duration::ZERO => {
                    debt.add(cost);
                    walked += cost;
                    now += cost;
                }
                wait => now += wait,
            }
        }
        assert!(
            walked <= Duration::from_secs(60) / WALK_SHARE + WALK_BURST + cost * 2,
            "{walked:?}"
        );
        assert!(walked >= Duration::from_secs(60) / WALK_SHARE, "{walked:?}");
    }
}
