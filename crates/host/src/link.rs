//! The host's end of a link to a guest: frames in and out, streams with windows. Every length, number and order that the
//! guest chooses is checked; a guest that breaks the protocol loses the link.

use crate::route::{RouteHandler, carry, refuse};
use bytes::{BufMut as _, Bytes, BytesMut};
use greenroom_protocol::guest::call::Reply;
use greenroom_protocol::guest::frame::{
    FrameKind, HEADER_BYTES, Header, MAX_PAYLOAD_BYTES, STREAM_WINDOW_BYTES, decode_header, encode_header,
};
use greenroom_protocol::guest::{Hello, OpenRoute, Route};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// Frames waiting to be written (channel `link frames`); a full one makes callers wait.
const WRITE_QUEUE_FRAMES: usize = 128;

/// Route streams served at once: what a guest accepts on all its ports. One more is refused.
const MAX_ROUTES: usize = 64 * Route::PORTS.len();

/// Route streams that exist at once. More than are served, because the guest forgets one a little earlier than this side
/// does; beyond this a guest is lying.
const MAX_ROUTES_WITH_REFUSED: usize = 4 * MAX_ROUTES;

/// Replies that a stream may have.
const MAX_REPLIES: u32 = 2;

/// How long a guest may take for its first frame.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// A link; clones are the same link.
#[derive(Clone)]
pub(crate) struct Link {
    shared: Arc<Shared>,
    frames: mpsc::Sender<Bytes>,
    /// What is spoken on it: the older of both sides' generations.
    generation: u32,
}

struct Shared {
    streams: Mutex<HashMap<u32, Arc<Stream>>>,
    next_id: AtomicU32,
    /// Cancelled when the link is over.
    closed: CancellationToken,
}

