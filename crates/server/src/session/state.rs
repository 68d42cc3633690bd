//! What a session is, folded from its events. Pure: the actor feeds every event it appends, and a loaded session is the
//! same fold over its log, so memory and disk cannot disagree.

use super::views::Kept;
use greenroom_protocol::client::event::{Event, EventBody, SandboxState, TurnOutcome};
use greenroom_protocol::client::member::{Member, Role};
use greenroom_protocol::client::overview::{
    OpenTurn, PushedChange, SandboxStatus, ServiceStatus, SessionOverview,
};
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::prompt::{Delivery, Prompt, PromptState};
use greenroom_protocol::client::pull_request::PullRequestState;
use greenroom_protocol::client::session::{FailedEffect, PullRequestLink, Session, SessionState};
use greenroom_protocol::id::{PersonId, PromptId, SnapshotId, TurnId};
use std::collections::VecDeque;
use std::sync::Arc;

/// Begins the names of sessions' branches.
pub const BRANCH_PREFIX: &str = "greenroom/";

/// Title of a session without a prompt.
pub const UNTITLED: &str = "Untitled session";

/// Titles are cut to this many characters.
pub const MAX_TITLE_CHARS: usize = 80;

/// The turn that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningTurn {
    pub turn_id: TurnId,
    /// Shared, because it may be long and who asks what a session is gets a copy.
    pub prompt: Arc<Prompt>,
    /// What it was told since, in this order.
    pub inserted: Vec<Prompt>,
    /// Who asked it to stop, if anyone.
    pub stopped_by: Option<PersonId>,
    pub model: String,
    pub is_scripted: bool,
    pub started_at_ms: i64,
}

/// A session's present, derived from its past.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionFold {
    /// The row that lists show.
    pub row: Session,
    /// Prompts that wait, first to run first.
    pub queue: VecDeque<Arc<Prompt>>,
    pub running: Option<RunningTurn>,
    /// What was last pushed to the session's branch, once for each repository.
    pub pushed: Vec<Arc<PushedChange>>,
    /// The sandbox as last heard of.
    pub sandbox: Option<SandboxStatus>,
    /// Its services, in the order in which they were first heard of.
    pub services: Vec<ServiceStatus>,
    /// Number of the last event that told of changed files since the last push, or 0.
    pub files_changed_seq: u64,
    /// Whether its sandbox was ready once.
    pub had_sandbox: bool,
    /// Whom others took out, and nobody let in again.
    pub removed_members: Vec<PersonId>,
    /// What its first sandbox begins with, if it is a fork.
    pub forked_snapshot: Option<SnapshotId>,
}

impl SessionFold {
    /// Starts from the first event of a log; `None` if it is not `session.created`.
    pub fn begin(event: &Event) -> Option<Self> {
        let EventBody::SessionCreated {
            session_id,
            title,
            repository,
            base_branch,
            branch,
            model,
            is_scripted,
            created_by,
            access,
        } = &event.body
        else {
            return None;
        };
        let row = Session {
            id: session_id.clone(),
            title: title.clone(),
            state: SessionState::Created,
            repository: repository.clone(),
            base_branch: base_branch.clone(),
            branch: branch.clone(),
            model: model.clone(),
            is_scripted: *is_scripted,
            created_by: created_by.clone(),
            created_at_ms: event.at_ms,
            updated_at_ms: event.at_ms,
            last_seq: event.seq,
            pull_requests: Vec::new(),
            forked_from: None,
            last_error_code: None,
            delivery: Delivery::default(),
            is_queue_paused: false,
            failed_effects: Vec::new(),
            members: vec![Member {
                person: created_by.clone(),
                role: Role::Owner,
            }],
            access: *access,
        };
        Some(Self {
            row,
            queue: VecDeque::new(),
            running: None,
            pushed: Vec::new(),
            sandbox: None,
            services: Vec::new(),
            files_changed_seq: 0,
            had_sandbox: false,
            removed_members: Vec::new(),
            forked_snapshot: None,
        })
    }

