//! The program; everything is in the library, so that tests and fuzzers can reach it.

fn main() -> std::process::ExitCode {
    greenroom_guest::run()
}
