//! Limits hold for what hides: where nobody looks, or where no program is to be found that has it.

use crate::limits::{MIB, assert_lives, fill, start};
use crate::world::{World, sh};
use greenroom_host::Limits;
use greenroom_protocol::guest::call::{LimitKind, Scope};
use std::time::Duration;

crate::scenarios_with!(
    hidden_as_root,
    as_root,
    Isolation::Namespace,
    directories_that_move_count,
    files_in_messages_count,
    files_of_threads_count,
    files_are_remembered,
    files_among_many_descriptors_count,
    what_others_write_does_not_count,
    shared_memory_goes_with_its_programs,
    files_that_are_only_mapped_count
);
crate::scenarios_with!(
    hidden_as_user,
    as_user,
    Isolation::Namespace,
    directories_that_move_count,
    files_in_messages_count,
    files_of_threads_count,
    files_of_closed_processes_count,
    files_are_remembered,
    files_among_many_descriptors_count,
    what_others_write_does_not_count
);

/// Begins the programs: takes 8 MiB by a file that is removed at once.
const TAKE: &str = r#"
import ctypes, os, resource, socket, threading, time
libc = ctypes.CDLL(None)
def take():
    fd = os.open("gone", os.O_CREAT | os.O_RDWR)
    os.unlink("gone")
    for _ in range(8): os.write(fd, b"x" * (1 << 20))
    time.sleep(0.02)
    return fd
"#;

/// Renames a directory all the time, among so many that a walk of them takes longer, and fills it meanwhile.
const MOVING: &str = r#"
import os, time
os.mkdir("ev"); os.chdir("ev")
for i in range(3000): os.mkdir(f"s{i}")
os.mkdir("a0")
inside = os.open("a0", os.O_RDONLY)
if os.fork() == 0:
    n = 0
    while True:
        os.rename(f"a{n}", f"a{n + 1}")
        n += 1
for n in range(60):
    fd = os.open(f"f{n}", os.O_CREAT | os.O_WRONLY, dir_fd=inside)
    for _ in range(8): os.write(fd, b"x" * (1 << 20))
    os.close(fd)
time.sleep(60)
"#;

async fn directories_that_move_count(world: &World) {
    assert_stops(world, MOVING).await;
}

/// Keeps removed files by messages that nobody receives.
const IN_MESSAGES: &str = r#"
keep = []
for n in range(60):
    fd = take()
    pair = socket.socketpair()
    socket.send_fds(pair[0], [b"x"], [fd])
    keep.append(pair)
    os.close(fd)
time.sleep(60)
"#;

async fn files_in_messages_count(world: &World) {
    assert_stops(world, IN_MESSAGES).await;
}

/// Keeps removed files by a thread that has outlived the first one of its process.
const IN_THREAD: &str = r#"
def fill():
    time.sleep(0.2)
    for n in range(60): take()
    time.sleep(60)
threading.Thread(target=fill).start()
libc.syscall(60, 0)
"#;

async fn files_of_threads_count(world: &World) {
    assert_stops(world, IN_THREAD).await;
}

/// Keeps removed files in a process that others of its uid may not look into.
const CLOSED: &str = r#"
libc.prctl(4, 0, 0, 0, 0)
for n in range(60): take()
time.sleep(60)
"#;

async fn files_of_closed_processes_count(world: &World) {
    assert_stops(world, CLOSED).await;
}

/// Takes less than there is room for, and has that forgotten by freeing something, again and again.
const IN_PARTS: &str = r#"
for n in range(12):
    for _ in range(7): take()
    freed = os.open("freed", os.O_CREAT | os.O_WRONLY)
    for _ in range(16): os.write(freed, b"x" * (1 << 20))
    os.close(freed)
    os.unlink("freed")
    until = time.time() + 2.5
    while time.time() < until: time.sleep(0.01)
time.sleep(60)
"#;

async fn files_are_remembered(world: &World) {
    assert_stops(world, IN_PARTS).await;
}

/// Keeps removed files behind as many descriptors as it may have.
const AMONG_MANY: &str = r#"
most = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 20000) - 100
for _ in range(6):
    if os.fork() == 0:
        null = os.open("/dev/null", os.O_RDONLY)
        for _ in range(most): os.dup(null)
        time.sleep(60)
        os._exit(0)
time.sleep(1)
for n in range(60): take()
time.sleep(60)
"#;

async fn files_among_many_descriptors_count(world: &World) {
    assert_stops(world, AMONG_MANY).await;
}

/// Looks as if it hid something, and writes nothing.
const INNOCENT: &str = r#"
import os, socket, time
pair = socket.socketpair()
socket.send_fds(pair[0], [b"x"], [os.open("/dev/null", os.O_RDONLY)])
print("ready", flush=True)
until = time.time() + 3
while time.time() < until: time.sleep(0.001)
print("alive", flush=True)
"#;

async fn what_others_write_does_not_count(world: &World) {
    let limits = Limits {
        disk_bytes: 128 * MIB,
        ..Limits::default()
    };
    let sandbox = start(world, limits).await;
    sandbox
        .write_file("innocent.py", Scope::Workspace, INNOCENT.into())
        .await
        .unwrap();
    // On the same filesystem, more than the sandbox has room for.
    let place = world.state.join("others");
    std::fs::create_dir(&place).unwrap();
    let others = {
        let place = place.clone();
        tokio::task::spawn_blocking(move || {
            for number in 0..20 {
                std::thread::sleep(Duration::from_millis(100));
                std::fs::write(place.join(number.to_string()), vec![1; 16 << 20]).unwrap();
            }
        })
    };
    let ran = fill(&sandbox, "exec python3 innocent.py").await;
    others.await.unwrap();
    std::fs::remove_dir_all(&place).unwrap();
    assert_eq!(ran.exit.limits_hit, [], "{ran:?}");
    assert!(ran.output.contains("alive"), "{ran:?}");
}

/// Makes shared memory, fills it and leaves it.
const SHARED: &str = r#"
import ctypes
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
number = libc.shmget(0, 32 << 20, 0o1600)
assert number >= 0
at = libc.shmat(number, None, 0)
ctypes.memset(at, 1, 32 << 20)
"#;

async fn shared_memory_goes_with_its_programs(world: &World) {
    let sandbox = start(world, Limits::default()).await;
    sandbox
        .write_file("shared.py", Scope::Workspace, SHARED.into())
        .await
        .unwrap();
    assert_eq!(
        sh(&sandbox, "python3 shared.py && grep -c . /proc/sysvipc/shm")
            .await
            .ok(),
        "1\n",
        "only the heading is left"
    );
}

/// Keeps removed files by mappings of one page each. Python's own would keep a descriptor too.
const MAPPED: &str = r#"
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mmap.restype = ctypes.c_void_p
for n in range(60):
    fd = take()
    assert libc.mmap(None, 4096, 1, 2, fd, 0) != ctypes.c_void_p(-1).value
    os.close(fd)
time.sleep(60)
"#;

async fn files_that_are_only_mapped_count(world: &World) {
    assert_stops(world, MAPPED).await;
}

/// What a program in Python takes is found and ends it.
async fn assert_stops(world: &World, program: &str) {
    let limits = Limits {
        disk_bytes: 128 * MIB,
        ..Limits::default()
    };
    let sandbox = start(world, limits).await;
    sandbox
        .write_file("hide.py", Scope::Workspace, format!("{TAKE}{program}").into())
        .await
        .unwrap();
    let ran = fill(&sandbox, "exec python3 hide.py").await;
    assert_eq!(ran.exit.limits_hit, [LimitKind::Disk], "{ran:?}");
    assert_lives(&sandbox).await;
}
