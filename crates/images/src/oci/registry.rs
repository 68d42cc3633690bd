//! Speaks to image registries (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md>). Everything that a registry
//! says is bounded and checked against the digest by which it was asked for.

use super::digest::{digest_of, finished};
use super::document::Descriptor;
use super::failure::OciError;
use super::token::{Challenge, Grants};
use futures_util::StreamExt as _;
use greenroom_protocol::reference::{Digest, Reference};
use greenroom_stdx::secret::Secret;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use url::{Host, Url};

/// Largest manifest, index or configuration, in bytes; registries themselves take no larger manifests than 4 MiB.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// What is kept of a registry's own words, in bytes.
const MAX_MESSAGE_BYTES: u64 = 64 << 10;
const MAX_MESSAGE_CHARS: usize = 300;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two pieces of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Of a manifest or a configuration as a whole.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(60);

const MAX_REDIRECTS: usize = 5;

/// Of a layer, besides what its bytes may take.
const LAYER_TIMEOUT: Duration = Duration::from_secs(120);
const SLOWEST_BYTES_PER_SECOND: u64 = 64 << 10;

/// How often something is asked for that failed for a reason that may pass, and the first pause.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// Manifests that are understood.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// A name and a password for one registry.
#[derive(Debug, Clone)]
pub struct Login {
    /// As in references: `ghcr.io`, `registry.example.com:5000`.
    pub registry: String,
    pub username: String,
    pub password: Secret,
}

/// A client of all registries. Plain HTTP is spoken with this machine only.
#[derive(Debug)]
pub struct Registry {
    http: reqwest::Client,
    /// For registries of this machine: past any proxy.
    http_here: reqwest::Client,
    login: Option<Login>,
    grants: Grants,
}

