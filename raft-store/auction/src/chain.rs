//! The hash chain: what binds each event to all before it.
//!
//! ```text
//!   h_0 = "0000000000000000" + auction                               (text; only ever the start of h_1's input)
//!   h_s = SHA-256( h_{s-1} | seq | ty | idem | bidder | amt | ct | dl )   h as 64 hex digits, decimal integers, "|" between
//! ```
//!
//! What stands where (`""` where a cell is empty):
//!
//! | ty | idem | bidder | amt | ct | dl |
//! |---|---|---|---|---|---|
//! | open | digest of all that is fixed | the seller | | its stamp | `ends_at` after it |
//! | bid that leads at its own amount | the command's id | who bid | the amount = the visible price | | |
//! | bid that a hidden maximum answered | id | who bid | `amount/price/leader` | | |
//! | raise | id | the leader | the visible price (the maximum stays hidden) | | |
//! | pause, resume, extend, held, stream | digest of its particulars | | | | |
//! | close | of a cancel: digest of its particulars | the winner, if sold | the final price, 0 if not sold | | the deadline that it closes |
//!
//! The digests (64 hex digits) and the texts that they are of stand in `bound`. All but an answered bid is
//! `rushroom-history/1` to the letter, so that a checker that knows only that form verifies the product's own log from
//! the cells. The longer payload exists because a price or leader that isn't in the line could be altered without
//! breaking the chain.

use crate::{Event, EventKind, Id, Outcome, bound::Particulars};
use sha2::{Digest, Sha256};

/// A link of the chain.
pub type Hash = [u8; 32];

/// The hash shown before the first event: nothing.
#[must_use]
pub const fn genesis() -> Hash {
    [0; 32]
}

/// The cells of a line, before they are written out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line<'a> {
    /// The event's number.
    pub seq: u64,
    /// Its type.
    pub ty: &'a str,
    /// The command's id, or what stands in its place.
    pub idem: Idem<'a>,
    /// Bidder or winner, or empty.
    pub bidder: &'a str,
    /// The amount, or what stands in its place.
    pub amt: Amt<'a>,
    /// Its stamp.
    pub ct: u64,
    /// The deadline.
    pub dl: u64,
}

/// What stands in the place of the id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Idem<'a> {
    /// Nothing.
    Empty,
    /// The command's id.
    Id(&'a str),
    /// The digest of what has no cell of its own.
    Digest(Hash),
}

/// What stands in the place of the amount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Amt<'a> {
    /// Nothing.
    Empty,
    /// An amount.
    Money(u64),
    /// A bid and the hidden maximum's answer.
    Answered(u64, u64, &'a str),
}

/// The line of an event.
#[must_use]
pub fn line(event: &Event) -> Line<'_> {
    let (bidder, amt) = match &event.kind {
        EventKind::Bid { amount, .. } if event.leader == event.actor && *amount == event.price => {
            (text_of(&event.actor), Amt::Money(*amount))
        }
        EventKind::Bid { amount, .. } => (
            text_of(&event.actor),
            Amt::Answered(*amount, event.price, text_of(&event.leader)),
        ),
        EventKind::Raise => (text_of(&event.actor), Amt::Money(event.price)),
        EventKind::Close { outcome: Outcome::Sold } => (text_of(&event.leader), Amt::Money(event.price)),
        EventKind::Close { .. } => ("", Amt::Money(0)),
        EventKind::Open(opening) => (opening.seller.as_str(), Amt::Empty),
        EventKind::Pause { .. }
        | EventKind::Resume { .. }
        | EventKind::Extend { .. }
        | EventKind::Held { .. }
        | EventKind::Stream { .. } => ("", Amt::Empty),
    };
    Line {
        seq: event.seq,
        ty: event.kind.ty(),
        idem: idem(event),
        bidder,
        amt,
        ct: event.ct.0,
        dl: event.ends_at.0,
    }
}

/// The digest that an event binds, if it binds one: what is published with it, so that its line can be written from cells.
#[must_use]
pub fn digest(event: &Event) -> Option<Hash> {
    match idem(event) {
        Idem::Digest(digest) => Some(digest),
        Idem::Empty | Idem::Id(_) => None,
    }
}

