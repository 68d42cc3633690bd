//! The directories that a sandbox's `/` is made of: the base, files for this sandbox alone, and what it writes itself.

use crate::base::Base;
use crate::failure::HostError;
use crate::host::SandboxFile;
use greenroom_images::tree;
use greenroom_sandbox::spec::{LAYER_ID, LaunchSpec, Privilege, Root};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where [`SandboxFile`]s appear, below the root. The base has it.
const FILES_PLACE: &str = "etc/greenroom";

/// What the sandbox writes, as it is made; renamed when it is whole.
const UPPER_DRAFT: &str = "upper.new";

/// Directories of a new upper layer, parents first: mode, and whether it is the agent's.
const UPPER: &[(&str, u32, bool)] = &[
    ("home", 0o755, false),
    ("home/agent", 0o755, true),
    ("workspace", 0o755, true),
    ("tmp", 0o1777, true),
];

/// Makes a directory with what every sandbox's has at first.
pub(crate) fn prepare_blank(directory: &Path) -> io::Result<()> {
    make_private(directory)?;
    make_private(&directory.join("work"))?;
    draft_upper(&directory.join(UPPER_DRAFT))
}

/// What lies below everything that a sandbox writes.
pub(crate) struct Below {
    /// Topmost first.
    pub(crate) layers: Vec<PathBuf>,
    /// The host's base, below the layers; `None` if they are a whole root, which is the agent's.
    pub(crate) base: Option<PathBuf>,
}

/// Puts the sandbox's own directory in order and says what its root is made of. `is_blank` if it is just from
/// [`prepare_blank`].
pub(crate) fn prepare(
    directory: &Path,
    is_blank: bool,
    below: Below,
    privilege: Privilege,
    files: &[SandboxFile],
) -> Result<Root, HostError> {
    let Below { layers, base } = below;
    let prepared = || -> io::Result<Root> {
        if !is_blank {
            make_private(directory)?;
        }
        let owner = (base.is_none() && privilege == Privilege::Root).then_some(LAYER_ID);
        let layer = file_layer(directory, is_blank, files, owner)?;
        let copied = directory.join("copy");
        if !is_blank && copied.is_dir() {
            add_files(&copied, files)?;
            return Ok(Root::Directory { path: copied });
        }
        let (upper, work) = (directory.join("upper"), directory.join("work"));
        let draft = directory.join(UPPER_DRAFT);
        let publish = || match layers.is_empty() {
            true => publish_upper(&draft, &upper, privilege),
            false => {
                if let Some(id) = owner {
                    chown(&draft, Some(id), Some(id))?;
                }
                publish_bare_upper(&draft, &upper)
            }
        };
        if is_blank {
            publish()?;
        } else {
            // Left by an overlay that was not synced on purpose; the kernel would refuse it (option `volatile`).
            tree::remove(&work)?;
            make_private(&work)?;
            if !upper.is_dir() {
                tree::remove(&draft)?;
                draft_upper(&draft)?;
                publish()?;
            }
        }
        Ok(Root::Overlay {
            lower: layer.into_iter().chain(layers).chain(base).collect(),
            upper,
            work,
        })
    };
    prepared().map_err(HostError::file("prepare", directory))
}

fn draft_upper(draft: &Path) -> io::Result<()> {
    fs::create_dir(draft)?;
    for (name, mode, _) in UPPER {
        let path = draft.join(name);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
    }
    fs::set_permissions(draft, fs::Permissions::from_mode(0o755))
}

/// Makes a draft this sandbox's own.
fn publish_upper(draft: &Path, upper: &Path, privilege: Privilege) -> io::Result<()> {
    if privilege == Privilege::Root {
        for (name, ..) in UPPER.iter().filter(|(_, _, is_agents)| *is_agents) {
            chown(draft.join(name), Some(LAYER_ID), Some(LAYER_ID))?;
        }
    }
    fs::rename(draft, upper)
}

