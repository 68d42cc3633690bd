//! The default base: this machine's /usr, and a generated minimal rest. What comes from the host's /etc is listed here by
//! name and must be readable by everyone, so that no secret gets in by accident.

use crate::embedded::hex;
use crate::failure::HostError;
use greenroom_sandbox::spec::AGENT_ID;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// Where git finds the hooks that every repository gets.
const HOOKS: &str = "etc/greenroom/git-hooks";

/// Directories of the root that are symbolic links into /usr on most systems and real on others.
const USR_NEIGHBOURS: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Empty directories, to mount on or to find.
const DIRECTORIES: &[&str] = &[
    "dev",
    "etc",
    "home",
    "home/agent",
    "opt",
    "proc",
    "run",
    "srv",
    "sys",
    "tmp",
    "usr",
    "var",
    "var/lib",
    "workspace",
];

/// Files and directories of /etc that programs need and that hold nothing private.
const FROM_ETC: &[&str] = &[
    "alternatives",
    "debian_version",
    "fonts",
    "host.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "magic",
    "mime.types",
    "os-release",
    "pki/tls/certs",
    "protocols",
    "services",
    "shells",
    "ssl/certs",
    "ssl/openssl.cnf",
    "timezone",
];

/// Beginnings of names of further directories of /etc.
const FROM_ETC_PREFIXES: &[&str] = &["java-", "python3"];

/// Hooks other than commit-msg that must go on working although git looks for hooks elsewhere.
const PASSED_HOOKS: &[&str] = &[
    "applypatch-msg",
    "pre-applypatch",
    "pre-commit",
    "prepare-commit-msg",
    "post-commit",
    "post-checkout",
    "post-merge",
    "pre-push",
    "pre-rebase",
];

const PASS_HOOK: &str = "#!/bin/sh\n\
    hook=$(git rev-parse --git-common-dir)/hooks/$(basename \"$0\")\n\
    if [ -x \"$hook\" ]; then exec \"$hook\" \"$@\"; fi\n";

const COMMIT_MSG_HOOK: &str = "#!/bin/sh\n\
    # Names the session in every commit that is made in it.\n\
    if [ -n \"$GREENROOM_SESSION\" ] && ! grep -q '^Greenroom-Session: ' \"$1\"; then\n\
    \x20 git interpret-trailers --in-place --trailer \"Greenroom-Session: $GREENROOM_SESSION\" \"$1\" || exit 1\n\
    fi\n\
    hook=$(git rev-parse --git-common-dir)/hooks/commit-msg\n\
    if [ -x \"$hook\" ]; then exec \"$hook\" \"$@\"; fi\n";

/// Files of snapshots may come with other inodes and change times than git noted, and are the same all the same; comparing
/// those would make git read a whole repository again.
const GIT_CONFIG: &str = "[core]\n\thooksPath = /etc/greenroom/git-hooks\n\ttrustctime = false\n\tcheckStat = minimal\n[safe]\n\tdirectory = *\n\
    [init]\n\tdefaultBranch = main\n[advice]\n\tdetachedHead = false\n";

/// A base on disk.
#[derive(Debug, Clone)]
pub struct Base {
    /// The generated lower directory.
    pub lower: PathBuf,
    /// Host paths shown read-only.
    pub read_only: Vec<PathBuf>,
}

