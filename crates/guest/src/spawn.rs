//! Makes a process and has it execute a program. The child borrows the guest's memory until then (`CLONE_VFORK`, as
//! posix_spawn(3) does it), which spares a copy of every page table at each call; the C library's own way cannot make it the
//! leader of a terminal's session.

use rustix::fd::{AsRawFd as _, OwnedFd};
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString, c_char, c_int, c_void};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};

/// More than the few frames of the child need, in bytes.
const STACK_BYTES: usize = 64 << 10;

/// Of everything but the guest, so that running out of memory ends a program and not the sandbox.
const OOM_SCORE: i32 = 500;

/// The guest's own entry, opened while it may be, and what it held. A child begins with what the guest has at that moment.
static SCORE: OnceLock<Option<(File, i32)>> = OnceLock::new();

/// Opens what [`Program::spawn`] needs of this process, before it closes itself to those of its uid.
pub fn open_score() {
    score();
}

fn score() -> Option<&'static (File, i32)> {
    let open = || {
        let mut file = File::options()
            .read(true)
            .write(true)
            .open("/proc/self/oom_score_adj")
            .ok()?;
        let mut own = String::new();
        file.read_to_string(&mut own).ok()?;
        Some((file, own.trim().parse().ok()?))
    };
    SCORE.get_or_init(open).as_ref()
}

/// The guest has the score of programs while one begins: it cannot be set later, as the program may have children by then, nor
/// by the child, whose memory is the guest's.
fn with_raised_score<T>(begin: impl FnOnce() -> T) -> T {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Best effort, as there is nobody to tell.
    let set = |value: i32| score().map(|(file, _)| file.write_at(value.to_string().as_bytes(), 0));
    let own = score().map_or(0, |(_, own)| *own);
    // Never below the guest's own.
    set(OOM_SCORE.max(own));
    let begun = begin();
    set(own);
    begun
}

/// Where programs are looked for without a `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Executes what has no other interpreter, as execvp(3) does.
const SHELL: &std::ffi::CStr = c"/bin/sh";

/// A program with all that it begins with, in the kernel's form.
pub struct Program {
    /// Where it may be, in order.
    candidates: Vec<CString>,
    arguments: Vec<CString>,
    variables: Vec<CString>,
    cwd: CString,
    /// Standard input, output and error.
    ends: [OwnedFd; 3],
    is_on_terminal: bool,
}

impl Program {
    /// `argv` has at least the program's name. It gets the guest's own variables and `variables`, of which later ones win. On a
    /// terminal, which is its input, it is the leader of the terminal's session. Texts with NUL are refused.
    pub fn new(
        argv: &[String],
        variables: &[(String, String)],
        cwd: &Path,
        ends: [OwnedFd; 3],
        is_on_terminal: bool,
    ) -> io::Result<Self> {
        let mut all: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        all.extend(variables.iter().map(|(name, value)| (name.into(), value.into())));
        let name = argv.first().map_or("", String::as_str);
        let path = all.get(OsStr::new("PATH")).map(OsString::as_os_str);
        let texts = |texts: Vec<Vec<u8>>| -> io::Result<Vec<CString>> {
            texts.into_iter().map(|text| Ok(CString::new(text)?)).collect()
        };
        Ok(Self {
            candidates: texts(candidates(name, path.unwrap_or(DEFAULT_PATH.as_ref())))?,
            arguments: texts(argv.iter().map(|text| text.clone().into_bytes()).collect())?,
            variables: texts(
                all.iter()
                    .map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat())
                    .collect(),
            )?,
            cwd: CString::new(cwd.as_os_str().as_bytes())?,
            ends,
            is_on_terminal,
        })
    }

    /// Starts it and returns its process number. The process is a child of this one that nobody waited for.
    pub fn spawn(&self) -> io::Result<i32> {
        let plan = Plan::of(self);
        let mut orders = Orders {
            plan: &plan,
            errno: 0,
        };
        let mut stack = vec![0_u128; STACK_BYTES / size_of::<u128>()];
        let top = stack.as_mut_ptr_range().end;
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let restored = block_all_signals();
        let orders_of_child = (&raw mut orders).cast();
        let (pid, error) = with_raised_score(|| {
            // SAFETY: the child runs `begin` on a stack of its own, which grows downwards from its aligned end, and the kernel
            // holds this thread until the child has executed a program or ended; so all that the orders lead to outlives its
            // use.
            let pid = unsafe { libc::clone(begin, top.cast(), flags, orders_of_child) };
            (pid, io::Error::last_os_error())
        });
        restore_signals(&restored);
        // SAFETY: the child, which alone wrote to it, is done; the compiler does not know that it did.
        let errno = unsafe { ptr::read_volatile(&raw const orders.errno) };
        match (pid, errno) {
            (-1, _) => Err(error),
            (_, 0) => Ok(pid),
            _ => {
                let mut status = 0;
                // SAFETY: collects the child, which ended.
                unsafe { libc::waitpid(pid, &raw mut status, 0) };
                Err(io::Error::from_raw_os_error(errno))
            }
        }
    }
}

