//! Programs that a bench runs beside itself: tied to us, spoken with by words on a line.
//!
//! Ending them is never left to chance: by `Drop` when we end in order, by the kernel when we don't. Start them from the
//! main thread only, as the kernel ties a child to the *thread* that made it.

use anyhow::{Context as _, Result, bail};
use std::{ffi::OsStr, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// A program that the kernel ends when we are gone, where `setpriv` (util-linux) is there; by `Drop` anyway.
pub(super) fn tied(program: impl AsRef<OsStr>) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has_setpriv = std::env::split_paths(&path).any(|dir| dir.join("setpriv").is_file());
    let mut command = if has_setpriv {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A program that talks: one line, one thing said.
pub(super) struct Talker {
    pub(super) child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Talker {
    /// Starts it; it hears us only if its standard input was made a pipe.
    pub(super) fn start(mut command: Command) -> Result<Talker> {
        let name = format!("{:?}", command.as_std().get_program());
        let mut child = command.stdout(Stdio::piped()).spawn().context(name)?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let stdin = child.stdin.take();
        Ok(Talker { child, stdin, lines })
    }

    pub(super) fn pid(&self) -> Result<u32> {
        self.child.id().context("a program ended at once")
    }

    /// Its next line.
    pub(super) async fn line(&mut self, within: Duration) -> Result<String> {
        let line = tokio::time::timeout(within, self.lines.next_line()).await;
        let line = line.with_context(|| format!("a program said nothing for {within:?}"))??;
        line.context("a program ended without a word")
    }

    /// Its next line must be `word`.
    pub(super) async fn expect(&mut self, word: &str, within: Duration) -> Result<()> {
        match self
            .line(within)
            .await
            .with_context(|| format!("waiting for `{word}`"))?
        {
            line if line == word => Ok(()),
            line => bail!("`{word}` was expected, not `{line}`"),
        }
    }

    /// Says a word to it.
    pub(super) async fn say(&mut self, word: &str) -> Result<()> {
        use tokio::io::AsyncWriteExt as _;
        let stdin = self.stdin.as_mut().context("it doesn't listen")?;
        Ok(stdin.write_all(format!("{word}\n").as_bytes()).await?)
    }
}
