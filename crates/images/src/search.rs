//! Looks for texts, such as secrets, in the files of a sandbox that does not run. Follows no links.

use memchr::memmem::Finder;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Read at once, in bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// The first file below `root` that holds one of the texts, in its content, name, target or attributes, and which text it is: by its place in
/// `texts`. Empty texts are in no file. Texts that were compressed or encoded are not found.
pub fn find(root: &Path, texts: &[&[u8]]) -> io::Result<Option<(PathBuf, usize)>> {
    let finders: Vec<_> = texts
        .iter()
        .map(|text| (Finder::new(text), text.is_empty()))
        .collect();
    let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
    if longest == 0 {
        return Ok(None);
    }
    let hit = |bytes: &[u8]| {
        finders
            .iter()
            .position(|(finder, is_empty)| !is_empty && finder.find(bytes).is_some())
    };
    let mut buffer = vec![0; CHUNK_BYTES + longest];
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let directory = root.join(&path);
        let entries = readable(&directory, 0o500, || {
            fs::read_dir(&directory)?.collect::<io::Result<Vec<_>>>()
        })?;
        for entry in entries {
            let (below, kind) = (path.join(entry.file_name()), entry.file_type()?);
            if let Some(which) = hit(entry.file_name().as_bytes()) {
                return Ok(Some((below, which)));
            }
            let place = root.join(&below);
            let found = match () {
                () if kind.is_dir() => {
                    pending.push(below);
                    continue;
                }
                () if kind.is_symlink() => hit(fs::read_link(&place)?.as_os_str().as_bytes()),
                () if kind.is_file() => {
                    let mut file = readable(&place, 0o400, || fs::File::open(&place))?;
                    find_in(&mut file, &mut buffer, longest, &hit)?
                }
                () => None,
            };
            let found = match found {
                None if kind.is_file() => find_in_attributes(&place, &hit)?,
                found => found,
            };
            if let Some(which) = found {
                return Ok(Some((below, which)));
            }
        }
    }
    Ok(None)
}

fn find_in(
    file: &mut fs::File,
    buffer: &mut [u8],
    longest: usize,
    hit: &impl Fn(&[u8]) -> Option<usize>,
) -> io::Result<Option<usize>> {
    // The end of what was looked at, in which a text may have begun.
    let mut kept = 0;
    loop {
        let read = match file.read(&mut buffer[kept..]) {
            Ok(0) => return Ok(None),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let filled = kept + read;
        if let Some(which) = hit(&buffer[..filled]) {
            return Ok(Some(which));
        }
        kept = filled.min(longest - 1);
        buffer.copy_within(filled - kept..filled, 0);
    }
}

/// Nearly always there are none.
fn find_in_attributes(path: &Path, hit: &impl Fn(&[u8]) -> Option<usize>) -> io::Result<Option<usize>> {
    let mut names = vec![0_u8; 64 << 10];
    let listed = match rustix::fs::llistxattr(path, names.as_mut_slice()) {
        Ok(listed) => listed,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    for name in names[..listed]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let mut value = vec![0_u8; 64 << 10];
        let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap_or(0);
        if let Some(which) = hit(name).or_else(|| hit(&value[..length])) {
            return Ok(Some(which));
        }
    }
    Ok(None)
}

/// Does something again, with more rights for the owner, where they lack. Below a closed directory nothing can be reached, so it
/// stays open.
fn readable<T>(path: &Path, right: u32, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match work() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let mode = fs::symlink_metadata(path)?.permissions().mode();
            fs::set_permissions(path, fs::Permissions::from_mode(mode | right))?;
            work()
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_wherever_they_stand() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/plain"), "nothing here").unwrap();
        let texts: [&[u8]; 3] = [b"", b"hunter2-secret", b"other"];
        let found = || find(root, &texts).unwrap();
        assert_eq!(found(), None);
        // Across the border of two pieces.
        let mut long = vec![b'x'; CHUNK_BYTES + 7];
        long.extend(b"hunter2-secret and more");
        fs::write(root.join("a/b/long"), &long).unwrap();
        fs::set_permissions(root.join("a/b/long"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(root.join("a/b"), fs::Permissions::from_mode(0o000)).unwrap();
        assert_eq!(found(), Some(("a/b/long".into(), 1)));
        fs::remove_file(root.join("a/b/long")).unwrap();
        std::os::unix::fs::symlink("/x/other/y", root.join("link")).unwrap();
        assert_eq!(found(), Some(("link".into(), 2)));
        fs::remove_file(root.join("link")).unwrap();
        fs::write(root.join("my-hunter2-secret"), "").unwrap();
        assert_eq!(found(), Some(("my-hunter2-secret".into(), 1)));
    }
}
