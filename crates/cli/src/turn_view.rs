//! Turns a session's frames into what a terminal shows, in order and bounded. Pure: no output, no clock.

use crate::terminal::{Span, Style};
use greenroom_protocol::client::event::{
    EgressVerdict, EventBody, Item, ItemBody, SandboxUsage, ToolCallItem, ToolCallStatus, TurnOutcome,
};
use greenroom_protocol::client::member::{Role, SessionAccess};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::prompt::Delivery;
use greenroom_protocol::client::stream::{DeltaChannel, StreamFrame};
use greenroom_protocol::guest::service::ServiceState;
use greenroom_protocol::id::ItemId;

/// Most lines of a tool's output that are shown: the first and the last of them.
const HEAD_LINES: usize = 3;
const TAIL_LINES: usize = 7;
/// Most characters of one such line.
const LINE_CHARACTERS: usize = 160;

/// What was shown so far, as far as the next frame depends on it.
#[derive(Debug, Default)]
pub struct TurnView {
    /// The message whose text stands on the screen unfinished, and how many bytes of it.
    open: Option<(ItemId, usize)>,
    /// Whether the text shown last left the cursor inside a line.
    is_inside_line: bool,
}

impl TurnView {
    /// What to show for the next frame; may be nothing.
    pub fn apply(&mut self, frame: &StreamFrame) -> Vec<Span> {
        match frame {
            StreamFrame::Event { event } => self.event(&event.body),
            StreamFrame::Delta {
                item_id,
                channel: DeltaChannel::Message,
                offset,
                text,
            } => self.message_delta(item_id, *offset, text),
            StreamFrame::Closing { problem, .. } => self.block(vec![problem_line(problem)]),
            StreamFrame::Delta { .. }
            | StreamFrame::Hello { .. }
            | StreamFrame::Overview { .. }
            | StreamFrame::CaughtUp { .. }
            | StreamFrame::Session { .. }
            | StreamFrame::Presence { .. }
            | StreamFrame::Unknown(_) => Vec::new(),
        }
    }

