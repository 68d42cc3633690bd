//! Layers as one file each (EROFS, <https://docs.kernel.org/filesystems/erofs.html>), for hosts that rather have few inodes, and layers
//! that are removed at once, than the fastest builds. mkfs.erofs packs them; the kernel mounts them, for root alone. Nothing is
//! attached anywhere: a mount lives as long as its descriptor, whatever is killed.

use rustix::fd::{AsRawFd as _, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Of the package erofs-utils.
const PROGRAM: &str = "mkfs.erofs";
const PLACES: &[&str] = &[
    "/usr/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/bin",
    "/sbin",
];

/// Packs layers, where they can be mounted too.
#[derive(Debug, Clone)]
pub struct Packer {
    program: PathBuf,
}

impl Packer {
    /// Looks whether this machine can, by doing it once below `scratch`.
    ///
    /// # Errors
    /// Why it cannot, in words that end a sentence.
    pub fn find(scratch: &Path) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root may mount them".to_owned());
        }
        let program = PLACES
            .iter()
            .map(|place| Path::new(place).join(PROGRAM))
            .find(|program| program.exists())
            .ok_or_else(|| format!("there is no {PROGRAM} (package erofs-utils)"))?;
        let packer = Self { program };
        let (directory, file) = (scratch.join("packed-probe"), scratch.join("packed-probe.file"));
        let tried = || -> io::Result<()> {
            fs::create_dir_all(&directory)?;
            packer.pack(&directory, &file)?;
            mount(&file).map(drop)
        };
        let tried = tried();
        let _ = fs::remove_dir_all(&directory);
        let _ = fs::remove_file(&file);
        match tried {
            Ok(()) => Ok(packer),
            Err(error) => Err(format!("the kernel does not take them: {error}")),
        }
    }

    /// Makes a file of a directory, with owners, modes, times, attributes, links and devices.
    pub(crate) fn pack(&self, directory: &Path, file: &Path) -> io::Result<()> {
        let output = Command::new(&self.program)
            .arg("--quiet")
            .args([file, directory])
            .stdin(Stdio::null())
            .output()?;
        match output.status.success() {
            true => Ok(()),
            false => {
                let said = String::from_utf8_lossy(&output.stderr);
                let said = said
                    .trim()
                    .lines()
                    .next_back()
                    .unwrap_or("it said nothing")
                    .to_owned();
                Err(io::Error::other(format!("{PROGRAM}: {said}")))
            }
        }
    }
}

/// A layer that can be read; as a whole or through its own mount, which ends with this.
#[derive(Debug)]
pub(crate) struct OpenLayer {
    /// Good as long as this is.
    pub(crate) path: PathBuf,
    _mount: Option<OwnedFd>,
}

impl OpenLayer {
    pub(crate) fn directory(path: PathBuf) -> Self {
        Self { path, _mount: None }
    }

    pub(crate) fn packed(file: &Path) -> io::Result<Self> {
        let mount = mount(file)?;
        Ok(Self {
            path: by_descriptor(&mount),
            _mount: Some(mount),
        })
    }
}

/// Where they are.
pub(crate) fn paths(layers: &[OpenLayer]) -> Vec<PathBuf> {
    layers.iter().map(|layer| layer.path.clone()).collect()
}

fn mount(file: &Path) -> io::Result<OwnedFd> {
    // By its descriptor: the kernel takes only 255 bytes of a name.
    let opened = rustix::fs::openat(CWD, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", by_descriptor(&opened))?;
    fsconfig_set_flag(&context, "ro")?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn by_descriptor(opened: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", opened.as_raw_fd()).into()
}
