//! From answers by number to the kernel's instructions (classic BPF, seccomp(2)). A search tree: when a filter is installed, the
//! kernel runs it once for every call that it knows, to learn which are always allowed. In a list each of these runs would
//! pass all entries, which made installing it one of the longest steps of a start.

use libc::sock_filter;
use std::collections::BTreeMap;

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35;
const JUMP_IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Offsets in `seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    Errno(u16),
}

/// What is answered to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// Each holds if all its conditions do.
    pub rules: Vec<Vec<Condition>>,
    /// If any of the rules holds.
    pub if_any: Verdict,
    pub otherwise: Verdict,
}

impl Answer {
    pub(super) fn always(verdict: Verdict) -> Self {
        Self {
            rules: Vec::new(),
            if_any: verdict,
            otherwise: verdict,
        }
    }
}

/// Something about the lower half of an argument, which are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    argument: u32,
    jump: u16,
    value: u32,
    /// Whether the jump is to be taken.
    is_wanted: bool,
}

impl Condition {
    pub(super) fn equals(argument: u32, value: u32) -> Self {
        Self {
            argument,
            jump: JUMP_IF_EQUAL,
            value,
            is_wanted: true,
        }
    }

    pub(super) fn differs(argument: u32, value: u32) -> Self {
        Self {
            is_wanted: false,
            ..Self::equals(argument, value)
        }
    }

    /// Any of them.
    pub(super) fn has_bits(argument: u32, bits: u32) -> Self {
        Self {
            jump: JUMP_IF_ANY_BIT,
            ..Self::equals(argument, bits)
        }
    }
}

/// Compiles answers, by the number at which each begins; 0 is among them. Calls of another machine's table end the process.
pub(super) fn compile(arch: u32, ranges: &BTreeMap<u32, Answer>) -> Vec<sock_filter> {
    let mut merged: Vec<(u32, &Answer)> = Vec::new();
    for (from, answer) in ranges {
        if merged.last().is_none_or(|(_, last)| *last != answer) {
            merged.push((*from, answer));
        }
    }
    let front = [
        step(LOAD, 0, 0, ARCH),
        step(JUMP_IF_EQUAL, 1, 0, arch),
        step(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        step(LOAD, 0, 0, NUMBER),
    ];
    front.into_iter().chain(search(&merged)).collect()
}

fn step(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// Finds the last range that begins at the loaded number or before.
fn search(ranges: &[(u32, &Answer)]) -> Vec<sock_filter> {
    let (lower, upper) = match ranges {
        [] => return Vec::new(),
        [(_, answer)] => return block(answer),
        _ => ranges.split_at(ranges.len() / 2),
    };
    let first_of_upper = upper[0].0;
    let (lower, upper) = (search(lower), search(upper));
    let mut program = match u8::try_from(lower.len()) {
        Ok(over) => vec![step(JUMP_IF_GREATER_OR_EQUAL, over, 0, first_of_upper)],
        // Further than a condition can jump.
        Err(_) => vec![
            step(JUMP_IF_GREATER_OR_EQUAL, 0, 1, first_of_upper),
            step(JUMP, 0, 0, lower.len() as u32),
        ],
    };
    program.extend(lower);
    program.extend(upper);
    program
}

fn block(answer: &Answer) -> Vec<sock_filter> {
    let mut program = Vec::new();
    for rule in &answer.rules {
        for (position, condition) in rule.iter().enumerate() {
            // Over the other conditions and the verdict. Rules are short.
            let over = (2 * (rule.len() - position - 1) + 1) as u8;
            let (jt, jf) = match condition.is_wanted {
                true => (0, over),
                false => (over, 0),
            };
            program.push(step(LOAD, 0, 0, ARGUMENTS + 8 * condition.argument));
            program.push(step(condition.jump, jt, jf, condition.value));
        }
        program.push(verdict(answer.if_any));
    }
    program.push(verdict(answer.otherwise));
    program
}

fn verdict(verdict: Verdict) -> sock_filter {
    let value = match verdict {
        Verdict::Allow => libc::SECCOMP_RET_ALLOW,
        Verdict::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
    };
    step(RETURN, 0, 0, value)
}
