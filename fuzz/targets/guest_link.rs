//! Bytes from a host into the guest's link, up to the calls: these are answered here by a table that moves data both ways
//! and starts nothing.

#![no_main]

use greenroom_fuzz::link_bytes;
use greenroom_guest::link::{Guest, serve_link};
use greenroom_guest::stream::{Input, Stream};
use greenroom_protocol::guest::Route;
use greenroom_protocol::guest::call::{Call, CallError, CallErrorCode, Reply};
use greenroom_protocol::guest::frame::FrameKind;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

static GUEST: LazyLock<Arc<Guest>> = LazyLock::new(|| Arc::new(Guest::new(answer)));

/// Calls that are being answered, also after their link is over.
static ANSWERING: AtomicUsize = AtomicUsize::new(0);

fn answer(stream: &Arc<Stream>, call: Call) {
    ANSWERING.fetch_add(1, Ordering::SeqCst);
    let reply = match call {
        Call::Ping => Reply::Done,
        // Data out, more than a window; then the host may have gone.
        Call::ReadFile { max_bytes, .. } => {
            stream.reply(&Reply::Done);
            let mut left = max_bytes.min(1 << 20) as usize;
            while left > 0 && stream.send_all(FrameKind::Output, &vec![0; left.min(100_000)]) {
                left = left.saturating_sub(100_000);
            }
            stream.send_end();
            ANSWERING.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        // Data in, to its end.
        Call::WriteFile { .. } => loop {
            stream.wake.clear();
            if stream.is_cancelled() {
                break Reply::Done;
            }
            match stream.next_input() {
                Input::Bytes(bytes) => stream.grant(bytes.len()),
                Input::Ended => break Reply::Done,
                Input::Pending => std::thread::yield_now(),
            }
        },
        call => Reply::Failed(CallError {
            code: CallErrorCode::Refused,
            message: format!("{call:?}"),
        }),
    };
    stream.reply(&reply);
    ANSWERING.fetch_sub(1, Ordering::SeqCst);
}

/// A program with a `main` of its own does this by itself; a fuzzer has none.
fn ignore_broken_pipes() {
    // SAFETY: an integer and a constant, before any thread.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

libfuzzer_sys::fuzz_target!(init: ignore_broken_pipes(), |input: &[u8]| {
    let bytes = link_bytes(input, FrameKind::Call);
    let (ours, theirs) = UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        let mut reader = ours.try_clone().unwrap();
        scope.spawn(move || {
            // Everything the guest says arrives, so that it never waits for a host that does not read.
            let mut seen = [0; 64 << 10];
            while reader.read(&mut seen).is_ok_and(|len| len > 0) {}
        });
        scope.spawn(move || {
            let mut writer = &ours;
            let _ = writer.write_all(&bytes);
            let _ = GUEST.open_route(Route::Git);
            let _ = ours.shutdown(Shutdown::Write);
        });
        serve_link(&GUEST, theirs, 0);
    });
    while ANSWERING.load(Ordering::SeqCst) > 0 {
        std::thread::yield_now();
    }
});
