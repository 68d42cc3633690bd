//! Steps at which tests end the program as kill -9 does, to show that nothing is lost or left whenever it ends.

/// Names a file of a test. While it holds the name of a step, the program is killed as soon as it reaches that step.
pub const KILL_FILE: &str = "GREENROOM_TEST_KILL_FILE";

/// Says that a step is reached. Does something only in builds for development: what people run has no such way to end.
#[inline]
pub fn reached(step: &'static str) {
    #[cfg(debug_assertions)]
    if let Some(path) = std::env::var_os(KILL_FILE)
        && std::fs::read(path).is_ok_and(|named| named == step.as_bytes())
    {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // Until it arrives, nothing else is done.
        loop {
            std::thread::park();
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = step;
}
