//! Connections that go out: a tonic connector that shakes hands with what is loaded at that moment.
//!
//! The certificate must be that of the node that is meant, wherever the address leads; who doesn't know the number of the
//! node that it calls (a node that joins, an operator) is content with any node of the cluster.
//!
//! With TLS 1.3 a client learns that *its own* certificate was refused only from the first bytes that it reads. An HTTP/2 server
//! speaks first (its settings), so a connection is called good when something of that has come: else every call on it would
//! fail with the bare news that it broke.

use super::fault;
use super::{Tls, TlsFault, identity};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// A channel to a node: over TLS if this process has any. `node`: which one it must be.
pub(crate) fn channel(tls: Option<&Tls>, node: Option<u64>, endpoint: &Endpoint) -> Channel {
    match tls {
        None => endpoint.connect_lazy(),
        Some(tls) => endpoint.connect_with_connector_lazy(Connector { tls: tls.clone(), node }),
    }
}

/// The same, connected: for whoever calls once and wants to know why it doesn't work.
pub(crate) async fn connect(tls: Option<&Tls>, endpoint: &Endpoint) -> Result<Channel, tonic::transport::Error> {
    match tls {
        None => endpoint.connect().await,
        Some(tls) => {
            let connector = Connector {
                tls: tls.clone(),
                node: None,
            };
            endpoint.connect_with_connector(connector).await
        }
    }
}

#[derive(Clone)]
struct Connector {
    tls: Tls,
    node: Option<u64>,
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Coded>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let dialled = this.dial(&to).await;
            if let Some(fault) = dialled.as_ref().err().and_then(fault::of_io) {
                crate::metrics::tls_failed("dial", fault.code);
                tracing::warn!(code = fault.code, %to, %fault, "no connection to a node");
            }
            dialled.map(TokioIo::new)
        })
    }
}

impl Connector {
    async fn dial(&self, to: &Uri) -> io::Result<Coded> {
        let (host, port) = (to.host().unwrap_or_default(), to.port_u16().unwrap_or(443));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(identity::dns(self.node)).map_err(io::Error::other)?;
        let connector = TlsConnector::from(self.tls.now().client.clone());
        let shaken = connector.connect(name, stream).await;
        let shaken = shaken.map_err(|error| {
            // Who doesn't speak TLS hangs up on a greeting that it can't read.
            let plain = || TlsFault::new("tls_plain", format!("no handshake: {error}"));
            io::Error::new(error.kind(), fault::of_io(&error).unwrap_or_else(plain))
        })?;
        let mut greeted = BufReader::new(shaken);
        match greeted.fill_buf().await {
            Ok([]) => {
                let fault = TlsFault::new("tls_handshake", "the other end hung up after the handshake");
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, fault))
            }
            Ok(_) => Ok(Coded(greeted)),
            Err(error) => Err(fault::coded(error)),
        }
    }
}

/// A stream whose errors carry their code.
pub(crate) struct Coded(BufReader<TlsStream<TcpStream>>);

impl AsyncRead for Coded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf).map_err(fault::coded)
    }
}

impl AsyncWrite for Coded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf).map_err(fault::coded)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx).map_err(fault::coded)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0)
            .poll_write_vectored(cx, bufs)
            .map_err(fault::coded)
    }
    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
