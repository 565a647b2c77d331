//! An export's text, read strictly: a field that isn't known, said twice or missing, a number that isn't a whole one in
//! its bounds, an empty line, anything after the end is refused, each under its code. What a verifier skips is where a
//! forger writes.

use super::{Export, Refused};
use auction::{
    Currency, Reserve, Terms, TimeRule,
    chain::Hash,
    terms::{Rush, SoftClose},
    verify::{Head, Line, Shown},
};
use serde::Deserialize;
use serde_json::error::Category;

const FORMAT: &str = "rushroom-export/2";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    #[serde(rename = "format")]
    _format: String,
    auction: Auction,
    #[serde(default)]
    cuts: Vec<CutText>,
}

/// Where the history was cut: the server's own word, which its events can't bear out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CutText {
    epoch: u64,
    after: u64,
}

/// `format` alone, so that another one is told as that.
#[derive(Deserialize)]
struct Format {
    format: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RushText {
    cut_ppm_max: u64,
    cut_per_raise_ppm: u64,
    floor_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SoftCloseText {
    window_ms: u64,
    reset_to_ms: u64,
    extensions_max: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReserveText {
    amount: u64,
    salt: Hex,
}

/// The head's auction: `Auction` of docs/protocol.md as exports have it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Auction {
    id: String,
    version: u32,
    seller: String,
    title: String,
    description: String,
    currency: String,
    start_price: u64,
    increments: Vec<(u64, u64)>,
    duration_ms: u64,
    rush: Option<RushText>,
    soft_close: Option<SoftCloseText>,
    guests: bool,
    pause_without_stream: bool,
    phase: String,
    outcome: Option<String>,
    seq: u64,
    price: u64,
    least: u64,
    leader: Option<String>,
    bids: u64,
    reserve_met: Option<bool>,
    reserve: Option<ReserveText>,
    ends_at: Option<u64>,
    left_ms: Option<u64>,
    start_at_ms: Option<u64>,
    ct: u64,
    h: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Event {
    seq: u64,
    ty: String,
    ct: u64,
    ends_at: u64,
    actor: Option<String>,
    id: Option<String>,
    price: u64,
    leader: Option<String>,
    h: Hex,
    digest: Option<Hex>,
    seller: Option<String>,
    seal: Option<Hex>,
    amount: Option<u64>,
    cut_ms: Option<u64>,
    extended_ms: Option<u64>,
    left_ms: Option<u64>,
    until: Option<u64>,
    dms: Option<u64>,
    outcome: Option<String>,
    node: Option<u64>,
    stream: Option<String>,
}

/// The replica's own word about itself, at the end of a local export: nothing to verify, so nothing is kept.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Tail {
    node: u64,
    shard: u32,
    term: Option<u64>,
    index: Option<u64>,
}

/// 64 hex digits, small ones: one spelling of a hash and no other.
struct Hex(Hash);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Hex, D::Error> {
        let text = String::deserialize(from)?;
        let mut hash = [0; 32];
        let small = !text.bytes().any(|b| b.is_ascii_uppercase());
        match hex::decode_to_slice(&text, &mut hash) {
            Ok(()) if small => Ok(Hex(hash)),
            _ => Err(serde::de::Error::invalid_value(
                serde::de::Unexpected::Str(&text),
                &"64 small hex digits",
            )),
        }
    }
}

/// Reads an export. Every line must be understood.
pub(crate) fn read(text: &str) -> Result<Export, Refused> {
    let mut lines = text.lines().zip(1..).peekable();
    let Some((first, _)) = lines.next().filter(|(line, _)| !line.trim().is_empty()) else {
        return Err(file("empty", "there is no head in line 1".into()));
    };
    let format = parse::<Format>(first, 1)?.format;
    if format != FORMAT {
        return Err(file("format", format!("the format is {format:?}, not {FORMAT:?}")));
    }
    let First { auction, cuts, .. } = parse(first, 1)?;
    let cuts: Vec<(u64, u64)> = cuts.iter().map(|cut| (cut.epoch, cut.after)).collect();
    if let Some((_, after)) = cuts.iter().find(|cut| cut.1 > auction.seq) {
        return Err(file(
            "value",
            format!("a cut after version {after}, which there is not"),
        ));
    }
    let head = head(auction)?;
    let mut events = Vec::new();
    while let Some((line, number)) = lines.next() {
        if line.trim().is_empty() {
            return Err(file("json", format!("line {number} is empty")));
        }
        // Only the last line can speak of a replica; as an event it would lack everything.
        if lines.peek().is_none() && parse::<Tail>(line, number).is_ok() {
            break;
        }
        events.push(event(parse(line, number)?));
    }
    Ok(Export { head, cuts, events })
}

fn file(code: &str, what: String) -> Refused {
    Refused {
        code: format!("file.{code}"),
        what,
    }
}

/// A line as JSON; what is wrong with it decides the code.
fn parse<'t, T: Deserialize<'t>>(line: &'t str, number: usize) -> Result<T, Refused> {
    serde_json::from_str(line).map_err(|error| {
        let what = error.to_string();
        let begins = |words: &str| what.starts_with(words);
        let code = match error.classify() {
            Category::Data if begins("unknown field") => "unknown",
            Category::Data if begins("duplicate field") => "twice",
            Category::Data if begins("missing field") => "missing",
            Category::Data => "value",
            Category::Syntax if begins("trailing characters") => "trailing",
            Category::Syntax if begins("number out of range") => "value",
            Category::Syntax | Category::Eof | Category::Io => "json",
        };
        file(code, format!("line {number}: {what}"))
    })
}

fn head(auction: Auction) -> Result<Head, Refused> {
    let currency = Currency::parse(&auction.currency);
    let terms = Terms {
        currency: currency.ok_or_else(|| file("value", format!("the currency {:?}", auction.currency)))?,
        start_price: auction.start_price,
        increments: auction.increments,
        reserve: auction.reserve.map(|reserve| Reserve {
            amount: reserve.amount,
            salt: reserve.salt.0,
        }),
        duration_ms: auction.duration_ms,
        time: TimeRule {
            rush: auction.rush.map(|r| Rush {
                cut_ppm_max: r.cut_ppm_max,
                cut_per_raise_ppm: r.cut_per_raise_ppm,
                floor_ms: r.floor_ms,
            }),
            soft_close: auction.soft_close.map(|s| SoftClose {
                window_ms: s.window_ms,
                reset_to_ms: s.reset_to_ms,
                extensions_max: s.extensions_max,
            }),
        },
        guests: auction.guests,
        pause_without_stream: auction.pause_without_stream,
    };
    Ok(Head {
        auction: auction.id,
        version: auction.version,
        seller: auction.seller,
        title: auction.title,
        description: auction.description,
        terms,
        shown: Shown {
            phase: auction.phase,
            outcome: auction.outcome,
            seq: auction.seq,
            price: auction.price,
            least: auction.least,
            leader: auction.leader,
            bids: auction.bids,
            reserve_met: auction.reserve_met,
            ends_at: auction.ends_at,
            left_ms: auction.left_ms,
            start_at_ms: auction.start_at_ms,
            ct: auction.ct,
            h: auction.h.0,
        },
    })
}

fn event(event: Event) -> Line {
    Line {
        seq: event.seq,
        ty: event.ty,
        ct: event.ct,
        ends_at: event.ends_at,
        actor: event.actor,
        id: event.id,
        price: event.price,
        leader: event.leader,
        h: event.h.0,
        digest: event.digest.map(|digest| digest.0),
        seller: event.seller,
        seal: event.seal.map(|seal| seal.0),
        amount: event.amount,
        cut_ms: event.cut_ms,
        extended_ms: event.extended_ms,
        left_ms: event.left_ms,
        until: event.until,
        dms: event.dms,
        outcome: event.outcome,
        node: event.node,
        stream: event.stream,
    }
}
