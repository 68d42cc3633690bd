//! Secrets at rest: encrypted in the catalog with a key that lies in a file of its own. Values appear in no error and no log.

use super::{Catalog, CatalogError, During};
use crate::failure::StorageFailure;
use greenroom_stdx::secret::Secret;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;
use rusqlite::{OptionalExtension, params};
use std::fmt;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

impl Catalog {
    /// Stores or replaces a secret.
    pub async fn set_secret(&self, name: &str, value: &Secret) -> Result<(), CatalogError> {
        let sealed = self.secret_box.seal(name, value)?;
        let (name, now_ms) = (name.to_owned(), self.clock.now_ms());
        self.database
            .write(move |db| {
                db.execute(
                    "INSERT INTO secrets (name, sealed, updated_at_ms) VALUES (?1, ?2, ?3)
                     ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed, updated_at_ms = excluded.updated_at_ms",
                    params![name, sealed, now_ms],
                )
                .during("put secret")?;
                Ok(())
            })
            .await
    }

    /// The secret of this name; `SecretUnreadable` if it was stored with another key file.
    pub async fn secret(&self, name: &str) -> Result<Option<Secret>, CatalogError> {
        let wanted = name.to_owned();
        let sealed: Option<Vec<u8>> = self
            .database
            .read(move |db| {
                db.query_row("SELECT sealed FROM secrets WHERE name = ?1", [wanted], |row| {
                    row.get(0)
                })
                .optional()
                .during("read secret")
            })
            .await?;
        sealed
            .map(|sealed| self.secret_box.open_sealed(name, sealed))
            .transpose()
    }

    /// 32 secret bytes for one purpose, the same each time as long as the key file is; they tell nothing about those of
    /// another purpose or about stored secrets (HKDF-SHA256, RFC 5869).
    pub fn derived_key(&self, purpose: &str) -> [u8; 32] {
        self.secret_box.derived_key(purpose)
    }

    /// Names of all secrets, sorted.
    pub async fn secret_names(&self) -> Result<Vec<String>, CatalogError> {
        self.database
            .read(|db| {
                db.prepare_cached("SELECT name FROM secrets ORDER BY name")
                    .and_then(|mut query| query.query_map([], |row| row.get(0))?.collect())
                    .during("list secrets")
            })
            .await
    }

    /// Deletes a secret. Removing one that does not exist changes nothing.
    pub async fn remove_secret(&self, name: &str) -> Result<(), CatalogError> {
        let name = name.to_owned();
        self.database
            .write(move |db| {
                db.execute("DELETE FROM secrets WHERE name = ?1", [name])
                    .during("remove secret")?;
                Ok(())
            })
            .await
    }
}

/// Separates derived keys from any other use of the key file.
const DERIVED_KEYS: &[u8] = b"greenroom derived keys 1";

/// AES-256-GCM under the key of the key file. A stored value is a random nonce, then ciphertext and tag; the name is
/// authenticated with it, so that a value cannot be moved to another name.
pub(super) struct SecretBox {
    key: LessSafeKey,
    /// For keys of other purposes.
    root: hkdf::Prk,
}

impl fmt::Debug for SecretBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBox(…)")
    }
}

impl SecretBox {
    /// Reads the key file, or makes it with 32 random bytes and mode 0600.
    pub(super) fn open(path: &Path) -> Result<Self, CatalogError> {
        let bytes = match OpenOptions::new().read(true).open(path) {
            Ok(file) => read_key(file)?,
            Err(error) if error.kind() == ErrorKind::NotFound => create_key(path)?,
            Err(error) => return Err(StorageFailure::io("open key file", error).into()),
        };
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| CatalogError::KeyFileInvalid {
            reason: "it does not hold 32 bytes",
        })?;
        Ok(Self {
            key: LessSafeKey::new(key),
            root: hkdf::Salt::new(hkdf::HKDF_SHA256, DERIVED_KEYS).extract(&bytes),
        })
    }

    fn derived_key(&self, purpose: &str) -> [u8; 32] {
        let mut key = [0; 32];
        let info = [purpose.as_bytes()];
        let expanded = self
            .root
            .expand(&info, hkdf::HKDF_SHA256)
            .and_then(|expanded| expanded.fill(&mut key));
        // 32 bytes are the length of the hash, which HKDF-SHA256 always gives.
        debug_assert!(expanded.is_ok());
        key
    }

    fn seal(&self, name: &str, value: &Secret) -> Result<Vec<u8>, CatalogError> {
        // 96 random bits per value: safe below 2^32 values under one key (NIST SP 800-38D, 8.3).
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&greenroom_stdx::id::random_bytes()[..NONCE_LEN]);
        let mut sealed = value.expose().as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(name.as_bytes()),
                &mut sealed,
            )
            .map_err(|_| StorageFailure::io("encrypt secret", ErrorKind::InvalidInput.into()))?;
        sealed.splice(..0, nonce);
        Ok(sealed)
    }

    fn open_sealed(&self, name: &str, mut sealed: Vec<u8>) -> Result<Secret, CatalogError> {
        let unreadable = || CatalogError::SecretUnreadable {
            name: name.to_owned(),
        };
        let (nonce, rest) = sealed.split_at_mut_checked(NONCE_LEN).ok_or_else(unreadable)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| unreadable())?;
        let plain = self
            .key
            .open_in_place(nonce, Aad::from(name.as_bytes()), rest)
            .map_err(|_| unreadable())?;
        let text = std::str::from_utf8(plain).map_err(|_| unreadable())?;
        Ok(Secret::new(text))
    }
}

fn read_key(file: std::fs::File) -> Result<Vec<u8>, CatalogError> {
    let mode = file
        .metadata()
        .map_err(|error| StorageFailure::io("inspect key file", error))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(CatalogError::KeyFileInvalid {
            reason: "others may read it (make its mode 0600)",
        });
    }
    let mut bytes = Vec::with_capacity(33);
    file.take(33)
        .read_to_end(&mut bytes)
        .map_err(|error| StorageFailure::io("read key file", error))?;
    Ok(bytes)
}

/// The key is whole on disk under its name or not there at all: losing half of it would lose every secret.
fn create_key(path: &Path) -> Result<Vec<u8>, CatalogError> {
    let bytes = greenroom_stdx::id::random_bytes();
    let fresh = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => std::fs::File::open(parent)?.sync_all(),
            _ => std::fs::File::open(".")?.sync_all(),
        }
    };
    write().map_err(|error| StorageFailure::io("create key file", error))?;
    Ok(bytes.to_vec())
}
