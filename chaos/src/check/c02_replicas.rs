//! C2, replicas agree: per auction every live replica's log is numbered from 1 without a gap, and all are the same,
//! hash for hash; each hash is what its line says it must be.
//!
//! Source: G2; `rushroom-history/1` on `h` (one hash commits to the whole prefix, so equal last hashes would do: all are
//! compared, because the first difference is what one wants to see).

use super::Outcome;
use crate::{
    book::{Book, log_of},
    history::{Log, Place},
};
use sha2::{Digest, Sha256};

pub(super) fn check(book: &Book<'_>) -> Outcome {
    let mut out = Outcome::new("C2", "replicas agree");
    let replicas = book.meta().replicas as usize;
    if book.auctions.is_empty() {
        out.unknown("no replica's log was dumped".into());
    }
    for (a, auction) in &book.auctions {
        if auction.logs.len() < replicas {
            out.unknown(format!("{a}: logs of {} replicas, not {replicas}", auction.logs.len()));
        }
        for log in auction.logs.values() {
            let mut before: Option<(&Log, Place)> = None;
            for (log, place) in log.iter().filter_map(|at| log_of(at)) {
                out.judged += 1;
                let last = before.map_or(0, |(log, _)| log.seq);
                if log.seq != last + 1 {
                    out.fail(
                        format!("{a}: node {} has {} after {last}", log.node, log.seq),
                        lines(before, place),
                    );
                }
                before = Some((log, place));
                match auction.version(log.seq) {
                    Some((other, at)) if !same(other, log) => {
                        out.fail(
                            format!("{a}: node {} differs from node {}", log.node, other.node),
                            vec![*at, place],
                        );
                    }
                    _ => {}
                }
            }
            let (have, longest) = (log.len(), auction.versions.len());
            if have < longest {
                let node = before.map_or(0, |(log, _)| log.node);
                let missing = auction.versions.get(have).map(|(_, place)| *place);
                out.fail(
                    format!("{a}: node {node} has {have} of {longest} events"),
                    missing.into_iter().collect(),
                );
            }
        }
        chain(a, &auction.versions, &mut out);
    }
    out
}

fn lines(before: Option<(&Log, Place)>, place: Place) -> Vec<Place> {
    before.map(|(_, place)| place).into_iter().chain([place]).collect()
}

/// Equal in all but whose replica it is.
fn same(one: &Log, other: &Log) -> bool {
    Log { node: 0, ..one.clone() }
        == Log {
            node: 0,
            ..other.clone()
        }
}

/// Each hash is the SHA-256 of the one before and of its own line.
fn chain(a: &str, versions: &[(&Log, Place)], out: &mut Outcome) {
    let mut before = genesis(a);
    for (log, place) in versions {
        if hash(&before, log) != log.h {
            out.fail(
                format!("{a}: the hash of {} is not that of its line", log.seq),
                vec![*place],
            );
            return; // All that follow hang on this one.
        }
        before.clone_from(&log.h);
    }
}

/// h_0 of an auction.
pub(crate) fn genesis(a: &str) -> String {
    format!("0000000000000000{a}")
}

/// h_s, from h_{s-1} and the line.
pub(crate) fn hash(before: &str, log: &Log) -> String {
    let amt = log.amt.map(|amt| amt.to_string()).unwrap_or_default();
    let Log {
        seq,
        ty,
        idem,
        bidder,
        ct,
        dl,
        ..
    } = log;
    hex::encode(Sha256::digest(format!(
        "{before}|{seq}|{ty}|{idem}|{bidder}|{amt}|{ct}|{dl}"
    )))
}
