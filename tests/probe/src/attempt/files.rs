//! Files of the host: by path, by other processes' roots, by devices, by kernel interfaces that are files, by handles.

use super::{
    Attempt, Finding, answer, compare, first_success, last_error, proven, proven_with, result_of, spared,
};
use greenroom_probe::Target;
use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

pub const ATTEMPTS: &[Attempt] = &[
    proven("read_shadow", |_| match fs::read("/etc/shadow") {
        Ok(bytes) if bytes.windows(5).any(|window| window == b"root:") => {
            Finding::Succeeded("accounts of the host".to_owned())
        }
        Ok(_) => Finding::Refused("holds nothing".to_owned()),
        Err(error) => Finding::Refused(error.to_string()),
    }),
    proven("read_secret_by_path", |target| {
        read_secret(&target.secret_file, target)
    }),
    proven("read_secret_by_other_roots", |target| {
        let inside = target
            .secret_file
            .strip_prefix("/")
            .unwrap_or(&target.secret_file);
        first_success(process_links("root").into_iter().map(|root| {
            (
                root.display().to_string(),
                read_secret(&root.join(inside), target),
            )
        }))
    }),
    proven("read_secret_by_working_directories", |target| {
        first_success(process_links("cwd").into_iter().map(|cwd| {
            (
                cwd.display().to_string(),
                read_secret(&climb(&cwd, target), target),
            )
        }))
    }),
    proven("read_secret_by_open_directories", open_directories),
    proven("list_state_directory", |target| {
        result_of(fs::read_dir(&target.state_dir))
    }),
    proven("write_host_directory", |target| {
        let file = target.secret_file.with_extension("written");
        let result = fs::write(&file, &target.secret);
        let _ = fs::remove_file(&file);
        result_of(result)
    }),
    proven("link_host_file", |target| {
        let name = format!("link-{}", std::process::id());
        let link = target.secret_file.with_file_name(name);
        let result = fs::hard_link(&target.secret_file, &link);
        let _ = fs::remove_file(&link);
        result_of(result)
    }),
    proven("write_usr", |_| {
        let file = Path::new("/usr/greenroom-probe-was-here");
        let result = fs::write(file, "x");
        let _ = fs::remove_file(file);
        result_of(result)
    }),
    proven("change_usr", |_| {
        // The mode it has already.
        let bin = Path::new("/usr/bin");
        result_of(fs::metadata(bin).and_then(|metadata| fs::set_permissions(bin, metadata.permissions())))
    }),
    proven("write_program_of_usr", |_| {
        first_success(["/usr/bin/env", "/usr/bin/git", "/usr/bin/bash"].map(|path| {
            (
                path.to_owned(),
                result_of(OpenOptions::new().append(true).open(path)),
            )
        }))
    }),
    proven("link_program_of_usr", |_| {
        let link = format!("/usr/bin/greenroom-probe-{}", std::process::id());
        let result = fs::hard_link("/usr/bin/env", &link);
        let _ = fs::remove_file(&link);
        result_of(result)
    }),
    proven("write_kernel_settings", |_| {
        first_success(
            [
                "/proc/sys/kernel/core_pattern",
                "/proc/sys/kernel/modprobe",
                "/proc/sys/kernel/hostname",
                "/proc/sys/kernel/sysrq",
                "/proc/sys/kernel/panic",
                "/proc/sys/vm/overcommit_memory",
                "/proc/sys/fs/file-max",
                "/proc/sys/net/core/somaxconn",
                "/proc/sys/net/ipv4/ip_forward",
                "/proc/sys/net/ipv4/ip_unprivileged_port_start",
                "/proc/sys/user/max_user_namespaces",
                "/proc/irq/default_smp_affinity",
            ]
            .map(|path| (path.to_owned(), write_back(Path::new(path)))),
        )
    }),
    proven("write_device_settings", |_| {
        first_success(
            [
                "/sys/kernel/uevent_helper",
                "/sys/kernel/mm/transparent_hugepage/enabled",
                "/sys/kernel/mm/ksm/run",
                "/sys/module/overlay/parameters/metacopy",
                "/sys/power/pm_async",
                "/sys/kernel/profiling",
                "/sys/block/vda/queue/read_ahead_kb",
                "/sys/block/sda/queue/read_ahead_kb",
            ]
            .map(|path| (path.to_owned(), write_back(Path::new(path)))),
        )
    }),
    spared("register_binary_format", "the kernel would keep it", |_| {
        first_success(
            [
                "/proc/sys/fs/binfmt_misc/register",
                "/proc/sys/fs/binfmt_misc/status",
            ]
            .map(|path| {
                (
                    path.to_owned(),
                    result_of(OpenOptions::new().write(true).open(path)),
                )
            }),
        )
    }),
    spared(
        "trigger_system_request",
        "would be a request to the real kernel",
        |_| {
            let written = OpenOptions::new()
                .write(true)
                .open("/proc/sysrq-trigger")
                // Prints the help to the kernel's log.
                .and_then(|mut file| file.write_all(b"h"));
            result_of(written)
        },
    ),
    proven("read_kernel_memory", |_| {
        first_success(
            ["/proc/kcore", "/dev/mem", "/dev/kmem", "/dev/port"]
                .map(|path| (path.to_owned(), read_some(Path::new(path)))),
        )
    }),
    proven("read_kernel_memory_by_node", |_| {
        read_by_node("character", libc::S_IFCHR, &[(1, 1), (1, 4)])
    }),
    proven("read_kernel_log", |_| {
        first_success(["/dev/kmsg", "/proc/kmsg"].map(|path| (path.to_owned(), read_some(Path::new(path)))))
    }),
    proven("read_kernel_log_by_node", |_| {
        read_by_node("character", libc::S_IFCHR, &[(1, 11)])
    }),
    proven("read_disk_by_name", |_| {
        first_success(disks().into_iter().map(|(name, _, _)| {
            let path = Path::new("/dev").join(&name);
            (name, read_some(&path))
        }))
    }),
    proven("read_disk_by_node", |_| {
        let numbers: Vec<(u32, u32)> = disks()
            .into_iter()
            .map(|(_, major, minor)| (major, minor))
            .collect();
        read_by_node("block", libc::S_IFBLK, &numbers)
    }),
    proven("open_host_devices", |_| {
        first_success(
            [
                "/dev/fuse",
                "/dev/kvm",
                "/dev/loop-control",
                "/dev/loop0",
                "/dev/net/tun",
                "/dev/vhost-net",
                "/dev/vhost-vsock",
                "/dev/uinput",
                "/dev/mapper/control",
                "/dev/btrfs-control",
                "/dev/userfaultfd",
                "/dev/vsock",
                "/dev/console",
                "/dev/tty0",
                "/dev/tty1",
                "/dev/ttyS0",
                "/dev/rtc0",
                "/dev/watchdog",
                "/dev/cuse",
                "/dev/dri/card0",
                "/dev/snd/timer",
                "/dev/autofs",
                "/dev/snapshot",
            ]
            .map(|path| {
                let opened = OpenOptions::new().read(true).write(true).open(path);
                (path.to_owned(), result_of(opened))
            }),
        )
    }),
    proven("open_by_handle", open_by_handle),
    proven("mount_information_names_host_paths", |target| {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        // Where something is mounted; on the host that includes what the test mounted nowhere, so there the whole
        // table of another process is as good.
        let is_host = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .any(|point| {
                Path::new(point).starts_with(&target.state_dir)
                    || point == "/sys/fs/cgroup/memory"
                    || point == "/boot"
            });
        let shows =
            is_host || fs::read_to_string("/proc/mounts").is_ok_and(|text| text.contains(" /sys/fs/cgroup"));
        match shows {
            true => Finding::Succeeded("mounts of the host".to_owned()),
            false => Finding::Refused("only the sandbox's own".to_owned()),
        }
    }),
    proven("cgroup_release_agent", |_| {
        first_success(cgroup_mounts().into_iter().map(|mount| {
            let file = mount.join("release_agent");
            (file.display().to_string(), write_back(&file))
        }))
    }),
    proven("cgroup_leave", |_| {
        first_success(cgroup_mounts().into_iter().map(|mount| {
            let file = mount.join("cgroup.procs");
            let written = OpenOptions::new()
                .write(true)
                .open(&file)
                .and_then(|mut file| file.write_all(b"0"));
            (file.display().to_string(), result_of(written))
        }))
    }),
    proven("cgroup_make", |_| {
        first_success(cgroup_mounts().into_iter().map(|mount| {
            let group = mount.join(format!("greenroom-probe-{}", std::process::id()));
            let made = fs::create_dir(&group);
            let _ = fs::remove_dir(&group);
            (group.display().to_string(), result_of(made))
        }))
    }),
    proven(
        "connect_to_host_socket_by_path",
        |target| match std::os::unix::net::UnixStream::connect(&target.unix_socket) {
            Ok(mut stream) => {
                let mut bytes = Vec::new();
                let _ = stream.read_to_end(&mut bytes);
                compare("the socket", &bytes, target)
            }
            Err(error) => Finding::Refused(error.to_string()),
        },
    ),
    proven("find_any_socket", |target| {
        // Whatever listens at a path that this process did not make.
        let mut found = Vec::new();
        let top = target.unix_socket.parent().unwrap_or(Path::new("/"));
        for place in [
            Path::new("/run"),
            Path::new("/var"),
            Path::new("/etc"),
            Path::new("/home"),
            top,
        ] {
            sockets_below(place, 6, &mut found);
        }
        first_success(found.into_iter().map(|path| {
            (
                path.display().to_string(),
                result_of(std::os::unix::net::UnixStream::connect(&path)),
            )
        }))
    }),
    proven("socket_table_names_host_paths", |target| {
        let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        let is_host = [&target.state_dir, &target.unix_socket]
            .iter()
            .any(|path| table.contains(&path.display().to_string()))
            || table.contains(&target.abstract_socket);
        match is_host {
            true => Finding::Succeeded("sockets of the host".to_owned()),
            false => Finding::Refused("only the sandbox's own".to_owned()),
        }
    }),
    proven_with(CAP_SETFCAP, "give_file_capabilities", |_| {
        let file = format!("/tmp/greenroom-probe-caps-{}", std::process::id());
        if let Err(error) = fs::write(&file, "x") {
            return Finding::Refused(error.to_string());
        }
        // VFS_CAP_REVISION_2 with CAP_SYS_ADMIN permitted and effective (linux/capability.h).
        let mut value = [0_u8; 20];
        value[..4].copy_from_slice(&0x0200_0001_u32.to_le_bytes());
        value[4..8].copy_from_slice(&(1_u32 << 21).to_le_bytes());
        let path = CString::new(file.as_str()).unwrap_or_default();
        // SAFETY: NUL-terminated texts and a buffer of the given length.
        let result = unsafe {
            libc::setxattr(
                path.as_ptr(),
                c"security.capability".as_ptr(),
                value.as_ptr().cast(),
                value.len(),
                0,
            )
        };
        let finding = answer(result.into());
        let _ = fs::remove_file(&file);
        finding
    }),
];

