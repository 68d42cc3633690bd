//! The only way to stdout and stderr: colours where they are wanted, no control characters from others, no panic when the
//! reader goes away. It decides nothing about content.

use crate::failure::Failure;
use std::io::{IsTerminal, Write};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How a piece of text looks where colours are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Plain,
    Bold,
    Dim,
    Green,
    Red,
    Yellow,
    Cyan,
}

/// Text of one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub style: Style,
    pub text: String,
}

impl Span {
    pub fn new(style: Style, text: impl Into<String>) -> Self {
        Self {
            style,
            text: text.into(),
        }
    }

    pub fn plain(text: impl Into<String>) -> Self {
        Self::new(Style::Plain, text)
    }
}

/// Both outputs of this process.
#[derive(Debug, Clone, Copy)]
pub struct Terminal {
    is_stdout_coloured: bool,
    is_stderr_coloured: bool,
    is_stderr_terminal: bool,
}

impl Terminal {
    /// As the environment asks for (<https://no-color.org>, <https://bixense.com/clicolors>).
    pub fn of_process() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_forced =
            std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0");
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let decide = |is_terminal: bool| !no_color && (is_forced || (is_terminal && !is_dumb));
        Self {
            is_stdout_coloured: decide(std::io::stdout().is_terminal()),
            is_stderr_coloured: decide(std::io::stderr().is_terminal()),
            is_stderr_terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Whether stdout shows colours, and so a person looks at it.
    pub fn is_coloured(&self) -> bool {
        self.is_stdout_coloured
    }

    /// Whether stderr shows colours.
    pub fn is_stderr_coloured(&self) -> bool {
        self.is_stderr_coloured
    }

    /// Writes to stdout at once.
    pub fn write(&self, spans: &[Span]) -> Result<(), Failure> {
        let text = render(spans, self.is_stdout_coloured);
        write_stdout(text.as_bytes())
    }

    /// Writes a line of spans to stdout.
    pub fn line(&self, spans: &[Span]) -> Result<(), Failure> {
        let mut text = render(spans, self.is_stdout_coloured);
        text.push('\n');
        write_stdout(text.as_bytes())
    }

    /// Writes text of our own making, such as JSON or a diff for another program, as it is.
    pub fn raw(&self, text: &str) -> Result<(), Failure> {
        write_stdout(text.as_bytes())
    }

    /// Writes one JSON document as one line.
    pub fn json(&self, value: &impl serde::Serialize) -> Result<(), Failure> {
        let mut text = serde_json::to_string(value)
            .map_err(|error| Failure::new("internal", format!("the answer is no JSON: {error}")))?;
        text.push('\n');
        self.raw(&text)
    }

    /// Writes a remark for a person to stderr. Nobody can be told if that fails.
    pub fn note(&self, spans: &[Span]) {
        let mut text = render(spans, self.is_stderr_coloured);
        text.push('\n');
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    /// Writes a failure to stderr: `error[code]: sentence`, then its hint.
    pub fn failure(&self, failure: &Failure) {
        let label = format!("error[{}]", failure.code);
        self.note(&[
            Span::new(Style::Red, label),
            Span::plain(format!(": {}", failure.message)),
        ]);
        if let Some(hint) = &failure.hint {
            self.note(&[Span::new(Style::Cyan, "hint"), Span::plain(format!(": {hint}"))]);
        }
    }

    /// Shows on stderr that something is going on, once it has taken a second; ends when the result is dropped.
    pub fn progress(&self, what: impl Into<String>) -> Progress {
        let what = printable(&what.into());
        let is_terminal = self.is_stderr_terminal;
        let task = tokio::spawn(async move {
            let mut seconds = 1_u64;
            tokio::time::sleep(Duration::from_secs(1)).await;
            if !is_terminal {
                let _ = std::io::stderr()
                    .lock()
                    .write_all(format!("{what} …\n").as_bytes());
                return;
            }
            loop {
                let _ = std::io::stderr()
                    .lock()
                    .write_all(format!("\r\x1b[2K{what} … {seconds} s").as_bytes());
                tokio::time::sleep(Duration::from_secs(1)).await;
                seconds += 1;
            }
        });
        Progress { task, is_terminal }
    }
}

/// A progress line; dropping it takes the line away.
#[derive(Debug)]
pub struct Progress {
    task: JoinHandle<()>,
    is_terminal: bool,
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        if self.is_terminal {
            let _ = std::io::stderr().lock().write_all(b"\r\x1b[2K");
        }
    }
}

fn write_stdout(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::output(&error))
}

fn render(spans: &[Span], is_coloured: bool) -> String {
    let mut out = String::new();
    for span in spans {
        let text = printable(&span.text);
        // SGR parameters of ECMA-48 section 8.3.117.
        let code = match span.style {
            Style::Plain => None,
            Style::Bold => Some("1"),
            Style::Dim => Some("2"),
            Style::Red => Some("31"),
            Style::Green => Some("32"),
            Style::Yellow => Some("33"),
            Style::Cyan => Some("36"),
        };
        match code {
            Some(code) if is_coloured && !text.is_empty() => {
                out.push_str(&format!("\x1b[{code}m{text}\x1b[0m"));
            }
            _ => out.push_str(&text),
        }
    }
    out
}

/// Text without anything that moves the cursor, changes the terminal's state or reorders what is read: what models, tools
/// and repositories write is input, not output of ours. Line ends and tabs stay.
pub fn printable(text: &str) -> String {
    text.chars()
        .filter(|character| match character {
            '\n' | '\t' => true,
            // Bidirectional overrides and isolates (UAX #9) can make code read differently from what it is.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
            other => !other.is_control(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_appear_only_where_they_are_wanted() {
        let spans = [
            Span::new(Style::Red, "no"),
            Span::plain(" way"),
            Span::new(Style::Dim, ""),
        ];
        assert_eq!(render(&spans, true), "\x1b[31mno\x1b[0m way");
        assert_eq!(render(&spans, false), "no way");
    }

    #[test]
    fn what_others_wrote_cannot_drive_the_terminal() {
        for (text, expected) in [
            ("plain\n\tünï", "plain\n\tünï"),
            ("\x1b[2J\x1b]0;title\x07x", "[2J]0;titlex"),
            ("a\rb\u{9b}31m", "ab31m"),
            ("if \u{202e}} x", "if } x"),
        ] {
            assert_eq!(printable(text), expected, "{text:?}");
        }
    }
}
