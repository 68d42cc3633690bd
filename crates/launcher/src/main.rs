//! Forks away from the host, reads its orders, and hands over to the sandbox library, and in the sandbox to the guest's. Not
//! for people. Both are in one program, because executing another in every sandbox takes half a millisecond.

use greenroom_sandbox::launch::Ahead;
use greenroom_sandbox::spec::{LaunchFailure, LaunchOrders, LaunchReport};
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Whatever else the host had open is none of a sandbox's business.
    // SAFETY: nothing in this process opened a descriptor yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    // The guest's socket gets this number later; reserving it keeps every other descriptor off it.
    // SAFETY: dup of standard input, which is open by contract; the copy is replaced by dup2 or closed on exec.
    let reserved = unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, greenroom_sandbox::spec::GUEST_SOCKET_FD) };
    if reserved != greenroom_sandbox::spec::GUEST_SOCKET_FD {
        return refuse("reserve the guest's descriptor".to_owned());
    }
    // SAFETY: one thread; the child goes on with a copy, the parent ends at once without running destructors.
    match unsafe { libc::fork() } {
        -1 => refuse(format!("fork: {}", std::io::Error::last_os_error())),
        0 => serve(),
        // SAFETY: ends the process without flushing what the child also holds.
        _ => unsafe { libc::_exit(0) },
    }
}

/// Everything that needs no orders is done before they come: hosts execute a launcher ahead of its use.
fn serve() -> ExitCode {
    let ahead = Ahead::prepare();
    let mut text = Vec::with_capacity(64 << 10);
    let orders = match std::io::stdin().read_to_end(&mut text) {
        // The host has no use for this one.
        Ok(0) => return ExitCode::SUCCESS,
        Ok(_) => serde_json::from_slice::<LaunchOrders>(&text).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let code = match orders {
        Err(error) => return refuse(format!("read launch orders: {error}")),
        Ok(orders) => {
            if let Err(error) = log_in(orders.directory()) {
                return refuse(format!("open log: {error}"));
            }
            match &orders {
                LaunchOrders::Namespace(spec) => {
                    greenroom_sandbox::launch::run(spec, ahead, greenroom_guest::run_on_socket)
                }
                LaunchOrders::Oci(spec) => greenroom_sandbox::oci::run(spec, ahead),
                LaunchOrders::Machine(spec) => greenroom_sandbox::machine::run(spec),
            }
        }
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Standard error, of the guest too, goes to a file beside the sandbox.
fn log_in(directory: &Path) -> std::io::Result<()> {
    let log = std::fs::File::create(directory.join("launcher.log"))?;
    Ok(rustix::stdio::dup2_stderr(&log)?)
}

#[expect(clippy::print_stdout, reason = "the report is the launcher's output")]
fn refuse(step: String) -> ExitCode {
    let report = LaunchReport::Failed(LaunchFailure { step, errno: 0 });
    println!("{}", serde_json::to_string(&report).unwrap_or_default());
    ExitCode::FAILURE
}
