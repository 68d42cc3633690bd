//! A real image registry (Debian's docker-registry), images made by hand, and skopeo to bring them there.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Programs that are wanted here; `Err` names the first that is missing.
pub fn is_possible() -> Result<(), &'static str> {
    let is_there = |program: &&str| {
        ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/bin"]
            .iter()
            .any(|directory| Path::new(directory).join(program).exists())
    };
    match ["docker-registry", "skopeo", "umoci", "busybox"]
        .into_iter()
        .find(|program| !is_there(program))
    {
        Some(program) => Err(program),
        None => Ok(()),
    }
}

/// Who may use a registry that wants a login, and the password.
pub const LOGIN: (&str, &str) = ("anna", "green-room");
/// The same as a line of htpasswd, the password by bcrypt.
const LOGIN_ENTRY: &str = "anna:$2y$04$/L/Wr4NBfrwnZXUNWhJSIOK2jhPxbjNapArWtAwAPUgHZrlK.o3lq\n";

/// A docker-registry with a directory of its own, ended when dropped.
#[derive(Debug)]
pub struct TestRegistry {
    server: Child,
    address: String,
    place: PathBuf,
    wants_login: bool,
}

impl TestRegistry {
    /// Starts one in an empty directory. `wants_login`: only those who know [`LOGIN`] are answered.
    pub fn start(place: &Path, wants_login: bool) -> io::Result<Self> {
        fs::create_dir_all(place)?;
        let mut config = json!({
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": place.join("data")}, "delete": {"enabled": true}},
            "http": {"addr": "127.0.0.1:0"},
            "log": {"level": "info", "formatter": "json"},
        });
        if wants_login {
            let entries = place.join("htpasswd");
            fs::write(&entries, LOGIN_ENTRY)?;
            config["auth"] = json!({"htpasswd": {"realm": "test", "path": entries}});
        }
        // YAML takes JSON.
        let path = place.join("config.yml");
        fs::write(&path, config.to_string())?;
        let mut server = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(server.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?).lines();
        let mut said = Vec::new();
        let address = loop {
            let Some(Ok(line)) = lines.next() else {
                let _ = server.kill();
                let _ = server.wait();
                return Err(io::Error::other(format!(
                    "docker-registry ended: {}",
                    said.join("\n")
                )));
            };
            if let Some((_, rest)) = line.split_once("listening on ") {
                let end = rest.find('"').unwrap_or(rest.len());
                break rest[..end].to_owned();
            }
            said.push(line);
        };
        // It must not stop for a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self {
            server,
            address,
            place: place.to_owned(),
            wants_login,
        })
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its files of blobs.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let digits = digest.trim_start_matches("sha256:");
        self.place
            .join("data/docker/registry/v2/blobs/sha256")
            .join(&digits[..2])
            .join(digits)
            .join("data")
    }

    /// Brings an image of a layout there with skopeo; all of its platforms. Returns the reference with its digest.
    pub fn publish(&self, layout: &Layout, tag: &str, name: &str) -> io::Result<String> {
        let reference = format!("{}/{name}:{tag}", self.address);
        let mut skopeo = skopeo();
        skopeo.args(["copy", "--all", "--preserve-digests", "--dest-tls-verify=false"]);
        if self.wants_login {
            skopeo.args(["--dest-creds", &format!("{}:{}", LOGIN.0, LOGIN.1)]);
        }
        skopeo.arg(format!("oci:{}:{tag}", layout.place.display()));
        run(skopeo.arg(format!("docker://{reference}")))?;
        Ok(format!("{reference}@{}", layout.digest(tag)?))
    }

    /// What skopeo says of an image here.
    pub fn inspect(&self, name: &str) -> io::Result<Value> {
        let mut skopeo = skopeo();
        skopeo.args(["inspect", "--tls-verify=false"]);
        let text = run(skopeo.arg(format!("docker://{}/{name}", self.address)))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Brings an image here to a layout on disk with skopeo, which checks every digest.
    pub fn fetch(&self, name: &str, layout: &Path) -> io::Result<()> {
        let mut skopeo = skopeo();
        skopeo.args(["copy", "--src-tls-verify=false"]);
        skopeo.arg(format!("docker://{}/{name}", self.address));
        run(skopeo.arg(format!("oci:{}:fetched", layout.display()))).map(drop)
    }
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn skopeo() -> Command {
    let mut skopeo = Command::new("skopeo");
    skopeo.arg("--insecure-policy").env("HOME", "/nonexistent");
    skopeo
}

fn run(command: &mut Command) -> io::Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(io::Error::other(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        ))),
    }
}

