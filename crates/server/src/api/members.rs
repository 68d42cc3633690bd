//! Members of a session, and links that let somebody in.

use super::access::{self, Entered, link_invalid};
use super::app::App;
use super::audit;
use super::body::JsonBody;
use super::caller::Caller;
use super::failure::ApiFailure;
use super::names::{LinkPath, MemberPath, SessionPath};
use super::parameters::InPath;
use super::reply::Created;
use super::rights::RightsChange;
use axum::Json;
use axum::extract::State;
use axum::response::NoContent;
use greenroom_protocol::client::member::{
    CreateLink, CreatedLink, JoinSession, JoinedSession, LinkKind, MemberList, Role, SessionLinkList,
    SetMember,
};
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::id::{PersonId, SessionId};
use greenroom_store::catalog::NewLink;
use std::time::Duration;

/// How long a link lets somebody in if nobody said it.
const LINK_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
const SHORTEST_LINK: Duration = Duration::from_secs(60);
const LONGEST_LINK: Duration = Duration::from_secs(90 * 24 * 3600);

/// Links of one session at once.
const MAX_LINKS: usize = 100;

pub async fn list(
    State(app): State<App>,
    caller: Caller,
    InPath(SessionPath { id }): InPath<SessionPath>,
) -> Result<Json<MemberList>, ApiFailure> {
    let Entered { fold, role, .. } = access::enter(&app, &caller, &id, Role::Viewer).await?;
    Ok(Json(MemberList {
        members: fold.row.members,
        access: fold.row.access,
        your_role: role,
    }))
}

/// Makes somebody of this server a member, gives a member another role, or hands the session over.
pub async fn set(
    State(app): State<App>,
    caller: Caller,
    InPath(MemberPath { id, person_id }): InPath<MemberPath>,
    JsonBody(SetMember { role }): JsonBody<SetMember>,
) -> Result<Json<MemberList>, ApiFailure> {
    let entered = access::enter(&app, &caller, &id, Role::Owner).await?;
    let person = person(&app, &person_id).await?;
    let (handle, before) = (entered.handle, entered.fold.row);
    handle
        .set_member(person, Some(role), caller.person.id.clone())
        .await?;
    app.rights.changed(RightsChange::Session(handle.id.clone()));
    if role == Role::Owner {
        // Who may do what here is another's to say from now on.
        revoke_links_of(&app, &handle.id, &before.owner().id).await?;
    }
    let row = handle.fold().await?.row;
    Ok(Json(MemberList {
        your_role: access::role_of(&caller, &row).unwrap_or(Role::Viewer),
        members: row.members,
        access: row.access,
    }))
}

/// Somebody is no member any more; everybody may leave by themselves.
pub async fn remove(
    State(app): State<App>,
    caller: Caller,
    InPath(MemberPath { id, person_id }): InPath<MemberPath>,
) -> Result<NoContent, ApiFailure> {
    let leaves = caller.person.id.as_str() == person_id;
    let needs = if leaves { Role::Viewer } else { Role::Owner };
    let Entered { handle, fold, .. } = access::enter(&app, &caller, &id, needs).await?;
    let member = fold
        .row
        .members
        .iter()
        .find(|member| member.person.id.as_str() == person_id)
        .cloned();
    let member = member.ok_or_else(|| {
        Problem::permanent("member_unknown", "This person is no member of this session.")
            .with_hint("See GET /v1/sessions/{id}/members.")
    })?;
    let person = member.person.id.clone();
    if fold.row.owner().id != person {
        // First, so that whoever repeats what failed in between finds it done.
        revoke_links_of(&app, &handle.id, &person).await?;
    }
    handle.set_member(member.person, None, caller.person.id).await?;
    app.rights.changed(RightsChange::Session(handle.id.clone()));
    Ok(NoContent)
}

async fn revoke_links_of(app: &App, session: &SessionId, person: &PersonId) -> Result<(), Problem> {
    let links = app.catalog.revoke_links_of(session, person).await;
    for link in links.map_err(|error| error.problem())? {
        app.rights.changed(RightsChange::Link(link));
    }
    Ok(())
}

/// Somebody who may use this server, and who is therefore no secret to a person on it.
async fn person(app: &App, id: &str) -> Result<Person, Problem> {
    let unknown = || {
        Problem::permanent("person_unknown", "There is no such person on this server.")
            .with_hint("See GET /v1/people; an owner of the server can add people.")
    };
    let id: PersonId = id.parse().map_err(|_| unknown())?;
    let account = app.catalog.account(&id).await.map_err(|error| error.problem())?;
    account.map(|account| account.person).ok_or_else(unknown)
}

pub async fn list_links(
    State(app): State<App>,
    caller: Caller,
    InPath(SessionPath { id }): InPath<SessionPath>,
) -> Result<Json<SessionLinkList>, ApiFailure> {
    let entered = access::enter(&app, &caller, &id, Role::Owner).await?;
    let links = app.catalog.links(&entered.handle.id).await;
    Ok(Json(SessionLinkList {
        links: links.map_err(|error| error.problem())?,
    }))
}

