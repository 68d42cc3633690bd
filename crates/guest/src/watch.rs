//! Reports changes of files while they happen. One inotify watch per directory; `.git` and what .gitignore names are left
//! out, because their noise would hide the rest and use up the kernel's watches.

mod pending;

use crate::failure::{CallResult, failed};
use crate::file::DRAFT_PREFIX;
use crate::path::{locate, os, path_of};
use crate::stream::Stream;
use crate::tree::{self, LeftOut, LeftOutThere};
use crate::wake;
use greenroom_protocol::guest::call::{CallErrorCode, ChangeKind, Reply, Scope};
use greenroom_protocol::guest::frame::FrameKind;
use pending::Pending;
use rustix::event::PollFlags;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between the first change and the batch that tells of it.
const BATCH_PERIOD: Duration = Duration::from_millis(60);

/// Directories watched by one call; with more the batches say that they are incomplete.
const MAX_DIRECTORIES: usize = 8192;

/// Looks at a tree until it stops growing; one that grows faster than it is looked at is incomplete.
const MAX_LOOKS: u32 = 8;

/// Inotify instances are few (128 per user), and each watcher has a thread.
const TOO_MANY: &str = "too many directories are being watched";

/// Replies once watching and reports to the end; only an early failure is left to the caller.
pub fn watch(stream: &Arc<Stream>, path: &str, scope: Scope) -> CallResult<()> {
    let directory = locate(path, scope)?.open(OFlags::PATH | OFlags::DIRECTORY)?;
    let root = path_of(&directory).map_err(|error| os(error, path))?;
    // Held open, a directory that is removed would never be gone.
    drop(directory);
    let inotify =
        inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|error| match error {
            Errno::MFILE => failed(CallErrorCode::Os, TOO_MANY),
            error => os(error, path),
        })?;
    let mut watcher = Watcher {
        inotify,
        root,
        paths: HashMap::new(),
        watches: BTreeMap::new(),
        pending: Pending::default(),
        left_out: None,
        is_over: false,
    };
    watcher.add(Path::new("")).map_err(|error| match error {
        Errno::NOSPC => failed(CallErrorCode::Os, TOO_MANY),
        error => os(error, path),
    })?;
    watcher.add_tree(Path::new(""), Report::Nothing);
    stream.reply(&Reply::Done);
    watcher.report(stream);
    Ok(())
}

/// What to tell of a tree that is added.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Report {
    Nothing,
    /// Everything below it is new.
    Created,
}

struct Watcher {
    inotify: OwnedFd,
    root: PathBuf,
    /// Directories by watch, relative to the root.
    paths: HashMap<i32, PathBuf>,
    /// The other way round. Sorted by component, so that a subtree is a range.
    watches: BTreeMap<PathBuf, i32>,
    pending: Pending,
    /// Of the directory where something changed last, until the next batch.
    left_out: Option<(PathBuf, LeftOutThere)>,
    /// The root is gone.
    is_over: bool,
}

impl Watcher {
    fn add(&mut self, relative: &Path) -> Result<(), Errno> {
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW
            | WatchFlags::EXCL_UNLINK;
        // With an empty path joined it would end in a slash and follow a link.
        let path = match relative.as_os_str().is_empty() {
            true => self.root.clone(),
            false => self.root.join(relative),
        };
        let watch = inotify::add_watch(&self.inotify, path, flags)?;
        // The kernel knows a directory under its old name that was not yet seen to move.
        if let Some(old) = self.paths.insert(watch, relative.to_owned()) {
            self.watches.remove(&old);
        }
        self.watches.insert(relative.to_owned(), watch);
        Ok(())
    }

    /// Watches a directory and all below it. Looks again until nothing is new, because what appears in a directory after it
    /// was read and before it was watched would be missed.
    fn add_tree(&mut self, top: &Path, report: Report) {
        for _ in 0..MAX_LOOKS {
            let mut is_grown = false;
            for found in tree::walk(&self.root.join(top), LeftOut::Ignored, |_| true) {
                let Ok(relative) = found.path().strip_prefix(&self.root) else {
                    continue;
                };
                let relative = relative.to_owned();
                if report == Report::Created && found.depth() > 0 && !is_passed_over(found.file_name()) {
                    self.pending.note(&relative, ChangeKind::Created);
                }
                let is_directory = found.file_type().is_dir();
                if !is_directory || self.watches.contains_key(&relative) {
                    continue;
                }
                if self.watches.len() >= MAX_DIRECTORIES {
                    self.pending.mark_incomplete();
                    return;
                }
                match self.add(&relative) {
                    Ok(()) => is_grown = true,
                    // Gone again, or closed to the agent, whose files nobody then changes unseen.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
                    Err(_) => {
                        self.pending.mark_incomplete();
                        return;
                    }
                }
            }
            if !is_grown {
                return;
            }
        }
        self.pending.mark_incomplete();
    }

