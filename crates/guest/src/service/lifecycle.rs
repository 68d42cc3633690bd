//! Where a service stands and what to do next. Pure: the controller starts, kills, probes and keeps time, and tells this
//! what came of it. Times count from any fixed moment.

use greenroom_protocol::guest::call::Exit;
use greenroom_protocol::guest::service::{RestartPolicy, ServiceState};
use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// One that was ready for so long starts again as quickly as the first time.
const GOOD_RUN: Duration = Duration::from_secs(30);

/// A service's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifecycle {
    policy: RestartPolicy,
    ready_timeout: Duration,
    phase: Phase,
    /// Starts so far.
    starts: u32,
    /// Ends since the last good run.
    failures: u32,
    last_exit: Option<Exit>,
    /// Why it is not ready.
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// What runs before it runs; both until the moment given.
    Preparing(Duration),
    Starting(Duration),
    /// Took too long and is being killed.
    Aborting,
    /// Since then.
    Ready(Duration),
    /// Until then.
    Pausing(Duration),
    Ended,
    Failed,
    Stopping,
    Stopped,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// What runs before it ended well, or there is nothing.
    Prepared,
    /// It, or what runs before it, could not be started, or what runs before it failed.
    Broke(String, Option<Exit>),
    BecameReady,
    Exited(Exit),
    /// [`Lifecycle::deadline`] has passed.
    Due,
    Stop,
}

/// What must be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Run what runs before it.
    Prepare,
    Start,
    /// End what runs; its end is told as usual.
    Kill,
}

impl Lifecycle {
    /// A first start.
    pub fn begin(policy: RestartPolicy, ready_timeout: Duration, now: Duration) -> (Self, Option<Effect>) {
        let lifecycle = Self {
            policy,
            ready_timeout,
            phase: Phase::Stopped,
            starts: 0,
            failures: 0,
            last_exit: None,
            reason: String::new(),
        };
        lifecycle.start(now)
    }

    /// The next state and what to do. What cannot happen in a state changes nothing.
    pub fn step(mut self, input: Input, now: Duration) -> (Self, Option<Effect>) {
        match (self.phase, input) {
            (Phase::Preparing(until), Input::Prepared) => {
                self.to(Phase::Starting(until), Some(Effect::Start))
            }
            (Phase::Preparing(_) | Phase::Starting(_), Input::Broke(reason, exit)) => {
                self.last_exit = exit.or(self.last_exit);
                self.start_failed(reason, now)
            }
            (Phase::Starting(_), Input::BecameReady) => {
                self.reason.clear();
                self.to(Phase::Ready(now), None)
            }
            (Phase::Starting(_), Input::Exited(exit)) => {
                let reason = format!("It ended before it was ready: {}.", described(&exit));
                self.last_exit = Some(exit);
                self.start_failed(reason, now)
            }
            (Phase::Preparing(_) | Phase::Starting(_), Input::Due) => {
                self.reason = format!("It was not ready within {} s.", self.ready_timeout.as_secs_f64());
                self.to(Phase::Aborting, Some(Effect::Kill))
            }
            (Phase::Aborting, Input::Exited(exit) | Input::Broke(_, Some(exit))) => {
                self.last_exit = Some(exit);
                let reason = std::mem::take(&mut self.reason);
                self.start_failed(reason, now)
            }
            (Phase::Aborting, Input::Broke(..) | Input::Prepared) => {
                let reason = std::mem::take(&mut self.reason);
                self.start_failed(reason, now)
            }
            (Phase::Ready(since), Input::Exited(exit)) => self.ended(since, exit, now),
            (Phase::Pausing(_), Input::Due) => self.start(now),
            (Phase::Preparing(_) | Phase::Starting(_) | Phase::Ready(_), Input::Stop) => {
                self.reason = "It is being stopped.".to_owned();
                self.to(Phase::Stopping, Some(Effect::Kill))
            }
            // Killed already.
            (Phase::Aborting, Input::Stop) => {
                self.reason = "It is being stopped.".to_owned();
                self.to(Phase::Stopping, None)
            }
            (Phase::Stopping, Input::Exited(exit) | Input::Broke(_, Some(exit))) => {
                self.last_exit = Some(exit);
                self.stopped()
            }
            (Phase::Stopping, Input::Broke(..) | Input::Prepared)
            | (Phase::Pausing(_) | Phase::Ended | Phase::Failed, Input::Stop) => self.stopped(),
            (
                _,
                Input::Prepared
                | Input::Broke(..)
                | Input::BecameReady
                | Input::Exited(_)
                | Input::Due
                | Input::Stop,
            ) => (self, None),
        }
    }

