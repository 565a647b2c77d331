//! The payloads of a group's records in the log, format 1. All numbers are little-endian.
//!
//! ```text
//!   entry     index u64, term u64, replica u64, form u8, body     form 1: blank, no body
//!                                                                 form 2: a log.v1.Payload
//!                                                                 form 3: a raft.v1.Membership
//!   vote      term u64, replica u64, committed u8
//!   truncate  the first index that goes, u64
//!   purge     index u64, term u64, replica u64
//!   commit    index u64, term u64, replica u64
//!   born      replica u64
//! ```

use crate::{
    types::{LeaderId, LogEntry, LogId, LogPayload, Logged, Vote},
    wal::{Kind, Record},
    wire,
};
use bytes::{Buf, Bytes};
use openraft::vote::RaftLeaderId;
use prost::Message;

const BLANK: u8 = 1;
const NORMAL: u8 = 2;
const MEMBERSHIP: u8 = 3;

/// What an entry costs in memory and on disk, about.
pub(super) fn size(entry: &LogEntry) -> usize {
    let body = match &entry.payload {
        LogPayload::Normal(logged) => logged.bytes().len(),
        LogPayload::Blank | LogPayload::Membership(_) => 64,
    };
    body + 64
}

pub(super) fn entry(group: u32, entry: &LogEntry) -> Record {
    let mut prefix = write_log_id(&entry.log_id);
    let body = match &entry.payload {
        LogPayload::Blank => {
            prefix.push(BLANK);
            Bytes::new()
        }
        LogPayload::Normal(logged) => {
            prefix.push(NORMAL);
            logged.bytes().clone()
        }
        LogPayload::Membership(membership) => {
            prefix.push(MEMBERSHIP);
            Bytes::from(wire::membership_to(membership).encode_to_vec())
        }
    };
    Record::new(group, Kind::Entry, prefix, body)
}

pub(super) fn read_entry(mut bytes: Bytes) -> Result<LogEntry, String> {
    let log_id = take_log_id(&mut bytes)?;
    let form = bytes.try_get_u8().map_err(|_| short("entry"))?;
    let payload = match form {
        BLANK => LogPayload::Blank,
        NORMAL => LogPayload::Normal(Logged::read(bytes).map_err(|bad| format!("entry {}: {bad}", log_id.index))?),
        MEMBERSHIP => {
            let membership = proto::raft::v1::Membership::decode(bytes).map_err(|bad| bad.to_string())?;
            LogPayload::Membership(wire::membership_from(membership).map_err(|bad| bad.to_string())?)
        }
        other => return Err(format!("entry {}: form {other} is not known", log_id.index)),
    };
    Ok(LogEntry { log_id, payload })
}

pub(super) fn write_log_id(id: &LogId) -> Vec<u8> {
    let words = [id.index, id.leader_id.term, id.leader_id.node_id];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub(super) fn read_log_id(bytes: &Bytes) -> Result<LogId, String> {
    take_log_id(&mut bytes.clone())
}

fn take_log_id(bytes: &mut Bytes) -> Result<LogId, String> {
    let mut word = || bytes.try_get_u64_le().map_err(|_| short("log id"));
    let (index, term, replica) = (word()?, word()?, word()?);
    Ok(LogId {
        leader_id: LeaderId::new(term, replica),
        index,
    })
}

pub(super) fn write_vote(vote: &Vote) -> Vec<u8> {
    let mut out = Vec::with_capacity(17);
    out.extend_from_slice(&vote.leader_id.term.to_le_bytes());
    out.extend_from_slice(&vote.leader_id.node_id.to_le_bytes());
    out.push(u8::from(vote.committed));
    out
}

pub(super) fn read_vote(bytes: &Bytes) -> Result<Vote, String> {
    let mut bytes = bytes.clone();
    let mut word = || bytes.try_get_u64_le().map_err(|_| short("vote"));
    let leader_id = LeaderId::new(word()?, word()?);
    let committed = match bytes.try_get_u8() {
        Ok(0) => false,
        Ok(1) => true,
        _ => return Err(short("vote")),
    };
    Ok(Vote { leader_id, committed })
}

pub(super) fn write_truncate(from: u64) -> Vec<u8> {
    from.to_le_bytes().to_vec()
}

pub(super) fn read_truncate(bytes: &Bytes) -> Result<u64, String> {
    bytes.clone().try_get_u64_le().map_err(|_| short("truncate"))
}

pub(super) fn write_born(replica: u64) -> Vec<u8> {
    replica.to_le_bytes().to_vec()
}

pub(super) fn read_born(bytes: &Bytes) -> Result<u64, String> {
    bytes.clone().try_get_u64_le().map_err(|_| short("born"))
}

/// What a record says, for people. Of an entry its place and size: what bidders wrote isn't shown.
pub(crate) fn describe(kind: Kind, payload: &Bytes) -> String {
    let id = |id: LogId| format!("{} of term {} by {}", id.index, id.leader_id.term, id.leader_id.node_id);
    let said = match kind {
        Kind::Entry => take_log_id(&mut payload.clone()).map(|entry| {
            let (form, bytes) = (payload.get(24).copied(), payload.len().saturating_sub(25));
            let form = match form {
                Some(BLANK) => "blank",
                Some(NORMAL) => "normal",
                Some(MEMBERSHIP) => "membership",
                _ => "of no known form",
            };
            format!("{}, {form}, {bytes} bytes", id(entry))
        }),
        Kind::Vote => read_vote(payload).map(|vote| {
            let committed = if vote.committed { ", a majority's" } else { "" };
            format!("term {} for {}{committed}", vote.leader_id.term, vote.leader_id.node_id)
        }),
        Kind::Truncate => read_truncate(payload).map(|from| format!("from {from}")),
        Kind::Purge => read_log_id(payload).map(|upto| format!("to {}", id(upto))),
        Kind::Commit => read_log_id(payload).map(|upto| format!("to {}", id(upto))),
        Kind::Born => read_born(payload).map(|replica| match replica {
            0 => "no replica any more".to_owned(),
            replica => format!("replica {replica}"),
        }),
        Kind::Seal => read_born(payload).map(|next| format!("next is {next}")),
        Kind::Tally => read_born(payload).map(|shards| format!("{shards} shards")),
        Kind::Cut => Ok("a torn end".to_owned()),
        Kind::Hurt => Ok(String::from_utf8_lossy(payload).escape_debug().to_string()),
    };
    said.unwrap_or_else(|bad| bad)
}

fn short(what: &str) -> String {
    format!("a {what} record is malformed")
}
