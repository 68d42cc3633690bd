//! People: who may use this server, and what their commits are signed with.

use super::{Catalog, CatalogError, During};
use greenroom_protocol::client::person::{Account, Person, UpdateMe, UpdatePerson};
use greenroom_protocol::id::{LinkId, PersonId};
use rusqlite::{Connection, OptionalExtension, Row, params};

/// Name of an owner who has not said theirs.
const OWNER_NAME: &str = "Owner";
/// Address of an owner who has not said theirs; `.invalid` can never be someone's (RFC 2606).
const OWNER_EMAIL: &str = "owner@greenroom.invalid";

impl Catalog {
    /// The server's first owner, made on first use with a placeholder for name and address.
    pub async fn owner(&self) -> Result<Person, CatalogError> {
        let now_ms = self.clock.now_ms();
        self.database
            .write(move |db| {
                let owner = db
                    .query_row(
                        "SELECT id, name, email FROM people WHERE is_owner = 1 AND removed_at_ms IS NULL ORDER BY id LIMIT 1",
                        [],
                        person_of,
                    )
                    .optional()
                    .during("read owner")?;
                if let Some(owner) = owner {
                    return Ok(owner);
                }
                let owner = fresh_person(OWNER_NAME.to_owned(), OWNER_EMAIL.to_owned());
                insert_person(db, &owner, true, now_ms)?;
                Ok(owner)
            })
            .await
    }

    /// Whether this person is one of the server's owners.
    pub async fn is_owner(&self, id: &PersonId) -> Result<bool, CatalogError> {
        let id = id.clone();
        self.database
            .read(move |db| Ok(find_account(db, &id)?.is_some_and(|account| account.is_owner)))
            .await
    }

    /// The person with this id, also one who was removed.
    pub async fn person(&self, id: &PersonId) -> Result<Option<Person>, CatalogError> {
        let id = id.clone();
        self.database.read(move |db| find_person(db, &id)).await
    }

    /// The person with this id if they may use this server.
    pub async fn account(&self, id: &PersonId) -> Result<Option<Account>, CatalogError> {
        let id = id.clone();
        self.database.read(move |db| find_account(db, &id)).await
    }

    /// Everybody who may use this server, in the order in which they came.
    pub async fn accounts(&self) -> Result<Vec<Account>, CatalogError> {
        self.database
            .read(|db| {
                db.prepare_cached(&format!("{ACCOUNTS} ORDER BY id"))
                    .and_then(|mut query| query.query_map([], account_of)?.collect())
                    .during("list people")
            })
            .await
    }

    /// Somebody new. `PersonExists` if their address is another's.
    pub async fn add_person(
        &self,
        name: String,
        email: String,
        is_owner: bool,
    ) -> Result<Account, CatalogError> {
        let now_ms = self.clock.now_ms();
        self.database
            .write(move |db| {
                check_email(db, &email, None)?;
                let person = fresh_person(name, email);
                insert_person(db, &person, is_owner, now_ms)?;
                Ok(Account {
                    person,
                    is_owner,
                    created_at_ms: now_ms,
                })
            })
            .await
    }

    /// Changes what an owner of the server may change of somebody. `LastOwner` if nobody would own it, `PersonExists` if the address
    /// is another's.
    ///
    /// Who owns it no longer may not let others into sessions of others: all links that they made end, and are answered too.
    pub async fn update_account(
        &self,
        id: &PersonId,
        update: UpdatePerson,
    ) -> Result<(Account, Vec<LinkId>), CatalogError> {
        let id = id.clone();
        self.database
            .write(move |db| {
                let account = find_account(db, &id)?.ok_or(CatalogError::PersonUnknown)?;
                let mut links = Vec::new();
                if account.is_owner && update.is_owner == Some(false) {
                    check_another_owner(db, &id)?;
                    links = super::links::revoke_links(db, None, &id)?;
                }
                if let Some(email) = &update.email {
                    check_email(db, email, Some(&id))?;
                }
                db.execute(
                    "UPDATE people SET name = coalesce(?2, name), email = coalesce(?3, email),
                       is_owner = coalesce(?4, is_owner) WHERE id = ?1",
                    params![id.as_str(), update.name, update.email, update.is_owner],
                )
                .during("update account")?;
                let account = find_account(db, &id)?.ok_or(CatalogError::PersonUnknown)?;
                Ok((account, links))
            })
            .await
    }

