//! Reads values by the table of options, from a file with positions and from the environment, and collects every error.

use super::options::{Form, OPTIONS, OptionSpec, PROVIDER_OPTIONS, PROVIDERS};
use super::suggest::nearest;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The process's variables, or a test's.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// What this process was started with; variables that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        let pairs = std::env::vars_os();
        Self(
            pairs
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        )
    }

    #[cfg(test)]
    pub(super) fn of(pairs: &[(&str, &str)]) -> Self {
        Self(
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    /// A variable's value; an empty one counts as unset.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    File { path: PathBuf, line: usize },
    Variable(&'static str),
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// `FILE:LINE`, a variable's name, or the file's path.
    pub place: String,
    /// `section.option`, or empty if it concerns the whole file.
    pub option: String,
    pub message: String,
    pub hint: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.option.is_empty() {
            write!(f, "{}: ", self.option)?;
        }
        f.write_str(&self.message)
    }
}

/// A value of the right form.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Integer(u64),
    Number(f64),
    List(Vec<String>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::List(items) => f.write_str(&items.join(", ")),
        }
    }
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub value: Value,
    pub place: Place,
}

/// Values by `section.option` or, for a provider, by option.
pub(super) type Values = BTreeMap<String, Found>;

/// What a file and the environment hold.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub values: Values,
    /// In the order of the file, each with the place it starts at.
    pub providers: Vec<(Place, Values)>,
    pub errors: Vec<ConfigError>,
}

/// Reads a file's text into `settings`.
pub(super) fn read_file(path: &Path, text: &str, settings: &mut Settings) {
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let line = error.span().map_or(1, |span| line_at(text, span.start));
            settings.errors.push(ConfigError {
                place: format!("{}:{line}", path.display()),
                option: String::new(),
                message: format!("not valid TOML: {}", error.message().replace('\n', ", ")),
                hint: None,
            });
            return;
        }
    };
    let reader = FileReader { path, text };
    for (key, value) in in_file_order(document.get_ref()) {
        reader.section(key, value, settings);
    }
}

/// Reads the variables of all options into `settings`, over what the file said.
pub(super) fn read_environment(environment: &Environment, settings: &mut Settings) {
    for spec in OPTIONS {
        let Some(text) = environment.get(spec.variable) else {
            continue;
        };
        let place = Place::Variable(spec.variable);
        match parse_text(spec.form, text) {
            Ok(value) => {
                settings.values.insert(spec.path(), Found { value, place });
            }
            Err(message) => settings.errors.push(ConfigError {
                place: place.to_string(),
                option: spec.path(),
                message,
                hint: None,
            }),
        }
    }
}

struct FileReader<'a> {
    path: &'a Path,
    text: &'a str,
}

type Key<'i> = Spanned<std::borrow::Cow<'i, str>>;

impl FileReader<'_> {
    fn place(&self, offset: usize) -> Place {
        Place::File {
            path: self.path.to_owned(),
            line: line_at(self.text, offset),
        }
    }

    fn section(&self, key: &Key<'_>, value: &Spanned<DeValue<'_>>, settings: &mut Settings) {
        let section = key.get_ref().as_ref();
        if section == PROVIDERS {
            self.providers(key, value, settings);
            return;
        }
        let is_known = OPTIONS.iter().any(|spec| spec.section == section);
        let DeValue::Table(table) = value.get_ref() else {
            let message = if is_known {
                "must be a section"
            } else {
                "unknown option"
            };
            settings
                .errors
                .push(self.error(key.span().start, section, message, None));
            return;
        };
        if !is_known {
            let hint = nearest(
                section,
                OPTIONS.iter().map(|spec| spec.section).chain([PROVIDERS]),
            );
            settings
                .errors
                .push(self.error(key.span().start, section, "unknown section", hint));
            return;
        }
        for (name, value) in in_file_order(table) {
            let specs = OPTIONS.iter().filter(|spec| spec.section == section);
            self.option(
                section,
                specs,
                name,
                value,
                |spec| spec.path(),
                &mut settings.values,
                &mut settings.errors,
            );
        }
    }

    fn providers(&self, key: &Key<'_>, value: &Spanned<DeValue<'_>>, settings: &mut Settings) {
        let DeValue::Array(entries) = value.get_ref() else {
            let message = "must be a list; write [[providers]]";
            settings
                .errors
                .push(self.error(key.span().start, PROVIDERS, message, None));
            return;
        };
        for entry in entries.iter() {
            let DeValue::Table(table) = entry.get_ref() else {
                let message = "must be a list of sections; write [[providers]]";
                settings
                    .errors
                    .push(self.error(entry.span().start, PROVIDERS, message, None));
                continue;
            };
            let mut values = Values::new();
            for (name, value) in in_file_order(table) {
                let specs = PROVIDER_OPTIONS.iter();
                let path = |spec: &OptionSpec| spec.name.to_owned();
                self.option(
                    PROVIDERS,
                    specs,
                    name,
                    value,
                    path,
                    &mut values,
                    &mut settings.errors,
                );
            }
            settings.providers.push((self.place(entry.span().start), values));
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one call from each of the two tables")]
    fn option<'s>(
        &self,
        section: &str,
        specs: impl Iterator<Item = &'s OptionSpec> + Clone,
        name: &Key<'_>,
        value: &Spanned<DeValue<'_>>,
        path: impl Fn(&OptionSpec) -> String,
        values: &mut Values,
        errors: &mut Vec<ConfigError>,
    ) {
        let shown = format!("{section}.{}", name.get_ref());
        let Some(spec) = specs.clone().find(|spec| spec.name == name.get_ref()) else {
            let hint = nearest(name.get_ref(), specs.map(|spec| spec.name));
            errors.push(self.error(name.span().start, &shown, "unknown option", hint));
            return;
        };
        match parse_toml(spec.form, value.get_ref()) {
            Ok(value) => {
                let place = self.place(name.span().start);
                values.insert(path(spec), Found { value, place });
            }
            Err(message) => errors.push(self.error(value.span().start, &shown, &message, None)),
        }
    }

    fn error(&self, offset: usize, option: &str, message: &str, nearest: Option<&str>) -> ConfigError {
        ConfigError {
            place: self.place(offset).to_string(),
            option: option.to_owned(),
            message: message.to_owned(),
            hint: nearest.map(|word| format!("did you mean `{word}`?")),
        }
    }
}