impl Registry {
    /// Without logins.
    pub fn new() -> Result<Self, OciError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("greenroom/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(READ_TIMEOUT)
        };
        // A registry elsewhere has no business with this machine.
        let elsewhere = Policy::custom(|attempt| match () {
            () if leads_here(attempt.url()) => attempt.error("it leads to this machine"),
            () if attempt.url().scheme() != "https" => attempt.error("it leads away from https"),
            () if attempt.previous().len() > MAX_REDIRECTS => attempt.error("it leads in circles"),
            () => attempt.follow(),
        });
        Ok(Self {
            http: builder()
                .redirect(elsewhere)
                .dns_resolver(Arc::new(Elsewhere))
                .build()
                .map_err(OciError::Client)?,
            http_here: builder().no_proxy().build().map_err(OciError::Client)?,
            login: None,
            grants: Grants::default(),
        })
    }

    /// The same for somebody who has a login.
    pub fn with_login(&self, login: Option<Login>) -> Self {
        Self {
            http: self.http.clone(),
            http_here: self.http_here.clone(),
            login,
            grants: Grants::default(),
        }
    }

    fn http(&self, reference: &Reference) -> &reqwest::Client {
        match is_this_machine(reference.host()) {
            true => &self.http_here,
            false => &self.http,
        }
    }

    /// A manifest or an index: its bytes and their digest, which is the reference's own if it has one.
    pub(super) async fn manifest(&self, reference: &Reference) -> Result<(Vec<u8>, Digest), OciError> {
        let path = format!("manifests/{}", reference.version());
        let bytes = self
            .document(reference, &path, "the manifest", Some(MANIFEST_TYPES))
            .await?;
        let found = digest_of(&bytes);
        match &reference.digest {
            Some(expected) if *expected != found => Err(OciError::Digest {
                what: "the manifest",
                expected: expected.clone(),
                found,
            }),
            _ => Ok((bytes, found)),
        }
    }

    /// A small blob.
    pub(super) async fn small_blob(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        what: &'static str,
    ) -> Result<Vec<u8>, OciError> {
        let path = format!("blobs/{}", blob.digest);
        let bytes = self.document(reference, &path, what, None).await?;
        if bytes.len() as u64 != blob.size {
            return Err(OciError::Size {
                what,
                expected: blob.size,
                found: bytes.len().to_string(),
            });
        }
        match digest_of(&bytes) {
            found if found == blob.digest => Ok(bytes),
            found => Err(OciError::Digest {
                what,
                expected: blob.digest.clone(),
                found,
            }),
        }
    }

    /// Writes a blob to a file, and checks that it is the one that was asked for.
    pub(super) async fn download(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        to: &Path,
    ) -> Result<(), OciError> {
        let longest = LAYER_TIMEOUT + Duration::from_secs(blob.size / SLOWEST_BYTES_PER_SECOND);
        let download = self.patiently(|| self.download_once(reference, blob, to));
        let downloaded = tokio::time::timeout(longest, download).await;
        downloaded.unwrap_or_else(|_| Err(unreachable(reference, "it sends too slowly")))
    }

    async fn download_once(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        to: &Path,
    ) -> Result<(), OciError> {
        const WHAT: &str = "a layer";
        let path = format!("blobs/{}", blob.digest);
        let request = || self.http(reference).get(url(reference, &path));
        let response = self.send(reference, "pull", WHAT, request).await?;
        let wrong_size = |found: String| OciError::Size {
            what: WHAT,
            expected: blob.size,
            found,
        };
        if let Some(announced) = response.content_length()
            && announced != blob.size
        {
            return Err(wrong_size(announced.to_string()));
        }
        let write = |error| crate::ImageError::file("download to", to)(error);
        let mut file = tokio::fs::File::create(to).await.map_err(write)?;
        let (mut hash, mut length) = (Sha256::new(), 0_u64);
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| unreachable(reference, error))?;
            length += piece.len() as u64;
            if length > blob.size {
                return Err(wrong_size("more".to_owned()));
            }
            hash.update(&piece);
            file.write_all(&piece).await.map_err(write)?;
        }
        file.flush().await.map_err(write)?;
        if length != blob.size {
            return Err(wrong_size(length.to_string()));
        }
        match finished(hash) {
            found if found == blob.digest => Ok(()),
            found => Err(OciError::Digest {
                what: WHAT,
                expected: blob.digest.clone(),
                found,
            }),
        }
    }

    /// Whether the registry has a blob.
    pub(super) async fn has(&self, reference: &Reference, digest: &Digest) -> Result<bool, OciError> {
        let path = format!("blobs/{digest}");
        let request = || self.http(reference).head(url(reference, &path));
        match self.send(reference, "push,pull", "a layer", request).await {
            Ok(_) => Ok(true),
            Err(OciError::Refused { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Uploads a file as a blob.
    pub(super) async fn upload(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        from: &Path,
    ) -> Result<(), OciError> {
        self.patiently(|| async {
            let file = tokio::fs::File::open(from).await;
            let file = file.map_err(crate::ImageError::file("open", from))?;
            let pieces = tokio_util::io::ReaderStream::with_capacity(file, 256 << 10);
            self.upload_body(reference, blob, reqwest::Body::wrap_stream(pieces))
                .await
        })
        .await
    }

    /// Uploads bytes as a blob.
    pub(super) async fn upload_bytes(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        bytes: &[u8],
    ) -> Result<(), OciError> {
        self.patiently(|| self.upload_body(reference, blob, bytes.to_vec().into()))
            .await
    }

    async fn upload_body(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        body: reqwest::Body,
    ) -> Result<(), OciError> {
        let request = || self.http(reference).post(url(reference, "blobs/uploads/"));
        let begun = self.send(reference, "push,pull", "an upload", request).await?;
        let protocol = |message: &str| OciError::Protocol {
            registry: reference.registry.clone(),
            message: message.to_owned(),
        };
        let place = begun
            .headers()
            .get(LOCATION)
            .and_then(|place| place.to_str().ok());
        let place = place.ok_or_else(|| protocol("an upload has no location"))?;
        let mut place = begun
            .url()
            .join(place)
            .map_err(|_| protocol("an upload's location is no address"))?;
        // The login goes along.
        if !is_asked(reference, &place) {
            return Err(protocol("an upload leads to another machine"));
        }
        place
            .query_pairs_mut()
            .append_pair("digest", blob.digest.as_str());
        let request = self
            .http(reference)
            .put(place)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, blob.size)
            .body(body);
        // Not asked again with another token: its body is gone, and the one that began it is fresh.
        let request = self.authorized(reference, "push,pull", request);
        let response = request
            .send()
            .await
            .map_err(|error| unreachable(reference, error))?;
        self.accepted(reference, "a layer", response).await.map(drop)
    }

    /// Makes an image of blobs that are there, under the reference's tag if it has one.
    pub(super) async fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), OciError> {
        let path = match &reference.tag {
            Some(tag) => format!("manifests/{tag}"),
            None => format!("manifests/{}", digest_of(bytes)),
        };
        self.patiently(|| async {
            let request = || {
                let request = self.http(reference).request(Method::PUT, url(reference, &path));
                request.header(CONTENT_TYPE, media_type).body(bytes.to_vec())
            };
            self.send(reference, "push,pull", "the manifest", request)
                .await
                .map(drop)
        })
        .await
    }

    async fn document(
        &self,
        reference: &Reference,
        path: &str,
        what: &'static str,
        accept: Option<&str>,
    ) -> Result<Vec<u8>, OciError> {
        let ask = || async {
            let request = || {
                let request = self.http(reference).get(url(reference, path));
                match accept {
                    Some(types) => request.header(ACCEPT, types),
                    None => request,
                }
            };
            let response = self.send(reference, "pull", what, request).await?;
            match bounded(response, MAX_DOCUMENT_BYTES).await {
                Ok(Some(bytes)) => Ok(bytes),
                Ok(None) => Err(OciError::Size {
                    what,
                    expected: MAX_DOCUMENT_BYTES,
                    found: "more".to_owned(),
                }),
                Err(error) => Err(unreachable(reference, error)),
            }
        };
        let asked = tokio::time::timeout(DOCUMENT_TIMEOUT, self.patiently(ask)).await;
        asked.unwrap_or_else(|_| Err(unreachable(reference, "it takes too long to answer")))
    }

    /// Sends a request, with a token if the registry wants one.
    async fn send(
        &self,
        reference: &Reference,
        actions: &str,
        what: &str,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Response, OciError> {
        let ask = |request| async move {
            let request: RequestBuilder = self.authorized(reference, actions, request);
            request
                .send()
                .await
                .map_err(|error| unreachable(reference, error))
        };
        let mut response = ask(request()).await?;
        // Not what somebody else says, to whom a redirect led.
        if response.status() == StatusCode::UNAUTHORIZED && is_asked(reference, response.url()) {
            let challenge = response.headers().get_all(WWW_AUTHENTICATE).iter();
            let challenge = challenge
                .filter_map(|value| Challenge::read(value.to_str().ok()?))
                .next();
            if let Some(challenge) = challenge {
                let login = self
                    .login
                    .as_ref()
                    .filter(|login| login.registry == reference.registry);
                self.grants
                    .obtain(self.http(reference), reference, actions, &challenge, login)
                    .await?;
                response = ask(request()).await?;
            }
        }
        self.accepted(reference, what, response).await
    }

    fn authorized(&self, reference: &Reference, actions: &str, request: RequestBuilder) -> RequestBuilder {
        match self.grants.find(reference, actions) {
            Some(header) => request.header(AUTHORIZATION, header),
            None => request,
        }
    }

    async fn accepted(
        &self,
        reference: &Reference,
        what: &str,
        response: Response,
    ) -> Result<Response, OciError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let words = bounded(response, MAX_MESSAGE_BYTES).await;
        let words = words.ok().flatten().unwrap_or_default();
        Err(OciError::Refused {
            registry: reference.registry.clone(),
            what: what.to_owned(),
            status: status.as_u16(),
            message: own_words(&words),
        })
    }

    /// Tries again what may pass.
    async fn patiently<T, F: Future<Output = Result<T, OciError>>>(
        &self,
        ask: impl Fn() -> F,
    ) -> Result<T, OciError> {
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            match ask().await {
                Err(
                    OciError::Unreachable { .. }
                    | OciError::Refused {
                        status: 429 | 500.., ..
                    },
                ) => {
                    tokio::time::sleep(pause).await;
                    pause *= 4;
                }
                done => return done,
            }
        }
        ask().await
    }
}

