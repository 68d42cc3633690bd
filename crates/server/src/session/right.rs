//! What somebody may do in a session, looked at where it is done: between a request's admission and its turn in the session's mailbox they
//! may have been removed. Pure, but for who left the server.

use greenroom_protocol::client::member::Role;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::Session;
use greenroom_protocol::id::PersonId;
use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

/// Somebody who asks for something that takes a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    pub person: PersonId,
    /// Owners of the server may do everything in every session.
    pub is_server_owner: bool,
    pub needs: Role,
}

impl Right {
    /// What they may do in a session; `None`: not even know of it.
    pub fn role(&self, row: &Session) -> Option<Role> {
        match self.is_server_owner {
            true => Some(Role::Owner),
            false => row.role_of(&self.person),
        }
    }

    /// Refuses those who may do too little: `session_unknown` or `role_required`.
    pub fn check(&self, row: &Session) -> Result<Role, Problem> {
        let role = self.role(row).ok_or_else(session_unknown)?;
        match role >= self.needs {
            true => Ok(role),
            false => Err(role_required(row, self.needs)),
        }
    }
}

/// What those get who look for a session that does not exist, or not for them.
pub fn session_unknown() -> Problem {
    Problem::permanent("session_unknown", "There is no such session.")
        .with_hint("Check the session's id, or list the sessions you can see.")
}

/// What those get who may do less in a session than it takes.
pub fn role_required(row: &Session, needs: Role) -> Problem {
    let (may, to_become) = match needs {
        Role::Owner => (
            "Only the owner of this session may do that",
            "to hand it over to you",
        ),
        Role::Editor | Role::Viewer => (
            "You may watch this session, not change it",
            "to make you an editor",
        ),
    };
    Problem::permanent("role_required", format!("{may}."))
        .with_hint(format!("Ask {} {to_become}.", row.owner().name))
}

/// People who were removed from the server since it started: what they asked for before that and comes late is not done. Of those who were
/// removed before, nothing is on its way.
#[derive(Debug, Default)]
pub struct Removed(RwLock<HashSet<PersonId>>);

impl Removed {
    pub fn add(&self, person: PersonId) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(person);
    }

    pub fn has(&self, person: &PersonId) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(person)
    }
}