impl Shared {
    fn streams(&self) -> MutexGuard<'_, HashMap<u32, Arc<Stream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Takes over a connected socket; ends when the peer closes it, breaks the protocol, or [`Link::end`].
    pub(crate) async fn open(socket: UnixStream, routes: RouteHandler) -> io::Result<Self> {
        let (reader, writer) = socket.into_split();
        let (frames, queue) = mpsc::channel(WRITE_QUEUE_FRAMES);
        let shared = Arc::new(Shared {
            streams: Mutex::default(),
            next_id: AtomicU32::new(1),
            closed: CancellationToken::new(),
        });
        let mut link = Self {
            shared,
            frames,
            generation: 0,
        };
        let mut reader = BufReader::with_capacity(64 * 1024, reader);
        let hello = serde_json::to_vec(&Hello::OURS)?;
        link.send(FrameKind::Hello, 0, &hello).await;
        tokio::spawn(write_frames(queue, writer, link.shared.closed.clone()));
        let greeted = async {
            let (header, payload) = read_frame(&mut reader).await?;
            if header.kind != FrameKind::Hello {
                return Err(violation("no hello"));
            }
            let hello: Hello = serde_json::from_slice(&payload)?;
            hello
                .spoken_generation()
                .ok_or_else(|| violation("a hello of a generation that is too old"))
        };
        let greeted = tokio::time::timeout(HELLO_TIMEOUT, greeted).await;
        match greeted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(generation) => link.generation = generation,
            Err(error) => {
                link.end();
                return Err(error);
            }
        }
        tokio::spawn(link.clone().read(reader, routes));
        Ok(link)
    }

    async fn read(self, mut reader: BufReader<OwnedReadHalf>, routes: RouteHandler) {
        let result = tokio::select! {
            result = self.read_frames(&mut reader, &routes) => result,
            () = self.shared.closed.cancelled() => Ok(()),
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(%error, "guest broke the protocol");
            }
            // Every other end of a socket is an ordinary one.
            _ => tracing::debug!("guest link ended"),
        }
        self.end();
        let streams: Vec<_> = self.shared.streams().drain().map(|(_, stream)| stream).collect();
        for stream in streams {
            stream.push(Item::Gone);
        }
    }

    async fn read_frames(
        &self,
        reader: &mut BufReader<OwnedReadHalf>,
        routes: &RouteHandler,
    ) -> io::Result<()> {
        loop {
            let (header, payload) = read_frame(reader).await?;
            self.dispatch(header, payload, routes)?;
        }
    }

    fn dispatch(&self, header: Header, payload: Vec<u8>, routes: &RouteHandler) -> io::Result<()> {
        if header.kind == FrameKind::Open {
            return self.open_route(header.stream, &payload, routes);
        }
        // The stream may have been given up on this side already.
        let Some(stream) = self.shared.streams().get(&header.stream).cloned() else {
            return Ok(());
        };
        match header.kind {
            FrameKind::Output => stream.push_data(&payload, false),
            FrameKind::ErrorOutput => stream.push_data(&payload, true),
            FrameKind::Reply => {
                let reply = serde_json::from_slice(&payload).map_err(|_| violation("a malformed reply"))?;
                stream.push_bounded(Item::Reply(Box::new(reply)))
            }
            FrameKind::End => stream.push_bounded(Item::End),
            FrameKind::Credit => {
                let bytes = payload.try_into().map_err(|_| violation("a malformed credit"))?;
                stream.add_credit(u32::from_be_bytes(bytes));
                Ok(())
            }
            FrameKind::Reset => {
                self.close(&stream);
                stream.push(Item::Gone);
                Ok(())
            }
            FrameKind::Hello | FrameKind::Call | FrameKind::Input | FrameKind::Cancel | FrameKind::Open => {
                Err(violation("a frame only hosts send"))
            }
        }
    }

    fn open_route(&self, id: u32, payload: &[u8], routes: &RouteHandler) -> io::Result<()> {
        let open: OpenRoute = serde_json::from_slice(payload).map_err(|_| violation("a malformed route"))?;
        let mut streams = self.shared.streams();
        let open_routes = streams.keys().filter(|id| id.is_multiple_of(2)).count();
        let is_too_many = open_routes >= MAX_ROUTES_WITH_REFUSED;
        if id == 0 || !id.is_multiple_of(2) || streams.contains_key(&id) || is_too_many {
            return Err(violation("a route that may not be opened"));
        }
        let stream = Arc::new(Stream::new(id));
        streams.insert(id, Arc::clone(&stream));
        drop(streams);
        if open_routes >= MAX_ROUTES {
            tokio::spawn(refuse(self.clone(), stream));
            return Ok(());
        }
        tokio::spawn(carry(self.clone(), stream, open.route, Arc::clone(routes)));
        Ok(())
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// A fresh stream for a call; forgotten with [`Link::close`].
    pub(crate) fn stream(&self) -> Arc<Stream> {
        let mut streams = self.shared.streams();
        // Numbers come round after 2^31 calls; one that is still in use is passed over.
        let id = loop {
            let id = self.shared.next_id.fetch_add(2, Ordering::Relaxed) | 1;
            if !streams.contains_key(&id) {
                break id;
            }
        };
        let stream = Arc::new(Stream::new(id));
        streams.insert(id, Arc::clone(&stream));
        drop(streams);
        if self.shared.closed.is_cancelled() {
            stream.push(Item::Gone);
        }
        stream
    }

    /// Forgets a stream; what still arrives for it is dropped.
    pub(crate) fn close(&self, stream: &Stream) {
        self.shared.streams().remove(&stream.id);
    }

    /// Gives a stream up from where nothing can wait.
    pub(crate) fn abandon(&self, stream: &Stream) {
        self.close(stream);
        let frame = encode(FrameKind::Reset, stream.id, &[]);
        if let Err(mpsc::error::TrySendError::Full(frame)) = self.frames.try_send(frame)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let frames = self.frames.clone();
            runtime.spawn(async move { frames.send(frame).await });
        }
    }

    /// Queues a frame. A link that is over swallows it; its streams say so.
    pub(crate) async fn send(&self, kind: FrameKind, stream: u32, payload: &[u8]) {
        tokio::select! {
            _ = self.frames.send(encode(kind, stream, payload)) => {}
            () = self.shared.closed.cancelled() => {}
        }
    }

    /// Sends data for which there is room.
    pub(crate) async fn send_data(&self, stream: &Stream, bytes: &[u8]) {
        stream.spend(bytes.len());
        self.send(FrameKind::Input, stream.id, bytes).await;
    }

    /// Lets the guest send as many bytes more.
    pub(crate) async fn grant(&self, stream: &Stream, len: usize) {
        stream.release(len);
        // At most a window.
        self.send(FrameKind::Credit, stream.id, &(len as u32).to_be_bytes())
            .await;
    }

    pub(crate) fn end(&self) {
        self.shared.closed.cancel();
    }

    pub(crate) async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }
}

fn encode(kind: FrameKind, stream: u32, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + payload.len());
    frame.put_slice(&encode_header(kind, stream, payload.len()));
    frame.put_slice(payload);
    frame.freeze()
}