    /// Goes on from what was kept of it.
    pub(super) fn restore(kept: Kept) -> Self {
        let Kept {
            overview,
            had_sandbox,
            removed_members,
            forked_snapshot,
        } = kept;
        let running = overview.turn.map(|turn| RunningTurn {
            turn_id: turn.turn_id,
            prompt: Arc::new(turn.prompt),
            inserted: turn.inserted,
            stopped_by: turn.stopped_by,
            model: turn.model,
            is_scripted: turn.is_scripted,
            started_at_ms: turn.started_at_ms,
        });
        Self {
            row: *overview.session,
            queue: overview.queued.into_iter().map(Arc::new).collect(),
            running,
            pushed: overview.changes.into_iter().map(Arc::new).collect(),
            sandbox: overview.sandbox,
            services: overview.services,
            files_changed_seq: overview.files_changed_seq,
            had_sandbox,
            removed_members,
            forked_snapshot,
        }
    }

    /// What pages show of it, but for turns that ended.
    pub fn overview(&self) -> SessionOverview {
        let turn = self.running.as_ref().map(|running| OpenTurn {
            turn_id: running.turn_id.clone(),
            prompt: Prompt::clone(&running.prompt),
            inserted: running.inserted.clone(),
            model: running.model.clone(),
            is_scripted: running.is_scripted,
            started_at_ms: running.started_at_ms,
            stopped_by: running.stopped_by.clone(),
        });
        SessionOverview {
            seq: self.row.last_seq,
            session: Box::new(self.row.clone()),
            queued: self.queue.iter().map(|prompt| Prompt::clone(prompt)).collect(),
            turn,
            sandbox: self.sandbox.clone(),
            services: self.services.clone(),
            changes: self
                .pushed
                .iter()
                .map(|change| PushedChange::clone(change))
                .collect(),
            files_changed_seq: self.files_changed_seq,
        }
    }

