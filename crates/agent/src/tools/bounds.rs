//! Keeps text within limits: head and tail of long output, whole UTF-8 characters out of byte chunks. No I/O.

/// Largest text of one tool result, in bytes.
pub const MAX_RESULT_BYTES: usize = 64 * 1024;

/// Largest index at or below `index` that is a character boundary.
pub(crate) fn floor(text: &str, index: usize) -> usize {
    text.floor_char_boundary(index)
}

/// At most `max_bytes` of `text`: its start, with a note where it was cut.
pub fn bound_text(text: String, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text;
    }
    let note = format!("\n[cut here: {} bytes in all]", text.len());
    let kept = floor(&text, max_bytes.saturating_sub(note.len()));
    format!("{}{note}", &text[..kept])
}

/// Collects output without end and keeps its first and last part.
#[derive(Debug)]
pub(crate) struct HeadTail {
    head: String,
    tail: std::collections::VecDeque<u8>,
    half_bytes: usize,
    total_bytes: u64,
}

impl HeadTail {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self {
            head: String::new(),
            tail: std::collections::VecDeque::new(),
            half_bytes: max_bytes / 2,
            total_bytes: 0,
        }
    }

    pub(crate) fn push(&mut self, text: &str) {
        self.total_bytes += text.len() as u64;
        let mut rest = text;
        if self.tail.is_empty() {
            let room = floor(text, self.half_bytes - self.head.len());
            self.head.push_str(&text[..room]);
            rest = &text[room..];
        }
        self.tail.extend(rest.as_bytes());
        let excess = self.tail.len().saturating_sub(self.half_bytes);
        self.tail.drain(..excess);
    }

    /// The output, with a note in the middle if something is missing there.
    pub(crate) fn finish(self) -> String {
        let tail: Vec<u8> = self.tail.into();
        // The front may have been cut inside a character.
        let start = tail
            .iter()
            .position(|byte| (byte & 0xC0) != 0x80)
            .unwrap_or(tail.len());
        let tail = String::from_utf8_lossy(&tail[start..]);
        let missing = self.total_bytes - self.head.len() as u64 - tail.len() as u64;
        if missing == 0 {
            return self.head + &tail;
        }
        format!(
            "{}\n[… {missing} bytes cut here; send the output to a file and read parts of it …]\n{tail}",
            self.head
        )
    }
}

/// Turns byte chunks into text: a character split between two chunks comes whole with the second; bytes that are no
/// UTF-8 become U+FFFD.
#[derive(Debug, Default)]
pub(crate) struct Utf8Chunks {
    rest: Vec<u8>,
}

impl Utf8Chunks {
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    self.rest.clear();
                    return text;
                }
                Err(error) => {
                    let valid = error.valid_up_to();
                    text.push_str(&String::from_utf8_lossy(&self.rest[..valid]));
                    match error.error_len() {
                        Some(bad) => {
                            text.push('\u{FFFD}');
                            self.rest.drain(..valid + bad);
                        }
                        None => {
                            self.rest.drain(..valid);
                            return text;
                        }
                    }
                }
            }
        }
    }

    /// What is left of an unfinished character.
    pub(crate) fn finish(self) -> &'static str {
        if self.rest.is_empty() { "" } else { "\u{FFFD}" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_survive_every_split() {
        let text = "aé€😀z";
        for size in 1..=text.len() {
            let mut chunks = Utf8Chunks::default();
            let mut seen = String::new();
            for chunk in text.as_bytes().chunks(size) {
                seen.push_str(&chunks.push(chunk));
            }
            seen.push_str(chunks.finish());
            assert_eq!(seen, text, "chunks of {size}");
        }
    }

    #[test]
    fn bad_bytes_become_replacement_characters() {
        for (chunks, expected) in [
            (vec![&b"a\xffb"[..]], "a\u{FFFD}b"),
            (vec![&b"\xe2\x82"[..], &b"x"[..]], "\u{FFFD}x"),
            (vec![&b"ok\xf0\x9f"[..]], "ok\u{FFFD}"),
        ] {
            let mut decoder = Utf8Chunks::default();
            let mut seen: String = chunks.iter().map(|chunk| decoder.push(chunk)).collect();
            seen.push_str(decoder.finish());
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn long_output_keeps_head_and_tail() {
        for chunk in [1, 3, 7, 1000] {
            let text: String = (0..2000).map(|number| format!("é{number}\n")).collect();
            let mut bounded = HeadTail::new(1000);
            let characters: Vec<char> = text.chars().collect();
            for part in characters.chunks(chunk) {
                bounded.push(&part.iter().collect::<String>());
            }
            let shown = bounded.finish();
            assert!(
                shown.starts_with("é0\né1\n") && shown.ends_with("é1999\n"),
                "{shown}"
            );
            assert!(
                shown.contains("bytes cut here") && shown.len() < 1100,
                "{}",
                shown.len()
            );
        }
        let mut small = HeadTail::new(10);
        small.push("abcde");
        small.push("fghij");
        assert_eq!(small.finish(), "abcdefghij");
    }

    #[test]
    fn bounded_text_says_so() {
        assert_eq!(bound_text("short".into(), 5), "short");
        let cut = bound_text("é".repeat(100), 60);
        assert!(
            cut.len() <= 60 && cut.ends_with("[cut here: 200 bytes in all]"),
            "{cut}"
        );
    }
}