/// Tables are sorted by name; errors read better in the order of the file.
fn in_file_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t Key<'i>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// Counts from 1.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    let end = offset.min(text.len());
    text.as_bytes()[..end]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

fn parse_toml(form: Form, value: &DeValue<'_>) -> Result<Value, String> {
    match (form, value) {
        (Form::UrlList | Form::TextList, DeValue::Array(entries)) => {
            let texts: Option<Vec<_>> = entries.iter().map(|entry| entry.get_ref().as_str()).collect();
            let texts = texts.ok_or_else(|| format!("must be {}", describe(form)))?;
            parse_list(form, texts.into_iter())
        }
        (Form::Integer { .. }, DeValue::Integer(number)) if number.radix() == 10 => {
            parse_text(form, number.as_str())
        }
        (Form::Number { .. }, DeValue::Integer(number)) if number.radix() == 10 => {
            parse_text(form, number.as_str())
        }
        (Form::Number { .. }, DeValue::Float(number)) => parse_text(form, number.as_str()),
        (
            Form::Text | Form::Address | Form::Path | Form::Url | Form::Choice(_) | Form::Model,
            DeValue::String(text),
        ) => parse_text(form, text),
        _ => Err(format!("must be {}", describe(form))),
    }
}

/// Parses a value as it stands in a variable.
pub(super) fn parse_text(form: Form, text: &str) -> Result<Value, String> {
    let refuse = || format!("must be {}", describe(form));
    match form {
        Form::Text | Form::Path if text.trim().is_empty() => Err(refuse()),
        Form::Text | Form::Path => Ok(Value::Text(text.to_owned())),
        Form::Model => match text.split('/').next() {
            Some(first) if !first.is_empty() && !text.ends_with('/') => Ok(Value::Text(text.to_owned())),
            _ => Err(refuse()),
        },
        Form::Address => {
            text.parse::<SocketAddr>().map_err(|_| refuse())?;
            Ok(Value::Text(text.to_owned()))
        }
        Form::Url => {
            let url = url::Url::parse(text).map_err(|_| refuse())?;
            let has_credentials = !url.username().is_empty() || url.password().is_some();
            if !matches!(url.scheme(), "http" | "https") || url.host().is_none() || has_credentials {
                return Err(refuse());
            }
            Ok(Value::Text(text.trim_end_matches('/').to_owned()))
        }
        Form::UrlList | Form::TextList => parse_list(form, text.split(',').map(str::trim)),
        Form::Integer { min, max } => match text.replace('_', "").parse::<u64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(Value::Integer(number)),
            _ => Err(refuse()),
        },
        Form::Number { min, max } => match text.replace('_', "").parse::<f64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(Value::Number(number)),
            _ => Err(refuse()),
        },
        Form::Choice(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
        Form::Choice(words) => match nearest(text, words.iter().copied()) {
            Some(word) => Err(format!("{}; did you mean {word}?", refuse())),
            None => Err(refuse()),
        },
    }
}

fn parse_list<'t>(form: Form, texts: impl Iterator<Item = &'t str>) -> Result<Value, String> {
    let entry_form = if form == Form::UrlList {
        Form::Url
    } else {
        Form::Text
    };
    let entries = texts.map(|text| match parse_text(entry_form, text) {
        Ok(value) => Ok(value.to_string()),
        Err(_) => Err(format!("must be {}", describe(form))),
    });
    Ok(Value::List(entries.collect::<Result<_, _>>()?))
}

/// What a value of this form is, for a sentence that begins with "must be".
pub(super) fn describe(form: Form) -> String {
    match form {
        Form::Text => "a text that is not empty".to_owned(),
        Form::Address => "an address and port such as 127.0.0.1:7878".to_owned(),
        Form::Path => "a path".to_owned(),
        Form::Url => "an http:// or https:// address without user name and password".to_owned(),
        Form::UrlList => "a list of http:// or https:// addresses".to_owned(),
        Form::TextList => "a list of texts".to_owned(),
        Form::Integer { min, max } => format!("a whole number from {min} to {max}"),
        Form::Number { min, max } => format!("a number from {min} to {max}"),
        Form::Choice(words) => format!("one of {}", words.join(", ")),
        Form::Model => "a model such as anthropic/NAME".to_owned(),
    }
}
