//! `greenroom image …`: what sandboxes of a repository begin with, and how it is built.

use super::table;
use crate::arguments::{BuildArguments, Global, ImageCommand};
use crate::connection;
use crate::failure::{Exit, Failure};
use crate::terminal::{Span, Style, Terminal, printable};
use greenroom_protocol::client::image::{BuildImage, Image, ImageState, ImageTrigger, StepOutcome};
use greenroom_sdk::Client;
use std::time::Duration;

/// Between two looks at a log that grows.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Carries out one of the image commands.
pub async fn run(global: &Global, command: ImageCommand, terminal: Terminal) -> Result<Exit, Failure> {
    match command {
        ImageCommand::List { repository, json } => {
            let listed = connection::connect(global)?.images(&repository).await?;
            match json {
                true => listed.images.iter().try_for_each(|image| terminal.json(image))?,
                false => list(
                    &listed.images,
                    listed.current.as_ref().map(|id| id.as_str()),
                    terminal,
                )?,
            }
            Ok(Exit::Success)
        }
        ImageCommand::Build(arguments) => build(global, &arguments, terminal).await,
        ImageCommand::Show { image, json } => {
            let image = connection::connect(global)?.image(&image).await?;
            match json {
                true => terminal.json(&image)?,
                false => show(&image, terminal)?,
            }
            Ok(Exit::Success)
        }
        ImageCommand::Push { image, reference } => {
            let client = connection::connect(global)?;
            terminal.note(&[Span::new(Style::Dim, format!("pushing {image}"))]);
            let pushed = client.push_image(&image, &reference).await?;
            terminal.line(&[Span::plain(pushed.reference)])?;
            Ok(Exit::Success)
        }
        ImageCommand::Pull {
            repository,
            reference,
            json,
        } => {
            let client = connection::connect(global)?;
            terminal.note(&[Span::new(Style::Dim, format!("pulling {reference}"))]);
            let image = client.pull_image(&repository, &reference).await?;
            match json {
                true => terminal.json(&image)?,
                false => show(&image, terminal)?,
            }
            Ok(Exit::Success)
        }
        ImageCommand::Digest { reference } => {
            let pinned = connection::connect(global)?
                .pin_registry_image(&reference)
                .await?;
            terminal.line(&[Span::plain(format!("oci:{}", pinned.reference))])?;
            Ok(Exit::Success)
        }
        ImageCommand::Log { image } => {
            let client = connection::connect(global)?;
            follow(&client, &image, terminal).await?;
            Ok(Exit::Success)
        }
    }
}

/// Asks for an image and follows its build.
pub async fn build(global: &Global, arguments: &BuildArguments, terminal: Terminal) -> Result<Exit, Failure> {
    let client = connection::connect(global)?;
    let wanted = BuildImage {
        from_scratch: arguments.from_scratch,
    };
    let asked = client.build_image(&arguments.repository, &wanted).await?;
    let id = asked.id.as_str();
    if !arguments.no_wait {
        terminal.note(&[Span::new(Style::Dim, format!("building {id}"))]);
        // Programs read the image on standard output, and nothing else.
        match arguments.json {
            true => await_end(&client, id).await?,
            false => follow(&client, id, terminal).await?,
        }
    }
    let image = client.image(id).await?;
    match arguments.json {
        true => terminal.json(&image)?,
        false => show(&image, terminal)?,
    }
    match image.problem {
        Some(problem) if image.state == ImageState::Failed => Err(problem.into()),
        _ => Ok(Exit::Success),
    }
}

