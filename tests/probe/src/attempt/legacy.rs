//! What only x86 has: the system call tables of x32 and i386, which a filter on 64-bit numbers does not see, and old calls.

use super::{Attempt, Finding, answer, answer_or, last_error, proven, proven_with};

pub const ATTEMPTS: &[Attempt] = &[
    proven("call_by_x32_table", |_| {
        // getpid.
        // SAFETY: no arguments.
        answer(unsafe { libc::syscall(X32_BIT | libc::SYS_getpid) })
    }),
    proven("unshare_by_x32_table", |_| {
        // SAFETY: integers only.
        answer(unsafe { libc::syscall(X32_BIT | libc::SYS_unshare, libc::CLONE_NEWUTS) })
    }),
    proven("unshare_by_i386_table", |_| {
        // SAFETY: unshare(2) takes an integer.
        i386(&[], || unsafe { interrupt(310, libc::CLONE_NEWUTS as u32) })
    }),
    proven("user_namespace_by_i386_table", |_| {
        // SAFETY: as above.
        i386(&[], || unsafe { interrupt(310, libc::CLONE_NEWUSER as u32) })
    }),
    proven("keyring_by_i386_table", |_| {
        // KEYCTL_GET_KEYRING_ID of keyring 0, which does not exist: EINVAL only once it is looked at.
        // SAFETY: KEYCTL_GET_KEYRING_ID takes integers.
        i386(&[libc::EINVAL, libc::ENOKEY], || unsafe { interrupt(288, 0) })
    }),
    proven_with(CAP_SYS_RAWIO, "port_permission", |_| {
        // Port 0x80 is written at every boot and does nothing.
        // SAFETY: integers only; gone with this process.
        answer(unsafe { libc::ioperm(0x80, 1, 1) }.into())
    }),
    proven_with(CAP_SYS_RAWIO, "port_level", |_| {
        // SAFETY: integers only; gone with this process.
        answer(unsafe { libc::iopl(3) }.into())
    }),
    proven("local_descriptor_table", |_| {
        let mut table = [0_u8; 64];
        // SAFETY: a buffer of the given length.
        answer(unsafe { libc::syscall(libc::SYS_modify_ldt, 0, table.as_mut_ptr(), table.len()) })
    }),
    proven("load_library", |_| {
        // SAFETY: a NUL-terminated path.
        let result = unsafe { libc::syscall(libc::SYS_uselib, c"/proc/self/exe".as_ptr()) };
        answer_or(result, &[libc::ENOEXEC])
    }),
    proven("filesystem_types", |_| {
        // The number of filesystems that the kernel knows.
        // SAFETY: integers only.
        answer(unsafe { libc::syscall(libc::SYS_sysfs, 3) })
    }),
    proven("device_statistics", |_| {
        let mut buffer = [0_u8; 64];
        // SAFETY: a buffer larger than struct ustat. The device does not exist, which is found out by looking.
        let result = unsafe { libc::syscall(libc::SYS_ustat, 0xffff_ffff_u64, buffer.as_mut_ptr()) };
        answer_or(result, &[libc::EINVAL])
    }),
    proven("kernel_setting_by_number", |_| {
        // SAFETY: no memory is passed.
        answer(unsafe { libc::syscall(libc::SYS__sysctl, 0) })
    }),
];

/// capabilities(7).
const CAP_SYS_RAWIO: u32 = 17;

const X32_BIT: libc::c_long = 0x4000_0000;

/// Makes a call of the i386 table with one argument; the others are 0.
///
/// # Safety
/// The call must be safe with this argument.
unsafe fn interrupt(number: u32, argument: u32) -> i32 {
    let result: i32;
    // SAFETY: the kernel keeps all registers but rax, and clears r8 to r11 (Linux, entry_64_compat.S). rbx is LLVM's own
    // and is put back.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {argument:r}",
            "int 0x80",
            "xchg rbx, {argument:r}",
            argument = inout(reg) u64::from(argument) => _,
            inlateout("eax") number => result,
            in("ecx") 0,
            in("edx") 0,
            in("esi") 0,
            in("edi") 0,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
        );
    }
    result
}

/// Makes such a call in a process of its own, because a filter may kill who makes it, and a kernel without that table does.
///
/// An errno of `passed` comes only after the kernel has found the caller entitled.
fn i386(passed: &[i32], call: impl Fn() -> i32) -> Finding {
    // SAFETY: the child makes one call and ends; the parent waits for it.
    unsafe {
        let child = libc::fork();
        if child < 0 {
            return Finding::Refused(last_error().to_string());
        }
        if child == 0 {
            let result = call();
            libc::_exit(if result >= 0 {
                0
            } else {
                result.unsigned_abs().min(255) as i32
            });
        }
        let mut status = 0;
        libc::waitpid(child, &raw mut status, 0);
        if libc::WIFSIGNALED(status) {
            return match libc::WTERMSIG(status) {
                libc::SIGSEGV => Finding::Unavailable("the kernel has no such table".to_owned()),
                signal => Finding::Refused(format!("killed by signal {signal}")),
            };
        }
        match libc::WEXITSTATUS(status) {
            0 => Finding::Succeeded("it worked".to_owned()),
            errno if passed.contains(&errno) => Finding::Succeeded(format!(
                "was entitled: {}",
                std::io::Error::from_raw_os_error(errno)
            )),
            libc::ENOSYS => Finding::Unavailable("no such call".to_owned()),
            errno => Finding::Refused(std::io::Error::from_raw_os_error(errno).to_string()),
        }
    }
}
