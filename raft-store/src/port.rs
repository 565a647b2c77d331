//! The narrow door between a shard's proposer (which decides *what* is logged) and its Raft group (which logs it).
//!
//! ```text
//!   lanes --> Proposer --propose(term, payload)--> Log (a Raft group) --> applied on every replica
//!                ^---- state, leadership, heard_top ----'
//! ```
//!
//! The proposer sees no openraft type, so its simulations run over a log in memory. The order of calls is the order in
//! the log; the future that a call returns only tells what became of it.
//!
//! Deliberately absent: reads, feeds, membership. Those are `group`'s business.

use crate::{host::ReadError, state::State, types::Payload};
use auction::{Applied, AuctionId, Settled};
use futures_util::future::BoxFuture;
use parking_lot::RwLock;
use placement::NodeId;
use std::{sync::Arc, time::Instant};
use tokio::sync::watch;

/// Who leads a group, as this replica knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leadership {
    /// The Raft term.
    pub term: u64,
    /// This replica leads in that term, and has applied everything that earlier leaders committed.
    pub leading: bool,
    /// The node that leads, if one is known.
    pub leader: Option<NodeId>,
}

/// Why a proposal has no result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProposeError {
    /// Certainly not logged: this replica does not lead (in that term).
    #[error("not the leader of term {term}")]
    NotLeader {
        /// The node that may lead.
        hint: Option<NodeId>,
        /// The newest term that this replica knows.
        term: u64,
    },
    /// May be logged, now or later, or never.
    #[error("the outcome is unknown")]
    Unknown,
}

/// A shard's replicated log, as its proposer uses it.
pub trait Log: Send + Sync + 'static {
    /// Proposes one payload as the leader of `term`; resolves when it is applied here. Calls from one task are logged in
    /// call order, several in flight. Dropping the future does not take the proposal back.
    fn propose(&self, term: u64, payload: Payload) -> BoxFuture<'static, Result<Arc<Applied>, ProposeError>>;

    /// The state as applied here.
    fn state(&self) -> &RwLock<State>;

    /// Who leads; changes wake the receiver.
    fn leadership(&self) -> watch::Receiver<Leadership>;

    /// When this replica received the entry that first held the state's present `top`.
    fn heard_top(&self) -> Instant;

    /// The number of an auction that isn't in memory, to a state that has paged so many out. Doesn't wait: the state's lock may be
    /// held.
    fn cold(&self, _auction: &AuctionId, _below: u64) -> Option<u64> {
        None
    }

    /// The auction of such a number.
    fn settled(&self, _number: u64) -> BoxFuture<'static, Result<Arc<Settled>, ReadError>> {
        Box::pin(std::future::ready(Err(ReadError::NotFound)))
    }
}
