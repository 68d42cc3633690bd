//! The certificate authority of one sandbox: makes the certificates that the proxy shows for hosts with credentials, and for
//! no other. Its private key never leaves this process and is kept nowhere: it is derived again when needed.

use greenroom_protocol::id::SandboxId;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use ring::hkdf;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Separates this use of the server's secret from any other.
const SALT: &[u8] = b"greenroom egress authority 1";

/// Life of a host's certificate, before now and after. They are made anew long before the end.
const LEAF_BEFORE: Duration = Duration::from_secs(24 * 60 * 60);
const LEAF_AFTER: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// A P-256 key in PKCS #8 (RFC 5958, RFC 5915): what precedes the private and the public part.
const PKCS8_PRIVATE: &[u8] = &[
    0x30, 0x81, 0x87, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01,
    0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x6d, 0x30, 0x6b, 0x02, 0x01, 0x01,
    0x04, 0x20,
];
const PKCS8_PUBLIC: &[u8] = &[0xa1, 0x44, 0x03, 0x42, 0x00];

/// An authority that one sandbox trusts. Cheap enough to make for each start.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// Why there is no authority or no certificate.
#[derive(Debug, thiserror::Error)]
#[error("make certificate")]
pub struct AuthorityError(#[from] rcgen::Error);

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority(…)")
    }
}

impl Authority {
    /// The authority of a sandbox, the same each time: a sandbox that outlives the server goes on trusting it. `server_secret`
    /// must be secret and random, at least 32 bytes.
    pub fn derive(server_secret: &[u8], sandbox: &SandboxId) -> Result<Self, AuthorityError> {
        let key = derive_key(server_secret, sandbox.as_str())?;
        Self::from_key(key, sandbox.as_str())
    }

    /// An authority that ends with this process.
    pub fn generate() -> Result<Self, AuthorityError> {
        Self::from_key(KeyPair::generate()?, "until the server ends")
    }

    fn from_key(key: KeyPair, name: &str) -> Result<Self, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Greenroom egress");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // Fixed, so that the certificate says the same each time. The key lives as long as the sandbox's server secret.
        params.not_before = date_time_ymd(2025, 1, 1);
        params.not_after = date_time_ymd(2049, 12, 31);
        params.serial_number = Some(SerialNumber::from(1));
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// What the sandbox must trust.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A certificate for one host, and its key.
    pub(crate) fn issue(&self, host: &str) -> Result<Leaf, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        // Sixty-four characters is all that a common name may have; who reads it looks at the alternative names.
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Greenroom egress");
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_before = epoch + now.saturating_sub(LEAF_BEFORE);
        params.not_after = epoch + now + LEAF_AFTER;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Leaf {
            chain: vec![certificate.der().clone(), self.certificate.clone()],
            key: PrivatePkcs8KeyDer::from(key),
        })
    }
}

/// What the proxy shows for one host.
pub(crate) struct Leaf {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivatePkcs8KeyDer<'static>,
}

/// A P-256 key out of a secret and a name (HKDF, RFC 5869).
fn derive_key(server_secret: &[u8], name: &str) -> Result<KeyPair, AuthorityError> {
    let pseudo_random = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(server_secret);
    // A scalar outside the group's order has a chance of 2^-32; then the next one is taken.
    for attempt in 0..=u8::MAX {
        let mut scalar = [0; 32];
        let info = [name.as_bytes(), &[attempt]];
        let is_filled = pseudo_random
            .expand(&info, hkdf::HKDF_SHA256)
            .and_then(|output| output.fill(&mut scalar));
        if is_filled.is_err() {
            break;
        }
        let Ok(secret) = p256::SecretKey::from_slice(&scalar) else {
            continue;
        };
        let public = secret.public_key().to_encoded_point(false);
        let document = [PKCS8_PRIVATE, &scalar, PKCS8_PUBLIC, public.as_bytes()].concat();
        return Ok(KeyPair::try_from(&PrivatePkcs8KeyDer::from(document))?);
    }
    Err(AuthorityError(rcgen::Error::KeyGenerationUnavailable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_has_the_same_key_again_and_no_other_has_it() {
        let key = |secret: &[u8], name| derive_key(secret, name).unwrap().public_key_raw().to_vec();
        let secret = [7; 32];
        assert_eq!(key(&secret, "sbx_a"), key(&secret, "sbx_a"));
        assert_ne!(key(&secret, "sbx_a"), key(&secret, "sbx_b"));
        assert_ne!(key(&secret, "sbx_a"), key(&[8; 32], "sbx_a"));
    }
}
