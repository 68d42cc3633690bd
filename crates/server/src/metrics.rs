//! What an operator can watch, as Prometheus reads it. Names and units are listed in docs/metrics.md.

use greenroom_egress::Decision;
use greenroom_protocol::client::event::TurnOutcome;
use greenroom_protocol::environment::Backend;
use greenroom_protocol::guest::call::LimitKind;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

/// Type of the text that [`Metrics::text`] gives (OpenMetrics 1.0).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the start durations' buckets, in seconds.
const START_BUCKETS: [f64; 10] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EgressLabels {
    verdict: &'static str,
    reason: &'static str,
    protocol: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackendLabels {
    backend: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    /// The problem's code.
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FirstSandboxLabels {
    from: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TurnLabels {
    outcome: &'static str,
}

/// All metrics of a server. Counting never waits and never fails.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    egress_decisions: Family<EgressLabels, Counter>,
    sandboxes_started: Family<BackendLabels, Counter>,
    sandbox_start_failures: Family<FailureLabels, Counter>,
    sandboxes_running: Gauge,
    sandboxes_still: Gauge,
    sessions_awake: Gauge,
    sandbox_start: Histogram,
    limit_hits: Family<LimitLabels, Counter>,
    turns: Family<TurnLabels, Counter>,
    first_sandboxes: Family<FirstSandboxLabels, Counter>,
    pool_size: Gauge,
    pool_start_failures: Family<FailureLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("greenroom");
        let egress_decisions = Family::default();
        let sandboxes_started = Family::default();
        let sandbox_start_failures = Family::default();
        let sandboxes_running = Gauge::default();
        let sandboxes_still = Gauge::default();
        let sessions_awake = Gauge::default();
        let sandbox_start = Histogram::new(START_BUCKETS);
        let limit_hits = Family::default();
        let turns = Family::default();
        let first_sandboxes = Family::default();
        let pool_size = Gauge::default();
        let pool_start_failures = Family::default();
        registry.register(
            "egress_decisions",
            "Connections that sandboxes asked for, by what became of them and why",
            egress_decisions.clone(),
        );
        registry.register(
            "sandboxes_started",
            "Sandboxes started, by backend",
            sandboxes_started.clone(),
        );
        registry.register(
            "sandbox_start_failures",
            "Sandboxes that could not be started, by the problem's code",
            sandbox_start_failures.clone(),
        );
        registry.register(
            "sessions_awake",
            "Sessions that are in memory",
            sessions_awake.clone(),
        );
        registry.register(
            "sandboxes_running",
            "Sandboxes that run now",
            sandboxes_running.clone(),
        );
        registry.register(
            "sandboxes_still",
            "Sandboxes that run, but stand still until somebody uses them",
            sandboxes_still.clone(),
        );
        registry.register_with_unit(
            "sandbox_start_duration",
            "Time from the start of a sandbox until its guest answers, without the checkout",
            Unit::Seconds,
            sandbox_start.clone(),
        );
        registry.register(
            "sandbox_limit_hits",
            "Limits that sandboxes ran into, by limit",
            limit_hits.clone(),
        );
        registry.register("turns", "Turns that ended, by outcome", turns.clone());
        registry.register(
            "first_sandboxes",
            "First sandboxes of sessions, by where they came from",
            first_sandboxes.clone(),
        );
        registry.register(
            "pool_size",
            "Sandboxes of the warm pool, those that start included",
            pool_size.clone(),
        );
        registry.register(
            "pool_start_failures",
            "Sandboxes of the warm pool that could not be offered, by the problem's code",
            pool_start_failures.clone(),
        );
        Self {
            registry,
            egress_decisions,
            sandboxes_started,
            sandbox_start_failures,
            sandboxes_running,
            sandboxes_still,
            sessions_awake,
            sandbox_start,
            limit_hits,
            turns,
            first_sandboxes,
            pool_size,
            pool_start_failures,
        }
    }
}

impl Metrics {
    /// All of them in the OpenMetrics text format.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// A connection was decided.
    pub fn egress_decided(&self, decision: &Decision) {
        let labels = EgressLabels {
            verdict: decision.verdict.code(),
            reason: decision.reason.code(),
            protocol: decision.protocol.code(),
        };
        self.egress_decisions.get_or_create(&labels).inc();
    }

    /// A sandbox started in this time.
    pub fn sandbox_started(&self, backend: Backend, took: Duration) {
        let backend = crate::environment::backend_name(backend);
        self.sandboxes_started
            .get_or_create(&BackendLabels { backend })
            .inc();
        self.sandbox_start.observe(took.as_secs_f64());
    }

    /// A sandbox did not start, for a problem of this code.
    pub fn sandbox_start_failed(&self, code: &str) {
        let labels = FailureLabels {
            code: code.to_owned(),
        };
        self.sandbox_start_failures.get_or_create(&labels).inc();
    }

    /// A sandbox of the pool could not be offered, for a problem of this code.
    pub fn pool_start_failed(&self, code: &str) {
        let labels = FailureLabels {
            code: code.to_owned(),
        };
        self.pool_start_failures.get_or_create(&labels).inc();
    }

    /// So many sessions are in memory now.
    pub fn set_sessions_awake(&self, count: usize) {
        self.sessions_awake.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// So many sandboxes run now.
    pub fn set_sandboxes_running(&self, count: usize) {
        self.sandboxes_running
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// So many of them stand still.
    pub fn set_sandboxes_still(&self, count: usize) {
        self.sandboxes_still.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A program ran into a limit of its sandbox.
    pub fn limit_hit(&self, limit: LimitKind) {
        let limit = match limit {
            LimitKind::Memory => "memory",
            LimitKind::Processes => "processes",
            LimitKind::Disk => "disk",
            LimitKind::WallTime => "wall_time",
            LimitKind::Output => "output",
        };
        self.limit_hits.get_or_create(&LimitLabels { limit }).inc();
    }

    /// A session got its first sandbox: from the warm pool, or one that was started for it.
    pub fn first_sandbox(&self, is_from_pool: bool) {
        let from = if is_from_pool { "pool" } else { "start" };
        self.first_sandboxes
            .get_or_create(&FirstSandboxLabels { from })
            .inc();
    }

    /// So many sandboxes are in the warm pool now.
    pub fn set_pool_size(&self, count: usize) {
        self.pool_size.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A turn ended.
    pub fn turn_ended(&self, outcome: &TurnOutcome) {
        let outcome = match outcome {
            TurnOutcome::Completed => "completed",
            TurnOutcome::Failed { .. } => "failed",
            TurnOutcome::Stopped { .. } => "stopped",
        };
        self.turns.get_or_create(&TurnLabels { outcome }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_stands_in_the_text() {
        let metrics = Metrics::default();
        metrics.sandbox_started(Backend::Namespace, Duration::from_millis(7));
        metrics.sandbox_start_failed("environment_invalid");
        metrics.set_sandboxes_running(3);
        metrics.set_sessions_awake(5);
        metrics.limit_hit(LimitKind::Memory);
        metrics.turn_ended(&TurnOutcome::Completed);
        metrics.turn_ended(&TurnOutcome::Completed);
        let text = metrics.text().unwrap();
        for line in [
            "greenroom_sandboxes_started_total{backend=\"namespace\"} 1",
            "greenroom_sandbox_start_failures_total{code=\"environment_invalid\"} 1",
            "greenroom_sandboxes_running 3",
            "greenroom_sessions_awake 5",
            "greenroom_sandbox_start_duration_seconds_bucket{le=\"0.005\"} 0",
            "greenroom_sandbox_start_duration_seconds_bucket{le=\"0.01\"} 1",
            "greenroom_sandbox_limit_hits_total{limit=\"memory\"} 1",
            "greenroom_turns_total{outcome=\"completed\"} 2",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
