//! The program that runs inside a sandbox and tries to get out, or to use everything up. `probe attempt TARGET [NAME...]`
//! makes the attempts, each in a process of its own, and prints a [`greenroom_probe::Report`] per line;
//! `probe list` prints one per attempt without making it;
//! `probe hog KIND [NUMBER]` uses a resource up; `probe swap ONE OTHER` exchanges two names for ever;
//! `probe wait WORD` is a process to be attacked.

mod attempt;
mod hog;

use greenroom_probe::Target;
use std::process::ExitCode;

#[expect(clippy::print_stderr, reason = "a wrong call is told to whoever made it")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["attempt", target, names @ ..] => match serde_json::from_str::<Target>(target) {
            Ok(target) => attempt::run_all(&target, names),
            Err(error) => {
                eprintln!("no target: {error}");
                return ExitCode::FAILURE;
            }
        },
        ["list"] => attempt::list_all(),
        ["hog", kind, rest @ ..] => {
            let amount = rest
                .first()
                .and_then(|text| text.parse().ok())
                .unwrap_or(u64::MAX);
            return hog::run(kind, amount);
        }
        ["swap", one, other] => attempt::swap_for_ever(one, other),
        ["wait", _] => loop {
            // SAFETY: only waits for a signal.
            unsafe { libc::pause() };
        },
        _ => {
            eprintln!(
                "usage: attempt TARGET [NAME...] | list | hog KIND [NUMBER] | swap ONE OTHER | wait WORD"
            );
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