/// `http` only with this machine, where nobody listens in between.
fn url(reference: &Reference, path: &str) -> String {
    let host = reference.host();
    let scheme = match is_this_machine(host) {
        true => "http",
        false => "https",
    };
    format!("{scheme}://{host}/v2/{}/{path}", reference.repository)
}

/// Whether an address is of the registry itself.
fn is_asked(reference: &Reference, address: &Url) -> bool {
    Url::parse(&url(reference, "")).is_ok_and(|own| own.origin() == address.origin())
}

/// Whether an address is of this machine, or of a neighbour that tells it who it is.
pub(super) fn leads_here(address: &Url) -> bool {
    match address.host() {
        Some(Host::Ipv4(address)) => is_near(address.into()),
        Some(Host::Ipv6(address)) => is_near(address.into()),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        None => true,
    }
}

/// Loopback, unspecified or link-local.
fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_loopback() || address.is_unspecified() || address.is_link_local(),
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unspecified() || address.is_unicast_link_local()
        }
    }
}

/// Finds no address of this machine under any name.
struct Elsewhere;

impl Resolve for Elsewhere {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<_> = found.filter(|address| !is_near(address.ip())).collect();
            match found.is_empty() {
                true => Err("the name leads to no other machine".into()),
                false => Ok(Box::new(found.into_iter()) as Addrs),
            }
        })
    }
}

pub(super) fn is_this_machine(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// The body; `None` if it is longer.
pub(super) async fn bounded(response: Response, max_bytes: u64) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut bytes = Vec::new();
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece?);
        if bytes.len() as u64 > max_bytes {
            return Ok(None);
        }
    }
    Ok(Some(bytes))
}

pub(super) fn unreachable(
    reference: &Reference,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> OciError {
    OciError::Unreachable {
        registry: reference.registry.clone(),
        source: source.into(),
    }
}

/// What a registry says of an error: a list as specified, or anything.
fn own_words(bytes: &[u8]) -> String {
    let listed = serde_json::from_slice::<serde_json::Value>(bytes).ok();
    let message = listed
        .as_ref()
        .and_then(|body| body.pointer("/errors/0/message")?.as_str())
        .map(ToOwned::to_owned);
    let text = message.unwrap_or_else(|| String::from_utf8_lossy(bytes).into_owned());
    let plain = text.chars().map(|letter| match letter.is_control() {
        true => ' ',
        false => letter,
    });
    plain
        .take(MAX_MESSAGE_CHARS)
        .collect::<String>()
        .trim()
        .to_owned()
}
