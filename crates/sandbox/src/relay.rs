//! Carries connections of hosts to a guest that has only pipes: accepted on the sandbox's own socket, numbered, and sent in
//! pieces (`greenroom_protocol::guest::trunk`) through the one pair. One thread, no unbounded buffer. A host that does not
//! read holds nobody up but itself once a newer one is there.

use crate::guard::Gone;
use greenroom_protocol::guest::trunk::{
    KILL_PROGRAMS, MAX_PIECE_BYTES, PIECE_HEADER_BYTES, READY, decode_piece, encode_piece,
};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::io::Errno;
use rustix::net::{SendFlags, SocketFlags};

/// Bytes on their way that make the relay stop reading from the other side.
const BUFFER_BYTES: usize = 256 * 1024;

/// Hosts connected at once; more wait. The guest itself keeps only the newest.
const MAX_CONNECTIONS: usize = 8;

/// All connections of one guest.
pub(crate) struct Relay {
    listener: OwnedFd,
    to_guest: OwnedFd,
    from_guest: OwnedFd,
    last_number: u32,
    /// By number.
    connections: Vec<Connection>,
    /// Pieces for the guest.
    outgoing: Vec<u8>,
    /// From the guest, not yet whole pieces.
    incoming: Vec<u8>,
    is_ready: bool,
}

struct Connection {
    number: u32,
    host: OwnedFd,
    to_host: Vec<u8>,
    /// The guest closed it; what is left is written out.
    is_ending: bool,
    is_over: bool,
}

impl Relay {
    /// `listener` listens on the sandbox's socket; the pipes lead to the guest. None of them may block.
    pub(crate) fn new(listener: OwnedFd, to_guest: OwnedFd, from_guest: OwnedFd) -> Self {
        Self {
            listener,
            to_guest,
            from_guest,
            last_number: 0,
            connections: Vec::new(),
            outgoing: Vec::new(),
            incoming: Vec::new(),
            is_ready: false,
        }
    }

    /// Whether the guest serves.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Asks the guest to kill all programs; on its way with the next [`Relay::serve`].
    pub(crate) fn ask_to_kill_programs(&mut self) {
        // One that waits already is enough, and a guest that reads nothing must not fill this up.
        if self.outgoing.len() < BUFFER_BYTES {
            self.outgoing.extend_from_slice(&KILL_PROGRAMS);
        }
    }

