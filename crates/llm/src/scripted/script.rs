//! The script file and its checks: everything that can be wrong with a script is said when it is parsed, not when it plays.

use regex_lite::Regex;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use thiserror::Error;

/// A parsed script file: scripts in order of preference. See docs/models.md for every field.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    #[serde(rename = "script")]
    pub(crate) scripts: Vec<Part>,
}

/// One named script, chosen by the prompt.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) prompt_contains: Option<String>,
    #[serde(default, deserialize_with = "regex")]
    pub(crate) prompt_matches: Option<Regex>,
    #[serde(rename = "step")]
    pub(crate) steps: Vec<Step>,
}

/// One answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// Assistant answers since the prompt, from 0; filled in while parsing where the file leaves it out.
    pub(crate) answer: Option<usize>,
    pub(crate) result_contains: Option<String>,
    #[serde(default, deserialize_with = "regex")]
    pub(crate) result_matches: Option<Regex>,
    pub(crate) result_is_error: Option<bool>,
    #[serde(default)]
    pub(crate) expect_result_contains: OneOrMany,
    pub(crate) think: Option<String>,
    pub(crate) say: Option<String>,
    #[serde(default, rename = "call")]
    pub(crate) calls: Vec<Call>,
    #[serde(default = "default_chunk_chars")]
    pub(crate) chunk_chars: usize,
    #[serde(default)]
    pub(crate) delay_ms: u64,
    pub(crate) fail: Option<Fault>,
    #[serde(default = "default_times")]
    pub(crate) times: u32,
    pub(crate) retry_after_ms: Option<u64>,
}

/// One tool call.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Call {
    pub(crate) tool: String,
    #[serde(default)]
    pub(crate) arguments: toml::Table,
    /// Sent as it is, in place of `arguments`: for broken JSON.
    pub(crate) arguments_text: Option<String>,
}

/// A text or a list of texts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(crate) fn as_slice(&self) -> &[String] {
        match self {
            Self::None => &[],
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

/// A failure to play in place of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An HTTP status from 400 to 599.
    Status(u16),
    /// The answer ends in the middle.
    Truncate,
    /// The answer stops in the middle and stays silent.
    Stall,
    /// An event in the middle is not JSON.
    Malformed,
    /// The provider reports an error in the middle.
    ErrorEvent,
}

impl<'de> Deserialize<'de> for Fault {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Status(u16),
            Word(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Status(status @ 400..=599) => Ok(Self::Status(status)),
            Written::Status(status) => Err(D::Error::custom(format!(
                "{status} is not a status from 400 to 599"
            ))),
            Written::Word(word) => match word.as_str() {
                "truncate" => Ok(Self::Truncate),
                "stall" => Ok(Self::Stall),
                "malformed" => Ok(Self::Malformed),
                "error_event" => Ok(Self::ErrorEvent),
                other => Err(D::Error::custom(format!(
                    "`{other}` is not a failure; there are a status, truncate, stall, malformed, error_event"
                ))),
            },
        }
    }
}

/// A script that cannot be played.
#[derive(Debug, Error)]
pub enum ScriptError {
    #[error("the script is not valid TOML, or has a field it should not have")]
    Toml(#[source] Box<toml::de::Error>),
    #[error("the script `{script}`, step {step}: {what}")]
    Step {
        script: String,
        /// From 1, in order of the file.
        step: usize,
        what: String,
    },
}

impl ScriptError {
    /// Byte of the text at which it is wrong, if that is one place.
    pub fn offset(&self) -> Option<usize> {
        match self {
            Self::Toml(error) => error.span().map(|span| span.start),
            Self::Step { .. } => None,
        }
    }

    /// What is wrong, in one line.
    pub fn detail(&self) -> String {
        match self {
            Self::Toml(error) => error.message().replace('\n', " "),
            Self::Step { .. } => self.to_string(),
        }
    }
}

impl Script {
    /// Parses and checks a script file.
    pub fn parse(toml: &str) -> Result<Self, ScriptError> {
        let mut script: Self = toml::from_str(toml).map_err(|error| ScriptError::Toml(Box::new(error)))?;
        for part in &mut script.scripts {
            part.number_steps();
            part.check()?;
        }
        Ok(script)
    }

    /// The built-in demo: fixes the bug of the sample repository.
    #[expect(clippy::expect_used, reason = "the embedded file is parsed by a test")]
    pub fn demo() -> Self {
        Self::parse(include_str!("demo.toml")).expect("the embedded script is valid")
    }

