//! Connections from inside to the host's broker.

use crate::world::{World, fresh_id, sh};
use greenroom_protocol::guest::{GIT_PORT, Route};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

crate::scenarios_on_each_kernel!(
    a_connection_reaches_the_broker_both_ways,
    a_refused_connection_fails_at_once
);

async fn a_connection_reaches_the_broker_both_ways(world: &World) {
    let routes: greenroom_host::RouteHandler = Arc::new(|route, mut stream| {
        assert_eq!(route, Route::Git);
        tokio::spawn(async move {
            let mut all = Vec::new();
            // Until the inside closes its half.
            stream.read_to_end(&mut all).await.unwrap();
            stream
                .write_all(format!("{}\n", all.len()).as_bytes())
                .await
                .unwrap();
            stream.write_all(&vec![b'y'; 2_000_000]).await.unwrap();
        });
    });
    let sandbox = world
        .host
        .start(world.with_routes(&fresh_id(), routes))
        .await
        .unwrap();
    let script = format!(
        "python3 - <<'EOF'\nimport socket\ns=socket.create_connection(('127.0.0.1',{GIT_PORT}))\ns.sendall(b'x'*3000000)\n\
         s.shutdown(socket.SHUT_WR)\nn=0\nfirst=b''\nwhile True:\n b=s.recv(65536)\n if not b: break\n \
         first=first or b.split(b'\\n')[0]\n n+=len(b)\nprint(first.decode(), n)\nEOF"
    );
    assert_eq!(sh(&sandbox, &script).await.ok(), "3000000 2000008\n");
}

async fn a_refused_connection_fails_at_once(world: &World) {
    let sandbox = world.start().await;
    let ran = sh(
        &sandbox,
        &format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{GIT_PORT}; cat <&3'"),
    )
    .await;
    assert!(ran.output.is_empty() || ran.exit.code != Some(0), "{ran:?}");
}