    fn event(&mut self, body: &EventBody) -> Vec<Span> {
        match body {
            EventBody::SessionCreated {
                repository,
                base_branch,
                branch,
                model,
                is_scripted,
                ..
            } => {
                let model = model_label(model, *is_scripted);
                self.block(vec![vec![dim(format!(
                    "{repository} {base_branch} → {branch}, {model}"
                ))]])
            }
            EventBody::PromptQueued { prompt, .. } => {
                let mut lines = prompt.text.trim().lines();
                let first = lines.next().unwrap_or_default();
                let more = if lines.next().is_some() { " …" } else { "" };
                let mut line = vec![
                    Span::new(Style::Cyan, format!("› {}: ", prompt.author.name)),
                    Span::new(Style::Bold, format!("{}{more}", shorten(first))),
                ];
                match prompt.images.len() {
                    0 => {}
                    1 => line.push(dim(" (1 image)")),
                    count => line.push(Span::new(Style::Dim, format!(" ({count} images)"))),
                }
                self.block(vec![line])
            }
            EventBody::PromptEdited { .. } => self.block(vec![vec![dim("queued prompt rewritten")]]),
            EventBody::PromptMoved { .. } => self.block(vec![vec![dim("queued prompt moved")]]),
            EventBody::PromptDeliveryChanged { delivery, .. } => {
                let text = match delivery {
                    Delivery::Insert => "queued prompt is told at the next step",
                    Delivery::Queue => "prompt waits for a turn of its own",
                };
                self.block(vec![vec![dim(text)]])
            }
            EventBody::PromptInserted { .. } => self.block(vec![vec![dim("the agent was told")]]),
            EventBody::SessionQueueChanged { is_paused, .. } => {
                let text = match is_paused {
                    true => "the queue is paused",
                    false => "the queue goes on",
                };
                self.block(vec![vec![dim(text)]])
            }
            EventBody::SessionMemberChanged { person, role, .. } => {
                let text = match role {
                    Some(role) => format!("{} is {} here", person.name, role_word(*role)),
                    None => format!("{} is no member any more", person.name),
                };
                self.block(vec![vec![dim(text)]])
            }
            EventBody::SessionHandedOver { to, .. } => {
                self.block(vec![vec![dim(format!("{} owns the session now", to.name))]])
            }
            EventBody::SessionArchived { by: Some(_) } => self.block(vec![vec![dim("session archived")]]),
            EventBody::SessionArchived { by: None } => self.block(vec![vec![dim(
                "session archived: nothing had happened in it for long",
            )]]),
            EventBody::SessionUnarchived { .. } => self.block(vec![vec![dim("session taken back")]]),
            EventBody::SessionAccessChanged { access, .. } => {
                self.block(vec![vec![dim(access_sentence(*access))]])
            }
            EventBody::PromptCancelled { .. } => self.block(vec![vec![dim("prompt taken out of the queue")]]),
            EventBody::ItemCompleted { item, .. } => self.item(item),
            EventBody::TurnRetrying {
                attempt,
                delay_ms,
                problem,
                ..
            } => self.block(vec![vec![Span::new(
                Style::Yellow,
                format!(
                    "… {}; attempt {attempt} in {}",
                    problem.message,
                    seconds(*delay_ms)
                ),
            )]]),
            EventBody::TurnResumed { .. } => {
                self.block(vec![vec![dim("the server restarted; the turn goes on")]])
            }
            EventBody::TurnStopping { .. } => self.block(vec![vec![Span::new(Style::Yellow, "stopping …")]]),
            EventBody::TurnCompleted {
                outcome,
                usage,
                sandbox,
                ..
            } => {
                let tokens = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens;
                let used = sandbox.as_ref().map(sandbox_usage).unwrap_or_default();
                let cost = dim(format!("  {tokens} tokens in, {} out{used}", usage.output_tokens));
                self.block(match outcome {
                    TurnOutcome::Completed => vec![vec![Span::new(Style::Green, "✓ turn completed"), cost]],
                    TurnOutcome::Stopped { .. } => {
                        vec![vec![Span::new(Style::Yellow, "■ turn stopped"), cost]]
                    }
                    TurnOutcome::Failed { problem } => {
                        vec![
                            vec![Span::new(Style::Red, "✗ turn failed"), cost],
                            problem_line(problem),
                        ]
                    }
                })
            }
            EventBody::SandboxStateChanged {
                problem: Some(problem),
                ..
            } => self.block(vec![problem_line(problem)]),
            EventBody::EgressDecided {
                host,
                port,
                verdict,
                reason,
                hint,
                count,
                ..
            } => self.block(egress(
                &format!("{host}:{port}"),
                *verdict,
                reason,
                hint.as_deref(),
                *count,
            )),
            EventBody::ServiceStateChanged { name, state, reason } => {
                self.block(service(name, *state, reason))
            }
            EventBody::ChangePushed {
                repository,
                branch,
                additions,
                deletions,
                files,
                ..
            } => {
                let word = if files.len() == 1 { "file" } else { "files" };
                let of = repository.as_ref().map(|other| format!(" of {}", other.name));
                let of = of.unwrap_or_default();
                let text = format!(
                    "↑ pushed {} {word} (+{additions} −{deletions}) to {branch}{of}",
                    files.len()
                );
                self.block(vec![vec![dim(text)]])
            }
            EventBody::PullRequestOpened {
                repository,
                number,
                title,
                ..
            } => self.block(vec![vec![
                Span::new(Style::Green, format!("⇄ pull request {repository}#{number}: ")),
                Span::new(Style::Bold, shorten(title)),
            ]]),
            EventBody::EffectFailed { problem, .. } => self.block(vec![problem_line(problem)]),
            EventBody::SessionForked { from, .. } => {
                self.block(vec![vec![dim(format!("forked here from {from}"))]])
            }
            EventBody::EffectRetried { .. } => self.block(vec![vec![dim("tried again")]]),
            EventBody::SessionTitled { .. }
            | EventBody::EffectSuperseded { .. }
            | EventBody::WorkspaceChanged { .. }
            | EventBody::SessionDeliveryChanged { .. }
            | EventBody::SessionStateChanged { .. }
            | EventBody::TurnStarted { .. }
            | EventBody::ItemStarted { .. }
            | EventBody::SandboxStateChanged { problem: None, .. }
            | EventBody::PullRequestStateChanged { .. }
            | EventBody::Unknown(_) => Vec::new(),
        }
    }

