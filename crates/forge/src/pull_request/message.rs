//! Messages of the commits that merging writes. Pure.

use super::record::PullRecord;
use crate::git::commits::{CommitRecord, clean};

/// Trailer that names the session a commit comes from.
const SESSION: &str = "Greenroom-Session";
/// Trailer that names a further author.
const CO_AUTHOR: &str = "Co-authored-by";

/// Message of a merge commit.
pub(crate) fn merge_message(record: &PullRecord) -> String {
    format!(
        "Merge pull request #{} from {}\n\n{}",
        record.number, record.head_branch, record.title
    )
}

/// Message of a squashed commit: title, body, then the sessions and the authors beside the pull request's own.
pub(crate) fn squash_message(record: &PullRecord, commits: &[CommitRecord]) -> String {
    let mut sessions: Vec<String> = commits
        .iter()
        .flat_map(|commit| trailers(commit, SESSION))
        .collect();
    if let (true, Some(session)) = (sessions.is_empty(), &record.session) {
        sessions.push(session.to_string());
    }
    let named = commits.iter().flat_map(|commit| {
        let author = format!("{} <{}>", clean(&commit.author.name), clean(&commit.author.email));
        std::iter::once(author).chain(trailers(commit, CO_AUTHOR))
    });
    let own = address_of(&format!("<{}>", clean(&record.author.email)));
    let mut authors: Vec<String> = Vec::new();
    for author in named {
        let address = address_of(&author);
        if address != own && authors.iter().all(|known| address_of(known) != address) {
            authors.push(author);
        }
    }
    let mut lines: Vec<String> = Vec::new();
    for session in sessions {
        let line = format!("{SESSION}: {session}");
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.extend(authors.iter().map(|author| format!("{CO_AUTHOR}: {author}")));
    let mut message = format!("{} (#{})", record.title, record.number);
    for part in [record.body.trim(), &lines.join("\n")] {
        if !part.is_empty() {
            message.push_str("\n\n");
            message.push_str(part);
        }
    }
    message
}

/// Values of a trailer in the last paragraph of a message (git-interpret-trailers(1)).
fn trailers(commit: &CommitRecord, key: &str) -> Vec<String> {
    let last = commit
        .message
        .trim_end()
        .rsplit("\n\n")
        .next()
        .unwrap_or_default();
    let values = last.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(key).then(|| value.trim().to_owned())
    });
    values.filter(|value| !value.is_empty()).collect()
}

/// What stands in angle brackets, in lower case.
fn address_of(author: &str) -> String {
    let address = author.rsplit_once('<').map_or(author, |(_, address)| address);
    address.trim_end_matches('>').to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::commits::Signature;
    use greenroom_protocol::client::person::Person;
    use greenroom_protocol::client::pull_request::PullRequestState;
    use greenroom_protocol::id::{PersonId, SessionId};

    fn record(body: &str) -> PullRecord {
        PullRecord {
            generation: 1,
            number: 7,
            title: "Fix it".to_owned(),
            body: body.to_owned(),
            state: PullRequestState::Open,
            author: Person {
                id: PersonId::from_bits(1),
                name: "Ann".to_owned(),
                email: "Ann@x.org".to_owned(),
            },
            session: Some(SessionId::from_bits(1)),
            prompted_by: Vec::new(),
            head_branch: "h".to_owned(),
            base_branch: "main".to_owned(),
            head_commit: String::new(),
            base_commit: String::new(),
            comments: Vec::new(),
            reviews: Vec::new(),
            merge: None,
            idempotency_key: None,
            created_at_ms: 0,
            updated_at_ms: 0,
        }
    }

    fn commit(name: &str, email: &str, message: &str) -> CommitRecord {
        CommitRecord {
            id: String::new(),
            tree: String::new(),
            parents: Vec::new(),
            author: Signature::at(name, email, 0),
            committer_name: String::new(),
            committer_email: String::new(),
            committed_at_s: 0,
            message: message.to_owned(),
        }
    }

    #[test]
    fn squash_messages() {
        let session = SessionId::from_bits(1);
        let ann = |message| commit("Ann", "ann@x.org", message);
        for (body, commits, expected) in [
            ("", vec![ann("a")], format!("Fix it (#7)\n\nGreenroom-Session: {session}")),
            (
                "Why.\n",
                vec![
                    ann("a\n\nGreenroom-Session: ses_x"),
                    commit("Bob", "bob@x.org", "b\n\nGreenroom-Session: ses_x\nCo-authored-by: Cy <cy@x.org>"),
                    commit("Bob", "BOB@x.org", "c"),
                ],
                "Fix it (#7)\n\nWhy.\n\nGreenroom-Session: ses_x\nCo-authored-by: Bob <bob@x.org>\nCo-authored-by: Cy <cy@x.org>".to_owned(),
            ),
        ] {
            assert_eq!(squash_message(&record(body), &commits), expected);
        }
    }
}