    fn to(mut self, phase: Phase, effect: Option<Effect>) -> (Self, Option<Effect>) {
        self.phase = phase;
        (self, effect)
    }

    fn start(mut self, now: Duration) -> (Self, Option<Effect>) {
        self.starts = self.starts.saturating_add(1);
        if self.reason.is_empty() {
            self.reason = "It is starting.".to_owned();
        }
        let until = now + self.ready_timeout;
        self.to(Phase::Preparing(until), Some(Effect::Prepare))
    }

    fn start_failed(mut self, reason: String, now: Duration) -> (Self, Option<Effect>) {
        self.reason = reason;
        match self.policy {
            RestartPolicy::Never => self.to(Phase::Failed, None),
            RestartPolicy::OnFailure | RestartPolicy::Always => self.pause(now),
        }
    }

    fn ended(mut self, since: Duration, exit: Exit, now: Duration) -> (Self, Option<Effect>) {
        if now.saturating_sub(since) >= GOOD_RUN {
            self.failures = 0;
        }
        let went_well = exit.code == Some(0);
        self.reason = format!("It ended: {}.", described(&exit));
        self.last_exit = Some(exit);
        match (self.policy, went_well) {
            (RestartPolicy::Always, _) | (RestartPolicy::OnFailure, false) => self.pause(now),
            (RestartPolicy::OnFailure | RestartPolicy::Never, true) => self.to(Phase::Ended, None),
            (RestartPolicy::Never, false) => self.to(Phase::Failed, None),
        }
    }

    fn pause(mut self, now: Duration) -> (Self, Option<Effect>) {
        let pause = FIRST_PAUSE * 2_u32.saturating_pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.to(Phase::Pausing(now + pause.min(LONGEST_PAUSE)), None)
    }

    fn stopped(mut self) -> (Self, Option<Effect>) {
        self.reason = "It was stopped.".to_owned();
        self.to(Phase::Stopped, None)
    }

    /// When to come back with [`Input::Due`].
    pub fn deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Preparing(until) | Phase::Starting(until) | Phase::Pausing(until) => Some(until),
            Phase::Aborting
            | Phase::Ready(_)
            | Phase::Ended
            | Phase::Failed
            | Phase::Stopping
            | Phase::Stopped => None,
        }
    }

    /// Whether to look if it is ready.
    pub fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Starting(_))
    }

    /// Whether nothing runs and nothing will by itself.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ended | Phase::Failed | Phase::Stopped)
    }

    pub fn state(&self) -> ServiceState {
        match self.phase {
            Phase::Preparing(_) | Phase::Starting(_) | Phase::Aborting => ServiceState::Starting,
            Phase::Ready(_) => ServiceState::Ready,
            Phase::Pausing(_) => ServiceState::Waiting,
            Phase::Ended => ServiceState::Ended,
            Phase::Failed => ServiceState::Failed,
            Phase::Stopping | Phase::Stopped => ServiceState::Stopped,
        }
    }

    /// Starts beyond the first.
    pub fn restarts(&self) -> u32 {
        self.starts.saturating_sub(1)
    }

    pub fn last_exit(&self) -> Option<&Exit> {
        self.last_exit.as_ref()
    }

    pub fn reason(&self) -> &str {
        &self.reason
    }
}

