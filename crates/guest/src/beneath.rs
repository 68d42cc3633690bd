//! Opens a path that must not lead out of a directory, step by step: for kernels without openat2 (gVisor), and for links that
//! name the directory itself by its absolute path. Answers otherwise what `RESOLVE_BENEATH` with `RESOLVE_NO_MAGICLINKS`
//! would; each step is taken from a directory that is held open, and the way up is the way that was come, so that what is
//! renamed meanwhile leads nowhere else.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// Links followed on the way (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// Directories held open on the way, each of which is a descriptor.
const MAX_DEPTH: usize = 256;

/// What becomes of links whose target is an absolute path.
#[derive(Debug, Clone, Copy)]
pub enum AbsoluteLinks<'a> {
    /// They lead out.
    Refused,
    /// The base has this path; those that begin with it lead on from there, others out.
    FromBase(&'a str),
}

/// Opens `path`, relative to `base` and never above it.
pub fn open(
    base: &OwnedFd,
    path: impl AsRef<[u8]>,
    flags: OFlags,
    absolute: AbsoluteLinks<'_>,
) -> Result<OwnedFd, Errno> {
    let mut way: Vec<OwnedFd> = Vec::new();
    // Still to go, the next step last.
    let mut steps = Vec::new();
    push_steps(&mut steps, path.as_ref())?;
    let mut links = 0;
    while let Some(step) = steps.pop() {
        let here = way.last().unwrap_or(base);
        match step.as_slice() {
            b"." => continue,
            b".." => {
                way.pop().ok_or(Errno::XDEV)?;
                continue;
            }
            _ => {}
        }
        let is_last = steps.is_empty();
        if is_last && flags.contains(OFlags::NOFOLLOW) {
            return openat(here, &step, flags);
        }
        let looked = openat(here, &step, OFlags::PATH | OFlags::NOFOLLOW)?;
        match FileType::from_raw_mode(rustix::fs::fstat(&looked)?.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                let target = rustix::fs::readlinkat(here, step.as_slice(), Vec::new())?;
                match from_base(target.as_bytes(), absolute) {
                    Some(rest) => {
                        way.clear();
                        if !rest.is_empty() {
                            push_steps(&mut steps, rest)?;
                        }
                    }
                    None => push_steps(&mut steps, target.as_bytes())?,
                }
            }
            FileType::Directory if way.len() == MAX_DEPTH => return Err(Errno::NAMETOOLONG),
            FileType::Directory => way.push(looked),
            _ if !is_last => return Err(Errno::NOTDIR),
            _ => {
                return match openat(here, &step, flags | OFlags::NOFOLLOW) {
                    // It became a link since it was looked at.
                    Err(Errno::LOOP) => Err(Errno::AGAIN),
                    opened => opened,
                };
            }
        }
    }
    openat(way.last().unwrap_or(base), b".", flags)
}

fn openat(at: &OwnedFd, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(at.as_fd(), name, flags | OFlags::CLOEXEC, Mode::empty())
}

/// What an absolute path names below the base; `None` if it is another path.
fn from_base<'a>(target: &'a [u8], absolute: AbsoluteLinks<'_>) -> Option<&'a [u8]> {
    let AbsoluteLinks::FromBase(base) = absolute else {
        return None;
    };
    let rest = target.strip_prefix(base.as_bytes())?;
    match rest.iter().position(|byte| *byte != b'/') {
        None => Some(&[]),
        Some(0) => None,
        Some(begin) => Some(&rest[begin..]),
    }
}

