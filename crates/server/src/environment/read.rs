//! Reads an environment from TOML and finds the line of everything that is wrong with it.

use super::MAX_ENVIRONMENT_BYTES;
use super::check::{CheckedEnvironment, EnvironmentError, Fault, Path, Step};
use greenroom_protocol::environment::Environment;
use toml::de::{DeTable, DeValue};

/// Reads and checks the text of an environment file; `place` is how people call it.
///
/// # Errors
/// Everything that is wrong, with its line; of wrong TOML or unknown fields the first.
pub fn read_toml(place: &str, text: &[u8]) -> Result<CheckedEnvironment, EnvironmentError> {
    let refuse = |fault: Fault| EnvironmentError {
        place: place.to_owned(),
        faults: vec![fault],
    };
    let whole = |line: Option<usize>, message: String, hint: &str| Fault {
        path: Path(Vec::new()),
        line,
        message,
        hint: Some(hint.to_owned()),
    };
    if text.len() as u64 > MAX_ENVIRONMENT_BYTES {
        return Err(refuse(whole(
            None,
            format!("is larger than {} KiB", MAX_ENVIRONMENT_BYTES / 1024),
            "Put long commands into scripts of the repository.",
        )));
    }
    let text = std::str::from_utf8(text).map_err(|error| {
        let line = line_at(text, error.valid_up_to());
        refuse(whole(
            Some(line),
            "is not UTF-8".to_owned(),
            "Save it as UTF-8 text.",
        ))
    })?;
    let written: Environment = toml::from_str(text).map_err(|error| {
        let offset = error.span().map(|span| span.start);
        let line = offset.map(|offset| line_at(text.as_bytes(), offset));
        let message = in_plain_words(error.message());
        let mut fault = whole(line, message, "See docs/environments.md for every field.");
        if let (Some(offset), Ok(document)) = (offset, DeTable::parse(text)) {
            fault.path.0 = path_at(document.get_ref(), offset).unwrap_or_default();
        }
        refuse(fault)
    })?;
    CheckedEnvironment::new(written).map_err(|mut faults| {
        // It was read a moment ago, so this does not fail; without lines the fields are still named.
        if let Ok(document) = DeTable::parse(text) {
            for fault in &mut faults {
                fault.line = offset_of(document.get_ref(), &fault.path.0)
                    .map(|offset| line_at(text.as_bytes(), offset));
            }
            faults.sort_by_key(|fault| fault.line);
        }
        EnvironmentError {
            place: place.to_owned(),
            faults,
        }
    })
}

/// What the parser says, without the names of Rust's types.
fn in_plain_words(message: &str) -> String {
    let mut message = message.trim().replace('\n', ", ").replace(" as i128", "");
    for (kind, words) in [
        ("u16", "a whole number up to 65535"),
        ("u32", "a whole number up to 4294967295"),
        ("u64", "a whole number"),
        ("f64", "a number"),
    ] {
        message = message.replace(&format!("expected {kind}"), &format!("expected {words}"));
    }
    message
}

/// Where a field stands, or the nearest thing around it that is written.
fn offset_of(table: &DeTable<'_>, path: &[Step]) -> Option<usize> {
    let [Step::Field(name), rest @ ..] = path else {
        return None;
    };
    let (key, value) = table.iter().find(|(key, _)| key.get_ref() == name)?;
    let own = Some(key.span().start);
    in_value(value.get_ref(), rest).or(own)
}

fn in_value(value: &DeValue<'_>, path: &[Step]) -> Option<usize> {
    match (value, path) {
        (DeValue::Table(table), [Step::Field(_), ..]) => offset_of(table, path),
        (DeValue::Array(entries), [Step::Index(index), rest @ ..]) => {
            let entry = entries.get(*index)?;
            in_value(entry.get_ref(), rest).or(Some(entry.span().start))
        }
        _ => None,
    }
}

/// The field whose value stands at an offset. The span of a table is that of its head, so tables are looked into wherever they begin.
fn path_at(table: &DeTable<'_>, offset: usize) -> Option<Vec<Step>> {
    table.iter().find_map(|(key, value)| {
        let rest =
            steps_at(value.get_ref(), offset).or_else(|| value.span().contains(&offset).then(Vec::new))?;
        Some([vec![Step::Field(key.get_ref().to_string())], rest].concat())
    })
}

fn steps_at(value: &DeValue<'_>, offset: usize) -> Option<Vec<Step>> {
    match value {
        DeValue::Table(table) => path_at(table, offset),
        DeValue::Array(entries) => entries.iter().enumerate().find_map(|(index, entry)| {
            let rest = steps_at(entry.get_ref(), offset)
                .or_else(|| entry.span().contains(&offset).then(Vec::new))?;
            Some([vec![Step::Index(index)], rest].concat())
        }),
        _ => None,
    }
}

