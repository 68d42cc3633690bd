//! Bytes from a guest into the host's link, while the host makes one call of each kind that has its own way through it.

#![no_main]

use greenroom_fuzz::link_bytes;
use greenroom_host::{Sandbox, refuse_routes};
use greenroom_protocol::guest::call::{Call, Exec, Scope, Walk};
use greenroom_protocol::guest::frame::FrameKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let bytes = link_bytes(input, FrameKind::Reply);
    RUNTIME.with(|runtime| runtime.block_on(drive(&bytes)));
});

async fn drive(bytes: &[u8]) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut reader, mut writer) = ours.into_split();
    let guest = async {
        let drain = async {
            let mut seen = vec![0; 64 << 10];
            while reader.read(&mut seen).await.is_ok_and(|len| len > 0) {}
        };
        let say = async {
            // Until the calls are on their way, so that replies find their streams.
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            let _ = writer.write_all(bytes).await;
            let _ = writer.shutdown().await;
        };
        tokio::join!(drain, say);
    };
    let host = async {
        let Ok(sandbox) = Sandbox::over(theirs, refuse_routes()).await else {
            return;
        };
        let exec = |is_background| Exec {
            argv: vec!["x".to_owned()],
            is_background,
            ..Exec::default()
        };
        let walk = Walk {
            path: String::new(),
            scope: Scope::Workspace,
            respects_ignore_files: true,
            after: None,
            max_entries: 9,
        };
        let (output, mut printed) = tokio::sync::mpsc::channel(4);
        // Streams 1, 3, 5 and so on, in this order.
        let _ = tokio::join!(
            sandbox.call(Call::Ping),
            sandbox.read_file("a", Scope::Workspace, 0, 1 << 20),
            sandbox.write_file("a", Scope::Workspace, vec![7; 600 << 10]),
            sandbox.exec(exec(false), output, CancellationToken::new()),
            async { while printed.recv().await.is_some() {} },
            async {
                if let Ok(mut changes) = sandbox.watch("", Scope::Workspace).await {
                    while let Ok(Some(_)) = changes.next().await {}
                }
            },
            async {
                if let Ok(mut stream) = sandbox.forward(80).await {
                    let _ = stream.write_all(b"hello").await;
                    let _ = stream.shutdown().await;
                    let mut answer = Vec::new();
                    let _ = stream.read_to_end(&mut answer).await;
                }
            },
            sandbox.call(Call::Walk(walk)),
            sandbox.spawn(exec(true)),
        );
        sandbox.closed().await;
    };
    tokio::join!(guest, host);
}
