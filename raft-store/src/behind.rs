//! Behind: whose lanes an office found behind when it was taken, for whoever audits stamps.
//!
//! A stamp is a reading of the shard's clock, but for one kind. While an office stands in its grace, the clock reads
//! `base`; an auction whose lane was behind when the office before fell has a watermark below that, and what is sent to it
//! again is stamped with the watermark (`clock::office` says why). Nobody can tell from a history which stamps those are:
//! an older bid of the same lane, stamped by the office before, looks the same. So each replica remembers, at the marker
//! of each office that it applies, which auctions were behind, how far, and at which version:
//!
//! ```text
//!   ... version 7 of a, stamped 700 | marker: base 1000, a behind at 750 | version 8 of a, stamped 760
//!        a reading: of the office before            the clock read 1000 when version 8 was stamped
//! ```
//!
//! The rule for an audit: an event of such an auction after that version, stamped below `base`, was stamped in the grace;
//! its stamp is at least the watermark, and the clock read `base`. Every other stamp is a reading.
//!
//! It follows from the log alone, so replicas tell the same, each for the offices whose markers it applied itself: what
//! came to it in a snapshot it doesn't know. Deliberately absent: a place in the state. Nothing is decided by it.

use auction::{AuctionId, Office, Shard, Stamp};
use std::collections::VecDeque;

/// What a replica remembers, newest offices last; an office that finds more than this behind tells the first of them.
const KEPT: usize = 64;

/// An auction whose lane was behind when an office was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Behind {
    /// The office that was taken.
    pub office: Office,
    /// Where its clock stood until the end of its grace.
    pub base: Stamp,
    /// The auction.
    pub auction: AuctionId,
    /// Its watermark, below `base`: in the grace its commands are stamped with this or more.
    pub stamp: Stamp,
    /// Its version: what came after it was judged in this office or a later one.
    pub seq: u64,
}

/// The newest of a replica.
#[derive(Debug, Default)]
pub(crate) struct Remembered(VecDeque<Behind>);

impl Remembered {
    /// The marker of the shard's office was just applied.
    pub(crate) fn taken(&mut self, shard: &Shard) {
        let (office, base) = (shard.office(), shard.top());
        for (auction, stamp) in shard.below(base).take(KEPT) {
            let seq = shard.view(&auction).map_or(0, |view| view.seq);
            if self.0.len() >= KEPT {
                self.0.pop_front();
            }
            self.0.push_back(Behind {
                office,
                base,
                auction,
                stamp,
                seq,
            });
        }
    }

    /// All of it, oldest first.
    pub(crate) fn all(&self) -> Vec<Behind> {
        self.0.iter().cloned().collect()
    }
}