    fn forget_tree(&mut self, top: &Path) {
        let gone: Vec<_> = self
            .watches
            .range(top.to_owned()..)
            .take_while(|(path, _)| path.starts_with(top))
            .map(|(path, watch)| (path.clone(), *watch))
            .collect();
        for (path, watch) in gone {
            self.watches.remove(&path);
            self.paths.remove(&watch);
            // Fails if the directory is gone and its watch with it.
            let _ = inotify::remove_watch(&self.inotify, watch);
        }
    }

    /// Sends batches until nobody wants them or the root is gone. While the reader is slow changes go on being gathered.
    fn report(&mut self, stream: &Stream) {
        let mut outbox: Vec<u8> = Vec::new();
        let mut flush_at = None;
        loop {
            stream.wake.clear();
            if stream.is_cancelled() {
                stream.send_end();
                return;
            }
            let now = Instant::now();
            if !self.pending.is_empty() && flush_at.is_none() {
                flush_at = Some(now + BATCH_PERIOD);
            }
            if outbox.is_empty() && flush_at.is_some_and(|at| at <= now || self.is_over) {
                // Plain data always encodes.
                outbox = serde_json::to_vec(&self.pending.take()).unwrap_or_default();
                self.left_out = None;
                outbox.push(b'\n');
                // What did not fit follows at once.
                flush_at = (!self.pending.is_empty()).then_some(now);
            }
            while !outbox.is_empty() {
                let len = stream.credit().min(outbox.len());
                if len == 0 {
                    break;
                }
                stream.send_data(FrameKind::Output, &outbox[..len]);
                outbox.drain(..len);
            }
            if outbox.is_empty() && flush_at.is_some_and(|at| at <= now) {
                continue;
            }
            if self.is_over && outbox.is_empty() {
                stream.send_end();
                return;
            }
            let deadline = flush_at.filter(|_| outbox.is_empty());
            wake::wait(
                &mut [
                    wake::on(&stream.wake, PollFlags::IN),
                    wake::on(&self.inotify, PollFlags::IN),
                ],
                deadline,
            );
            self.read_events();
        }
    }

    fn is_left_out(&mut self, directory: PathBuf, name: &OsStr, is_directory: bool) -> bool {
        let there = self.root.join(&directory);
        let path = there.join(name);
        let is_rule = name == ".gitignore" || name == ".ignore";
        let left_out = match self.left_out.take() {
            Some((known, left_out)) if known == directory && !is_rule => left_out,
            _ => LeftOutThere::of(&there),
        };
        let is_left_out = left_out.has(&path, is_directory);
        self.left_out = Some((directory, left_out));
        is_left_out
    }

    fn read_events(&mut self) {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let Ok(inotify) = self.inotify.try_clone() else {
            // Out of descriptors for a moment; the events stay.
            return;
        };
        let mut reader = Reader::new(inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event
                        .file_name()
                        .map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                    self.take_event(event.wd(), event.events(), name.as_deref());
                }
                Err(Errno::INTR) => {}
                // Nothing more for now.
                Err(_) => return,
            }
            // One filled buffer at a time, so that a flood of changes does not keep the batches from going out.
            if reader.is_buffer_empty() {
                return;
            }
        }
    }

    fn take_event(&mut self, watch: i32, events: ReadFlags, name: Option<&OsStr>) {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.pending.mark_incomplete();
            // Directories may have appeared unseen.
            self.add_tree(Path::new(""), Report::Nothing);
            return;
        }
        let Some(directory) = self.paths.get(&watch).cloned() else {
            return;
        };
        let Some(name) = name else {
            let is_root = directory.as_os_str().is_empty();
            if events.contains(ReadFlags::IGNORED) {
                self.paths.remove(&watch);
                self.watches.remove(&directory);
            }
            if is_root && events.intersects(ReadFlags::IGNORED | ReadFlags::MOVE_SELF) {
                self.pending.mark_incomplete();
                self.is_over = true;
            }
            return;
        };
        if is_passed_over(name) {
            return;
        }
        let path = directory.join(name);
        let is_directory = events.contains(ReadFlags::ISDIR);
        if self.is_left_out(directory, name, is_directory) {
            return;
        }
        if events.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            self.pending.note(&path, ChangeKind::Created);
            if is_directory {
                self.add_tree(&path, Report::Created);
            }
        } else if events.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
            self.pending.note(&path, ChangeKind::Removed);
            if is_directory {
                self.forget_tree(&path);
            }
        } else if !is_directory {
            self.pending.note(&path, ChangeKind::Modified);
        }
    }
}

/// What git does to itself, and files that are about to replace others.
fn is_passed_over(name: &OsStr) -> bool {
    name == ".git" || name.as_bytes().starts_with(DRAFT_PREFIX.as_bytes())
}