fn idem(event: &Event) -> Idem<'_> {
    let mut told = Particulars {
        seq: event.seq,
        ty: event.kind.ty(),
        actor: event.actor.as_ref().map(Id::as_str),
        id: event.id.as_ref().map(Id::as_str),
        ..Particulars::default()
    };
    match &event.kind {
        EventKind::Bid { .. } | EventKind::Raise => {
            return event.id.as_ref().map_or(Idem::Empty, |id| Idem::Id(id.as_str()));
        }
        EventKind::Open(opening) => return Idem::Digest(opening.terms),
        EventKind::Pause { until, .. } => told.until = until.map(|until| until.0),
        EventKind::Resume { dms } | EventKind::Extend { dms } | EventKind::Held { dms } => told.dms = Some(*dms),
        EventKind::Stream { node, stream } => (told.node, told.stream) = (*node, Some(stream.as_str())),
        EventKind::Close { .. } => {}
    }
    told.digest().map_or(Idem::Empty, Idem::Digest)
}

fn text_of(id: &Option<Id>) -> &str {
    id.as_ref().map_or("", Id::as_str)
}

/// The hash of a line after `previous` (`None`: it is the first).
#[must_use]
pub fn link(auction: &str, previous: Option<&Hash>, line: &Line<'_>) -> Hash {
    let mut buffer = Buffer::new();
    match previous {
        Some(hash) => buffer.hex(hash),
        None => {
            buffer.text("0000000000000000");
            buffer.text(auction);
        }
    }
    buffer.cell_number(line.seq);
    buffer.cell(line.ty);
    match line.idem {
        Idem::Empty => buffer.cell(""),
        Idem::Id(id) => buffer.cell(id),
        Idem::Digest(digest) => buffer.cell_hash(Some(&digest)),
    }
    buffer.cell(line.bidder);
    buffer.text("|");
    match line.amt {
        Amt::Empty => {}
        Amt::Money(amount) => buffer.number(amount),
        Amt::Answered(amount, price, leader) => {
            buffer.numbers("/", [amount, price]);
            buffer.text("/");
            buffer.text(leader);
        }
    }
    buffer.cell_number(line.ct);
    buffer.cell_number(line.dl);
    buffer.done()
}

/// The hash of an event after `previous`.
#[must_use]
pub fn hash(previous: Option<&Hash>, event: &Event) -> Hash {
    link(event.auction.as_str(), previous, &line(event))
}

/// Any line of valid ids fits, so that the usual event is hashed in one call and without the heap.
const BUFFER: usize = 512;

/// Gathers text and hashes it, in as few calls as it can.
pub(crate) struct Buffer {
    bytes: [u8; BUFFER],
    len: usize,
    hash: Sha256,
}

impl Buffer {
    pub(crate) fn new() -> Buffer {
        Buffer {
            bytes: [0; BUFFER],
            len: 0,
            hash: Sha256::new(),
        }
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.raw(text.as_bytes());
    }

    fn raw(&mut self, bytes: &[u8]) {
        if self.len + bytes.len() > BUFFER {
            self.hash.update(&self.bytes[..self.len]);
            self.len = 0;
        }
        match self.bytes.get_mut(self.len..self.len + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => self.hash.update(bytes),
        }
    }

    pub(crate) fn cell(&mut self, text: &str) {
        self.raw(b"|");
        self.text(text);
    }

    /// A hash as 64 hex digits, or nothing.
    pub(crate) fn cell_hash(&mut self, hash: Option<&Hash>) {
        self.raw(b"|");
        if let Some(hash) = hash {
            self.hex(hash);
        }
    }

    /// Numbers with `between` between them.
    pub(crate) fn numbers(&mut self, between: &str, numbers: impl IntoIterator<Item = u64>) {
        for (place, number) in numbers.into_iter().enumerate() {
            self.text(if place == 0 { "" } else { between });
            self.number(number);
        }
    }

    pub(crate) fn cell_number(&mut self, number: u64) {
        self.raw(b"|");
        self.number(number);
    }

    fn number(&mut self, number: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut rest = number;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.raw(&digits[at..]);
    }

    fn hex(&mut self, hash: &Hash) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(hash) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        self.raw(&text);
    }

    pub(crate) fn done(mut self) -> Hash {
        self.hash.update(&self.bytes[..self.len]);
        self.hash.finalize().into()
    }
}
