//! Whom the smoke script kills: the leader of the hottest auction, decided when the kill comes, on the way of a second
//! viewer's video.
//!
//! ```text
//!   look:   auctions by bids; the first whose leader is not the viewer's node      (leaderships may have moved)
//!   heat:   a crowd for it, if it has none yet                                     (so it *is* the hottest)
//!   video:  a second viewer at that leader, until pictures come                    (so the kill cuts a stream)
//!   again:  does it lead still? if not, from the start
//! ```
//!
//! Why not decide when the auctions are made: twelve seconds later leadership may have moved, to the very node at which
//! the viewer of the other region watches; killing that one would show nothing about this viewer's pictures.

use super::cluster::{NODES, SHARDS};
use super::crowd::Door;
use super::smoke::{FRAMES_FIRST, FRAMES_WAIT, Running, VIEWER};
use super::video::Frames;
use anyhow::{Context as _, Result, bail};
use client::Dice;
use client::wire::Cluster;
use std::time::Duration;

/// Looks for a leader that stands still; each takes about a second.
const LOOKS_MAX: usize = 10;
/// Between two looks when nobody can be killed right now.
const LOOK: Duration = Duration::from_millis(200);
/// The auction must have so much left, or it closes before the kill has shown anything.
const LEFT_MS_MIN: u64 = 10_000;

/// What will be killed, and who will notice.
pub(super) struct Aim {
    /// The hottest auction that the viewer's node doesn't lead.
    pub(super) auction: String,
    /// The place of its leader.
    pub(super) place: usize,
    /// A viewer whose video comes from there.
    pub(super) second: Frames,
}

/// Finds the victim, and waits until a second viewer's pictures come from it.
pub(super) async fn take(
    door: &Door,
    ids: &[String],
    stream: &str,
    token: &str,
    running: &mut Running,
    dice: &mut Dice,
) -> Result<Aim> {
    for _ in 0..LOOKS_MAX {
        let Some((auction, place)) = hottest_elsewhere(door, ids).await? else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        running.heat(door, &auction, dice).await?;
        let second = Frames::follow(door, place, stream, token)?;
        second
            .at_least(FRAMES_FIRST, FRAMES_WAIT)
            .await
            .context("waiting for the second viewer's video")?;
        if leader_of(door, &auction).await? == Some(place) {
            return Ok(Aim { auction, place, second });
        }
        tracing::info!(auction, "its leader moved while we took aim; looking again");
    }
    bail!("after {LOOKS_MAX} looks no live auction has a leader outside the viewer's node that stays")
}

/// The live auction with most bids among those that another node than the viewer's leads, and that leader's place.
async fn hottest_elsewhere(door: &Door, ids: &[String]) -> Result<Option<(String, usize)>> {
    let mut live = Vec::new();
    for id in ids {
        let auction = door.api().auction(id).await.with_context(|| format!("reading {id}"))?;
        let left = auction
            .ends_at
            .zip(auction.now)
            .map(|(end, now)| end.saturating_sub(now));
        if auction.phase == "live" && left.is_some_and(|left| left >= LEFT_MS_MIN) {
            live.push((auction.bids, id));
        }
    }
    let cluster = cluster(door).await?;
    let place = |id: &str| leader_in(&cluster, id).filter(|place| *place != VIEWER);
    let hottest = live.into_iter().filter_map(|(bids, id)| Some((bids, id, place(id)?)));
    Ok(hottest
        .max_by_key(|(bids, ..)| *bids)
        .map(|(_, id, place)| (id.clone(), place)))
}

/// The place of the node that leads an auction's shard, as the viewer's node knows (it is never the one that is killed).
pub(super) async fn leader_of(door: &Door, auction: &str) -> Result<Option<usize>> {
    Ok(leader_in(&cluster(door).await?, auction))
}

async fn cluster(door: &Door) -> Result<Cluster> {
    let asked = door.api().pinned(VIEWER);
    asked.cluster().await.context("asking for the cluster")
}

fn leader_in(cluster: &Cluster, auction: &str) -> Option<usize> {
    let leader = cluster.leader(placement::shard_of(auction, SHARDS).0)?;
    NODES.iter().position(|n| n.0 == leader)
}
