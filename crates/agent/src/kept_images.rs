//! Images whose files the session keeps, put into what a model is told. Conversations hold only their names, so that a long one with many
//! images takes little memory while nobody asks a model.

use crate::picture::bytes_of_base64;
use crate::world::{RecordError, Recorder};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use greenroom_llm::conversation::{Block, MISSING_IMAGE, Message};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// What images of one request may have together, in bytes of their files. Providers refuse more, and it is held in memory several times.
const MAX_REQUEST_BYTES: u64 = 20 * 1024 * 1024;

/// What the model is told in the place of images for which there is no room, the older ones first.
const NO_ROOM: &str = "[an image was here; there is no room for it behind so many later ones]";
/// And of those that its provider did not take.
const REFUSED: &str = "[an image was here; it could not be shown to this model]";

/// The files that one turn shows a model.
#[derive(Debug, Default)]
pub(crate) struct KeptImages {
    /// In base64 by their digests; `None`: lost.
    files: HashMap<String, Option<String>>,
    /// The provider refused a request for its images.
    are_refused: bool,
}

impl KeptImages {
    /// From now on none is shown.
    pub fn leave_out(&mut self) {
        self.are_refused = true;
    }

    /// Puts files in the place of names, the newest first while there is room; what is not shown is said to be.
    pub async fn put_into(
        &mut self,
        messages: &mut [Message],
        recorder: &dyn Recorder,
    ) -> Result<(), RecordError> {
        let mut known = std::mem::take(&mut self.files);
        let mut left = match self.are_refused {
            true => 0,
            false => MAX_REQUEST_BYTES,
        };
        for block in images(messages) {
            let file = match block {
                Block::Image { data_base64, .. } => Some(std::mem::take(data_base64)),
                // Nothing is loaded for nothing.
                Block::KeptImage { .. } if left == 0 => None,
                Block::KeptImage { digest, .. } => match self.files.entry(digest.clone()) {
                    Entry::Occupied(place) => place.get().clone(),
                    Entry::Vacant(place) => {
                        let file = match known.remove(digest) {
                            Some(file) => file,
                            None => {
                                let file = recorder.kept_file(digest).await?;
                                file.map(|bytes| STANDARD.encode(bytes))
                            }
                        };
                        place.insert(file).clone()
                    }
                },
                _ => continue,
            };
            let fits = file
                .as_ref()
                .is_some_and(|base64| bytes_of_base64(base64) <= left);
            let said = match &file {
                _ if self.are_refused => REFUSED,
                None if left > 0 => MISSING_IMAGE,
                _ => NO_ROOM,
            };
            let media_type = match block {
                Block::Image { media_type, .. } | Block::KeptImage { media_type, .. } => {
                    std::mem::take(media_type)
                }
                _ => continue,
            };
            *block = match file {
                Some(data_base64) if fits => {
                    left -= bytes_of_base64(&data_base64);
                    Block::Image {
                        media_type,
                        data_base64,
                    }
                }
                file => {
                    if file.is_some() {
                        // What is older than one that is left out is left out, too: the conversation's beginning stays the same.
                        left = 0;
                    }
                    Block::Text {
                        text: said.to_owned(),
                    }
                }
            };
        }
        Ok(())
    }
}

/// Whether a request shows any.
pub(crate) fn has_images(messages: &[Message]) -> bool {
    let blocks = messages.iter().flat_map(|message| &message.blocks);
    blocks.into_iter().any(|block| match block {
        Block::ToolResult { content, .. } => content.iter().any(|inner| matches!(inner, Block::Image { .. })),
        block => matches!(block, Block::Image { .. }),
    })
}

/// Every image, also those of tools' results, the newest first.
fn images(messages: &mut [Message]) -> impl Iterator<Item = &mut Block> {
    let blocks = messages
        .iter_mut()
        .rev()
        .flat_map(|message| message.blocks.iter_mut().rev());
    let inner = blocks.flat_map(|block| match block {
        Block::ToolResult { content, .. } => content.iter_mut().rev().collect::<Vec<_>>(),
        block => vec![block],
    });
    inner.filter(|block| matches!(block, Block::Image { .. } | Block::KeptImage { .. }))
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
        assert_eq!(recorder.files_asked(), ["lost", "a"], "each once in a turn");
    }

    #[tokio::test]
    async fn the_newest_are_shown_while_there_is_room() {
        let recorder = RecordingRecorder::default();
        for name in ["a", "b", "c", "d", "e"] {
            recorder.keep(name, &[7; 5 * 1024 * 1024]);
        }
        recorder.keep("small", b"abc");
        let mut messages = vec![
            said(vec![kept("small"), kept("a")]),
            said(vec![kept("b"), kept("c")]),
            said(vec![kept("d"), kept("e"), kept("e")]),
        ];
        let mut images = KeptImages::default();
        let asked = messages.clone();
        images.put_into(&mut messages, &recorder).await.unwrap();
        let shown = |messages: &[Message]| -> Vec<bool> {
            let blocks = messages.iter().flat_map(|message| &message.blocks);
            blocks.map(|block| matches!(block, Block::Image { .. })).collect()
        };
        assert_eq!(shown(&messages), [false, false, false, true, true, true, true]);
        assert!(has_images(&messages));
        assert_eq!(recorder.files_asked(), ["e", "d", "c"]);
        images.leave_out();
        let mut messages = asked;
        images.put_into(&mut messages, &recorder).await.unwrap();
        assert!(!has_images(&messages));
        assert_eq!(
            recorder.files_asked().len(),
            3,
            "nothing is loaded to be left out"
        );
    }
}
