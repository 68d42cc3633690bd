//! Images whose files the session keeps, put into what a model is told. Conversations hold only their names, so that a long one with many
//! images takes little memory while nobody asks a model.

use crate::world::{RecordError, Recorder};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use greenroom_llm::conversation::{Block, MISSING_IMAGE, Message};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// The files that one turn needed so far.
#[derive(Debug, Default)]
pub(crate) struct KeptImages {
    /// In base64 by their digests; `None`: lost.
    files: HashMap<String, Option<String>>,
}

impl KeptImages {
    /// Puts files in the place of names; one that is lost is said to be.
    pub async fn put_into(
        &mut self,
        messages: &mut [Message],
        recorder: &dyn Recorder,
    ) -> Result<(), RecordError> {
        let mut wanted = Vec::new();
        each_image(messages, &mut |block| {
            if let Block::KeptImage { digest, .. } = block {
                wanted.push(digest.clone());
            }
        });
        for digest in wanted {
            if let Entry::Vacant(place) = self.files.entry(digest) {
                let file = recorder.kept_file(place.key()).await?;
                place.insert(file.map(|bytes| STANDARD.encode(bytes)));
            }
        }
        each_image(messages, &mut |block| {
            let Block::KeptImage { media_type, digest } = block else {
                return;
            };
            *block = match self.files.get(digest).cloned().flatten() {
                Some(data_base64) => Block::Image {
                    media_type: std::mem::take(media_type),
                    data_base64,
                },
                None => Block::Text {
                    text: MISSING_IMAGE.to_owned(),
                },
            };
        });
        Ok(())
    }
}

/// Every block that is not inside of another's text, also those of tools' results.
fn each_image(messages: &mut [Message], see: &mut dyn FnMut(&mut Block)) {
    for block in messages.iter_mut().flat_map(|message| &mut message.blocks) {
        match block {
            Block::ToolResult { content, .. } => content.iter_mut().for_each(&mut *see),
            other => see(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::RecordingRecorder;
    use greenroom_llm::conversation::Role;

    fn kept(digest: &str) -> Block {
        Block::KeptImage {
            media_type: "image/png".to_owned(),
            digest: digest.to_owned(),
        }
    }

    fn image(data_base64: &str) -> Block {
        Block::Image {
            media_type: "image/png".to_owned(),
            data_base64: data_base64.to_owned(),
        }
    }

    fn said(blocks: Vec<Block>) -> Message {
        Message {
            role: Role::User,
            blocks,
        }
    }

    #[tokio::test]
    async fn names_become_files_and_lost_ones_are_said() {
        let recorder = RecordingRecorder::default();
        recorder.keep("a", b"abc");
        let result = |content| Block::ToolResult {
            call_id: "1".to_owned(),
            content,
            is_error: false,
        };
        let missing = || Block::Text {
            text: MISSING_IMAGE.to_owned(),
        };
        let mut images = KeptImages::default();
        for _ in 0..2 {
            let mut messages = vec![
                said(vec![kept("a"), image("eA==")]),
                said(vec![result(vec![kept("a"), kept("lost")])]),
            ];
            images.put_into(&mut messages, &recorder).await.unwrap();
            let expected = vec![
                said(vec![image("YWJj"), image("eA==")]),
                said(vec![result(vec![image("YWJj"), missing()])]),
            ];
            assert_eq!(messages, expected);
        }
        assert_eq!(recorder.files_asked(), ["a", "lost"], "each once in a turn");
    }
}
