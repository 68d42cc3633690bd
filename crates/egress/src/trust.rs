//! What a sandbox must trust so that its programs accept the proxy's certificates: a file, and the variables by which common
//! programs find it.

use crate::authority::Authority;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use std::sync::LazyLock;

/// Name of the file. The host places it in [`TRUST_DIRECTORY`].
pub const TRUST_FILE_NAME: &str = "ca-certificates.crt";

/// Where the sandbox finds it.
pub const TRUST_DIRECTORY: &str = "/etc/greenroom";

/// Variables that name a file of certificates to trust instead of the system's, and who reads them.
const VARIABLES: &[&str] = &[
    // OpenSSL, Go, Ruby, uv, rustls-native-certs.
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    // Python requests; pip.
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    // Node.js and npm: in addition to their own.
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
    "BUNDLE_SSL_CA_CERT",
    "NIX_SSL_CERT_FILE",
];

/// What to place in a sandbox. Public: the private key is not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// Always [`TRUST_FILE_NAME`].
    pub file_name: &'static str,
    /// The host's certificates, the operator's and the sandbox's own authority, in PEM.
    pub pem: String,
    /// Environment of everything that runs in the sandbox.
    pub variables: Vec<(String, String)>,
}

impl Trust {
    pub(crate) fn new(extra: &[CertificateDer<'static>], authority: Option<&Authority>) -> Self {
        let path = format!("{TRUST_DIRECTORY}/{TRUST_FILE_NAME}");
        let all = system_roots()
            .iter()
            .chain(extra)
            .chain(authority.map(Authority::certificate));
        Self {
            file_name: TRUST_FILE_NAME,
            pem: all.map(pem).collect(),
            variables: VARIABLES
                .iter()
                .map(|name| ((*name).to_owned(), path.clone()))
                .collect(),
        }
    }
}

/// The certificates that this machine trusts, read once.
pub(crate) fn system_roots() -> &'static [CertificateDer<'static>] {
    static ROOTS: LazyLock<Vec<CertificateDer<'static>>> = LazyLock::new(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a trusted certificate of this machine cannot be read");
        }
        found.certs
    });
    &ROOTS
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}
