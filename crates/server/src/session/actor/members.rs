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
        let person_id = person.id.clone();
        let changed = EventBody::SessionMemberChanged {
            person,
            role,
            by: by.clone(),
        };
        let mut events = vec![changed];
        if role.max(row.access.role()) < Some(Role::Editor) {
            events.extend(self.withdrawn(&person_id, &by));
        }
        self.append_events(events).await.map(|_| ())
    }

    /// Somebody may not use this server any more: what they asked for is not done, or not further, and they are no member. Who owns
    /// the session stays its owner on paper, until somebody hands it over.
    pub(super) async fn forget_person(&mut self, person: PersonId, by: PersonId) -> Result<(), Problem> {
        let row = &self.fold.row;
        let member = row.members.iter().find(|member| member.person.id == person);
        let changed = member.filter(|member| member.role != Role::Owner).map(|member| {
            EventBody::SessionMemberChanged {
                person: member.person.clone(),
                role: None,
                by: by.clone(),
            }
        });
        let events: Vec<_> = changed.into_iter().chain(self.withdrawn(&person, &by)).collect();
        if !events.is_empty() {
            self.append_events(events).await?;
        }
        let running = self.fold.running.as_ref();
        match running.is_some_and(|running| running.prompt.author.id == person) {
            true => self.stop(by, false).await,
            false => Ok(()),
        }
    }

    /// Takes out of the queue what people asked for who were removed from this server while this session was not in memory.
    pub(super) async fn forget_the_removed(&mut self) {
        let mut authors: Vec<_> = self
            .fold
            .queue
            .iter()
            .map(|prompt| prompt.author.id.clone())
            .collect();
        authors.sort();
        authors.dedup();
        for author in authors {
            match self.services.catalog.account(&author).await {
                Ok(Some(_)) => {}
                Ok(None) => {
                    let by = self.fold.row.owner().id.clone();
                    if let Err(problem) = self.forget_person(author, by).await {
                        tracing::warn!(session = %self.fold.row.id, code = problem.code, "prompts of somebody who left stay in the queue");
                    }
                }
                Err(error) => {
                    tracing::warn!(session = %self.fold.row.id, %error, "whether an author may still use this server is not known");
                }
            }
        }
    }

    /// That what somebody asked for and waits is not done.
    fn withdrawn(&self, person: &PersonId, by: &PersonId) -> Vec<EventBody> {
        let waiting = self
            .fold
            .queue
            .iter()
            .filter(|prompt| prompt.author.id == *person);
        waiting
            .map(|prompt| EventBody::PromptCancelled {
                prompt_id: prompt.id.clone(),
                by: by.clone(),
            })
            .collect()
    }
}
