//! The accept loop: connections in, bounded in number and in patience.
//!
//! Our own instead of `axum::serve` for two reasons: a client that sends its request's head byte by byte is let go, and a
//! flood of connections is turned away before it costs memory. What an accept can fail with (no more files, a peer that
//! hung up) never ends the loop.

use crate::{edge::State, metrics};
use axum::{Router, extract::ConnectInfo, extract::Request};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time,
};
use tower::ServiceExt;

/// Pause after an accept that failed: what it failed with (no more files) doesn't pass at once.
const AGAIN: Duration = Duration::from_millis(50);

pub(crate) async fn serve(state: &Arc<State>, listener: TcpListener, app: Router) -> io::Result<()> {
    let options = &state.options;
    let mut http = auto::Builder::new(TokioExecutor::new());
    let head = Duration::from_millis(options.head_ms);
    http.http1().timer(TokioTimer::new()).header_read_timeout(head);
    let room = Arc::new(Semaphore::new(options.connections_max));
    let graceful = GracefulShutdown::new();
    let mut draining = state.draining.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = async { let _ = draining.wait_for(|d| *d).await; } => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                time::sleep(AGAIN).await;
                continue;
            }
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            metrics::connection("turned_away");
            continue;
        };
        metrics::connection("accepted");
        let connection = http.serve_connection_with_upgrades(TokioIo::new(nodelay(stream)), service(&app, peer));
        let connection = graceful.watch(connection.into_owned());
        tokio::spawn(async move {
            // Ends in an error for every client that hangs up in mid-air: not worth a line.
            let _ = connection.await;
            drop(permit);
        });
    }
    drop(listener);
    // A client that keeps its connection busy must not keep the process.
    let patience = Duration::from_millis(options.drain_ms + options.deadline_ms);
    if time::timeout(patience, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were cut off: they outlasted the drain");
    }
    Ok(())
}

fn nodelay(stream: TcpStream) -> TcpStream {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was not set");
    }
    stream
}

/// The app, telling each request whom it comes from.
fn service(
    app: &Router,
    peer: SocketAddr,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = axum::response::Response,
    Error = std::convert::Infallible,
    Future: Send + 'static,
> + Clone
+ Send
+ 'static {
    let app = app.clone();
    TowerToHyperService::new(tower::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        app.clone().oneshot(request.map(axum::body::Body::new))
    }))
}
