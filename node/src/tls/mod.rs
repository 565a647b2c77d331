//! Who is who between nodes: mutual TLS by certificates of the cluster's own authority, replaced without a restart.
//!
//! ```text
//!   files: ca, cert, key --look every few seconds--> Loaded (checked whole) --swap--> Tls
//!                                                                                       |   |
//!   dial:   tonic connector --handshake with what is loaded *now*, name of the node ----'   |
//!   accept: listener --handshake with what is loaded *now*--> Conn + Identity --> gate <----'
//!                                                                                  |
//!                                            who may call what (`gate`) <----------'
//! ```
//!
//! A certificate says who its holder is, in a name and nothing else (`identity`): node 3, the operator alice. A caller is
//! what its certificate says, whatever the message says. The client end checks the name of the node that it means to reach,
//! so that an address that changed hands leads nowhere.
//!
//! **Rotation.** Each handshake takes what is loaded at that moment, so replaced files serve from the next handshake on; a
//! connection that stands goes on with what it began with, and no call notices. New files are taken only if they are good
//! together: a key that doesn't fit (the two files are written one after the other), a certificate of another node, an
//! expired one: all keep the old ones in use, and say so. An authority is replaced by a file that holds both for a while.
//!
//! Every refusal has a code (`fault`), at both ends: an operator who reads `tls_expired` knows what to do.
//!
//! Deliberately absent: revocation lists (certificates are short-lived and cheap; a lost key means a new authority), TLS 1.2,
//! session tickets (a handshake is rare here, and a ticket would outlive the certificate that it was given for).

mod accept;
mod dial;
mod fault;
mod gate;
mod identity;
pub(crate) mod issue;
mod load;
#[cfg(test)]
mod tests;

pub(crate) use accept::{Caller, Incoming};
pub(crate) use dial::{channel, connect};
pub(crate) use fault::{CODES, TlsFault};
pub(crate) use gate::GateLayer;
pub(crate) use identity::Identity;
pub(crate) use issue::Issue;

use arc_swap::ArcSwap;
use load::{Files, Loaded};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What this process shows and trusts, as of now. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tls {
    files: Arc<Files>,
    loaded: Arc<ArcSwap<Loaded>>,
}

impl Tls {
    /// Reads the files; they must be good. With `node` the certificate must be that node's.
    pub(crate) fn open(ca: PathBuf, cert: PathBuf, key: PathBuf, node: Option<u64>) -> Result<Tls, TlsFault> {
        let files = Files { ca, cert, key, node };
        let loaded = Loaded::read(&files)?;
        crate::metrics::tls_begins();
        loaded.measure();
        Ok(Tls {
            files: Arc::new(files),
            loaded: Arc::new(ArcSwap::from_pointee(loaded)),
        })
    }

    /// Follows the files for as long as it is polled.
    pub(crate) async fn follow(self, look: Duration) {
        let mut every = tokio::time::interval(look);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told: Option<String> = None;
        loop {
            every.tick().await;
            let tls = self.clone();
            let looked = tokio::task::spawn_blocking(move || tls.look()).await;
            match looked {
                Ok(Ok(())) => told = None,
                // Once per reason: the files stay as they are until somebody mends them.
                Ok(Err(fault)) => {
                    let text = fault.to_string();
                    if told.as_ref() != Some(&text) {
                        tracing::error!(code = fault.code, %fault, "new certificates are not taken; the old ones stay in use");
                        crate::metrics::tls_failed("rotate", fault.code);
                        told = Some(text);
                    }
                }
                Err(_) => {}
            }
        }
    }

    /// Looks once; takes what is new and good.
    pub(crate) fn look(&self) -> Result<(), TlsFault> {
        let now = self.loaded.load_full();
        now.measure();
        if now.is_of(&self.files) {
            return Ok(());
        }
        let new = Loaded::read(&self.files)?;
        tracing::info!(who = %new.identity, until = %new.until(), "new certificates are in use");
        new.measure();
        self.loaded.store(Arc::new(new));
        crate::metrics::tls_rotated();
        Ok(())
    }

    fn now(&self) -> Arc<Loaded> {
        self.loaded.load_full()
    }

    /// Who this process is, by its certificate.
    #[cfg(test)]
    pub(crate) fn identity(&self) -> Identity {
        self.now().identity.clone()
    }
}
