//! What can go wrong between images here and images in registries.

use crate::failure::ImageError;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::reference::Digest;
use std::path::PathBuf;
use thiserror::Error;

/// Longest message for people.
const MAX_CHARS: usize = 500;

/// Why an image could not be pulled or pushed.
#[derive(Debug, Error)]
pub enum OciError {
    #[error("{0} names no digest")]
    NotPinned(String),
    #[error("registries cannot be asked from here")]
    Client(#[source] reqwest::Error),
    #[error("the registry {registry} cannot be reached")]
    Unreachable {
        registry: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the registry {registry} refused {what}: {status}{}", after_space(.message))]
    Refused {
        registry: String,
        what: String,
        status: u16,
        /// Its own words.
        message: String,
    },
    #[error("the registry {registry} broke the protocol: {message}")]
    Protocol { registry: String, message: String },
    #[error("the registry {registry} wants {wanted}")]
    Login { registry: String, wanted: &'static str },
    #[error("{what} is {found}, not {expected}")]
    Digest {
        what: &'static str,
        expected: Digest,
        found: Digest,
    },
    #[error("{what} has {found} bytes, not {expected}")]
    Size {
        what: &'static str,
        expected: u64,
        found: String,
    },
    #[error("{what} cannot be read: {message}")]
    Document { what: &'static str, message: String },
    #[error("there is nothing for {wanted}, only for {offered}")]
    Platform { wanted: String, offered: String },
    #[error("the image was made over the base {0} of another host")]
    OtherBase(String),
    #[error("the layers' type {0} is not known")]
    MediaType(String),
    #[error("a layer's archive cannot be read: {0}")]
    Archive(String),
    #[error("the root {} cannot be used: {why}", path.display())]
    Root { path: PathBuf, why: String },
    #[error("the image is larger than allowed")]
    TooLarge,
    #[error(transparent)]
    Local(#[from] ImageError),
    #[error("a worker was cancelled")]
    Cancelled,
}

/// What a registry said, if it said anything.
fn after_space(message: &str) -> String {
    match message {
        "" => String::new(),
        message => format!(" {message}"),
    }
}

impl OciError {
    /// The error for people: stable code, one sentence, advice.
    pub fn problem(&self) -> Problem {
        let permanent = |code, hint: &str| Problem::permanent(code, self.sentence()).with_hint(hint);
        let transient = |code, hint: &str| Problem::transient(code, self.sentence()).with_hint(hint);
        match self {
            Self::NotPinned(_) => permanent(
                "image_not_pinned",
                "What a name means can change any day: add its digest. `greenroom image digest NAME` prints the whole reference.",
            ),
            Self::Client(_) => permanent(
                "registry_client",
                "Check the machine's certificates and proxy variables.",
            ),
            Self::Unreachable { .. } => transient(
                "registry_unreachable",
                "Check the registry's name and that the server can connect to it, then try again.",
            ),
            Self::Refused {
                status: 401 | 403, ..
            }
            | Self::Login { .. } => permanent(
                "registry_refused",
                "The image does not exist, or this registry wants a login: `greenroom secret set registry.HOST` (registry.HOST_PORT), NAME:PASSWORD.",
            ),
            Self::Refused { status: 404, .. } => permanent(
                "image_missing",
                "Check the name and the digest; registries remove images that nothing names any more.",
            ),
            Self::Refused {
                status: 429 | 500.., ..
            } => transient(
                "registry_unavailable",
                "The registry is busy or broken. Try again later.",
            ),
            Self::Refused { .. } => permanent("registry_refused", "The registry's own words say why."),
            Self::Protocol { .. } => permanent(
                "registry_protocol",
                "Check that this is an OCI registry (`/v2/`) and no other web server.",
            ),
            Self::Digest { .. } => permanent(
                "image_digest",
                "The registry did not send what the digest stands for. Nothing of it is used.",
            ),
            Self::Size { .. } => permanent(
                "image_size",
                "The registry did not send what it announced. Nothing of it is used.",
            ),
            Self::Document { .. } | Self::MediaType(_) | Self::Archive(_) => permanent(
                "image_invalid",
                "Something made this image that does not follow the OCI specification. Build it again with another tool.",
            ),
            Self::Platform { .. } => permanent(
                "image_platform",
                "Name an image that was built for this server's processor.",
            ),
            Self::OtherBase(_) => permanent(
                "image_other_base",
                "Images over a host's own files are used by hosts with the same files. Build it here, or over an image of a registry.",
            ),
            Self::Root { .. } => permanent(
                "base_missing",
                "Name a directory or an archive that the server can read.",
            ),
            Self::TooLarge => permanent(
                "image_too_large",
                "Use a smaller image, or raise `image.disk_mb` of the server.",
            ),
            Self::Local(error) => error.problem(),
            Self::Cancelled => Problem::transient("server_stopping", "The server is stopping."),
        }
    }

    /// As a sentence of its own.
    fn sentence(&self) -> String {
        let text = match self {
            // The steps in between name the address again and again.
            Self::Unreachable { source, .. } => format!("{self}: {}", innermost(&**source)),
            _ => greenroom_stdx::chain::Chain(self).to_string(),
        };
        // Much of it was written by whoever made the image.
        let text: String = text
            .chars()
            .map(|letter| if letter.is_control() { ' ' } else { letter })
            .take(MAX_CHARS)
            .collect();
        let mut letters = text.chars();
        let first = letters.next().map(|letter| letter.to_uppercase().to_string());
        format!(
            "{}{}.",
            first.unwrap_or_default(),
            letters.as_str().trim_end_matches('.')
        )
    }
}

fn innermost<'a>(mut error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}
