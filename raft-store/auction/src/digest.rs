//! The digest: one hash of a shard's whole state, for comparing replicas.
//!
//! Each auction gives its newest chain hash (which stands for its whole log), its scalars, the hash of its definition and
//! the sum over its remembered ids, so a digest costs a few hundred bytes an auction, however long its history. Every
//! scalar that `apply` reads is in it: a divergence shows at the next comparison, not when it first bites.
//!
//! By rules that let auctions settle, it is over the *sum* of the auctions' digests: what a settled one adds is known once and for
//! all, wherever it lies, and slots don't show. So a digest costs what is still going on, not what ever was.

use crate::{
    Id, Phase, Shard,
    auction::Auction,
    cold::{self, Sum},
    once::phase_number,
};
use sha2::{Digest, Sha256};

/// Feeds values to the hash without ambiguity: fixed widths, lengths before texts, a tag before what may be absent.
struct Sink(Sha256);

impl Sink {
    fn word(&mut self, word: u64) {
        self.0.update(word.to_le_bytes());
    }

    fn maybe(&mut self, word: Option<u64>) {
        self.word(u64::from(word.is_some()));
        self.word(word.unwrap_or(0));
    }

    fn id(&mut self, id: Option<&Id>) {
        let text = id.map_or("", Id::as_str);
        self.word(text.len() as u64);
        self.0.update(text.as_bytes());
    }

    fn auction(&mut self, a: &Auction) {
        self.id(Some(&a.id));
        self.word(a.definition_hash);
        self.0
            .update(a.definition.terms.reserve.map_or([0; 32], |reserve| reserve.salt));
        self.id(a.leader.as_ref());
        self.id(a.stream.as_ref().map(|stream| &stream.1));
        let words = [
            u64::from(a.version),
            phase_number(a.phase),
            a.price,
            a.maximum,
            a.bids,
            u64::from(a.extensions),
            a.live_at.0,
            u64::from(a.paused_by_stream),
            u64::from(a.stream_gone),
            a.seq(),
            a.once.sum(),
        ];
        for word in words {
            self.word(word);
        }
        let stamps = [a.ends_at, a.paused_at, a.until, a.lagging.then_some(a.watermark)];
        for stamp in stamps {
            self.maybe(stamp.map(|stamp| stamp.0));
        }
        self.maybe(a.start_wall_ms);
        self.maybe(a.stream.as_ref().map(|stream| stream.0));
        self.0.update(a.hash());
        // Only what differs from the first rules: replicas of a build before there were others have the same digest.
        if a.rules > 1 {
            self.word(u64::from(a.rules));
        }
    }
}

impl Auction {
    /// What the auction adds to the shard's digest. `hold`: which hold it takes next, where that matters.
    pub(crate) fn digest(&self, hold: Option<u64>) -> [u8; 32] {
        let mut sink = Sink(Sha256::new());
        sink.auction(self);
        sink.maybe(hold);
        sink.0.finalize().into()
    }
}

impl Shard {
    /// A hash of the whole state: equal on replicas that applied the same log.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut sink = Sink(Sha256::new());
        self.scalars(&mut sink);
        if self.rules() >= cold::SINCE {
            sink.word(self.auctions.len() as u64 + self.shelf.len());
            sink.0.update(self.auctions_sum().0);
        } else {
            self.each(&mut sink);
        }
        if self.rules() > 1 {
            sink.word(u64::from(self.rules()));
        }
        sink.0.finalize().into()
    }

    fn auctions_sum(&self) -> Sum {
        let waits = !self.holds.list.is_empty();
        self.auctions.iter().fold(self.shelf.sum(), |sum, auction| {
            let matters = waits && !matches!(auction.phase, Phase::Closed(_));
            let hold = matters.then(|| auction.hold_next.max(self.holds.first));
            sum.plus(&auction.digest(hold))
        })
    }

    fn scalars(&self, sink: &mut Sink) {
        for word in [
            self.office.term,
            u64::from(self.office.turn),
            self.n,
            self.top.0,
            self.clamped,
        ] {
            sink.word(word);
        }
        sink.word(self.holds.list.len() as u64);
        for hold in &self.holds.list {
            sink.word(hold.stamp.0);
            sink.word(hold.lost_ms);
        }
        sink.word(self.holds.first);
    }

    /// Every auction, in order of creation.
    fn each(&self, sink: &mut Sink) {
        for auction in &self.auctions {
            sink.auction(auction);
            // Only where a hold waits can it matter which ones an auction has taken.
            sink.word(if self.holds.list.is_empty() {
                0
            } else {
                auction.hold_next.max(self.holds.first)
            });
        }
    }
}
