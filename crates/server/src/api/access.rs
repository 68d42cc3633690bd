//! Who may do what in a session, asked anew with each request. Who may not see one is told the same as if there were none.

use super::app::App;
use super::caller::{Caller, sign_in_required};
use super::failure::ApiFailure;
use super::rights::RightsChange;
use crate::session::command::SessionHandle;
use crate::session::right::{Right, session_unknown};
use crate::session::state::SessionFold;
use aide::OperationInput;
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use greenroom_protocol::client::member::{LinkKind, Role};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::Session;
use greenroom_protocol::id::{PersonId, SessionId};
use greenroom_stdx::secret::Secret;
use greenroom_store::catalog::{LINK_PREFIX, LinkHolder};

/// A session that somebody may use.
pub struct Entered {
    pub handle: SessionHandle,
    /// As it was when their right was looked at.
    pub fold: SessionFold,
    /// What they may do there.
    pub role: Role,
}

/// The session if the caller may do there what `needs` says.
pub async fn enter(app: &App, caller: &Caller, id: &str, needs: Role) -> Result<Entered, Problem> {
    if app.services.removed.has(&caller.person.id) {
        return Err(sign_in_required());
    }
    let (handle, fold) = found(app, id).await?;
    let right = Right {
        person: caller.person.id.clone(),
        is_server_owner: caller.is_owner,
        needs,
    };
    let role = right.check(&fold.row)?;
    Ok(Entered {
        // They may lose it until it is done.
        handle: handle.with_right(right),
        fold,
        role,
    })
}

/// What the caller may do in a session; `None`: not even know of it.
pub fn role_of(caller: &Caller, row: &Session) -> Option<Role> {
    match caller.is_owner {
        true => Some(Role::Owner),
        false => row.role_of(&caller.person.id),
    }
}

async fn found(app: &App, id: &str) -> Result<(SessionHandle, SessionFold), Problem> {
    let id: SessionId = id.parse().map_err(|_| session_unknown())?;
    let handle = app.sessions.get(&id).await?;
    let fold = handle.fold().await?;
    Ok((handle, fold))
}

/// Somebody who looks at a session: a person, or whoever holds a share link.
#[derive(Clone)]
pub enum Viewer {
    Person(Caller),
    Guest(Guest),
}

/// Whoever holds a share link.
#[derive(Clone)]
pub struct Guest {
    pub holder: LinkHolder,
    pub credential: Secret,
}

impl Guest {
    /// Whom a share link's secret lets in.
    pub async fn with(app: &App, credential: Secret) -> Result<Self, Problem> {
        let holder = app.catalog.link_holder(credential.expose()).await;
        let holder = holder.map_err(|error| error.problem())?;
        match holder.filter(|holder| holder.kind == LinkKind::Share) {
            Some(holder) => Ok(Self { holder, credential }),
            None => Err(link_invalid()),
        }
    }
}

/// What those get whose link is no good.
pub fn link_invalid() -> Problem {
    Problem::permanent("link_invalid", "This link was revoked or is too old.")
        .with_hint("Ask whoever gave it to you for another one.")
}

impl Viewer {
    /// The session if they may look at it.
    pub async fn enter(&self, app: &App, id: &str) -> Result<Entered, Problem> {
        match self {
            Self::Person(caller) => enter(app, caller, id, Role::Viewer).await,
            Self::Guest(guest) if guest.holder.session.as_str() == id => {
                let (handle, fold) = found(app, id).await?;
                let role = Role::Viewer;
                Ok(Entered { handle, fold, role })
            }
            Self::Guest(_) => Err(session_unknown()),
        }
    }

    pub fn is_person(&self, person: &PersonId) -> bool {
        matches!(self, Self::Person(caller) if caller.person.id == *person)
    }

    /// Whether a change of rights may be one of theirs in this session.
    pub fn is_concerned(&self, session: &SessionId, change: &RightsChange) -> bool {
        match (self, change) {
            (Self::Person(_), RightsChange::Person(person)) => self.is_person(person),
            (_, RightsChange::Session(changed)) => changed == session,
            (Self::Guest(guest), RightsChange::Link(link)) => guest.holder.link == *link,
            _ => false,
        }
    }

    /// What they may do in this session now, if they may still look at it; for what stays open longer than a request.
    pub async fn role_still(&self, app: &App, row: &Session) -> Result<Role, Problem> {
        app.sessions.check_not_deleted(&row.id)?;
        match self {
            Self::Person(caller) => {
                let caller = caller.again(app).await?.ok_or_else(sign_in_required)?;
                role_of(&caller, row).ok_or_else(session_unknown)
            }
            Self::Guest(guest) => {
                Guest::with(app, guest.credential.clone()).await?;
                Ok(Role::Viewer)
            }
        }
    }
}

impl OperationInput for Viewer {}

impl FromRequestParts<App> for Viewer {
    type Rejection = ApiFailure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiFailure> {
        match link_secret(&parts.headers) {
            Some(secret) => Ok(Self::Guest(Guest::with(app, secret).await?)),
            None => Ok(Self::Person(Caller::from_request_parts(parts, app).await?)),
        }
    }
}

/// The secret of a link that somebody came with instead of a token.
fn link_secret(headers: &HeaderMap) -> Option<Secret> {
    let secret = super::caller::bearer(headers)?;
    secret.starts_with(LINK_PREFIX).then(|| Secret::new(secret))
}
