//! Connections from the host to ports of a sandbox, directly and through addresses of this machine.

use crate::world::{PATIENCE, World, assert_code, eventually, is_root, open, sh, shell};
use greenroom_host::{ExposeError, Host, Sandbox, refuse_routes};
use greenroom_protocol::guest::GIT_PORT;
use greenroom_protocol::guest::call::{Call, CallErrorCode, Exec};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

crate::scenarios_on_each_kernel!(
    a_port_is_reached_on_either_loopback_address,
    a_half_closed_connection_is_answered,
    an_answer_before_a_refusal_to_read_comes_through,
    a_hundred_connections_and_a_slow_reader,
    too_many_connections_are_refused_and_calls_go_on,
    an_address_of_this_machine_leads_to_a_web_server,
    exposed_ports_are_found_again,
    a_taken_address_is_reported,
    only_loopback_is_listened_on,
);

/// Tells a test that it is the copy of itself that is to be killed; holds the host's directory and the sandbox.
const LISTENER: &str = "GREENROOM_TEST_LISTENER";

const KILLED: &str = "exposed_ports_outlive_a_kill_of_their_process";

mod as_root_killed {
    #[test]
    fn exposed_ports_outlive_a_kill_of_their_process() {
        if !super::listened() {
            crate::world::as_root("", crate::world::Isolation::Namespace, |world| {
                Box::pin(super::a_listener_is_killed(world))
            });
        }
    }
}

mod as_user_killed {
    #[test]
    fn exposed_ports_outlive_a_kill_of_their_process() {
        if !super::listened() {
            let name = concat!(module_path!(), "::exposed_ports_outlive_a_kill_of_their_process");
            crate::world::as_user(name, crate::world::Isolation::Namespace, |world| {
                Box::pin(super::a_listener_is_killed(world))
            });
        }
    }
}

/// Serves connections in the sandbox: `how` is the body of `def serve(s)`.
async fn serve(sandbox: &Sandbox, family: &str, port: u16, how: &str) {
    let body = how.replace('\n', "\n ");
    let script = format!(
        "import socket,threading\ndef serve(s):\n {body}\nl=socket.socket(socket.{family})\n\
         l.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)\n\
         l.bind(('127.0.0.1' if socket.{family}==socket.AF_INET else '::1',{port}))\nl.listen(512)\nopen('up-{port}','w')\n\
         while True:\n s,_=l.accept()\n threading.Thread(target=serve,args=(s,),daemon=True).start()\n"
    );
    sandbox
        .spawn(Exec {
            argv: vec!["python3".to_owned(), "-c".to_owned(), script],
            ..Exec::default()
        })
        .await
        .unwrap();
    up(sandbox, &format!("up-{port}")).await;
}

async fn up(sandbox: &Sandbox, file: &str) {
    let stat = Call::Stat {
        path: file.to_owned(),
        scope: greenroom_protocol::guest::call::Scope::Workspace,
    };
    eventually("the server in the sandbox listens", async || {
        sandbox.call(stat.clone()).await.ok()
    })
    .await;
}

async fn all(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("in time")
        .unwrap();
    bytes
}

const ECHO: &str = "while True:\n b=s.recv(65536)\n if not b: break\n s.sendall(b)\ns.close()";

async fn a_port_is_reached_on_either_loopback_address(world: &World) {
    let sandbox = world.start().await;
    assert_code(sandbox.forward(8000).await.map(drop), CallErrorCode::Refused);
    assert_code(sandbox.forward(GIT_PORT).await.map(drop), CallErrorCode::Invalid);
    assert_code(sandbox.forward(0).await.map(drop), CallErrorCode::Invalid);
    for (family, port) in [("AF_INET", 8000), ("AF_INET6", 8001)] {
        if family == "AF_INET6" && !sh(&sandbox, "cat /proc/net/if_inet6").await.output.contains("lo") {
            eprintln!("SKIPPED-FEATURE: sandboxes on this machine have no IPv6 loopback");
            continue;
        }
        serve(&sandbox, family, port, ECHO).await;
        let mut stream = sandbox.forward(port).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(all(&mut stream).await, b"hello");
    }
}

