//! The network: listeners of the host at every kind of address, cloud metadata, and socket families that a network
//! namespace does not hold or that reach deep into the kernel.

use super::{Attempt, Finding, answer, compare, first_success, last_error, proven, proven_with, spared};
use greenroom_probe::Target;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::time::{Duration, Instant};

/// Addresses whose owners answer with credentials, and the open internet.
const FORBIDDEN: &[&str] = &[
    "169.254.169.254:80",
    "169.254.170.2:80",
    "100.100.100.200:80",
    "[fd00:ec2::254]:80",
    "10.0.0.1:80",
    "172.17.0.1:80",
    "192.168.0.1:80",
    "1.1.1.1:53",
    "[2606:4700:4700::1111]:53",
];

/// An answer later than this is silence; a person would call it a hang.
const AT_ONCE: Duration = Duration::from_secs(2);

const NO_SERVICE: &str = "no machine for tests has it; the same code is proven with the host's own listeners";

pub const ATTEMPTS: &[Attempt] = &[
    proven("connect_to_host", |target| {
        first_success(
            target
                .tcp
                .iter()
                .map(|address| (address.to_string(), read_from(*address, target))),
        )
    }),
    proven("send_to_host", |target| {
        first_success(
            target
                .udp
                .iter()
                .map(|address| (address.to_string(), ask(*address, target))),
        )
    }),
    spared("connect_to_metadata_and_internet", NO_SERVICE, |_| {
        first_success(FORBIDDEN.iter().map(|text| ((*text).to_owned(), reach(text))))
    }),
    spared("send_to_name_servers", NO_SERVICE, |_| {
        first_success(
            [
                "1.1.1.1:53",
                "8.8.8.8:53",
                "169.254.169.254:53",
                "[2606:4700:4700::1111]:53",
            ]
            .map(|text| {
                let sent = socket_for(text).and_then(|socket| socket.send_to(b"?", text));
                (text.to_owned(), super::result_of(sent))
            }),
        )
    }),
    proven("ping_host", |target| {
        // SAFETY: integers only.
        let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP) };
        if socket < 0 {
            return ping(libc::SOCK_RAW, target);
        }
        // SAFETY: just handed out.
        drop(unsafe { OwnedFd::from_raw_fd(socket) });
        first_success([
            ("datagram".to_owned(), ping(libc::SOCK_DGRAM, target)),
            ("raw".to_owned(), ping(libc::SOCK_RAW, target)),
        ])
    }),
    proven("connect_to_abstract_socket", |target| {
        let stream = std::os::unix::net::SocketAddr::from_abstract_name(&target.abstract_socket)
            .and_then(|address| std::os::unix::net::UnixStream::connect_addr(&address));
        match stream {
            Ok(mut stream) => {
                let mut bytes = Vec::new();
                let _ = stream.read_to_end(&mut bytes);
                compare("the socket", &bytes, target)
            }
            Err(error) => Finding::Refused(error.to_string()),
        }
    }),
    proven("see_other_network_devices", |_| {
        let table = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
        let names = table.lines().skip(2).filter_map(|line| line.split(':').next());
        let other: Vec<&str> = names.map(str::trim).filter(|name| *name != "lo").collect();
        match other.is_empty() {
            false => Finding::Succeeded(other.join(", ")),
            true => Finding::Refused("only the loopback device".to_owned()),
        }
    }),
    proven_with(CAP_NET_ADMIN, "change_network_device", |_| change_link()),
    proven_with(CAP_NET_RAW, "raw_socket", |_| {
        open(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW)
    }),
    proven_with(CAP_NET_RAW, "raw_socket_6", |_| {
        open(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_RAW)
    }),
    proven_with(CAP_NET_RAW, "packet_socket", |_| {
        open(libc::AF_PACKET, libc::SOCK_RAW, 0)
    }),
    proven_with(CAP_NET_RAW, "packet_socket_datagram", |_| {
        open(libc::AF_PACKET, libc::SOCK_DGRAM, 0)
    }),
    proven("socket_alg", |_| open(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
    proven("socket_vsock", |_| open(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
    proven("socket_bluetooth", |_| {
        open(libc::AF_BLUETOOTH, libc::SOCK_RAW, 1)
    }),
    proven("socket_key", |_| open(libc::AF_KEY, libc::SOCK_RAW, 2)),
    proven("socket_can", |_| open(libc::AF_CAN, libc::SOCK_RAW, 1)),
    proven("socket_tipc", |_| open(libc::AF_TIPC, libc::SOCK_STREAM, 0)),
    proven("socket_rds", |_| open(libc::AF_RDS, libc::SOCK_SEQPACKET, 0)),
    proven("socket_xdp", |_| open(libc::AF_XDP, libc::SOCK_RAW, 0)),
    proven("socket_smc", |_| open(43, libc::SOCK_STREAM, 0)),
    proven("socket_qipcrtr", |_| open(42, libc::SOCK_DGRAM, 0)),
    proven("socket_kcm", |_| open(41, libc::SOCK_DGRAM, 0)),
    proven("socket_mctp", |_| open(45, libc::SOCK_DGRAM, 0)),
    proven("socket_nfc", |_| open(libc::AF_NFC, libc::SOCK_SEQPACKET, 0)),
    proven("socket_phonet", |_| open(35, libc::SOCK_DGRAM, 0)),
    proven("socket_appletalk", |_| {
        open(libc::AF_APPLETALK, libc::SOCK_DGRAM, 0)
    }),
    proven("socket_x25", |_| open(libc::AF_X25, libc::SOCK_SEQPACKET, 0)),
    proven("socket_ax25", |_| open(libc::AF_AX25, libc::SOCK_SEQPACKET, 0)),
    proven("socket_llc", |_| open(libc::AF_LLC, libc::SOCK_STREAM, 0)),
    proven("socket_pppox", |_| open(24, libc::SOCK_STREAM, 0)),
    proven("socket_caif", |_| open(37, libc::SOCK_STREAM, 0)),
    proven("socket_infiniband", |_| open(27, libc::SOCK_STREAM, 0)),
];

/// capabilities(7).
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;

/// Opens a socket of a family. A kernel without the family is no refusal.
fn open(family: i32, kind: i32, protocol: i32) -> Finding {
    // SAFETY: integers only; the descriptor ends with this process.
    let result = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    match (result, super::last_errno()) {
        (-1, libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT) => {
            Finding::Unavailable(last_error().to_string())
        }
        _ => answer(result.into()),
    }
}

fn read_from(address: SocketAddr, target: &Target) -> Finding {
    match TcpStream::connect_timeout(&address, AT_ONCE) {
        Ok(mut stream) => {
            let _ = stream.set_read_timeout(Some(AT_ONCE));
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            compare("the listener", &bytes, target)
        }
        Err(error) => silence_or(&error),
    }
}

/// Whether there is any way to an address. Silence is one: the packets went somewhere.
fn reach(address: &str) -> Finding {
    let parsed: SocketAddr = match address.parse() {
        Ok(parsed) => parsed,
        Err(error) => return Finding::Unavailable(format!("{error}")),
    };
    match TcpStream::connect_timeout(&parsed, AT_ONCE) {
        Ok(_) => Finding::Succeeded("connected".to_owned()),
        Err(error) => silence_or(&error),
    }
}

fn silence_or(error: &io::Error) -> Finding {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            Finding::Succeeded("no error at once: the packets went somewhere".to_owned())
        }
        _ => Finding::Refused(error.to_string()),
    }
}

fn socket_for(address: &str) -> io::Result<UdpSocket> {
    UdpSocket::bind(if address.starts_with('[') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    })
}

