//! The only way out of a sandbox: an HTTP proxy and a SOCKS5 proxy that apply a policy, refuse at once what it does not
//! allow, and add credentials that the sandbox never sees. Knows no sessions and no transport: it serves byte streams.

mod address;
mod authority;
mod credential;
mod decision;
mod dial;
mod egress;
mod http;
mod intercept;
mod meter;
mod policy;
mod resolve;
mod socks;
mod trust;
mod tunnel;

pub use address::AddressKind;
pub use authority::{Authority, AuthorityError};
pub use credential::{Credential, CredentialError};
pub use decision::{Decision, Observer, Protocol, Reason, Verdict};
pub use egress::{Egress, EgressError, EgressLimits, EgressUsage};
pub use policy::name::{Host, HostInvalid, Target};
pub use policy::rule::RuleProblem;
pub use policy::{AddressException, AddressExceptionInvalid, CREDENTIAL_PORT, Policy, PolicyError};
pub use resolve::{Resolver, SystemResolver, fake};
pub use rustls::pki_types::CertificateDer;
pub use trust::{TRUST_DIRECTORY, TRUST_FILE_NAME, Trust};