/// Where a program of this name may be: there if it is a path, or in the directories of `PATH`.
fn candidates(name: &str, path: &OsStr) -> Vec<Vec<u8>> {
    let name = name.as_bytes();
    if name.is_empty() || name.contains(&b'/') {
        return vec![name.to_vec()];
    }
    path.as_bytes()
        .split(|byte| *byte == b':')
        .map(|directory| match directory {
            // The working directory.
            b"" => [b"./", name].concat(),
            _ => [directory, b"/", name].concat(),
        })
        .collect()
}

/// A [`Program`] as pointers, so that the child needs no memory.
struct Plan<'a> {
    program: &'a Program,
    arguments: Vec<*const c_char>,
    variables: Vec<*const c_char>,
    /// Of [`SHELL`], whose second is each candidate in turn.
    shell_arguments: Vec<*const c_char>,
}

impl<'a> Plan<'a> {
    fn of(program: &'a Program) -> Self {
        let pointers = |texts: &'a [CString]| texts.iter().map(|text| text.as_ptr());
        let end = [ptr::null()];
        Self {
            program,
            arguments: pointers(&program.arguments).chain(end).collect(),
            variables: pointers(&program.variables).chain(end).collect(),
            shell_arguments: [SHELL.as_ptr(), ptr::null()]
                .into_iter()
                .chain(pointers(&program.arguments).skip(1))
                .chain(end)
                .collect(),
        }
    }
}

/// What the child gets and gives.
struct Orders<'a> {
    plan: &'a Plan<'a>,
    /// Why nothing was executed.
    errno: c_int,
}

/// The child's life until the program. Makes system calls and nothing else: its memory is the guest's.
extern "C" fn begin(orders: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes its orders and waits.
    let orders = unsafe { &mut *orders.cast::<Orders<'_>>() };
    // SAFETY: system calls with valid arguments; signal handlers are the child's own, all signals are blocked.
    unsafe {
        orders.errno = match prepare(orders.plan.program) {
            true => execute(orders.plan),
            false => errno(),
        };
        ptr::read_volatile(&raw const orders.errno)
    }
}

/// Own session and group, default signals, its ends, its directory.
unsafe fn prepare(program: &Program) -> bool {
    // SAFETY: system calls with integers and texts that end with NUL.
    unsafe {
        libc::setsid();
        // Also those with a handler of the guest's: it must not run in the guest's memory once signals are let in.
        for signal in [libc::SIGPIPE, libc::SIGSEGV, libc::SIGBUS] {
            libc::signal(signal, libc::SIG_DFL);
        }
        for (number, end) in (0..).zip(&program.ends) {
            if libc::dup2(end.as_raw_fd(), number) < 0 {
                return false;
            }
        }
        if program.is_on_terminal && libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
            return false;
        }
        if libc::chdir(program.cwd.as_ptr()) < 0 {
            return false;
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) == 0
    }
}

/// Returns only with the reason why nothing was executed; of several places, as execvp(3).
unsafe fn execute(plan: &Plan<'_>) -> c_int {
    let is_searched = plan.program.candidates.len() > 1;
    let mut reason = libc::ENOENT;
    for candidate in &plan.program.candidates {
        // SAFETY: texts and lists that end as they must.
        let failed = unsafe {
            libc::execve(
                candidate.as_ptr(),
                plan.arguments.as_ptr(),
                plan.variables.as_ptr(),
            );
            errno()
        };
        match failed {
            libc::ENOENT
            | libc::ENOTDIR
            | libc::ENAMETOOLONG
            | libc::ESTALE
            | libc::ENODEV
            | libc::ETIMEDOUT
                if is_searched => {}
            libc::EACCES => reason = failed,
            libc::ENOEXEC => {
                // SAFETY: as above; the place in the list is the child's to write, nobody else reads it.
                return unsafe {
                    plan.shell_arguments
                        .as_ptr()
                        .cast_mut()
                        .add(1)
                        .write(candidate.as_ptr());
                    libc::execve(
                        SHELL.as_ptr(),
                        plan.shell_arguments.as_ptr(),
                        plan.variables.as_ptr(),
                    );
                    errno()
                };
            }
            _ => return failed,
        }
    }
    reason
}

