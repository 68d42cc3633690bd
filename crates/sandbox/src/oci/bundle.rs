//! The `config.json` of a sandbox's OCI bundle (<https://github.com/opencontainers/runtime-spec>), from the same data by
//! which the launcher builds a sandbox itself. Pure.

use crate::agent::SPARE_ID_DISTANCE;
use crate::enter::most_processes;
use crate::mounts::{MEMORY_FILES, PROC_HIDDEN, PROC_READ_ONLY, SHARED_MEMORY_BYTES};
use crate::seccomp;
use crate::spec::{AGENT_ID, LaunchSpec, OciRuntime};
use rustix::process::Resource;
use serde_json::{Value, json};

/// All there are but the one of time.
const NAMESPACES: [&str; 7] = ["user", "mount", "pid", "network", "ipc", "uts", "cgroup"];

/// Where the guest's program lies inside.
pub(crate) const GUEST_PLACE: &str = "run/greenroom-guest";

/// The configuration; the root is the directory `root` beside it. `host_id`: who the agent is outside, as root;
/// `has_plain_tmp`: whether the root's /tmp is a directory.
pub(crate) fn config(
    spec: &LaunchSpec,
    host_id: Option<u32>,
    runtime: OciRuntime,
    has_plain_tmp: bool,
) -> Value {
    let env: Vec<String> = spec
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let none: [&str; 0] = [];
    let ids = id_maps(host_id);
    let namespaces = NAMESPACES.map(|kind| json!({"type": kind}));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": AGENT_ID, "gid": AGENT_ID},
            "args": [format!("/{GUEST_PLACE}"), "stdio"],
            "env": env,
            "cwd": "/",
            "capabilities": {
                "bounding": none, "effective": none, "permitted": none, "inheritable": none, "ambient": none,
            },
            "noNewPrivileges": true,
            "rlimits": rlimits(spec),
        },
        "root": {"path": "root", "readonly": false},
        "hostname": spec.hostname,
        "mounts": mounts(spec, runtime, has_plain_tmp),
        "linux": {
            "namespaces": namespaces,
            "uidMappings": ids,
            "gidMappings": ids,
            "maskedPaths": PROC_HIDDEN.iter().map(|name| format!("/proc/{name}")).collect::<Vec<_>>(),
            "readonlyPaths": PROC_READ_ONLY.iter().map(|name| format!("/proc/{name}")).collect::<Vec<_>>(),
            "seccomp": seccomp_profile(runtime),
        },
    })
}

/// The agent's id; as root also 0, which runtimes insist on and nobody uses. An ordinary user's one id is 0 in the user
/// namespace around the runtime.
fn id_maps(host_id: Option<u32>) -> Value {
    let map = |inside: u32, outside: u32| json!({"containerID": inside, "hostID": outside, "size": 1});
    match host_id {
        Some(host_id) => json!([map(AGENT_ID, host_id), map(0, host_id + SPARE_ID_DISTANCE)]),
        None => json!([map(AGENT_ID, 0)]),
    }
}

fn rlimits(spec: &LaunchSpec) -> Vec<Value> {
    [
        ("RLIMIT_NPROC", Resource::Nproc, most_processes(spec)),
        ("RLIMIT_NOFILE", Resource::Nofile, spec.limits.max_open_files),
        (
            "RLIMIT_FSIZE",
            Resource::Fsize,
            spec.limits.max_file_bytes.min(spec.limits.disk_bytes),
        ),
        ("RLIMIT_CORE", Resource::Core, 0),
    ]
    .into_iter()
    .map(|(name, resource, wanted)| {
        // A hard limit cannot be raised without a capability that even root may lack.
        let most = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let value = wanted.min(most);
        json!({"type": name, "soft": value, "hard": value})
    })
    .collect()
}

