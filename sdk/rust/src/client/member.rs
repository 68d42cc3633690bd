//! Endpoints about who may do what in a session.

use super::{CALL_TIMEOUT, Client, Repeat};
use crate::failure::ClientError;
use greenroom_protocol::client::member::{
    CreateLink, CreatedLink, JoinSession, JoinedSession, MemberList, Role, SessionLinkList, SetMember,
};
use greenroom_protocol::id::{LinkId, PersonId, SessionId};
use reqwest::Method;

impl Client {
    /// Members of a session, and what the caller may do in it.
    pub async fn members(&self, session: &SessionId) -> Result<MemberList, ClientError> {
        self.get(&["sessions", session.as_str(), "members"]).await
    }

    /// Makes somebody a member or gives a member another role; `owner` hands the session over. For its owner.
    pub async fn set_member(
        &self,
        session: &SessionId,
        person: &PersonId,
        role: Role,
    ) -> Result<MemberList, ClientError> {
        let url = self.url(&["sessions", session.as_str(), "members", person.as_str()]);
        let request = self.change(Method::PUT, url).json(&SetMember { role });
        self.json(request.timeout(CALL_TIMEOUT), Repeat::Safe).await
    }

    /// Somebody is no member any more. For the session's owner, and for oneself.
    pub async fn remove_member(&self, session: &SessionId, person: &PersonId) -> Result<(), ClientError> {
        let url = self.url(&["sessions", session.as_str(), "members", person.as_str()]);
        self.acknowledge(self.change(Method::DELETE, url)).await
    }

    /// Links into a session, without their secrets. For its owner.
    pub async fn links(&self, session: &SessionId) -> Result<SessionLinkList, ClientError> {
        self.get(&["sessions", session.as_str(), "links"]).await
    }

    /// Makes a link into a session. For its owner.
    pub async fn create_link(
        &self,
        session: &SessionId,
        link: &CreateLink,
    ) -> Result<CreatedLink, ClientError> {
        // The server keeps no receipt of what holds a secret.
        let url = self.url(&["sessions", session.as_str(), "links"]);
        let request = self.request(Method::POST, url).json(link);
        self.json(request.timeout(CALL_TIMEOUT), Repeat::Never).await
    }

    /// Makes a link useless. For the session's owner.
    pub async fn revoke_link(&self, session: &SessionId, link: &LinkId) -> Result<(), ClientError> {
        let url = self.url(&["sessions", session.as_str(), "links", link.as_str()]);
        self.acknowledge(self.change(Method::DELETE, url)).await
    }

    /// Becomes a member by what stands behind `#token=` in an invite link.
    pub async fn join_session(&self, token: &str) -> Result<JoinedSession, ClientError> {
        let body = JoinSession {
            token: token.to_owned(),
        };
        self.post(&["memberships"], &body).await
    }
}
