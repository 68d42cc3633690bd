//! What a sandbox could reach on the host if it did not hold: files, sockets, listeners, shared memory, a process. Each
//! gives a secret away. Everything is gone again with the [`Bait`].

use greenroom_probe::{PROGRAM, Target};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Things on the host, and what the probe is told of them.
pub struct Bait {
    pub target: Target,
    /// The static program, for the host itself.
    pub program: PathBuf,
    directory: tempfile::TempDir,
    victim: std::process::Child,
    segment: i32,
}

/// Puts the static program there. By another process: what is open for writing here when another thread forks is open there too
/// for a moment, and is then no program that can be run.
fn install(program: &Path) {
    let mut installer = std::process::Command::new("install")
        .args(["-m", "755", "/dev/stdin"])
        .arg(program)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    installer.stdin.take().unwrap().write_all(PROGRAM).unwrap();
    assert!(installer.wait().unwrap().success());
}

impl Bait {
    /// Makes everything. The probe is to attack `prey`, or the victim on the host if it is empty.
    pub fn new(state: &Path, prey: &[i32]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("gr-bait-")
            .tempdir_in("/tmp")
            .unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let name = directory
            .path()
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let secret = format!("secret-{}", greenroom_stdx::id::fresh_bits());
        let at = |file: &str| directory.path().join(file);
        std::fs::write(at("secret"), &secret).unwrap();
        let program = at("probe");
        install(&program);
        serve_unix(UnixListener::bind(at("socket")).unwrap(), &secret);
        let abstract_name = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        serve_unix(UnixListener::bind_addr(&abstract_name).unwrap(), &secret);
        let victim = std::process::Command::new(&program)
            .args(["wait", &secret])
            .spawn()
            .unwrap();
        let victim_pid = i32::try_from(victim.id()).unwrap();
        let key = i32::try_from(std::process::id()).unwrap() ^ 0x4752_0000;
        std::fs::write(Path::new("/dev/shm").join(&name), &secret).unwrap();
        make_queue(&name);
        Self {
            target: Target {
                secret_file: at("secret"),
                state_dir: state.to_owned(),
                unix_socket: at("socket"),
                abstract_socket: name.clone(),
                tcp: addresses()
                    .into_iter()
                    .map(|address| serve_tcp(address, &secret))
                    .collect(),
                udp: addresses()
                    .into_iter()
                    .map(|address| serve_udp(address, &secret))
                    .collect(),
                shared_memory_key: key,
                shared_memory_name: name.clone(),
                message_queue: format!("/{name}"),
                victim: victim_pid,
                prey: match prey {
                    [] => vec![victim_pid],
                    prey => prey.to_owned(),
                },
                secret: secret.clone(),
            },
            program,
            directory,
            victim,
            segment: make_segment(key, &secret),
        }
    }

    /// Arguments that make the program try everything.
    pub fn arguments(&self) -> [String; 2] {
        ["attempt".to_owned(), serde_json::to_string(&self.target).unwrap()]
    }
}

impl Drop for Bait {
    fn drop(&mut self) {
        let _ = self.victim.kill();
        let _ = self.victim.wait();
        let _ = std::fs::remove_file(Path::new("/dev/shm").join(&self.target.shared_memory_name));
        let queue = std::ffi::CString::new(self.target.message_queue.as_str()).unwrap();
        // SAFETY: removes by number and by NUL-terminated name what this value made.
        unsafe {
            libc::shmctl(self.segment, libc::IPC_RMID, std::ptr::null_mut());
            libc::mq_unlink(queue.as_ptr());
        }
        // The threads that listen live as long as the test's process.
        let _ = std::fs::remove_dir_all(self.directory.path());
    }
}

/// Loopback of both families, and the address from which this machine would reach others.
fn addresses() -> Vec<IpAddr> {
    let mut addresses = vec![
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
    ];
    // Connecting a datagram socket sends nothing; 192.0.2.1 is nobody's (RFC 5737).
    let outward = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    match outward {
        Ok(address) => addresses.push(address.ip()),
        Err(error) => eprintln!("SKIPPED-FEATURE: no address beyond loopback to listen on: {error}"),
    }
    addresses.retain(|address| UdpSocket::bind((*address, 0)).is_ok());
    addresses
}

fn serve_unix(listener: UnixListener, secret: &str) {
    let path = listener.local_addr().unwrap();
    if let Some(path) = path.as_pathname() {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let secret = secret.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = (&stream).write_all(secret.as_bytes());
        }
    });
}

fn serve_tcp(address: IpAddr, secret: &str) -> SocketAddr {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let (bound, secret) = (listener.local_addr().unwrap(), secret.to_owned());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = (&stream).write_all(secret.as_bytes());
        }
    });
    bound
}

fn serve_udp(address: IpAddr, secret: &str) -> SocketAddr {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    let (bound, secret) = (socket.local_addr().unwrap(), secret.to_owned());
    std::thread::spawn(move || {
        let mut question = [0; 16];
        while let Ok((_, from)) = socket.recv_from(&mut question) {
            let _ = socket.send_to(secret.as_bytes(), from);
        }
    });
    bound
}

fn make_segment(key: i32, secret: &str) -> i32 {
    // SAFETY: a new segment of one page, written while it is mapped.
    unsafe {
        let segment = libc::shmget(key, 4096, libc::IPC_CREAT | libc::IPC_EXCL | 0o666);
        assert!(segment >= 0, "{}", std::io::Error::last_os_error());
        let address = libc::shmat(segment, std::ptr::null(), 0);
        assert_ne!(address as isize, -1, "{}", std::io::Error::last_os_error());
        std::ptr::copy_nonoverlapping(secret.as_ptr(), address.cast(), secret.len());
        libc::shmdt(address);
        segment
    }
}

fn make_queue(name: &str) {
    let name = std::ffi::CString::new(format!("/{name}")).unwrap();
    // SAFETY: a NUL-terminated name and default attributes. The queue stays until it is unlinked.
    unsafe {
        let queue = libc::mq_open(
            name.as_ptr(),
            libc::O_CREAT | libc::O_RDWR,
            0o666,
            std::ptr::null::<u8>(),
        );
        assert!(queue >= 0, "{}", std::io::Error::last_os_error());
        libc::mq_close(queue);
    }
}