pub async fn create_link(
    State(app): State<App>,
    caller: Caller,
    InPath(SessionPath { id }): InPath<SessionPath>,
    JsonBody(body): JsonBody<CreateLink>,
) -> Result<Created<CreatedLink>, ApiFailure> {
    let role = body.role.unwrap_or(Role::Viewer);
    let problem = match (body.kind, role) {
        (_, Role::Owner) => Some("A link cannot make somebody the owner: hand the session over instead."),
        (LinkKind::Share, Role::Editor) => {
            Some("Whoever comes without signing in can only watch: leave `role` out, or make an invite link.")
        }
        _ => None,
    };
    if let Some(hint) = problem {
        return Err(
            Problem::permanent("link_role_invalid", "A link cannot give this role.")
                .with_hint(hint)
                .into(),
        );
    }
    let valid_for = body.valid_for_seconds.map_or(LINK_LIFETIME, Duration::from_secs);
    if !(SHORTEST_LINK..=LONGEST_LINK).contains(&valid_for) {
        let hint = format!(
            "A link is good for {} seconds to {} days.",
            SHORTEST_LINK.as_secs(),
            LONGEST_LINK.as_secs() / (24 * 3600)
        );
        return Err(Problem::permanent(
            "link_lifetime_invalid",
            "A link cannot be good for so long, or so short.",
        )
        .with_hint(hint)
        .into());
    }
    let session = access::enter(&app, &caller, &id, Role::Owner).await?.handle.id;
    let by = caller.clone();
    let links = app
        .catalog
        .links(&session)
        .await
        .map_err(|error| error.problem())?;
    if links.len() >= MAX_LINKS {
        let message = format!("This session has {MAX_LINKS} links.");
        return Err(Problem::permanent("links_too_many", message)
            .with_hint("Revoke one that nobody needs.")
            .into());
    }
    let new = NewLink {
        session: session.clone(),
        kind: body.kind,
        role,
        created_by: caller.person.id,
        valid_for,
    };
    let made = app.catalog.create_link(new).await;
    let (link, secret) = made.map_err(|error| error.problem())?;
    if let Err(problem) = access::enter(&app, &by, &id, Role::Owner).await {
        // Handed over or removed in this moment: links end with that, this one too.
        let revoked = app.catalog.revoke_link(&session, &link.id).await;
        revoked.map_err(|error| error.problem())?;
        return Err(problem.into());
    }
    audit::about(link.id.as_str());
    let page = match link.kind {
        LinkKind::Invite => "join",
        LinkKind::Share => "shared",
    };
    let url = format!(
        "{}/{page}/{session}#token={}",
        app.settings.public_url,
        secret.expose()
    );
    Ok(Created(CreatedLink { link, url }))
}

/// Whoever watches by it is cut off at once; who became a member by it stays one.
pub async fn revoke_link(
    State(app): State<App>,
    caller: Caller,
    InPath(LinkPath { id, link_id }): InPath<LinkPath>,
) -> Result<NoContent, ApiFailure> {
    let session = access::enter(&app, &caller, &id, Role::Owner).await?.handle.id;
    let unknown = || {
        Problem::permanent("link_unknown", "The session has no such link.")
            .with_hint("See GET /v1/sessions/{id}/links.")
    };
    let link = link_id.parse().map_err(|_| unknown())?;
    let revoked = app.catalog.revoke_link(&session, &link).await;
    if !revoked.map_err(|error| error.problem())? {
        return Err(unknown().into());
    }
    app.rights.changed(RightsChange::Link(link));
    Ok(NoContent)
}

/// Becomes a member by an invite link. Nobody may do less than before by it.
pub async fn join(
    State(app): State<App>,
    caller: Caller,
    JsonBody(JoinSession { token }): JsonBody<JoinSession>,
) -> Result<Created<JoinedSession>, ApiFailure> {
    let holder = app.catalog.link_holder(&token).await;
    let holder = holder.map_err(|error| error.problem())?;
    let holder = holder.ok_or_else(link_invalid)?;
    if holder.kind != LinkKind::Invite {
        return Err(
            Problem::permanent("link_is_for_watching", "This link is for watching only.")
                .with_hint("Open it in a browser; who wants to join needs an invite link.")
                .into(),
        );
    }
    let handle = app.sessions.get(&holder.session).await?;
    audit::about(handle.id.as_str());
    handle.join(caller.person.clone(), holder.role).await?;
    app.rights.changed(RightsChange::Session(handle.id.clone()));
    let row = handle.fold().await?.row;
    Ok(Created(JoinedSession {
        session_id: row.id.clone(),
        role: access::role_of(&caller, &row).unwrap_or(holder.role),
    }))
}
