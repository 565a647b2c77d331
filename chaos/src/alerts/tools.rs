//! How a condition is made from outside: a small disk, a slow one, a wire that is cut, a page of made-up metrics.
//!
//! Nothing here is known to the node: its binary is the one that operators run.

use anyhow::{Context as _, Result, ensure};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Bytes of the small disk.
const DISK: u64 = 192 << 20;

/// A file system in memory, mounted where a node keeps its data; needs root, and a mount namespace of one's own is polite.
pub(super) struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    pub(super) fn mount(at: &Path) -> Result<SmallDisk> {
        std::fs::create_dir_all(at)?;
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK}"), "rushroom-alerts"])
            .arg(at)
            .status()
            .context("running mount")?;
        ensure!(
            done.success(),
            "a small disk at {}: {done} (are you root?)",
            at.display()
        );
        Ok(SmallDisk { at: at.into() })
    }

    /// Fills it until only so many bytes are free.
    pub(super) fn leave(&self, free: u64) -> Result<()> {
        let stat = rustix::fs::statvfs(&self.at)?;
        let mut now = stat.f_bavail * stat.f_frsize;
        let mut filler = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.filler())?;
        let block = vec![0x5a_u8; 64 << 10];
        while now > free {
            let n = block.len().min(usize::try_from(now - free).unwrap_or(usize::MAX));
            match filler.write_all(&block[..n]) {
                Ok(()) => now -= n as u64,
                // As full as it can be.
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(super) fn free(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(&self.at)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    pub(super) fn clear(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

/// A process whose every fdatasync takes longer, until this is dropped.
pub(super) struct SlowDisk(Child);

impl SlowDisk {
    pub(super) fn of(pid: u32, more_ms: u64) -> Result<SlowDisk> {
        let child = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e"])
            .arg(format!("inject=fdatasync:delay_enter={}", more_ms * 1_000))
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting strace (Debian's package has it)")?;
        Ok(SlowDisk(child))
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // SIGTERM, so that it lets go of the process first.
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

/// The address by which others reach a node: cut, it hears nobody, while it still reaches them.
pub(super) struct Gate {
    open: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Gate {
    pub(super) async fn open(port: u16, to: String) -> Result<Gate> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let open = watch::channel(true).0;
        let mut tasks = JoinSet::new();
        let state = open.subscribe();
        tasks.spawn(async move {
            let mut carried = JoinSet::new();
            while let Ok((from, _)) = listener.accept().await {
                carried.spawn(carry(from, to.clone(), state.clone()));
                while carried.try_join_next().is_some() {}
            }
        });
        Ok(Gate { open, _tasks: tasks })
    }

    pub(super) fn set(&self, open: bool) {
        self.open.send_replace(open);
    }
}

async fn carry(mut from: TcpStream, to: String, mut open: watch::Receiver<bool>) {
    if !*open.borrow_and_update() {
        return;
    }
    let Ok(mut there) = TcpStream::connect(to).await else {
        return;
    };
    let _ = (from.set_nodelay(true), there.set_nodelay(true));
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut from, &mut there) => {}
        _ = open.wait_for(|open| !open) => {}
    }
}

/// A page of one made-up counter.
pub(super) struct Forged {
    pub(super) url: String,
    value: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Forged {
    pub(super) async fn serve(series: &'static str) -> Result<Forged> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let value = Arc::new(AtomicU64::new(0));
        let shown = value.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let body = format!("{series} {}\n", shown.load(Ordering::Relaxed));
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                let mut asked = [0; 2048];
                let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut asked).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Ok(Forged {
            url,
            value,
            _tasks: tasks,
        })
    }

    pub(super) fn set(&self, value: u64) {
        self.value.store(value, Ordering::Relaxed);
    }
}
