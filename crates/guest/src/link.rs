//! The link to the host: accepts one at a time (the newest wins), reads frames and hands them to streams, writes frames of
//! all streams. A host that breaks the protocol loses the link; processes in the background do not notice.

use crate::stream::Stream;
use greenroom_protocol::guest::call::{Call, CallErrorCode, Reply};
use greenroom_protocol::guest::frame::{FrameKind, HEADER_BYTES, Header, decode_header, encode_header};
use greenroom_protocol::guest::{Hello, OpenRoute, Route};
use greenroom_protocol::{GUEST_GENERATION, OLDEST_GUEST_GENERATION};
use serde::Serialize;
use std::collections::HashMap;
use std::io::{self, BufReader, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Streams that may be open at once on a link; each has a thread.
const MAX_STREAMS: usize = 256;

/// The guest as a whole: at most one link.
#[derive(Default)]
pub struct Guest {
    current: Mutex<Option<Arc<Link>>>,
}

impl Guest {
    fn replace(&self, link: Option<Arc<Link>>) {
        let old = std::mem::replace(&mut *self.lock(), link);
        if let Some(old) = old {
            old.end();
        }
    }

    /// Forgets `link` if it is still the current one.
    fn forget(&self, link: &Arc<Link>) {
        let mut current = self.lock();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
            *current = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Link>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a stream for a loopback connection; `None` without a host.
    pub fn open_route(&self, route: Route) -> Option<Arc<Stream>> {
        let link = self.lock().clone()?;
        let id = link.next_route_id.fetch_add(2, Ordering::Relaxed);
        let stream = link.open_stream(id)?;
        link.send_json(FrameKind::Open, id, &OpenRoute { route });
        Some(stream)
    }
}

/// Accepts links for ever.
pub fn serve(guest: &Arc<Guest>, listener: &UnixListener) -> io::Result<()> {
    loop {
        let (socket, _) = listener.accept()?;
        let link = Arc::new(Link {
            socket: socket.try_clone()?,
            writing: Mutex::new(()),
            streams: Mutex::default(),
            next_route_id: AtomicU32::new(2),
        });
        guest.replace(Some(Arc::clone(&link)));
        let guest = Arc::clone(guest);
        let served = std::thread::Builder::new()
            .name("link".into())
            .stack_size(512 << 10)
            .spawn(move || {
                // Whatever went wrong, the answer is the same: this link is over.
                let _ = read_frames(&link, BufReader::with_capacity(64 << 10, socket));
                guest.forget(&link);
                link.end();
            });
        // Out of processes for a moment: the host sees the link close and tries again.
        drop(served);
    }
}

fn read_frames(link: &Arc<Link>, mut socket: BufReader<UnixStream>) -> io::Result<()> {
    link.send_json(
        FrameKind::Hello,
        0,
        &Hello {
            generation: GUEST_GENERATION,
        },
    );
    let (header, payload) = read_frame(&mut socket)?;
    let hello: Hello = serde_json::from_slice(&payload)?;
    if header.kind != FrameKind::Hello || hello.generation < OLDEST_GUEST_GENERATION {
        return Err(violation());
    }
    loop {
        let (header, payload) = read_frame(&mut socket)?;
        dispatch(link, header, payload)?;
    }
}

fn read_frame(socket: &mut impl Read) -> io::Result<(Header, Vec<u8>)> {
    let mut bytes = [0; HEADER_BYTES];
    socket.read_exact(&mut bytes)?;
    let header = decode_header(bytes).map_err(|_| violation())?;
    let mut payload = vec![0; header.payload_len];
    socket.read_exact(&mut payload)?;
    Ok((header, payload))
}

fn dispatch(link: &Arc<Link>, header: Header, payload: Vec<u8>) -> io::Result<()> {
    if header.kind == FrameKind::Call {
        return start_call(link, header.stream, &payload);
    }
    // Frames for a stream that just ended cross its last frame on the way; they mean nothing any more.
    let Some(stream) = link.streams().get(&header.stream).cloned() else {
        return Ok(());
    };
    match header.kind {
        FrameKind::Input => stream.push_input(payload).map_err(|_| violation())?,
        FrameKind::End => stream.end_input(),
        FrameKind::Cancel => stream.cancel(),
        FrameKind::Credit => {
            let bytes = payload.try_into().map_err(|_| violation())?;
            stream.add_credit(u32::from_be_bytes(bytes));
        }
        FrameKind::Reset => stream.forget(),
        FrameKind::Hello
        | FrameKind::Call
        | FrameKind::Reply
        | FrameKind::Output
        | FrameKind::ErrorOutput
        | FrameKind::Open => return Err(violation()),
    }
    Ok(())
}

fn start_call(link: &Arc<Link>, id: u32, payload: &[u8]) -> io::Result<()> {
    if id.is_multiple_of(2) || link.streams().contains_key(&id) {
        return Err(violation());
    }
    let refuse = |code, message: &str| {
        link.send_json(
            FrameKind::Reply,
            id,
            &Reply::Failed(crate::failure::failed(code, message)),
        );
        Ok(())
    };
    let call: Call = match serde_json::from_slice(payload) {
        Ok(call) => call,
        Err(error) => {
            return refuse(
                CallErrorCode::Invalid,
                &format!("call is not understood: {error}"),
            );
        }
    };
    let Some(stream) = link.open_stream(id) else {
        return refuse(CallErrorCode::Os, "too many calls at once");
    };
    let serving = Arc::clone(&stream);
    let started = std::thread::Builder::new()
        .name("call".into())
        .stack_size(1 << 20)
        .spawn(move || {
            crate::call::serve(&serving, call);
            serving.close();
        });
    if started.is_err() {
        stream.close();
        return refuse(
            CallErrorCode::Os,
            "the sandbox has no processes left for another call",
        );
    }
    Ok(())
}

fn violation() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}

/// One connection to a host.
pub struct Link {
    socket: UnixStream,
    /// Held while a frame is written, so that frames do not mix.
    writing: Mutex<()>,
    streams: Mutex<HashMap<u32, Arc<Stream>>>,
    next_route_id: AtomicU32,
}

impl Link {
    fn streams(&self) -> MutexGuard<'_, HashMap<u32, Arc<Stream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_stream(self: &Arc<Self>, id: u32) -> Option<Arc<Stream>> {
        let stream = Arc::new(Stream::new(id, Arc::clone(self)).ok()?);
        let mut streams = self.streams();
        if streams.len() >= MAX_STREAMS {
            return None;
        }
        streams.insert(id, Arc::clone(&stream));
        Some(stream)
    }

    pub fn close_stream(&self, id: u32) {
        self.streams().remove(&id);
    }

    /// Writes one frame. A failure shows in the reader, which ends the link.
    pub fn send(&self, kind: FrameKind, stream: u32, payload: &[u8]) {
        let header = encode_header(kind, stream, payload.len());
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if write_both(&self.socket, &header, payload).is_err() {
            let _ = self.socket.shutdown(Shutdown::Both);
        }
        drop(writing);
    }

    pub fn send_json(&self, kind: FrameKind, stream: u32, value: &impl Serialize) {
        // Protocol types are plain data, which always encodes.
        self.send(kind, stream, &serde_json::to_vec(value).unwrap_or_default());
    }

    /// Ends the link and tells everyone who serves it.
    fn end(&self) {
        // Also frees a writer that hangs because the host does not read.
        let _ = self.socket.shutdown(Shutdown::Both);
        let streams: Vec<_> = self.streams().drain().map(|(_, stream)| stream).collect();
        for stream in streams {
            stream.forget();
        }
    }
}

fn write_both(mut socket: &UnixStream, header: &[u8], payload: &[u8]) -> io::Result<()> {
    let written = socket.write_vectored(&[IoSlice::new(header), IoSlice::new(payload)])?;
    if written < header.len() {
        socket.write_all(&header[written..])?;
        socket.write_all(payload)
    } else {
        socket.write_all(&payload[written - header.len()..])
    }
}