/// Makes a draft the upper one of layers that have its directories already, with the modes that the agent gave them.
fn publish_bare_upper(draft: &Path, upper: &Path) -> io::Result<()> {
    for (name, ..) in UPPER.iter().rev() {
        fs::remove_dir(draft.join(name))?;
    }
    fs::rename(draft, upper)
}

/// A layer of its own for the files of this start, which the sandbox never writes to; `None` without files.
///
/// `owner`: of the directories that it shares with a root of the agent's own.
fn file_layer(
    directory: &Path,
    is_blank: bool,
    files: &[SandboxFile],
    owner: Option<u32>,
) -> io::Result<Option<PathBuf>> {
    let layer = directory.join("files");
    if !is_blank {
        tree::remove(&layer)?;
    }
    if files.is_empty() {
        return Ok(None);
    }
    let place = layer.join(FILES_PLACE);
    fs::create_dir_all(&place)?;
    for path in place.ancestors().take_while(|path| path.starts_with(&layer)) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        if path != place
            && let Some(id) = owner
        {
            chown(path, Some(id), Some(id))?;
        }
    }
    add_files(&layer, files)?;
    Ok(Some(layer))
}

/// Writes files into a root, which may hold anything that an earlier run of the sandbox put there.
fn add_files(root: &Path, files: &[SandboxFile]) -> io::Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let root = rustix::fs::open(
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let place = rustix::fs::openat2(
        &root,
        FILES_PLACE,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )?;
    for file in files {
        let name = file.name.as_str();
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a file's name is no name",
            ));
        }
        match rustix::fs::unlinkat(&place, name, rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut written = fs::File::from(rustix::fs::openat(
            &place,
            name,
            flags,
            Mode::from_raw_mode(0o600),
        )?);
        written.write_all(&file.bytes)?;
        written.set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

/// Times that an overlay is tried again before it is held to be impossible, and the time between.
const MOUNT_TRIES: usize = 3;
const MOUNT_PAUSE: Duration = Duration::from_millis(50);

/// Launches; where the kernel refuses an overlay on the data directory, copies the root and launches again. The specification
/// then says so.
pub(super) fn overlay_or_copy<T>(
    spec: &mut LaunchSpec,
    base: &Base,
    launch: impl Fn(&LaunchSpec) -> Result<T, HostError>,
) -> Result<T, HostError> {
    let mut launched = launch(spec);
    // The overlay of a supervisor that was killed a moment ago may still hold the layers. Copying is for good.
    for _ in 0..MOUNT_TRIES {
        match &launched {
            Err(HostError::Launch(failure)) if failure.step == "mount overlay" => {}
            _ => break,
        }
        std::thread::sleep(MOUNT_PAUSE);
        launched = launch(spec);
    }
    match launched {
        // Layers of snapshots hide what is below them in ways that only an overlay understands.
        Err(HostError::Launch(failure)) if failure.step == "mount overlay" && is_plain(spec, base) => {
            tracing::warn!(%failure, "no overlay on the data directory; copying the root instead");
            spec.root = copied(&spec.root, base, &spec.directory)?;
            launch(spec)
        }
        result => result,
    }
}

/// Whether the root has no layers but the base and the files of this start.
fn is_plain(spec: &LaunchSpec, base: &Base) -> bool {
    match &spec.root {
        Root::Overlay { lower, .. } => lower
            .iter()
            .all(|layer| *layer == base.lower || layer.starts_with(&spec.directory)),
        Root::Directory { .. } => true,
    }
}

/// Copies the lower layers below what the sandbox wrote. Small: /usr is not in them.
fn copied(root: &Root, base: &Base, directory: &Path) -> Result<Root, HostError> {
    let (draft, copy) = (directory.join("upper"), directory.join("copy"));
    let lower = match root {
        Root::Overlay { lower, .. } => lower.as_slice(),
        Root::Directory { .. } => std::slice::from_ref(&base.lower),
    };
    for layer in lower {
        tree::copy_missing(layer, &draft).map_err(HostError::file("copy base", &draft))?;
    }
    fs::rename(&draft, &copy).map_err(HostError::file("publish root", &copy))?;
    Ok(Root::Directory { path: copy })
}

/// Makes a directory for this process's user alone.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
