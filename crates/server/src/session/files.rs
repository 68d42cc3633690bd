//! Files that a session keeps: images of prompts and of tools' results, and what the agent shows to people. They lie in its database by what is in them; events and the
//! journal hold only their names.

use super::services::SessionServices;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use greenroom_agent::world::{JournalEntry, Record};
use greenroom_llm::conversation::Block;
use greenroom_protocol::client::event::{EventBody, Item, ItemBody};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::prompt::{KeptImage, PromptImage};
use greenroom_protocol::id::SessionId;
use greenroom_protocol::reference::Digest;
use greenroom_store::session_log::{Blob, JournalRow, PutBlobError, digest_of};
use serde_json::Value;
use std::collections::BTreeSet;

/// All files of one session together.
pub const MAX_BYTES: u64 = 512 * 1024 * 1024;

/// What the model is told in the place of an image that there was no room for.
const NO_ROOM: &str = "[an image was here; this session has no room for more files]";

/// Keeps the images of a prompt.
pub async fn keep_images(
    services: &SessionServices,
    session: &SessionId,
    images: Vec<Blob>,
) -> Result<Vec<PromptImage>, Problem> {
    if images.is_empty() {
        return Ok(Vec::new());
    }
    let told: Vec<_> = images
        .iter()
        .map(|blob| (blob.media_type.clone(), blob.bytes.len() as u64))
        .collect();
    let put = services.store.put_blobs(session, images, MAX_BYTES).await;
    let digests = put.map_err(|error| error.problem())?;
    let kept = told
        .into_iter()
        .zip(digests)
        .map(|((media_type, size_bytes), digest)| {
            PromptImage::Kept(KeptImage {
                media_type,
                digest,
                size_bytes,
            })
        });
    Ok(kept.collect())
}

/// Keeps one file and answers with its name.
pub async fn keep(
    services: &SessionServices,
    session: &SessionId,
    media_type: &str,
    bytes: Vec<u8>,
) -> Result<Digest, PutBlobError> {
    let digest = digest_of(&bytes);
    let blob = Blob {
        media_type: media_type.to_owned(),
        bytes,
    };
    let put = services.store.put_blobs(session, vec![blob], MAX_BYTES).await;
    put.map(|_| digest)
}

/// Keeps images that stand in a step's journal, and puts their names in their place. One that finds no room is left out and said to be.
pub async fn keep_images_of(
    services: &SessionServices,
    session: &SessionId,
    record: &mut Record,
) -> Result<(), Problem> {
    for entry in &mut record.journal {
        let blocks = match entry {
            JournalEntry::Message { message } => message.blocks.as_mut_slice(),
            JournalEntry::ToolCallEnded { result, .. } => std::slice::from_mut(result),
            JournalEntry::ModelRequested { .. }
            | JournalEntry::ModelUsed { .. }
            | JournalEntry::ToolCallStarted { .. } => continue,
        };
        for block in blocks {
            match block {
                Block::ToolResult { content, .. } => {
                    for block in content {
                        keep_image(services, session, block).await?;
                    }
                }
                block => keep_image(services, session, block).await?,
            }
        }
    }
    Ok(())
}

async fn keep_image(
    services: &SessionServices,
    session: &SessionId,
    block: &mut Block,
) -> Result<(), Problem> {
    let Block::Image {
        media_type,
        data_base64,
    } = block
    else {
        return Ok(());
    };
    // What is no base64 is for the model's provider to refuse.
    let Ok(bytes) = STANDARD.decode(data_base64) else {
        return Ok(());
    };
    *block = match keep(services, session, media_type, bytes).await {
        Ok(digest) => Block::KeptImage {
            media_type: std::mem::take(media_type),
            digest: digest.into(),
        },
        Err(PutBlobError::TooMuch { .. }) => Block::Text {
            text: NO_ROOM.to_owned(),
        },
        Err(error) => return Err(error.problem()),
    };
    Ok(())
}

/// The names of files in what a fork takes over.
pub fn names_in<'a>(
    events: impl Iterator<Item = &'a EventBody>,
    journal: &'a [JournalRow],
) -> BTreeSet<Digest> {
    let mut names = BTreeSet::new();
    for body in events {
        match body {
            EventBody::PromptQueued { prompt, .. } => {
                names.extend(prompt.images.iter().filter_map(|image| match image {
                    PromptImage::Kept(image) => Some(image.digest.clone()),
                    PromptImage::Inline(_) => None,
                }));
            }
            EventBody::ItemCompleted {
                item:
                    Item {
                        body: ItemBody::Artifact(artifact),
                        ..
                    },
                ..
            } => {
                names.insert(artifact.digest.clone());
            }
            _ => {}
        }
    }
    for row in journal {
        names_in_json(&row.entry, &mut names);
    }
    names
}

/// As [`Block::KeptImage`] is written.
fn names_in_json(value: &Value, names: &mut BTreeSet<Digest>) {
    match value {
        Value::Object(fields) => {
            if fields.get("type").and_then(Value::as_str) == Some("kept_image")
                && let Some(digest) = fields.get("digest").and_then(Value::as_str)
            {
                names.extend(digest.parse::<Digest>());
            }
            fields.values().for_each(|value| names_in_json(value, names));
        }
        Value::Array(values) => values.iter().for_each(|value| names_in_json(value, names)),
        _ => {}
    }
}

/// Gives a session files of another, one after the other; one that is lost there stays so.
pub async fn copy(
    services: &SessionServices,
    from: &SessionId,
    to: &SessionId,
    names: &BTreeSet<Digest>,
) -> Result<(), Problem> {
    if names.is_empty() {
        return Ok(());
    }
    let store = &services.store;
    store.create(to).await.map_err(|error| error.problem())?;
    for name in names {
        let blob = store.blob(from, name).await.map_err(|error| error.problem())?;
        if let Some(blob) = blob {
            let put = store.put_blobs(to, vec![blob], u64::MAX).await;
            put.map_err(|error| error.problem())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_llm::conversation::{Message, Role};
    use greenroom_protocol::id::TurnId;

    #[test]
    fn names_are_found_wherever_the_journal_has_them() {
        let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let image = |digit: &str| Block::KeptImage {
            media_type: "image/png".to_owned(),
            digest: digest(digit),
        };
        let result = Block::ToolResult {
            call_id: "1".to_owned(),
            content: vec![image("b")],
            is_error: false,
        };
        let message = Message {
            role: Role::User,
            blocks: vec![image("a"), result.clone()],
        };
        let ended = JournalEntry::ToolCallEnded {
            call_id: "2".to_owned(),
            result: Block::ToolResult {
                call_id: "2".to_owned(),
                content: vec![image("c"), image("a")],
                is_error: false,
            },
        };
        let journal: Vec<_> = [JournalEntry::Message { message }, ended]
            .iter()
            .map(|entry| JournalRow {
                at_ms: 0,
                turn_id: TurnId::from_bits(1),
                entry: serde_json::to_value(entry).unwrap(),
            })
            .collect();
        let names: Vec<_> = names_in([].iter(), &journal)
            .into_iter()
            .map(String::from)
            .collect();
        assert_eq!(names, ["a", "b", "c"].map(digest));
    }
}
