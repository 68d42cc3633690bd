//! The HTTP API: one file per resource; this one lists every path. The OpenAPI document is made from the same lines.

mod access;
mod accounts;
pub mod app;
pub mod audit;
mod blobs;
mod body;
pub mod caller;
mod diff;
mod environments;
mod failure;
mod forks;
pub mod git;
mod idempotency;
mod images;
mod members;
mod metrics;
mod names;
mod once;
pub mod openapi;
mod parameters;
pub(crate) mod people;

mod pull_requests;
mod receipts;
mod reply;
mod repositories;
pub mod rights;
mod secrets;
mod sent;
mod services;
mod sessions;
mod shell;
mod snapshots;
mod socket;
mod stream;
pub mod tickets;
mod web;
mod webhooks;

use aide::axum::ApiRouter;
use aide::axum::routing::{delete_with, get_with, post_with, put_with};
use aide::transform::TransformOperation;
use app::App;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use failure::ApiFailure;
use greenroom_protocol::client::problem::Problem;
use std::sync::Arc;

/// Everything this server answers.
pub fn router(app: App) -> Router {
    let (api, document, actions) = openapi::finish(documented);
    Router::new()
        .merge(api)
        .route("/v1/openapi.json", get(move || openapi::serve(document.clone())))
        .route("/v1/", any(unknown_path))
        .route("/v1/{*rest}", any(unknown_path))
        .route("/metrics", get(metrics::serve))
        .route("/git/{*path}", any(git::serve_member))
        .fallback(web::serve)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(
            (app.clone(), Arc::new(actions)),
            audit::record,
        ))
        .layer(middleware::from_fn_with_state(app.clone(), receipts::remember))
        .layer(middleware::from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

fn documented() -> ApiRouter<App> {
    ApiRouter::new()
        .api_route("/v1/health", get_with(people::health, open_to_all("health", "Whether the server runs. Needs no sign-in.")))
        .api_route("/v1/sign-in", post_with(people::sign_in, open_to_all("signIn", "Signs a browser in with a one-time link.")))
        .api_route("/v1/sign-out", post_with(people::sign_out, told("signOut", "Ends this browser's sign-in.")))
        .api_route(
            "/v1/sign-in-links",
            post_with(people::create_sign_in_link, told("createSignInLink", "Makes a one-time link for the caller.")),
        )
        .api_route(
            "/v1/me",
            get_with(people::me, told("me", "Who the caller is."))
                .patch_with(people::update_me, told("updateMe", "Changes the caller's name or address.")),
        )
        .api_route(
            "/v1/tokens",
            get_with(people::list_tokens, told("listTokens", "The caller's API tokens, without secrets."))
                .post_with(people::create_token, told("createToken", "Makes an API token.")),
        )
        .api_route("/v1/tokens/{id}", delete_with(people::revoke_token, told("revokeToken", "Ends an API token.")))
        .api_route(
            "/v1/people",
            get_with(accounts::list, told("listPeople", "Everybody who may use this server."))
                .post_with(accounts::add, told("addPerson", "Lets somebody use this server, with a link that signs them in once. Only for owners.")),
        )
        .api_route(
            "/v1/people/{id}",
            delete_with(accounts::remove, told("removePerson", "Somebody may no longer use this server: what they have open ends at once. Only for owners."))
                .patch_with(accounts::update, told("updatePerson", "Makes somebody an owner of this server, or takes that from them. Only for owners.")),
        )
        .api_route(
            "/v1/people/{id}/sign-in-links",
            post_with(accounts::create_sign_in_link, told("createSignInLinkFor", "Makes a one-time link for somebody. Only for owners.")),
        )
        .api_route("/v1/audit", get_with(audit::list, told("listAudit", "Who did what, the newest first. Only for owners.")))
        .api_route(
            "/v1/memberships",
            post_with(members::join, told("joinSession", "Makes the caller a member of a session by an invite link.")),
        )
        .api_route(
            "/v1/sessions/{id}/members",
            get_with(members::list, told("listMembers", "Members of a session, and what the caller may do in it.")),
        )
        .api_route(
            "/v1/sessions/{id}/members/{person_id}",
            put_with(members::set, told("setMember", "Makes somebody a member, gives a member another role, or hands the session over. For its owner."))
                .delete_with(members::remove, told("removeMember", "Somebody is no member any more; what they have open ends at once. For its owner, and for oneself.")),
        )
        .api_route(
            "/v1/sessions/{id}/links",
            get_with(members::list_links, told("listLinks", "Links into a session that let somebody in, without their secrets. For its owner."))
                .post_with(members::create_link, told("createLink", "Makes a link into a session: an invitation, or for watching without signing in. For its owner.")),
        )
        .api_route(
            "/v1/sessions/{id}/links/{link_id}",
            delete_with(members::revoke_link, told("revokeLink", "Makes a link useless; who watches by it is cut off at once. For the session's owner.")),
        )
        .api_route(
            "/v1/stream-tickets",
            post_with(people::create_stream_ticket, told("createStreamTicket", "Makes a ticket for one socket.")),
        )
        .api_route("/v1/models", get_with(people::models, told("listModels", "Models, the default first.")))
        .api_route("/v1/secrets", get_with(secrets::list, told("listSecrets", "Names of stored secrets.")))
        .api_route(
            "/v1/secrets/{name}",
            put_with(secrets::set, told("setSecret", "Stores a secret; it is never given back."))
                .delete_with(secrets::remove, told("removeSecret", "Forgets a secret.")),
        )
        .api_route(
            "/v1/repositories",
            get_with(repositories::list, told("listRepositories", "Repositories by name."))
                .post_with(repositories::add, told("addRepository", "Adds or imports a repository.")),
        )
        .api_route("/v1/repositories/{name}", get_with(repositories::show, told("showRepository", "One repository.")))
        .api_route(
            "/v1/repositories/{name}/branches",
            get_with(repositories::branches, told("listBranches", "Branches by name.")),
        )
        .api_route(
            "/v1/repositories/{name}/typing",
            post_with(repositories::typing, told("typing", "Tells that the caller types a prompt for a new session: a sandbox is reserved or started. Send it every ten seconds at most.")),
        )
        .api_route(
            "/v1/repositories/{name}/environment",
            get_with(environments::show, told("showEnvironment", "The environment in force on the default branch, and what was cut of it."))
                .put_with(environments::set, told("setEnvironment", "Sets a repository's environment. It replaces the repository's own file. Only for administrators."))
                .delete_with(environments::remove, told("removeEnvironment", "Forgets the environment that was set; the repository's own file counts again. Only for administrators.")),
        )
        .api_route(
            "/v1/repositories/{name}/images",
            get_with(images::list, told("listImages", "Images of a repository, newest first, and the one that sandboxes begin with."))
                .post_with(images::build, told("buildImage", "Asks for an image of the default branch. One that waits already is the answer.")),
        )
        .api_route(
            "/v1/repositories/{name}/images/pull",
            post_with(images::pull, told("pullImage", "Brings an image that a server pushed from a registry and publishes it. For the owner. May take minutes, and goes on if nobody waits.")),
        )
        .api_route(
            "/v1/repositories/{name}/images/webhook",
            post_with(webhooks::build_image, open_to_all("imageWebhook", "Asks for an image, for other systems: signed with the secret `webhook.REPOSITORY`, in `X-Hub-Signature-256` (HMAC-SHA-256 of the body) or as `X-Gitlab-Token`. Needs no sign-in.")),
        )
        .api_route(
            "/v1/images/{id}/push",
            post_with(images::push, told("pushImage", "Puts a published image into a registry, as other tools understand it. For the owner. May take minutes, and goes on if nobody waits.")),
        )
        .api_route(
            "/v1/registry-images",
            get_with(images::pin, told("pinRegistryImage", "What the name of an image in a registry stands for now. For the owner.")),
        )
        .api_route("/v1/images/{id}", get_with(images::show, told("showImage", "One image, and how far its build is.")))
        .api_route("/v1/images/{id}/log", get_with(images::log, told("showImageLog", "The log of an image's build, from an offset on; it grows while it is built.")))
        .api_route(
            "/v1/environment-checks",
            post_with(environments::check, told("checkEnvironment", "Whether a text would do as a repository's own environment, and what would be cut of it.")),
        )
        .api_route(
            "/v1/sessions",
            get_with(sessions::list, told("listSessions", "Sessions, newest activity first."))
                .post_with(sessions::create, told("createSession", "Creates a session, with a first prompt or without. The header Idempotency-Key makes repeating it safe.")),
        )
        .api_route(
            "/v1/sessions/{id}",
            get_with(sessions::show, told("showSession", "One session."))
                .patch_with(sessions::update, told("updateSession", "Changes a session's title, how its prompts are delivered, whether its queue is paused, who may see it, or archives it and takes it back."))
                .delete_with(sessions::remove, told("deleteSession", "Deletes an archived session: its log, its sandbox and its snapshots. Branches and pull requests stay. For its owner.")),
        )
        .api_route(
            "/v1/sessions/{id}/history",
            get_with(
                sessions::history,
                told("listHistory", "What a session's events were before an overview, back to the one before."),
            ),
        )
        .api_route("/v1/sessions/{id}/events", get_with(sessions::events, told("listEvents", "A page of a session's events.")))
        .api_route(
            "/v1/sessions/{id}/prompts",
            get_with(sessions::open_prompts, told("listOpenPrompts", "The prompt whose turn runs, and those that wait, the next one first."))
                .post_with(sessions::send_prompt, told("sendPrompt", "Queues a prompt. Accepted means on disk. Needs the header Idempotency-Key.")),
        )
        .api_route(
            "/v1/sessions/{id}/prompts/{prompt_id}",
            delete_with(sessions::cancel_prompt, told("cancelPrompt", "Takes a prompt out of the queue."))
                .patch_with(sessions::change_prompt, told("changePrompt", "Writes a prompt that waits anew, lets it run earlier or later, or inserts it into the running turn.")),
        )
        .api_route("/v1/sessions/{id}/stop", post_with(sessions::stop, told("stopTurn", "Stops the running turn. What waits goes on, or stays if that is asked.")))
        .api_route("/v1/sessions/{id}/effect-retries", post_with(sessions::retry_effect, told("retryEffect", "Tries something outside again that was given up.")))
        .api_route("/v1/sessions/{id}/blobs/{digest}", get_with(blobs::show, told("showBlob", "A file that the session keeps, such as an image of a prompt, as it is.")))
        .api_route("/v1/sessions/{id}/diff", get_with(diff::show, told("showSessionDiff", "What the session changed: as pushed, or as the files in its sandbox are now.")))
        .api_route(
            "/v1/sessions/{id}/snapshots",
            get_with(snapshots::list, told("listSnapshots", "Snapshots of the session's sandbox, the newest first."))
                .post_with(snapshots::take, told("takeSnapshot", "Takes a snapshot of the session's sandbox, which may go on. It stays until somebody removes it.")),
        )
        .api_route(
            "/v1/sessions/{id}/snapshots/{snapshot_id}",
            delete_with(snapshots::remove, told("removeSnapshot", "Removes a snapshot. What sandboxes began with stays.")),
        )
        .api_route(
            "/v1/sessions/{id}/snapshots/{snapshot_id}/push",
            post_with(snapshots::push, told("pushSnapshot", "Puts a snapshot into a registry, as other tools understand it. For the owner. May take minutes, and goes on if nobody waits.")),
        )
        .api_route(
            "/v1/sessions/{id}/forks",
            post_with(forks::create, told("forkSession", "Makes sessions that begin with the files and the conversation of this one, which goes on. The header Idempotency-Key makes repeating it safe.")),
        )
        .api_route("/v1/sessions/{id}/services", get_with(services::list, told("listServices", "Services of the session's sandbox; none while it does not run.")))
        .api_route("/v1/sessions/{id}/services/{name}/log", get_with(services::log, told("showServiceLog", "What a service wrote, from an offset on.")))
        .route("/v1/sessions/{id}/stream", get(stream::stream))
        .route("/v1/sessions/{id}/shell", get(shell::of_session))
        .route("/v1/repositories/{name}/shell", get(shell::of_environment))
        .api_route(
            "/v1/pull-requests",
            get_with(pull_requests::list_all, told("listPullRequests", "Pull requests of all repositories, newest first.")),
        )
        .api_route(
            "/v1/repositories/{name}/pull-requests",
            get_with(pull_requests::list, told("listRepositoryPullRequests", "Pull requests of one repository, newest first."))
                .post_with(pull_requests::open, told("openPullRequest", "Opens a pull request.")),
        )
        .api_route(
            "/v1/repositories/{name}/pull-requests/{number}",
            get_with(pull_requests::show, told("showPullRequest", "One pull request.")),
        )
        .api_route(
            "/v1/repositories/{name}/pull-requests/{number}/commits",
            get_with(pull_requests::commits, told("listCommits", "Its commits, oldest first.")),
        )
        .api_route(
            "/v1/repositories/{name}/pull-requests/{number}/diff",
            get_with(pull_requests::diff, told("showDiff", "Its changes from the merge base to the head.")),
        )
        .api_route(
            "/v1/repositories/{name}/pull-requests/{number}/comments",
            post_with(pull_requests::comment, told("addComment", "Comments on it or on a line.")),
        )
        .api_route(
            "/v1/repositories/{name}/pull-requests/{number}/reviews",
            post_with(pull_requests::review, told("addReview", "Reviews its head. Nobody who prompted it may approve.")),
        )
        .api_route(
            "/v1/repositories/{name}/pull-requests/{number}/merge",
            post_with(pull_requests::merge, told("mergePullRequest", "Merges it, whole or not at all.")),
        )
        .api_route(
            "/v1/repositories/{name}/pull-requests/{number}/close",
            post_with(pull_requests::close, told("closePullRequest", "Closes it without merging.")),
        )
        .api_route(
            "/v1/repositories/{name}/pull-requests/{number}/reopen",
            post_with(pull_requests::reopen, told("reopenPullRequest", "Opens a closed one again.")),
        )
        .api_route(
            "/v1/repositories/{name}/pull-requests/{number}/head-branch",
            delete_with(pull_requests::delete_head_branch, told("deleteHeadBranch", "Deletes its head branch.")),
        )
}

/// Whether the web app is in this binary.
pub fn has_web_app() -> bool {
    web::is_embedded()
}

fn told(
    id: &'static str,
    summary: &'static str,
) -> impl FnOnce(TransformOperation<'_>) -> TransformOperation<'_> {
    move |operation| operation.id(id).summary(summary)
}

/// For what needs no token: the document must not ask for one.
fn open_to_all(
    id: &'static str,
    summary: &'static str,
) -> impl FnOnce(TransformOperation<'_>) -> TransformOperation<'_> {
    move |operation| {
        let mut operation = told(id, summary)(operation);
        // One empty alternative (OpenAPI 3.1, "Security Requirement Object"); none at all would mean the default.
        operation.inner_mut().security = vec![Default::default()];
        operation
    }
}

/// What every request passes: a name that is ours, and headers that keep browsers from doing more than they should.
async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    if let Err(problem) = caller::check_host(request.headers(), request.uri().host(), &app) {
        return ApiFailure(problem).into_response();
    }
    let mut response = next.run(request).await;
    web::add_security_headers(response.headers_mut());
    response
}

async fn wrong_method() -> ApiFailure {
    ApiFailure(
        Problem::permanent("method_not_allowed", "This path does not take that method.")
            .with_hint("See /v1/openapi.json."),
    )
}

async fn unknown_path() -> ApiFailure {
    ApiFailure(
        Problem::permanent("not_found", "There is nothing at this path.").with_hint("See /v1/openapi.json."),
    )
}
