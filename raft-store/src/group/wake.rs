//! Before a proposal is passed on: is there a majority that still knows this leader?
//!
//! openraft refuses what is proposed when no majority answered for a lease, and a shard that rests has asked nobody. So
//! the forwarder asks the followers once, by a heartbeat, and waits for a majority: a round trip, after which the shard is
//! awake at all its replicas.
//!
//! The forwarder is a task, so that proposals take their places in the order of calls; see `group`.
//!
//! Deliberately absent: retries. A proposal that finds no majority is refused, and its sender asks again.

use super::Proposal;
use crate::{
    metrics,
    rest::Rest,
    server::Handle,
    types::{LeaderId, Logged},
    versions::Agreed,
};
use openraft::{
    Instant as _, ServerState, async_runtime::watch::WatchReceiver, impls::ProgressResponder, vote::RaftLeaderId,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// Makes sure that a leader may write: openraft refuses what is proposed when no majority answered for a lease, and a
/// shard that rests has asked nobody.
#[derive(Clone)]
pub(super) struct Wake {
    pub(super) raft: Handle,
    pub(super) rest: Arc<Rest>,
    pub(super) lease: Duration,
    pub(super) agreed: Arc<Agreed>,
}

impl Wake {
    fn is_fresh(&self) -> bool {
        let data = self.raft.data_metrics();
        let data = data.borrow_watched();
        data.last_quorum_acked
            .is_some_and(|at| at.elapsed() < self.lease * 2 / 3)
    }

    /// Nothing to do (on a replica that doesn't lead, that is the end of it: openraft says so to the proposal itself).
    fn is_up(&self) -> bool {
        let server = self.raft.server_metrics();
        let server = server.borrow_watched();
        server.state != ServerState::Leader || server.membership_config.voter_ids().count() == 1 || self.is_fresh()
    }

    /// Asks the followers, and waits for a majority, for a lease at most.
    pub(super) async fn up(&self) {
        if self.is_up() {
            return;
        }
        if self.rest.stir() {
            metrics::woken("proposal");
        }
        // An error means that the group has stopped: the proposal will be told.
        let _ = self.raft.trigger().heartbeat().await;
        let mut data = self.raft.data_metrics();
        let acked = async {
            while !self.is_up() {
                if data.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(self.lease, acked).await;
    }
}

/// Passes proposals on until the group is gone.
pub(super) async fn forward(wake: Wake, id: u64, mut waiting: mpsc::Receiver<Proposal>) {
    let raft = wake.raft.clone();
    while let Some(Proposal { term, payload, passed }) = waiting.recv().await {
        wake.up().await;
        let (responder, outcome) = ProgressResponder::complete_only();
        let leader = LeaderId::new(term, id);
        let taken = raft
            .write(Logged::in_format(payload, wake.agreed.format()))
            .with_leader(leader)
            .responder(responder)
            .await;
        if taken.is_ok() {
            // The proposer may have gone; the proposal hasn't.
            let _ = passed.send(outcome);
        }
    }
}