/// capabilities(7).
const CAP_SETFCAP: u32 = 31;

fn read_secret(path: &Path, target: &Target) -> Finding {
    match fs::read(path) {
        Ok(bytes) => compare("the file", &bytes, target),
        Err(error) => Finding::Refused(error.to_string()),
    }
}

/// `/proc/PID/NAME` of every process that is seen, and of this one's threads.
fn process_links(name: &str) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut links: Vec<PathBuf> = processes
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .bytes()
                .all(|byte| byte.is_ascii_digit())
        })
        .map(|entry| entry.path().join(name))
        .collect();
    links.push(Path::new("/proc/thread-self").join(name));
    links
}

/// From a directory up to whatever root there is and down to the secret.
fn climb(from: &Path, target: &Target) -> PathBuf {
    let mut path = from.to_owned();
    for _ in 0..32 {
        path.push("..");
    }
    path.join(
        target
            .secret_file
            .strip_prefix("/")
            .unwrap_or(&target.secret_file),
    )
}

/// Descriptors that lead out: inherited ones, and those of other processes.
fn open_directories(target: &Target) -> Finding {
    // So that there is always one: it leads to wherever this root is.
    let own = fs::File::open("/");
    let mut found: Vec<PathBuf> = Vec::new();
    for table in process_links("fd") {
        for entry in fs::read_dir(table).into_iter().flatten().flatten() {
            if fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir()) {
                found.push(entry.path());
            }
        }
    }
    let finding = first_success(found.into_iter().map(|directory| {
        (
            directory.display().to_string(),
            read_secret(&climb(&directory, target), target),
        )
    }));
    drop(own);
    finding
}