    /// Takes the next event. Kinds that change nothing here are ignored, unknown ones too.
    pub fn apply(&mut self, event: &Event) {
        self.row.last_seq = event.seq;
        self.row.updated_at_ms = event.at_ms;
        match &event.body {
            EventBody::SessionForked {
                from, snapshot_id, ..
            } => {
                self.row.forked_from = Some(from.clone());
                self.forked_snapshot.clone_from(snapshot_id);
            }
            EventBody::SandboxStateChanged {
                sandbox_id,
                state,
                problem,
            } => {
                self.had_sandbox |= *state == SandboxState::Ready;
                let is_gone = matches!(
                    state,
                    SandboxState::Starting | SandboxState::Stopped | SandboxState::Lost
                );
                if is_gone {
                    self.services.clear();
                }
                self.sandbox = Some(SandboxStatus {
                    sandbox_id: sandbox_id.clone(),
                    state: *state,
                    problem: problem.clone(),
                });
            }
            EventBody::ServiceStateChanged { name, state, reason } => {
                let status = ServiceStatus {
                    name: name.clone(),
                    state: *state,
                    reason: reason.clone(),
                };
                match self.services.iter_mut().find(|known| known.name == *name) {
                    Some(known) => *known = status,
                    None => self.services.push(status),
                }
            }
            EventBody::WorkspaceChanged { .. } => self.files_changed_seq = event.seq,
            EventBody::SessionAccessChanged { access, .. } => self.row.access = *access,
            EventBody::SessionMemberChanged { person, role, by } => {
                self.removed_members.retain(|removed| *removed != person.id);
                match role {
                    Some(role) => self.put_member(person, *role),
                    None => {
                        self.row.members.retain(|member| member.person.id != person.id);
                        // Who leaves may come back.
                        if *by != person.id {
                            self.removed_members.push(person.id.clone());
                        }
                    }
                }
            }
            EventBody::SessionHandedOver { to, .. } => {
                for member in &mut self.row.members {
                    if member.role == Role::Owner {
                        member.role = Role::Editor;
                    }
                }
                self.row.members.retain(|member| member.person.id != to.id);
                self.row.members.insert(
                    0,
                    Member {
                        person: to.clone(),
                        role: Role::Owner,
                    },
                );
            }
            EventBody::SessionTitled { title, .. } => self.row.title.clone_from(title),
            EventBody::SessionStateChanged { state } => self.row.state = *state,
            EventBody::SessionArchived { .. } => self.row.state = SessionState::Archived,
            EventBody::SessionUnarchived { .. } => self.row.state = SessionState::Idle,
            EventBody::SessionDeliveryChanged { delivery, .. } => self.row.delivery = *delivery,
            EventBody::SessionQueueChanged { is_paused, .. } => self.row.is_queue_paused = *is_paused,
            EventBody::PromptQueued { prompt, .. } => {
                // What is to be inserted goes before what waits for a turn of its own: if the turn ends before, it is the next.
                let place = match prompt.delivery {
                    Delivery::Queue => self.queue.len(),
                    Delivery::Insert => self.behind_insertions(),
                };
                self.queue.insert(place, Arc::new(prompt.clone()));
            }
            EventBody::PromptDeliveryChanged {
                prompt_id, delivery, ..
            } => {
                let changed = self.queue.iter().position(|prompt| prompt.id == *prompt_id);
                if let Some(mut prompt) = changed.and_then(|place| self.queue.remove(place)) {
                    Arc::make_mut(&mut prompt).delivery = *delivery;
                    let place = self.behind_insertions();
                    self.queue.insert(place, prompt);
                }
            }
            EventBody::PromptInserted { turn_id, prompt_id } => {
                let place = self.queue.iter().position(|prompt| prompt.id == *prompt_id);
                let running = self
                    .running
                    .as_mut()
                    .filter(|running| running.turn_id == *turn_id);
                if let Some((running, prompt)) = running.zip(place.and_then(|place| self.queue.remove(place)))
                {
                    running.inserted.push(Arc::unwrap_or_clone(prompt));
                }
            }
            EventBody::PromptCancelled { prompt_id, .. } => {
                self.queue.retain(|prompt| prompt.id != *prompt_id)
            }
            EventBody::PromptEdited { prompt_id, text, .. } => {
                let edited = self.queue.iter_mut().find(|prompt| prompt.id == *prompt_id);
                if let Some(prompt) = edited {
                    Arc::make_mut(prompt).text.clone_from(text);
                }
            }
            EventBody::PromptMoved {
                prompt_id, position, ..
            } => {
                let moved = self.queue.iter().position(|prompt| prompt.id == *prompt_id);
                if let Some(prompt) = moved.and_then(|from| self.queue.remove(from)) {
                    let place = self.queue.len().min(*position as usize);
                    self.queue.insert(place, prompt);
                }
            }
            EventBody::TurnStarted {
                turn_id,
                prompt_id,
                model,
                is_scripted,
            } => {
                if let Some(position) = self.queue.iter().position(|prompt| prompt.id == *prompt_id)
                    && let Some(prompt) = self.queue.remove(position)
                {
                    self.running = Some(RunningTurn {
                        turn_id: turn_id.clone(),
                        prompt,
                        inserted: Vec::new(),
                        stopped_by: None,
                        model: model.clone(),
                        is_scripted: *is_scripted,
                        started_at_ms: event.at_ms,
                    });
                }
            }
            EventBody::TurnStopping { by, .. } => {
                if let Some(running) = &mut self.running {
                    running.stopped_by = Some(by.clone());
                }
            }
            EventBody::TurnCompleted { outcome, .. } => {
                self.running = None;
                self.row.last_error_code = match outcome {
                    TurnOutcome::Failed { problem } => Some(problem.code.clone()),
                    TurnOutcome::Completed | TurnOutcome::Stopped { .. } => None,
                };
            }
            EventBody::EffectFailed {
                effect,
                effect_key: Some(key),
                repository,
                problem,
            } => self.row.failed_effects.push(FailedEffect {
                key: key.clone(),
                effect: effect.clone(),
                repository: repository.clone(),
                problem: problem.clone(),
            }),
            EventBody::EffectRetried { effect_key, .. } | EventBody::EffectSuperseded { effect_key } => {
                self.row.failed_effects.retain(|failed| failed.key != *effect_key);
            }
            EventBody::ChangePushed {
                repository,
                branch,
                commit,
                additions,
                deletions,
                files,
            } => {
                let pushed = Arc::new(PushedChange {
                    repository: repository.clone(),
                    branch: branch.clone(),
                    commit: commit.clone(),
                    additions: *additions,
                    deletions: *deletions,
                    files: files.clone(),
                });
                self.pushed
                    .retain(|other| other.name(&self.row) != pushed.name(&self.row));
                self.pushed.push(pushed);
                self.files_changed_seq = 0;
            }
            EventBody::PullRequestOpened {
                repository,
                number,
                title,
                path,
            } => {
                self.row
                    .pull_requests
                    .retain(|link| link.repository != *repository || link.number != *number);
                self.row.pull_requests.push(PullRequestLink {
                    repository: repository.clone(),
                    number: *number,
                    title: title.clone(),
                    state: PullRequestState::Open,
                    path: path.clone(),
                });
            }
            EventBody::PullRequestStateChanged {
                repository,
                number,
                state,
            } => {
                for link in &mut self.row.pull_requests {
                    if link.repository == *repository && link.number == *number {
                        link.state = *state;
                    }
                }
            }
            EventBody::SessionCreated { .. }
            | EventBody::ItemStarted { .. }
            | EventBody::ItemCompleted { .. }
            | EventBody::TurnRetrying { .. }
            | EventBody::TurnResumed { .. }
            | EventBody::EgressDecided { .. }
            | EventBody::EffectFailed { effect_key: None, .. }
            | EventBody::Unknown(_) => {}
        }
        self.row.is_queue_paused &= !self.queue.is_empty();
    }

