//! Getting rights back: ids, capabilities, programs with the set-user-ID bit, resource limits, protection from the
//! out-of-memory killer.

use super::{Attempt, Finding, answer, first_success, proven, proven_with, result_of};
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

pub const ATTEMPTS: &[Attempt] = &[
    proven("become_root", |_| {
        // SAFETY: integers only.
        answer(unsafe { libc::setresuid(0, 0, 0) }.into())
    }),
    proven("become_root_group", |_| {
        // SAFETY: integers only.
        answer(unsafe { libc::setresgid(0, 0, 0) }.into())
    }),
    proven("join_groups", |_| {
        let groups = [0, 6, 42];
        // SAFETY: three group ids: root, disk, shadow.
        answer(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }.into())
    }),
    proven("give_file_to_root", |_| {
        let file = format!("/tmp/greenroom-probe-owner-{}", std::process::id());
        let result = fs::write(&file, "x").and_then(|()| std::os::unix::fs::chown(&file, Some(0), Some(0)));
        let _ = fs::remove_file(&file);
        result_of(result)
    }),
    proven("set_user_id_programs_work", |_| {
        // Nothing is executed: what decides is the file, its mount, and the process's promise to gain nothing.
        // SAFETY: integers only.
        let promised = unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) } == 1;
        let programs = ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/lib"]
            .iter()
            .flat_map(fs::read_dir)
            .flatten()
            .flatten();
        first_success(programs.filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            let is_special = metadata.is_file() && metadata.permissions().mode() & 0o6000 != 0;
            is_special.then(|| {
                let path = entry.path();
                let finding = match (promised, is_ignored(&path)) {
                    (true, _) => Finding::Refused("no new privileges".to_owned()),
                    (_, true) => Finding::Refused("mounted without set-user-ID".to_owned()),
                    (false, false) => Finding::Succeeded(format!("runs as uid {}", metadata.uid())),
                };
                (path.display().to_string(), finding)
            })
        }))
    }),
    proven("set_user_id_file_is_honoured", |_| {
        // A file of one's own with the bit, on a mount that honours it, helps another user who can reach it.
        let file = format!("/tmp/greenroom-probe-suid-{}", std::process::id());
        let made = fs::write(&file, "x")
            .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)));
        let finding = match made {
            Err(error) => Finding::Refused(error.to_string()),
            Ok(()) if is_ignored(file.as_ref()) => Finding::Refused("mounted without set-user-ID".to_owned()),
            Ok(()) => Finding::Succeeded("the bit counts".to_owned()),
        };
        let _ = fs::remove_file(&file);
        finding
    }),
    proven("hold_capabilities", |_| {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let held: Vec<&str> = status
            .lines()
            .filter(|line| line.starts_with("Cap") && !line.ends_with("\t0000000000000000"))
            .collect();
        match held.is_empty() {
            false => Finding::Succeeded(held.join(" ").replace('\t', " ")),
            true => Finding::Refused("none in any set".to_owned()),
        }
    }),
    proven("raise_capabilities", |_| set_capabilities(u32::MAX, u32::MAX, 0)),
    proven("raise_ambient_capability", |_| {
        if let refused @ Finding::Refused(_) =
            set_capabilities(1 << CAP_NET_RAW, 1 << CAP_NET_RAW, 1 << CAP_NET_RAW)
        {
            return refused;
        }
        // SAFETY: integers only.
        answer(
            unsafe {
                libc::prctl(
                    libc::PR_CAP_AMBIENT,
                    libc::PR_CAP_AMBIENT_RAISE,
                    CAP_NET_RAW,
                    0,
                    0,
                )
            }
            .into(),
        )
    }),
    proven("change_secure_bits", |_| {
        // SAFETY: integers only; sets what is set.
        answer(
            unsafe {
                let bits = libc::prctl(libc::PR_GET_SECUREBITS, 0, 0, 0, 0);
                libc::prctl(libc::PR_SET_SECUREBITS, bits, 0, 0, 0)
            }
            .into(),
        )
    }),
    proven_with(CAP_SYS_RESOURCE, "raise_resource_limits", |_| {
        first_success(
            [
                ("processes", libc::RLIMIT_NPROC),
                ("open files", libc::RLIMIT_NOFILE),
                ("file size", libc::RLIMIT_FSIZE),
                ("core size", libc::RLIMIT_CORE),
                ("real-time priority", libc::RLIMIT_RTPRIO),
                ("nice", libc::RLIMIT_NICE),
            ]
            .map(|(name, resource)| {
                let mut limit = libc::rlimit {
                    rlim_cur: 0,
                    rlim_max: 0,
                };
                // SAFETY: a valid rlimit for this process.
                let finding = unsafe {
                    libc::getrlimit(resource, &raw mut limit);
                    if limit.rlim_max == libc::RLIM_INFINITY {
                        Finding::Unavailable("is unlimited".to_owned())
                    } else {
                        limit.rlim_max += 1;
                        answer(libc::setrlimit(resource, &raw const limit).into())
                    }
                };
                (name.to_owned(), finding)
            }),
        )
    }),
    proven_with(CAP_SYS_RESOURCE, "hide_from_memory_killer", |_| {
        result_of(fs::write("/proc/self/oom_score_adj", "-1000"))
    }),
    proven("no_system_call_filter", |_| {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        match status.lines().any(|line| line == "Seccomp:\t2") {
            true => Finding::Refused("a filter is on".to_owned()),
            false => Finding::Succeeded("every system call goes through".to_owned()),
        }
    }),
];

/// capabilities(7).
const CAP_NET_RAW: u32 = 13;
const CAP_SYS_RESOURCE: u32 = 24;

/// Whether a file lies on a mount that ignores the set-user-ID bit.
fn is_ignored(path: &std::path::Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let name = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
    // SAFETY: a NUL-terminated path and a valid statvfs.
    unsafe {
        let mut filesystem: libc::statvfs = std::mem::zeroed();
        libc::statvfs(name.as_ptr(), &raw mut filesystem) == 0 && filesystem.f_flag & libc::ST_NOSUID != 0
    }
}

/// Asks for the lower half of capabilities, as far as the bounding set of the host lets one (capset(2)).
fn set_capabilities(effective: u32, permitted: u32, inheritable: u32) -> Finding {
    let mut header: [u32; 2] = [0x2008_0522, 0];
    let mut sets = [0_u32; 6];
    // SAFETY: header and data of version 3, which has two structs of three words.
    unsafe {
        libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr());
        let held = sets[1];
        // Everything that a process with all rights holds; one without must not get a single one.
        let most = if held == 0 { u32::MAX } else { held };
        let wanted = [effective & most, permitted & most, inheritable & most, 0, 0, 0];
        answer(libc::syscall(
            libc::SYS_capset,
            header.as_mut_ptr(),
            wanted.as_ptr(),
        ))
    }
}
