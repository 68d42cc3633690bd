//! API tokens, sign-in links and browser sessions. Only SHA-256 hashes of their secrets are stored; all are 256 random bits,
//! so a plain hash is enough and looking one up by hash tells nothing through timing.

use super::people::{find_account, find_person, person_of};
use super::sessions::id_at;
use super::{Catalog, CatalogError, During};
use greenroom_protocol::client::person::{CreatedToken, Person};
use greenroom_protocol::id::{PersonId, TokenId};
use greenroom_stdx::secret::Secret;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::time::Duration;

/// What API tokens start with, so that scanners find leaked ones.
const TOKEN_PREFIX: &str = "grt_";

/// An API token as its owner sees it in a list; the secret is not known any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    pub id: TokenId,
    pub label: String,
    pub created_at_ms: i64,
}

/// Who somebody turned out to be, and whether they own this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedIn {
    pub person: Person,
    pub is_owner: bool,
}

/// Columns id, name, email, is_owner.
fn signed_in_of(row: &Row<'_>) -> rusqlite::Result<SignedIn> {
    Ok(SignedIn {
        person: person_of(row)?,
        is_owner: row.get(3)?,
    })
}

impl Catalog {
    /// A new API token; its secret is never readable again.
    pub async fn create_token(&self, person: &PersonId, label: &str) -> Result<CreatedToken, CatalogError> {
        let token = CreatedToken {
            id: TokenId::from_bits(greenroom_stdx::id::fresh_bits()),
            label: label.to_owned(),
            secret: format!("{TOKEN_PREFIX}{}", greenroom_stdx::id::random_token()),
        };
        let (person, now_ms, stored) = (person.clone(), self.clock.now_ms(), token.clone());
        self.database
            .write(move |db| {
                require_person(db, &person)?;
                db.execute(
                    "INSERT INTO api_tokens (id, hash, person_id, label, created_at_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![stored.id.as_str(), hash(&stored.secret), person.as_str(), stored.label, now_ms],
                )
                .during("insert token")?;
                Ok::<_, CatalogError>(())
            })
            .await?;
        Ok(token)
    }

    /// Whose token this secret is; `None` if nobody's or revoked.
    pub async fn token_owner(&self, secret: &str) -> Result<Option<SignedIn>, CatalogError> {
        let hash = hash(secret);
        self.database
            .read(move |db| {
                db.prepare_cached(
                    "SELECT p.id, p.name, p.email, p.is_owner FROM api_tokens t JOIN people p ON p.id = t.person_id
                     WHERE t.hash = ?1 AND p.removed_at_ms IS NULL",
                )
                .and_then(|mut query| query.query_row([hash], signed_in_of).optional())
                .during("find token")
            })
            .await
    }

    /// A person's tokens, oldest first.
    pub async fn tokens(&self, person: &PersonId) -> Result<Vec<TokenInfo>, CatalogError> {
        let person = person.clone();
        self.database
            .read(move |db| {
                let mut query = db
                    .prepare_cached(
                        "SELECT id, label, created_at_ms FROM api_tokens WHERE person_id = ?1 ORDER BY id",
                    )
                    .during("list tokens")?;
                query
                    .query_map([person.as_str()], |row| {
                        Ok(TokenInfo {
                            id: id_at(row, 0)?,
                            label: row.get(1)?,
                            created_at_ms: row.get(2)?,
                        })
                    })
                    .and_then(Iterator::collect)
                    .during("list tokens")
            })
            .await
    }

    /// Makes a token of this person useless. Revoking one that does not exist changes nothing.
    pub async fn revoke_token(&self, person: &PersonId, token: &TokenId) -> Result<(), CatalogError> {
        let (person, token) = (person.clone(), token.clone());
        self.database
            .write(move |db| {
                db.execute(
                    "DELETE FROM api_tokens WHERE id = ?1 AND person_id = ?2",
                    params![token.as_str(), person.as_str()],
                )
                .during("revoke token")?;
                Ok(())
            })
            .await
    }

    /// The secret of a link that signs this person in once within `valid_for`.
    pub async fn create_sign_in_link(
        &self,
        person: &PersonId,
        valid_for: Duration,
    ) -> Result<Secret, CatalogError> {
        self.create_expiring(
            person,
            valid_for,
            "DELETE FROM sign_in_links WHERE expires_at_ms <= ?1",
            "INSERT INTO sign_in_links (hash, person_id, expires_at_ms) VALUES (?1, ?2, ?3)",
        )
        .await
    }

