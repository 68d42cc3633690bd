//! `greenroom session export`: one session as one archive that any tool can read.

use crate::failure::Failure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use greenroom_protocol::client::event::{Event, EventBody, Item, ItemBody};
use greenroom_protocol::client::prompt::PromptImage;
use greenroom_protocol::id::SessionId;
use greenroom_protocol::reference::Digest;
use greenroom_sdk::Client;
use greenroom_stdx::id::fresh_bits;
use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use tar::{Builder, Header};

/// Events asked for at once.
const PAGE: u32 = 1000;

/// What went into an archive.
#[derive(Debug, serde::Serialize)]
pub struct Exported {
    pub file: PathBuf,
    pub events: u64,
    /// Images of prompts, and what the agent showed.
    pub files: usize,
    /// Those whose files the server lost.
    pub lost: Vec<String>,
}

/// Writes the archive, which must not exist yet; it appears when it is whole.
pub async fn export(client: &Client, id: &SessionId, file: &Path) -> Result<Exported, Failure> {
    if file.exists() {
        let message = format!("{} is there already", file.display());
        return Err(Failure::new("export_exists", message).with_hint("Choose another file with --output."));
    }
    let drafts = Drafts::beside(file);
    let exported = write(client, id, file, &drafts).await?;
    fs::rename(&drafts.archive, file).map_err(|error| failed(file, &error))?;
    Ok(exported)
}

/// Files in the making; gone when this is.
struct Drafts {
    archive: PathBuf,
    events: PathBuf,
}

impl Drafts {
    fn beside(file: &Path) -> Self {
        // A name of its own: nobody's file is overwritten, and two exports to one place do not meet.
        let own = fresh_bits();
        let named = |end: &str| {
            let mut name = file.file_name().unwrap_or_default().to_owned();
            name.push(format!(".{own:032x}{end}"));
            file.with_file_name(name)
        };
        Self {
            archive: named(".partial"),
            events: named(".events.partial"),
        }
    }
}

impl Drop for Drafts {
    fn drop(&mut self) {
        for path in [&self.archive, &self.events] {
            let _ = fs::remove_file(path);
        }
    }
}

async fn write(client: &Client, id: &SessionId, file: &Path, drafts: &Drafts) -> Result<Exported, Failure> {
    let failed = |error: io::Error| failed(file, &error);
    let make = |path: &Path| {
        let mut options = OpenOptions::new();
        options
            .create_new(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path)
    };
    let session = client.session(id).await?;
    let archive = BufWriter::new(make(&drafts.archive).map_err(failed)?);
    let mut archive = Builder::new(GzEncoder::new(archive, Compression::default()));
    let at_s = u64::try_from(session.updated_at_ms).unwrap_or_default() / 1000;
    let mut add = |name: &str, size: u64, bytes: &mut dyn io::Read| {
        let mut header = Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(at_s);
        let path = format!("{id}/{name}");
        archive.append_data(&mut header, path, bytes).map_err(failed)
    };
    // Plain data always encodes.
    let text = serde_json::to_vec_pretty(&session).unwrap_or_default();
    add("session.json", text.len() as u64, &mut &text[..])?;
    let diff = client.session_diff(id, true).await?;
    let patch: String = diff.diff.files.iter().map(|file| file.patch.as_str()).collect();
    add("changes.patch", patch.len() as u64, &mut patch.as_bytes())?;

    // An archive says how long a file is before it holds it, and a session may not fit into memory.
    let mut events = BufWriter::new(make(&drafts.events).map_err(failed)?);
    let (mut after, mut files, mut lost) = (0, 0, Vec::new());
    loop {
        let page = client.events(id, after, PAGE).await?;
        let Some(last) = page.events.last() else { break };
        after = last.seq;
        for event in &page.events {
            let mut line = serde_json::to_vec(event).unwrap_or_default();
            line.push(b'\n');
            events.write_all(&line).map_err(failed)?;
            for (name, file) in attached(event) {
                let bytes = match file {
                    Attached::Kept(digest) => match client.blob(id, digest).await {
                        Ok(bytes) => bytes,
                        // The rest is worth having.
                        Err(error) if error.problem_code() == Some("blob_unknown") => {
                            lost.push(name);
                            continue;
                        }
                        Err(error) => return Err(error.into()),
                    },
                    Attached::Inline(data_base64) => STANDARD.decode(data_base64).unwrap_or_default(),
                };
                add(&name, bytes.len() as u64, &mut &bytes[..])?;
                files += 1;
            }
        }
    }
    let mut events = events.into_inner().map_err(|error| failed(error.into_error()))?;
    let size = events.stream_position().map_err(failed)?;
    events.rewind().map_err(failed)?;
    add("events.jsonl", size, &mut events)?;
    let finish = || {
        let file = archive.into_inner()?.finish()?;
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()
    };
    finish().map_err(failed)?;
    Ok(Exported {
        file: file.to_owned(),
        events: after,
        files,
        lost,
    })
}

/// Where a file of the session is.
enum Attached<'a> {
    Kept(&'a Digest),
    /// In the event itself, as servers wrote it that kept no files.
    Inline(&'a str),
}

/// Files that belong to an event, by their names in the archive: images of a prompt, and what the agent shows.
fn attached(event: &Event) -> Vec<(String, Attached<'_>)> {
    match &event.body {
        EventBody::PromptQueued { prompt, .. } => {
            let mut named = Vec::new();
            for (number, image) in (1..).zip(&prompt.images) {
                let (media_type, file) = match image {
                    PromptImage::Kept(kept) => (&kept.media_type, Attached::Kept(&kept.digest)),
                    PromptImage::Inline(image) => (&image.media_type, Attached::Inline(&image.data_base64)),
                };
                let kind = media_type.rsplit('/').next().unwrap_or("bin");
                named.push((format!("attachments/{}-{number}.{kind}", prompt.id), file));
            }
            named
        }
        EventBody::ItemCompleted {
            item: Item {
                id,
                body: ItemBody::Artifact(artifact),
            },
            ..
        } => {
            // A file's own name is the agent's choice; a directory of its own keeps two apart.
            let name = artifact.name.replace(['/', '\\', '\0'], "_");
            let name = match name.as_str() {
                "" | "." | ".." => "file",
                name => name,
            };
            vec![(format!("artifacts/{id}/{name}"), Attached::Kept(&artifact.digest))]
        }
        _ => Vec::new(),
    }
}

fn failed(file: &Path, error: &io::Error) -> Failure {
    Failure::new(
        "export_failed",
        format!("{} cannot be written: {error}", file.display()),
    )
}