async fn a_half_closed_connection_is_answered(world: &World) {
    let sandbox = world.start().await;
    // Answers only when it has seen the end of the request.
    serve(
        &sandbox,
        "AF_INET",
        8000,
        "n=0\nwhile True:\n b=s.recv(65536)\n if not b: break\n n+=len(b)\ns.sendall(b'%d\\n' % n)\ns.sendall(b'y'*2000000)\ns.close()",
    )
    .await;
    let exposed = sandbox.expose(8000, loopback(0)).await.unwrap();
    let mut direct = sandbox.forward(8000).await.unwrap();
    direct.write_all(&vec![b'x'; 3_000_000]).await.unwrap();
    direct.shutdown().await.unwrap();
    let answer = all(&mut direct).await;
    assert!(answer.starts_with(b"3000000\nyyy") && answer.len() == 2_000_008);
    let mut socket = TcpStream::connect(exposed.address).await.unwrap();
    socket.write_all(&vec![b'x'; 3_000_000]).await.unwrap();
    socket.shutdown().await.unwrap();
    let answer = all(&mut socket).await;
    assert!(answer.starts_with(b"3000000\nyyy") && answer.len() == 2_000_008);
}

async fn an_answer_before_a_refusal_to_read_comes_through(world: &World) {
    let sandbox = world.start().await;
    // Takes a little, answers, and closes with most of the request unread: the kernel resets the connection.
    serve(
        &sandbox,
        "AF_INET",
        8000,
        "s.recv(1)\ns.sendall(b'413 too large')\nimport time\ntime.sleep(0.2)\ns.close()",
    )
    .await;
    let mut stream = sandbox.forward(8000).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(&mut stream);
    let upload = async {
        // Until nobody takes it any more.
        while writer.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
    };
    let answer = async {
        let mut answer = Vec::new();
        let _ = reader.read_to_end(&mut answer).await;
        answer
    };
    let ((), answer) = timeout(PATIENCE, async { tokio::join!(upload, answer) })
        .await
        .expect("the broken connection ends");
    assert_eq!(String::from_utf8_lossy(&answer), "413 too large");
}