/// What a [`LyingRegistry`] does with layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Half of it, and the connection ends.
    Cut,
    /// More than it announced in the manifest, without saying how much.
    Longer,
    /// Another length in the header.
    OtherLength,
    /// As many bytes, and others.
    Other,
    /// Leads to an address of this machine that listens to nothing.
    Elsewhere,
}

/// A registry of one layout that lies about its largest blob. Ends with the process.
#[derive(Debug)]
pub struct LyingRegistry {
    address: String,
}

impl LyingRegistry {
    /// Listens on a port of its own.
    pub fn start(layout: &Layout, lie: Lie) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let blobs = layout.place.join("blobs/sha256");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, &blobs, lie);
            }
        });
        Ok(Self { address })
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

fn answer(mut stream: std::net::TcpStream, blobs: &Path, lie: Lie) -> io::Result<()> {
    const SMALL_BYTES: usize = 4096;
    let mut request = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    request.read_line(&mut first)?;
    let mut line = String::new();
    while request.read_line(&mut line)? > 2 {
        line.clear();
    }
    let digits = first
        .split_whitespace()
        .nth(1)
        .and_then(|path| path.rsplit_once("sha256:"))
        .map(|(_, digits)| digits.to_owned());
    let content = digits.and_then(|digits| fs::read(blobs.join(digits)).ok());
    let Some(mut content) = content else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let mut head = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        content.len()
    );
    if content.len() > SMALL_BYTES {
        match lie {
            Lie::Cut => content.truncate(content.len() / 2),
            Lie::Longer => {
                head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_owned();
                content.extend_from_slice(&[0; 1 << 20]);
            }
            Lie::OtherLength => {
                head = format!(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    content.len() + 1
                );
                content.push(0);
            }
            Lie::Other => content.fill(7),
            Lie::Elsewhere => {
                head = "HTTP/1.1 307 Temporary Redirect\r\nConnection: close\r\nContent-Length: 0\r\n\
                        Location: http://127.0.0.1:1/blob\r\n\r\n"
                    .to_owned();
                content.clear();
            }
        }
    }
    stream.write_all(head.as_bytes())?;
    stream.write_all(&content)
}

/// How a layer's archive is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
}

/// Images on disk (<https://github.com/opencontainers/image-spec/blob/main/image-layout.md>), made by hand.
#[derive(Debug)]
pub struct Layout {
    place: PathBuf,
    manifests: Vec<Value>,
}

impl Layout {
    /// In a directory that does not exist.
    pub fn new(place: &Path) -> io::Result<Self> {
        fs::create_dir_all(place.join("blobs/sha256"))?;
        fs::write(place.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Self {
            place: place.to_owned(),
            manifests: Vec::new(),
        })
    }

    /// Adds an image for this machine of these archives, the lowest first. `run` is its `config`.
    pub fn image(
        &mut self,
        tag: &str,
        archives: &[Vec<u8>],
        run: Value,
        compression: Compression,
    ) -> io::Result<()> {
        let image = self.manifest(&architecture(), archives, &run, compression)?;
        self.name(tag, image)
    }

