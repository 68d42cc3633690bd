//! Loopback ports of the sandbox that lead to the host. Without a host, and beyond the limit, a connection is refused at
//! once: programs wait long for an answer that does not come.

use crate::link::Guest;
use crate::stream::{Input, Stream};
use crate::wake;
use greenroom_protocol::guest::Route;
use greenroom_protocol::guest::frame::FrameKind;
use rustix::event::PollFlags;
use rustix::io::Errno;
use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Connections served at once on each port: none takes the place of another's.
const MAX_CONNECTIONS: usize = 64;

/// Between two tries to accept when the sandbox has no descriptors or memory for a moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One port and what it leads to.
struct Door {
    route: Route,
    listener: TcpListener,
    /// Held once more by each connection that is open.
    open: Arc<()>,
}

/// Starts listening.
pub fn start(guest: &Arc<Guest>) -> io::Result<()> {
    let doors = Route::PORTS
        .into_iter()
        .map(|(route, port)| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
            listener.set_nonblocking(true)?;
            Ok(Door {
                route,
                listener,
                open: Arc::new(()),
            })
        })
        .collect::<io::Result<Vec<_>>>()?;
    let guest = Arc::clone(guest);
    std::thread::Builder::new()
        .name("routes".into())
        .stack_size(256 << 10)
        .spawn(move || {
            loop {
                let mut fds: Vec<_> = doors
                    .iter()
                    .map(|door| wake::on(&door.listener, PollFlags::IN))
                    .collect();
                wake::wait(&mut fds, None);
                for door in &doors {
                    door.accept(&guest);
                }
            }
        })?;
    Ok(())
}

impl Door {
    /// Serves or refuses one connection, if one waits.
    fn accept(&self, guest: &Guest) {
        let socket = match self.listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => {
                std::thread::sleep(ACCEPT_PAUSE);
                return;
            }
        };
        let stream = match Arc::strong_count(&self.open) <= MAX_CONNECTIONS {
            true => guest.open_route(self.route),
            false => None,
        };
        let Some(stream) = stream else {
            refuse(&socket);
            return;
        };
        let (ticket, carried) = (Arc::clone(&self.open), Arc::clone(&stream));
        let started = std::thread::Builder::new()
            .name("route".into())
            .stack_size(256 << 10)
            .spawn(move || {
                carry(&carried, &socket);
                carried.close();
                drop(ticket);
            });
        if started.is_err() {
            stream.send_reset();
            stream.close();
        }
    }
}

/// Resets the connection instead of closing it.
fn refuse(socket: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// Copies both ways until both have ended or one side is gone.
pub fn carry(stream: &Stream, socket: &TcpStream) {
    if socket.set_nonblocking(true).is_err() {
        stream.send_reset();
        return;
    }
    let mut buffer = vec![0; 64 << 10];
    let mut pending = Vec::new();
    let (mut is_read_open, mut is_write_open) = (true, true);
    let mut is_write_broken = false;
    while is_read_open || (is_write_open && !is_write_broken) {
        stream.wake.clear();
        if stream.is_gone() {
            refuse(socket);
            return;
        }
        if is_write_broken && !pending.is_empty() {
            stream.grant(std::mem::take(&mut pending).len());
        }
        if pending.is_empty() && is_write_open {
            match stream.next_input() {
                Input::Bytes(bytes) => {
                    pending = bytes;
                    if is_write_broken {
                        continue;
                    }
                }
                Input::Ended => {
                    is_write_open = false;
                    let _ = socket.shutdown(Shutdown::Write);
                    continue;
                }
                Input::Pending => {}
            }
        }
        let room = stream.credit();
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, is_read_open && room > 0);
        flags.set(PollFlags::OUT, !pending.is_empty());
        let mut fds = vec![wake::on(&stream.wake, PollFlags::IN)];
        if !flags.is_empty() {
            fds.push(wake::on(socket, flags));
        }
        wake::wait(&mut fds, None);
        if is_read_open && room > 0 {
            match rustix::io::read(socket, &mut buffer[..room]) {
                Ok(0) => {
                    is_read_open = false;
                    stream.send_end();
                }
                Ok(len) => stream.send_data(FrameKind::Output, &buffer[..len]),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => {
                    stream.send_reset();
                    return;
                }
            }
        }
        if !pending.is_empty() {
            match rustix::io::write(socket, &pending) {
                Ok(len) => {
                    pending.drain(..len);
                    stream.grant(len);
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => {
                    // It reads no more, but may have answered before it stopped; that comes through, then the reset.
                    is_write_broken = true;
                }
            }
        }
    }
    if is_write_open {
        stream.send_reset();
    }
}
