//! The log of an image build: a file that grows while people read it, up to a bound.

use greenroom_protocol::client::image::ImageLog;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::id::ImageId;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

/// Largest log, in bytes; what comes later is dropped, and the log says so.
const MAX_LOG_BYTES: u64 = 8 << 20;

/// Most that one reading gives, in bytes.
const MAX_READ_BYTES: u64 = 256 << 10;

/// Writes one log.
pub struct BuildLog {
    file: File,
    written: u64,
    /// Whether the last line has its end.
    is_at_line_start: bool,
}

impl BuildLog {
    /// Begins a log anew.
    pub async fn create(directory: &Path, id: &ImageId) -> io::Result<Self> {
        Ok(Self {
            file: File::create(path(directory, id)).await?,
            written: 0,
            is_at_line_start: true,
        })
    }

    /// Adds output of a program. A log that cannot be written stops no build.
    pub async fn append(&mut self, bytes: &[u8]) {
        if self.written >= MAX_LOG_BYTES {
            return;
        }
        let room = usize::try_from(MAX_LOG_BYTES - self.written).unwrap_or(usize::MAX);
        let fits = &bytes[..bytes.len().min(room)];
        self.written += fits.len() as u64;
        self.write(fits).await;
        if self.written >= MAX_LOG_BYTES {
            self.write(b"\n[what came later is not kept: a log has at most 8 MiB]\n")
                .await;
        }
    }

    /// A line of ours, told from what programs write; there is always room for it.
    pub async fn line(&mut self, text: &str) {
        let begin = if self.is_at_line_start { "" } else { "\n" };
        self.write(format!("{begin}==> {text}\n").as_bytes()).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last() {
            self.is_at_line_start = *last == b'\n';
        }
        let written = async {
            self.file.write_all(bytes).await?;
            self.file.flush().await
        };
        if let Err(error) = written.await {
            tracing::warn!(%error, "the log of an image build cannot be written");
        }
    }
}

/// Part of a log. `is_final`: whether the build had ended before this was called.
pub async fn read(directory: &Path, id: &ImageId, after: u64, is_final: bool) -> Result<ImageLog, Problem> {
    let read = async {
        let mut file = match File::open(path(directory, id)).await {
            Ok(file) => file,
            // It has not begun, or failed before.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
            Err(error) => return Err(error),
        };
        let size = file.metadata().await?.len();
        // Nothing comes after the end.
        file.seek(io::SeekFrom::Start(after.min(size))).await?;
        let mut bytes = Vec::new();
        file.take(MAX_READ_BYTES).read_to_end(&mut bytes).await?;
        Ok((bytes, size))
    };
    let (mut bytes, size) = read.await.map_err(|error: io::Error| {
        tracing::warn!(image = %id, %error, "the log of an image cannot be read");
        Problem::transient("log_unreadable", "The log cannot be read.")
    })?;
    // Not half a character, unless it stays half.
    if let Err(error) = std::str::from_utf8(&bytes)
        && error.error_len().is_none()
        && error.valid_up_to() > 0
    {
        bytes.truncate(error.valid_up_to());
    }
    let end_offset = after.min(size) + bytes.len() as u64;
    Ok(ImageLog {
        output: String::from_utf8_lossy(&bytes).into_owned(),
        end_offset,
        is_whole: is_final && end_offset >= size,
    })
}

/// Removes the logs of images that are not known any more.
pub async fn remove_others(directory: &Path, known: &HashSet<ImageId>) {
    let Ok(mut entries) = tokio::fs::read_dir(directory).await else {
        return;
    };
    while let Ok(Some(entry)) = entries.next_entry().await {
        let name = entry.file_name().to_string_lossy().into_owned();
        let id = name
            .strip_suffix(".log")
            .and_then(|id| id.parse::<ImageId>().ok());
        if let Some(id) = id.filter(|id| !known.contains(id)) {
            remove(directory, &id).await;
        }
    }
}

/// Removes a log; one that is not there is fine.
pub async fn remove(directory: &Path, id: &ImageId) {
    let _ = tokio::fs::remove_file(path(directory, id)).await;
}

fn path(directory: &Path, id: &ImageId) -> PathBuf {
    directory.join(format!("{id}.log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_log_is_read_while_it_grows_and_ends_at_its_bound() {
        let temp = tempfile::tempdir().unwrap();
        let id = ImageId::from_bits(1);
        let nothing = read(temp.path(), &id, 0, false).await.unwrap();
        assert_eq!((nothing.output.as_str(), nothing.is_whole), ("", false));
        let mut log = BuildLog::create(temp.path(), &id).await.unwrap();
        log.append("gr\u{fc}n".as_bytes().split_at(3).0).await;
        let first = read(temp.path(), &id, 0, false).await.unwrap();
        assert_eq!((first.output.as_str(), first.end_offset), ("gr", 2));
        log.append("\u{fc}n".as_bytes().split_at(1).1).await;
        let rest = read(temp.path(), &id, first.end_offset, true).await.unwrap();
        assert_eq!((rest.output.as_str(), rest.is_whole), ("\u{fc}n", true));
        log.append(&vec![b'x'; 9 << 20]).await;
        log.append(b"more").await;
        log.line("failed").await;
        let mut after = 0;
        let tail = loop {
            let part = read(temp.path(), &id, after, true).await.unwrap();
            after = part.end_offset;
            if part.is_whole {
                break part.output;
            }
        };
        assert!(
            tail.ends_with("not kept: a log has at most 8 MiB]\n==> failed\n"),
            "{tail}"
        );
        assert!(after < (8 << 20) + 200);
    }
}
