//! How many sandboxes of a kind should wait. Pure.
//!
//! The rule: as many as people came for within one minute, at the busiest minute of the last hour; never fewer than the minimum nor more than the
//! maximum of the environment. A sandbox that was taken is replaced within seconds, so what matters are people who come at
//! once, and whoever came together today comes together again. An hour without anybody leaves the minimum.

use greenroom_protocol::environment::PoolSettings;
use std::collections::VecDeque;

/// People who come within this time come at once.
const AT_ONCE_MS: i64 = 60_000;

/// Who came longer ago is forgotten.
const MEMORY_MS: i64 = 60 * 60_000;

/// Arrivals that are remembered.
const MAX_REMEMBERED: usize = 10_000;

/// When people came for a sandbox of one kind.
#[derive(Debug, Default)]
pub struct Arrivals(VecDeque<i64>);

impl Arrivals {
    /// Somebody came.
    pub fn arrived(&mut self, now_ms: i64) {
        self.forget(now_ms);
        if self.0.len() == MAX_REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(now_ms);
    }

    /// How many should wait now.
    pub fn target(&mut self, settings: &PoolSettings, now_ms: i64) -> usize {
        self.forget(now_ms);
        let minimum = settings.minimum.unwrap_or(0);
        let maximum = settings.maximum.unwrap_or(minimum);
        let busiest = u32::try_from(self.busiest()).unwrap_or(u32::MAX);
        busiest.clamp(minimum, maximum.max(minimum)) as usize
    }

