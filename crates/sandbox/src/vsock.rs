//! Carries connections of a host to a machine's guest: accepted on the sandbox's own socket, opened through the socket that
//! Firecracker keeps for its machine (`CONNECT PORT`, answered by `OK ...`; Firecracker's docs/vsock.md), and copied both
//! ways. One thread, no unbounded buffer.

use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType};

/// Bytes on their way, each direction of each connection.
const BUFFER_BYTES: usize = 64 * 1024;

/// Hosts connected at once; more are closed. The guest itself keeps only the newest.
const MAX_CONNECTIONS: usize = 8;

/// Longest answer to `CONNECT`, in bytes.
const MAX_ANSWER_BYTES: usize = 64;

/// All connections of one machine.
pub(crate) struct Vsock {
    listener: OwnedFd,
    /// Firecracker's socket, relative to the current directory.
    machine: &'static str,
    port: u32,
    connections: Vec<Connection>,
}

struct Connection {
    host: OwnedFd,
    machine: OwnedFd,
    /// What came of the answer to `CONNECT` so far; `None` once it said yes.
    answer: Option<Vec<u8>>,
    to_machine: Pipe,
    to_host: Pipe,
}

/// One direction.
#[derive(Default)]
struct Pipe {
    bytes: Vec<u8>,
    /// Whether the reading side has ended.
    is_ended: bool,
    /// Whether the end was passed on.
    is_closed: bool,
}

/// The other side is gone, or spoke nonsense.
struct Gone;

impl Vsock {
    /// `listener` listens on the sandbox's socket.
    pub(crate) fn new(listener: OwnedFd, machine: &'static str, port: u32) -> Self {
        Self {
            listener,
            machine,
            port,
            connections: Vec::new(),
        }
    }

    /// Adds what must be waited for to a poll set.
    pub(crate) fn wait_for<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if self.connections.len() < MAX_CONNECTIONS {
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        for connection in &self.connections {
            let (host, machine) = connection.interests();
            for (fd, flags) in [(&connection.host, host), (&connection.machine, machine)] {
                // An end without interest would wake the loop for ever.
                if !flags.is_empty() {
                    fds.push(PollFd::new(fd, flags));
                }
            }
        }
    }

    /// Does everything that is possible without waiting.
    pub(crate) fn serve(&mut self) {
        while self.connections.len() < MAX_CONNECTIONS {
            match rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(host) => {
                    // Nobody listens yet, or no more: the host sees its connection close and tries again.
                    if let Ok(connection) = self.open(host) {
                        self.connections.push(connection);
                    }
                }
                Err(_) => break,
            }
        }
        self.connections
            .retain_mut(|connection| connection.serve().is_ok());
    }

    fn open(&self, host: OwnedFd) -> rustix::io::Result<Connection> {
        let machine = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::net::connect(&machine, &SocketAddrUnix::new(self.machine)?)?;
        rustix::io::ioctl_fionbio(&machine, true)?;
        Ok(Connection {
            host,
            machine,
            answer: Some(Vec::new()),
            to_machine: Pipe {
                bytes: format!("CONNECT {}\n", self.port).into_bytes(),
                ..Pipe::default()
            },
            to_host: Pipe::default(),
        })
    }
}

impl Connection {
    /// What to wait for on the host's and on the machine's side.
    fn interests(&self) -> (PollFlags, PollFlags) {
        let (mut host, mut machine) = (PollFlags::empty(), PollFlags::empty());
        host.set(PollFlags::IN, self.answer.is_none() && self.to_machine.has_room());
        machine.set(PollFlags::OUT, !self.to_machine.bytes.is_empty());
        machine.set(PollFlags::IN, self.to_host.has_room());
        host.set(PollFlags::OUT, !self.to_host.bytes.is_empty());
        (host, machine)
    }

    fn serve(&mut self) -> Result<(), Gone> {
        self.to_machine.write(self.machine.as_fd())?;
        if self.answer.is_some() {
            self.to_host.read(self.machine.as_fd())?;
            self.hear_answer()?;
        }
        if self.answer.is_none() {
            self.to_machine.read(self.host.as_fd())?;
            self.to_machine.write(self.machine.as_fd())?;
            self.to_host.read(self.machine.as_fd())?;
            self.to_host.write(self.host.as_fd())?;
        }
        match self.to_machine.is_closed && self.to_host.is_closed {
            true => Err(Gone),
            false => Ok(()),
        }
    }

    /// Takes the line `OK ...` off the machine's side.
    fn hear_answer(&mut self) -> Result<(), Gone> {
        let Some(answer) = &mut self.answer else {
            return Ok(());
        };
        match self.to_host.bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                answer.extend(self.to_host.bytes.drain(..=end));
                let is_yes = answer.starts_with(b"OK ");
                self.answer = None;
                if is_yes { Ok(()) } else { Err(Gone) }
            }
            None if self.to_host.bytes.len() > MAX_ANSWER_BYTES || self.to_host.is_ended => Err(Gone),
            None => Ok(()),
        }
    }
}

