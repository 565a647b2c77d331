//! The command line: what can be asked of the binary, and the few lines that it prints itself.

use crate::admin::{self, AdminArgs};
use crate::config::{self, Environment, Flags, Source, TomlFile};
use crate::demo::{self, Demo};
use crate::tls::{self, Issue};
use crate::{process, telemetry, verify, wal};
use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// A live auction service: rush countdowns, live video, one binary.
#[derive(Parser)]
#[command(name = "rushroom", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one node; or make the certificates by which nodes know each other.
    #[command(args_conflicts_with_subcommands = true)]
    Node {
        #[command(subcommand)]
        issue: Option<Issue>,
        #[command(flatten)]
        settings: Settings,
        /// End hard when the process with this id is no longer the parent (a demo's children).
        #[arg(long, value_name = "PID", hide = true)]
        die_with: Option<u32>,
    },
    /// Run three nodes and a show on this machine.
    Demo(Box<Demo>),
    /// Recompute an exported auction: chain, rules, outcome.
    Verify {
        /// What `GET /api/v1/auctions/{id}/export` gave.
        file: PathBuf,
    },
    /// Look at a node's write-ahead log; nothing is changed.
    #[command(subcommand)]
    Wal(wal::Wal),
    /// Print the description of the HTTP API (OpenAPI, JSON).
    Openapi,
    /// Operate a cluster: nodes, shards, moves.
    Admin(Box<AdminArgs>),
    /// Work with settings.
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Read all settings, tell every fault, start nothing.
    Check(Settings),
    /// Print a file with every setting at its default.
    Default,
    /// Print the reference of settings, in Markdown.
    Doc,
}

/// Where settings come from; flags win over RUSHROOM_* variables, those over the file.
#[derive(Args)]
struct Settings {
    /// A TOML file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, as in `--set http.listen=127.0.0.1:0`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

/// Does what the command line says.
pub(crate) fn run() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Node { issue: Some(what), .. } => say(&tls::issue::issue(&what)?),
        Command::Node { settings, die_with, .. } => run_node(&settings, die_with),
        Command::Demo(demo) => {
            telemetry::lines(
                "warn,rtc=error,rtc_ice=error,rtc_dtls=error,webrtc=error,rushroom=info,rushroom::demo::show=warn",
            )?;
            runtime()?.block_on(demo::run(*demo))
        }
        Command::Verify { file } => run_verify(&file),
        Command::Wal(what) => wal::run(&what),
        Command::Admin(args) => runtime()?.block_on(admin::run(*args, |shell| {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "rushroom", &mut script);
            String::from_utf8_lossy(&script).into_owned()
        })),
        Command::Openapi => say(&(router::openapi() + "\n")),
        Command::Config { what } => match what {
            ConfigCommand::Check(settings) => Ok(match read(&settings)? {
                Some(_) => say("settings are good\n")?,
                None => ExitCode::FAILURE,
            }),
            ConfigCommand::Default => say(&config::default_file()),
            ConfigCommand::Doc => say(&config::doc()),
        },
    }
}

fn run_verify(file: &std::path::Path) -> Result<ExitCode> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let export = verify::read(&text)?;
    let summary = verify::verify(&export)?;
    say(&verify::told(&export, &summary))
}

fn run_node(settings: &Settings, die_with: Option<u32>) -> Result<ExitCode> {
    if let Some(parent) = die_with {
        follow_to_the_end(parent)?;
    }
    let Some(config) = read(settings)? else {
        return Ok(ExitCode::FAILURE);
    };
    runtime()?.block_on(async {
        let telemetry = telemetry::start(&config)?;
        let ended = process::run(config).await;
        telemetry.stop();
        ended.map(|()| ExitCode::SUCCESS)
    })
}

/// Asks the kernel to kill this process when its parent ends.
fn follow_to_the_end(parent: u32) -> Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL)).context("following the parent's end")?;
    // It may have ended before we asked.
    let now = getppid().map(|pid| pid.as_raw_nonzero().get().cast_unsigned());
    anyhow::ensure!(now == Some(parent), "the parent has ended already");
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        // Else a task in the threads' common queue waits while tasks of their own wake each other: with a thousand busy
        // sockets that was the slowest hundredth of all bids (docs/benchmarks.md).
        .global_queue_interval(1)
        .enable_all()
        .build()
        .context("starting the runtime")
}

/// The settings, or `None` once all their faults are told.
fn read(settings: &Settings) -> Result<Option<config::Config>> {
    let file = match &settings.config {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            Some(TomlFile::parse(&path.display().to_string(), &text))
        }
        None => None,
    };
    let (environment, flags) = (Environment::own(), Flags::parse(&settings.sets));
    let mut sources: Vec<&dyn Source> = Vec::new();
    sources.extend(file.as_ref().map(|f| f as &dyn Source));
    sources.push(&environment);
    sources.push(&flags);
    match config::read(&sources) {
        Ok(config) => Ok(Some(config)),
        Err(faults) => {
            for fault in faults {
                complain(&fault.to_string());
            }
            Ok(None)
        }
    }
}

/// Prints to stdout. A closed pipe is the reader's choice, not our failure.
pub(crate) fn say(text: &str) -> Result<ExitCode> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e).context("writing to stdout"),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Prints a line to stderr; when even that fails nobody is left to tell.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "rushroom: {line}");
}
