//! `greenroom config` and `greenroom doctor` on real files and variables.

use crate::program::{Home, Ran};
use serde_json::Value;

#[test]
fn nothing_is_a_valid_configuration() {
    let ran = Home::new().run(&["config", "check"]);
    assert_eq!(
        (ran.status, ran.out.as_str()),
        (0, "ok defaults and environment (no file)\n")
    );
}

#[test]
fn check_names_file_line_and_option_of_every_error() {
    let home = Home::new();
    home.write(
        "greenroom.toml",
        "[server]\nlissten = \"127.0.0.1:1\"\n\n[sandbox]\nmemory_mb = \"much\"\n",
    );
    let ran = home.run(&["config", "check"]);
    assert_eq!((ran.status, ran.out.as_str()), (2, ""));
    assert!(
        ran.err
            .contains("error[config_invalid]: greenroom.toml:2: server.lissten: unknown option\n"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("hint: did you mean `listen`?\n"), "{}", ran.err);
    assert!(
        ran.err
            .contains("error[config_invalid]: greenroom.toml:5: sandbox.memory_mb: must be a whole number"),
        "{}",
        ran.err
    );
    let json = home.run(&["config", "check", "--json"]);
    let report: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json.status, 2);
    assert_eq!(report["errors"][0]["place"], "greenroom.toml:2");
    assert_eq!(report["errors"][0]["option"], "server.lissten");
    // Every command that needs the configuration says the same.
    let up = home.run(&["up"]);
    assert_eq!(up.status, 2, "{}", up.err);
    assert!(
        up.err.contains("greenroom.toml:5: sandbox.memory_mb"),
        "{}",
        up.err
    );
}

#[test]
fn check_reads_the_scripts_too() {
    let home = Home::new();
    home.write(
        "greenroom.toml",
        "[[providers]]\nid = \"one\"\nkind = \"scripted\"\nscript = \"one.toml\"\n\n\
         [[providers]]\nid = \"two\"\nkind = \"scripted\"\nscript = \"two.toml\"\n",
    );
    home.write("one.toml", "[[script]]\nname = \"a\"\nprompt_contians = \"x\"\n");
    for command in [["config", "check"].as_slice(), &["up"]] {
        let ran = home.run(command);
        assert_eq!((ran.status, ran.out.as_str()), (2, ""), "{}", ran.err);
        for expected in [
            "one.toml:3: unknown field `prompt_contians`",
            "two.toml: the script of provider two cannot be read",
            "hint: docs/models.md explains scripts",
        ] {
            assert!(ran.err.contains(expected), "{expected}: {}", ran.err);
        }
    }
    // Commands that play no script do not mind.
    assert_eq!(home.run(&["config", "show"]).status, 0);
}

#[test]
fn the_file_is_found_in_the_documented_order() {
    let home = Home::new();
    let listen = |variables: &[(&str, &str)], arguments: &[&str]| {
        let arguments: Vec<&str> = ["config", "show", "--json"]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        let output = home
            .command(&arguments)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let shown: Value = serde_json::from_str(&Ran::from(output).out).unwrap();
        (
            shown[0]["value"].as_str().unwrap().to_owned(),
            shown[0]["origin"].as_str().unwrap().to_owned(),
        )
    };
    let text = |port: u16| format!("[server]\nlisten = \"127.0.0.1:{port}\"\n");
    assert_eq!(listen(&[], &[]).1, "default");
    home.write(".config/greenroom/greenroom.toml", &text(1));
    assert_eq!(listen(&[], &[]).0, "127.0.0.1:1");
    home.write("greenroom.toml", &text(2));
    assert_eq!(
        listen(&[], &[]),
        ("127.0.0.1:2".to_owned(), "greenroom.toml:2".to_owned())
    );
    home.write("three.toml", &text(3));
    home.write("four.toml", &text(4));
    assert_eq!(
        listen(&[("GREENROOM_CONFIG", "three.toml")], &[]).0,
        "127.0.0.1:3"
    );
    assert_eq!(
        listen(&[("GREENROOM_CONFIG", "three.toml")], &["--config", "four.toml"]).0,
        "127.0.0.1:4"
    );
    let variables = [("GREENROOM_LISTEN", "127.0.0.1:5")];
    assert_eq!(
        listen(&variables, &["--config", "four.toml"]),
        ("127.0.0.1:5".to_owned(), "GREENROOM_LISTEN".to_owned())
    );
}

#[test]
fn a_file_that_was_asked_for_must_exist() {
    let ran = Home::new().run(&["config", "check", "--config", "nowhere.toml"]);
    assert_eq!(ran.status, 2);
    assert!(
        ran.err
            .starts_with("error[config_invalid]: nowhere.toml: cannot be read: "),
        "{}",
        ran.err
    );
}

#[test]
fn keys_are_named_and_never_shown() {
    let home = Home::new();
    let output = home
        .command(&["config", "show"])
        .env("ANTHROPIC_API_KEY", "sk-very-secret")
        .output()
        .unwrap();
    let ran = Ran::from(output);
    assert!(
        ran.out.contains("$ANTHROPIC_API_KEY") && ran.out.contains("anthropic/claude"),
        "{}",
        ran.out
    );
    assert!(!ran.out.contains("sk-very-secret") && !ran.err.contains("sk-very-secret"));
}

#[test]
fn doctor_reports_a_standing_for_everything_and_leaves_nothing_behind() {
    let home = Home::new();
    let mut command = home.command(&["doctor", "--json"]);
    let ran = Ran::from(command.env("GREENROOM_LISTEN", "127.0.0.1:0").output().unwrap());
    let checks: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}", ran.out));
    let checks = checks.as_array().unwrap();
    let standing = |name: &str| {
        let check = checks
            .iter()
            .find(|check| check["name"] == name)
            .unwrap_or_else(|| panic!("{name}: {}", ran.out));
        check["standing"].as_str().unwrap()
    };
    for (name, expected) in [
        ("config", "ok"),
        ("git", "ok"),
        ("data_dir", "ok"),
        ("listen", "ok"),
        ("models", "instead"),
    ] {
        assert_eq!(standing(name), expected, "{name}: {}", ran.out);
    }
    // Whether sandboxes work depends on the machine; that it was tried does not.
    let has_missing = checks.iter().any(|check| check["standing"] == "missing");
    assert!(["ok", "instead", "missing"].contains(&standing("sandbox")));
    assert_eq!(ran.status, i32::from(has_missing));
    assert_eq!(
        std::fs::read_dir(home.path()).unwrap().count(),
        0,
        "something was left behind"
    );
}

#[test]
fn doctor_says_what_keeps_a_server_from_starting() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = home
        .command(&["doctor"])
        .env("GREENROOM_LISTEN", &address)
        .output()
        .unwrap();
    let ran = Ran::from(output);
    assert_eq!(ran.status, 1);
    assert!(
        ran.out.contains(&format!("{address} is used by another program")),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("hint: set GREENROOM_LISTEN"), "{}", ran.out);
}
