//! Links into sessions. Of their secrets only hashes are stored, as of tokens.

use super::people::{find_account, person_of};
use super::sessions::id_at;
use super::sign_in::hash;
use super::{Catalog, CatalogError, During};
use greenroom_protocol::client::member::{LinkKind, Role, SessionLink};
use greenroom_protocol::id::{LinkId, PersonId, SessionId};
use greenroom_stdx::secret::Secret;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::time::Duration;

/// What secrets of links start with, so that they are told from API tokens and scanners find leaked ones.
pub const LINK_PREFIX: &str = "grl_";

/// A link to be made.
#[derive(Debug, Clone)]
pub struct NewLink {
    pub session: SessionId,
    pub kind: LinkKind,
    pub role: Role,
    pub created_by: PersonId,
    pub valid_for: Duration,
}

/// What holding a link's secret is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkHolder {
    pub link: LinkId,
    pub session: SessionId,
    pub kind: LinkKind,
    pub role: Role,
}

const LINKS: &str =
    "SELECT p.id, p.name, p.email, l.id, l.kind, l.role, l.created_at_ms, l.expires_at_ms, l.session_id
    FROM session_links l JOIN people p ON p.id = l.created_by";

impl Catalog {
    /// Makes a link; its secret is never readable again.
    pub async fn create_link(&self, new: NewLink) -> Result<(SessionLink, Secret), CatalogError> {
        let secret = format!("{LINK_PREFIX}{}", greenroom_stdx::id::random_token());
        let (hash, now_ms) = (hash(&secret), self.clock.now_ms());
        let valid_for_ms = i64::try_from(new.valid_for.as_millis()).unwrap_or(i64::MAX);
        let link = self
            .database
            .write(move |db| {
                db.execute("DELETE FROM session_links WHERE expires_at_ms <= ?1", [now_ms])
                    .during("prune expired links")?;
                let created_by = find_account(db, &new.created_by)?.ok_or(CatalogError::PersonUnknown)?.person;
                let link = SessionLink {
                    id: LinkId::from_bits(greenroom_stdx::id::fresh_bits()),
                    kind: new.kind,
                    role: new.role,
                    created_by,
                    created_at_ms: now_ms,
                    expires_at_ms: now_ms.saturating_add(valid_for_ms),
                };
                db.execute(
                    "INSERT INTO session_links (id, hash, session_id, kind, role, created_by, created_at_ms, expires_at_ms)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    params![
                        link.id.as_str(),
                        hash,
                        new.session.as_str(),
                        kind_name(link.kind),
                        role_name(link.role),
                        new.created_by.as_str(),
                        link.created_at_ms,
                        link.expires_at_ms
                    ],
                )
                .during("insert link")?;
                Ok::<_, CatalogError>(link)
            })
            .await?;
        Ok((link, Secret::new(secret)))
    }

    /// Links of a session that let somebody in, the oldest first.
    pub async fn links(&self, session: &SessionId) -> Result<Vec<SessionLink>, CatalogError> {
        let (session, now_ms) = (session.clone(), self.clock.now_ms());
        self.database
            .read(move |db| {
                db.prepare_cached(&format!(
                    "{LINKS} WHERE l.session_id = ?1 AND l.expires_at_ms > ?2 ORDER BY l.id"
                ))
                .and_then(|mut query| {
                    query
                        .query_map(params![session.as_str(), now_ms], link_of)?
                        .collect()
                })
                .during("list links")
            })
            .await
    }

    /// What this secret is good for; `None` if for nothing, or no longer.
    pub async fn link_holder(&self, secret: &str) -> Result<Option<LinkHolder>, CatalogError> {
        let (hash, now_ms) = (hash(secret), self.clock.now_ms());
        self.database
            .read(move |db| {
                db.prepare_cached(&format!("{LINKS} WHERE l.hash = ?1 AND l.expires_at_ms > ?2"))
                    .and_then(|mut query| {
                        query
                            .query_row(params![hash, now_ms], |row| {
                                let link = link_of(row)?;
                                Ok(LinkHolder {
                                    link: link.id,
                                    session: id_at(row, 8)?,
                                    kind: link.kind,
                                    role: link.role,
                                })
                            })
                            .optional()
                    })
                    .during("find link")
            })
            .await
    }

    /// Makes useless what somebody made of links into a session; answers with them.
    pub async fn revoke_links_of(
        &self,
        session: &SessionId,
        person: &PersonId,
    ) -> Result<Vec<LinkId>, CatalogError> {
        let (session, person) = (session.clone(), person.clone());
        self.database
            .write(move |db| revoke_links(db, Some(&session), &person))
            .await
    }

    /// Makes a link useless; tells whether there was one.
    pub async fn revoke_link(&self, session: &SessionId, link: &LinkId) -> Result<bool, CatalogError> {
        let (session, link) = (session.clone(), link.clone());
        self.database
            .write(move |db| {
                let revoked = db.execute(
                    "DELETE FROM session_links WHERE id = ?1 AND session_id = ?2",
                    params![link.as_str(), session.as_str()],
                );
                Ok(revoked.during("revoke link")? > 0)
            })
            .await
    }
}

/// Ends the links that somebody made into a session, or into all.
pub(super) fn revoke_links(
    db: &Connection,
    session: Option<&SessionId>,
    created_by: &PersonId,
) -> Result<Vec<LinkId>, CatalogError> {
    db.prepare_cached(
        "DELETE FROM session_links WHERE created_by = ?1 AND (?2 IS NULL OR session_id = ?2) RETURNING id",
    )
    .and_then(|mut query| {
        query
            .query_map(
                params![created_by.as_str(), session.map(SessionId::as_str)],
                |row| id_at(row, 0),
            )?
            .collect()
    })
    .during("revoke links of a person")
}

fn link_of(row: &Row<'_>) -> rusqlite::Result<SessionLink> {
    Ok(SessionLink {
        created_by: person_of(row)?,
        id: id_at(row, 3)?,
        kind: match row.get_ref(4)?.as_str()? {
            "share" => LinkKind::Share,
            _ => LinkKind::Invite,
        },
        role: match row.get_ref(5)?.as_str()? {
            "editor" => Role::Editor,
            _ => Role::Viewer,
        },
        created_at_ms: row.get(6)?,
        expires_at_ms: row.get(7)?,
    })
}

fn kind_name(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Invite => "invite",
        LinkKind::Share => "share",
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Editor | Role::Owner => "editor",
    }
}
