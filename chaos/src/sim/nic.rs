//! A simulated machine's kernel: the sockets of a node, as a host of the simulated network.
//!
//! ```text
//!   node's process (its own runtime, may be killed, frozen, hurried)        the kernel (a turmoil host)
//!      dial ---------------- address, one end of a pipe -------------------> connect, copy both ways
//!      tonic server <------- one end of a pipe ----------------------------- accept, copy both ways
//!      datagrams <---------- inbox, outbox --------------------------------> UDP
//! ```
//!
//! Why kernel and process are two: a frozen process doesn't freeze its sockets, a killed one leaves a kernel that says so
//! to its peers, and a process with a fast clock doesn't have a fast network. The process runs on a runtime that the
//! simulation ticks itself (`cluster`); the kernel on turmoil's.
//!
//! Deliberately absent: bandwidth. Pipes hold 64 KiB, so a process that doesn't read stops its peers, as TCP would.

use super::mail::Stamp;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use raft_store::Dial;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::DuplexStream,
    sync::{mpsc, oneshot, watch},
};
use turmoil::net::{TcpListener, TcpStream, UdpSocket};

/// Where nodes talk to nodes.
pub(super) const RAFT_PORT: u16 = 7001;
/// Where edges talk to nodes.
pub(super) const MAIL_PORT: u16 = 7002;
/// What waits in a queue between kernel and process; beyond it datagrams are lost.
const QUEUE: usize = 4096;
const PIPE: usize = 64 * 1024;
const CONNECT_WITHIN: Duration = Duration::from_millis(500);

type Dialled = (String, oneshot::Sender<io::Result<DuplexStream>>);
type Datagram = (Stamp, SocketAddr);

/// A process's listening sockets.
struct Sockets {
    accept: mpsc::Sender<io::Result<DuplexStream>>,
    inbox: mpsc::Sender<Datagram>,
}

/// What a process and its kernel share.
pub(super) struct Nic {
    dial: mpsc::Sender<Dialled>,
    dialled: tokio::sync::Mutex<mpsc::Receiver<Dialled>>,
    outbox: mpsc::Sender<Datagram>,
    out: tokio::sync::Mutex<mpsc::Receiver<Datagram>>,
    sockets: Mutex<Option<Sockets>>,
    /// Wires of this machine that are open now end when it changes.
    resets: watch::Sender<u64>,
}

impl Nic {
    pub(super) fn new() -> Arc<Nic> {
        let (dial, dialled) = mpsc::channel(QUEUE);
        let (outbox, out) = mpsc::channel(QUEUE);
        Arc::new(Nic {
            dial,
            dialled: tokio::sync::Mutex::new(dialled),
            outbox,
            out: tokio::sync::Mutex::new(out),
            sockets: Mutex::new(None),
            resets: watch::channel(0).0,
        })
    }

    /// Ends all wires of this machine. Turmoil's TCP sends nothing twice: a wire that lost something is stuck, where a
    /// real one would go on, or be reset, as soon as anything passes again.
    pub(super) fn reset(&self) {
        self.resets.send_modify(|n| *n += 1);
    }

    /// A process listens: its incoming wires and datagrams.
    pub(super) fn listen(&self) -> (mpsc::Receiver<io::Result<DuplexStream>>, mpsc::Receiver<Datagram>) {
        let (accept, accepted) = mpsc::channel(QUEUE);
        let (inbox, mail) = mpsc::channel(QUEUE);
        *self.sockets.lock() = Some(Sockets { accept, inbox });
        (accepted, mail)
    }

    /// The process is gone: nobody listens.
    pub(super) fn deaf(&self) {
        *self.sockets.lock() = None;
    }

    /// How this machine reaches others.
    pub(super) fn dialler(self: &Arc<Nic>) -> Dial {
        let nic = self.clone();
        Dial::by(move |_, endpoint| {
            let dial = nic.dial.clone();
            let wire = move |to: tonic::codegen::http::Uri| {
                let (dial, to) = (dial.clone(), to.authority().map(ToString::to_string));
                async move { open(dial, to.unwrap_or_default()).await.map(TokioIo::new) }
            };
            endpoint.connect_with_connector_lazy(tower::service_fn(wire))
        })
    }

    /// Sends a datagram, or loses it.
    pub(super) fn send(&self, stamp: Stamp, to: SocketAddr) {
        let _ = self.outbox.try_send((stamp, to));
    }
}

/// Asks the kernel for a wire to an address.
async fn open(dial: mpsc::Sender<Dialled>, to: String) -> io::Result<DuplexStream> {
    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    let (answer, wire) = oneshot::channel();
    dial.send((to, answer)).await.map_err(|_| refused())?;
    wire.await.map_err(|_| refused())?
}

/// The kernel's work, until the machine loses power.
pub(super) async fn run(nic: Arc<Nic>) -> turmoil::Result {
    let any = |port| SocketAddr::from((IpAddr::from(Ipv4Addr::UNSPECIFIED), port));
    let listener = TcpListener::bind(any(RAFT_PORT)).await?;
    let udp = UdpSocket::bind(any(MAIL_PORT)).await?;
    let (mut dialled, mut out) = (nic.dialled.lock().await, nic.out.lock().await);
    let mut buffer = [0; 8];
    loop {
        tokio::select! {
            biased;
            accepted = listener.accept() => {
                let (far, _) = accepted?;
                let (mine, theirs) = tokio::io::duplex(PIPE);
                let taken = nic.sockets.lock().as_ref().is_some_and(|s| s.accept.try_send(Ok(theirs)).is_ok());
                if taken {
                    tokio::task::spawn_local(carry(far, mine, nic.resets.subscribe()));
                }
            }
            Some((address, answer)) = dialled.recv() => {
                tokio::task::spawn_local(connect(address, answer, nic.resets.subscribe()));
            }
            got = udp.recv_from(&mut buffer) => {
                let (_, from) = got?;
                if let Some(sockets) = nic.sockets.lock().as_ref() {
                    let _ = sockets.inbox.try_send((buffer, from));
                }
            }
            Some((stamp, to)) = out.recv() => {
                let _ = udp.send_to(&stamp, to).await;
            }
        }
    }
}

async fn carry(mut far: TcpStream, mut mine: DuplexStream, mut resets: watch::Receiver<u64>) {
    tokio::select! {
        biased;
        _ = resets.changed() => {}
        _ = tokio::io::copy_bidirectional(&mut far, &mut mine) => {}
    }
}

async fn connect(address: String, answer: oneshot::Sender<io::Result<DuplexStream>>, resets: watch::Receiver<u64>) {
    let wire = match tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
        Ok(Ok(wire)) => Ok(wire),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    match wire {
        Ok(far) => {
            let (mine, theirs) = tokio::io::duplex(PIPE);
            if answer.send(Ok(theirs)).is_ok() {
                carry(far, mine, resets).await;
            }
        }
        Err(error) => drop(answer.send(Err(error))),
    }
}
