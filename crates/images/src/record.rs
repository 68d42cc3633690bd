//! What is known of a snapshot, as it lies on disk.

use greenroom_protocol::id::{LayerId, SandboxId, SnapshotId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A snapshot: the files of one sandbox at one moment, as layers over the base. Immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub id: SnapshotId,
    /// Whose files it has; `None`: of an image that was pulled.
    pub sandbox: Option<SandboxId>,
    /// Topmost first; below them is the host's base, unless they are a root of their own.
    pub layers: Vec<LayerId>,
    /// How many of them, at the bottom, the sandbox itself was started from.
    pub given: usize,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
    /// Whether root made it: attributes of layers differ, and nobody else can read them.
    pub by_root: bool,
    /// Run of the machine in which it was made (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// Whether it is on disk for good. One that is not is worth nothing after a power cut.
    pub is_durable: bool,
    /// Set if the host's base is not below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<OwnRoot>,
    /// What a registry had with it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What is known of layers that are a whole root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnRoot {
    /// From where they came, with a digest, such as `docker.io/library/debian@sha256:…`.
    pub source: String,
    /// Environment of programs, as the image says.
    pub variables: Vec<(String, String)>,
    /// The user as whom the image wants its programs run: a name or a number, with an optional `:GROUP`; empty: root.
    pub user: String,
    /// Home directories of its users, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub homes: BTreeMap<String, String>,
}

impl OwnRoot {
    /// With more variables. In them `${NAME}` stands for what a variable was before.
    pub fn with_variables(mut self, added: &[(String, String)]) -> Self {
        for (name, value) in added {
            let mut value = value.clone();
            for (known, before) in &self.variables {
                value = value.replace(&format!("${{{known}}}"), before);
            }
            match self.variables.iter_mut().find(|(known, _)| known == name) {
                Some(known) => known.1 = value,
                None => self.variables.push((name.clone(), value)),
            }
        }
        self
    }
}
