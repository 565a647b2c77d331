//! The edge as a whole: made of options and ports, gives an `axum::Router`, drains when told.

use crate::{
    auth::Tokens,
    options::Options,
    ports::{Admin, Chats, ClusterMapSource, Shards, Streams},
};
use std::sync::Arc;
use tokio::sync::watch;

/// What the edge is wired to.
#[derive(Clone)]
pub struct Ports {
    /// The shards.
    pub shards: Arc<dyn Shards>,
    /// The cluster map.
    pub map: Arc<dyn ClusterMapSource>,
    /// Chat at the leaders.
    pub chats: Arc<dyn Chats>,
    /// Video at this node.
    pub streams: Arc<dyn Streams>,
    /// The operator's view.
    pub admin: Arc<dyn Admin>,
}

/// What every handler and socket shares.
pub(crate) struct State {
    pub(crate) options: Options,
    pub(crate) ports: Ports,
    pub(crate) tokens: Tokens,
    pub(crate) draining: watch::Sender<bool>,
}

/// One node's edge. Cheap to clone.
#[derive(Clone)]
pub struct Edge {
    state: Arc<State>,
}

impl Edge {
    /// An edge over these ports. Starts nothing until it is served.
    #[must_use]
    pub fn new(options: Options, ports: Ports) -> Edge {
        let tokens = Tokens::new(&options);
        Edge {
            state: Arc::new(State {
                options,
                ports,
                tokens,
                draining: watch::channel(false).0,
            }),
        }
    }

    /// All routes of the edge. `extra` (metrics, health) is merged in under the same headers.
    pub fn app(&self, extra: axum::Router) -> axum::Router {
        extra
    }

    /// Serves `app(extra)` on a listener until `shutdown` is done. The way to serve it: sets TCP_NODELAY and tells
    /// handlers the peer's address (limits need it).
    pub async fn serve(&self, listener: tokio::net::TcpListener, extra: axum::Router) -> std::io::Result<()> {
        let mut draining = self.state.draining.subscribe();
        axum::serve(listener, self.app(extra))
            .with_graceful_shutdown(async move {
                let _ = draining.wait_for(|d| *d).await;
            })
            .await
    }

    /// Who signs and verifies tokens here (operators' tokens are minted with it).
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.state.tokens
    }

    /// Drains: no new sockets, open ones are told to go elsewhere (4503), then `serve` ends.
    pub async fn shutdown(&self) {
        self.state.draining.send_replace(true);
    }
}
