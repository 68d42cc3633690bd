//! When a sandbox's disk is looked at, and what is done about what it takes: the rules of [`crate::disk_watch`]. Pure.

use std::time::{Duration, Instant};

/// No disk takes data faster for long, in bytes per second; with less room left, looks come sooner.
const FASTEST_BYTES_PER_SECOND: u64 = 2 << 30;

/// Between two looks at least and at most.
pub(crate) const MIN_PERIOD: Duration = Duration::from_millis(20);
pub(crate) const MAX_PERIOD: Duration = Duration::from_secs(5);

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
pub(crate) const GRACE_BYTES: u64 = 1 << 20;

/// How far beyond twice its limit a sandbox may be and still add, in bytes. Beyond it, it was not held by killing its programs:
/// they are started again and again, or nobody inside obeys.
const OVERDRAFT_BYTES: u64 = 1 << 30;

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
pub(crate) fn period(room: u64, quiet: u32) -> Duration {
    let by_room = Duration::from_millis(room.saturating_mul(1000) / FASTEST_BYTES_PER_SECOND);
    let by_quiet = (MIN_PERIOD * quiet.min(100)).min(QUIET_PERIOD);
    by_room.max(by_quiet).clamp(MIN_PERIOD, MAX_PERIOD)
}

/// How old a count may get with `room` bytes left; `is_doubtful` once somebody freed space.
pub(crate) fn max_age(room: u64, is_doubtful: bool) -> Duration {
    match is_doubtful {
        true => Duration::from_secs(room / DOUBTED_BYTES_PER_SECOND).clamp(MIN_AGE, MAX_AGE),
        false => MAX_AGE,
    }
}

/// Time spent on walks, paid back by time that passes.
#[derive(Debug, Default)]
pub(crate) struct Debt {
    owed: Duration,
    at: Option<Instant>,
    last_cost: Duration,
    last_end: Option<Instant>,
}

impl Debt {
    pub(crate) fn pay(&mut self, now: Instant) {
        let passed = self
            .at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.owed = self.owed.saturating_sub(passed / WALK_SHARE);
        self.at = Some(now);
    }

    pub(crate) fn add(&mut self, cost: Duration, end: Instant) {
        self.owed += cost;
        (self.last_cost, self.last_end) = (cost, Some(end));
    }

    /// Whether the last walk is so long ago that walks would take no more than one part in [`HASTY_SHARE`] of the time.
    pub(crate) fn has_rested(&self, now: Instant) -> bool {
        self.last_end.is_none_or(|end| {
            now.saturating_duration_since(end) >= self.last_cost.saturating_mul(HASTY_SHARE - 1)
        })
    }

    /// How long until another walk is due; zero if it may be now.
    pub(crate) fn wait(&self) -> Duration {
        self.owed.saturating_sub(WALK_BURST) * WALK_SHARE
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
    fn a_hasty_walk_waits_three_times_as_long_as_the_last_took() {
        let mut debt = Debt::default();
        let now = Instant::now();
        assert!(debt.has_rested(now));
        debt.add(Duration::from_secs(1), now);
        assert!(!debt.has_rested(now + Duration::from_millis(2_999)));
        assert!(debt.has_rested(now + Duration::from_secs(3)));
    }
}
