//! `chaos`: breaks a real cluster on purpose and checks the promises.
//!
//! ```text
//!   chaos run PLAN   starts nodes, drives people, kills leaders --> DIR/history.jsonl --> chaos check
//!   chaos bench …    the same cluster under load, no faults (or only kills) --> one line of JSON
//!   chaos prove      the checks themselves, against planted bugs
//! ```
//!
//! It never links `node`: what it knows of the product it knows through the API, like everyone else.

mod book;
mod check;
mod history;
mod prove;

use clap::{Parser, Subcommand};
use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

#[derive(Parser)]
#[command(name = "chaos", about = "Breaks a real cluster on purpose and checks the promises.")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Checks C1-C13 on histories of one run; exit 0 pass, 1 fail, 2 unknown.
    Check {
        /// `rushroom-history/1` files; they are read as one.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Proves the checks: each planted bug must be caught by the check that it is for.
    Prove {
        /// Of the simulated runs.
        #[arg(long, default_value_t = 3)]
        seed: u64,
    },
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter())
        .init();
    let mut text = String::new();
    let status = match Args::parse().what {
        What::Check { files } => check_files(&files, &mut text),
        What::Prove { seed } => prove::prove(seed, &mut text).map(prove::status).map_err(Into::into),
    };
    say(&text);
    match status {
        Ok(status) => ExitCode::from(status.code()),
        Err(error) => {
            say(&format!("chaos: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn filter() -> tracing_subscriber::EnvFilter {
    tracing_subscriber::EnvFilter::try_from_env("RUSHROOM_LOG").unwrap_or_else(|_| "info".into())
}

fn check_files(files: &[PathBuf], out: &mut String) -> anyhow::Result<check::Status> {
    let history = history::History::read(files)?;
    let report = check::check(&history);
    report.print(&history, out)?;
    Ok(report.status())
}

/// The one place that speaks on stdout.
#[allow(clippy::print_stdout)]
fn say(text: &str) {
    let mut line = String::new();
    let _ = write!(line, "{text}");
    println!("{}", line.trim_end());
}
