//! What people type as arguments, checked before anything is sent.

use crate::failure::Failure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use greenroom_agent::picture::{bytes_of_base64, image_type, is_whole_image};
use greenroom_protocol::client::MAX_PROMPT_BYTES;
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::prompt::{ImageAttachment, MAX_IMAGE_BYTES, MAX_IMAGES, MAX_IMAGES_BYTES};
use greenroom_protocol::id::SessionId;
use greenroom_sdk::{Archived, Client, SessionFilter};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A prompt as given, or read from standard input for `-`.
pub async fn prompt(argument: &str) -> Result<String, Failure> {
    let text = match argument {
        "-" => standard_input(MAX_PROMPT_BYTES).await?,
        text => text.to_owned(),
    };
    if text.trim().is_empty() {
        return Err(Failure::usage("prompt_empty", "the prompt is empty").with_hint("say what to do"));
    }
    if text.len() > MAX_PROMPT_BYTES {
        let limit = MAX_PROMPT_BYTES / 1024;
        return Err(Failure::usage(
            "prompt_too_large",
            format!("the prompt is larger than {limit} KiB"),
        )
        .with_hint("put long material into a file of the repository and name it in the prompt"));
    }
    Ok(text)
}

/// Images as prompts take them, or which of the files is none.
pub fn images(files: &[PathBuf]) -> Result<Vec<ImageAttachment>, Failure> {
    if files.len() > MAX_IMAGES {
        let message = format!("a prompt takes at most {MAX_IMAGES} images");
        return Err(Failure::usage("image_too_many", message));
    }
    let images: Vec<_> = files.iter().map(|file| image(file)).collect::<Result<_, _>>()?;
    let sizes = images.iter().map(|image| bytes_of_base64(&image.data_base64));
    if sizes.sum::<u64>() > MAX_IMAGES_BYTES {
        let message = format!(
            "the images are larger than {} MiB together",
            MAX_IMAGES_BYTES / (1024 * 1024)
        );
        return Err(Failure::usage("image_too_large", message).with_hint("send some with the next prompt"));
    }
    Ok(images)
}

fn image(file: &Path) -> Result<ImageAttachment, Failure> {
    let name = file.display();
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(MAX_IMAGE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::usage("image_unreadable", format!("{name} cannot be read: {error}")))?;
    let Some(media_type) = image_type(&bytes) else {
        let message = format!("{name} is no image of a kind that models take");
        return Err(
            Failure::usage("image_type_unsupported", message).with_hint("attach PNG, JPEG, GIF or WebP")
        );
    };
    if bytes.len() as u64 > MAX_IMAGE_BYTES {
        let message = format!("{name} is larger than {} MiB", MAX_IMAGE_BYTES / (1024 * 1024));
        return Err(
            Failure::usage("image_too_large", message).with_hint("make it smaller, or cut out a part")
        );
    }
    if !is_whole_image(&bytes) {
        let message = format!("{name} begins as {media_type} and is not whole");
        return Err(
            Failure::usage("image_invalid", message).with_hint("look whether it was copied to its end")
        );
    }
    Ok(ImageAttachment {
        media_type: media_type.to_owned(),
        data_base64: STANDARD.encode(bytes),
    })
}

/// Standard input up to one byte more than `limit`, so that too much can be told from just enough.
pub async fn standard_input(limit: usize) -> Result<String, Failure> {
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        std::io::stdin()
            .lock()
            .take(limit as u64 + 1)
            .read_to_end(&mut bytes)
            .map(|_| bytes)
    });
    let bytes = match read.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => {
            return Err(Failure::new(
                "input_failed",
                format!("standard input cannot be read: {error}"),
            ));
        }
        Err(_) => return Err(Failure::new("input_failed", "standard input cannot be read")),
    };
    if bytes.len() > limit {
        // Cut inside a character or not: the caller only sees that it is too long.
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    String::from_utf8(bytes).map_err(|_| Failure::usage("input_not_text", "standard input is not UTF-8 text"))
}

/// A session by its id or by the end of it, as `session list` shows it.
pub async fn session_id(client: &Client, text: &str) -> Result<SessionId, Failure> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let is_ending = (4..26).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let unknown = || {
        Failure::new("session_unknown", format!("there is no session {text}"))
            .with_hint("greenroom session list shows the sessions of this server")
    };
    if !is_ending {
        return Err(unknown());
    }
    // Apart: many that were archived together must not hide those that are worked on.
    let mut sessions = Vec::new();
    for archived in [Archived::Exclude, Archived::Only] {
        let filter = SessionFilter {
            limit: Some(200),
            archived,
            ..SessionFilter::default()
        };
        sessions.extend(client.sessions(&filter).await?.sessions);
    }
    let mut matching = sessions
        .into_iter()
        .map(|session| session.id)
        .filter(|id| id.as_str().ends_with(text));
    match (matching.next(), matching.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => Err(Failure::usage(
            "session_ambiguous",
            format!("several sessions end in {text}"),
        )
        .with_hint("give more of the id")),
        (None, _) => Err(unknown()),
    }
}

/// Somebody who may use the server, by their id, address or name.
pub async fn person(client: &Client, text: &str) -> Result<Person, Failure> {
    let people = client.people().await?.people;
    let people: Vec<_> = people.into_iter().map(|account| account.person).collect();
    // What names one person goes before what several may be called.
    let exact = people
        .iter()
        .find(|person| person.id.as_str() == text || person.email.eq_ignore_ascii_case(text));
    if let Some(person) = exact {
        return Ok(person.clone());
    }
    let mut found: Vec<_> = people.into_iter().filter(|person| person.name == text).collect();
    match (found.pop(), found.is_empty()) {
        (Some(person), true) => Ok(person),
        (Some(_), false) => Err(Failure::usage(
            "person_ambiguous",
            format!("several people are called {text}"),
        )
        .with_hint("give an address or an id; greenroom person list shows them")),
        (None, _) => Err(
            Failure::new("person_unknown", format!("there is no person {text}"))
                .with_hint("greenroom person list shows who may use this server"),
        ),
    }
}

/// A moment as tables show it.
pub fn time(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map_or_else(
        |_| "-".to_owned(),
        |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
    )
}

/// `REPOSITORY#NUMBER`.
pub fn pull_request(text: &str) -> Result<(String, u64), Failure> {
    let parsed = text.rsplit_once('#').and_then(|(repository, number)| {
        let number = number.parse::<u64>().ok().filter(|number| *number > 0)?;
        (!repository.is_empty()).then(|| (repository.to_owned(), number))
    });
    parsed.ok_or_else(|| {
        Failure::usage(
            "pull_request_argument",
            format!("{text} is not of the form REPOSITORY#NUMBER"),
        )
        .with_hint("for example shop#1; greenroom pr list shows them")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_requests_are_named_by_repository_and_number() {
        for (text, expected) in [
            ("shop#1", Some(("shop", 1))),
            ("a#b#12", Some(("a#b", 12))),
            ("shop", None),
            ("#1", None),
            ("shop#0", None),
            ("shop#-1", None),
            ("shop#", None),
        ] {
            let expected = expected.map(|(repository, number)| (repository.to_owned(), number));
            assert_eq!(pull_request(text).ok(), expected, "{text:?}");
        }
    }
}
