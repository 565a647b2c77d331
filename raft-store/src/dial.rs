//! How another node is reached, and who is at the other end: what the process that mounts us says about the wire.
//!
//! This crate knows addresses and messages. Whether bytes are encrypted, and by which certificates, is `node`'s: it gives a
//! `Dial` for what goes out, and puts a `Speaker` into the extensions of what comes in.
//!
//! Deliberately absent: TLS itself.

use placement::NodeId;
use std::{fmt, sync::Arc};
use tonic::transport::{Channel, Endpoint};

/// Makes a channel to a node out of an endpoint with its address. Lazy: it dials when there is something to say.
#[derive(Clone)]
pub struct Dial(Arc<dyn Fn(NodeId, &Endpoint) -> Channel + Send + Sync>);

impl Dial {
    /// By this function.
    pub fn by(dial: impl Fn(NodeId, &Endpoint) -> Channel + Send + Sync + 'static) -> Dial {
        Dial(Arc::new(dial))
    }

    /// A channel to a node.
    #[must_use]
    pub fn channel(&self, node: NodeId, endpoint: &Endpoint) -> Channel {
        (self.0)(node, endpoint)
    }
}

/// In the clear.
impl Default for Dial {
    fn default() -> Dial {
        Dial::by(|_, endpoint| endpoint.connect_lazy())
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dial")
    }
}

/// The node at the other end, by its certificate; in the extensions of a request. None: nobody checks here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Speaker(pub NodeId);
