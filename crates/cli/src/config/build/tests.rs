//! Tables: files and variables in, configurations or errors out.

use super::*;

fn check(text: &str, variables: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let environment = Environment::of(variables);
    let mut settings = Settings::default();
    let path = PathBuf::from("/etc/greenroom/greenroom.toml");
    read_file(&path, text, &mut settings);
    read_environment(&environment, &mut settings);
    build(Some(path), settings, &environment).map_err(|errors| {
        errors
            .iter()
            .map(|error| format!("{error}|{}", error.hint.clone().unwrap_or_default()))
            .collect()
    })
}

#[test]
fn the_example_of_the_reference_is_valid() {
    let markdown = super::super::as_markdown();
    let example = markdown
        .split("```toml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    let config = check(example, &[]).unwrap();
    assert_eq!(config.models.default, "local/qwen3-coder");
    assert_eq!(config.sandbox.memory_mb, 4096);
}

#[test]
fn nothing_at_all_is_a_valid_configuration_with_the_demo_model() {
    let config = check("", &[("HOME", "/home/ada")]).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:7878");
    assert_eq!(
        config.server.data_dir,
        Path::new("/home/ada/.local/share/greenroom")
    );
    assert_eq!(config.models.default, "scripted/demo");
    assert_eq!(config.sandbox.cpus, 2.0);
    assert_eq!(config.agent.max_steps, 100);
}

#[test]
fn every_default_of_the_table_has_the_form_it_asks_for() {
    for spec in OPTIONS
        .iter()
        .chain(PROVIDER_OPTIONS)
        .filter(|spec| !spec.default.is_empty())
    {
        assert!(parse_text(spec.form, spec.default).is_ok(), "{}", spec.path());
    }
}

#[test]
fn errors_name_file_line_and_option() {
    for (text, expected) in [
        (
            "[server]\n\nlisten = \"nowhere\"",
            "/etc/greenroom/greenroom.toml:3: server.listen: must be an address and port such as 127.0.0.1:7878|",
        ),
        (
            "[server]\nlisten = 7878",
            "/etc/greenroom/greenroom.toml:2: server.listen: must be an address and port such as 127.0.0.1:7878|",
        ),
        (
            "[server]\ndatadir = \"/x\"",
            "/etc/greenroom/greenroom.toml:2: server.datadir: unknown option|did you mean `data_dir`?",
        ),
        (
            "[sever]\nlisten = \"\"",
            "/etc/greenroom/greenroom.toml:1: sever: unknown section|did you mean `server`?",
        ),
        (
            "[sandbox]\nmemory_mb = 1",
            "/etc/greenroom/greenroom.toml:2: sandbox.memory_mb: must be a whole number from 64 to 1048576|",
        ),
        (
            "[sandbox]\nmemory_mb = -1",
            "/etc/greenroom/greenroom.toml:2: sandbox.memory_mb: must be a whole number from 64 to 1048576|",
        ),
        (
            "[log]\nformat = \"jsn\"",
            "/etc/greenroom/greenroom.toml:2: log.format: must be one of text, json; did you mean json?|",
        ),
        (
            "[server]\npublic_url = \"https://a:b@c\"",
            "/etc/greenroom/greenroom.toml:2: server.public_url: must be an http:// or https:// address without user name and password|",
        ),
        (
            "\n[[providers]]\nid = \"x\"",
            "/etc/greenroom/greenroom.toml:2: providers.kind: is required|",
        ),
        (
            "[[providers]]\nid = \"x\"\nkind = \"openai-chat\"",
            "/etc/greenroom/greenroom.toml:1: providers.models: must name at least one model|",
        ),
        (
            "providers = 3",
            "/etc/greenroom/greenroom.toml:1: providers: must be a list; write [[providers]]|",
        ),
    ] {
        assert_eq!(check(text, &[]).unwrap_err(), [expected], "{text}");
    }
}

#[test]
fn all_errors_come_at_once_and_broken_toml_has_a_line() {
    let errors = check(
        "[server]\nlisten = 1\nlog = 2\n[agent]\nmax_steps = 0",
        &[("GREENROOM_LOG_FORMAT", "xml")],
    );
    assert_eq!(errors.unwrap_err().len(), 4);
    let errors = check("[server]\nlisten = \n", &[]).unwrap_err();
    assert!(
        errors[0].starts_with("/etc/greenroom/greenroom.toml:2: not valid TOML: "),
        "{errors:?}"
    );
}

#[test]
fn the_environment_wins_and_is_checked_alike() {
    let text = "[server]\nlisten = \"127.0.0.1:1\"\ndata_dir = \"here\"";
    let config = check(text, &[("GREENROOM_LISTEN", "127.0.0.1:2")]).unwrap();
    assert_eq!(config.server.listen.port(), 2);
    assert_eq!(config.server.data_dir, Path::new("/etc/greenroom/here"));
    let origins: Vec<_> = config.shown[..2]
        .iter()
        .map(|shown| shown.origin.as_str())
        .collect();
    assert_eq!(origins, ["GREENROOM_LISTEN", "/etc/greenroom/greenroom.toml:3"]);
    let errors = check("", &[("GREENROOM_SANDBOX_CPUS", "many")]).unwrap_err();
    assert_eq!(
        errors,
        ["GREENROOM_SANDBOX_CPUS: sandbox.cpus: must be a number from 0.1 to 1024|"]
    );
}

#[test]
fn the_default_model_is_the_first_real_one() {
    for (variables, expected) in [
        (&[("ANTHROPIC_API_KEY", "k")][..], "anthropic/claude-sonnet-4-6"),
        (&[("OPENAI_API_KEY", "k")], "openai/gpt-5.4"),
        (
            &[("OPENAI_API_KEY", "k"), ("ANTHROPIC_API_KEY", "k")],
            "anthropic/claude-sonnet-4-6",
        ),
        (&[("ANTHROPIC_API_KEY", "")], "scripted/demo"),
        (
            &[
                ("OPENAI_BASE_URL", "http://127.0.0.1:11434/v1"),
                ("GREENROOM_MODEL", "qwen3"),
            ],
            "openai/qwen3",
        ),
        (
            &[("OPENAI_API_KEY", "k"), ("GREENROOM_MODEL", "openai/gpt-9")],
            "openai/gpt-9",
        ),
        (
            &[("OPENAI_API_KEY", "k"), ("GREENROOM_MODEL", "scripted/demo")],
            "scripted/demo",
        ),
    ] {
        let config = check("", variables).unwrap();
        assert_eq!(config.models.default, expected, "{variables:?}");
        let (id, name) = expected.split_once('/').unwrap();
        let provider = config
            .models
            .providers
            .iter()
            .find(|provider| provider.id == id)
            .unwrap();
        assert!(provider.models.iter().any(|model| model == name), "{variables:?}");
    }
    for model in ["gpt-5.4", "nowhere/model", "scripted/other"] {
        let errors = check("", &[("GREENROOM_MODEL", model)]).unwrap_err();
        assert!(
            errors[0].starts_with("GREENROOM_MODEL: models.default: "),
            "{errors:?}"
        );
    }
}

#[test]
fn a_base_url_of_another_vendor_is_spoken_to_by_chat_completions() {
    let kind = |variables: &[(&str, &str)]| check("", variables).unwrap().models.providers[0].kind;
    assert_eq!(
        kind(&[("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")]),
        ProviderKind::OpenaiChat
    );
    assert_eq!(
        kind(&[("OPENAI_BASE_URL", "https://api.openai.com/v1")]),
        ProviderKind::OpenaiResponses
    );
    assert_eq!(kind(&[("OPENAI_API_KEY", "k")]), ProviderKind::OpenaiResponses);
}

#[test]
fn a_key_never_enters_the_configuration() {
    let config = check("", &[("ANTHROPIC_API_KEY", "sk-very-secret")]).unwrap();
    assert!(!format!("{config:?}").contains("sk-very-secret"));
    assert_eq!(
        config.models.providers[0].key,
        KeyOrigin::Environment("ANTHROPIC_API_KEY".to_owned())
    );
}