    /// Somebody leaves: their tokens, browsers and links are useless from now on. What they did stays, with their name.
    /// Answers with the links into sessions that end by it. `LastOwner` if nobody would own the server.
    pub async fn remove_person(&self, id: &PersonId) -> Result<Vec<LinkId>, CatalogError> {
        let (id, now_ms) = (id.clone(), self.clock.now_ms());
        self.database
            .write(move |db| {
                let account = find_account(db, &id)?.ok_or(CatalogError::PersonUnknown)?;
                if account.is_owner {
                    check_another_owner(db, &id)?;
                }
                let links = super::links::revoke_links(db, None, &id)?;
                for action in [
                    "DELETE FROM api_tokens WHERE person_id = ?1",
                    "DELETE FROM browser_sessions WHERE person_id = ?1",
                    "DELETE FROM sign_in_links WHERE person_id = ?1",
                ] {
                    db.execute(action, [id.as_str()]).during("remove person")?;
                }
                db.execute(
                    "UPDATE people SET removed_at_ms = ?2, is_owner = 0 WHERE id = ?1",
                    params![id.as_str(), now_ms],
                )
                .during("remove person")?;
                Ok(links)
            })
            .await
    }

    /// Changes name or address and returns the person then. `PersonExists` if the address is another's.
    pub async fn update_person(&self, id: &PersonId, update: UpdateMe) -> Result<Person, CatalogError> {
        let id = id.clone();
        self.database
            .write(move |db| {
                if let Some(email) = &update.email {
                    check_email(db, email, Some(&id))?;
                }
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

/// Of those who may use this server.
const ACCOUNTS: &str =
    "SELECT id, name, email, is_owner, created_at_ms FROM people WHERE removed_at_ms IS NULL";

fn account_of(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        person: person_of(row)?,
        is_owner: row.get(3)?,
        created_at_ms: row.get(4)?,
    })
}

pub(super) fn find_account(db: &Connection, id: &PersonId) -> Result<Option<Account>, CatalogError> {
    db.prepare_cached(&format!("{ACCOUNTS} AND id = ?1"))
        .and_then(|mut query| query.query_row([id.as_str()], account_of).optional())
        .during("read account")
}

fn fresh_person(name: String, email: String) -> Person {
    Person {
        id: PersonId::from_bits(greenroom_stdx::id::fresh_bits()),
        name,
        email,
    }
}

fn insert_person(db: &Connection, person: &Person, is_owner: bool, now_ms: i64) -> Result<(), CatalogError> {
    db.execute(
        "INSERT INTO people (id, name, email, is_owner, created_at_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![person.id.as_str(), person.name, person.email, is_owner, now_ms],
    )
    .map(|_| ())
    .during("insert person")
}

/// An address is one person's: it is how people are told from each other, and what commits are attributed by.
fn check_email(db: &Connection, email: &str, but: Option<&PersonId>) -> Result<(), CatalogError> {
    let taken = db
        .query_row(
            "SELECT 1 FROM people WHERE email = ?1 COLLATE NOCASE AND removed_at_ms IS NULL AND id IS NOT ?2",
            params![email, but.map(PersonId::as_str)],
            |_| Ok(()),
        )
        .optional()
        .during("look for address")?;
    match taken {
        Some(()) => Err(CatalogError::PersonExists),
        None => Ok(()),
    }
}

fn check_another_owner(db: &Connection, but: &PersonId) -> Result<(), CatalogError> {
    let another = db
        .query_row(
            "SELECT 1 FROM people WHERE is_owner = 1 AND removed_at_ms IS NULL AND id <> ?1 LIMIT 1",
            [but.as_str()],
            |_| Ok(()),
        )
        .optional()
        .during("look for another owner")?;
    another.ok_or(CatalogError::LastOwner)
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
