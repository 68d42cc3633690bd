//! Decodes a `text/event-stream` body (<https://html.spec.whatwg.org/multipage/server-sent-events.html>), however it was
//! cut into chunks. Knows nothing of what the events mean and does no I/O.

use thiserror::Error;

/// Bound of one line and of one event's data, in bytes. A whole response with a large answer is one event of the
/// Responses format; this is far above any and far below what hurts.
pub const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;

/// One dispatched event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The `event` field; empty if the stream gave none.
    pub name: String,
    /// The `data` lines, joined by `\n`. Never empty.
    pub data: String,
}

/// The stream broke the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a line or event of the stream is longer than {max_bytes} bytes")]
pub struct EventTooLarge {
    pub max_bytes: usize,
}

/// A decoder in the middle of a stream. An event without its closing blank line is never dispatched, so a cut stream
/// cannot pass for a whole one.
#[derive(Debug)]
pub struct Decoder {
    max_bytes: usize,
    line: Vec<u8>,
    name: String,
    data: String,
    has_data: bool,
    is_first_line: bool,
    /// The last byte was a CR that ended a line; an LF right after it belongs to it.
    is_after_cr: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::with_max_bytes(MAX_EVENT_BYTES)
    }
}

impl Decoder {
    /// A decoder with its own bound on one line and on one event's data.
    pub fn with_max_bytes(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            line: Vec::new(),
            name: String::new(),
            data: String::new(),
            has_data: false,
            is_first_line: true,
            is_after_cr: false,
        }
    }

    /// Takes the next chunk, of any size, and returns the events it completes, in order.
    pub fn push(&mut self, mut chunk: &[u8]) -> Result<Vec<Event>, EventTooLarge> {
        let mut events = Vec::new();
        if self.is_after_cr && !chunk.is_empty() {
            self.is_after_cr = false;
            if chunk[0] == b'\n' {
                chunk = &chunk[1..];
            }
        }
        while let Some(end) = chunk.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.extend_line(&chunk[..end])?;
            let is_cr = chunk[end] == b'\r';
            chunk = &chunk[end + 1..];
            if is_cr {
                match chunk.first() {
                    Some(b'\n') => chunk = &chunk[1..],
                    Some(_) => {}
                    None => self.is_after_cr = true,
                }
            }
            self.end_line(&mut events)?;
        }
        self.extend_line(chunk)?;
        Ok(events)
    }

    fn extend_line(&mut self, bytes: &[u8]) -> Result<(), EventTooLarge> {
        if self.line.len() + bytes.len() > self.max_bytes {
            return Err(self.too_large());
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, events: &mut Vec<Event>) -> Result<(), EventTooLarge> {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        let mut line: &str = &text;
        if std::mem::take(&mut self.is_first_line) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            self.dispatch(events);
        } else {
            self.field(line)?;
        }
        Ok(())
    }

    fn dispatch(&mut self, events: &mut Vec<Event>) {
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        if std::mem::take(&mut self.has_data) && !data.is_empty() {
            events.push(Event { name, data });
        }
    }

    fn field(&mut self, line: &str) -> Result<(), EventTooLarge> {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if self.data.len() + value.len() + 1 > self.max_bytes {
                    return Err(self.too_large());
                }
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // Comments have an empty field name; `id` and `retry` serve reconnection, which no provider offers.
            _ => {}
        }
        Ok(())
    }

    fn too_large(&self) -> EventTooLarge {
        EventTooLarge {
            max_bytes: self.max_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str) -> Event {
        Event {
            name: name.to_owned(),
            data: data.to_owned(),
        }
    }

    fn check(input: &str, expected: &[Event]) {
        let bytes = input.as_bytes();
        for split in 0..=bytes.len() {
            let mut decoder = Decoder::default();
            let mut events = decoder.push(&bytes[..split]).unwrap();
            events.extend(decoder.push(&bytes[split..]).unwrap());
            assert_eq!(events, expected, "{input:?} split at {split}");
        }
        let mut decoder = Decoder::default();
        let events: Vec<_> = bytes
            .iter()
            .flat_map(|byte| decoder.push(&[*byte]).unwrap())
            .collect();
        assert_eq!(events, expected, "{input:?} byte by byte");
    }

    #[test]
    fn events_survive_any_split() {
        check("", &[]);
        check("data: a\n\n", &[event("", "a")]);
        check(
            "data: a\r\n\r\ndata: b\r\n\r\n",
            &[event("", "a"), event("", "b")],
        );
        check("data: a\r\rdata: b\r\r", &[event("", "a"), event("", "b")]);
        check("event: x\ndata:a\ndata:  b\n\n", &[event("x", "a\n b")]);
        check(
            ": ping\n\nevent: lonely\n\ndata: a\nid: 7\nretry: 10\nunknown\n\n",
            &[event("", "a")],
        );
        check("\u{feff}data: ü€😀\n\n", &[event("", "ü€😀")]);
        check("data\n\ndata:\n\n", &[]);
        check("data: whole\n\ndata: cut\n", &[event("", "whole")]);
        check("data: {\"a\": \"b: c\"}\n\n", &[event("", "{\"a\": \"b: c\"}")]);
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        let mut decoder = Decoder::default();
        assert_eq!(
            decoder.push(b"data: a\xffb\n\n").unwrap(),
            [event("", "a\u{fffd}b")]
        );
    }

    #[test]
    fn long_lines_and_events_are_refused() {
        let mut decoder = Decoder::with_max_bytes(16);
        assert_eq!(decoder.push(&[b'x'; 17]), Err(EventTooLarge { max_bytes: 16 }));
        let mut decoder = Decoder::with_max_bytes(16);
        assert!(decoder.push(b"data: 1234567\n").unwrap().is_empty());
        assert!(decoder.push(b"data: 1234567\n").unwrap().is_empty());
        assert!(decoder.push(b"data: 1234567\n").is_err());
    }
}