    fn put_member(&mut self, person: &Person, role: Role) {
        let member = Member {
            person: person.clone(),
            role,
        };
        let mut members = self.row.members.iter_mut();
        match members.find(|known| known.person.id == person.id) {
            Some(known) => *known = member,
            None => self.row.members.push(member),
        }
    }

    /// The place behind all that waits to be inserted: whatever was moved, the newest is told last.
    fn behind_insertions(&self) -> usize {
        let is_insertion = |prompt: &Arc<Prompt>| prompt.delivery == Delivery::Insert;
        self.queue
            .iter()
            .rposition(is_insertion)
            .map_or(0, |last| last + 1)
    }

    /// The prompt whose turn is next, if any may begin.
    pub fn next(&self) -> Option<&Arc<Prompt>> {
        self.queue.front().filter(|_| !self.row.is_queue_paused)
    }

    /// Whether somebody may remove a prompt that waits, or let it run earlier or later: its author, and the session's owner.
    pub fn may_order(&self, prompt: &Prompt, person: &PersonId) -> bool {
        prompt.author.id == *person || self.row.owner().id == *person
    }

    /// Where a prompt stands that has not ended; `None` for ended and unknown ones.
    pub fn open_prompt_state(&self, prompt_id: &PromptId) -> Option<PromptState> {
        if self.running.as_ref().is_some_and(|running| {
            running.prompt.id == *prompt_id || running.inserted.iter().any(|prompt| prompt.id == *prompt_id)
        }) {
            Some(PromptState::Running)
        } else if self.queue.iter().any(|prompt| prompt.id == *prompt_id) {
            Some(PromptState::Queued)
        } else {
            None
        }
    }
}

/// A title from a prompt: its first line with words in it, shortened at a word.
pub fn title_from_prompt(text: &str) -> String {
    let line = text
        .lines()
        .map(|line| line.trim().trim_start_matches(['#', '>', '-', '*', ' ']))
        .find(|line| line.chars().any(char::is_alphanumeric))
        .unwrap_or(UNTITLED);
    if line.chars().count() <= MAX_TITLE_CHARS {
        return line.to_owned();
    }
    let cut: String = line.chars().take(MAX_TITLE_CHARS - 1).collect();
    let at_word = cut
        .rfind(char::is_whitespace)
        .filter(|position| *position > cut.len() / 2);
    format!("{}…", cut[..at_word.unwrap_or(cut.len())].trim_end())
}

