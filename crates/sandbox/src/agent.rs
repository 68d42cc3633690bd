//! Who the agent of a sandbox is on a host where root starts it, and how files of layers become its own. On disk they belong to
//! one id, [`LAYER_ID`], whichever sandbox wrote them; an id-mapped mount (mount_setattr(2)) shows them as the sandbox's own. So
//! any sandbox can begin with what another one left, without touching a single file.

use crate::identity::{FIRST_HOST_ID, HOST_IDS};
use crate::spec::LAYER_ID;
use crate::supervise::end;
use crate::syscall::{clone_into, set_id_map};
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use std::path::Path;

/// Distance of the second id of a sandbox from its first, for runtimes that insist on one: beyond every first one.
pub(crate) const SPARE_ID_DISTANCE: u32 = HOST_IDS;

/// On disk the second id, as which gVisor makes a file before it gives it to the agent.
const SPARE_LAYER_ID: u32 = LAYER_ID + 1;

/// Ids that bases use; they stay what they are.
const BASE_IDS: u32 = 1 << 16;

/// The agent of one sandbox, as the host's kernel knows it.
#[derive(Debug)]
pub struct Agent {
    /// Uid and gid. Never 0.
    pub(crate) host_id: u32,
    /// The user namespace that maps [`LAYER_ID`] to it; `None` where mounts cannot be mapped. Then it is [`LAYER_ID`] itself, as
    /// of every sandbox of this host.
    map: Option<OwnedFd>,
}

impl Agent {
    /// One of its own, if the filesystem that holds this program can map ids: layers are kept on the same.
    pub(crate) fn choose() -> Self {
        let host_id = FIRST_HOST_ID + random() % HOST_IDS;
        let mapped = user_namespace(host_id).ok().filter(is_possible);
        match mapped {
            Some(map) => Self {
                host_id,
                map: Some(map),
            },
            None => Self {
                host_id: LAYER_ID,
                map: None,
            },
        }
    }

    /// A detached mount of a directory whose files of [`LAYER_ID`] are this agent's. What is no directory is refused.
    pub(crate) fn layer(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        let tree = open_tree(
            &directory,
            "",
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH,
        )?;
        self.own(&tree)?;
        Ok(tree)
    }

    /// Makes files of [`LAYER_ID`] in a detached mount this agent's.
    pub(crate) fn own(&self, mount: &OwnedFd) -> rustix::io::Result<()> {
        match &self.map {
            Some(map) => set_id_map(mount.as_fd(), map.as_fd()),
            None => Ok(()),
        }
    }
}

/// Overlays take mapped layers from Linux 5.19 on.
fn can_overlay_map() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 19)
}

fn is_possible(map: &OwnedFd) -> bool {
    let tree = open_tree(
        CWD,
        "/proc/self/exe",
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    );
    can_overlay_map() && tree.is_ok_and(|tree| set_id_map(tree.as_fd(), map.as_fd()).is_ok())
}

/// A user namespace in which nothing runs. It begins with a process, which ends when its maps are written.
fn user_namespace(host_id: u32) -> Result<OwnedFd, Errno> {
    let (wait, _go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: this process has one thread.
    let Some(child) = (unsafe { clone_into(libc::CLONE_NEWUSER, None) })? else {
        // For ever: it has the other end too.
        let _ = rustix::io::read(&wait, &mut [0]);
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) }
    };
    let spare_id = host_id + SPARE_ID_DISTANCE;
    let map = format!("0 0 {BASE_IDS}\n{LAYER_ID} {host_id} 1\n{SPARE_LAYER_ID} {spare_id} 1\n");
    let write = |name| {
        let written = std::fs::write(format!("/proc/{child}/{name}"), &map);
        written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    };
    let made = write("uid_map").and_then(|()| write("gid_map")).and_then(|()| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open(format!("/proc/{child}/ns/user"), flags, Mode::empty())
    });
    end(child);
    made
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // SAFETY: the buffer is as long as said. Without randomness ids are shared, which is allowed.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    u32::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_have_ids_that_nobody_else_has() {
        if !crate::identity::is_privileged() {
            eprintln!("SKIPPED-FEATURE: root is needed to map ids");
            return;
        }
        let (one, two) = (Agent::choose(), Agent::choose());
        for agent in [&one, &two] {
            let range = FIRST_HOST_ID..FIRST_HOST_ID + HOST_IDS;
            assert_eq!(agent.map.is_some(), range.contains(&agent.host_id), "{agent:?}");
            assert_eq!(agent.map.is_none(), agent.host_id == LAYER_ID, "{agent:?}");
        }
        assert!(one.map.is_none() || one.host_id != two.host_id);
    }
}
