//! The Rust client of a Greenroom server: typed calls for every endpoint and a session stream that survives
//! disconnects. It prints nothing, keeps nothing on disk and never logs a token.
//!
//! ```no_run
//! # async fn example() -> Result<(), greenroom_sdk::ClientError> {
//! use greenroom_sdk::{Client, Secret};
//! let client = Client::new("http://127.0.0.1:7878", Secret::new("token"))?;
//! for session in client.sessions(&Default::default()).await?.sessions {
//!     let mut stream = client.stream(&session.id, 0);
//!     while let Some(frame) = stream.next().await {
//!         let _frame = frame?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod address;
mod client;
mod failure;
mod idempotency;
mod shell;
mod socket;
mod stream;

pub use client::Client;
pub use client::people::AuditFilter;
pub use client::session::{Archived, SessionFilter};
pub use failure::ClientError;
pub use greenroom_protocol as protocol;
pub use greenroom_stdx::secret::Secret;
pub use idempotency::IdempotencyKey;
pub use shell::{Shell, ShellEvent, ShellEvents, ShellInput};
pub use stream::{SessionStream, StreamPatience};