/// The session's branch: readable, unique by the end of the session's id.
pub fn branch_name(title: &str, session_id: &str) -> String {
    let mut slug = String::new();
    for character in title.chars().flat_map(char::to_lowercase) {
        if character.is_ascii_alphanumeric() {
            slug.push(character);
        } else if !slug.ends_with('-') && !slug.is_empty() {
            slug.push('-');
        }
        if slug.len() >= 40 {
            break;
        }
    }
    let slug = slug.trim_matches('-');
    let slug = if slug.is_empty() { "session" } else { slug };
    let suffix = &session_id[session_id.len().saturating_sub(6)..];
    format!("{BRANCH_PREFIX}{slug}-{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_protocol::client::member::SessionAccess;
    use greenroom_protocol::id::SessionId;

    fn person(number: u128) -> Person {
        Person {
            id: PersonId::from_bits(number),
            name: format!("Person {number}"),
            email: format!("{number}@example.com"),
        }
    }

    fn prompt(number: u128, author: u128) -> Prompt {
        Prompt {
            id: PromptId::from_bits(number),
            author: person(author),
            text: format!("prompt {number}"),
            images: Vec::new(),
            model: None,
            delivery: Delivery::Queue,
            queued_at_ms: 0,
        }
    }

    fn queued(prompt: Prompt) -> EventBody {
        EventBody::PromptQueued { prompt, key: None }
    }

    /// A session of person 1 in which these happened.
    fn session(bodies: Vec<EventBody>) -> SessionFold {
        let created = EventBody::SessionCreated {
            session_id: SessionId::from_bits(1),
            title: UNTITLED.to_owned(),
            repository: "shop".to_owned(),
            base_branch: "main".to_owned(),
            branch: "greenroom/x".to_owned(),
            model: "m".to_owned(),
            is_scripted: true,
            created_by: person(1),
            access: SessionAccess::Viewer,
        };
        let event = |seq, body| Event { seq, at_ms: 0, body };
        let mut fold = SessionFold::begin(&event(1, created)).unwrap();
        for (seq, body) in (2..).zip(bodies) {
            fold.apply(&event(seq, body));
        }
        fold
    }

    #[test]
    fn the_queue_is_its_authors_and_whoever_began_the_session_puts_it_in_order() {
        let fold = session(vec![queued(prompt(1, 2))]);
        for (number, expected) in [(1, true), (2, true), (3, false)] {
            assert_eq!(
                fold.may_order(&fold.queue[0], &person(number).id),
                expected,
                "{number}"
            );
        }
    }

    #[test]
    fn members_come_change_and_go_and_one_owns_the_session() {
        let changed = |number, role| EventBody::SessionMemberChanged {
            person: person(number),
            role,
            by: person(1).id,
        };
        let (owner, editor, viewer) = (Role::Owner, Role::Editor, Role::Viewer);
        let handed = |number| EventBody::SessionHandedOver {
            to: person(number),
            by: person(1).id,
        };
        type Case<'a> = (Vec<EventBody>, &'a [(u128, Role)]);
        let cases: [Case<'_>; 5] = [
            (vec![], &[(1, owner)]),
            (
                vec![changed(2, Some(viewer)), changed(3, Some(editor))],
                &[(1, owner), (2, viewer), (3, editor)],
            ),
            (
                vec![
                    changed(2, Some(viewer)),
                    changed(3, Some(viewer)),
                    changed(2, Some(editor)),
                ],
                &[(1, owner), (2, editor), (3, viewer)],
            ),
            (
                vec![changed(2, Some(viewer)), changed(2, None), changed(9, None)],
                &[(1, owner)],
            ),
            (
                vec![changed(2, Some(viewer)), handed(2), handed(3)],
                &[(3, owner), (2, editor), (1, editor)],
            ),
        ];
        for (bodies, expected) in cases {
            let row = session(bodies).row;
            let members: Vec<_> = row
                .members
                .iter()
                .map(|member| (member.person.clone(), member.role))
                .collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|(number, role)| (person(*number), *role))
                .collect();
            assert_eq!(members, expected);
            assert_eq!(row.owner(), &expected[0].0);
        }
    }

    #[test]
    fn what_somebody_may_do_is_the_most_of_what_they_and_everybody_may() {
        let member = |role| EventBody::SessionMemberChanged {
            person: person(2),
            role: Some(role),
            by: person(1).id,
        };
        for (role, access, expected) in [
            (None, SessionAccess::Members, None),
            (None, SessionAccess::Viewer, Some(Role::Viewer)),
            (None, SessionAccess::Editor, Some(Role::Editor)),
            (Some(Role::Viewer), SessionAccess::Members, Some(Role::Viewer)),
            (Some(Role::Viewer), SessionAccess::Editor, Some(Role::Editor)),
            (Some(Role::Editor), SessionAccess::Viewer, Some(Role::Editor)),
        ] {
            let by = person(1).id;
            let mut bodies = vec![EventBody::SessionAccessChanged { access, by }];
            bodies.extend(role.map(member));
            assert_eq!(
                session(bodies).row.role_of(&person(2).id),
                expected,
                "{role:?} {access:?}"
            );
        }
    }

    #[test]
    fn what_waits_is_moved_and_edited() {
        for (moved, position, expected) in [
            (3, 0, [3, 1, 2]),
            (1, 2, [2, 3, 1]),
            (1, 99, [2, 3, 1]),
            (2, 1, [1, 2, 3]),
            (9, 0, [1, 2, 3]),
        ] {
            let mut bodies: Vec<_> = (1..=3).map(|number| queued(prompt(number, 1))).collect();
            bodies.push(EventBody::PromptMoved {
                prompt_id: PromptId::from_bits(moved),
                position,
                by: person(1).id,
            });
            bodies.push(EventBody::PromptEdited {
                prompt_id: PromptId::from_bits(2),
                text: "another".to_owned(),
                by: person(1).id,
            });
            let fold = session(bodies);
            let order: Vec<_> = fold.queue.iter().map(|prompt| prompt.id.clone()).collect();
            assert_eq!(order, expected.map(PromptId::from_bits), "{moved} to {position}");
            let edited = fold
                .queue
                .iter()
                .find(|prompt| prompt.id == PromptId::from_bits(2));
            assert_eq!(edited.unwrap().text, "another");
        }
    }

    #[test]
    fn what_is_inserted_waits_first_and_belongs_to_the_turn_that_heard_it() {
        let inserted = |number| Prompt {
            delivery: Delivery::Insert,
            ..prompt(number, 1)
        };
        let turn_id = TurnId::from_bits(1);
        let started = EventBody::TurnStarted {
            turn_id: turn_id.clone(),
            prompt_id: PromptId::from_bits(1),
            model: "m".to_owned(),
            is_scripted: true,
        };
        let waiting =
            |fold: &SessionFold| -> Vec<_> { fold.queue.iter().map(|prompt| prompt.id.clone()).collect() };
        let changed = |number, delivery| EventBody::PromptDeliveryChanged {
            prompt_id: PromptId::from_bits(number),
            delivery,
            by: person(1).id,
        };
        let heard = |number| EventBody::PromptInserted {
            turn_id: turn_id.clone(),
            prompt_id: PromptId::from_bits(number),
        };
        let mut bodies = vec![
            queued(prompt(1, 1)),
            started,
            queued(prompt(2, 1)),
            queued(inserted(3)),
            queued(prompt(4, 1)),
            changed(4, Delivery::Insert),
            EventBody::SessionQueueChanged {
                is_paused: true,
                by: person(1).id,
            },
        ];
        let fold = session(bodies.clone());
        assert_eq!(waiting(&fold), [3, 4, 2].map(PromptId::from_bits));
        assert_eq!((fold.row.is_queue_paused, fold.next()), (true, None));
        bodies.extend([heard(3), heard(4), heard(9)]);
        let fold = session(bodies.clone());
        let running = fold.running.as_ref().unwrap();
        let told: Vec<_> = running.inserted.iter().map(|prompt| prompt.id.clone()).collect();
        assert_eq!(told, [3, 4].map(PromptId::from_bits));
        assert_eq!(
            fold.open_prompt_state(&PromptId::from_bits(3)),
            Some(PromptState::Running)
        );
        // One that is to wait after all does not come between those that are told.
        let mut others = bodies.clone();
        others.extend([
            queued(inserted(5)),
            queued(inserted(6)),
            changed(5, Delivery::Queue),
            queued(inserted(7)),
        ]);
        assert_eq!(
            waiting(&session(others.clone())),
            [6, 7, 5, 2].map(PromptId::from_bits)
        );
        others.push(EventBody::PromptMoved {
            prompt_id: PromptId::from_bits(6),
            position: 3,
            by: person(1).id,
        });
        others.push(queued(inserted(8)));
        assert_eq!(
            waiting(&session(others)),
            [7, 5, 2, 6, 8].map(PromptId::from_bits)
        );
        bodies.push(EventBody::PromptCancelled {
            prompt_id: PromptId::from_bits(2),
            by: person(1).id,
        });
        assert!(!session(bodies).row.is_queue_paused, "nothing waits any more");
    }

    #[test]
    fn titles_are_short_first_lines() {
        let long = "word ".repeat(40);
        for (text, expected) in [
            ("Fix the test", "Fix the test"),
            ("\n\n  # Heading here \nrest", "Heading here"),
            ("- item", "item"),
            ("   ", "Untitled session"),
            ("…!\nreal line", "real line"),
        ] {
            assert_eq!(title_from_prompt(text), expected);
        }
        let title = title_from_prompt(&long);
        assert!(
            title.ends_with("word…") && title.chars().count() <= MAX_TITLE_CHARS,
            "{title:?}"
        );
    }

    #[test]
    fn branches_are_safe_ref_names() {
        for (title, expected) in [
            ("Fix the failing test!", "greenroom/fix-the-failing-test-abcdef"),
            ("Übersicht ändern", "greenroom/bersicht-ndern-abcdef"),
            ("日本語", "greenroom/session-abcdef"),
            ("a..b~^:?*[\\", "greenroom/a-b-abcdef"),
        ] {
            assert_eq!(branch_name(title, "ses_xxxxabcdef"), expected);
        }
    }
}