    fn item(&mut self, item: &Item) -> Vec<Span> {
        match &item.body {
            ItemBody::Message { text } => self.message(&item.id, text),
            ItemBody::Reasoning { text } => {
                let text = text.trim();
                if text.is_empty() {
                    return Vec::new();
                }
                self.block(bounded(text).into_iter().map(|line| vec![dim(line)]).collect())
            }
            ItemBody::ToolCall(call) => self.block(tool_call(call)),
            ItemBody::FileChange {
                path,
                additions,
                deletions,
                ..
            } => self.block(vec![vec![
                Span::plain(format!("  ± {} ", shorten(path))),
                Span::new(Style::Green, format!("+{additions} ")),
                Span::new(Style::Red, format!("−{deletions}")),
            ]]),
            ItemBody::Artifact(artifact) => {
                let mut line = vec![
                    Span::plain("  ↓ "),
                    Span::new(Style::Bold, shorten(&artifact.name)),
                    dim(format!(" {}", size_of_file(artifact.size_bytes))),
                ];
                if !artifact.title.is_empty() {
                    line.push(Span::plain(format!("  {}", shorten(&artifact.title))));
                }
                self.block(vec![line])
            }
            ItemBody::Notice { problem } => self.block(vec![problem_line(problem)]),
            ItemBody::Unknown(_) => Vec::new(),
        }
    }

    fn message_delta(&mut self, item: &ItemId, offset: u64, text: &str) -> Vec<Span> {
        let mut spans = Vec::new();
        let shown = match &self.open {
            Some((open, shown)) if open == item => *shown,
            // Another message is unfinished: this one comes whole when it is complete.
            Some(_) => return spans,
            None => 0,
        };
        let Ok(offset) = usize::try_from(offset) else {
            return spans;
        };
        // Behind a gap nothing can be shown; what is known already is not repeated.
        let Some(fresh) = shown.checked_sub(offset).and_then(|skip| text.get(skip..)) else {
            return spans;
        };
        if fresh.is_empty() {
            return spans;
        }
        if shown == 0 {
            spans.extend(self.break_line());
        }
        self.open = Some((item.clone(), shown + fresh.len()));
        self.is_inside_line = !fresh.ends_with('\n');
        spans.push(Span::plain(fresh));
        spans
    }

    fn message(&mut self, item: &ItemId, text: &str) -> Vec<Span> {
        match self.open.take() {
            Some((open, shown)) if open == *item => {
                let rest = text.get(shown..).unwrap_or_default();
                self.is_inside_line |= !rest.is_empty();
                let mut spans = vec![Span::plain(rest.trim_end_matches('\n'))];
                spans.extend(self.break_line());
                spans
            }
            other => {
                let text = text.trim_end();
                if text.is_empty() {
                    self.open = other;
                    return Vec::new();
                }
                self.block(vec![vec![Span::plain(text)]])
            }
        }
    }

    /// Whole lines, after whatever line is unfinished.
    fn block(&mut self, lines: Vec<Vec<Span>>) -> Vec<Span> {
        let mut spans = self.break_line();
        for line in lines {
            spans.extend(line);
            spans.push(Span::plain("\n"));
        }
        spans
    }

    fn break_line(&mut self) -> Vec<Span> {
        match std::mem::take(&mut self.is_inside_line) {
            true => vec![Span::plain("\n")],
            false => Vec::new(),
        }
    }
}

/// How a model is called where people see it.
pub fn model_label(model: &str, is_scripted: bool) -> String {
    match is_scripted {
        true => format!("scripted demo model ({model})"),
        false => model.to_owned(),
    }
}

fn tool_call(call: &ToolCallItem) -> Vec<Vec<Span>> {
    let (style, mark) = match call.status {
        ToolCallStatus::Succeeded => (Style::Green, "✓"),
        ToolCallStatus::Failed => (Style::Red, "✗"),
        ToolCallStatus::Interrupted => (Style::Yellow, "■"),
        ToolCallStatus::Running => (Style::Dim, "…"),
    };
    let duration = call.duration_ms.map(seconds).unwrap_or_default();
    let head = vec![
        Span::new(style, format!("{mark} {} ", shorten(&call.tool))),
        Span::plain(shorten(call.summary.trim())),
        dim(format!("  {duration}")),
    ];
    let output = bounded(call.output.trim_end());
    std::iter::once(head)
        .chain(output.into_iter().map(|line| vec![dim(format!("  {line}"))]))
        .collect()
}