    /// The same script at full speed, for tests.
    pub fn without_delays(mut self) -> Self {
        for step in self.scripts.iter_mut().flat_map(|part| &mut part.steps) {
            step.delay_ms = 0;
        }
        self
    }
}

impl Part {
    fn number_steps(&mut self) {
        let mut next = 0;
        for step in &mut self.steps {
            let answer = *step.answer.get_or_insert(next);
            next = answer + 1;
        }
    }

    fn check(&self) -> Result<(), ScriptError> {
        for (index, step) in self.steps.iter().enumerate() {
            let fault = |what: String| ScriptError::Step {
                script: self.name.clone(),
                step: index + 1,
                what,
            };
            if step.think.is_none() && step.say.is_none() && step.calls.is_empty() && step.fail.is_none() {
                return Err(fault("has nothing to think, say, call or fail with".to_owned()));
            }
            if step.chunk_chars == 0 {
                return Err(fault("`chunk_chars` must be at least 1".to_owned()));
            }
            for text in step.templates() {
                for name in placeholders(&text) {
                    if !self.knows(name) {
                        return Err(fault(format!(
                            "`{{{{{name}}}}}` is neither `prompt`, `result` nor a group of `prompt_matches`"
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    fn knows(&self, name: &str) -> bool {
        let groups = self.prompt_matches.as_ref();
        let is_group = groups.is_some_and(|regex| {
            regex.capture_names().flatten().any(|group| group == name)
                || name
                    .parse::<usize>()
                    .is_ok_and(|number| number < regex.captures_len())
        });
        is_group || matches!(name, "prompt" | "result")
    }
}

impl Step {
    /// Every text in which placeholders are filled.
    fn templates(&self) -> Vec<String> {
        let mut texts: Vec<String> = self.think.iter().chain(&self.say).cloned().collect();
        texts.extend(self.expect_result_contains.as_slice().iter().cloned());
        for call in &self.calls {
            texts.extend(call.arguments_text.clone());
            collect_texts(&toml::Value::Table(call.arguments.clone()), &mut texts);
        }
        texts
    }
}

fn collect_texts(value: &toml::Value, texts: &mut Vec<String>) {
    match value {
        toml::Value::String(text) => texts.push(text.clone()),
        toml::Value::Array(list) => list.iter().for_each(|inner| collect_texts(inner, texts)),
        toml::Value::Table(table) => table.values().for_each(|inner| collect_texts(inner, texts)),
        toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_) => {}
    }
}

/// Names between `{{` and `}}`, in order.
pub(crate) fn placeholders(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else {
            break;
        };
        names.push(name.trim());
        rest = after;
    }
    names
}

fn regex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Regex>, D::Error> {
    let pattern = Option::<String>::deserialize(deserializer)?;
    pattern
        .map(|pattern| Regex::new(&pattern).map_err(D::Error::custom))
        .transpose()
}

fn default_chunk_chars() -> usize {
    24
}

fn default_times() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_refused(toml: &str, expected: &str) {
        let error = Script::parse(toml).expect_err(toml);
        let shown = greenroom_stdx::chain::Chain(&error).to_string();
        assert!(shown.contains(expected), "{shown}");
    }

    #[test]
    fn the_demo_is_valid() {
        assert!(!Script::demo().scripts.is_empty());
    }

    #[test]
    fn mistakes_are_said_at_once() {
        let with = |step: &str| format!("[[script]]\nname = \"x\"\n[[script.step]]\n{step}\n");
        check_refused("scripts = 1", "unknown field");
        check_refused(&with("sai = \"x\""), "unknown field");
        check_refused(&with(""), "has nothing to think");
        check_refused(&with("say = \"x\"\nchunk_chars = 0"), "chunk_chars");
        check_refused(&with("say = \"{{who}}\""), "`{{who}}` is neither");
        check_refused(
            &with("call = [{tool = \"t\", arguments = {a = [\"{{1}}\"]}}]"),
            "`{{1}}` is neither",
        );
        check_refused(&with("fail = 200"), "200 is not a status");
        check_refused(&with("fail = \"explode\""), "`explode` is not a failure");
        check_refused(&with("say = \"x\"\nresult_matches = \"(\""), "open group");
    }

    #[test]
    fn steps_number_themselves_and_alternatives_share_a_number() {
        let script = Script::parse(
            r#"
            [[script]]
            name = "x"
            [[script.step]]
            say = "a"
            [[script.step]]
            say = "b"
            [[script.step]]
            answer = 1
            say = "c"
            [[script.step]]
            say = "d"
            "#,
        );
        let answers: Vec<_> = script.unwrap().scripts[0]
            .steps
            .iter()
            .map(|step| step.answer)
            .collect();
        assert_eq!(answers, [Some(0), Some(1), Some(1), Some(2)]);
    }
}
