//! The catalog: one database for what is not inside a session (people, sign-in, lists, secrets at rest). Async calls over one
//! writer thread and one reader thread; all that `Ok` reports is on disk.

mod audit;
mod deletions;
mod environments;
mod image_pins;
mod images;
mod links;
mod people;
mod receipts;
mod repositories;
mod schema;
mod search;
mod secrets;
mod sessions;
mod sign_in;
mod snapshots;

pub use audit::{AuditQuery, NewAuditEntry};
pub(crate) use deletions::FORGET_SESSION;
pub use links::{LINK_PREFIX, LinkHolder, NewLink};
pub use receipts::{MAX_RECEIPT_BYTES, Receipt};
pub use repositories::RepositoryRow;
pub(crate) use schema::SCHEMA;
pub use search::SearchText;
pub use sessions::SessionQuery;
pub use sign_in::{SignedIn, TokenInfo};

use crate::database::{Database, failure_of};
use crate::failure::StorageFailure;
use greenroom_protocol::client::problem::Problem;
use greenroom_stdx::clock::Clock;
use secrets::SecretBox;
use std::path::Path;
use std::sync::Arc;
use thiserror::Error;

/// The open catalog; cheap to clone. The last clone's drop closes it.
#[derive(Debug, Clone)]
pub struct Catalog {
    database: Arc<Database>,
    secret_box: Arc<SecretBox>,
    clock: Clock,
}

/// Why the catalog did not do it. Never holds a credential.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// There is no such person.
    #[error("person does not exist")]
    PersonUnknown,
    /// Somebody else has this address.
    #[error("address is another person's")]
    PersonExists,
    /// Nobody would own the server.
    #[error("nobody else owns the server")]
    LastOwner,
    /// A repository of this name exists.
    #[error("repository exists")]
    RepositoryExists,
    /// This person used the key for another command.
    #[error("idempotency key was used for another command")]
    KeyReused,
    /// Not a cursor of [`SessionQuery`].
    #[error("cursor is not valid")]
    CursorInvalid,
    /// A secret cannot be decrypted: the key file is not the one it was stored with.
    #[error("secret {name} does not fit the key file")]
    SecretUnreadable { name: String },
    /// The key file is not 32 bytes or others may read it.
    #[error("key file cannot be used: {reason}")]
    KeyFileInvalid { reason: &'static str },
    #[error("use catalog")]
    Io(#[from] StorageFailure),
}

/// Gives an SQLite error its context, a short present-tense verb phrase.
trait During<T> {
    fn during(self, action: &'static str) -> Result<T, CatalogError>;
}

impl<T> During<T> for rusqlite::Result<T> {
    fn during(self, action: &'static str) -> Result<T, CatalogError> {
        self.map_err(|error| failure_of(action, error).into())
    }
}

impl CatalogError {
    /// What a person or a client is told; codes `person_unknown`, `person_exists`, `last_owner`, `repository_exists`, `idempotency_key_reused`,
    /// `cursor_invalid`, `secret_unreadable`, `key_file_invalid`, `catalog_corrupt` and those of [`StorageFailure::problem`].
    pub fn problem(&self) -> Problem {
        match self {
            Self::PersonUnknown => Problem::permanent("person_unknown", "There is no such person.")
                .with_hint("List them with `greenroom person list`."),
            Self::PersonExists => {
                Problem::permanent("person_exists", "Somebody on this server has this email address.")
                    .with_hint("Each person has an address of their own.")
            }
            Self::LastOwner => Problem::permanent("last_owner", "Nobody else owns this server.")
                .with_hint("Make somebody else an owner first."),
            Self::RepositoryExists => {
                Problem::permanent("repository_exists", "A repository of this name exists.")
                    .with_hint("Choose another name.")
            }
            Self::KeyReused => Problem::permanent(
                "idempotency_key_reused",
                "This idempotency key was used for another command, so nothing was done.",
            )
            .with_hint("Use a new key for a new command."),
            Self::CursorInvalid => Problem::permanent("cursor_invalid", "The cursor is not valid.")
                .with_hint("Start again without a cursor."),
            Self::SecretUnreadable { name } => Problem::permanent(
                "secret_unreadable",
                format!("The stored secret {name} cannot be decrypted."),
            )
            .with_hint("Put back the key file it was stored with, or set the secret again."),
            Self::KeyFileInvalid { reason } => Problem::permanent(
                "key_file_invalid",
                format!("The key file of the secret store cannot be used: {reason}."),
            )
            .with_hint("Restore it from a backup; without it stored secrets must be set again."),
            Self::Io(StorageFailure::Corrupt { .. }) => {
                Problem::permanent("catalog_corrupt", "The catalog is damaged.").with_hint(
                    "Stop the server and restore catalog.db from a backup; sessions are not affected.",
                )
            }
            Self::Io(failure) => failure.problem(),
        }
    }
}

impl Catalog {
    /// Opens or makes the database at `path` and the key of its secrets at `key_file` (mode 0600).
    pub async fn open(path: &Path, key_file: &Path) -> Result<Self, CatalogError> {
        Self::open_with_clock(path, key_file, Clock::system()).await
    }

    /// The same with another clock for expiry times.
    pub async fn open_with_clock(path: &Path, key_file: &Path, clock: Clock) -> Result<Self, CatalogError> {
        let secret_box = SecretBox::open(key_file)?;
        let database = Database::open(path.to_owned(), &schema::SCHEMA).await?;
        Ok(Self {
            database: Arc::new(database),
            secret_box: Arc::new(secret_box),
            clock,
        })
    }
}
