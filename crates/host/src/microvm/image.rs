//! Disk images for machines: ext4 made by mke2fs(8) of e2fsprogs, without mounting anything and without root. Read-only ones
//! are shared by all machines and named by what they were made of; writable ones are sparse and as large as the disk limit.

use greenroom_images::tree;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use thiserror::Error;

/// Room beside the files themselves: directories, inodes and the filesystem's own tables, as a share and at least.
const SPARE_SHARE: u64 = 4;
const SPARE_BYTES: u64 = 64 << 20;

/// Why an image could not be made.
#[derive(Debug, Error)]
pub enum ImageError {
    #[error("mke2fs was not found")]
    NoTool,
    #[error("{action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The last line mke2fs wrote.
    #[error("mke2fs failed: {0}")]
    Failed(String),
}

impl ImageError {
    fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// Makes the writable image of one machine, or keeps the one that is there: its files outlive the machine.
pub fn writable(path: &Path, size_bytes: u64) -> Result<(), ImageError> {
    if path.exists() {
        return Ok(());
    }
    make(path, None, size_bytes)
}

/// Makes the root that all machines share: the generated base, the guest, and places to mount on.
pub fn base(path: &Path, lower: &Path, guest: &Path, read_only: &[PathBuf]) -> Result<(), ImageError> {
    if path.exists() {
        return Ok(());
    }
    let staging = path.with_extension("staging");
    tree::remove(&staging).map_err(ImageError::file("remove", &staging))?;
    fs::create_dir_all(&staging).map_err(ImageError::file("make directory", &staging))?;
    let made = fill(&staging, lower, guest, read_only).and_then(|()| directory(path, &staging));
    tree::remove(&staging).map_err(ImageError::file("remove", &staging))?;
    made
}

fn fill(staging: &Path, lower: &Path, guest: &Path, read_only: &[PathBuf]) -> Result<(), ImageError> {
    tree::copy_missing(lower, staging).map_err(ImageError::file("copy base", staging))?;
    let inside = staging.join(super::GUEST_INSIDE.trim_start_matches('/'));
    fs::copy(guest, &inside).map_err(ImageError::file("copy guest", &inside))?;
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o755))
        .map_err(ImageError::file("copy guest", &inside))?;
    // Each disk is shown by its directory's own name.
    let places = read_only
        .iter()
        .filter_map(|path| path.file_name())
        .map(PathBuf::from);
    for place in places.chain([PathBuf::from("mnt")]) {
        let place = staging.join(place);
        fs::create_dir_all(&place).map_err(ImageError::file("make directory", &place))?;
    }
    Ok(())
}

/// Makes an image of a directory, large enough for what is in it.
pub fn directory(path: &Path, source: &Path) -> Result<(), ImageError> {
    if path.exists() {
        return Ok(());
    }
    let content = tree::size_bytes(source).map_err(ImageError::file("measure", source))?;
    make(path, Some(source), content + content / SPARE_SHARE + SPARE_BYTES)
}

/// Writes beside the place and renames, so that a half-made image is never used.
fn make(path: &Path, source: Option<&Path>, size_bytes: u64) -> Result<(), ImageError> {
    let draft = path.with_extension("new");
    let file = fs::File::create(&draft).map_err(ImageError::file("write", &draft))?;
    file.set_len(size_bytes)
        .map_err(ImageError::file("write", &draft))?;
    drop(file);
    let mut command = Command::new("mke2fs");
    command
        // Nothing but a crash of the machine loses what a journal would keep, and then its files are checked.
        .args([
            "-q",
            "-F",
            "-t",
            "ext4",
            "-m",
            "0",
            "-O",
            "^has_journal",
            "-E",
            "lazy_itable_init=1,root_owner=0:0",
        ])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    if let Some(source) = source {
        command.arg("-d").arg(source);
    }
    let output = command
        .arg(&draft)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ImageError::NoTool,
            _ => ImageError::file("run", Path::new("mke2fs"))(error),
        })?;
    if !output.status.success() {
        let _ = fs::remove_file(&draft);
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text.lines().rfind(|line| !line.trim().is_empty());
        return Err(ImageError::Failed(last.unwrap_or("no reason given").to_owned()));
    }
    fs::rename(&draft, path).map_err(ImageError::file("publish", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What debugfs(8), which reads the image by itself, says of a path in it.
    fn look(image: &Path, request: &str) -> String {
        let output = Command::new("debugfs")
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .args(["-R", request])
            .arg(image)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[test]
    fn a_base_image_holds_the_base_the_guest_and_places_to_mount_on() {
        let temp = tempfile::tempdir().unwrap();
        let (lower, guest, image) = (
            temp.path().join("lower"),
            temp.path().join("guest"),
            temp.path().join("base.ext4"),
        );
        fs::create_dir_all(lower.join("etc")).unwrap();
        fs::write(lower.join("etc/hostname"), "sandbox\n").unwrap();
        fs::write(&guest, "program").unwrap();
        base(&image, &lower, &guest, &[PathBuf::from("/usr")]).unwrap();
        assert_eq!(look(&image, "cat /etc/hostname"), "sandbox\n");
        assert_eq!(look(&image, "cat /greenroom-guest"), "program");
        assert!(look(&image, "stat /greenroom-guest").contains("Mode:  0755"));
        for directory in ["/usr", "/mnt"] {
            assert!(
                look(&image, &format!("stat {directory}")).contains("Type: directory"),
                "{directory}"
            );
        }
        let left: Vec<_> = fs::read_dir(temp.path())
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert_eq!(left.len(), 3, "{left:?}");
    }

    #[test]
    fn a_writable_image_is_sparse_as_large_as_the_limit_and_kept() {
        use std::os::unix::fs::MetadataExt as _;
        let temp = tempfile::tempdir().unwrap();
        let image = temp.path().join("upper.ext4");
        writable(&image, 8 << 30).unwrap();
        let made = fs::metadata(&image).unwrap();
        assert_eq!(made.len(), 8 << 30);
        assert!(made.blocks() * 512 < 64 << 20, "{} blocks", made.blocks());
        writable(&image, 1 << 30).unwrap();
        assert_eq!(fs::metadata(&image).unwrap().len(), 8 << 30);
    }

    #[test]
    fn a_directory_that_cannot_be_read_makes_no_image() {
        let temp = tempfile::tempdir().unwrap();
        let image = temp.path().join("usr.ext4");
        assert!(directory(&image, &temp.path().join("absent")).is_err());
        assert!(!image.exists());
    }
}