fn ask(address: SocketAddr, target: &Target) -> Finding {
    let asked = socket_for(&address.to_string()).and_then(|socket| {
        // So that a refusal comes back as an error.
        socket.connect(address)?;
        socket.set_read_timeout(Some(AT_ONCE))?;
        socket.send(b"?")?;
        let mut bytes = [0; 512];
        let len = socket.recv(&mut bytes)?;
        Ok(bytes[..len].to_vec())
    });
    match asked {
        Ok(bytes) => compare("the answer", &bytes, target),
        Err(error) => silence_or(&error),
    }
}

/// Sends an echo request to an address of the host that is not this machine's loopback, and waits for the answer.
fn ping(kind: i32, target: &Target) -> Finding {
    let host = target
        .tcp
        .iter()
        .map(SocketAddr::ip)
        .find_map(|address| match address {
            std::net::IpAddr::V4(address) if !address.is_loopback() => Some(address),
            _ => None,
        });
    let Some(host) = host else {
        return Finding::Unavailable("the host has no other address".to_owned());
    };
    // SAFETY: integers only.
    let fd = unsafe { libc::socket(libc::AF_INET, kind | libc::SOCK_NONBLOCK, libc::IPPROTO_ICMP) };
    if fd < 0 {
        return Finding::Refused(last_error().to_string());
    }
    // SAFETY: just handed out.
    let socket = UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) });
    // Type 8, code 0, checksum over type, identifier and sequence, all in network order (RFC 792).
    let mut request = [8, 0, 0, 0, 0x47, 0x52, 0, 1];
    let checksum = !(0x0800_u16 + 0x4752 + 1);
    request[2..4].copy_from_slice(&checksum.to_be_bytes());
    if let Err(error) = send_to(&socket, &request, host) {
        return Finding::Refused(error.to_string());
    }
    let deadline = Instant::now() + AT_ONCE;
    let mut bytes = [0; 256];
    loop {
        match socket.recv(&mut bytes) {
            Ok(len) if bytes[..len].windows(2).any(|window| window == [0, 0]) => {
                return Finding::Succeeded("it answered".to_owned());
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return silence_or(&error),
        }
    }
}

