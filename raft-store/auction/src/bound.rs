//! What an event binds beside the plain cells of its line: digests of canonical texts.
//!
//! The chain's line has room for an id, a person and an amount (`chain`). What else could be altered goes, as one SHA-256,
//! into the place of the id, so that whoever knows only the line's form still recomputes every hash. Three texts, cells
//! divided by `|` (which no id holds), decimal integers, empty where absent, hashes as 64 hex digits:
//!
//! ```text
//!   open     rushroom-open/1|version|seller|actor|id|currency|start_price|increments|duration_ms|rush|soft_close|guests
//!                           |pause_without_stream|SHA-256(title)|SHA-256(description)|seal
//!              increments   from:step,from:step…         rush         cut_ppm_max/cut_per_raise_ppm/floor_ms
//!              guests …     0 or 1                       soft_close   window_ms/reset_to_ms/extensions_max
//!   others   rushroom-event/1|seq|ty|actor|id|until|dms|node|stream          no digest where actor to stream are all absent
//!   seal     rushroom-reserve/1|auction|reserve|salt
//! ```
//!
//! Why a seal: the reserve is hidden, yet fixed, and the outcome hangs on it. Its digest alone would be guessed in a second
//! (there are few likely amounts), so 32 random bytes go in with it. They come from the edge with the definition, because
//! nothing here may throw dice; reserve and salt are opened together when the auction closes sold or unsold. A cancelled
//! one's stay hidden: nothing hangs on them, and a re-run may use the same reserve.

use crate::{
    Definition, Id, Money, Terms,
    chain::{Buffer, Hash},
};
use sha2::{Digest, Sha256};

/// A hidden reserve, and what keeps its seal from being guessed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reserve {
    /// The least price at which the lot is sold.
    pub amount: Money,
    /// 32 random bytes.
    pub salt: [u8; 32],
}

/// Neither amount nor salt may turn up in a log line.
impl core::fmt::Debug for Reserve {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Reserve(hidden)")
    }
}

impl Reserve {
    /// What is published of it while it is hidden.
    #[must_use]
    pub fn seal(&self, auction: &str) -> Hash {
        let mut text = Buffer::new();
        text.text("rushroom-reserve/1");
        text.cell(auction);
        text.cell_number(self.amount);
        text.cell_hash(Some(&self.salt));
        text.done()
    }
}

/// What an `open` event carries: whose auction, and what its terms are from now on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opening {
    /// Who sells.
    pub seller: Id,
    /// The digest of everything that is fixed (`Fixed`).
    pub terms: Hash,
    /// The reserve's seal; `None`: there is no reserve.
    pub seal: Option<Hash>,
}

impl Opening {
    /// Of an auction that goes live by `actor`'s command `id`.
    pub(crate) fn of(
        auction: &str,
        version: u32,
        definition: &Definition,
        actor: Option<&Id>,
        id: Option<&Id>,
    ) -> Opening {
        let seal = definition.terms.reserve.map(|reserve| reserve.seal(auction));
        let terms = Fixed {
            version,
            seller: definition.seller.as_str(),
            actor: actor.map_or("", Id::as_str),
            id: id.map_or("", Id::as_str),
            title: &definition.title,
            description: &definition.description,
            terms: &definition.terms,
            seal: seal.as_ref(),
        }
        .digest();
        Opening {
            seller: definition.seller.clone(),
            terms,
            seal,
        }
    }
}

/// Everything that is fixed when an auction goes live, and who made it so.
#[derive(Clone, Copy, Debug)]
pub struct Fixed<'a> {
    /// The definition's version.
    pub version: u32,
    /// Who sells.
    pub seller: &'a str,
    /// Who started it, or empty.
    pub actor: &'a str,
    /// By which command, or empty.
    pub id: &'a str,
    /// One line.
    pub title: &'a str,
    /// Free text.
    pub description: &'a str,
    /// The rules; of the reserve only the seal goes in.
    pub terms: &'a Terms,
    /// The reserve's seal.
    pub seal: Option<&'a Hash>,
}

impl Fixed<'_> {
    /// The digest of the canonical text.
    #[must_use]
    pub fn digest(&self) -> Hash {
        let mut text = Buffer::new();
        text.text("rushroom-open/1");
        text.cell_number(u64::from(self.version));
        text.cell(self.seller);
        text.cell(self.actor);
        text.cell(self.id);
        let terms = self.terms;
        text.cell(terms.currency.as_str());
        text.cell_number(terms.start_price);
        text.text("|");
        for (row, (from, step)) in terms.increments.iter().enumerate() {
            text.text(if row == 0 { "" } else { "," });
            text.numbers(":", [*from, *step]);
        }
        text.cell_number(terms.duration_ms);
        text.text("|");
        if let Some(rush) = terms.time.rush {
            text.numbers("/", [rush.cut_ppm_max, rush.cut_per_raise_ppm, rush.floor_ms]);
        }
        text.text("|");
        if let Some(soft) = terms.time.soft_close {
            text.numbers("/", [soft.window_ms, soft.reset_to_ms, u64::from(soft.extensions_max)]);
        }
        text.cell_number(u64::from(terms.guests));
        text.cell_number(u64::from(terms.pause_without_stream));
        text.cell_hash(Some(&Sha256::digest(self.title).into()));
        text.cell_hash(Some(&Sha256::digest(self.description).into()));
        text.cell_hash(self.seal);
        text.done()
    }
}

/// What an event other than open, bid and raise says beside its line's plain cells.
#[derive(Clone, Copy, Default, Debug)]
#[allow(missing_docs)] // the fields of `Event` in docs/protocol.md, by the same names
pub struct Particulars<'a> {
    pub seq: u64,
    pub ty: &'a str,
    pub actor: Option<&'a str>,
    pub id: Option<&'a str>,
    pub until: Option<u64>,
    pub dms: Option<u64>,
    pub node: Option<u64>,
    pub stream: Option<&'a str>,
}

impl Particulars<'_> {
    /// The digest of the canonical text; `None`: there is nothing to bind.
    #[must_use]
    pub fn digest(&self) -> Option<Hash> {
        let texts = [self.actor, self.id, self.stream];
        let numbers = [self.until, self.dms, self.node];
        if texts.iter().all(Option::is_none) && numbers.iter().all(Option::is_none) {
            return None;
        }
        let mut text = Buffer::new();
        text.text("rushroom-event/1");
        text.cell_number(self.seq);
        text.cell(self.ty);
        text.cell(self.actor.unwrap_or(""));
        text.cell(self.id.unwrap_or(""));
        for number in numbers {
            text.text("|");
            text.numbers("", number);
        }
        text.cell(self.stream.unwrap_or(""));
        Some(text.done())
    }
}
