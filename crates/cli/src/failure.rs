//! What goes wrong in a command, as a person sees it: a stable code, one sentence, a hint, and the exit status.

use greenroom_protocol::client::problem::Problem;
use greenroom_sdk::ClientError;
use std::fmt;

/// How the program ends. Documented in docs/cli.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Success,
    /// It was tried and failed.
    Failed,
    /// The command line or the configuration is wrong; nothing was tried.
    Usage,
    /// No server answered.
    Unreachable,
    /// Ctrl-C.
    Interrupted,
    /// Whoever read the output went away.
    PipeClosed,
    /// What a program in a sandbox ended with.
    Program(u8),
}

impl Exit {
    /// The process's exit status; the last two are what a shell reports for SIGINT and SIGPIPE.
    pub fn status(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Interrupted => 130,
            Self::PipeClosed => 141,
            Self::Program(status) => status,
        }
    }
}

/// Why a command ended early.
#[derive(Debug)]
pub struct Failure {
    pub code: String,
    /// One sentence without its final stop.
    pub message: String,
    pub hint: Option<String>,
    pub exit: Exit,
}

impl Failure {
    /// It was tried and failed.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            hint: None,
            exit: Exit::Failed,
        }
    }

    /// The command line is wrong.
    pub fn usage(code: &str, message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            ..Self::new(code, message)
        }
    }

    /// Writing to stdout failed; a reader that went away is not an error to talk about.
    pub fn output(error: &std::io::Error) -> Self {
        let exit = match error.kind() {
            std::io::ErrorKind::BrokenPipe => Exit::PipeClosed,
            _ => Exit::Failed,
        };
        Self {
            exit,
            ..Self::new("output_failed", format!("the output cannot be written: {error}"))
        }
    }

    /// The same with advice for the reader.
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self {
            hint: problem.hint,
            ..Self::new(&problem.code, problem.message)
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::Problem { problem, .. } => {
                let is_sign_in = problem.code == "sign_in_required" && problem.hint.is_none();
                let failure = Self::from(problem);
                match is_sign_in {
                    true => failure.with_hint("set GREENROOM_TOKEN to an API token of this server"),
                    false => failure,
                }
            }
            ClientError::Unreachable { .. } => Self {
                exit: Exit::Unreachable,
                ..Self::new("server_unreachable", message)
                    .with_hint("check that the server runs (greenroom up) and that the address is right")
            },
            ClientError::Address { .. } => Self::usage("server_address", message),
            ClientError::Malformed { .. } => {
                Self::new("answer_malformed", message).with_hint("check that this is a Greenroom server")
            }
            ClientError::TooLarge { .. } => Self::new("answer_too_large", message),
            ClientError::Generation { .. } => Self::new("generation_mismatch", message)
                .with_hint("use the same version of greenroom on both sides"),
        }
    }
}