/// The first connection of a kind is a line; how often a refused one was tried again is another, at the turn's end.
fn egress(
    target: &str,
    verdict: EgressVerdict,
    reason: &str,
    hint: Option<&str>,
    count: u64,
) -> Vec<Vec<Span>> {
    let target = shorten(target);
    let is_first = count <= 1;
    match verdict {
        EgressVerdict::Allowed if is_first => vec![vec![dim(format!("  → {target}"))]],
        EgressVerdict::AllowedWithCredential if is_first => {
            vec![vec![dim(format!("  → {target} with a credential"))]]
        }
        EgressVerdict::Allowed | EgressVerdict::AllowedWithCredential => Vec::new(),
        EgressVerdict::Refused | EgressVerdict::Failed if is_first => {
            let hint = hint
                .map(|hint| format!(" ({})", shorten(hint)))
                .unwrap_or_default();
            vec![vec![
                Span::new(Style::Yellow, format!("  ⊘ {target} {}", shorten(reason))),
                dim(hint),
            ]]
        }
        EgressVerdict::Refused => vec![vec![dim(format!("  ⊘ {target} was refused {count} times"))]],
        EgressVerdict::Failed => vec![vec![dim(format!("  ⊘ {target} failed {count} times"))]],
    }
}

fn service(name: &str, state: ServiceState, reason: &str) -> Vec<Vec<Span>> {
    let name = shorten(name);
    let reason = match reason.trim() {
        "" => String::new(),
        reason => format!(": {}", shorten(reason)),
    };
    match state {
        // Everyone waits for ready; that it starts is no news.
        ServiceState::Starting => Vec::new(),
        ServiceState::Ready => vec![vec![dim(format!("  ◦ service {name} is ready"))]],
        ServiceState::Stopped => vec![vec![dim(format!("  ◦ service {name} stopped"))]],
        ServiceState::Ended => vec![vec![dim(format!("  ◦ service {name} ended{reason}"))]],
        ServiceState::Waiting => vec![vec![Span::new(
            Style::Yellow,
            format!("  ◦ service {name} is started again{reason}"),
        )]],
        ServiceState::Failed => vec![vec![Span::new(
            Style::Red,
            format!("  ◦ service {name} failed{reason}"),
        )]],
    }
}

fn sandbox_usage(usage: &SandboxUsage) -> String {
    format!(
        "  {} CPU, {} memory at most, {} on disk",
        seconds(usage.cpu_ms),
        mebibytes(usage.peak_memory_bytes),
        mebibytes(usage.disk_bytes),
    )
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1024 * 1024))
}

fn problem_line(problem: &Problem) -> Vec<Span> {
    let hint = problem
        .hint
        .as_ref()
        .map(|hint| format!(" ({hint})"))
        .unwrap_or_default();
    vec![
        Span::new(Style::Yellow, format!("! {}: {}", problem.code, problem.message)),
        dim(hint),
    ]
}

fn bounded(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= HEAD_LINES + TAIL_LINES + 1 {
        return lines.into_iter().map(shorten).collect();
    }
    let hidden = lines.len() - HEAD_LINES - TAIL_LINES;
    let head = lines[..HEAD_LINES].iter().map(|line| shorten(line));
    let tail = lines[lines.len() - TAIL_LINES..].iter().map(|line| shorten(line));
    head.chain(std::iter::once(format!("… {hidden} lines …")))
        .chain(tail)
        .collect()
}

fn shorten(line: &str) -> String {
    let line = line.replace('\n', " ");
    match line.char_indices().nth(LINE_CHARACTERS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

fn dim(text: impl Into<String>) -> Span {
    Span::new(Style::Dim, text)
}

/// A size as people read it.
fn size_of_file(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// A role as people are told it.
pub fn role_word(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Editor => "editor",
        Role::Owner => "owner",
    }
}

/// What people may do who are no members.
pub fn access_sentence(access: SessionAccess) -> &'static str {
    match access {
        SessionAccess::Members => "nobody else of this server sees it",
        SessionAccess::Viewer => "everybody else of this server may watch",
        SessionAccess::Editor => "everybody else of this server may work in it",
    }
}

#[cfg(test)]
mod tests;
