//! The directory of the next sandbox, made ahead: a start only gives it its name. Making a dozen directories takes as long as
//! mounting all of them. Blocking; called from worker threads only.

use crate::ahead::Ahead;
use crate::backend::{make_private, prepare_blank};
use greenroom_images::tree::{self, spread};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Begins the name of a directory while it is removed.
const LEAVING: &str = "leaving-";

/// The blank directories of one host; clones share them. At most one is ready at a time.
#[derive(Debug, Clone)]
pub(crate) struct Blanks {
    /// On the same filesystem as the sandboxes.
    place: PathBuf,
    spare: Ahead<PathBuf>,
}

impl Blanks {
    /// Removes what another process left there. If that one still runs, its next start makes a directory of its own. Where
    /// this fails, all starts do.
    pub(crate) fn open(place: PathBuf) -> Self {
        for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
            // By a name that nobody uses, so that nobody uses half of it.
            let gone = place.join(format!("{LEAVING}{}", unique()));
            let _ = fs::rename(entry.path(), &gone).and_then(|()| tree::remove(&gone));
        }
        let _ = make_private(&place).and_then(|()| spread(&place));
        Self {
            place,
            spare: Ahead::default(),
        }
    }

    /// Gives a blank directory the name `directory`, which must not exist yet. Whether it did.
    pub(crate) fn become_directory(&self, directory: &Path) -> bool {
        // Asked first, because a name that is taken must not cost the blank.
        if fs::symlink_metadata(directory).is_ok() {
            return false;
        }
        self.spare
            .take()
            .is_some_and(|blank| fs::rename(blank, directory).is_ok())
    }

    /// Makes sure that one is ready. A failure shows at the next start, which makes its own.
    pub(crate) fn refill(&self) {
        self.spare.refill(|| {
            let path = self.place.join(unique());
            prepare_blank(&path).map(|()| path)
        });
    }

    /// Removes what is ready, and the place if nobody else uses it. Nothing is made any more.
    pub(crate) fn end(&self) {
        if let Some(blank) = self.spare.close() {
            let _ = tree::remove(&blank);
        }
        let _ = fs::remove_dir(&self.place);
    }
}

/// A name that no other process uses, nor one of the same number before.
fn unique() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = since.map_or(0, |since| since.as_nanos());
    format!("{}-{number}-{nanos:x}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_is_used_once_and_not_for_a_name_that_is_taken() {
        let temp = tempfile::tempdir().unwrap();
        let blanks = Blanks::open(temp.path().join("blank"));
        let name = |name: &str| temp.path().join(name);
        assert!(!blanks.become_directory(&name("a")), "none is ready yet");
        blanks.refill();
        fs::create_dir(name("taken")).unwrap();
        assert!(!blanks.become_directory(&name("taken")));
        assert!(blanks.become_directory(&name("a")));
        assert!(name("a/work").is_dir());
        assert!(!blanks.become_directory(&name("b")));
        blanks.refill();
        // Another process started over this state directory.
        let other = Blanks::open(temp.path().join("blank"));
        assert!(!blanks.become_directory(&name("b")));
        blanks.refill();
        assert!(blanks.become_directory(&name("b")));
        other.refill();
        other.end();
        other.refill();
        assert!(!name("blank").exists(), "nothing is left, nor made any more");
    }
}
