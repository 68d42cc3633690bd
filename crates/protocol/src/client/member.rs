//! Who may do what in a session: its members, people who come without being one, and links that let somebody in.

use super::person::Person;
use crate::id::{LinkId, SessionId};
use serde::{Deserialize, Serialize};

/// What somebody may do in a session. Each may do all that those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees everything in it, and may fork it.
    Viewer,
    /// Prompts, steers, stops, and works in its sandbox.
    Editor,
    /// Also says who else may do what. One person, besides the owners of the server, who may do so in every session.
    Owner,
}

/// Somebody with a role in a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Member {
    pub person: Person,
    pub role: Role,
}

/// What people of this server may do in a session without being its members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SessionAccess {
    /// Nothing: to them it does not exist.
    Members,
    /// What viewers may.
    #[default]
    Viewer,
    /// What editors may.
    Editor,
}

impl SessionAccess {
    /// The role of somebody who is no member.
    pub fn role(self) -> Option<Role> {
        match self {
            Self::Members => None,
            Self::Viewer => Some(Role::Viewer),
            Self::Editor => Some(Role::Editor),
        }
    }
}

/// Answer to `GET /v1/sessions/{id}/members`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MemberList {
    /// The owner first, then in the order in which they came.
    pub members: Vec<Member>,
    /// What people of this server may do who are not among them.
    pub access: SessionAccess,
    /// What the caller may do.
    pub your_role: Role,
}

/// Body of `PUT /v1/sessions/{id}/members/{person_id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SetMember {
    /// `owner` hands the session over: who owned it is an editor then.
    pub role: Role,
}

/// What a link lets its holder do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// Whoever is signed in and opens it becomes a member.
    Invite,
    /// Whoever has it watches, without signing in.
    Share,
}

/// Body of `POST /v1/sessions/{id}/links`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateLink {
    pub kind: LinkKind,
    /// Of those who come by it: `viewer` or `editor`; absent: `viewer`. Who watches without signing in is a viewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Until it no longer lets anybody in, in seconds: 60 to 90 days; absent: 7 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_for_seconds: Option<u64>,
}

/// A link into a session, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionLink {
    pub id: LinkId,
    pub kind: LinkKind,
    pub role: Role,
    pub created_by: Person,
    pub created_at_ms: i64,
    pub expires_at_ms: i64,
}

/// Answer to `POST /v1/sessions/{id}/links`: the only time that the address is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CreatedLink {
    pub link: SessionLink,
    /// Its secret stands behind `#token=`.
    pub url: String,
}

/// Answer to `GET /v1/sessions/{id}/links`: those that let somebody in, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionLinkList {
    pub links: Vec<SessionLink>,
}

/// Body of `POST /v1/memberships`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct JoinSession {
    /// What stands behind `#token=` in an invite link.
    pub token: String,
}

/// Answer to `POST /v1/memberships`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JoinedSession {
    pub session_id: SessionId,
    /// What the caller may do there now; never less than before.
    pub role: Role,
}
