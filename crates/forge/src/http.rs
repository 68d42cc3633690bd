//! Git smart HTTP (gitprotocol-http(5)) without any web framework: a request in, a streamed response out.
//!
//! Authentication and which repositories a caller may see are the caller's. The dumb protocol is refused.

pub(crate) mod body;
pub(crate) mod exchange;
pub(crate) mod gzip;
pub(crate) mod pkt_line;
pub(crate) mod policy;
pub(crate) mod push_request;

use crate::forge::Forge;
use crate::git::{Call, GitError};
use crate::repository::error::RepositoryError;
use body::{ByteStream, GitBody};
use bytes::Bytes;
use exchange::{Exchange, Input};
use greenroom_protocol::client::problem::Problem;
use policy::PushPolicy;
use push_request::PushRequestError;
use std::sync::Arc;
use std::time::Duration;

/// How long a request waits for its turn when many are served.
const TURN_WAIT: Duration = Duration::from_secs(10);
/// Most bytes of a fetch request, unpacked.
const MAX_FETCH_REQUEST_BYTES: u64 = 64 * 1024 * 1024;

/// Methods that git uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GitMethod {
    Get,
    Post,
    /// Anything else; refused.
    Other,
}

/// One HTTP request of a git client.
pub struct GitRequest {
    pub method: GitMethod,
    /// What follows `/git/<name>.git/`: `info/refs`, `git-upload-pack` or `git-receive-pack`.
    pub path_suffix: String,
    /// The query without `?`; may be empty.
    pub query: String,
    /// Header `Content-Type`.
    pub content_type: Option<String>,
    /// Header `Content-Encoding`; `gzip` is understood.
    pub content_encoding: Option<String>,
    /// Header `Git-Protocol`.
    pub git_protocol: Option<String>,
    /// The body, already free of chunked encoding.
    pub body: ByteStream,
}

/// What the caller may do.
#[derive(Clone)]
pub enum GitAccess {
    /// Clone and fetch.
    Read,
    /// Also push, as far as the policy allows.
    Push(Arc<dyn PushPolicy>),
}

/// The answer. All of it must be sent; dropping the body ends git, except a push that was received whole.
#[derive(Debug)]
pub struct GitResponse {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(&'static str, String)>,
    pub body: GitBody,
}

/// Why a request is not served. [`GitHttpError::status`] and [`GitHttpError::problem`] say it to the client.
#[derive(Debug, thiserror::Error)]
pub enum GitHttpError {
    /// No such repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// Not one of the three routes, or the dumb protocol.
    #[error("no such route of git's smart protocol")]
    NotServed,
    /// A route with another method than its own.
    #[error("another method is needed")]
    Method,
    /// A body of another type than its route's, or an unknown encoding.
    #[error("another content type or encoding is needed")]
    MediaType,
    /// A push by somebody who may only read.
    #[error("pushing is not allowed")]
    ReadOnly,
    /// The push request cannot be understood.
    #[error("read the push request")]
    PushRequest(#[from] PushRequestError),
    /// Too many others are served.
    #[error("too many exchanges at once")]
    Busy,
}

impl From<GitError> for GitHttpError {
    fn from(error: GitError) -> Self {
        Self::Repository(RepositoryError::Git(error))
    }
}

impl GitHttpError {
    /// The HTTP status that fits.
    pub fn status(&self) -> u16 {
        match self {
            Self::Repository(RepositoryError::Unknown { .. }) => 404,
            Self::Repository(_) => 500,
            Self::NotServed | Self::ReadOnly => 403,
            Self::Method => 405,
            Self::MediaType => 415,
            Self::PushRequest(_) => 400,
            Self::Busy => 503,
        }
    }

    /// What a person is told; the code is stable.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Repository(error) => error.problem(),
            Self::NotServed => {
                Problem::permanent("git_smart_http_only", "Only git's smart HTTP protocol is served.")
                    .with_hint("Use a git client of version 1.6.6 or newer.")
            }
            Self::Method => {
                Problem::permanent("method_not_allowed", "This address needs another HTTP method.")
            }
            Self::MediaType => Problem::permanent(
                "content_type_unsupported",
                "This address needs another content type or encoding.",
            ),
            Self::ReadOnly => Problem::permanent(
                "push_not_allowed",
                "You may read this repository but not push to it.",
            ),
            Self::PushRequest(error) => Problem::permanent(
                "push_request_invalid",
                format!("The push cannot be understood: {error}."),
            ),
            Self::Busy => Problem {
                retry_after_ms: Some(5000),
                ..Problem::transient("git_busy", "Too many clones and pushes are under way.")
            },
        }
    }
}

/// The two programs behind the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    UploadPack,
    ReceivePack,
}

impl Service {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "git-upload-pack" => Some(Self::UploadPack),
            "git-receive-pack" => Some(Self::ReceivePack),
            _ => None,
        }
    }

    /// git's subcommand.
    pub(crate) fn command(self) -> &'static str {
        match self {
            Self::UploadPack => "upload-pack",
            Self::ReceivePack => "receive-pack",
        }
    }

    /// The value of `GIT_PROTOCOL`: what the client asks for, if it is well-formed. There is no push protocol 2.
    fn protocol(self, asked: Option<&str>) -> Option<&str> {
        let asked = asked?;
        let is_plain =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'=' | b':' | b'-' | b'_' | b'.');
        let is_usable = asked.len() <= 100 && asked.bytes().all(is_plain);
        let is_two = asked.split(':').any(|part| part == "version=2");
        (is_usable && !(self == Self::ReceivePack && is_two)).then_some(asked)
    }
}

