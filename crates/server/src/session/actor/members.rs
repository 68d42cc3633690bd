//! Who may do what in a session.

use super::Actor;
use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::client::member::Role;
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::id::PersonId;

/// Members of one session.
const MAX_MEMBERS: usize = 500;

impl Actor {
    /// Makes somebody a member, gives them another role, or takes it (`None`). To make somebody its owner is to hand the session over.
    pub(super) async fn set_member(
        &mut self,
        person: Person,
        role: Option<Role>,
        by: PersonId,
    ) -> Result<(), Problem> {
        let row = &self.fold.row;
        if role.is_some() && self.services.removed.has(&person.id) {
            return Err(
                Problem::permanent("person_unknown", "There is no such person on this server.")
                    .with_hint("See GET /v1/people; an owner of the server can add people."),
            );
        }
        let known = row.members.iter().find(|member| member.person.id == person.id);
        if known.map(|member| member.role) == role {
            return match role {
                Some(_) => Ok(()),
                None => Err(Problem::permanent(
                    "member_unknown",
                    "This person is no member of this session.",
                )),
            };
        }
        if role == Some(Role::Owner) {
            let handed = EventBody::SessionHandedOver { to: person, by };
            return self.append_events(vec![handed]).await.map(|_| ());
        }
        if row.owner().id == person.id {
            return Err(
                Problem::permanent("session_owner", "This person owns the session.")
                    .with_hint("Hand it over to somebody else first: give another member the role `owner`."),
            );
        }
        if known.is_none() && row.members.len() >= MAX_MEMBERS {
            let message = format!("A session has at most {MAX_MEMBERS} members.");
            return Err(Problem::permanent("members_too_many", message)
                .with_hint("Let everybody on this server in with `access` instead."));
        }
        let changed = EventBody::SessionMemberChanged {
            person,
            role,
            by: by.clone(),
        };
        self.append_events(vec![changed]).await?;
        self.settle_rights(&by).await;
        Ok(())
    }

    /// Somebody comes by a link. Whom others took out comes back only by name, and nobody may do less by it.
    pub(super) async fn join(&mut self, person: Person, role: Role) -> Result<(), Problem> {
        if self.fold.removed_members.contains(&person.id) {
            let hint = format!("Ask {} to let you in again.", self.fold.row.owner().name);
            return Err(
                Problem::permanent("member_removed", "You were taken out of this session.").with_hint(hint),
            );
        }
        let mut members = self.fold.row.members.iter();
        let known = members.find(|member| member.person.id == person.id);
        if known.is_some_and(|known| known.role >= role) {
            return Ok(());
        }
        let by = person.id.clone();
        self.set_member(person, Some(role), by).await
    }

    /// After rights changed. That is done already: what cannot be ended now is ended when the session is loaded again.
    pub(super) async fn settle_rights(&mut self, by: &PersonId) {
        if let Err(problem) = self.end_unentitled(by).await {
            tracing::warn!(session = %self.fold.row.id, code = problem.code, "what somebody asked for who may not any more goes on");
        }
    }

    /// Nothing is done any more for whoever may not prompt here now: what they asked for and waits is taken out, and their turn is stopped.
    pub(super) async fn end_unentitled(&mut self, by: &PersonId) -> Result<(), Problem> {
        let queued = self.fold.queue.iter().map(|prompt| &prompt.author.id);
        let running = self
            .fold
            .running
            .as_ref()
            .map(|running| &running.prompt.author.id);
        let mut authors: Vec<_> = queued.chain(running).cloned().collect();
        authors.sort();
        authors.dedup();
        let mut unentitled = Vec::new();
        for author in authors {
            if !self.may_prompt(&author).await? {
                unentitled.push(author);
            }
        }
        if unentitled.is_empty() {
            return Ok(());
        }
        let waiting = self.fold.queue.iter();
        let withdrawn: Vec<_> = waiting
            .filter(|prompt| unentitled.contains(&prompt.author.id))
            .map(|prompt| EventBody::PromptCancelled {
                prompt_id: prompt.id.clone(),
                by: by.clone(),
            })
            .collect();
        if !withdrawn.is_empty() {
            self.append_events(withdrawn).await?;
        }
        let running = self.fold.running.as_ref();
        match running.is_some_and(|running| unentitled.contains(&running.prompt.author.id)) {
            true => self.stop(by.clone(), false).await,
            false => Ok(()),
        }
    }

    /// Whether somebody may use this server, and prompt in this session.
    async fn may_prompt(&self, person: &PersonId) -> Result<bool, Problem> {
        let account = self.services.catalog.account(person).await;
        let account = account.map_err(|error| error.problem())?;
        let role = self.fold.row.role_of(person);
        Ok(account.is_some_and(|account| account.is_owner || role >= Some(Role::Editor)))
    }
}
