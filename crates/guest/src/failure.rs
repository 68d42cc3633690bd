//! Says in the protocol's words why the operating system refused.

use greenroom_protocol::guest::call::{CallError, CallErrorCode, Reply};
use std::io;

/// What a call yields before it becomes a frame.
pub type CallResult<T = Reply> = Result<T, CallError>;

/// Characters of a message; a path in it may be as long as a frame.
const MAX_MESSAGE_CHARS: usize = 2000;

/// A failure with one sentence, cut if it is very long.
pub fn failed(code: CallErrorCode, message: impl Into<String>) -> CallError {
    let mut message = message.into();
    if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE_CHARS) {
        message.truncate(end);
        message.push('…');
    }
    CallError { code, message }
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
            CallErrorCode::TooManyProcesses,
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
