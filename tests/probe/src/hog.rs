//! Uses a resource up, as far as it is let or up to a number. Prints how far it got and how it was stopped, so that a test
//! sees that there was an end.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

/// Bytes written at once.
const PIECE_BYTES: usize = 1 << 20;

/// Runs the attack `kind` until something stops it or `most` is reached: processes, MiB, files or connections.
#[expect(clippy::print_stdout, reason = "how far it got is the output")]
pub fn run(kind: &str, most: u64) -> ExitCode {
    let (reached, end) = match kind {
        "fork" => count(most, fork_sleeper),
        "fork_bomb" => fork_bomb(),
        "threads" => count(most, thread),
        "memory" => memory(most),
        "shared_memory" => fill("/dev/shm", most),
        "one_file" => fill("/workspace", most),
        "tmp_file" => fill("/tmp", most),
        "many_files" => many_files(most),
        "open_files" => open_files(most),
        "watches" => watches(most),
        "sockets" => sockets(most),
        "connections" => connections(most),
        "arguments" => arguments(most),
        "output" => output(most),
        _ => return ExitCode::FAILURE,
    };
    println!("{kind} reached {reached}: {end}");
    ExitCode::SUCCESS
}

/// Repeats until an error or `most`.
fn count(most: u64, mut step: impl FnMut(u64) -> io::Result<()>) -> (u64, String) {
    for reached in 0..most {
        if let Err(error) = step(reached) {
            return (reached, error.to_string());
        }
    }
    (most, "nothing stopped it".to_owned())
}

fn fork_sleeper(_: u64) -> io::Result<()> {
    // SAFETY: one thread; the child only sleeps.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => loop {
            // SAFETY: only waits.
            unsafe { libc::pause() };
        },
        _ => Ok(()),
    }
}

/// Every process forks as fast as it can, for ever; it ends when it is killed from outside.
fn fork_bomb() -> (u64, String) {
    loop {
        // SAFETY: one thread; parent and child both go on.
        unsafe { libc::fork() };
    }
}

fn thread(_: u64) -> io::Result<()> {
    std::thread::Builder::new()
        .stack_size(16 << 10)
        .spawn(|| {
            loop {
                std::thread::park();
            }
        })
        .map(drop)
}

/// MiB that are really touched.
fn memory(most: u64) -> (u64, String) {
    let mut held = Vec::new();
    count(most, |reached| {
        held.try_reserve(1).map_err(io::Error::other)?;
        let mut piece = Vec::new();
        piece.try_reserve_exact(PIECE_BYTES).map_err(io::Error::other)?;
        piece.resize(PIECE_BYTES, reached as u8 | 1);
        held.push(piece);
        Ok(())
    })
}

/// MiB in one file.
fn fill(directory: &str, most: u64) -> (u64, String) {
    // A file that grows beyond the limit is an error, not a signal.
    // SAFETY: ignores a signal.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let piece = vec![0x5a; PIECE_BYTES];
    let mut file = match fs::File::create(format!("{directory}/hog")) {
        Ok(file) => file,
        Err(error) => return (0, error.to_string()),
    };
    count(most, |_| file.write_all(&piece))
}

/// Files of one block each.
fn many_files(most: u64) -> (u64, String) {
    let content = [0x5a; 4096];
    count(most, |number| {
        let directory = format!("/workspace/hogs/{}", number / 1000);
        if number.is_multiple_of(1000) {
            fs::create_dir_all(&directory)?;
        }
        fs::write(format!("{directory}/{number}"), content)
    })
}

fn open_files(most: u64) -> (u64, String) {
    let mut held = Vec::new();
    count(most, |_| {
        held.push(fs::File::open("/dev/null")?);
        Ok(())
    })
}

fn watches(most: u64) -> (u64, String) {
    let _ = fs::create_dir_all("/workspace/watched");
    // SAFETY: integers only; ends with this process.
    let watcher = unsafe { libc::inotify_init1(libc::IN_CLOEXEC) };
    count(most, |number| {
        let path = format!("/workspace/watched/{number}");
        fs::write(&path, "")?;
        let name = std::ffi::CString::new(path).unwrap_or_default();
        // SAFETY: a NUL-terminated path.
        match unsafe { libc::inotify_add_watch(watcher, name.as_ptr(), libc::IN_ALL_EVENTS) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    })
}

fn sockets(most: u64) -> (u64, String) {
    let mut held = Vec::new();
    count(most, |_| {
        let (one, other) = std::os::unix::net::UnixStream::pair()?;
        one.set_nonblocking(true)?;
        // Memory of the kernel: as much as a socket buffers.
        let mut writer = &one;
        while writer.write(&[0; 65_536]).is_ok() {}
        held.push((one, other));
        Ok(())
    })
}

/// Connections to the loopback ports that lead to the host, held open with a request half made.
fn connections(most: u64) -> (u64, String) {
    let mut held = Vec::new();
    let ports = [7418_u16, 7419, 7420];
    let mut refused = 0;
    let result = count(most, |number| {
        let port = ports[(number % 3) as usize];
        match TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_secs(2)) {
            Ok(mut stream) => {
                let _ = stream.write_all(b"GET http://example.com/ HTTP/1.1\r\n");
                held.push(stream);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                refused += 1;
                Ok(())
            }
            Err(error) => Err(error),
        }
    });
    // Whether anybody is still there.
    for stream in &mut held {
        let _ = stream.set_read_timeout(Some(Duration::from_millis(1)));
        let _ = stream.read(&mut [0; 1]);
    }
    (result.0, format!("{} ({refused} refused)", result.1))
}

/// Starts a program with as many arguments and variables as the kernel takes, `most` MiB of them.
fn arguments(most: u64) -> (u64, String) {
    let long = "x".repeat(100 << 10);
    count(most, |number| {
        let amount = (number as usize + 1) * 10;
        std::process::Command::new("/bin/true")
            .args(std::iter::repeat_n(&long, amount))
            .envs((0..amount).map(|variable| (format!("V{variable}"), &long)))
            .status()
            .map(drop)
    })
}

/// MiB of output.
fn output(most: u64) -> (u64, String) {
    let piece = vec![b'o'; PIECE_BYTES];
    let mut out = io::stdout();
    let result = count(most, |_| out.write_all(&piece));
    let _ = out.write_all(b"\n");
    result
}