    /// Adds what must be waited for to a poll set.
    pub(crate) fn wait_for<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if self.is_ready && self.connections.len() < MAX_CONNECTIONS {
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        if self.can_hear() {
            fds.push(PollFd::new(&self.from_guest, PollFlags::IN));
        }
        if !self.outgoing.is_empty() {
            fds.push(PollFd::new(&self.to_guest, PollFlags::OUT));
        }
        for connection in &self.connections {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, self.outgoing.len() < BUFFER_BYTES);
            flags.set(PollFlags::OUT, !connection.to_host.is_empty());
            // An end without interest would wake the loop for ever.
            if !flags.is_empty() {
                fds.push(PollFd::new(&connection.host, flags));
            }
        }
    }

    /// Does everything that is possible without waiting.
    pub(crate) fn serve(&mut self) -> Result<(), Gone> {
        while self.is_ready && self.connections.len() < MAX_CONNECTIONS {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let Ok(host) = rustix::net::accept_with(&self.listener, flags) else {
                break;
            };
            self.last_number += 1;
            self.connections.push(Connection {
                number: self.last_number,
                host,
                to_host: Vec::new(),
                is_ending: false,
                is_over: false,
            });
        }
        self.hear_guest()?;
        for connection in &mut self.connections {
            connection.hear(&mut self.outgoing);
            connection.write();
        }
        for over in self.connections.extract_if(.., |connection| connection.is_over) {
            // Also one that the guest closed itself: it takes no notice.
            self.outgoing.extend_from_slice(&encode_piece(over.number, 0));
        }
        self.write_guest()
    }

    /// The newest host sets the pace; a guest without hosts may say what it likes.
    fn can_hear(&self) -> bool {
        self.connections
            .last()
            .is_none_or(|newest| newest.to_host.len() < BUFFER_BYTES)
    }

    fn hear_guest(&mut self) -> Result<(), Gone> {
        let mut buffer = [0; 32 * 1024];
        while self.can_hear() {
            match rustix::io::read(&self.from_guest, &mut buffer) {
                Ok(0) => return Err(Gone::Closed),
                Ok(len) => self.incoming.extend_from_slice(&buffer[..len]),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(_) => return Err(Gone::Closed),
            }
            self.sort_pieces()?;
            for connection in &mut self.connections {
                connection.write();
            }
        }
        Ok(())
    }

    /// Hands every whole piece to its connection.
    fn sort_pieces(&mut self) -> Result<(), Gone> {
        let mut at = 0;
        while let Some(header) = self.incoming[at..].first_chunk::<PIECE_HEADER_BYTES>() {
            let (number, len) = decode_piece(*header).ok_or(Gone::Nonsense)?;
            let begin = at + PIECE_HEADER_BYTES;
            if !self.is_ready {
                if *header != READY {
                    return Err(Gone::Nonsense);
                }
                self.is_ready = true;
            }
            let Some(bytes) = self.incoming.get(begin..begin + len) else {
                break;
            };
            at = begin + len;
            let newest = self.last_number;
            let Some(connection) = self.connections.iter_mut().find(|known| known.number == number) else {
                continue;
            };
            if bytes.is_empty() {
                connection.is_ending = true;
            } else if number != newest && connection.to_host.len() >= BUFFER_BYTES {
                connection.is_over = true;
            } else {
                connection.to_host.extend_from_slice(bytes);
            }
        }
        self.incoming.drain(..at);
        Ok(())
    }

    fn write_guest(&mut self) -> Result<(), Gone> {
        while !self.outgoing.is_empty() {
            match rustix::io::write(&self.to_guest, &self.outgoing) {
                Ok(len) => drop(self.outgoing.drain(..len)),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => return Err(Gone::Closed),
            }
        }
        Ok(())
    }
}

