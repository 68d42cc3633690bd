//! The link to the host: accepts one at a time (the newest wins), reads frames and hands them to streams, writes frames of
//! all streams. A host that breaks the protocol loses the link; processes in the background do not notice.

use crate::failure::failed;
use crate::stream::Stream;
use greenroom_protocol::GUEST_GENERATION;
use greenroom_protocol::guest::call::{Call, CallError, CallErrorCode, Reply};
use greenroom_protocol::guest::frame::{
    FrameKind, HEADER_BYTES, Header, MAX_PAYLOAD_BYTES, decode_header, encode_header,
};
use greenroom_protocol::guest::{Hello, OpenRoute, Route};
use rustix::fd::OwnedFd;
use rustix::net::SocketFlags;
use serde::Serialize;
use std::collections::HashMap;
use std::io::{self, BufReader, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Streams that may be open at once on a link; each has a thread. Routes (64 for each port) and forwards (192) leave a
/// hundred for calls.
const MAX_STREAMS: usize = 512;

/// How long a host may take for its first frame.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Does what a call asks and replies on its stream; runs on a thread of its own, or on the link's for a quick one.
pub type Answer = fn(&Arc<Stream>, Call);

/// The guest as a whole: at most one link.
pub struct Guest {
    current: Mutex<Current>,
    answer: Answer,
}

#[derive(Default)]
struct Current {
    link: Option<Arc<Link>>,
    /// The number of the newest link that there ever was. It stays when that link goes: an older one whose host says hello
    /// only then would otherwise live on, although it was taken over.
    newest: Option<u64>,
}

impl Guest {
    /// Without a link yet.
    pub fn new(answer: Answer) -> Self {
        Self {
            current: Mutex::default(),
            answer,
        }
    }

    /// Makes `link` the one; `false` if there was a newer one already.
    fn replace(&self, link: &Arc<Link>) -> bool {
        let mut current = self.lock();
        if current.newest.is_some_and(|newest| newest > link.number) {
            return false;
        }
        current.newest = Some(link.number);
        let old = current.link.replace(Arc::clone(link));
        drop(current);
        if let Some(old) = old {
            old.end();
        }
        true
    }

    /// Forgets `link` if it is still the current one.
    fn forget(&self, link: &Arc<Link>) {
        let mut current = self.lock();
        if current
            .link
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, link))
        {
            current.link = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a stream for a loopback connection; `None` without a host that knows the route.
    pub fn open_route(&self, route: Route) -> Option<Arc<Stream>> {
        let link = self.lock().link.clone()?;
        if route.since_generation() > link.generation() {
            return None;
        }
        let id = link.next_route_id.fetch_add(2, Ordering::Relaxed);
        let stream = link.open_stream(id)?;
        link.send_json(FrameKind::Open, id, &OpenRoute { route });
        Some(stream)
    }
}

/// Between two tries to accept when the sandbox has no descriptors or memory for a moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts links for ever, on a stream socket of any family.
pub fn serve(guest: &Arc<Guest>, listener: &OwnedFd) {
    for number in 0.. {
        let Ok(socket) = rustix::net::accept_with(listener, SocketFlags::CLOEXEC).map(UnixStream::from)
        else {
            // Ending would end the sandbox.
            std::thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        let guest = Arc::clone(guest);
        let served = std::thread::Builder::new()
            .name("link".into())
            .stack_size(512 << 10)
            .spawn(move || serve_link(&guest, socket, number));
        // Out of processes for a moment: the host sees the link close and tries again.
        drop(served);
    }
}

/// Serves one link to its end. It replaces one of a lower number once its host has said hello, and is not served once one of
/// a higher number was.
pub fn serve_link(guest: &Arc<Guest>, socket: UnixStream, number: u64) {
    // Whatever goes wrong, the answer is the same: this link is over.
    let Ok((reader, hello, generation)) = greet(socket) else {
        return;
    };
    let Ok(socket) = reader.get_ref().try_clone() else {
        return;
    };
    let link = Arc::new(Link {
        number,
        socket,
        hello,
        generation,
        answer: guest.answer,
        writing: Mutex::new(()),
        streams: Mutex::default(),
        next_route_id: AtomicU32::new(2),
    });
    if guest.replace(&link) {
        let _ = read_frames(&link, reader);
        guest.forget(&link);
    }
    link.end();
}

/// Says hello and hears the host's; returns it and the generation that both speak.
fn greet(socket: UnixStream) -> io::Result<(BufReader<UnixStream>, Hello, u32)> {
    let hello = serde_json::to_vec(&Hello::OURS)?;
    write_both(&socket, &encode_header(FrameKind::Hello, 0, hello.len()), &hello)?;
    socket.set_read_timeout(Some(HELLO_TIMEOUT))?;
    let mut reader = BufReader::with_capacity(64 << 10, socket);
    let (header, payload) = read_frame(&mut reader)?;
    if header.kind != FrameKind::Hello {
        return Err(violation());
    }
    let hello: Hello = serde_json::from_slice(&payload)?;
    let generation = hello.spoken_generation().ok_or_else(violation)?;
    reader.get_ref().set_read_timeout(None)?;
    Ok((reader, hello, generation))
}

fn read_frames(link: &Arc<Link>, mut socket: BufReader<UnixStream>) -> io::Result<()> {
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
    let refuse = |error| {
        link.reply(id, &Reply::Failed(error));
        Ok(())
    };
    let call: Call = match serde_json::from_slice(payload) {
        Ok(call) => call,
        Err(error) => return refuse(misunderstood(link, &error)),
    };
    let Some(stream) = link.open_stream(id) else {
        return refuse(failed(CallErrorCode::Os, "too many calls at once"));
    };
    // Also what a sandbox without a process to spare must still do: look at its processes and end them.
    if crate::call::is_quick(&call) {
        (link.answer)(&stream, call);
        stream.close();
        return Ok(());
    }
    let started = serve_call(link, &stream, call).or_else(|_| {
        crate::room::make();
        // It was understood before.
        serve_call(link, &stream, serde_json::from_slice(payload)?)
    });
    if started.is_err() {
        stream.close();
        return refuse(failed(
            CallErrorCode::TooManyProcesses,
            "the sandbox has no processes left for another call",
        ));
    }
    Ok(())
}

/// Answers a call on a thread of its own.
fn serve_call(link: &Link, stream: &Arc<Stream>, call: Call) -> io::Result<()> {
    let (serving, answer) = (Arc::clone(stream), link.answer);
    std::thread::Builder::new()
        .name("call".into())
        .stack_size(1 << 20)
        .spawn(move || {
            answer(&serving, call);
            serving.close();
        })
        .map(drop)
}

/// A newer host may say what this guest does not know yet; any other is wrong.
fn misunderstood(link: &Link, error: &serde_json::Error) -> CallError {
    match link.hello.generation > GUEST_GENERATION {
        true => failed(
            CallErrorCode::Unsupported,
            "the call is of a newer generation than this guest",
        ),
        false => failed(CallErrorCode::Invalid, format!("call is not understood: {error}")),
    }
}

fn violation() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}

/// One connection to a host.
pub struct Link {
    /// In the order in which hosts came.
    number: u64,
    socket: UnixStream,
    /// What the host said first.
    hello: Hello,
    /// What is spoken: the older of both sides' generations.
    generation: u32,
    answer: Answer,
    /// Held while a frame is written, so that frames do not mix.
    writing: Mutex<()>,
    streams: Mutex<HashMap<u32, Arc<Stream>>>,
    next_route_id: AtomicU32,
}

impl Link {
    /// What is spoken: the older of both sides' generations.
    pub fn generation(&self) -> u32 {
        self.generation
    }

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

    /// Sends the reply to a call, in words that the host's generation knows.
    pub fn reply(&self, stream: u32, reply: &Reply) {
        let older = match reply {
            Reply::Failed(error) => Some(Reply::Failed(CallError {
                code: error.code.for_generation(self.generation),
                message: error.message.clone(),
            })),
            _ => None,
        };
        // Protocol types are plain data, which always encodes.
        let mut json = serde_json::to_vec(older.as_ref().unwrap_or(reply)).unwrap_or_default();
        if json.len() > MAX_PAYLOAD_BYTES {
            let error = failed(CallErrorCode::TooLarge, "the answer does not fit into one frame");
            json = serde_json::to_vec(&Reply::Failed(error)).unwrap_or_default();
        }
        self.send(FrameKind::Reply, stream, &json);
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
