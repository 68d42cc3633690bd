//! Says in the protocol's words why the operating system refused.

use greenroom_protocol::guest::call::{CallError, CallErrorCode, Reply};
use std::io;

/// What a call yields before it becomes a frame.
pub type CallResult<T = Reply> = Result<T, CallError>;

/// A failure with one sentence.
pub fn failed(code: CallErrorCode, message: impl Into<String>) -> CallError {
    CallError {
        code,
        message: message.into(),
    }
}

/// The failure of doing something with `subject`, usually a path.
pub fn of(error: &io::Error, subject: &str) -> CallError {
    let (code, message) = match error.raw_os_error() {
        Some(libc::ENOENT) => (CallErrorCode::NotFound, "does not exist".to_owned()),
        Some(libc::EISDIR) => (CallErrorCode::IsDirectory, "is a directory".to_owned()),
        Some(libc::ENOTDIR) => (CallErrorCode::NotDirectory, "is not in a directory".to_owned()),
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => (
            CallErrorCode::PermissionDenied,
            "is not permitted to the agent".to_owned(),
        ),
        Some(libc::ENOSPC | libc::EDQUOT) => (CallErrorCode::NoSpace, "has no space left on disk".to_owned()),
        Some(libc::EFBIG) => (
            CallErrorCode::TooLarge,
            "is larger than a file may be in this sandbox".to_owned(),
        ),
        Some(libc::E2BIG) => (CallErrorCode::TooLarge, "has too long arguments".to_owned()),
        Some(libc::EXDEV) => (
            CallErrorCode::OutsideWorkspace,
            "is outside the workspace".to_owned(),
        ),
        Some(libc::EAGAIN) => (
            CallErrorCode::Os,
            "needs more processes than this sandbox may have".to_owned(),
        ),
        Some(libc::ENOMEM) => (
            CallErrorCode::Os,
            "needs more memory than this sandbox may have".to_owned(),
        ),
        _ => (CallErrorCode::Os, error.to_string()),
    };
    failed(code, format!("{subject}: {message}"))
}