/// Puts the steps of a path before those that are still to go.
fn push_steps(steps: &mut Vec<Vec<u8>>, path: &[u8]) -> Result<(), Errno> {
    if path.starts_with(b"/") {
        return Err(Errno::XDEV);
    }
    if path.is_empty() {
        return Err(Errno::NOENT);
    }
    // What ends in a slash is a directory.
    if path.ends_with(b"/") {
        steps.push(b".".to_vec());
    }
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
    steps.extend(names.rev().map(<[u8]>::to_vec));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, ResolveFlags};
    use std::os::linux::fs::MetadataExt as _;
    use std::os::unix::fs::symlink;

    /// What was opened, or why not, by both ways.
    #[test]
    fn it_answers_what_the_kernel_answers() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/file"), "x").unwrap();
        std::fs::write(temp.path().join("outside"), "x").unwrap();
        for (target, link) in [
            ("a", "to_dir"),
            ("a/file", "to_file"),
            ("../outside", "out"),
            ("/etc/passwd", "absolute"),
            ("loop", "loop"),
            ("b/../../a/b", "a/round"),
            ("..", "a/up"),
            ("missing", "dangling"),
            ("a/file/", "file_as_dir"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        let base = rustix::fs::openat(CWD, &root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let inode = |opened: Result<OwnedFd, Errno>| opened.map(|fd| rustix::fs::fstat(&fd).unwrap().st_ino);
        for path in [
            ".",
            "a",
            "a/",
            "a/b",
            "a/./b",
            "a//b",
            "a/b/..",
            "a/b/../..",
            "..",
            "../root",
            "a/../..",
            "a/file",
            "a/file/",
            "a/file/x",
            "missing",
            "missing/x",
            "to_dir",
            "to_dir/file",
            "to_dir/",
            "to_file",
            "to_file/",
            "out",
            "absolute",
            "loop",
            "loop/x",
            "a/round",
            "a/up",
            "a/up/a",
            "a/up/..",
            "dangling",
            "file_as_dir",
            "/etc",
            "",
        ] {
            for flags in [
                OFlags::PATH,
                OFlags::RDONLY,
                OFlags::PATH | OFlags::NOFOLLOW,
                OFlags::RDONLY | OFlags::NOFOLLOW,
                OFlags::PATH | OFlags::DIRECTORY,
            ] {
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                let expected = rustix::fs::openat2(&base, path, flags, Mode::empty(), resolve);
                assert_eq!(
                    inode(open(&base, path, flags, AbsoluteLinks::Refused)),
                    inode(expected),
                    "{path:?} with {flags:?}"
                );
            }
        }
    }

    /// What a path through links with absolute targets leads to, or why not.
    #[test]
    fn absolute_links_lead_on_below_the_base() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap().join("root");
        let outside = root.parent().unwrap().join("rootx");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        for file in [root.join("a/file"), outside.join("file")] {
            std::fs::write(file, "x").unwrap();
        }
        let root_path = root.to_str().unwrap();
        for (target, link) in [
            ("", "to_root"),
            ("/", "to_root_slash"),
            ("/a", "to_dir"),
            ("//a/", "a/b/to_dir"),
            ("/a/file", "to_file"),
            ("/to_dir/file", "twice"),
            ("/loop", "loop"),
            ("/..", "above"),
            ("/../rootx/file", "around"),
            ("/a/../../root/a", "out_and_back"),
            ("x/file", "alike"),
            ("/missing", "dangling"),
        ] {
            symlink(format!("{root_path}{target}"), root.join(link)).unwrap();
        }
        symlink("to_dir/file", root.join("relative")).unwrap();
        symlink("/etc/passwd", root.join("etc")).unwrap();
        let base = rustix::fs::openat(CWD, &root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for (path, expected) in [
            ("to_root", Ok(".")),
            ("to_root/a/file", Ok("a/file")),
            ("to_root_slash/a", Ok("a")),
            ("to_dir", Ok("a")),
            ("to_dir/", Ok("a")),
            ("to_dir/file", Ok("a/file")),
            ("to_dir/..", Ok(".")),
            ("to_dir/../..", Err(Errno::XDEV)),
            ("a/b/to_dir/b", Ok("a/b")),
            ("to_file", Ok("a/file")),
            ("to_file/x", Err(Errno::NOTDIR)),
            ("twice", Ok("a/file")),
            ("relative", Ok("a/file")),
            ("loop", Err(Errno::LOOP)),
            ("above", Err(Errno::XDEV)),
            ("around", Err(Errno::XDEV)),
            ("out_and_back", Err(Errno::XDEV)),
            ("alike", Err(Errno::XDEV)),
            ("etc", Err(Errno::XDEV)),
            ("dangling", Err(Errno::NOENT)),
        ] {
            let inode =
                |opened: Result<OwnedFd, Errno>| opened.map(|fd| rustix::fs::fstat(&fd).unwrap().st_ino);
            let opened = open(&base, path, OFlags::RDONLY, AbsoluteLinks::FromBase(root_path));
            let expected = expected.map(|path| std::fs::metadata(root.join(path)).unwrap().st_ino());
            assert_eq!(inode(opened), expected, "{path}");
        }
        // The link itself, where no link is to be followed.
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let link = open(&base, "to_dir", flags, AbsoluteLinks::FromBase(root_path)).unwrap();
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&link).unwrap().st_mode);
        assert_eq!(kind, FileType::Symlink);
    }
}
