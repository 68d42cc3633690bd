//! The reference of all options, from the table: as text for a terminal and as Markdown for docs/configuration.md.

use super::options::{OPTIONS, OTHER_VARIABLES, OptionSpec, PROVIDER_OPTIONS};
use super::read::describe;
use std::fmt::Write as _;

/// For `greenroom config reference`.
pub fn as_text() -> String {
    let mut text = String::new();
    for (heading, specs) in sections() {
        let _ = writeln!(text, "{heading}");
        for spec in specs {
            let default = if spec.default.is_empty() {
                "unset"
            } else {
                spec.default
            };
            let _ = writeln!(
                text,
                "  {} ({}; default: {default})",
                spec.name,
                describe(spec.form)
            );
            let _ = writeln!(text, "      {}", spec.meaning);
            if !spec.variable.is_empty() {
                let _ = writeln!(text, "      environment: {}", spec.variable);
            }
        }
        text.push('\n');
    }
    text.push_str("Other variables\n");
    for (name, meaning) in OTHER_VARIABLES {
        let _ = writeln!(text, "  {name}\n      {meaning}");
    }
    text
}

/// For docs/configuration.md.
pub fn as_markdown() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         <!-- Written by `cargo xtask codegen` from crates/cli/src/config/options.rs; edit that table. -->\n\n\
         Greenroom runs without any configuration. What you set comes, in this order, from the environment, from one file\n\
         `greenroom.toml`, and from the defaults below. The file is the first of `--config FILE`, `$GREENROOM_CONFIG`,\n\
         `./greenroom.toml` and `~/.config/greenroom/greenroom.toml`. Unknown options are errors. `greenroom config check`\n\
         names file, line and option of each error; `greenroom config show` prints every value and where it came from.\n\n",
    );
    for (heading, specs) in sections() {
        let _ = write!(
            text,
            "## `{heading}`\n\n| option | default | environment | meaning |\n|---|---|---|---|\n"
        );
        for spec in specs {
            let default = if spec.default.is_empty() {
                String::new()
            } else {
                format!("`{}`", spec.default)
            };
            let variable = if spec.variable.is_empty() {
                String::new()
            } else {
                format!("`{}`", spec.variable)
            };
            let _ = writeln!(
                text,
                "| `{}` | {default} | {variable} | {} Must be {}. |",
                spec.name,
                spec.meaning,
                describe(spec.form)
            );
        }
        text.push('\n');
    }
    text.push_str("## Other environment variables\n\n| variable | meaning |\n|---|---|\n");
    for (name, meaning) in OTHER_VARIABLES {
        let _ = writeln!(text, "| `{name}` | {meaning} |");
    }
    text.push_str(EXAMPLE);
    text
}

fn sections() -> Vec<(String, Vec<&'static OptionSpec>)> {
    let mut sections: Vec<(String, Vec<&OptionSpec>)> = Vec::new();
    for spec in OPTIONS {
        let heading = format!("[{}]", spec.section);
        match sections.last_mut() {
            Some((last, specs)) if *last == heading => specs.push(spec),
            _ => sections.push((heading, vec![spec])),
        }
    }
    let models = sections
        .iter()
        .position(|(heading, _)| heading == "[models]")
        .map_or(sections.len(), |at| at + 1);
    sections.insert(
        models,
        ("[[providers]]".to_owned(), PROVIDER_OPTIONS.iter().collect()),
    );
    sections
}

const EXAMPLE: &str = r#"
## Example

```toml
[server]
listen = "127.0.0.1:7878"
data_dir = "/srv/greenroom"

[models]
default = "local/qwen3-coder"

[[providers]]
id = "local"
kind = "openai-chat"
base_url = "http://127.0.0.1:11434/v1"
models = ["qwen3-coder"]

[sandbox]
memory_mb = 4096
```
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_stands_in_both_forms() {
        let (text, markdown) = (as_text(), as_markdown());
        for spec in OPTIONS.iter().chain(PROVIDER_OPTIONS) {
            assert!(text.contains(&format!("  {} (", spec.name)), "{}", spec.name);
            assert!(
                markdown.contains(&format!("| `{}` |", spec.name)),
                "{}",
                spec.name
            );
            assert!(
                markdown.contains(spec.variable) && markdown.contains(spec.meaning),
                "{}",
                spec.name
            );
        }
    }
}
