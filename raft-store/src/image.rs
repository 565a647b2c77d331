//! One shard's state at one applied index, whole: what a backup holds.
//!
//! ```text
//!   leader: ReadIndex (a majority says that nothing newer was acknowledged) --> state, as a snapshot's body --> bytes
//!   anywhere: bytes --> state again --> every auction's chain and rules recomputed --> digest
//! ```
//!
//! The body is a snapshot's (`log.v1.State`), so that what is restored is what replicas give each other every day. It is
//! read back by the same code before it is handed out: an image that can't be restored is never called one.
//!
//! Deliberately absent: where images are kept (`node::backup`).

use crate::{
    host::{Host, ReadError},
    snapshot::{self, Image as Taken},
    state::State,
    state_machine::blocking,
};
use auction::verify;
use bytes::Bytes;
use placement::ShardId;
use std::{io, time::Duration};

/// How long the leader may take to be confirmed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an image says, once all of it was recomputed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proven {
    /// The log entry that it goes up to.
    pub index: u64,
    /// The shard's clock there.
    pub top: u64,
    /// Auctions in it.
    pub auctions: u64,
    /// Events in them, each bound to the one before and following from the rules.
    pub events: u64,
    /// The fingerprint that replicas compare.
    pub digest: [u8; 32],
}

impl Host {
    /// The state of a shard that this node leads: nothing that was acknowledged before the call is missing from it.
    ///
    /// # Errors
    /// When this node doesn't lead the shard, or its own state can't be proven.
    pub async fn image(&self, shard: ShardId) -> Result<(Proven, Bytes), ImageError> {
        let group = self.group(shard).ok_or(ReadError::NotHere)?;
        group.up().await;
        group.read_index(PATIENCE).await.map_err(|hint| match hint {
            Some(hint) => ReadError::NotLeader { hint: Some(hint) },
            None => ReadError::Unavailable,
        })?;
        let taken = Taken::of(&group.replica.state.read());
        let cold = group.replica.cold.clone();
        let made = blocking(move || {
            let body = Bytes::from(taken.whole(&cold)?.encode());
            prove(body.clone()).map(|proven| (proven, body))
        });
        made.await.map_err(|error| ImageError::Unsound(error.to_string()))
    }
}

/// Why there is no image.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ImageError {
    /// It can't be read here and now.
    #[error("{0}")]
    Read(#[from] ReadError),
    /// The state doesn't stand up to being recomputed.
    #[error("the state is not sound: {0}")]
    Unsound(String),
}

/// Reads an image back and recomputes all of it.
///
/// # Errors
/// The first thing that doesn't hold.
pub fn prove(body: Bytes) -> io::Result<Proven> {
    read(body).map(|(proven, _)| proven)
}

/// The same, with the state that was read.
pub(crate) fn read(body: Bytes) -> io::Result<(Proven, State)> {
    let state = snapshot::decode(body, auction::Limits::default())?;
    if state.shard.cold().count > 0 {
        let what = "the image leaves settled auctions out";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let mut proven = Proven {
        index: state.applied,
        top: state.shard.top().0,
        auctions: 0,
        events: 0,
        digest: state.digest(),
    };
    for view in state.shard.views() {
        proven.events += chain(&state, &view)?;
        proven.auctions += 1;
    }
    Ok((proven, state))
}

fn chain(state: &State, view: &auction::AuctionView) -> io::Result<u64> {
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("auction {}: {what}", view.id));
    let events = state.shard.events(&view.id, 0, usize::MAX);
    let lines = events
        .unwrap_or_default()
        .iter()
        .map(|event| verify::Line::from(&**event));
    let summary = verify::verify(&verify::Head::from(view), lines).map_err(|broken| match broken.seq {
        Some(seq) => bad(format!("event {seq}: {}: {}", broken.code, broken.what)),
        None => bad(format!("{}: {}", broken.code, broken.what)),
    })?;
    Ok(summary.events)
}
