//! What Firecracker is asked for, in order, as data: one machine with its kernel, disks and channel. Pure; sending is
//! [`super::client`]'s work. Field names and paths are those of Firecracker's OpenAPI file (`firecracker.yaml`, v1.12).

use serde::Serialize;
use std::path::PathBuf;

/// Number of the guest on its virtual socket; 0 to 2 are reserved (vsock(7)). Each machine has a bus of its own.
const GUEST_CID: u32 = 3;

/// A machine to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Uncompressed kernel (`vmlinux`) with virtio-mmio, virtio-blk, virtio-vsock, ext4 and overlayfs built in.
    pub kernel: PathBuf,
    /// Read-only root: the guest, and what every sandbox sees.
    pub base_image: PathBuf,
    /// What this sandbox writes; its size is the disk limit.
    pub upper_image: PathBuf,
    /// Further disks shown read-only, each with the directory of the root it becomes, such as `usr`.
    pub read_only_images: Vec<(String, PathBuf)>,
    /// Raw disk with what the guest must know; see `crates/guest/src/machine.rs`.
    pub orders: PathBuf,
    /// Where Firecracker makes the socket that leads to the guest's ports.
    pub socket: PathBuf,
    /// 1 to 32.
    pub processors: u32,
    pub memory_mib: u64,
}

/// One call of Firecracker's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    pub path: String,
    /// JSON; empty for [`Method::Get`].
    pub body: String,
}

/// Methods that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Put,
}

#[derive(Serialize)]
struct MachineConfiguration {
    vcpu_count: u32,
    mem_size_mib: u64,
    /// Sibling threads share caches, and so secrets.
    smt: bool,
}

#[derive(Serialize)]
struct BootSource<'a> {
    kernel_image_path: &'a PathBuf,
    boot_args: String,
}

#[derive(Serialize)]
struct Drive<'a> {
    drive_id: &'a str,
    path_on_host: &'a PathBuf,
    is_root_device: bool,
    is_read_only: bool,
    cache_type: &'static str,
}

#[derive(Serialize)]
struct Vsock<'a> {
    guest_cid: u32,
    uds_path: &'a PathBuf,
}

#[derive(Serialize)]
struct Entropy {}

#[derive(Serialize)]
struct Action {
    action_type: &'static str,
}

impl Machine {
    /// Everything before the start, in an order that Firecracker accepts.
    pub fn preparation(&self) -> Vec<Request> {
        let mut requests = vec![
            put(
                "/machine-config",
                &MachineConfiguration {
                    vcpu_count: self.processors.clamp(1, 32),
                    mem_size_mib: self.memory_mib.max(1),
                    smt: false,
                },
            ),
            put(
                "/boot-source",
                &BootSource {
                    kernel_image_path: &self.kernel,
                    boot_args: boot_arguments(&self.disks()),
                },
            ),
        ];
        let read_only = self
            .read_only_images
            .iter()
            .map(|(name, path)| (name.as_str(), path));
        let drives = [("base", &self.base_image)].into_iter().chain(read_only);
        requests.extend(drives.map(|(name, path)| drive(name, path, Access::ReadOnly)));
        // Behind the others, so that their names inside follow from the number of those.
        requests.push(drive("upper", &self.upper_image, Access::Writable));
        requests.push(drive("orders", &self.orders, Access::ReadOnly));
        requests.extend([
            put(
                "/vsock",
                &Vsock {
                    guest_cid: GUEST_CID,
                    uds_path: &self.socket,
                },
            ),
            // Without it programs wait long for random numbers.
            put("/entropy", &Entropy {}),
        ]);
        requests
    }

    /// Names of the disks inside, in the order in which they were added, for the guest (`GREENROOM_DISKS`). The root is the
    /// first device.
    fn disks(&self) -> String {
        let names = self
            .read_only_images
            .iter()
            .map(|(name, _)| name.as_str())
            .chain(["upper", "orders"]);
        let disks = names
            .zip(b'b'..=b'z')
            .map(|(name, letter)| format!("{name}=/dev/vd{}", char::from(letter)));
        disks.collect::<Vec<_>>().join(",")
    }

    /// Starts a prepared machine.
    pub fn start() -> Request {
        put(
            "/actions",
            &Action {
                action_type: "InstanceStart",
            },
        )
    }

    /// Asks what the process is doing.
    pub fn describe() -> Request {
        Request {
            method: Method::Get,
            path: "/".to_owned(),
            body: String::new(),
        }
    }
}

/// No PCI to look for, no console but the first serial line, restart means the end, and the guest is the first process.
fn boot_arguments(disks: &str) -> String {
    format!(
        "console=ttyS0 reboot=k panic=1 pci=off quiet ro init={} GREENROOM_DISKS={disks}",
        super::GUEST_INSIDE
    )
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    ReadOnly,
    Writable,
}

fn drive(name: &str, path: &PathBuf, access: Access) -> Request {
    put(
        &format!("/drives/{name}"),
        &Drive {
            drive_id: name,
            path_on_host: path,
            is_root_device: name == "base",
            is_read_only: access == Access::ReadOnly,
            cache_type: match access {
                Access::ReadOnly => "Unsafe",
                // What the sandbox syncs is on the host's disk.
                Access::Writable => "Writeback",
            },
        },
    )
}

fn put(path: &str, body: &impl Serialize) -> Request {
    Request {
        method: Method::Put,
        path: path.to_owned(),
        // Plain structs of text and numbers always encode, but for paths that are no UTF-8, which the caller refuses.
        body: serde_json::to_string(body).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            kernel: "/srv/vmlinux".into(),
            base_image: "/srv/base.ext4".into(),
            upper_image: "/srv/upper.ext4".into(),
            read_only_images: vec![("usr".to_owned(), "/srv/usr.ext4".into())],
            orders: "/srv/orders".into(),
            socket: "/srv/vsock.sock".into(),
            processors: 2,
            memory_mib: 512,
        }
    }

    #[test]
    fn a_machine_is_described_before_it_starts() {
        let paths: Vec<String> = machine()
            .preparation()
            .into_iter()
            .map(|request| request.path)
            .collect();
        let expected = [
            "/machine-config",
            "/boot-source",
            "/drives/base",
            "/drives/usr",
            "/drives/upper",
            "/drives/orders",
            "/vsock",
            "/entropy",
        ];
        assert_eq!(paths, expected);
        assert_eq!(Machine::start().body, r#"{"action_type":"InstanceStart"}"#);
    }

    #[test]
    fn the_base_is_read_only_and_the_processors_are_in_range() {
        let odd = Machine {
            processors: 0,
            ..machine()
        };
        let requests = odd.preparation();
        assert!(
            requests[1]
                .body
                .contains("GREENROOM_DISKS=usr=/dev/vdb,upper=/dev/vdc,orders=/dev/vdd"),
            "{}",
            requests[1].body
        );
        assert!(
            requests[0].body.contains(r#""vcpu_count":1"#),
            "{}",
            requests[0].body
        );
        assert!(
            requests[2].body.contains(r#""is_read_only":true"#),
            "{}",
            requests[2].body
        );
        assert!(
            requests[4].body.contains(r#""is_read_only":false"#),
            "{}",
            requests[4].body
        );
    }
}