async fn a_hundred_connections_and_a_slow_reader(world: &World) {
    let sandbox = world.start().await;
    serve(&sandbox, "AF_INET", 8000, ECHO).await;
    serve(
        &sandbox,
        "AF_INET",
        8001,
        "try:\n while True: s.sendall(b'z'*65536)\nexcept OSError: pass",
    )
    .await;
    let exposed = sandbox.expose(8001, loopback(0)).await.unwrap();
    // Nobody ever reads these.
    let mut unread = Vec::new();
    for _ in 0..5 {
        unread.push(TcpStream::connect(exposed.address).await.unwrap());
    }
    let unread_direct = sandbox.forward(8001).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..100_usize {
        let sandbox = sandbox.clone();
        tasks.spawn(async move {
            let mut stream = sandbox.forward(8000).await.unwrap();
            let mut sent = number.to_string().into_bytes();
            sent.resize(50_000 + number, b'.');
            let (mut reader, mut writer) = tokio::io::split(&mut stream);
            let send = async {
                writer.write_all(&sent).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let mut echoed = Vec::new();
            let (_, read) = tokio::join!(send, reader.read_to_end(&mut echoed));
            read.unwrap();
            assert!(echoed == sent, "connection {number}");
        });
    }
    timeout(PATIENCE * 2, tasks.join_all())
        .await
        .expect("all are served");
    assert_eq!(sh(&sandbox, "echo alive").await.ok(), "alive\n");
    drop((unread, unread_direct));
}

async fn too_many_connections_are_refused_and_calls_go_on(world: &World) {
    let sandbox = world.start().await;
    serve(&sandbox, "AF_INET", 8000, "s.sendall(b'k')\ns.recv(1)").await;
    let mut open = Vec::new();
    let refused = loop {
        match sandbox.forward(8000).await {
            Ok(mut stream) => {
                assert_eq!(stream.read_u8().await.unwrap(), b'k');
                open.push(stream);
            }
            Err(error) => break error,
        }
        assert!(open.len() < 1000, "there is a bound");
    };
    assert!(refused.to_string().contains("open already"), "{refused}");
    assert!(open.len() > 100);
    assert_eq!(sh(&sandbox, "echo alive").await.ok(), "alive\n");
    drop(open);
    let freed = eventually("places are free again", async || sandbox.forward(8000).await.ok()).await;
    drop(freed);
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

async fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    socket
        .write_all(b"GET /page HTTP/1.0\r\nHost: sandbox\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut answer))
        .await
        .expect("in time")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn serve_pages(sandbox: &Sandbox) {
    sh(sandbox, "mkdir -p site; echo hello from inside > site/page")
        .await
        .ok();
    let script = "cd site && exec python3 -m http.server 8080 --bind 127.0.0.1";
    let server = Exec {
        is_background: true,
        ..shell(script)
    };
    sandbox.spawn(server).await.unwrap();
    eventually("the web server listens", async || {
        sandbox.forward(8080).await.ok()
    })
    .await;
}

async fn an_address_of_this_machine_leads_to_a_web_server(world: &World) {
    let sandbox = world.start().await;
    serve_pages(&sandbox).await;
    let exposed = sandbox.expose(8080, loopback(0)).await.unwrap();
    assert_eq!((exposed.port, exposed.problem.as_deref()), (8080, None));
    assert_eq!(sandbox.expose(8080, exposed.address).await.unwrap(), exposed);
    assert_eq!(sandbox.exposed(), std::slice::from_ref(&exposed));
    let answer = get(exposed.address).await.unwrap();
    assert!(
        answer.contains("200 OK") && answer.ends_with("hello from inside\n"),
        "{answer}"
    );
    // Nothing listens inside: reset at once.
    let idle = sandbox.expose(8081, loopback(0)).await.unwrap();
    assert!(get(idle.address).await.is_err());
    // Handles may go; what is exposed stays reachable.
    let kept = sandbox.clone();
    drop(sandbox);
    assert!(get(exposed.address).await.unwrap().contains("200 OK"));
    kept.unexpose(exposed.address).await.unwrap();
    kept.unexpose(exposed.address).await.unwrap();
    assert_eq!(kept.exposed(), std::slice::from_ref(&idle));
    assert!(TcpStream::connect(exposed.address).await.is_err(), "it is closed");
    // A stopped sandbox is not listened for.
    world.host.stop(kept.id()).await.unwrap();
    assert!(TcpStream::connect(idle.address).await.is_err(), "it is closed");
    assert!(matches!(
        kept.expose(1, loopback(0)).await,
        Err(ExposeError::Closed)
    ));
    // Started again, it is.
    let again = world.host.start(world.plain(kept.id())).await.unwrap();
    assert_eq!(again.exposed(), [idle]);
}

async fn find(host: &Host, sandbox: &Sandbox) -> Sandbox {
    host.find(sandbox.id(), refuse_routes()).await.unwrap().unwrap()
}

async fn exposed_ports_are_found_again(world: &World) {
    let sandbox = world.start().await;
    serve_pages(&sandbox).await;
    // Another host stands for a server that is killed: its listeners go with it.
    let first = open(&world.state).await;
    let held = find(&first, &sandbox).await;
    let exposed = held.expose(8080, loopback(0)).await.unwrap();
    assert!(get(exposed.address).await.unwrap().contains("200 OK"));
    drop((held, first));
    eventually("the listener is gone", async || {
        TcpStream::connect(exposed.address).await.err()
    })
    .await;
    let second = open(&world.state).await;
    let found = find(&second, &sandbox).await;
    assert_eq!(found.exposed(), std::slice::from_ref(&exposed));
    assert!(get(exposed.address).await.unwrap().contains("200 OK"));
    // Found again by the same host: the listener goes on over the newer link.
    let newer = find(&second, &sandbox).await;
    drop(found);
    assert_eq!(newer.exposed(), std::slice::from_ref(&exposed));
    assert!(get(exposed.address).await.unwrap().contains("200 OK"));
}

/// Exposes a port and waits for its end if this process is the one to be killed.
fn listened() -> bool {
    let Ok(orders) = std::env::var(LISTENER) else {
        return false;
    };
    let (state, id) = orders.split_once('\n').unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let host = open(std::path::Path::new(state)).await;
        let sandbox = host
            .find(&id.parse().unwrap(), refuse_routes())
            .await
            .unwrap()
            .unwrap();
        let exposed = sandbox.expose(8080, loopback(0)).await.unwrap();
        let mut out = std::io::stdout();
        writeln!(out, "\naddress {}", exposed.address)
            .and_then(|()| out.flush())
            .unwrap();
        std::future::pending().await
    })
}

async fn a_listener_is_killed(world: &World) {
    let sandbox = world.start().await;
    serve_pages(&sandbox).await;
    let module = if is_root() {
        "as_root_killed"
    } else {
        "as_user_killed"
    };
    let mut listener = Command::new("/proc/self/exe")
        .args([&format!("ports::{module}::{KILLED}"), "--exact", "--nocapture"])
        .env(LISTENER, format!("{}\n{}", world.state.display(), sandbox.id()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let address: SocketAddr = BufReader::new(listener.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("address ")?.parse().ok())
        .expect("it listens");
    assert!(get(address).await.unwrap().contains("200 OK"));
    let mut open = TcpStream::connect(address).await.unwrap();
    listener.kill().unwrap();
    listener.wait().unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
    // Whoever was connected hears of it.
    assert_eq!(
        timeout(PATIENCE, open.read(&mut [0; 8]))
            .await
            .unwrap()
            .unwrap_or(0),
        0
    );
    let next = crate::world::open(&world.state).await;
    let found = find(&next, &sandbox).await;
    let exposed = found.exposed();
    assert_eq!(
        (exposed[0].address, exposed[0].problem.as_deref()),
        (address, None)
    );
    assert!(get(address).await.unwrap().contains("200 OK"));
}

async fn a_taken_address_is_reported(world: &World) {
    let sandbox = world.start().await;
    serve_pages(&sandbox).await;
    let first = open(&world.state).await;
    let held = find(&first, &sandbox).await;
    let exposed = held.expose(8080, loopback(0)).await.unwrap();
    drop((held, first));
    let thief = eventually("the address is free", async || {
        std::net::TcpListener::bind(exposed.address).ok()
    })
    .await;
    let second = open(&world.state).await;
    let found = find(&second, &sandbox).await;
    let problem = found.exposed()[0].problem.clone().expect("it is reported");
    assert!(problem.contains(&exposed.address.to_string()), "{problem}");
    assert!(matches!(
        found.expose(8080, exposed.address).await,
        Err(ExposeError::Listen { .. })
    ));
    assert_eq!(sh(&found, "echo alive").await.ok(), "alive\n");
    drop(thief);
    assert_eq!(found.expose(8080, exposed.address).await.unwrap(), exposed);
    assert_eq!(found.exposed(), std::slice::from_ref(&exposed));
    assert!(get(exposed.address).await.unwrap().contains("200 OK"));
}

async fn only_loopback_is_listened_on(world: &World) {
    let sandbox = world.start().await;
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        assert!(matches!(
            sandbox.expose(8000, address.parse().unwrap()).await,
            Err(ExposeError::NotLoopback(_))
        ));
    }
    // Nor by a file that says so.
    let file = world
        .state
        .join("sb")
        .join(sandbox.id().as_str())
        .join("exposed.json");
    std::fs::write(&file, r#"{"ports":[{"port":1,"address":"0.0.0.0:0"}]}"#).unwrap();
    let other = open(&world.state).await;
    assert_eq!(find(&other, &sandbox).await.exposed(), []);
    std::fs::write(&file, "{nonsense").unwrap();
    let third = open(&world.state).await;
    assert_eq!(find(&third, &sandbox).await.exposed(), []);
}
