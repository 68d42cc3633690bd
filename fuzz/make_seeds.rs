//! Writes the seeds from which fuzzing starts: `RUSTFLAGS='--cfg fuzzing' cargo run --example make-seeds` in this directory.

use greenroom_fuzz::{frame, instruction};
use greenroom_protocol::guest::call::{
    Call, CallError, CallErrorCode, Change, ChangeBatch, ChangeKind, Exec, Exit, Grep, Reply, Scope,
    TerminalSize, Walk,
};
use greenroom_protocol::guest::frame::FrameKind::{self, Credit, Input, Output};
use greenroom_protocol::guest::service::{Readiness, RestartPolicy, Service};
use greenroom_protocol::guest::{Hello, OpenRoute, Route};
use serde::Serialize;
use std::path::Path;

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

fn calls() -> Vec<Call> {
    let (path, scope) = (|| "a".to_owned(), Scope::Workspace);
    vec![
        Call::Ping,
        Call::ListProcesses,
        Call::ListServices,
        Call::MeasureProcesses,
        Call::Exec(Exec {
            argv: vec![path()],
            key: Some(path()),
            terminal: Some(TerminalSize { rows: 1, columns: 1 }),
            ..Exec::default()
        }),
        Call::Attach {
            process_id: 1,
            after_offset: 0,
        },
        Call::ReadFile {
            path: path(),
            scope,
            offset: 0,
            max_bytes: 1 << 20,
        },
        Call::WriteFile {
            path: path(),
            scope,
            is_executable: false,
        },
        Call::Grep(Grep {
            path: path(),
            scope,
            pattern: path(),
            is_case_insensitive: true,
            glob: Some(path()),
            context_lines: 1,
            max_matches: 1,
        }),
        Call::Walk(Walk {
            path: path(),
            scope,
            respects_ignore_files: true,
            after: Some(path()),
            max_entries: 9,
        }),
        Call::Watch { path: path(), scope },
        Call::Forward { port: 80 },
        Call::StartService(Service {
            name: path(),
            argv: vec![path()],
            cwd: path(),
            env: vec![(path(), path())],
            before: vec![path()],
            ready: Readiness::Port { port: 80 },
            ready_timeout_ms: 1,
            restart: RestartPolicy::Always,
        }),
    ]
}

fn replies() -> Vec<Reply> {
    vec![
        Reply::Done,
        Reply::Exited(Exit {
            code: Some(0),
            ..Exit::default()
        }),
        Reply::Started { process_id: 1 },
        Reply::File {
            size_bytes: 3,
            is_executable: false,
        },
        Reply::Entries {
            entries: Vec::new(),
            is_truncated: false,
        },
        Reply::ProcessOutput {
            start_offset: 0,
            end_offset: 1,
            output: "x".to_owned(),
            exit: None,
        },
        Reply::Failed(CallError {
            code: CallErrorCode::NotFound,
            message: "x".to_owned(),
        }),
    ]
}

fn main() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let directory = seeds.join(target);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(name), bytes).unwrap();
    };
    let batch = ChangeBatch {
        changes: vec![Change {
            path: "a".to_owned(),
            kind: ChangeKind::Created,
        }],
        is_incomplete: true,
    };
    for (number, call) in calls().iter().enumerate() {
        write("call", &format!("call-{number}"), &json(call));
    }
    for (number, reply) in replies().iter().enumerate() {
        write("call", &format!("reply-{number}"), &json(reply));
    }
    write("call", "hello", &json(&Hello::OURS));
    write("call", "route", &json(&OpenRoute { route: Route::Socks }));
    write("call", "changes", &json(&batch));
    for kind in (0..=10).filter_map(FrameKind::from_byte) {
        write("frame", &format!("{kind:?}"), &frame(kind, 7, b"")[..9]);
    }
    // A whole conversation each, and one frame each.
    let credit = 64_u32.to_be_bytes();
    let mut whole = Vec::new();
    for (number, call) in calls().iter().enumerate() {
        let stream = (2 * number + 1) as u8;
        let one = [
            instruction(FrameKind::Call, stream, &json(call)),
            instruction(Input, stream, b"hello"),
            instruction(Credit, stream, &credit),
            instruction(FrameKind::End, stream, b""),
            instruction(FrameKind::Cancel, stream, b""),
            instruction(FrameKind::Reset, stream, b""),
        ]
        .concat();
        write("guest_link", &format!("call-{number}"), &one);
        whole.extend(one);
    }
    whole.extend([11, Input as u8, 15, 0xff, 0xff]);
    write("guest_link", "whole", &whole);
    let mut whole = Vec::new();
    // Streams as the target opens them.
    let answers: Vec<(u8, Vec<u8>)> = vec![
        (1, instruction(FrameKind::Reply, 1, &json(&Reply::Done))),
        (
            3,
            [
                instruction(
                    FrameKind::Reply,
                    3,
                    &json(&Reply::File {
                        size_bytes: 5,
                        is_executable: false,
                    }),
                ),
                instruction(Output, 3, b"hello"),
                instruction(FrameKind::End, 3, b""),
            ]
            .concat(),
        ),
        (
            5,
            [
                instruction(Credit, 5, &(600_u32 << 10).to_be_bytes()),
                instruction(FrameKind::Reply, 5, &json(&Reply::Done)),
            ]
            .concat(),
        ),
        (
            7,
            [
                instruction(FrameKind::ErrorOutput, 7, b"oh"),
                instruction(Output, 7, b"hello"),
                instruction(FrameKind::Reply, 7, &json(&replies()[1])),
            ]
            .concat(),
        ),
        (
            9,
            [
                instruction(FrameKind::Reply, 9, &json(&Reply::Done)),
                instruction(Output, 9, &[json(&batch), b"\n".to_vec()].concat()),
                instruction(FrameKind::End, 9, b""),
            ]
            .concat(),
        ),
        (
            11,
            [
                instruction(FrameKind::Reply, 11, &json(&Reply::Done)),
                instruction(Output, 11, b"hello"),
                instruction(FrameKind::End, 11, b""),
            ]
            .concat(),
        ),
        (13, instruction(FrameKind::Reply, 13, &json(&replies()[4]))),
        (15, instruction(FrameKind::Reply, 15, &json(&replies()[2]))),
        (
            2,
            instruction(FrameKind::Open, 2, &json(&OpenRoute { route: Route::Git })),
        ),
    ];
    for (stream, answer) in &answers {
        write("host_link", &format!("stream-{stream}"), answer);
        whole.extend(answer);
    }
    whole.extend([11, Output as u8, 3, 0xff, 0xff]);
    write("host_link", "whole", &whole);
}
