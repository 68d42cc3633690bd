//! What the compiled filter answers, found by running it as the kernel does (bpf(4), seccomp(2)).

use super::*;

/// `struct seccomp_data`.
#[derive(Debug, Clone, Copy)]
struct Data {
    number: u32,
    arch: u32,
    arguments: [u64; 6],
}

impl Data {
    /// The 32-bit word at an offset; both architectures are little-endian.
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            // The instruction pointer.
            8 | 12 => 0,
            16..64 if offset.is_multiple_of(4) => {
                let argument = self.arguments[(offset as usize - 16) / 8];
                (argument >> (offset % 8 * 8)) as u32
            }
            _ => panic!("offset {offset}"),
        }
    }
}

/// Runs a filter to what it returns.
/// How many instructions that took is the second answer.
fn run(program: &[sock_filter], data: &Data) -> (u32, usize) {
    let (mut at, mut accumulator, mut steps) = (0_usize, 0_u32, 0);
    loop {
        steps += 1;
        let instruction = &program[at];
        at += 1;
        let k = instruction.k;
        let is_met = match instruction.code {
            // Load, and, return.
            0x20 => {
                accumulator = data.word(k);
                continue;
            }
            0x54 => {
                accumulator &= k;
                continue;
            }
            0x06 => return (k, steps),
            // Jump always, if equal, greater, greater or equal, any bit.
            0x05 => {
                at += k as usize;
                continue;
            }
            0x15 => accumulator == k,
            0x25 => accumulator > k,
            0x35 => accumulator >= k,
            0x45 => accumulator & k != 0,
            code => panic!("instruction {code:#x}"),
        };
        at += usize::from(if is_met { instruction.jt } else { instruction.jf });
    }
}

/// What the filter answers.
fn answer_on(arch: u32, number: i64, arguments: [u64; 6]) -> u32 {
    let data = Data {
        number: number as u32,
        arch,
        arguments,
    };
    run(program(false), &data).0
}

fn answer(number: i64, arguments: [u64; 6]) -> u32 {
    answer_on(AUDIT_ARCH, number, arguments)
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

#[test]
fn it_fits_the_kernel() {
    let len = program(false).len();
    assert!(len > 4 && len < 4096, "{len} instructions");
}

/// The kernel runs it for each of its calls at every start.
#[test]
fn every_answer_is_found_in_a_few_steps() {
    for number in 0..1000 {
        let data = Data {
            number,
            arch: AUDIT_ARCH,
            arguments: [0; 6],
        };
        let (_, steps) = run(program(false), &data);
        assert!(steps <= 32, "call {number}: {steps}");
    }
}

#[test]
fn no_call_is_listed_twice() {
    let mut numbers: Vec<i64> = DENIED
        .iter()
        .chain(ABSENT)
        .chain(ALLOWED)
        .map(|(_, number)| *number)
        .collect();
    let all = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), all);
}

/// Of the calls that came since every architecture has the same numbers none was forgotten.
#[test]
fn every_newer_call_is_decided() {
    let decided: Vec<i64> = DENIED
        .iter()
        .chain(ABSENT)
        .chain(ALLOWED)
        .map(|(_, number)| *number)
        .collect();
    let missing: Vec<i64> = (424..=470).filter(|number| !decided.contains(number)).collect();
    assert_eq!(missing, Vec::<i64>::new());
}

#[test]
fn listed_calls_are_refused_whatever_their_arguments_and_others_are_not() {
    for arguments in [[0; 6], [u64::MAX; 6], [1, 2, 3, 4, 5, 6], [1 << 32; 6]] {
        for number in 0..1000 {
            let is_in = |list: &[(&str, i64)]| list.iter().any(|(_, listed)| *listed == number);
            let expected = match () {
                () if is_in(DENIED) => EPERM,
                () if is_in(ABSENT) => ENOSYS,
                // Looked at below.
                () if [
                    libc::SYS_clone,
                    libc::SYS_socket,
                    libc::SYS_socketpair,
                    libc::SYS_ioctl,
                ]
                .contains(&number) =>
                {
                    continue;
                }
                () => ALLOW,
            };
            assert_eq!(
                answer(number, arguments),
                expected,
                "call {number} with {arguments:x?}"
            );
        }
    }
}