/// Counts from 1.
fn line_at(text: &[u8], offset: usize) -> usize {
    let before = &text[..offset.min(text.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages of a text, or `ok`.
    fn messages(text: &str) -> Vec<String> {
        match read_toml("environment.toml", text.as_bytes()) {
            Ok(_) => vec!["ok".to_owned()],
            Err(error) => error.lines().map(|(line, _)| line).collect(),
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_eq!(messages(text), expected, "{text}");
    }

    #[test]
    fn wrong_types_are_said_in_plain_words() {
        check(
            "[resources]\nmemory_mb = \"much\"",
            &[
                "environment.toml:2: resources.memory_mb: invalid type: string \"much\", expected a whole number",
            ],
        );
        check(
            "[resources]\nmemory_mb = 99999999999999999999",
            &[
                "environment.toml:2: resources.memory_mb: invalid type: integer `99999999999999999999`, expected a whole number",
            ],
        );
        check(
            "[[services]]\nname = \"a\"\ncommand = \"x\"\nready_port = 99999",
            &[
                "environment.toml:4: services[0].ready_port: invalid value: integer `99999`, expected a whole number up to 65535",
            ],
        );
    }

    #[test]
    fn what_is_right_passes() {
        for text in [
            "",
            "backend = \"oci\"\nruntime = \"runsc\"",
            "[resources]\nmemory_mb = 512\ncpus = 0.5\nmax_processes = 64\ndisk_mb = 100\nmax_open_files = 256\nwall_time_minutes = 5\nmax_output_mb = 1",
            "[egress]\npreset = \"package-registries\"\nallow = [\"example.com\", \"*.example.com:8443\", \"a-b.c_d.example\"]",
            "[[egress.credentials]]\nhost = \"api.example.com\"\nheader = \"Authorization\"\nsecret = \"api\"\nformat = \"Bearer {secret}\"",
            "[variables]\nRUST_LOG = \"debug\"\n_x1 = \"\"",
            "[[services]]\nname = \"db\"\ncommand = \"postgres\"\nbefore = \"initdb\"\nready_port = 5432\nrestart = \"always\"\n[services.variables]\nA = \"b\"",
        ] {
            check(text, &["ok"]);
        }
    }

    #[test]
    fn errors_name_line_and_field() {
        check(
            "backend = \"docker\"",
            &[
                "environment.toml:1: backend: unknown variant `docker`, expected one of `namespace`, `oci`, `microvm`",
            ],
        );
        check(
            "\n\n[resources]\nmemory = 1",
            &[
                "environment.toml:4: unknown field `memory`, expected one of `memory_mb`, `cpus`, `max_processes`, `disk_mb`, `max_open_files`, `wall_time_minutes`, `max_output_mb`",
            ],
        );
        check(
            "[resources\n",
            &["environment.toml:1: unclosed table, expected `]`"],
        );
        check(
            "runtime = \"runsc\"",
            &["environment.toml:1: runtime: has a meaning only with `backend = \"oci\"`"],
        );
        for runtime in ["/bin/sh", "../x", "", ".x", "a b"] {
            check(
                &format!("backend = \"oci\"\nruntime = \"{runtime}\""),
                &["environment.toml:2: runtime: must be the name of a program, not a path"],
            );
        }
        check(
            "[resources]\nmemory_mb = 1\ncpus = nan\n\ndisk_mb = 0",
            &[
                "environment.toml:2: resources.memory_mb: must be from 64 to 1048576 MiB",
                "environment.toml:3: resources.cpus: must be from 0.1 to 1024",
                "environment.toml:5: resources.disk_mb: must be from 16 to 16777216 MiB",
            ],
        );
    }

    #[test]
    fn hosts_are_names_with_an_optional_wildcard_and_port() {
        for host in [
            "",
            "*",
            "*.",
            "a..b",
            "https://example.com",
            "example.com/x",
            "*a.com",
            "a.*.com",
            "ex ample.com",
        ] {
            let text = format!("[egress]\nallow = [\n\"ok.example\",\n\"{host}\",\n]");
            let found = messages(&text);
            assert!(
                found.len() == 1 && found[0].starts_with("environment.toml:4: egress.allow[1]: "),
                "{host:?}: {found:?}"
            );
        }
        for host in [
            "example.com:",
            "example.com:0",
            "example.com:65536",
            "example.com:http",
        ] {
            let text = format!("[egress]\nallow = [\"{host}\"]");
            assert!(
                messages(&text)[0].starts_with("environment.toml:2: egress.allow[0]: "),
                "{host}"
            );
        }
    }

    #[test]
    fn credentials_are_for_one_host_and_one_harmless_header() {
        let credential = |host: &str, header: &str, secret: &str, format: &str| {
            format!(
                "[[egress.credentials]]\nhost = \"{host}\"\nheader = \"{header}\"\nsecret = \"{secret}\"\nformat = \"{format}\"\n"
            )
        };
        for (host, header, secret, format, field) in [
            ("*.example.com", "a", "s", "{secret}", "host"),
            ("example.com:443", "a", "s", "{secret}", "host"),
            ("example.com", "Host", "s", "{secret}", "header"),
            ("example.com", "Proxy-Authorization", "s", "{secret}", "header"),
            ("example.com", "a b", "s", "{secret}", "header"),
            ("example.com", "a", "", "{secret}", "secret"),
            ("example.com", "a", "a/b", "{secret}", "secret"),
            ("example.com", "a", "s", "none", "format"),
            ("example.com", "a", "s", "{secret}\\r\\nx: y", "format"),
        ] {
            let found = messages(&credential(host, header, secret, format));
            assert!(
                found.len() == 1 && found[0].contains(&format!("egress.credentials[0].{field}: ")),
                "{found:?}"
            );
        }
        let twice =
            credential("a.example", "X", "s", "{secret}") + &credential("A.example", "x", "t", "{secret}");
        check(
            &twice,
            &["environment.toml:8: egress.credentials[1].header: is set twice for this host"],
        );
    }

    #[test]
    fn variables_of_the_platform_are_refused() {
        for name in ["HOME", "http_proxy", "GREENROOM_SESSION", "NO_PROXY"] {
            check(
                &format!("[variables]\n{name} = \"x\""),
                &[&format!(
                    "environment.toml:2: variables.{name}: is set by the platform"
                )],
            );
        }
        check(
            "[variables]\n1A = \"x\"\n\"a b\" = \"y\"",
            &[
                "environment.toml:2: variables.1A: is no name of a variable",
                "environment.toml:3: variables.a b: is no name of a variable",
            ],
        );
    }

    #[test]
    fn services_are_unique_and_ready_in_one_way() {
        check(
            "[[services]]\nname = \"db\"\ncommand = \"x\"\n\n[[services]]\nname = \"db\"\ncommand = \"y\"",
            &["environment.toml:6: services[1].name: `db` is used twice"],
        );
        check(
            "[[services]]\nname = \"Db\"\ncommand = \" \"",
            &[
                "environment.toml:2: services[0].name: must be 1 to 63 of a-z, 0-9 and `-`, beginning with a letter",
                "environment.toml:3: services[0].command: must be a text of at most 32 KiB that is not empty",
            ],
        );
        check(
            "[[services]]\nname = \"a\"\ncommand = \"x\"\nready_port = 80\nready_output = \"up\"",
            &["environment.toml:5: services[0].ready_output: cannot be set together with ready_port"],
        );
        check(
            "[[services]]\nname = \"a\"\ncommand = \"x\"\nready_port = 7419\nready_timeout_seconds = 0",
            &[
                "environment.toml:4: services[0].ready_port: is no port that a service can listen on",
                "environment.toml:5: services[0].ready_timeout_seconds: must be from 1 to 3600 seconds",
            ],
        );
        check(
            "[[services]]\nname = \"a\"",
            &["environment.toml:1: services[0]: missing field `command`"],
        );
    }

    #[test]
    fn a_file_that_is_no_text_or_too_long_says_so() {
        let long = vec![b'#'; MAX_ENVIRONMENT_BYTES as usize + 1];
        let error = read_toml("e", &long).unwrap_err();
        assert_eq!(error.problem().code, "environment_invalid");
        assert_eq!(error.problem().message, "e: is larger than 64 KiB.");
        let error = read_toml("e", b"a = 1\n\xff").unwrap_err();
        assert_eq!(error.problem().message, "e:2: is not UTF-8.");
    }

    #[test]
    fn a_problem_tells_the_first_error_and_how_many_more() {
        let error = read_toml("e", b"[resources]\nmemory_mb = 1\ncpus = 0\ndisk_mb = 1").unwrap_err();
        let problem = error.problem();
        assert_eq!(
            problem.message,
            "e:2: resources.memory_mb: must be from 64 to 1048576 MiB (and 2 more errors)."
        );
        assert!(problem.hint.is_some() && !problem.retryable);
    }

    /// Every field of the type, by its JSON schema, as `docs/environments.md` writes it.
    fn fields(schema: &serde_json::Value, of: &serde_json::Value, prefix: &str, found: &mut Vec<String>) {
        let definition = |value: &serde_json::Value| -> serde_json::Value {
            let name = value["$ref"].as_str().and_then(|name| name.rsplit('/').next());
            name.map_or_else(|| value.clone(), |name| schema["$defs"][name].clone())
        };
        let of = definition(of);
        for (name, value) in of["properties"].as_object().into_iter().flatten() {
            let path = format!("{prefix}{name}");
            let inner = match value["items"].is_object() {
                true => definition(&value["items"]),
                false => definition(value),
            };
            let is_group = inner["properties"].is_object();
            if !is_group || value["items"].is_object() {
                found.push(path.clone());
            }
            if is_group {
                fields(schema, &inner, &format!("{path}."), found);
            }
        }
    }

    #[test]
    fn every_field_stands_in_the_documentation_and_its_example_is_valid() {
        let schema = schemars::schema_for!(Environment).to_value();
        let mut found = Vec::new();
        fields(&schema, &schema, "", &mut found);
        assert!(
            found.len() > 25 && found.contains(&"services.ready_port".to_owned()),
            "{found:?}"
        );
        let document = include_str!("../../../../docs/environments.md");
        for field in &found {
            assert!(document.contains(&format!("| `{field}` |")), "{field}");
        }
        let example = document
            .split("```toml\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next());
        check(example.expect("an example"), &["ok"]);
    }
}
