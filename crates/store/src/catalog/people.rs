//! People: who may use this server, and what their commits are signed with.

use super::{Catalog, CatalogError, During};
use greenroom_protocol::client::person::{Person, UpdateMe};
use greenroom_protocol::id::PersonId;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// Name of an owner who has not said theirs.
const OWNER_NAME: &str = "Owner";
/// Address of an owner who has not said theirs; `.invalid` can never be someone's (RFC 2606).
const OWNER_EMAIL: &str = "owner@greenroom.invalid";

impl Catalog {
    /// The server's owner, made on first use with a placeholder for name and address.
    pub async fn owner(&self) -> Result<Person, CatalogError> {
        let now_ms = self.clock.now_ms();
        self.database
            .write(move |db| {
                let owner = db
                    .query_row(
                        "SELECT id, name, email FROM people WHERE is_owner = 1",
                        [],
                        person_of,
                    )
                    .optional()
                    .during("read owner")?;
                if let Some(owner) = owner {
                    return Ok(owner);
                }
                let owner = Person {
                    id: PersonId::from_bits(greenroom_stdx::id::fresh_bits()),
                    name: OWNER_NAME.to_owned(),
                    email: OWNER_EMAIL.to_owned(),
                };
                db.execute(
                    "INSERT INTO people (id, name, email, is_owner, created_at_ms) VALUES (?1, ?2, ?3, 1, ?4)",
                    params![owner.id.as_str(), owner.name, owner.email, now_ms],
                )
                .during("insert owner")?;
                Ok(owner)
            })
            .await
    }

    /// The person with this id.
    pub async fn person(&self, id: &PersonId) -> Result<Option<Person>, CatalogError> {
        let id = id.clone();
        self.database.read(move |db| find_person(db, &id)).await
    }

    /// Changes name or address and returns the person then. Checks nothing but that the person exists.
    pub async fn update_person(&self, id: &PersonId, update: UpdateMe) -> Result<Person, CatalogError> {
        let id = id.clone();
        self.database
            .write(move |db| {
                db.execute(
                    "UPDATE people SET name = coalesce(?2, name), email = coalesce(?3, email) WHERE id = ?1",
                    params![id.as_str(), update.name, update.email],
                )
                .during("update person")?;
                find_person(db, &id)?.ok_or(CatalogError::PersonUnknown)
            })
            .await
    }
}

pub(super) fn find_person(db: &Connection, id: &PersonId) -> Result<Option<Person>, CatalogError> {
    db.query_row(
        "SELECT id, name, email FROM people WHERE id = ?1",
        [id.as_str()],
        person_of,
    )
    .optional()
    .during("read person")
}

/// Columns id, name, email.
pub(super) fn person_of(row: &Row<'_>) -> rusqlite::Result<Person> {
    Ok(Person {
        id: super::sessions::id_at(row, 0)?,
        name: row.get(1)?,
        email: row.get(2)?,
    })
}