/// Devices, /dev/null and the like, are the runtime's own.
fn mounts(spec: &LaunchSpec, runtime: OciRuntime, has_plain_tmp: bool) -> Vec<Value> {
    let mount = |place: &str, kind: &str, options: &[&str]| json!({"destination": place, "type": kind, "source": kind, "options": options});
    let shared_memory = format!("size={}", SHARED_MEMORY_BYTES.min(spec.limits.memory_bytes / 2));
    let shared_files = format!("nr_inodes={MEMORY_FILES}");
    let mut mounts = vec![
        mount("/proc", "proc", &["nosuid", "nodev", "noexec"]),
        mount("/dev", "tmpfs", &["nosuid", "noexec", "mode=755", "size=65536"]),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            &[
                "nosuid",
                "nodev",
                "noexec",
                "mode=1777",
                &shared_memory,
                &shared_files,
            ],
        ),
    ];
    if runtime == OciRuntime::Runsc && has_plain_tmp {
        // Otherwise gVisor puts a filesystem of its own, in memory, over an empty /tmp.
        mounts.push(json!({
            "destination": "/tmp", "type": "bind", "source": "root/tmp", "options": ["bind", "nosuid", "nodev"],
        }));
    }
    mounts
}

/// The filter of [`seccomp`] in OCI's words.
fn seccomp_profile(runtime: OciRuntime) -> Value {
    let names = |calls: &[(&str, i64)]| {
        calls
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let deny = |names: Value, arguments: Value| json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EPERM, "args": arguments});
    let lack = |arguments: Value| json!({"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EAFNOSUPPORT, "args": arguments});
    let mut rules = vec![deny(json!(names(seccomp::DENIED)), json!([]))];
    for flag in seccomp::NAMESPACE_FLAGS {
        rules.push(deny(
            json!(["clone"]),
            json!([{"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}]),
        ));
    }
    for request in seccomp::TERMINAL_INJECTION {
        rules.push(deny(
            json!(["ioctl"]),
            json!([{"index": 1, "value": request, "op": "SCMP_CMP_EQ"}]),
        ));
    }
    // One condition per rule and argument is all that a profile can say, so the others are named one by one.
    let last = seccomp::SOCKET_FAMILIES.iter().copied().max().unwrap_or(0);
    for family in (0..last).filter(|family| !seccomp::SOCKET_FAMILIES.contains(family)) {
        rules.push(lack(json!([{"index": 0, "value": family, "op": "SCMP_CMP_EQ"}])));
    }
    rules.push(lack(json!([{"index": 0, "value": last, "op": "SCMP_CMP_GT"}])));
    rules.push(deny(
        json!(["socketpair"]),
        json!([{"index": 0, "value": seccomp::PAIR_FAMILY, "op": "SCMP_CMP_NE"}]),
    ));
    let netlink = json!({"index": 0, "value": libc::AF_NETLINK, "op": "SCMP_CMP_EQ"});
    let last = seccomp::NETLINK_PROTOCOLS.iter().copied().max().unwrap_or(0);
    for protocol in (0..last).filter(|protocol| !seccomp::NETLINK_PROTOCOLS.contains(protocol)) {
        rules.push(lack(
            json!([netlink, {"index": 2, "value": protocol, "op": "SCMP_CMP_EQ"}]),
        ));
    }
    rules.push(lack(
        json!([netlink, {"index": 2, "value": last, "op": "SCMP_CMP_GT"}]),
    ));
    // gVisor answers every denial with EPERM, which C libraries do not understand of these; it has no io_uring.
    if runtime != OciRuntime::Runsc {
        rules.push(json!({
            "names": names(seccomp::ABSENT), "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS, "args": [],
        }));
    }
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [ARCHITECTURE], "syscalls": rules})
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: &str = "SCMP_ARCH_X86_64";
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: &str = "SCMP_ARCH_AARCH64";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Limits, Privilege, Root};

    fn spec(privilege: Privilege) -> LaunchSpec {
        LaunchSpec {
            directory: "/s".into(),
            root: Root::Directory { path: "/r".into() },
            privilege,
            read_only: Vec::new(),
            is_root_open: false,
            user_id: AGENT_ID,
            guest: "/g".into(),
            hostname: "sandbox".into(),
            env: vec![("A".into(), "b=c".into())],
            limits: Limits {
                max_open_files: 64,
                ..Limits::default()
            },
            cgroups: Vec::new(),
        }
    }

    #[test]
    fn nobody_inside_is_root_outside() {
        for (privilege, host_id, expected) in [
            (
                Privilege::Root,
                Some(0x7000_0001),
                json!([[1000, 0x7000_0001_u32], [0, 0x7100_0001_u32]]),
            ),
            (Privilege::User, None, json!([[1000, 0]])),
        ] {
            let config = config(&spec(privilege), host_id, OciRuntime::Crun, true);
            for maps in ["uidMappings", "gidMappings"] {
                let shown: Vec<Value> = config["linux"][maps]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|map| json!([map["containerID"], map["hostID"]]))
                    .collect();
                assert_eq!(json!(shown), expected, "{maps}");
            }
            assert_eq!(config["process"]["user"], json!({"uid": 1000, "gid": 1000}));
            assert_eq!(config["process"]["noNewPrivileges"], json!(true));
            assert_eq!(config["process"]["env"], json!(["A=b=c"]));
            let sets = config["process"]["capabilities"].as_object().unwrap();
            assert!(sets.len() == 5 && sets.values().all(|set| *set == json!([])));
            let files = &config["process"]["rlimits"][1];
            assert_eq!(
                (&files["type"], &files["hard"]),
                (&json!("RLIMIT_NOFILE"), &json!(64))
            );
        }
    }

    #[test]
    fn the_filter_says_what_the_launchers_own_says() {
        for runtime in [
            OciRuntime::Crun,
            OciRuntime::Runc,
            OciRuntime::Runsc,
            OciRuntime::Other,
        ] {
            let config = config(&spec(Privilege::User), None, runtime, false);
            let profile = &config["linux"]["seccomp"];
            let rules = profile["syscalls"].as_array().unwrap();
            let errno_with = |name: &str, arguments: [u64; 3]| {
                rules.iter().find_map(|rule| {
                    let is_named = rule["names"].as_array().unwrap().contains(&json!(name));
                    let is_meant = rule["args"].as_array().unwrap().iter().all(|condition| {
                        let value = condition["value"].as_u64().unwrap();
                        let argument = arguments[condition["index"].as_u64().unwrap() as usize];
                        match condition["op"].as_str().unwrap() {
                            "SCMP_CMP_EQ" => argument == value,
                            "SCMP_CMP_GT" => argument > value,
                            "SCMP_CMP_NE" => argument != value,
                            "SCMP_CMP_MASKED_EQ" => {
                                argument & value == condition["valueTwo"].as_u64().unwrap()
                            }
                            other => panic!("{other}"),
                        }
                    });
                    (is_named && is_meant).then(|| rule["errnoRet"].as_i64().unwrap())
                })
            };
            // The same in every argument.
            let errno_of = |name: &str, argument: u64| errno_with(name, [argument; 3]);
            for (name, _) in seccomp::DENIED {
                assert_eq!(errno_of(name, 0), Some(1), "{name}");
            }
            let absent = (runtime != OciRuntime::Runsc).then_some(38);
            assert_eq!(errno_of("clone3", 0), absent);
            for family in 0..64 {
                let is_allowed = seccomp::SOCKET_FAMILIES.contains(&(family as i32));
                assert_eq!(
                    errno_with("socket", [family, 1, 0]).is_none(),
                    is_allowed,
                    "family {family}"
                );
                assert_eq!(errno_of("socketpair", family).is_none(), family == 1, "{family}");
                let netlink = errno_with("socket", [libc::AF_NETLINK as u64, 3, family]);
                assert_eq!(netlink.is_none(), [0, 4].contains(&family), "netlink {family}");
            }
            assert_eq!(errno_of("clone", libc::SIGCHLD as u64), None);
            assert_eq!(errno_of("clone", libc::CLONE_NEWUSER as u64), Some(1));
            assert_eq!(errno_of("ioctl", 0x5412), Some(1));
            assert_eq!(errno_of("ioctl", 0x5413), None);
            assert_eq!(errno_of("openat", 0), None);
        }
    }
}