/// Writes what is there already, so that it changes nothing where it works.
fn write_back(path: &Path) -> Finding {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Finding::Unavailable(error.to_string());
        }
        Err(error) => return Finding::Refused(error.to_string()),
    };
    // Choices show the current one in brackets.
    let value = text.split(['[', ']']).nth(1).unwrap_or(&text).trim().to_owned();
    let written = OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(format!("{value}\n").as_bytes()));
    result_of(written)
}

/// Whether bytes come out of a file.
fn read_some(path: &Path) -> Finding {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let mut file = match file {
        Ok(file) => file,
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENODEV)) =>
        {
            return Finding::Unavailable(error.to_string());
        }
        Err(error) => return Finding::Refused(error.to_string()),
    };
    let mut bytes = vec![0; 8192];
    match file.read(&mut bytes) {
        Ok(0) => Finding::Refused("is empty".to_owned()),
        Ok(len) => Finding::Succeeded(format!("{len} bytes")),
        // The device or log was opened; there is only nothing new in it.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Finding::Succeeded("opened".to_owned()),
        Err(error) => Finding::Refused(error.to_string()),
    }
}

/// Makes a device node wherever that may work and reads it.
fn read_by_node(kind: &str, mode: libc::mode_t, numbers: &[(u32, u32)]) -> Finding {
    let mut findings = Vec::new();
    for directory in [
        "/workspace",
        "/tmp",
        "/dev/shm",
        "/dev",
        "/home/agent",
        "/var/tmp",
    ]
    .into_iter()
    .filter(|directory| Path::new(directory).is_dir())
    {
        for (major, minor) in numbers {
            let path = format!("{directory}/greenroom-probe-node-{}", std::process::id());
            let name = CString::new(path.as_str()).unwrap_or_default();
            // SAFETY: a NUL-terminated path.
            let made = unsafe { libc::mknod(name.as_ptr(), mode | 0o600, libc::makedev(*major, *minor)) };
            let finding = match made {
                0 => read_some(Path::new(&path)),
                _ => Finding::Refused(last_error().to_string()),
            };
            let _ = fs::remove_file(&path);
            findings.push((format!("{kind} {major}:{minor} in {directory}"), finding));
        }
    }
    first_success(findings)
}