impl Pipe {
    fn has_room(&self) -> bool {
        !self.is_ended && self.bytes.len() < BUFFER_BYTES
    }

    fn read(&mut self, from: BorrowedFd<'_>) -> Result<(), Gone> {
        while self.has_room() {
            let mut buffer = [0; 16 * 1024];
            let room = buffer.len().min(BUFFER_BYTES - self.bytes.len());
            match rustix::io::read(from, &mut buffer[..room]) {
                Ok(0) => self.is_ended = true,
                Ok(len) => self.bytes.extend_from_slice(&buffer[..len]),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }

    fn write(&mut self, to: BorrowedFd<'_>) -> Result<(), Gone> {
        while !self.bytes.is_empty() {
            match rustix::net::send(to, &self.bytes, rustix::net::SendFlags::NOSIGNAL) {
                Ok(len) => drop(self.bytes.drain(..len)),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Gone),
            }
        }
        if self.is_ended && !self.is_closed {
            self.is_closed = true;
            // The other side may be gone altogether, which the next read tells.
            let _ = rustix::net::shutdown(to, Shutdown::Write);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::os::unix::net::{UnixListener, UnixStream};

    /// Drives the loop until `is_done`.
    fn drive(vsock: &mut Vsock, mut is_done: impl FnMut() -> bool) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !is_done() {
            assert!(std::time::Instant::now() < deadline, "never done");
            let mut fds = Vec::new();
            vsock.wait_for(&mut fds);
            let pause = rustix::event::Timespec {
                tv_sec: 0,
                tv_nsec: 5_000_000,
            };
            let _ = rustix::event::poll(&mut fds, Some(&pause));
            drop(fds);
            vsock.serve();
        }
    }

    /// A listener for hosts, the carrier, and a machine that answers `answer` and then echoes until the end.
    fn carrier(answer: &'static str) -> (tempfile::TempDir, std::path::PathBuf, Vsock) {
        let temp = tempfile::tempdir().unwrap();
        let machine = temp.path().join("vsock.sock");
        let listener = UnixListener::bind(&machine).unwrap();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let socket = socket.unwrap();
                let mut reader = BufReader::new(socket.try_clone().unwrap());
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                assert_eq!(line, "CONNECT 1024\n");
                let mut writer = socket;
                writer.write_all(answer.as_bytes()).unwrap();
                std::thread::spawn(move || {
                    let mut all = Vec::new();
                    let _ = reader.read_to_end(&mut all);
                    let _ = writer.write_all(&all);
                });
            }
        });
        let outside = temp.path().join("guest.sock");
        let hosts = UnixListener::bind(&outside).unwrap();
        hosts.set_nonblocking(true).unwrap();
        let machine: &'static str = Box::leak(machine.display().to_string().into_boxed_str());
        (temp, outside, Vsock::new(hosts.into(), machine, 1024))
    }

    #[test]
    fn bytes_and_ends_pass_both_ways() {
        let (_temp, outside, mut vsock) = carrier("OK 1073741824\n");
        let clients: Vec<_> = (0_u8..3)
            .map(|number| {
                let outside = outside.clone();
                std::thread::spawn(move || {
                    let mut socket = UnixStream::connect(outside).unwrap();
                    let sent = vec![number; 300_000];
                    socket.write_all(&sent).unwrap();
                    socket.shutdown(std::net::Shutdown::Write).unwrap();
                    let mut received = Vec::new();
                    socket.read_to_end(&mut received).unwrap();
                    assert_eq!(received, sent);
                })
            })
            .collect();
        drive(&mut vsock, || {
            clients.iter().all(std::thread::JoinHandle::is_finished)
        });
        for client in clients {
            client.join().unwrap();
        }
        drive(&mut vsock, || true);
        assert!(vsock.connections.is_empty());
    }

    #[test]
    fn a_machine_that_refuses_or_talks_nonsense_closes_the_connection() {
        for answer in ["NO\n", &"x".repeat(200)] {
            let answer: &'static str = Box::leak(answer.to_owned().into_boxed_str());
            let (_temp, outside, mut vsock) = carrier(answer);
            let client = std::thread::spawn(move || {
                let mut socket = UnixStream::connect(outside).unwrap();
                socket
                    .set_read_timeout(Some(std::time::Duration::from_secs(10)))
                    .unwrap();
                let mut received = Vec::new();
                socket.read_to_end(&mut received).map(|_| received)
            });
            drive(&mut vsock, || client.is_finished());
            assert_eq!(client.join().unwrap().unwrap(), b"");
            assert!(vsock.connections.is_empty());
        }
    }
}