impl Base {
    /// Its content, as a digest.
    pub fn digest(&self) -> String {
        let name = self.lower.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Directory,
    File { bytes: Vec<u8>, is_executable: bool },
    Link { target: PathBuf },
}

/// Generates the default base below `directory`, or finds it there unchanged from before: its name is its digest.
pub fn host_base(directory: &Path) -> Result<Base, HostError> {
    let (entries, read_only) = plan(Path::new("/"));
    let lower = directory.join(format!("host-{}", &digest(&entries)[..16]));
    if lower.is_dir() {
        return Ok(Base { lower, read_only });
    }
    let draft = directory.join(format!(".host-{}", std::process::id()));
    greenroom_images::tree::remove(&draft).map_err(HostError::file("remove old draft", &draft))?;
    fs::create_dir_all(&draft).map_err(HostError::file("make directory", &draft))?;
    for (path, entry) in &entries {
        write(&draft.join(path), entry).map_err(HostError::file("write base", &draft.join(path)))?;
    }
    match fs::rename(&draft, &lower) {
        // Another host was faster with the same content.
        Err(_) if lower.is_dir() => {
            greenroom_images::tree::remove(&draft).map_err(HostError::file("remove draft", &draft))?
        }
        done => done.map_err(HostError::file("publish base", &lower))?,
    }
    Ok(Base { lower, read_only })
}

pub(crate) fn write(path: &Path, entry: &Entry) -> std::io::Result<()> {
    match entry {
        Entry::Directory => fs::create_dir_all(path)?,
        Entry::Link { target } => symlink(target, path)?,
        Entry::File { bytes, .. } => fs::write(path, bytes)?,
    }
    let mode = match entry {
        Entry::Link { .. } => return Ok(()),
        Entry::File {
            is_executable: false, ..
        } => 0o644,
        Entry::Directory | Entry::File { .. } => 0o755,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Everything in the base by relative path (parents sort before children), and what is shown from the host.
fn plan(root: &Path) -> (BTreeMap<PathBuf, Entry>, Vec<PathBuf>) {
    let mut entries = BTreeMap::new();
    let mut read_only = vec![PathBuf::from("/usr")];
    for name in DIRECTORIES {
        entries.insert(PathBuf::from(name), Entry::Directory);
    }
    entries.insert(
        "var/tmp".into(),
        Entry::Link {
            target: "/tmp".into(),
        },
    );
    for name in USR_NEIGHBOURS {
        let path = root.join(name);
        if let Ok(target) = fs::read_link(&path) {
            entries.insert(name.into(), Entry::Link { target });
        } else if path.is_dir() {
            entries.insert(name.into(), Entry::Directory);
            read_only.push(Path::new("/").join(name));
        }
    }
    let etc = root.join("etc");
    for name in FROM_ETC {
        copy(&etc, Path::new(name), &mut entries);
    }
    for entry in fs::read_dir(&etc).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if FROM_ETC_PREFIXES
            .iter()
            .any(|prefix| name.to_string_lossy().starts_with(prefix))
        {
            copy(&etc, Path::new(&name), &mut entries);
        }
    }
    let passwd = format!(
        "root:x:0:0:root:/root:/usr/sbin/nologin\nagent:x:{AGENT_ID}:{AGENT_ID}:Agent:/home/agent:/bin/bash\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    );
    let group = format!("root:x:0:\ntty:x:5:\nagent:x:{AGENT_ID}:\nnogroup:x:65534:\n");
    let nsswitch = "passwd: files\ngroup: files\nhosts: files dns\n".to_owned();
    for (path, text) in [
        ("etc/passwd", passwd),
        ("etc/group", group),
        ("etc/nsswitch.conf", nsswitch),
    ] {
        add_file(path, text, &mut entries);
    }
    add_common(&mut entries);
    (entries, read_only)
}

/// What every sandbox has, whatever its root is made of.
pub(crate) fn add_common(entries: &mut BTreeMap<PathBuf, Entry>) {
    for (path, text) in [
        ("etc/hosts", "127.0.0.1 localhost sandbox\n::1 localhost\n"),
        ("etc/hostname", "sandbox\n"),
        ("etc/resolv.conf", ""),
        ("etc/gitconfig", GIT_CONFIG),
    ] {
        add_file(path, text.to_owned(), entries);
    }
    let hooks = PASSED_HOOKS.iter().map(|name| (*name, PASS_HOOK));
    for (name, script) in hooks.chain([("commit-msg", COMMIT_MSG_HOOK)]) {
        let path = Path::new(HOOKS).join(name);
        add_parents(&path, entries);
        let bytes = script.as_bytes().to_vec();
        let is_executable = true;
        entries.insert(path, Entry::File { bytes, is_executable });
    }
}

pub(crate) fn add_link(path: &str, target: &str, entries: &mut BTreeMap<PathBuf, Entry>) {
    add_parents(Path::new(path), entries);
    let target = target.into();
    entries.insert(path.into(), Entry::Link { target });
}

pub(crate) fn add_file(path: &str, text: String, entries: &mut BTreeMap<PathBuf, Entry>) {
    add_parents(Path::new(path), entries);
    let bytes = text.into_bytes();
    let is_executable = false;
    entries.insert(path.into(), Entry::File { bytes, is_executable });
}

/// Copies what is readable by everyone; passes over the rest, and over what vanishes meanwhile.
fn copy(etc: &Path, relative: &Path, entries: &mut BTreeMap<PathBuf, Entry>) {
    let source = etc.join(relative);
    let inside = Path::new("etc").join(relative);
    let Ok(metadata) = fs::symlink_metadata(&source) else {
        return;
    };
    if metadata.is_symlink() {
        let Ok(target) = fs::read_link(&source) else {
            return;
        };
        add_parents(&inside, entries);
        entries.insert(inside, Entry::Link { target });
        return;
    }
    if metadata.permissions().mode() & 0o004 == 0 {
        return;
    }
    if metadata.is_dir() {
        add_parents(&inside, entries);
        entries.insert(inside, Entry::Directory);
        for child in fs::read_dir(&source).into_iter().flatten().flatten() {
            copy(etc, &relative.join(child.file_name()), entries);
        }
    } else if metadata.is_file()
        && let Ok(bytes) = fs::read(&source)
    {
        add_parents(&inside, entries);
        let is_executable = metadata.permissions().mode() & 0o001 != 0;
        entries.insert(inside, Entry::File { bytes, is_executable });
    }
}

fn add_parents(path: &Path, entries: &mut BTreeMap<PathBuf, Entry>) {
    for parent in path
        .ancestors()
        .skip(1)
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        entries.entry(parent.to_owned()).or_insert(Entry::Directory);
    }
}

pub(crate) fn digest(entries: &BTreeMap<PathBuf, Entry>) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let mut hash = Sha256::new();
    for (path, entry) in entries {
        let (kind, bytes): (u8, &[u8]) = match entry {
            Entry::Directory => (b'd', &[]),
            Entry::File {
                bytes,
                is_executable: false,
            } => (b'f', bytes),
            Entry::File {
                bytes,
                is_executable: true,
            } => (b'x', bytes),
            Entry::Link { target } => (b'l', target.as_os_str().as_bytes()),
        };
        let path = path.as_os_str().as_bytes();
        hash.update((path.len() as u64).to_be_bytes());
        hash.update(path);
        hash.update([kind]);
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    }
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_private_is_planned() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc");
        fs::create_dir_all(etc.join("ssl/certs")).unwrap();
        fs::create_dir_all(etc.join("ssl/private")).unwrap();
        for (name, mode) in [
            ("shadow", 0o644),
            ("passwd", 0o644),
            ("ssl/private/key.pem", 0o644),
            ("ssl/certs/ca.pem", 0o644),
            ("ssl/certs/secret.pem", 0o640),
            ("services", 0o600),
        ] {
            fs::write(etc.join(name), "host's own").unwrap();
            fs::set_permissions(etc.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let (entries, _) = plan(root.path());
        assert!(entries.contains_key(Path::new("etc/ssl/certs/ca.pem")));
        for absent in [
            "etc/shadow",
            "etc/ssl/private",
            "etc/ssl/certs/secret.pem",
            "etc/services",
            "root",
        ] {
            assert!(!entries.contains_key(Path::new(absent)), "{absent}");
        }
        let Some(Entry::File { bytes, .. }) = entries.get(Path::new("etc/passwd")) else {
            panic!("a passwd is generated")
        };
        assert!(!String::from_utf8_lossy(bytes).contains("host's own"));
    }
}
