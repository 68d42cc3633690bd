//! One answer of a model while it streams: which item each block becomes, and what of it can be shown already. Pure.

use greenroom_llm::conversation::{Block, BlockKind, StopReason, StreamEvent, TokenUsage};
use greenroom_protocol::client::event::{Item, ItemBody};
use greenroom_protocol::client::stream::DeltaChannel;
use greenroom_protocol::id::ItemId;

/// A model's answer, so far or whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    blocks: Vec<Started>,
    end: Option<(StopReason, TokenUsage)>,
}

#[derive(Debug, Clone, PartialEq)]
struct Started {
    index: usize,
    item_id: ItemId,
    kind: BlockKind,
    /// Text so far, of messages alone: what is kept when the answer is stopped.
    text: String,
    whole: Option<Block>,
}

/// More text of an item, to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub item_id: ItemId,
    pub channel: DeltaChannel,
    pub text: String,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// In order, each with the item it is shown as.
    pub blocks: Vec<(ItemId, Block)>,
    pub stop_reason: StopReason,
    pub usage: TokenUsage,
}

impl Answer {
    /// Takes the next event of the stream; `fresh_id` names an item for each block that begins.
    pub fn push(&mut self, event: StreamEvent, fresh_id: impl FnOnce() -> ItemId) -> Option<Shown> {
        match event {
            StreamEvent::BlockStarted { index, kind } => {
                self.blocks.push(Started {
                    index,
                    item_id: fresh_id(),
                    kind,
                    text: String::new(),
                    whole: None,
                });
                None
            }
            StreamEvent::TextDelta { index, text } => {
                let block = self.block(index)?;
                block.text.push_str(&text);
                Some(Shown {
                    item_id: block.item_id.clone(),
                    channel: DeltaChannel::Message,
                    text,
                })
            }
            StreamEvent::ReasoningDelta { index, text } => {
                let item_id = self.block(index)?.item_id.clone();
                Some(Shown {
                    item_id,
                    channel: DeltaChannel::Reasoning,
                    text,
                })
            }
            StreamEvent::ArgumentsDelta { index, json } => {
                let item_id = self.block(index)?.item_id.clone();
                Some(Shown {
                    item_id,
                    channel: DeltaChannel::Input,
                    text: json,
                })
            }
            StreamEvent::BlockCompleted { index, block } => {
                self.block(index)?.whole = Some(block);
                None
            }
            StreamEvent::Finished { stop_reason, usage } => {
                self.end = Some((stop_reason, usage));
                None
            }
        }
    }

    fn block(&mut self, index: usize) -> Option<&mut Started> {
        self.blocks.iter_mut().find(|block| block.index == index)
    }

    /// The answer, once the stream said that it is whole.
    pub fn finished(self) -> Option<Finished> {
        let (stop_reason, usage) = self.end?;
        let blocks = self
            .blocks
            .into_iter()
            .filter_map(|block| Some((block.item_id, block.whole?)))
            .collect();
        Some(Finished {
            blocks,
            stop_reason,
            usage,
        })
    }

    /// What a person saw of an answer that was stopped: its texts. Calls and reasoning are dropped, because half of one
    /// can neither run nor be replayed.
    pub fn texts_so_far(self) -> Vec<(ItemId, Block)> {
        self.blocks
            .into_iter()
            .filter(|block| block.kind == BlockKind::Text && !block.text.trim().is_empty())
            .map(|block| (block.item_id, Block::Text { text: block.text }))
            .collect()
    }
}

/// The items that the blocks of an answer are shown as; calls become items when they run.
pub fn items(blocks: &[(ItemId, Block)]) -> Vec<Item> {
    blocks
        .iter()
        .filter_map(|(id, block)| {
            let body = match block {
                Block::Text { text } if !text.trim().is_empty() => ItemBody::Message { text: text.clone() },
                Block::Reasoning { text, .. } if !text.trim().is_empty() => {
                    ItemBody::Reasoning { text: text.clone() }
                }
                _ => return None,
            };
            Some(Item { id: id.clone(), body })
        })
        .collect()
}
