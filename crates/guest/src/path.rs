//! Opens paths that the host names, and keeps those with workspace scope inside the workspace. The kernel decides
//! (openat2 RESOLVE_BENEATH), so that no race with the sandbox's own processes gets around it. It refuses every link with an
//! absolute target; those that begin with the workspace's own path are followed step by step.

use crate::beneath::{self, AbsoluteLinks};
use crate::call::without_nul;
use crate::failure::{self, CallResult, failed};
use greenroom_protocol::guest::WORKSPACE_PATH;
use greenroom_protocol::guest::call::{CallErrorCode, Scope};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Links followed by hand at the end of a path that is to be written.
const MAX_LINKS: u32 = 16;

/// Longest path in bytes (`PATH_MAX` without its NUL). The kernel refuses longer ones too, but not where we go step by step.
const MAX_PATH_BYTES: usize = 4095;

/// A path split into a place that is open and what is looked up from there.
pub struct Located {
    base: OwnedFd,
    relative: String,
    resolve: ResolveFlags,
    scope: Scope,
    /// As the host named it, for messages.
    pub shown: String,
}

/// Where a path starts; looks nothing up yet but the start.
pub fn locate(path: &str, scope: Scope) -> CallResult<Located> {
    without_nul(path)?;
    if path.len() > MAX_PATH_BYTES {
        let shown = path.chars().take(64).collect::<String>();
        return Err(os(Errno::NAMETOOLONG, &format!("{shown}…")));
    }
    let (base, relative, resolve) = match scope {
        Scope::Workspace => {
            let relative = below_workspace(path).ok_or_else(|| {
                failed(
                    CallErrorCode::OutsideWorkspace,
                    format!("{path}: is outside the workspace"),
                )
            })?;
            (
                WORKSPACE_PATH,
                relative,
                ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
            )
        }
        Scope::Sandbox if path.starts_with('/') => ("/", path.trim_start_matches('/'), ResolveFlags::empty()),
        Scope::Sandbox => (WORKSPACE_PATH, path, ResolveFlags::empty()),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let base = rustix::fs::open(base, flags, Mode::empty()).map_err(|error| os(error, WORKSPACE_PATH))?;
    let relative = if relative.is_empty() { "." } else { relative };
    Ok(Located {
        base,
        relative: relative.to_owned(),
        resolve,
        scope,
        shown: path.to_owned(),
    })
}

/// An absolute path's part below the workspace; a relative path as it is; `None` for other absolute ones.
fn below_workspace(path: &str) -> Option<&str> {
    match path.strip_prefix(WORKSPACE_PATH) {
        Some("") => Some("."),
        Some(rest) if rest.starts_with('/') => Some(rest.trim_start_matches('/')),
        _ if path.starts_with('/') => None,
        _ => Some(path),
    }
}

impl Located {
    /// Opens it, following links that stay inside.
    pub fn open(&self, flags: OFlags) -> CallResult<OwnedFd> {
        self.open_part(&self.relative, flags)
            .map_err(|error| os(error, &self.shown))
    }

    fn open_part(&self, relative: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let opening = flags | OFlags::CLOEXEC;
        retry(
            || match rustix::fs::openat2(&self.base, relative, opening, Mode::empty(), self.resolve) {
                Err(Errno::NOSYS | Errno::XDEV) => self.open_by_steps(relative, flags),
                result => result,
            },
        )
    }

    /// For kernels without openat2, and for links with an absolute target.
    fn open_by_steps(&self, relative: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        if self.resolve.contains(ResolveFlags::BENEATH) {
            let absolute = AbsoluteLinks::FromBase(WORKSPACE_PATH);
            return beneath::open(&self.base, relative, flags, absolute);
        }
        rustix::fs::openat(&self.base, relative, flags | OFlags::CLOEXEC, Mode::empty())
    }

    /// The directory that holds it, open, and its last name.
    pub fn parent(&self) -> CallResult<(OwnedFd, String)> {
        let (directory, name) = self.split()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let parent = self
            .open_part(directory, flags)
            .map_err(|error| os(error, &self.shown))?;
        Ok((parent, name.to_owned()))
    }

    /// Like [`Located::parent`], making directories that are missing.
    pub fn make_parent(&self) -> CallResult<(OwnedFd, String)> {
        let (directory, name) = self.split()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fail = |error| os(error, &self.shown);
        match self.open_part(directory, flags) {
            Ok(parent) => return Ok((parent, name.to_owned())),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(fail(error)),
        }
        let mut at = self.open_part(".", flags).map_err(fail)?;
        let mut prefix = String::new();
        for part in directory.split('/').filter(|part| !part.is_empty()) {
            if !prefix.is_empty() {
                prefix.push('/');
            }
            prefix.push_str(part);
            at = match self.open_part(&prefix, flags) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&at, part, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(fail(error)),
                    }
                    self.open_part(&prefix, flags).map_err(fail)?
                }
                opened => opened.map_err(fail)?,
            };
        }
        Ok((at, name.to_owned()))
    }

    /// If the path ends in a link, the path it leads to, for as long as it does.
    pub fn follow_last(self) -> CallResult<Self> {
        let mut path = self;
        for _ in 0..MAX_LINKS {
            let Ok((parent, name)) = path.parent() else {
                return Ok(path);
            };
            if !is_link(&parent, &name) {
                return Ok(path);
            }
            let target = rustix::fs::readlinkat(&parent, name.as_str(), Vec::new())
                .map_err(|error| os(error, &path.shown))?;
            let target = String::from_utf8_lossy(target.as_bytes()).into_owned();
            let next = if target.starts_with('/') {
                target
            } else {
                let (directory, _) = path.split()?;
                match path.scope {
                    Scope::Sandbox if path.shown.starts_with('/') => format!("/{directory}/{target}"),
                    _ => format!("{directory}/{target}"),
                }
            };
            path = Self {
                shown: path.shown,
                ..locate(&next, path.scope)?
            };
        }
        Err(failed(
            CallErrorCode::Invalid,
            format!("{}: is a circle of links", path.shown),
        ))
    }

    fn split(&self) -> CallResult<(&str, &str)> {
        let trimmed = self.relative.trim_end_matches('/');
        let (directory, name) = trimmed
            .rsplit_once('/')
            .map_or((".", trimmed), |(directory, name)| {
                (if directory.is_empty() { "." } else { directory }, name)
            });
        match name {
            "" | "." | ".." => Err(failed(
                CallErrorCode::Invalid,
                format!("{}: names no file", self.shown),
            )),
            name => Ok((directory, name)),
        }
    }
}

