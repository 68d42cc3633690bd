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
use crate::processes::{self, Inside, Written};
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

/// The same while a sandbox writes what it may not have room for.
const HASTY_SHARE: u32 = 4;

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

/// How often in a row space may be missing while something may hide it.
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
    last_cost: Duration,
    last_end: Option<Instant>,
}

impl Debt {
    fn pay(&mut self, now: Instant) {
        let passed = self
            .at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.owed = self.owed.saturating_sub(passed / WALK_SHARE);
        self.at = Some(now);
    }

    fn add(&mut self, cost: Duration, end: Instant) {
        self.owed += cost;
        (self.last_cost, self.last_end) = (cost, Some(end));
    }

    /// Whether the last walk is so long ago that walks would take no more than one part in [`HASTY_SHARE`] of the time.
    fn has_rested(&self, now: Instant) -> bool {
        self.last_end.is_none_or(|end| {
            now.saturating_duration_since(end) >= self.last_cost.saturating_mul(HASTY_SHARE - 1)
        })
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
    /// By its processes, at the walk.
    written: Written,
}

/// What can be seen of a sandbox.
#[derive(Debug, Clone, Copy)]
struct Sight {
    tally: Tally,
    unnamed: Unnamed,
    written: Written,
}

impl Sight {
    fn used(&self) -> u64 {
        self.tally.bytes.saturating_add(self.unnamed.bytes)
    }
}

/// What a walk found.
struct Counted {
    /// What shows.
    used: u64,
    /// What is believed to be there besides.
    hidden: u64,
    written: Written,
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
    /// What messages in sockets are believed to keep since before the last walk, in bytes.
    carried: u64,
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
            carried: 0,
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
            // Whoever made walks long does not write meanwhile as much as it likes.
            let is_suspect = self.added(free, Written::by(child)) > ceiling.saturating_sub(self.last_used());
            if !(is_suspect && self.debt.has_rested(now)) {
                return (Action::None, wait.min(WAITING_PERIOD));
            }
        }
        let Some(counted) = self.walk(child, inside, ceiling, free) else {
            return (Action::None, self.debt.wait().clamp(MIN_PERIOD, WAITING_PERIOD));
        };
        let used = counted.used.saturating_add(counted.hidden);
        self.carried = counted.hidden;
        self.count = Some(Count {
            used: counted.used,
            at: now,
            free,
            most_free: free,
            is_doubtful: false,
            cpu_us,
            written: counted.written,
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
            let lost = count.most_free.saturating_sub(free);
            count.used.saturating_add(lost).saturating_add(self.carried)
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
        self.debt.add(began.elapsed(), Instant::now());
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
        let done = |sight: Sight, hidden| {
            Some(Counted {
                used: sight.used(),
                hidden,
                written: sight.written,
            })
        };
        if sight.used() > ceiling || self.estimate(free) <= ceiling || self.count.is_none() {
            // What messages keep is not to be forgotten by the way.
            let hidden = match sight.unnamed.in_flight {
                0 => 0,
                _ => self.hidden(free, &sight),
            };
            return done(sight, hidden);
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
        let may_hide = is_hidden || sight.unnamed.in_flight > 0 || !sight.unnamed.is_whole;
        if sight.used() > ceiling || !may_hide {
            return done(sight, 0);
        }
        if suspicions < MAX_SUSPICIONS {
            // Programs do send descriptors and receive them soon, and one that makes another stands still only after that.
            self.suspicions = suspicions + 1;
            return None;
        }
        let hidden = self.hidden(free, &sight);
        done(sight, hidden)
    }

    /// How much more than at the last walk a sandbox may take: as much as the filesystem lost since, but no more than its
    /// processes wrote. Others write too, and no sandbox is to end for that.
    fn added(&self, free: u64, written: Written) -> u64 {
        self.count.as_ref().map_or(0, |count| {
            let lost = count.most_free.saturating_sub(free);
            lost.min(written.least.saturating_sub(count.written.most))
        })
    }

    /// What of that does not show, and of what did not before.
    fn hidden(&self, free: u64, sight: &Sight) -> u64 {
        let shown = sight.used().saturating_sub(self.last_used());
        let added = self.added(free, sight.written).saturating_sub(shown);
        added.saturating_add(self.carried)
    }

    fn last_used(&self) -> u64 {
        self.count.as_ref().map_or(0, |count| count.used)
    }

    /// Everything of it that can be seen.
    fn look_at_all(&self, child: i32, inside: Option<&Inside>) -> Sight {
        let tally = disk_usage::count(&self.directory);
        let look = |may_borrow| {
            let unnamed = unnamed::count(child, &self.directory, UNNAMED_PATIENCE, may_borrow);
            (unnamed, Written::by(child))
        };
        // Programs of an ordinary user can close directories and processes to this one, which is the same user. In their user
        // namespace that does not help them.
        let whole = || match tally.is_whole {
            true => tally.bytes,
            false => disk_usage::count(&self.directory).bytes,
        };
        let numbers = inside.and_then(|inside| {
            inside.with_rights(|| {
                let (unnamed, written) = look(true);
                let is_whole = u64::from(unnamed.is_whole);
                [
                    whole(),
                    unnamed.bytes,
                    unnamed.in_flight,
                    is_whole,
                    written.least,
                    written.most,
                ]
            })
        });
        match numbers {
            Some(Ok([bytes, unnamed_bytes, in_flight, is_whole, least, most])) => Sight {
                tally: Tally { bytes, ..tally },
                unnamed: Unnamed {
                    bytes: unnamed_bytes,
                    in_flight,
                    is_whole: is_whole == 1,
                },
                written: Written { least, most },
            },
            Some(Err(_)) | None => {
                let (unnamed, written) = look(false);
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
                    debt.add(cost, now);
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

    #[test]
    fn what_hides_is_no_more_than_was_lost_and_written() {
        let temp = tempfile::tempdir().unwrap();
        let mut watch = DiskWatch::new(temp.path(), 100).unwrap();
        let now = Instant::now();
        let sight = |used, least, most| Sight {
            tally: Tally {
                bytes: used,
                is_whole: true,
                has_moved: false,
                has_changed: false,
            },
            unnamed: Unnamed {
                bytes: 0,
                in_flight: 0,
                is_whole: true,
            },
            written: Written { least, most },
        };
        assert_eq!(watch.hidden(0, &sight(7, 50, 50)), 0, "nothing was counted yet");
        watch.count = Some(Count {
            used: 60,
            at: now,
            free: 1000,
            most_free: 1000,
            is_doubtful: false,
            cpu_us: None,
            written: Written { least: 5, most: 10 },
        });
        for (free, wrote, used, expected) in [
            // Others took it.
            (500, 10, 60, 0),
            // It wrote, and nothing is missing.
            (1000, 500, 60, 0),
            (500, 40, 60, 30),
            (980, 500, 60, 20),
            // What shows is not hidden.
            (960, 50, 90, 10),
            (960, 50, 120, 0),
            // What it freed meanwhile is not its own any more.
            (980, 30, 0, 20),
        ] {
            let hidden = watch.hidden(free, &sight(used, wrote, wrote));
            assert_eq!(hidden, expected, "{free} {wrote} {used}");
        }
        watch.carried = 100;
        assert_eq!(watch.hidden(960, &sight(90, 50, 50)), 110, "with what hid before");
        watch.carried = 0;
        watch.count.as_mut().unwrap().written = Written::UNKNOWN;
        let Written { least, most } = Written::UNKNOWN;
        assert_eq!(watch.hidden(960, &sight(60, least, most)), 40, "any of it");
    }

    #[test]
    fn a_hasty_walk_waits_three_times_as_long_as_the_last_took() {
        let mut debt = Debt::default();
        let now = Instant::now();
        assert!(debt.has_rested(now));
        debt.add(Duration::from_secs(1), now);
        assert!(!debt.has_rested(now + Duration::from_millis(2_999)));
        assert!(debt.has_rested(now + Duration::from_secs(3)));
    }
}
