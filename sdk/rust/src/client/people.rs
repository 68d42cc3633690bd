//! Endpoints about who may use the server and who did what there.

use super::{CALL_TIMEOUT, Client, Repeat};
use crate::failure::ClientError;
use greenroom_protocol::client::audit::AuditPage;
use greenroom_protocol::client::person::{
    Account, AccountList, AddPerson, AddedPerson, SignInLink, UpdatePerson,
};
use greenroom_protocol::id::PersonId;
use reqwest::Method;

/// Which audit entries.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Older than this entry.
    pub before: Option<u64>,
    pub person: Option<PersonId>,
    /// In whose target or subject this stands, such as a session's id.
    pub about: Option<String>,
    pub limit: Option<u32>,
}

impl Client {
    /// Everybody who may use the server.
    pub async fn people(&self) -> Result<AccountList, ClientError> {
        self.get(&["people"]).await
    }

    /// Lets somebody use the server; the answer holds a link that signs them in once. Only for owners.
    pub async fn add_person(&self, person: &AddPerson) -> Result<AddedPerson, ClientError> {
        // The server keeps no receipt of what holds a secret.
        let request = self.request(Method::POST, self.url(&["people"])).json(person);
        self.json(request.timeout(CALL_TIMEOUT), Repeat::Never).await
    }

    /// Changes somebody's name or address, or whether they own the server. Only for owners.
    pub async fn update_person(
        &self,
        person: &PersonId,
        update: &UpdatePerson,
    ) -> Result<Account, ClientError> {
        let request = self
            .change(Method::PATCH, self.url(&["people", person.as_str()]))
            .json(update);
        self.json(request.timeout(CALL_TIMEOUT), Repeat::Safe).await
    }

    /// Somebody may no longer use the server. Only for owners.
    pub async fn remove_person(&self, person: &PersonId) -> Result<(), ClientError> {
        self.acknowledge(self.change(Method::DELETE, self.url(&["people", person.as_str()])))
            .await
    }

    /// A link that signs somebody in once. Only for owners.
    pub async fn create_sign_in_link_for(&self, person: &PersonId) -> Result<SignInLink, ClientError> {
        let url = self.url(&["people", person.as_str(), "sign-in-links"]);
        let request = self.request(Method::POST, url).timeout(CALL_TIMEOUT);
        self.json(request, Repeat::Never).await
    }

    /// Who did what, the newest first. Only for owners.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<AuditPage, ClientError> {
        let query: Vec<_> = [
            ("before", filter.before.map(|before| before.to_string())),
            ("person", filter.person.as_ref().map(ToString::to_string)),
            ("about", filter.about.clone()),
            ("limit", filter.limit.map(|limit| limit.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name, value)))
        .collect();
        self.get_with(&["audit"], &query).await
    }
}