#[test]
fn arguments_decide_about_clones_sockets_and_terminals() {
    let high = 0xdead_beef_0000_0000;
    let family = |family: i32| family as u64;
    let netlink = family(libc::AF_NETLINK);
    let namespaces = NAMESPACE_FLAGS.iter().map(|flag| *flag as u64);
    let thread =
        (libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD)
            as u64;
    let mut cases = vec![
        (libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0], ALLOW),
        (libc::SYS_clone, [thread, 0, 0], ALLOW),
        (
            libc::SYS_clone,
            [(libc::CLONE_VFORK | libc::CLONE_VM) as u64, 0, 0],
            ALLOW,
        ),
        (libc::SYS_clone, [u64::MAX, 0, 0], EPERM),
        (libc::SYS_ioctl, [0, 0x5401, 0], ALLOW),
        (libc::SYS_ioctl, [0, 0x5413, 0x5412], ALLOW),
        (libc::SYS_ioctl, [0, 0x5412, 0], EPERM),
        (libc::SYS_ioctl, [0, 0x541c, 0], EPERM),
        // The kernel looks at 32 bits.
        (libc::SYS_ioctl, [0, high | 0x5412, 0], EPERM),
        (libc::SYS_socket, [high | family(libc::AF_UNIX), 1, 0], ALLOW),
        (libc::SYS_socket, [high | family(libc::AF_VSOCK), 1, 0], UNKNOWN),
        (libc::SYS_socket, [netlink, 3, high | 12], UNKNOWN),
        (libc::SYS_socket, [netlink, 3, high], ALLOW),
        (libc::SYS_socket, [high | netlink, 3, 16], UNKNOWN),
        // A protocol of another family may have the same number.
        (libc::SYS_socket, [family(libc::AF_INET), 2, 17], ALLOW),
        (libc::SYS_socketpair, [high | family(libc::AF_UNIX), 1, 0], ALLOW),
    ];
    for flag in namespaces {
        cases.push((libc::SYS_clone, [flag, 0, 0], EPERM));
        cases.push((libc::SYS_clone, [flag | libc::SIGCHLD as u64, 0, 0], EPERM));
    }
    for number in 0..64 {
        let is_known = SOCKET_FAMILIES.contains(&number);
        let expected = if is_known { ALLOW } else { UNKNOWN };
        cases.push((libc::SYS_socket, [family(number), 1, 0], expected));
        let expected = if number == libc::AF_UNIX { ALLOW } else { EPERM };
        cases.push((libc::SYS_socketpair, [family(number), 1, 0], expected));
        // NETLINK_ROUTE and NETLINK_SOCK_DIAG.
        let expected = if [0, 4].contains(&number) { ALLOW } else { UNKNOWN };
        cases.push((libc::SYS_socket, [netlink, 3, number as u64], expected));
    }
    for (number, [one, two, three], expected) in cases {
        let arguments = [one, two, three, 0, 0, 0];
        assert_eq!(
            answer(number, arguments),
            expected,
            "call {number} with {arguments:x?}"
        );
    }
}

#[test]
fn other_tables_of_calls_are_closed() {
    // 32-bit programs (i386, arm), and the other architecture.
    for arch in [0x4000_0003, 0x4000_0028, AUDIT_ARCH ^ 0x89, 0] {
        for number in [0, 11, libc::SYS_getpid, 424, 1000] {
            let answer = answer_on(arch, number, [0; 6]);
            assert!(
                ![ALLOW, EPERM].contains(&answer),
                "call {number} of {arch:#x}: {answer:#x}"
            );
        }
    }
    #[cfg(target_arch = "x86_64")]
    for number in [0, 39, 59, 101, 321, 424, 512, 547, 0x3fff_ffff] {
        assert_eq!(answer(number | 0x4000_0000, [0; 6]), ENOSYS, "x32 call {number}");
    }
}

#[test]
fn a_root_is_told_that_it_may_and_refused_the_rest() {
    let answer = |number: i64| {
        let data = Data {
            number: number as u32,
            arch: AUDIT_ARCH,
            arguments: [0; 6],
        };
        run(program(true), &data).0
    };
    for (name, number) in PRETENDED {
        assert_eq!(answer(*number), libc::SECCOMP_RET_ERRNO, "{name}");
        assert_eq!(self::answer(*number, [0; 6]), ALLOW, "{name} of others");
    }
    for (name, number) in DENIED {
        assert_eq!(answer(*number), EPERM, "{name}");
    }
    for number in [
        libc::SYS_getuid,
        libc::SYS_fchmod,
        libc::SYS_openat,
        libc::SYS_mknodat,
    ] {
        assert_eq!(answer(number), ALLOW, "{number}");
    }
}