fn described(exit: &Exit) -> String {
    match (exit.code, exit.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "nobody saw how".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32) -> Exit {
        Exit {
            code: Some(code),
            ..Exit::default()
        }
    }

    fn killed() -> Exit {
        Exit {
            signal: Some(9),
            ..Exit::default()
        }
    }

    fn broke() -> Input {
        Input::Broke("no program".to_owned(), None)
    }

    /// Runs inputs, each at its second, and shows phase and effect behind each.
    fn check(policy: RestartPolicy, inputs: &[(f64, Input)], expected: &str) {
        let show = |lifecycle: &Lifecycle, effect: Option<Effect>| {
            let phase = match lifecycle.phase {
                Phase::Preparing(until) => format!("preparing<{}", until.as_secs_f64()),
                Phase::Starting(until) => format!("starting<{}", until.as_secs_f64()),
                Phase::Pausing(until) => format!("pausing<{}", until.as_secs_f64()),
                Phase::Ready(_) => "ready".to_owned(),
                other => format!("{other:?}").to_lowercase(),
            };
            match effect {
                Some(effect) => format!("{phase}:{effect:?}"),
                None => phase,
            }
        };
        let (mut lifecycle, effect) = Lifecycle::begin(policy, Duration::from_secs(10), Duration::ZERO);
        let mut shown = vec![show(&lifecycle, effect)];
        for (second, input) in inputs {
            let (next, effect) = lifecycle.step(input.clone(), Duration::from_secs_f64(*second));
            shown.push(show(&next, effect));
            lifecycle = next;
        }
        assert_eq!(shown.join(" "), expected, "{policy:?} {inputs:?}");
    }

    #[test]
    fn a_start_is_prepared_then_made_then_ready() {
        use Input::{BecameReady, Due, Exited, Prepared};
        use RestartPolicy::{Always, Never, OnFailure};
        let up = [(0.0, Prepared), (1.0, BecameReady)];
        let then = |input: (f64, Input)| [up[0].clone(), up[1].clone(), input];
        const UP: &str = "preparing<10:Prepare starting<10:Start ready";
        for (policy, input, end) in [
            (Never, exit(0), "ended"),
            (Never, exit(1), "failed"),
            (OnFailure, exit(0), "ended"),
            (OnFailure, exit(1), "pausing<5.5"),
            (OnFailure, killed(), "pausing<5.5"),
            (Always, exit(0), "pausing<5.5"),
            (Always, killed(), "pausing<5.5"),
        ] {
            check(policy, &then((5.0, Exited(input))), &format!("{UP} {end}"));
        }
        // Nothing is due while it is ready.
        check(Always, &then((50.0, Due)), &format!("{UP} ready"));
    }

    #[test]
    fn failed_starts_follow_the_policy() {
        use Input::{Due, Exited, Prepared};
        use RestartPolicy::{Never, OnFailure};
        for (policy, end) in [(Never, "failed"), (OnFailure, "pausing<1.5")] {
            check(policy, &[(1.0, broke())], &format!("preparing<10:Prepare {end}"));
            check(
                policy,
                &[(0.5, Prepared), (1.0, Exited(exit(0)))],
                &format!("preparing<10:Prepare starting<10:Start {end}"),
            );
        }
        for (policy, end) in [(Never, "failed"), (OnFailure, "pausing<12.5")] {
            check(
                policy,
                &[(0.5, Prepared), (10.0, Due), (12.0, Exited(killed()))],
                &format!("preparing<10:Prepare starting<10:Start aborting:Kill {end}"),
            );
            check(
                policy,
                &[(10.0, Due), (12.0, Input::Broke(String::new(), Some(killed())))],
                &format!("preparing<10:Prepare aborting:Kill {end}"),
            );
        }
    }

    #[test]
    fn pauses_grow_and_are_forgotten_after_a_good_run() {
        use Input::{BecameReady, Due, Exited, Prepared};
        let mut inputs = Vec::new();
        let mut expected = "preparing<10:Prepare".to_owned();
        for (failures, pause) in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
            .into_iter()
            .enumerate()
        {
            let now = 100.0 * failures as f64;
            inputs.extend([(now, broke()), (now + 50.0, Due)]);
            expected += &format!(" pausing<{} preparing<{}:Prepare", now + pause, now + 60.0);
        }
        inputs.extend([
            (800.0, Prepared),
            (801.0, BecameReady),
            (830.0, Exited(killed())),
            (870.0, Due),
            (870.0, Prepared),
            (870.0, BecameReady),
            (900.0, Exited(killed())),
        ]);
        expected += " starting<760:Start ready pausing<860 preparing<880:Prepare starting<880:Start ready pausing<900.5";
        check(RestartPolicy::OnFailure, &inputs, &expected);
    }

    #[test]
    fn a_stop_holds_in_every_state() {
        use Input::{BecameReady, Due, Exited, Prepared, Stop};
        let policy = RestartPolicy::Always;
        check(
            policy,
            &[(1.0, Stop), (2.0, Input::Broke(String::new(), Some(killed())))],
            "preparing<10:Prepare stopping:Kill stopped",
        );
        check(
            policy,
            &[
                (0.0, Prepared),
                (1.0, Stop),
                (1.0, BecameReady),
                (2.0, Exited(exit(0))),
                (9.0, Due),
            ],
            "preparing<10:Prepare starting<10:Start stopping:Kill stopping stopped stopped",
        );
        check(
            policy,
            &[
                (0.0, Prepared),
                (1.0, BecameReady),
                (2.0, Stop),
                (3.0, Stop),
                (4.0, Exited(killed())),
            ],
            "preparing<10:Prepare starting<10:Start ready stopping:Kill stopping stopped",
        );
        check(
            policy,
            &[(10.0, Due), (11.0, Stop), (12.0, Exited(killed()))],
            "preparing<10:Prepare aborting:Kill stopping stopped",
        );
        check(
            policy,
            &[(1.0, broke()), (1.2, Stop), (1.5, Due)],
            "preparing<10:Prepare pausing<1.5 stopped stopped",
        );
    }
}
