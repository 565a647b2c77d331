//! The crowd: light viewers by the hundred, each with a socket and a task of its own, in one process.
//!
//! A task is woken once for a burst and reads until its socket is empty. Sockets are as a browser's: no offload on the way
//! in, so what the kernel does to cut a node's batches into datagrams is paid for.

use super::light::{Identity, Light, Told};
use anyhow::{Context as _, Result, anyhow};
use client::media::Signal;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{net::UdpSocket, sync::oneshot, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

/// Between two looks at what is due: while a viewer joins, and once it watches.
const LOOK_JOINING: Duration = Duration::from_millis(20);
const LOOK: Duration = Duration::from_millis(500);
/// A viewer that sees nothing for this long never will.
const FAILED: Duration = Duration::from_secs(20);
/// Kernel buffer of a viewer's socket, as browsers ask for.
const BUFFER: usize = 1 << 20;

/// When each picture was sent, by its number, in µs after the run began.
pub(super) struct Sent {
    began: Instant,
    at: Vec<AtomicU64>,
}

impl Sent {
    pub(super) fn new() -> Sent {
        Sent {
            began: Instant::now(),
            at: (0..0x8000).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn place(&self, number: u16) -> &AtomicU64 {
        &self.at[usize::from(number & 0x7fff)]
    }

    pub(super) fn note(&self, number: u16, at: Instant) {
        let micros = at.saturating_duration_since(self.began).as_micros() as u64;
        self.place(number).store(micros, Ordering::Relaxed);
    }

    fn since(&self, number: u16, now: Instant) -> Option<u64> {
        let now = now.saturating_duration_since(self.began).as_micros() as u64;
        match self.place(number).load(Ordering::Relaxed) {
            0 => None,
            at => now.checked_sub(at),
        }
    }
}

/// What all viewers had together since `begin`.
#[derive(Debug, Default)]
pub(super) struct Sum {
    pub(super) packets: u64,
    pub(super) lost: u64,
    pub(super) refused: u64,
}

/// Viewers that watch.
pub(super) struct Crowd {
    identity: Arc<Identity>,
    signal: Arc<dyn Signal>,
    sent: Arc<Sent>,
    delays: Arc<Mutex<Histogram<u64>>>,
    seated: Vec<Seated>,
    /// From the offer to the first keyframe, µs.
    pub(super) joins: Histogram<u64>,
}

impl Crowd {
    pub(super) fn new(signal: Arc<dyn Signal>, sent: Arc<Sent>) -> Result<Crowd> {
        Ok(Crowd {
            identity: Arc::new(Identity::generate()?),
            signal,
            sent,
            delays: Arc::new(Mutex::new(Histogram::new(3)?)),
            seated: Vec::new(),
            joins: Histogram::new(3)?,
        })
    }

    /// `count` viewers come, `at_once` at a time, and each is waited for until it could draw.
    pub(super) async fn come(&mut self, count: usize, at_once: usize) -> Result<()> {
        let mut arriving = JoinSet::new();
        for n in 0..count {
            if arriving.len() >= at_once {
                let arrived = arriving.join_next().await.context("nobody arrives")??;
                self.seat(arrived?)?;
            }
            let light = Light::new(self.identity.clone(), Instant::now());
            let arrival = arrive(light, self.signal.clone(), self.sent.clone(), self.delays.clone());
            arriving.spawn(async move { arrival.await.with_context(|| format!("viewer {}", n + 1)) });
        }
        while let Some(arrived) = arriving.join_next().await {
            self.seat(arrived??)?;
        }
        Ok(())
    }

    fn seat(&mut self, (seated, took): (Seated, Duration)) -> Result<()> {
        self.joins.record(took.as_micros() as u64)?;
        self.seated.push(seated);
        Ok(())
    }

    /// Counts from here on.
    pub(super) fn begin(&self) {
        self.delays.lock().reset();
        for seated in &self.seated {
            let mut viewer = seated.viewer.lock();
            viewer.video.begin();
            viewer.audio.begin();
            viewer.refused = 0;
        }
    }

    /// What came since `begin`.
    pub(super) fn sum(&self) -> Sum {
        let mut sum = Sum::default();
        for seated in &self.seated {
            let viewer = seated.viewer.lock();
            sum.packets += viewer.video.packets + viewer.audio.packets;
            sum.lost += viewer.video.lost() + viewer.audio.lost();
            sum.refused += viewer.refused;
        }
        sum
    }

    /// From a picture's sending to the moment at which its first packet was read, ms.
    pub(super) fn delay_ms(&self, quantile: f64) -> f64 {
        self.delays.lock().value_at_quantile(quantile) as f64 / 1e3
    }

    /// Everybody is still there.
    pub(super) async fn check(&mut self) -> Result<()> {
        let gone = self.seated.iter_mut().find(|seated| seated.task.is_finished());
        match gone {
            None => Ok(()),
            Some(seated) => (&mut seated.task).await?.context("a viewer left"),
        }
    }
}

/// A viewer that watches, and what carries it.
struct Seated {
    viewer: Arc<Mutex<Light>>,
    task: AbortOnDropHandle<Result<()>>,
}

async fn arrive(
    mut light: Light,
    signal: Arc<dyn Signal>,
    sent: Arc<Sent>,
    delays: Arc<Mutex<Histogram<u64>>>,
) -> Result<(Seated, Duration)> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    // The kernel may give less: then a burst is lost sooner, and told.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, BUFFER);
    let began = Instant::now();
    let (answer, _) = signal.offer(light.offer()).await?;
    socket.connect(light.answered(&answer)?).await?;
    let viewer = Arc::new(Mutex::new(light));
    let (draws, drawn) = oneshot::channel();
    let watching = Watching {
        viewer: viewer.clone(),
        socket,
        sent,
        delays,
        draws: Some(draws),
    };
    let mut task = AbortOnDropHandle::new(tokio::spawn(watching.run()));
    let drawn = async {
        tokio::select! {
            drawn = drawn => drawn.context("it ended before it saw a picture"),
            ended = &mut task => Err(ended?.err().unwrap_or_else(|| anyhow!("it ended at once"))),
        }
    };
    let at = tokio::time::timeout(FAILED, drawn).await.context("it sees nothing")??;
    Ok((Seated { viewer, task }, at - began))
}

/// A viewer and its socket.
struct Watching {
    viewer: Arc<Mutex<Light>>,
    socket: UdpSocket,
    sent: Arc<Sent>,
    delays: Arc<Mutex<Histogram<u64>>>,
    draws: Option<oneshot::Sender<Instant>>,
}

impl Watching {
    async fn run(mut self) -> Result<()> {
        let mut buffer = vec![0; 2048];
        let mut due = Instant::now();
        loop {
            let now = Instant::now();
            if now >= due {
                let mut viewer = self.viewer.lock();
                viewer.due(now)?;
                due = now + if viewer.is_open() { LOOK } else { LOOK_JOINING };
            }
            self.send()?;
            tokio::select! {
                readable = self.socket.readable() => readable?,
                () = tokio::time::sleep_until(due.into()) => continue,
            }
            while let Ok(length) = self.socket.try_recv(&mut buffer) {
                self.take(&buffer[..length])?;
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        let now = Instant::now();
        match self.viewer.lock().receive(now, bytes)? {
            Told::Picture(number) => {
                if let Some(delay) = self.sent.since(number, now) {
                    // It grows with what it is given; what saturates would be cut to the room that it begins with.
                    self.delays.lock().record(delay)?;
                }
            }
            Told::Drawable => {
                if let Some(draws) = self.draws.take() {
                    let _ = draws.send(now);
                }
            }
            Told::Nothing => {}
        }
        Ok(())
    }

    fn send(&self) -> Result<()> {
        for datagram in self.viewer.lock().out.drain(..) {
            self.socket.try_send(&datagram)?;
        }
        Ok(())
    }
}