/// The host's disks; the kernel tells their numbers to everyone (proc_partitions(5)).
fn disks() -> Vec<(String, u32, u32)> {
    let mut disks: Vec<(String, u32, u32)> = fs::read_to_string("/proc/partitions")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            Some((
                (*words.get(3)?).to_owned(),
                words.first()?.parse().ok()?,
                words.get(1)?.parse().ok()?,
            ))
        })
        .collect();
    // The usual first disks, where the list is hidden.
    disks.extend([
        ("vda".to_owned(), 254, 0),
        ("sda".to_owned(), 8, 0),
        ("nvme0n1".to_owned(), 259, 0),
    ]);
    disks
}

/// Opens a file of the mounted filesystem by its handle, which needs no path and asks no directory.
fn open_by_handle(_: &Target) -> Finding {
    #[repr(C, align(8))]
    struct Handle {
        bytes: u32,
        kind: i32,
        handle: [u8; 128],
    }
    first_success(["/usr", "/", "/workspace", "/etc", "/proc"].map(|place| {
        let name = CString::new(place).unwrap_or_default();
        let mut handle = Handle {
            bytes: 128,
            kind: 0,
            handle: [0; 128],
        };
        let mut mount = 0;
        // SAFETY: a NUL-terminated path, a file_handle with room for 128 bytes, an int.
        let named = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                libc::AT_FDCWD,
                name.as_ptr(),
                &raw mut handle,
                &raw mut mount,
                0,
            )
        };
        if named != 0 {
            // The handle of an ext4 filesystem's root, known to everyone: inode 2.
            handle = Handle {
                bytes: 8,
                kind: 1,
                handle: [0; 128],
            };
            handle.handle[0] = 2;
        }
        let finding = match fs::File::open(place) {
            Err(error) => Finding::Refused(error.to_string()),
            Ok(directory) => {
                // SAFETY: an open descriptor and a valid file_handle.
                let opened = unsafe {
                    libc::syscall(
                        libc::SYS_open_by_handle_at,
                        directory.as_raw_fd(),
                        &raw mut handle,
                        libc::O_RDONLY,
                    )
                };
                let finding = answer(opened);
                if opened >= 0 {
                    // SAFETY: the kernel just handed it out.
                    drop(unsafe { OwnedFd::from_raw_fd(opened as i32) });
                }
                finding
            }
        };
        (place.to_owned(), finding)
    }))
}

/// Where resource groups are mounted.
fn cgroup_mounts() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut found: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            words
                .get(2)?
                .starts_with("cgroup")
                .then(|| PathBuf::from(words[1]))
        })
        .collect();
    if found.is_empty() {
        found.extend(
            [
                "/sys/fs/cgroup",
                "/sys/fs/cgroup/memory",
                "/sys/fs/cgroup/unified",
            ]
            .map(PathBuf::from),
        );
    }
    found
}

fn sockets_below(directory: &Path, depth: u32, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_socket() {
            found.push(entry.path());
        } else if kind.is_dir() && depth > 0 {
            sockets_below(&entry.path(), depth - 1, found);
        }
    }
}
