//! Which layers lie below what a sandbox writes. A file in the sandbox's own directory, so that it goes and comes with it.

use crate::failure::ImageError;
use crate::record::OwnRoot;
use crate::store::write_atomically;
use greenroom_protocol::id::LayerId;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::Path;

/// Name of the file in a sandbox's directory. Missing: no layers.
pub const CHAIN_NAME: &str = "layers.json";

/// Layers below a sandbox's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Topmost first.
    pub layers: Vec<LayerId>,
    /// How many of them, at the bottom, the sandbox was started from; those above it wrote itself.
    pub given: usize,
    /// Set if the host's base is not below them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<OwnRoot>,
}

impl Chain {
    /// Those that the sandbox wrote, topmost first.
    pub fn own(&self) -> &[LayerId] {
        &self.layers[..self.layers.len().saturating_sub(self.given)]
    }

    pub(crate) fn read(directory: &Path) -> Result<Self, ImageError> {
        let path = directory.join(CHAIN_NAME);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|source| ImageError::Damaged { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(ImageError::file("read", &path)(error)),
        }
    }

    pub(crate) fn write(&self, directory: &Path) -> Result<(), ImageError> {
        write_atomically(&directory.join(CHAIN_NAME), self)
    }
}
