//! Worlds for tests, this crate's and others': a workspace in memory, a model that plays a list, a platform and a recorder
//! that remember. They behave like the real ones as far as their docs say, and refuse the rest. Not for production.

mod model;
mod recorder;
mod workspace;

pub use model::{Answer, ListedModel};
pub use recorder::{Delta, FakePlatform, RecordingRecorder, Retry};
pub use workspace::{MemoryWorkspace, Ran};
