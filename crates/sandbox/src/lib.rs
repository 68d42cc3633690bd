//! Linux isolation, and the launcher that sets it up and then stays as the sandbox's supervisor. No async, no threads:
//! cloning namespaces from a process with threads is not safe, so the host executes the launcher instead.
//!
//! # Who a sandbox's processes are
//! Inside, everything runs as uid 1000 (`agent`), never as 0, in its own user namespace with exactly one uid and one gid
//! mapped.
//! * Started by root ([`spec::Privilege::Root`]): the launcher chooses an otherwise unused uid per sandbox. Mounts are made by
//!   real root in namespaces owned by the initial user namespace; only then the process enters its user namespace.
//!   So nothing inside holds, or could regain, a capability over its own mounts or network, and a kernel bug that
//!   hands out capabilities of the inner user namespace gives power over nothing.
//!   An identity map was rejected: a process of host uid 0 without capabilities may still write root's files in /proc/sys.
//!   On disk the agent's files belong to one id whichever sandbox wrote them; id-mapped mounts show them as its own
//!   (`agent.rs`).
//! * Started by an ordinary user ([`spec::Privilege::User`]): that user's own uid is mapped, all namespaces belong to the
//!   new user namespace, and the overlay uses `userxattr`. All capabilities in it are dropped before the guest starts.
//!
//! In both, /usr is read-only and not writable; `npm -g` and `pip --user` go to the agent's home.
//!
//! # Life of a sandbox
//! The host executes `greenroom-launcher` with a [`spec::LaunchSpec`] on standard input. It forks away, takes a lock file
//! (whose holder is the supervisor's pid: [`lock`]), binds the guest's socket outside, builds the sandbox in a child, which
//! becomes the guest without executing another program, reports on standard output, and waits. A supervisor that is killed takes its sandbox with it; the host's
//! death does not concern it.

mod agent;
pub mod cgroup;
pub mod disk_usage;
pub mod identity;
pub mod lock;
pub mod processes;
pub mod seccomp;
pub mod spec;
pub mod usage;

mod disk_rules;
mod disk_watch;
mod enter;
mod failure;
mod guard;
mod landlock;
#[doc(hidden)]
pub mod launch;
#[doc(hidden)]
pub mod machine;
mod mounts;
mod network;
#[doc(hidden)]
pub mod oci;
mod relay;
mod supervise;
mod syscall;
mod unnamed;
mod vsock;

pub use landlock::{shortcoming as landlock_shortcoming, version as landlock_version};
