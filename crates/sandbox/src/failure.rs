//! Turns an operating system error into a [`LaunchFailure`] that names the step.

use crate::spec::LaunchFailure;

/// Names what was being done when a system call failed.
pub(crate) trait Step<T> {
    fn step(self, step: &str) -> Result<T, LaunchFailure>;
}

impl<T> Step<T> for rustix::io::Result<T> {
    fn step(self, step: &str) -> Result<T, LaunchFailure> {
        self.map_err(|errno| LaunchFailure {
            step: step.to_owned(),
            errno: errno.raw_os_error(),
        })
    }
}

impl<T> Step<T> for std::io::Result<T> {
    fn step(self, step: &str) -> Result<T, LaunchFailure> {
        self.map_err(|error| LaunchFailure {
            step: step.to_owned(),
            errno: error.raw_os_error().unwrap_or(0),
        })
    }
}