    /// Adds a list of images: one of an architecture that nobody has, and one for this machine.
    pub fn list(&mut self, tag: &str, archives: &[Vec<u8>], run: Value) -> io::Result<()> {
        let other = self.manifest("mips64le", &archives[..1], &json!({}), Compression::Gzip)?;
        let here = self.manifest(&architecture(), archives, &run, Compression::Gzip)?;
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [other, here],
        });
        let mut index = self.blob(index.to_string().as_bytes())?;
        index["mediaType"] = json!("application/vnd.oci.image.index.v1+json");
        self.name(tag, index)
    }

    /// Adds something that is no image: an archive, as dev container features are.
    pub fn artifact(&mut self, tag: &str, archive: &[u8]) -> io::Result<()> {
        let mut layer = self.blob(archive)?;
        layer["mediaType"] = json!("application/vnd.devcontainers.layer.v1+tar");
        let mut config = self.blob(b"{}")?;
        config["mediaType"] = json!("application/vnd.devcontainers");
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": [layer],
        });
        let mut manifest = self.blob(manifest.to_string().as_bytes())?;
        manifest["mediaType"] = json!("application/vnd.oci.image.manifest.v1+json");
        self.name(tag, manifest)
    }

    /// The digest by which the image is known.
    pub fn digest(&self, tag: &str) -> io::Result<String> {
        let wanted = |image: &&Value| image["annotations"]["org.opencontainers.image.ref.name"] == tag;
        let image = self.manifests.iter().rev().find(wanted);
        let digest = image.and_then(|image| image["digest"].as_str());
        digest
            .map(ToOwned::to_owned)
            .ok_or_else(|| io::Error::other("no such image"))
    }

    fn manifest(
        &self,
        architecture: &str,
        archives: &[Vec<u8>],
        run: &Value,
        compression: Compression,
    ) -> io::Result<Value> {
        let mut layers = Vec::new();
        for archive in archives {
            let (bytes, kind) = match compression {
                Compression::None => (archive.clone(), "tar"),
                Compression::Gzip => (gzip(archive)?, "tar+gzip"),
            };
            let mut layer = self.blob(&bytes)?;
            layer["mediaType"] = json!(format!("application/vnd.oci.image.layer.v1.{kind}"));
            layers.push(layer);
        }
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": archives.iter().map(|archive| digest(archive)).collect::<Vec<_>>()},
        });
        let mut config = self.blob(config.to_string().as_bytes())?;
        config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
        });
        let mut manifest = self.blob(manifest.to_string().as_bytes())?;
        manifest["mediaType"] = json!("application/vnd.oci.image.manifest.v1+json");
        manifest["platform"] = json!({"architecture": architecture, "os": "linux"});
        Ok(manifest)
    }

    fn name(&mut self, tag: &str, mut image: Value) -> io::Result<()> {
        image["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        self.manifests.push(image);
        let index = json!({"schemaVersion": 2, "manifests": self.manifests});
        fs::write(self.place.join("index.json"), index.to_string())
    }

    fn blob(&self, bytes: &[u8]) -> io::Result<Value> {
        let digest = digest(bytes);
        fs::write(
            self.place.join("blobs/sha256").join(&digest["sha256:".len()..]),
            bytes,
        )?;
        Ok(json!({"digest": digest, "size": bytes.len()}))
    }
}

/// As images name this machine's.
pub fn architecture() -> String {
    match std::env::consts::ARCH {
        "x86_64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        other => other.to_owned(),
    }
}

/// With `sha256:`.
pub fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{digits}")
}

fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// A tar archive in the making. Everything belongs to root and is of the second 1,700,000,000.
pub struct Archive(tar::Builder<Vec<u8>>);

impl Default for Archive {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl Archive {
    /// With a file.
    pub fn file(self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Self {
        self.entry(tar::EntryType::Regular, path, mode, "", content.as_ref())
    }

    /// With a directory.
    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(tar::EntryType::Directory, path, mode, "", &[])
    }

    /// With a symbolic link.
    pub fn link(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Symlink, path, 0o777, target, &[])
    }

