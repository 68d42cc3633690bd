//! Which host uid a sandbox gets, and how a process gives up every right but that.

use crate::failure::Step;
use crate::spec::LaunchFailure;
use rustix::process::DumpableBehavior;
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

/// First host uid of sandboxes started by root. Above everything that distributions, systemd (up to 0x6fff_ffff for
/// containers) and subuid files hand out by default.
pub(crate) const FIRST_HOST_ID: u32 = 0x7000_0000;

/// How many there are. Two sandboxes that share one are still apart by their namespaces.
pub(crate) const HOST_IDS: u32 = 1 << 24;

/// The host uid and gid of a virtual machine, from any stable text that names it. Other sandboxes get theirs by chance
/// (`agent.rs`).
pub fn host_id(name: &str) -> u32 {
    // FNV-1a (<https://datatracker.ietf.org/doc/draft-eastlake-fnv/>): stable over builds, unlike the standard hasher.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    FIRST_HOST_ID + (hash ^ (hash >> 24)) % HOST_IDS
}

/// Whether this process can set up sandboxes as root: uid 0 of the initial user namespace with the needed capabilities.
pub fn is_privileged() -> bool {
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    let needed =
        CapabilitySet::SYS_ADMIN | CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::CHOWN;
    let has_capabilities =
        rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
    // Only the initial namespace maps every id; elsewhere a sandbox's host uid might not exist.
    let maps_all = std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
    has_capabilities && maps_all
}

/// Becomes the sandbox's user in a new user namespace, for a process that is root: first the sandbox's host id, then the same under
/// its name inside. A process may map its own id by itself, so nobody outside has to answer in between.
pub(crate) fn become_user(host_id: u32, inside: u32) -> Result<(), LaunchFailure> {
    use rustix::process::{Gid, Uid};
    let (uid, gid) = (Uid::from_raw(host_id), Gid::from_raw(host_id));
    rustix::thread::set_thread_groups(&[]).step("leave groups")?;
    // Some systems let only capable processes make user namespaces.
    rustix::thread::set_keep_capabilities(true).step("keep capabilities")?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).step("set gid")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).step("set uid")?;
    let mut sets = rustix::thread::capabilities(None).step("keep capabilities")?;
    sets.effective = sets.permitted;
    rustix::thread::set_capabilities(None, sets).step("keep capabilities")?;
    // SAFETY: shares no file descriptors; there is one thread.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }.step("make user namespace")?;
    map_to(inside, host_id, host_id)
}

/// Maps this process's uid and gid to one inside, in its user namespace, which has no map yet. Groups are given up first
/// (user_namespaces(7)).
pub(crate) fn map_to(inside: u32, host_uid: u32, host_gid: u32) -> Result<(), LaunchFailure> {
    // A change of identity gives a process's own files in /proc to root.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).step("own /proc/self")?;
    std::fs::write("/proc/self/setgroups", "deny").step("deny setgroups")?;
    std::fs::write("/proc/self/gid_map", format!("{inside} {host_gid} 1")).step("write gid map")?;
    std::fs::write("/proc/self/uid_map", format!("{inside} {host_uid} 1")).step("write uid map")
}

/// The one capability of a sandbox's root: to read and write its own files whatever their modes say, as installers expect of
/// themselves. It concerns only files whose owner its user namespace knows (capabilities(7)), and that knows but one.
const OWN_FILES: CapabilitySet = CapabilitySet::DAC_OVERRIDE;

/// Gives up every capability in every set, and the way to get new ones; a sandbox's root keeps one.
pub(crate) fn drop_capabilities(is_root: bool) -> Result<(), LaunchFailure> {
    let kept = match is_root {
        true => OWN_FILES,
        false => CapabilitySet::empty(),
    };
    for number in (0..64).filter(|number| kept.bits() & (1 << number) == 0) {
        // SAFETY: prctl with integer arguments only.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
        if result != 0 {
            let errno = crate::syscall::last_errno();
            // One past the last capability this kernel knows.
            if errno == rustix::io::Errno::INVAL && number > 0 {
                break;
            }
            return Err(errno).step("drop bounding capabilities");
        }
    }
    rustix::thread::clear_ambient_capability_set().step("clear ambient capabilities")?;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).step("drop capabilities")?;
    rustix::thread::set_no_new_privs(true).step("set no_new_privs")
}

/// Has the kernel kill this process when its parent dies. Undone by a change of identity, so it comes after that.
pub(crate) fn die_with_parent() -> Result<(), LaunchFailure> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .step("ask to die with the supervisor")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_ids_are_stable_and_in_range() {
        assert_eq!(host_id("sbx_1"), host_id("sbx_1"));
        for name in ["", "sbx_1", "sbx_2", "a long name of something"] {
            let id = host_id(name);
            assert!(
                (FIRST_HOST_ID..FIRST_HOST_ID + HOST_IDS).contains(&id),
                "{name}: {id:#x}"
            );
        }
        assert_ne!(host_id("sbx_1"), host_id("sbx_2"));
    }
}