async fn write_frames(
    mut queue: mpsc::Receiver<Bytes>,
    mut writer: OwnedWriteHalf,
    closed: CancellationToken,
) {
    let write = async {
        while let Some(frame) = queue.recv().await {
            if writer.write_all(&frame).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = write => {}
        () = closed.cancelled() => {}
    }
    closed.cancel();
}

async fn read_frame(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<(Header, Vec<u8>)> {
    let mut bytes = [0; HEADER_BYTES];
    reader.read_exact(&mut bytes).await?;
    let header = decode_header(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let mut payload = vec![0; header.payload_len];
    reader.read_exact(&mut payload).await?;
    Ok((header, payload))
}

fn violation(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What arrives on a stream, in order.
#[derive(Debug)]
pub(crate) enum Event {
    Data {
        bytes: Vec<u8>,
        is_error_output: bool,
    },
    Reply(Reply),
    End,
    /// Reset, or the link is over.
    Gone,
}

/// One numbered stream.
pub(crate) struct Stream {
    id: u32,
    state: Mutex<State>,
    arrived: Notify,
    credited: Notify,
}

/// A place in the order of events. Small, because a guest may send each byte of a window as a frame of its own.
enum Item {
    /// The next bytes of [`State::data`].
    Data {
        len: u32,
        is_error_output: bool,
    },
    Reply(Box<Reply>),
    End,
    Gone,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    /// The bytes of all items.
    data: BytesMut,
    /// Bytes that arrived and were not granted again.
    held: usize,
    replies: u32,
    ends: u32,
    is_gone: bool,
    credit: usize,
}

impl Stream {
    fn new(id: u32) -> Self {
        let state = State {
            credit: STREAM_WINDOW_BYTES as usize,
            ..State::default()
        };
        Self {
            id,
            state: Mutex::new(state),
            arrived: Notify::new(),
            credited: Notify::new(),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, item: Item) {
        let mut state = self.state();
        state.is_gone |= matches!(item, Item::Gone);
        state.items.push_back(item);
        drop(state);
        self.arrived.notify_one();
        self.credited.notify_one();
    }

    /// A stream has one end, and at most two replies: one that a program started, one that it ended.
    fn push_bounded(&self, item: Item) -> io::Result<()> {
        let mut state = self.state();
        let (seen, most) = match item {
            Item::Reply(_) => (&mut state.replies, MAX_REPLIES),
            _ => (&mut state.ends, 1),
        };
        if *seen >= most {
            return Err(violation("one reply or end too many"));
        }
        *seen += 1;
        drop(state);
        self.push(item);
        Ok(())
    }

    fn push_data(&self, bytes: &[u8], is_error_output: bool) -> io::Result<()> {
        let mut state = self.state();
        if state.held + bytes.len() > STREAM_WINDOW_BYTES as usize || state.ends > 0 {
            return Err(violation("more data than was granted"));
        }
        state.held += bytes.len();
        state.data.extend_from_slice(bytes);
        // At most a frame.
        let added = bytes.len() as u32;
        match state.items.back_mut() {
            // Many tiny frames become one.
            Some(Item::Data {
                len,
                is_error_output: kind,
            }) if *kind == is_error_output && (*len + added) as usize <= MAX_PAYLOAD_BYTES => *len += added,
            _ if added == 0 => {}
            _ => state.items.push_back(Item::Data {
                len: added,
                is_error_output,
            }),
        }
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    fn add_credit(&self, bytes: u32) {
        let mut state = self.state();
        state.credit = (state.credit + bytes as usize).min(STREAM_WINDOW_BYTES as usize);
        drop(state);
        self.credited.notify_one();
    }

    fn spend(&self, len: usize) {
        let mut state = self.state();
        state.credit = state.credit.saturating_sub(len);
    }

    fn release(&self, len: usize) {
        let mut state = self.state();
        state.held = state.held.saturating_sub(len);
    }

    /// The next event; after [`Event::Gone`] only that. For one caller at a time; cancel-safe.
    pub(crate) async fn next(&self) -> Event {
        loop {
            {
                let mut state = self.state();
                match state.items.pop_front() {
                    Some(Item::Data { len, is_error_output }) => {
                        return Event::Data {
                            bytes: state.data.split_to(len as usize).into(),
                            is_error_output,
                        };
                    }
                    Some(Item::Reply(reply)) => return Event::Reply(*reply),
                    Some(Item::End) => return Event::End,
                    Some(Item::Gone) => return Event::Gone,
                    None if state.is_gone => return Event::Gone,
                    None => {}
                }
            }
            self.arrived.notified().await;
        }
    }

    /// How many bytes may be sent, once that is any; `None` if the stream is gone.
    pub(crate) async fn room(&self) -> Option<usize> {
        loop {
            {
                let state = self.state();
                if state.is_gone {
                    return None;
                }
                if state.credit > 0 {
                    return Some(state.credit);
                }
            }
            self.credited.notified().await;
        }
    }
}
