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

use crate::disk_rules::{
    Action, Debt, GRACE_BYTES, MAX_PERIOD, MIN_PERIOD, Standing, judge, max_age, period,
};
use crate::disk_usage::{self, Tally, natural};
use crate::processes::{self, Inside, Written};
use crate::unnamed::{self, Unnamed};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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

/// Of an ordinary user's sandbox the guest has closed itself too.
fn written_by(child: i32, inside: Option<&Inside>) -> Written {
    let look = || {
        let written = Written::by(child);
        [written.least, written.most]
    };
    match inside.and_then(|inside| inside.with_rights(look)) {
        Some(Ok([least, most])) => Written { least, most },
        Some(Err(_)) | None => Written::by(child),
    }
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
    /// Walks in a row after which space was missing while something may have hidden it.
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
            let is_suspect =
                self.added(free, written_by(child, inside)) > ceiling.saturating_sub(self.last_used());
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
}
