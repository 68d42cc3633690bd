//! The probe as tests see it: the static program's bytes, what it is told, and what it reports. The attempts themselves
//! are in the program.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The static program, to be written into a sandbox. Empty only inside the program itself.
pub const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/greenroom-probe"));

/// What the test made on the host for the attempts to reach. Everything holds or answers with [`Target::secret`], so
/// that reaching it shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// A text that is nowhere else.
    pub secret: String,
    /// A file that everyone on the host may read, absolute.
    pub secret_file: PathBuf,
    /// The host's state directory, absolute.
    pub state_dir: PathBuf,
    /// A listening Unix socket on the host that everyone may connect to, absolute; sends the secret.
    pub unix_socket: PathBuf,
    /// Name of a listening abstract Unix socket on the host, without the leading NUL; sends the secret.
    pub abstract_socket: String,
    /// Listeners on the host that send the secret, at all kinds of addresses. Not empty.
    pub tcp: Vec<SocketAddr>,
    /// Sockets on the host that answer a datagram with the secret. Not empty.
    pub udp: Vec<SocketAddr>,
    /// Key of a System V shared memory segment of the host that begins with the secret.
    pub shared_memory_key: i32,
    /// Name of a file below the host's /dev/shm with the secret.
    pub shared_memory_name: String,
    /// Name of a POSIX message queue of the host, with its leading slash.
    pub message_queue: String,
    /// A process on the host, by its pid there, whose arguments hold the secret.
    pub victim: i32,
    /// Processes to attack, by their pids as the probe sees them: inside a sandbox its first process, on the host the
    /// victim. Not empty.
    pub prey: Vec<i32>,
}

/// One line of the program's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Unique among the attempts.
    pub name: String,
    pub outcome: Outcome,
    /// The error, or what was reached.
    pub detail: String,
    pub proof: Proof,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Refused,
    /// Real harm was possible.
    Succeeded,
    /// What it is about does not exist here: another processor, a kernel without that part.
    Unavailable,
    /// The attempt neither succeeded nor was refused: it crashed or hung. Always a defect of the probe or worse.
    Broken,
}

/// How it is known that an attempt can succeed at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Proof {
    /// It succeeds for root on the host itself, where it does no harm.
    Host,
    /// The same, if root has this capability (capabilities(7)); in some containers it has not.
    Capability { number: u32 },
    /// It is not tried on the host.
    Spared { why: Cow<'static, str> },
}

/// Reads the program's output: one report a line, in order.
///
/// # Errors
/// A line that is no report, with its text: the program or what runs it is broken.
pub fn parse(output: &str) -> Result<Vec<Report>, String> {
    output
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|error| format!("{error}: {line}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_inside() {
        assert_eq!(&PROGRAM[..4], b"\x7fELF");
    }

    #[test]
    fn reports_are_read_line_by_line() {
        let line = r#"{"name":"a","outcome":"refused","detail":"x","proof":{"by":"capability","number":25}}"#;
        let report = Report {
            name: "a".to_owned(),
            outcome: Outcome::Refused,
            detail: "x".to_owned(),
            proof: Proof::Capability { number: 25 },
        };
        assert_eq!(
            parse(&format!("{line}\n{line}\n")),
            Ok(vec![report.clone(), report])
        );
        assert!(parse("Segmentation fault\n").is_err());
    }
}
