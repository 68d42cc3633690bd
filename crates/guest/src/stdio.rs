//! Links over standard input and output, for runtimes that hand in nothing else: takes the pieces apart into one socket pair
//! per connection, at whose inner end a link is served as anywhere. Knows nothing of frames.

use crate::link::{Guest, serve_link};
use crate::reaper;
use greenroom_protocol::guest::trunk::{
    KILL_PROGRAMS, MAX_PIECE_BYTES, PIECE_HEADER_BYTES, READY, decode_piece, encode_piece,
};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

/// The argument that asks for this.
pub const ARGUMENT: &str = "stdio";

/// The pipes, out of the way of programs that are started later.
pub struct Trunk {
    input: File,
    output: Arc<Mutex<File>>,
}

impl Trunk {
    /// Takes standard input and output away and puts /dev/null in their places.
    pub fn take() -> io::Result<Self> {
        let keep = |fd| rustix::io::fcntl_dupfd_cloexec(fd, 3).map(File::from);
        let (input, output) = (keep(rustix::stdio::stdin())?, keep(rustix::stdio::stdout())?);
        let null = File::options().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        Ok(Self {
            input,
            output: Arc::new(Mutex::new(output)),
        })
    }

    /// Serves connections until the other end is gone, and with it everyone for whom this sandbox could be.
    pub fn serve(mut self, guest: &Arc<Guest>) -> io::Result<()> {
        write(&self.output, &[&READY])?;
        let mut connections: HashMap<u32, UnixStream> = HashMap::new();
        let mut bytes = vec![0; MAX_PIECE_BYTES];
        loop {
            let mut header = [0; PIECE_HEADER_BYTES];
            self.input.read_exact(&mut header)?;
            if header == KILL_PROGRAMS {
                reaper::kill_everyone();
                continue;
            }
            let (number, len) = decode_piece(header).ok_or(io::ErrorKind::InvalidData)?;
            let bytes = &mut bytes[..len];
            self.input.read_exact(bytes)?;
            if len == 0 {
                if let Some(closed) = connections.remove(&number) {
                    let _ = closed.shutdown(Shutdown::Both);
                }
                continue;
            }
            if !connections.contains_key(&number)
                && let Ok(opened) = self.open(guest, number)
            {
                connections.insert(number, opened);
            }
            // A link that ended hears no more; its end is on the way to the other side.
            let _ = connections
                .get_mut(&number)
                .map(|connection| connection.write_all(bytes));
        }
    }

    /// A new connection: its outer end. Without the processes for it, the other side sees it close and tries again.
    fn open(&self, guest: &Arc<Guest>, number: u32) -> io::Result<UnixStream> {
        let opened = (|| {
            let (outer, inner) = UnixStream::pair()?;
            let (guest, reader) = (Arc::clone(guest), outer.try_clone()?);
            start("link", 512 << 10, move || {
                serve_link(&guest, inner, u64::from(number));
            })?;
            let output = Arc::clone(&self.output);
            start("carry", 256 << 10, move || carry(reader, &output, number))?;
            Ok(outer)
        })();
        if opened.is_err() {
            write(&self.output, &[&encode_piece(number, 0)])?;
        }
        opened
    }
}

fn start(name: &str, stack_bytes: usize, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new()
        .name(name.into())
        .stack_size(stack_bytes)
        .spawn(work)
        .map(drop)
}

/// Carries what a link says until its end.
fn carry(mut link: UnixStream, output: &Mutex<File>, number: u32) {
    let mut bytes = vec![0; MAX_PIECE_BYTES];
    loop {
        let len = match link.read(&mut bytes) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => 0,
        };
        let written = write(output, &[&encode_piece(number, len), &bytes[..len]]);
        if len == 0 || written.is_err() {
            // The link may still be busy with what it said last.
            let _ = link.shutdown(Shutdown::Both);
            return;
        }
    }
}

/// Writes a whole piece, so that pieces do not mix.
fn write(output: &Mutex<File>, parts: &[&[u8]]) -> io::Result<()> {
    let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
    parts.iter().try_for_each(|part| output.write_all(part))
}