    /// Whether anybody is remembered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn busiest(&self) -> usize {
        let mut first = 0;
        let mut most = 0;
        for (last, at) in self.0.iter().enumerate() {
            while at - self.0[first] >= AT_ONCE_MS {
                first += 1;
            }
            most = most.max(last - first + 1);
        }
        most
    }

    /// Times from a future that a clock was set back from are forgotten too.
    fn forget(&mut self, now_ms: i64) {
        self.0.retain(|at| (0..MEMORY_MS).contains(&(now_ms - at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(minimum: u32, maximum: u32) -> PoolSettings {
        PoolSettings {
            minimum: Some(minimum),
            maximum: Some(maximum),
            ttl_minutes: None,
        }
    }

    #[track_caller]
    fn check(arrivals_s: &[i64], now_s: i64, (minimum, maximum): (u32, u32), expected: usize) {
        let mut arrivals = Arrivals::default();
        for at in arrivals_s {
            arrivals.arrived(at * 1000);
        }
        let target = arrivals.target(&settings(minimum, maximum), now_s * 1000);
        assert_eq!(target, expected, "{arrivals_s:?} at {now_s}");
    }

    #[test]
    fn as_many_wait_as_came_at_once() {
        check(&[], 0, (0, 5), 0);
        check(&[], 0, (2, 5), 2);
        check(&[10], 20, (0, 5), 1);
        check(&[10, 100, 200], 300, (0, 5), 1);
        check(&[10, 20, 69, 100], 300, (0, 5), 3);
        check(&[10, 20, 70, 100], 300, (0, 5), 2);
        check(&[10, 11, 12, 13, 14, 15, 16], 300, (0, 5), 5);
        check(&[10, 11, 12], 3613, (0, 5), 0);
        check(&[10, 11, 12], 3611, (0, 5), 1);
        // The clock was set back.
        check(&[5000, 5001], 10, (0, 5), 0);
        // No maximum: as many as the minimum.
        let unset = PoolSettings {
            minimum: Some(2),
            ..PoolSettings::default()
        };
        assert_eq!(Arrivals::default().target(&unset, 0), 2);
        assert_eq!(Arrivals::default().target(&PoolSettings::default(), 0), 0);
    }

    /// A generator that is good enough for tests, and the same in every run.
    struct Random(u64);

    impl Random {
        fn unit(&mut self) -> f64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as f64 / (1_u64 << 53) as f64
        }

        /// Seconds until the next arrival at this rate.
        fn wait(&mut self, per_hour: f64) -> f64 {
            -self.unit().max(1e-12).ln() * 3600.0 / per_hour
        }
    }

    struct Simulated {
        hit_rate: f64,
        /// Sandboxes that waited, on average.
        waiting: f64,
    }

    /// Plays arrivals (seconds, in order) against the rule. A sandbox takes `REFILL_S` until it waits.
    fn simulate(arrivals: &[f64], settings: &PoolSettings) -> Simulated {
        const REFILL_S: f64 = 3.0;
        const STEP_S: f64 = 1.0;
        let mut known = Arrivals::default();
        // When each waits from.
        let mut pool: Vec<f64> = Vec::new();
        let (mut hits, mut cost, mut next, mut now) = (0, 0.0, 0, 0.0);
        let end = arrivals.last().copied().unwrap_or(0.0) + 3600.0;
        while now < end {
            while next < arrivals.len() && arrivals[next] <= now {
                known.arrived((now * 1000.0) as i64);
                if let Some(ready) = pool.iter().position(|from| *from <= now) {
                    pool.swap_remove(ready);
                    hits += 1;
                }
                next += 1;
            }
            let target = known.target(settings, (now * 1000.0) as i64);
            pool.truncate(target);
            while pool.len() < target {
                pool.push(now + REFILL_S);
            }
            cost += pool.len() as f64 * STEP_S;
            now += STEP_S;
        }
        Simulated {
            hit_rate: f64::from(hits) / arrivals.len().max(1) as f64,
            waiting: cost / end,
        }
    }

    /// Arrivals over a day at rates by the hour.
    fn day(random: &mut Random, per_hour: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut arrivals = Vec::new();
        for hour in 0..24 {
            let rate = per_hour(hour);
            // At a rate of nothing the next one never comes.
            let mut at = hour as f64 * 3600.0 + random.wait(rate);
            while at < (hour + 1) as f64 * 3600.0 {
                arrivals.push(at);
                at += random.wait(rate);
            }
        }
        arrivals
    }

    /// A recorded week.
    fn recorded() -> Vec<f64> {
        include_str!("recorded_arrivals.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .flat_map(|line| line.split(' '))
            .map(|seconds| seconds.parse().unwrap())
            .collect()
    }

    /// What the rule gives on recorded and on synthetic arrivals: percent that find one, and how many wait on average. Who changes the rule
    /// sees what it does, and says so in docs/environments.md.
    #[test]
    fn simulated_arrivals() {
        let mut random = Random(0x5eed);
        let office = day(&mut random, |hour| match hour {
            9..=11 | 13..=17 => 20.0,
            12 | 18 => 5.0,
            _ => 0.0,
        });
        let busy = day(&mut random, |_| 120.0);
        let sparse = day(&mut random, |_| 0.3);
        // Five people after each of eight meetings.
        let meetings: Vec<f64> = (0..8)
            .flat_map(|meeting| (0..5).map(move |person| f64::from(meeting * 2700 + person * 8)))
            .collect();
        let thinned = recorded().into_iter().step_by(20).collect();
        let cases = [
            ("office hours, 20 an hour", office, 99, 1.35),
            ("busy, 120 an hour", busy, 100, 6.87),
            ("a few a day", sparse, 0, 0.37),
            ("meetings of five", meetings, 98, 4.99),
            ("recorded week", recorded(), 100, 2.45),
            ("recorded week, every twentieth", thinned, 75, 0.79),
        ];
        for (name, arrivals, hit_percent, waiting) in cases {
            let simulated = simulate(&arrivals, &settings(0, 20));
            let found = (
                (simulated.hit_rate * 100.0).round(),
                (simulated.waiting * 100.0).round() / 100.0,
            );
            println!(
                "{name}: {} arrivals, {}% hits, {} waiting on average",
                arrivals.len(),
                found.0,
                found.1
            );
            assert_eq!(found, (f64::from(hit_percent), waiting), "{name}");
        }
    }
}
