//! A directory that looks like a running sandbox, with the test as its guest; and frames by hand.

use crate::world::{World, fresh_id};
use greenroom_host::{HostError, RouteHandler, Sandbox, refuse_routes};
use greenroom_protocol::guest::call::{Call, Reply};
use greenroom_protocol::guest::frame::{FrameKind, HEADER_BYTES, decode_header, encode_header};
use greenroom_protocol::id::SandboxId;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

/// Holds the lock that says that a supervisor lives; locks of one process do not exclude that process itself.
const HOLD_LOCK: &str = "import fcntl,sys\nf=open(sys.argv[1],'r+')\nfcntl.lockf(f,fcntl.LOCK_EX)\n\
    print('held',flush=True)\nsys.stdin.read()";

/// Ends with its test.
pub struct Impostor {
    pub id: SandboxId,
    listener: UnixListener,
    holder: Child,
}

impl Impostor {
    pub fn new(world: &World) -> Self {
        let id = fresh_id();
        let directory = world.state.join("sb").join(id.as_str());
        std::fs::create_dir_all(&directory).unwrap();
        let listener = UnixListener::bind(directory.join("guest.sock")).unwrap();
        let lock = directory.join("lock");
        std::fs::write(&lock, "").unwrap();
        let mut holder = Command::new("python3")
            .args(["-c", HOLD_LOCK])
            .arg(&lock)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut held = [0; 4];
        holder.stdout.as_mut().unwrap().read_exact(&mut held).unwrap();
        Self { id, listener, holder }
    }

    /// Serves the next link on a thread.
    pub fn serve<T: Send + 'static>(&self, serve: impl FnOnce(Peer) -> T + Send + 'static) -> JoinHandle<T> {
        let listener = self.listener.try_clone().unwrap();
        std::thread::spawn(move || serve(Peer(listener.accept().unwrap().0)))
    }

    pub async fn find(&self, world: &World) -> Result<Sandbox, HostError> {
        self.find_with(world, refuse_routes()).await
    }

    pub async fn find_with(&self, world: &World, routes: RouteHandler) -> Result<Sandbox, HostError> {
        let found = world.host.find(&self.id, routes).await?;
        Ok(found.expect("it looks alive"))
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// One end of a link, by hand.
pub struct Peer(pub UnixStream);

impl Peer {
    /// To a real guest.
    pub fn connect(world: &World, id: &SandboxId) -> Self {
        let path = world.state.join("sb").join(id.as_str()).join("guest.sock");
        Self(UnixStream::connect(path).unwrap())
    }

    /// Whether the other side still listened.
    pub fn send(&mut self, kind: FrameKind, stream: u32, payload: &[u8]) -> bool {
        self.0.write_all(&frame(kind, stream, payload)).is_ok()
    }

    pub fn hello(&mut self, generation: u32) {
        let hello = format!(r#"{{"generation":{generation}}}"#);
        self.send(FrameKind::Hello, 0, hello.as_bytes());
    }

    pub fn call(&mut self, stream: u32, call: &Call) -> bool {
        self.send(FrameKind::Call, stream, &serde_json::to_vec(call).unwrap())
    }

    pub fn reply(&mut self, stream: u32, reply: &Reply) -> bool {
        self.send(FrameKind::Reply, stream, &serde_json::to_vec(reply).unwrap())
    }

    /// The next frame; `None` at the end of the link.
    pub fn next(&mut self) -> Option<(FrameKind, u32, Vec<u8>)> {
        let mut bytes = [0; HEADER_BYTES];
        self.0.read_exact(&mut bytes).ok()?;
        let header = decode_header(bytes).unwrap();
        let mut payload = vec![0; header.payload_len];
        self.0.read_exact(&mut payload).ok()?;
        Some((header.kind, header.stream, payload))
    }

    /// The next call and its stream, passing over everything else.
    pub fn next_call(&mut self) -> Option<(u32, Call)> {
        loop {
            if let (FrameKind::Call, stream, payload) = self.next()? {
                return Some((stream, serde_json::from_slice(&payload).unwrap()));
            }
        }
    }

    /// The reply on a stream, passing over everything else.
    pub fn next_reply(&mut self, wanted: u32) -> Option<Reply> {
        loop {
            let (kind, stream, payload) = self.next()?;
            if (kind, stream) == (FrameKind::Reply, wanted) {
                return Some(serde_json::from_slice(&payload).unwrap());
            }
        }
    }

    /// Reads until the other side closes.
    pub fn drain(mut self) {
        let mut rest = [0; 64 << 10];
        while self.0.read(&mut rest).is_ok_and(|len| len > 0) {}
    }
}

pub fn frame(kind: FrameKind, stream: u32, payload: &[u8]) -> Vec<u8> {
    [encode_header(kind, stream, payload.len()).as_slice(), payload].concat()
}