fn send_to(socket: &UdpSocket, bytes: &[u8], host: Ipv4Addr) -> io::Result<()> {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr {
            s_addr: u32::from(host).to_be(),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: a buffer and an address of the given sizes.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            0,
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    if sent < 0 { Err(last_error()) } else { Ok(()) }
}

/// Asks the kernel to change the loopback device in no way (rtnetlink(7)); who may do that may do more.
fn change_link() -> Finding {
    #[repr(C)]
    struct Request {
        len: u32,
        kind: u16,
        flags: u16,
        seq: u32,
        pid: u32,
        family: u8,
        pad: u8,
        device_type: u16,
        index: i32,
        device_flags: u32,
        change: u32,
    }
    let request = Request {
        len: size_of::<Request>() as u32,
        kind: libc::RTM_SETLINK,
        flags: (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16,
        seq: 1,
        pid: 0,
        family: 0,
        pad: 0,
        device_type: 0,
        index: 1,
        device_flags: 0,
        change: 0,
    };
    // SAFETY: a valid message of the given length and a buffer for the answer.
    unsafe {
        let socket = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE);
        if socket < 0 {
            return Finding::Refused(last_error().to_string());
        }
        if libc::send(socket, (&raw const request).cast(), size_of::<Request>(), 0) < 0 {
            return Finding::Refused(last_error().to_string());
        }
        let mut reply = [0_u8; 256];
        let len = libc::recv(socket, reply.as_mut_ptr().cast(), reply.len(), 0);
        if len < 20 {
            return Finding::Refused(format!("answer of {len} bytes"));
        }
        // struct nlmsgerr behind the header: the negative errno.
        match i32::from_ne_bytes([reply[16], reply[17], reply[18], reply[19]]) {
            0 => Finding::Succeeded("may change devices".to_owned()),
            error => Finding::Refused(io::Error::from_raw_os_error(-error).to_string()),
        }
    }
}
