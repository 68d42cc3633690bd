//! What the sandbox host finds when it tries, in the report's words.

use super::Check;
use super::machine::nearest_existing;
use crate::config::Config;
use greenroom_host::{Finding, Verdict};

/// Starts a throwaway sandbox on the disk where sandboxes will be.
pub(super) async fn checks(config: &Config) -> Vec<Check> {
    let state_dir = config
        .sandbox
        .state_dir
        .as_ref()
        .unwrap_or(&config.server.data_dir);
    let base = nearest_existing(state_dir);
    // Its own folder: a running server holds the lock of the real one.
    let probe_dir = base.join(format!(".gr-doctor-{}", std::process::id()));
    let findings = greenroom_host::probe(&probe_dir, &config.sandbox.machines()).await;
    let removed = std::fs::remove_dir_all(&probe_dir);
    let mut checks: Vec<Check> = findings.into_iter().map(check).collect();
    if let Err(error) = removed
        && error.kind() != std::io::ErrorKind::NotFound
    {
        let detail = format!("{} could not be removed: {error}", probe_dir.display());
        checks.push(Check::instead("doctor", detail, "remove it by hand"));
    }
    checks.push(Check::ok(
        "memory_checkpoint",
        "Not offered: a snapshot keeps files; programs end with their sandbox, and services start again",
    ));
    checks
}

fn check(finding: Finding) -> Check {
    let detail = finding.detail.trim_end_matches('.');
    let hint = finding.hint.filter(|hint| !hint.is_empty());
    match finding.verdict {
        Verdict::Good | Verdict::Unused => Check {
            hint,
            ..Check::ok(finding.name, detail)
        },
        Verdict::Reduced => Check {
            hint,
            ..Check::instead(finding.name, detail, "")
        },
        Verdict::Missing => Check {
            hint,
            ..Check::missing(finding.name, detail, "")
        },
    }
}