    /// With a hard link.
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Link, path, 0o644, target, &[])
    }

    /// With any entry; nothing is checked.
    pub fn entry(
        mut self,
        kind: tar::EntryType,
        path: &str,
        mode: u32,
        target: &str,
        content: &[u8],
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_mtime(1_700_000_000);
        // As they are: the library refuses what hostile archives hold.
        if let Some(header) = header.as_gnu_mut() {
            header.name[..path.len()].copy_from_slice(path.as_bytes());
            header.linkname[..target.len()].copy_from_slice(target.as_bytes());
        }
        header.set_cksum();
        // Into memory.
        let _ = self.0.append(&header, content);
        self
    }

    /// The whole archive.
    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap_or_default()
    }
}

/// The smallest root in which a shell runs, by Debian's static busybox.
pub fn busybox_root() -> io::Result<Archive> {
    let program = fs::read("/bin/busybox").or_else(|_| fs::read("/usr/bin/busybox"))?;
    let mut archive = Archive::default()
        .directory("usr/", 0o755)
        .directory("usr/bin/", 0o755)
        .directory("etc/", 0o755)
        .link("bin", "usr/bin")
        .file("usr/bin/busybox", 0o755, program)
        .file(
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n",
        );
    for name in [
        "sh",
        "ls",
        "cat",
        "echo",
        "mkdir",
        "rm",
        "mv",
        "ln",
        "stat",
        "id",
        "env",
        "test",
        "find",
        "sort",
        "touch",
        "chmod",
        "sleep",
        "wc",
        "mkfifo",
        "seq",
        "chown",
        "tar",
        "mount",
        "mknod",
        "chroot",
        "hostname",
        "grep",
        "date",
        "xargs",
        "sha256sum",
        "true",
        "cp",
        "printf",
        "readlink",
    ] {
        archive = archive.link(&format!("usr/bin/{name}"), "busybox");
    }
    Ok(archive)
}

/// Programs of this machine that a session's root needs, and those that tests use.
const PROGRAMS: &[&str] = &[
    "/usr/bin/bash",
    "/usr/bin/cat",
    "/usr/bin/chmod",
    "/usr/bin/chown",
    "/usr/bin/cut",
    "/usr/bin/dash",
    "/usr/bin/env",
    "/usr/bin/find",
    "/usr/bin/git",
    "/usr/bin/grep",
    "/usr/bin/head",
    "/usr/bin/id",
    "/usr/bin/ls",
    "/usr/bin/mkdir",
    "/usr/bin/mktemp",
    "/usr/bin/mv",
    "/usr/bin/rm",
    "/usr/bin/sed",
    "/usr/bin/sha256sum",
    "/usr/bin/sleep",
    "/usr/bin/tar",
    "/usr/bin/touch",
    "/usr/bin/tr",
    "/usr/bin/true",
    "/usr/bin/wc",
    "/usr/lib/git-core/git-remote-http",
];

/// A root with git and bash of this machine, and little else: about 20 MB.
pub fn git_root() -> io::Result<Archive> {
    let mut libraries = std::collections::BTreeSet::new();
    for program in PROGRAMS {
        let said = run(Command::new("ldd").arg(program))?;
        // `name => /path (address)` and `/path (address)`.
        let paths = said.split_whitespace().filter(|word| word.starts_with('/'));
        libraries.extend(paths.map(ToOwned::to_owned));
    }
    let mut archive = Archive::default()
        .link("bin", "usr/bin")
        .link("sbin", "usr/bin")
        .link("usr/bin/sh", "dash");
    for name in ["lib", "lib64"] {
        archive = archive.link(name, &format!("usr/{name}"));
    }
    for program in PROGRAMS {
        archive = archive.file(program.trim_start_matches('/'), 0o755, fs::read(program)?);
    }
    for library in libraries {
        let place = library.trim_start_matches('/');
        let place = match place.starts_with("usr/") {
            true => place.to_owned(),
            false => format!("usr/{place}"),
        };
        archive = archive.file(&place, 0o755, fs::read(&library)?);
    }
    Ok(archive.file("etc/issue", 0o644, "a root of its own\n"))
}