unsafe fn errno() -> c_int {
    // SAFETY: the address of this thread's number.
    unsafe { *libc::__errno_location() }
}

/// For this thread: a handler that ran in the child would run in the guest's memory.
fn block_all_signals() -> libc::sigset_t {
    // SAFETY: both sets are initialised before they are read.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        before
    }
}

fn restore_signals(before: &libc::sigset_t) {
    // SAFETY: a set that the kernel gave.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, ptr::from_ref(before), ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::os::unix::fs::PermissionsExt as _;

    /// What a program wrote, and its wait status.
    fn run(argv: &[&str], variables: &[(&str, &str)], cwd: &Path) -> io::Result<(String, i32)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        let argv: Vec<String> = argv.iter().map(|text| (*text).to_owned()).collect();
        let variables: Vec<(String, String)> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let null = || std::fs::File::open("/dev/null").map(OwnedFd::from);
        let program = Program::new(&argv, &variables, cwd, [null()?, write, null()?], false)?;
        let pid = program.spawn()?;
        drop(program);
        let mut output = String::new();
        std::fs::File::from(read).read_to_string(&mut output)?;
        let mut status = 0;
        // SAFETY: `status` is a valid int.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        Ok((output, status))
    }

    #[test]
    fn a_program_has_its_arguments_variables_directory_and_session() {
        let script = r#"echo "$0 $1 $NAME"; pwd; test "$(cut -d' ' -f6 /proc/$$/stat)" = $$ && echo leads"#;
        let argv = ["sh", "-c", script, "zero", "one two"];
        let (output, status) =
            run(&argv, &[("NAME", "first"), ("NAME", "value")], Path::new("/usr")).unwrap();
        assert_eq!(
            (output.as_str(), status),
            ("zero one two value\n/usr\nleads\n", 0)
        );
        // By default signals end it, also the one that Rust programs ignore.
        let (_, status) = run(&["sh", "-c", "kill -PIPE $$"], &[], Path::new("/")).unwrap();
        assert_eq!(libc::WTERMSIG(status), libc::SIGPIPE);
        let (output, _) = run(&["cat", "/proc/self/oom_score_adj"], &[], Path::new("/")).unwrap();
        assert_eq!(output, "500\n");
        let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        assert_ne!(own, "500\n", "the guest's is its own again");
    }

    #[test]
    fn programs_are_looked_for_like_a_shell_does() {
        let temp = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str, mode| {
            let path = temp.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        file("locked/tool", "", 0o644);
        file("open/tool", "#!/bin/sh\necho found\n", 0o755);
        file("bare", "echo \"$1\"\n", 0o755);
        let path = |names: &[&str]| -> String {
            let all: Vec<String> = names
                .iter()
                .map(|name| temp.path().join(name).display().to_string())
                .collect();
            all.join(":")
        };
        let found = |argv: &[&str], path: &str| {
            let ran = run(argv, &[("PATH", path)], temp.path());
            ran.map(|(output, _)| output)
                .map_err(|error| error.raw_os_error().unwrap())
        };
        let both = path(&["nothing", "locked", "open"]);
        assert_eq!(found(&["tool"], &both).as_deref(), Ok("found\n"));
        assert_eq!(found(&["tool"], &path(&["locked"])), Err(libc::EACCES));
        assert_eq!(found(&["tool"], &path(&["nothing"])), Err(libc::ENOENT));
        assert_eq!(found(&["tool"], ""), Err(libc::ENOENT));
        assert_eq!(found(&[""], &both), Err(libc::ENOENT));
        assert_eq!(found(&["open/tool"], "").as_deref(), Ok("found\n"));
        // An empty entry is the working directory; without a first line it is the shell's.
        assert_eq!(found(&["bare", "shell"], "").as_deref(), Ok("shell\n"));
        assert_eq!(found(&["./bare", "shell"], "/bin").as_deref(), Ok("shell\n"));
    }

    #[test]
    fn what_cannot_begin_says_why_and_leaves_nothing() {
        let failed = |argv: &[&str], cwd: &str| {
            let error = run(argv, &[], Path::new(cwd)).unwrap_err();
            error.raw_os_error().unwrap()
        };
        assert_eq!(failed(&["true"], "/nonexistent"), libc::ENOENT);
        assert_eq!(failed(&["/"], "/"), libc::EACCES);
        assert_eq!(failed(&["/etc/passwd/x"], "/"), libc::ENOTDIR);
        // SAFETY: integers and a null pointer.
        let left = unsafe { libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) };
        assert_eq!(left, -1, "no child waits to be collected");
    }
}