fn is_link(parent: &OwnedFd, name: &str) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// The place where a walk starts, open. A walk goes by paths, which the sandbox's processes may lead elsewhere meanwhile;
/// what it finds counts only as far as it is still below this place.
pub struct Root {
    located: Located,
    fd: OwnedFd,
    /// Where it was when it was opened, links resolved.
    pub path: PathBuf,
}

impl Root {
    /// Confined to the scope; `flags` beside those for a place.
    pub fn open(path: &str, scope: Scope, flags: OFlags) -> CallResult<Self> {
        let located = locate(path, scope)?;
        let fd = located.open(OFlags::PATH | flags)?;
        let path = path_of(&fd).map_err(|error| os(error, &located.shown))?;
        Ok(Self { located, fd, path })
    }

    /// Opens what a walk found; a link itself with [`OFlags::PATH`]. `None` if it is not there any more.
    pub fn reopen(&self, found: &Path, flags: OFlags) -> Option<OwnedFd> {
        let relative = found.strip_prefix(&self.path).ok()?;
        if relative.as_os_str().is_empty() {
            // A walk of one file.
            return self.located.open(flags).ok();
        }
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        retry(
            || match rustix::fs::openat2(&self.fd, relative, flags, Mode::empty(), resolve) {
                Err(Errno::NOSYS) => {
                    let relative = relative.as_os_str().as_bytes();
                    beneath::open(&self.fd, relative, flags, AbsoluteLinks::Refused)
                }
                result => result,
            },
        )
        .ok()
    }
}

/// Tries again while something was renamed meanwhile and the kernel cannot be sure.
fn retry<T>(mut open: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    let mut attempts = 0;
    loop {
        match open() {
            Err(Errno::AGAIN) if attempts < 32 => attempts += 1,
            result => return result,
        }
    }
}

/// Where an open file is now, as a path of the sandbox.
pub fn path_of(fd: impl AsFd) -> Result<PathBuf, Errno> {
    use rustix::fd::AsRawFd as _;
    use std::os::unix::ffi::OsStringExt as _;
    let link = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let target = rustix::fs::readlinkat(CWD, link, Vec::new())?;
    Ok(std::ffi::OsString::from_vec(target.into_bytes()).into())
}

/// The protocol's words for an error at a path.
pub fn os(error: Errno, shown: &str) -> greenroom_protocol::guest::call::CallError {
    failure::of(&error.into(), shown)
}

#[cfg(test)]
mod tests {
    use super::below_workspace;

    #[test]
    fn only_the_workspace_itself_is_stripped() {
        for (path, expected) in [
            ("src/a.rs", Some("src/a.rs")),
            ("/workspace", Some(".")),
            ("/workspace/", Some("")),
            ("/workspace/a", Some("a")),
            ("/workspace//a", Some("a")),
            ("/workspaces/a", None),
            ("/etc/passwd", None),
            ("../x", Some("../x")),
        ] {
            assert_eq!(below_workspace(path), expected, "{path}");
        }
    }
}