impl Forge {
    /// Serves one request of a git client for one repository. Packs are streamed, never held; git ends when the
    /// client goes away or after `exchange_limit`.
    ///
    /// # Errors
    /// The request is not served; nothing was changed.
    pub async fn serve_git(
        &self,
        repository: &str,
        request: GitRequest,
        access: GitAccess,
    ) -> Result<GitResponse, GitHttpError> {
        let dir = self.dir(repository).await?;
        if request.path_suffix == "info/refs" {
            if request.method != GitMethod::Get {
                return Err(GitHttpError::Method);
            }
            let asked = request.git_protocol;
            return self
                .advertise(&dir, &request.query, asked.as_deref(), &access)
                .await;
        }
        let service = Service::parse(&request.path_suffix).ok_or(GitHttpError::NotServed)?;
        if request.method != GitMethod::Post {
            return Err(GitHttpError::Method);
        }
        let content_type = request
            .content_type
            .as_deref()
            .map(|value| value.trim().to_ascii_lowercase());
        if content_type != Some(format!("application/x-git-{}-request", service.command())) {
            return Err(GitHttpError::MediaType);
        }
        let body = match request.content_encoding.as_deref() {
            None | Some("" | "identity") => request.body,
            Some("gzip" | "x-gzip") => gzip::unpack(request.body),
            Some(_) => return Err(GitHttpError::MediaType),
        };
        let protocol = service
            .protocol(request.git_protocol.as_deref())
            .map(str::to_owned);
        let exchange = match (service, access) {
            (Service::UploadPack, _) => Exchange {
                service,
                repository: repository.to_owned(),
                dir,
                protocol,
                input: Input::new(Bytes::new(), body, MAX_FETCH_REQUEST_BYTES),
                push: None,
            },
            (Service::ReceivePack, GitAccess::Read) => return Err(GitHttpError::ReadOnly),
            (Service::ReceivePack, GitAccess::Push(policy)) => {
                let limit = self.inner.config.max_pack_bytes;
                match push_request::check(body, limit, policy).await? {
                    push_request::Checked::Probe => return Ok(result(service, GitBody::whole(Bytes::new()))),
                    push_request::Checked::Refused(report) => {
                        return Ok(result(service, GitBody::whole(report)));
                    }
                    push_request::Checked::Allowed { input, push } => Exchange {
                        service,
                        repository: repository.to_owned(),
                        dir,
                        protocol,
                        input,
                        push: Some(push),
                    },
                }
            }
        };
        let turn = Arc::clone(&self.inner.exchanges).acquire_owned();
        let turn = match tokio::time::timeout(TURN_WAIT, turn).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(_)) | Err(_) => return Err(GitHttpError::Busy),
        };
        let body = exchange.start(self, turn)?;
        Ok(result(service, body))
    }

    async fn advertise(
        &self,
        dir: &std::path::Path,
        query: &str,
        asked: Option<&str>,
        access: &GitAccess,
    ) -> Result<GitResponse, GitHttpError> {
        let name = query.split('&').find_map(|pair| pair.strip_prefix("service="));
        let service = name.and_then(Service::parse).ok_or(GitHttpError::NotServed)?;
        if service == Service::ReceivePack && matches!(access, GitAccess::Read) {
            return Err(GitHttpError::ReadOnly);
        }
        let mut call = Call::new([service.command(), "--stateless-rpc", "--advertise-refs", "."]).within(dir);
        let protocol = service.protocol(asked);
        let mut answer = Vec::new();
        if let Some(protocol) = protocol {
            call = call.env("GIT_PROTOCOL", protocol);
        }
        if !protocol.is_some_and(|protocol| protocol.split(':').any(|part| part == "version=2")) {
            let announcement = format!("# service=git-{}\n", service.command());
            answer.extend(pkt_line::encode(announcement.as_bytes()));
            answer.extend_from_slice(pkt_line::FLUSH);
        }
        answer.extend(self.git().run(call).await?.success()?);
        Ok(GitResponse {
            status: 200,
            headers: headers(format!("application/x-git-{}-advertisement", service.command())),
            body: GitBody::whole(answer.into()),
        })
    }
}

fn result(service: Service, body: GitBody) -> GitResponse {
    GitResponse {
        status: 200,
        headers: headers(format!("application/x-git-{}-result", service.command())),
        body,
    }
}

fn headers(content_type: String) -> Vec<(&'static str, String)> {
    vec![
        ("content-type", content_type),
        ("cache-control", "no-cache, max-age=0, must-revalidate".to_owned()),
        ("x-content-type-options", "nosniff".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_protocols_reach_git() {
        for (service, asked, expected) in [
            (Service::UploadPack, Some("version=2"), Some("version=2")),
            (Service::UploadPack, Some("version=1:x=y"), Some("version=1:x=y")),
            (Service::ReceivePack, Some("version=1"), Some("version=1")),
            (Service::ReceivePack, Some("version=2"), None),
            (Service::UploadPack, Some("version=2\nX: y"), None),
            (Service::UploadPack, None, None),
        ] {
            assert_eq!(service.protocol(asked), expected, "{asked:?}");
        }
    }
}
