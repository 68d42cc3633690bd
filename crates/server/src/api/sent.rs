//! Checks a prompt before it becomes a command: text, images, model.

use super::app::App;
use crate::session::command::Sent;
use crate::session::digest_of;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use greenroom_agent::picture::{image_type, is_whole_image};
use greenroom_protocol::client::MAX_PROMPT_BYTES;
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::prompt::{
    ImageAttachment, MAX_IMAGE_BYTES, MAX_IMAGES, MAX_IMAGES_BYTES, SendPrompt,
};
use greenroom_store::session_log::Blob;

const IMAGE_TYPES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// The prompt as a command, if nothing is wrong with it.
pub fn checked(app: &App, prompt: SendPrompt, author: Person, key: String) -> Result<Sent, Problem> {
    check_text(&prompt.text)?;
    let images = images_of(&prompt.images)?;
    if let Some(model) = &prompt.model {
        app.models.resolve(Some(model))?;
    }
    let content = serde_json::to_vec(&prompt)
        .map_err(|_| Problem::permanent("internal", "The prompt cannot be written as JSON."))?;
    let digest = digest_of(&[b"send_prompt", &content]);
    Ok(Sent {
        author,
        text: prompt.text,
        images,
        model: prompt.model,
        delivery: prompt.delivery,
        key,
        digest,
    })
}

/// A prompt says something, and not too much.
pub fn check_text(text: &str) -> Result<(), Problem> {
    if text.trim().is_empty() {
        return Err(
            Problem::permanent("prompt_empty", "The prompt is empty.").with_hint("Say what should be done.")
        );
    }
    if text.contains('\0') {
        return Err(
            Problem::permanent("prompt_invalid", "The prompt holds a NUL character.")
                .with_hint("Send text; attach images as images."),
        );
    }
    if text.len() > MAX_PROMPT_BYTES {
        let message = format!(
            "The prompt has {} bytes; at most {MAX_PROMPT_BYTES} are taken.",
            text.len()
        );
        return Err(Problem::permanent("prompt_too_large", message)
            .with_hint("Put long material into a file of the repository and name it in the prompt."));
    }
    Ok(())
}

/// Images are of a kind models take, whole, and not too large: one that a model's provider refuses would be refused with each later
/// request of the session.
pub fn images_of(images: &[ImageAttachment]) -> Result<Vec<Blob>, Problem> {
    if images.len() > MAX_IMAGES {
        let message = format!("A prompt takes at most {MAX_IMAGES} images.");
        return Err(
            Problem::permanent("image_too_many", message).with_hint("Send the others with the next prompt.")
        );
    }
    let mut blobs = Vec::with_capacity(images.len());
    let mut left = MAX_IMAGES_BYTES;
    for (number, image) in (1..).zip(images) {
        let named = |what: &str| format!("Image {number} of {} {what}", images.len());
        if !IMAGE_TYPES.contains(&image.media_type.as_str()) {
            let message = named("is of a kind that is not supported.");
            return Err(Problem::permanent("image_type_unsupported", message)
                .with_hint(format!("Send one of: {}.", IMAGE_TYPES.join(", "))));
        }
        let bytes = STANDARD.decode(&image.data_base64).map_err(|_| {
            Problem::permanent("image_invalid", named("is not valid base64."))
                .with_hint("Use standard base64 with padding and no line breaks.")
        })?;
        let size_bytes = bytes.len() as u64;
        if size_bytes > MAX_IMAGE_BYTES {
            return Err(
                Problem::permanent("image_too_large", named("is larger than 5 MiB."))
                    .with_hint("Make it smaller, or cut out a part."),
            );
        }
        if size_bytes > left {
            let message = "The images of a prompt may have 20 MiB together.";
            return Err(Problem::permanent("image_too_large", message)
                .with_hint("Make them smaller, or send some with the next prompt."));
        }
        left -= size_bytes;
        if image_type(&bytes) != Some(image.media_type.as_str()) || !is_whole_image(&bytes) {
            let message = named(&format!("is no whole {}.", image.media_type));
            return Err(Problem::permanent("image_invalid", message)
                .with_hint("Send the whole file, and the type that it has."));
        }
        blobs.push(Blob {
            media_type: image.media_type.clone(),
            bytes,
        });
    }
    Ok(blobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_bounded() {
        for (text, expected) in [
            ("", Some("prompt_empty")),
            (" \n\t", Some("prompt_empty")),
            ("x", None),
            ("a\0b", Some("prompt_invalid")),
            (&"x".repeat(MAX_PROMPT_BYTES), None),
            (&"x".repeat(1024 * 1024), Some("prompt_too_large")),
        ] {
            assert_eq!(
                check_text(text).err().map(|problem| problem.code).as_deref(),
                expected
            );
        }
    }

    #[test]
    fn images_are_checked() {
        let image = |media_type: &str, data: &str| ImageAttachment {
            media_type: media_type.to_owned(),
            data_base64: data.to_owned(),
        };
        let large = STANDARD.encode(vec![0; 5 * 1024 * 1024 + 1]);
        for (image, expected) in [
            (image("image/gif", "R0lGODlhAAAAAAAAADs="), None),
            (image("image/png", "iVBORw0KGgo="), Some("image_invalid")),
            (image("image/jpeg", "iVBORw0KGgo="), Some("image_invalid")),
            (image("image/png", "AAAA"), Some("image_invalid")),
            (image("image/png", ""), Some("image_invalid")),
            (image("image/svg+xml", "AAAA"), Some("image_type_unsupported")),
            (image("image/png", "not base64!"), Some("image_invalid")),
            (image("image/png", &large), Some("image_too_large")),
        ] {
            assert_eq!(
                images_of(&[image]).err().map(|problem| problem.code).as_deref(),
                expected
            );
        }
    }
}
