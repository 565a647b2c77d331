//! Connections that come in: each is taken, shaken hands with beside the others, and handed to the gRPC server with the
//! name of who called.
//!
//! ```text
//!   listener --accept--> handshake (at most `HANDSHAKES`, each within `PATIENCE`) --> queue --> tonic
//! ```
//!
//! A handshake has a task of its own: somebody who connects and says nothing holds up nobody. Beyond the bound new
//! connections wait in the kernel's queue.

use super::fault::{self, TlsFault};
use super::{Identity, Tls};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// Handshakes at once.
const HANDSHAKES: usize = 128;
/// Longest handshake.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that wait for the server.
const READY_MAX: usize = 64;
/// After the listener failed (too many open files, mostly).
const AGAIN: Duration = Duration::from_millis(100);

/// Who is at the other end, in the extensions of every request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// By its certificate; none: this node doesn't speak TLS.
    pub(crate) identity: Option<Identity>,
}

/// One connection.
pub(crate) struct Conn {
    io: Io,
    caller: Caller,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Conn {
    type ConnectInfo = Caller;
    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

/// All connections of a listener; dropping it stops listening.
pub(crate) struct Incoming {
    ready: mpsc::Receiver<Conn>,
}

impl Incoming {
    /// Takes connections from now on; with `tls`, only from those whom the authority knows.
    pub(crate) fn of(listener: TcpListener, tls: Option<Tls>) -> Incoming {
        let (out, ready) = mpsc::channel(READY_MAX);
        tokio::spawn(async move {
            let taken = out.clone();
            tokio::select! { () = taken.closed() => {}, () = accept(listener, tls, out) => {} }
        });
        Incoming { ready }
    }
}

impl futures_util::Stream for Incoming {
    type Item = io::Result<Conn>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(cx).map(|conn| conn.map(Ok))
    }
}

async fn accept(listener: TcpListener, tls: Option<Tls>, out: mpsc::Sender<Conn>) {
    let room = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, from)) => {
                // An answer of a few bytes must not wait for an acknowledgement of the last one.
                let _ = stream.set_nodelay(true);
                tokio::spawn(greet(stream, from, tls.clone(), out.clone(), permit));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

async fn greet(
    stream: TcpStream,
    from: SocketAddr,
    tls: Option<Tls>,
    out: mpsc::Sender<Conn>,
    permit: OwnedSemaphorePermit,
) {
    let greeted = match tls {
        None => Ok(Conn {
            io: Io::Plain(stream),
            caller: Caller { identity: None },
        }),
        Some(tls) => match tokio::time::timeout(PATIENCE, shake(stream, &tls)).await {
            Ok(shaken) => shaken,
            Err(_) => Err(TlsFault::new("tls_handshake", "no handshake in time")),
        },
    };
    match greeted {
        // A server that has ended takes nobody.
        Ok(conn) => drop(out.send(conn).await),
        Err(fault) => {
            crate::metrics::tls_failed("accept", fault.code);
            tracing::warn!(code = fault.code, %from, %fault, "a connection was refused");
        }
    }
    drop(permit);
}

async fn shake(stream: TcpStream, tls: &Tls) -> Result<Conn, TlsFault> {
    let acceptor = TlsAcceptor::from(tls.now().server.clone());
    let stream = acceptor
        .accept(stream)
        .await
        .map_err(|error| fault::of_io(&error).unwrap_or_else(|| TlsFault::new("tls_handshake", error.to_string())))?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let shown = shown.ok_or_else(|| TlsFault::new("tls_no_certificate", "the caller showed none"))?;
    let (identity, _) = Identity::of(shown)?;
    Ok(Conn {
        io: Io::Tls(Box::new(stream)),
        caller: Caller {
            identity: Some(identity),
        },
    })
}

impl AsyncRead for Conn {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Io::Tls(io) => Pin::new(io.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io.as_mut()).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Io::Tls(io) => Pin::new(io.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures_util::StreamExt as _;

    /// The server's own `tcp_nodelay` counts only for listeners that it binds itself; ours are bound before.
    #[tokio::test]
    async fn answers_to_other_nodes_are_sent_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = Incoming::of(listener, None);
        let _client = TcpStream::connect(address).await.unwrap();
        let Io::Plain(stream) = incoming.next().await.unwrap().unwrap().io else {
            panic!("no TLS was asked for")
        };
        assert!(
            stream.nodelay().unwrap(),
            "small answers wait for the peer's acknowledgement"
        );
    }
}