/// Prints a log to its end.
async fn follow(client: &Client, id: &str, terminal: Terminal) -> Result<(), Failure> {
    let mut after = 0;
    loop {
        let log = client.image_log(id, after).await?;
        terminal.raw(&log.output)?;
        let has_more = log.end_offset > after;
        after = log.end_offset;
        if log.is_whole {
            return Ok(());
        }
        if !has_more {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

async fn await_end(client: &Client, id: &str) -> Result<(), Failure> {
    while !client.image(id).await?.state.is_final() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

fn list(images: &[Image], current: Option<&str>, terminal: Terminal) -> Result<(), Failure> {
    if images.is_empty() {
        return terminal.line(&[Span::plain(
            "no images yet; name a setup, build or warm command in .greenroom/environment.toml, or run greenroom image build",
        )]);
    }
    let rows: Vec<_> = images
        .iter()
        .map(|image| {
            let state = match current == Some(image.id.as_str()) {
                true => format!("{} (current)", image.state.name()),
                false => image.state.name().to_owned(),
            };
            vec![
                image.id.to_string(),
                state,
                short(image.commit.as_deref()),
                took(image),
                size(image.size_bytes),
                image
                    .problem
                    .as_ref()
                    .map_or_else(String::new, |problem| printable(&problem.message)),
            ]
        })
        .collect();
    table::print(
        terminal,
        &["IMAGE", "STATE", "COMMIT", "TOOK", "SIZE", "PROBLEM"],
        &rows,
    )
}

fn show(image: &Image, terminal: Terminal) -> Result<(), Failure> {
    let style = match image.state {
        ImageState::Published => Style::Green,
        ImageState::Failed => Style::Red,
        _ => Style::Yellow,
    };
    terminal.line(&[
        Span::plain(format!("{} ", image.id)),
        Span::new(style, image.state.name()),
        Span::plain(format!(
            "  {}@{} {}",
            image.repository,
            image.branch,
            short(image.commit.as_deref())
        )),
    ])?;
    if let Some(before) = &image.built_on {
        terminal.line(&[Span::new(Style::Dim, format!("  built on {before}"))])?;
    }
    if let ImageTrigger::Pulled { reference, .. } = &image.trigger {
        let from = format!("  pulled from {}", printable(reference));
        terminal.line(&[Span::new(Style::Dim, from)])?;
    }
    if !matches!(image.base.as_str(), "" | "host") {
        let over = format!("  over {}", printable(&image.base));
        terminal.line(&[Span::new(Style::Dim, over)])?;
    }
    if !image.layers.is_empty() {
        let policy: String = image.policy_digest.chars().take(10).collect();
        let layers = match image.layers.len() {
            1 => "1 layer".to_owned(),
            count => format!("{count} layers"),
        };
        let line = format!("  {layers}, built under the egress policy {policy}");
        terminal.line(&[Span::new(Style::Dim, line)])?;
    }
    for step in &image.steps {
        let (style, outcome) = match step.outcome {
            StepOutcome::Running => (Style::Yellow, "running"),
            StepOutcome::Done => (Style::Green, "done"),
            StepOutcome::Cached => (Style::Dim, "cached"),
            StepOutcome::Failed => (Style::Red, "failed"),
        };
        let name = step.name.name();
        terminal.line(&[
            Span::plain(format!("  {name:<6} ")),
            Span::new(style, format!("{outcome:<8}")),
            Span::plain(duration(step.duration_ms)),
        ])?;
    }
    if let Some(problem) = &image.problem {
        terminal.line(&[Span::new(
            Style::Red,
            format!("  {}", printable(&problem.message)),
        )])?;
    }
    Ok(())
}

fn short(commit: Option<&str>) -> String {
    commit.unwrap_or("-").chars().take(10).collect()
}

fn took(image: &Image) -> String {
    match image.finished_at_ms {
        Some(end) => duration(u64::try_from(end - image.created_at_ms).unwrap_or(0)),
        None => "-".to_owned(),
    }
}

fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", ms as f64 / 1_000.0),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

fn size(bytes: Option<u64>) -> String {
    match bytes {
        None => "-".to_owned(),
        Some(bytes) => format!("{} MiB", bytes.div_ceil(1 << 20)),
    }
}