impl Connection {
    /// Puts what the host says into pieces.
    fn hear(&mut self, outgoing: &mut Vec<u8>) {
        let mut buffer = [0; MAX_PIECE_BYTES];
        while !self.is_over && outgoing.len() < BUFFER_BYTES {
            match rustix::io::read(&self.host, &mut buffer) {
                Ok(len @ 1..) => {
                    outgoing.extend_from_slice(&encode_piece(self.number, len));
                    outgoing.extend_from_slice(&buffer[..len]);
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Ok(0) | Err(_) => self.is_over = true,
            }
        }
    }

    fn write(&mut self) {
        while !self.is_over && !self.to_host.is_empty() {
            match rustix::net::send(self.host.as_fd(), &self.to_host, SendFlags::NOSIGNAL) {
                Ok(len) => drop(self.to_host.drain(..len)),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_) => self.is_over = true,
            }
        }
        self.is_over |= self.is_ending;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    struct Setup {
        /// The guest's ends.
        input: std::io::PipeReader,
        output: std::io::PipeWriter,
        path: std::path::PathBuf,
        is_done: Arc<AtomicBool>,
        relay: std::thread::JoinHandle<Result<(), Gone>>,
        _temp: tempfile::TempDir,
    }

    /// A relay on a thread of its own until it is done or the guest is gone.
    fn relay() -> Setup {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("guest.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (input, to_guest) = std::io::pipe().unwrap();
        let (from_guest, output) = std::io::pipe().unwrap();
        let fds: [OwnedFd; 3] = [listener.into(), to_guest.into(), from_guest.into()];
        for fd in &fds {
            rustix::io::ioctl_fionbio(fd, true).unwrap();
        }
        let [listener, to_guest, from_guest] = fds;
        let is_done = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&is_done);
        let relay = std::thread::spawn(move || {
            let mut relay = Relay::new(listener, to_guest, from_guest);
            let deadline = Instant::now() + Duration::from_secs(30);
            while !done.load(Ordering::Relaxed) {
                assert!(Instant::now() < deadline, "never done");
                let mut fds = Vec::new();
                relay.wait_for(&mut fds);
                let pause = rustix::event::Timespec {
                    tv_sec: 0,
                    tv_nsec: 5_000_000,
                };
                let _ = rustix::event::poll(&mut fds, Some(&pause));
                drop(fds);
                relay.serve()?;
            }
            Ok(())
        });
        Setup {
            input,
            output,
            path,
            is_done,
            relay,
            _temp: temp,
        }
    }

    fn piece(number: u32, bytes: &[u8]) -> Vec<u8> {
        [encode_piece(number, bytes.len()).as_slice(), bytes].concat()
    }

    fn read_piece(input: &mut impl std::io::Read) -> (u32, Vec<u8>) {
        let mut header = [0; PIECE_HEADER_BYTES];
        input.read_exact(&mut header).unwrap();
        let (number, len) = decode_piece(header).unwrap();
        let mut bytes = vec![0; len];
        input.read_exact(&mut bytes).unwrap();
        (number, bytes)
    }

    #[test]
    fn hosts_are_numbered_and_told_apart() {
        let mut setup = relay();
        setup.output.write_all(&READY).unwrap();
        let mut one = UnixStream::connect(&setup.path).unwrap();
        one.write_all(b"from one").unwrap();
        assert_eq!(read_piece(&mut setup.input), (1, b"from one".to_vec()));
        let mut two = UnixStream::connect(&setup.path).unwrap();
        two.write_all(b"from two").unwrap();
        assert_eq!(read_piece(&mut setup.input), (2, b"from two".to_vec()));
        let answers = [
            piece(2, b"to two"),
            piece(9, b"to nobody"),
            piece(1, b"to one"),
            piece(1, b""),
        ]
        .concat();
        // Cut anywhere.
        for part in answers.chunks(5) {
            setup.output.write_all(part).unwrap();
        }
        let mut all = Vec::new();
        one.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"to one");
        assert_eq!(read_piece(&mut setup.input), (1, Vec::new()));
        let mut six = [0; 6];
        two.read_exact(&mut six).unwrap();
        assert_eq!(&six, b"to two");
        drop(two);
        assert_eq!(read_piece(&mut setup.input), (2, Vec::new()));
        setup.is_done.store(true, Ordering::Relaxed);
        setup.relay.join().unwrap().unwrap();
    }

    #[test]
    fn a_host_that_does_not_read_does_not_hold_up_a_newer_one() {
        let mut setup = relay();
        setup.output.write_all(&READY).unwrap();
        let mut idle = UnixStream::connect(&setup.path).unwrap();
        idle.write_all(b"x").unwrap();
        assert_eq!(read_piece(&mut setup.input).0, 1);
        let mut output = setup.output.try_clone().unwrap();
        let flood = std::thread::spawn(move || {
            // More than all buffers between hold.
            for _ in 0..64 {
                output.write_all(&piece(1, &vec![0; MAX_PIECE_BYTES])).unwrap();
            }
            output.write_all(&piece(2, b"hello")).unwrap();
        });
        let mut newer = UnixStream::connect(&setup.path).unwrap();
        newer.write_all(b"y").unwrap();
        let mut hello = [0; 5];
        newer.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello");
        flood.join().unwrap();
        setup.is_done.store(true, Ordering::Relaxed);
        setup.relay.join().unwrap().unwrap();
        drop(idle);
    }

    #[test]
    fn a_guest_that_talks_nonsense_is_given_up() {
        for nonsense in [
            vec![0xff; 8],
            piece(1, b"before it is ready"),
            [READY.as_slice(), &encode_piece(1, MAX_PIECE_BYTES + 1)].concat(),
        ] {
            let mut setup = relay();
            setup.output.write_all(&nonsense).unwrap();
            assert_eq!(setup.relay.join().unwrap(), Err(Gone::Nonsense), "{nonsense:?}");
        }
        let setup = relay();
        drop(setup.output);
        assert_eq!(setup.relay.join().unwrap(), Err(Gone::Closed));
    }
}