    /// Uses up a sign-in link: of any number of callers exactly one gets the person, and only before it expires.
    pub async fn consume_sign_in_link(&self, secret: &str) -> Result<Option<Person>, CatalogError> {
        let (hash, now_ms) = (hash(secret), self.clock.now_ms());
        self.database
            .write(move |db| {
                let person = db
                    .query_row(
                        "DELETE FROM sign_in_links WHERE hash = ?1 AND expires_at_ms > ?2 RETURNING person_id",
                        params![hash, now_ms],
                        |row| id_at::<PersonId>(row, 0),
                    )
                    .optional()
                    .during("consume sign-in link")?;
                match person {
                    Some(person) => find_person(db, &person),
                    None => Ok(None),
                }
            })
            .await
    }

    /// The secret of a browser's cookie, valid for `valid_for`.
    pub async fn create_browser_session(
        &self,
        person: &PersonId,
        valid_for: Duration,
    ) -> Result<Secret, CatalogError> {
        self.create_expiring(
            person,
            valid_for,
            "DELETE FROM browser_sessions WHERE expires_at_ms <= ?1",
            "INSERT INTO browser_sessions (hash, person_id, expires_at_ms) VALUES (?1, ?2, ?3)",
        )
        .await
    }

    /// Who signed in with this cookie; `None` if nobody, expired or revoked.
    pub async fn browser_session_owner(&self, secret: &str) -> Result<Option<SignedIn>, CatalogError> {
        let (hash, now_ms) = (hash(secret), self.clock.now_ms());
        self.database
            .read(move |db| {
                db.prepare_cached(
                    "SELECT p.id, p.name, p.email, p.is_owner FROM browser_sessions b JOIN people p ON p.id = b.person_id
                     WHERE b.hash = ?1 AND b.expires_at_ms > ?2 AND p.removed_at_ms IS NULL",
                )
                .and_then(|mut query| query.query_row(params![hash, now_ms], signed_in_of).optional())
                .during("find browser session")
            })
            .await
    }

    /// Signs one browser out. Revoking one that does not exist changes nothing.
    pub async fn revoke_browser_session(&self, secret: &str) -> Result<(), CatalogError> {
        let hash = hash(secret);
        self.database
            .write(move |db| {
                db.execute("DELETE FROM browser_sessions WHERE hash = ?1", [hash])
                    .during("revoke browser session")?;
                Ok(())
            })
            .await
    }

    /// Signs a person out everywhere.
    pub async fn revoke_browser_sessions(&self, person: &PersonId) -> Result<(), CatalogError> {
        let person = person.clone();
        self.database
            .write(move |db| {
                db.execute(
                    "DELETE FROM browser_sessions WHERE person_id = ?1",
                    [person.as_str()],
                )
                .during("revoke browser sessions")?;
                Ok(())
            })
            .await
    }

    async fn create_expiring(
        &self,
        person: &PersonId,
        valid_for: Duration,
        prune: &'static str,
        insert: &'static str,
    ) -> Result<Secret, CatalogError> {
        let secret = Secret::new(greenroom_stdx::id::random_token());
        let (person, hash, now_ms) = (person.clone(), hash(secret.expose()), self.clock.now_ms());
        let valid_for_ms = i64::try_from(valid_for.as_millis()).unwrap_or(i64::MAX);
        self.database
            .write(move |db| {
                require_person(db, &person)?;
                db.execute(prune, [now_ms]).during("prune expired secrets")?;
                db.execute(
                    insert,
                    params![hash, person.as_str(), now_ms.saturating_add(valid_for_ms)],
                )
                .during("insert expiring secret")?;
                Ok::<_, CatalogError>(())
            })
            .await?;
        Ok(secret)
    }
}

fn require_person(db: &Connection, person: &PersonId) -> Result<(), CatalogError> {
    find_account(db, person)?
        .map(|_| ())
        .ok_or(CatalogError::PersonUnknown)
}

/// What is stored of a secret.
pub(super) fn hash(secret: &str) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, secret.as_bytes())
        .as_ref()
        .to_vec()
}
