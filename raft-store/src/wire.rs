//! openraft's values to the words between replicas (`proto/rushroom/raft/v1`), and back.
//!
//! Deliberately absent: the domain's words (`codec`); the bytes of a payload pass through here as they are.

use crate::{
    codec::BadWire,
    types::{
        Home, LeaderId, LogEntry, LogId, LogPayload, Logged, Membership, SnapshotMeta, StoredMembership, TypeConfig,
        Vote,
    },
};
use auction::Cold;
use bytes::Bytes;
use openraft::{
    raft::{
        AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
    vote::RaftLeaderId,
};
use proto::raft::v1 as pb;
use std::collections::{BTreeMap, BTreeSet};

fn need<T>(value: Option<T>, field: &'static str) -> Result<T, BadWire> {
    value.ok_or(BadWire::Missing(field))
}

fn leader_to(id: &LeaderId) -> pb::LeaderId {
    pb::LeaderId {
        term: id.term,
        replica: id.node_id,
    }
}

fn leader_from(id: Option<pb::LeaderId>) -> Result<LeaderId, BadWire> {
    let id = need(id, "leader")?;
    Ok(LeaderId::new(id.term, id.replica))
}

pub(crate) fn vote_to(vote: &Vote) -> pb::Vote {
    pb::Vote {
        leader: Some(leader_to(&vote.leader_id)),
        committed: vote.committed,
    }
}

pub(crate) fn vote_from(vote: Option<pb::Vote>) -> Result<Vote, BadWire> {
    let vote = need(vote, "vote")?;
    Ok(Vote {
        leader_id: leader_from(vote.leader)?,
        committed: vote.committed,
    })
}

pub(crate) fn log_id_to(id: &LogId) -> pb::LogId {
    pb::LogId {
        leader: Some(leader_to(&id.leader_id)),
        index: id.index,
    }
}

pub(crate) fn log_id_from(id: pb::LogId) -> Result<LogId, BadWire> {
    Ok(LogId {
        leader_id: leader_from(id.leader)?,
        index: id.index,
    })
}

fn opt_log_id_to(id: Option<&LogId>) -> Option<pb::LogId> {
    id.map(log_id_to)
}

fn opt_log_id_from(id: Option<pb::LogId>) -> Result<Option<LogId>, BadWire> {
    id.map(log_id_from).transpose()
}

pub(crate) fn membership_to(membership: &Membership) -> pb::Membership {
    let configs = membership.get_joint_config().iter();
    pb::Membership {
        configs: configs
            .map(|voters| pb::Voters {
                replicas: voters.iter().copied().collect(),
            })
            .collect(),
        members: membership
            .nodes()
            .map(|(replica, home)| pb::Member {
                replica: *replica,
                node: home.0,
            })
            .collect(),
    }
}

pub(crate) fn membership_from(proto: pb::Membership) -> Result<Membership, BadWire> {
    let configs: Vec<BTreeSet<u64>> = proto
        .configs
        .into_iter()
        .map(|voters| voters.replicas.into_iter().collect())
        .collect();
    let members: BTreeMap<u64, Home> = proto.members.into_iter().map(|m| (m.replica, Home(m.node))).collect();
    if configs.is_empty() && members.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, members).map_err(|_| BadWire::Invalid("membership"))
}

pub(crate) fn snapshot_meta_to(meta: &SnapshotMeta, cold: &Cold) -> pb::SnapshotMeta {
    let stored = &meta.last_membership;
    let cold_sum = if cold.count == 0 { &[][..] } else { &cold.sum.0 };
    pb::SnapshotMeta {
        cold: cold.count,
        cold_sum: Bytes::copy_from_slice(cold_sum),
        last_log_id: opt_log_id_to(meta.last_log_id.as_ref()),
        membership: Some(pb::StoredMembership {
            log_id: opt_log_id_to(stored.log_id().as_ref()),
            membership: Some(membership_to(stored.membership())),
        }),
    }
}

pub(crate) fn snapshot_meta_from(proto: pb::SnapshotMeta) -> Result<SnapshotMeta, BadWire> {
    let stored = need(proto.membership, "snapshot.membership")?;
    let membership = membership_from(need(stored.membership, "stored.membership")?)?;
    Ok(SnapshotMeta {
        last_log_id: opt_log_id_from(proto.last_log_id)?,
        last_membership: StoredMembership::new(opt_log_id_from(stored.log_id)?, membership),
    })
}

fn entry_to(entry: &LogEntry) -> pb::LogEntry {
    let payload = match &entry.payload {
        LogPayload::Blank => pb::log_entry::Payload::Blank(pb::Blank {}),
        LogPayload::Normal(logged) => pb::log_entry::Payload::Normal(logged.bytes().clone()),
        LogPayload::Membership(membership) => pb::log_entry::Payload::Membership(membership_to(membership)),
    };
    pb::LogEntry {
        log_id: Some(log_id_to(&entry.log_id)),
        payload: Some(payload),
    }
}

fn entry_from(proto: pb::LogEntry) -> Result<LogEntry, BadWire> {
    let payload = match need(proto.payload, "entry.payload")? {
        pb::log_entry::Payload::Blank(_) => LogPayload::Blank,
        pb::log_entry::Payload::Normal(bytes) => LogPayload::Normal(Logged::read(bytes)?),
        pb::log_entry::Payload::Membership(membership) => LogPayload::Membership(membership_from(membership)?),
    };
    Ok(LogEntry {
        log_id: log_id_from(need(proto.log_id, "entry.log_id")?)?,
        payload,
    })
}

pub(crate) fn append_to(request: &AppendEntriesRequest<TypeConfig>, session: u64) -> pb::AppendRequest {
    pb::AppendRequest {
        vote: Some(vote_to(&request.vote)),
        prev_log_id: opt_log_id_to(request.prev_log_id.as_ref()),
        entries: request.entries.iter().map(entry_to).collect(),
        leader_commit: opt_log_id_to(request.leader_commit.as_ref()),
        session,
    }
}

pub(crate) fn append_from(proto: pb::AppendRequest) -> Result<AppendEntriesRequest<TypeConfig>, BadWire> {
    Ok(AppendEntriesRequest {
        vote: vote_from(proto.vote)?,
        prev_log_id: opt_log_id_from(proto.prev_log_id)?,
        entries: proto.entries.into_iter().map(entry_from).collect::<Result<_, _>>()?,
        leader_commit: opt_log_id_from(proto.leader_commit)?,
    })
}

pub(crate) fn appended_to(result: &StreamAppendResult<TypeConfig>) -> pb::AppendResponse {
    use pb::append_response::Result as R;
    let result = match result {
        Ok(log_id) => R::Matched(pb::Matched {
            log_id: opt_log_id_to(log_id.as_ref()),
        }),
        Err(StreamAppendError::Conflict(log_id)) => R::Conflict(log_id_to(log_id)),
        Err(StreamAppendError::HigherVote(vote)) => R::HigherVote(vote_to(vote)),
    };
    pb::AppendResponse { result: Some(result) }
}

pub(crate) fn appended_from(proto: pb::AppendResponse) -> Result<StreamAppendResult<TypeConfig>, BadWire> {
    use pb::append_response::Result as R;
    Ok(match need(proto.result, "append.result")? {
        R::Matched(matched) => Ok(opt_log_id_from(matched.log_id)?),
        R::Conflict(log_id) => Err(StreamAppendError::Conflict(log_id_from(log_id)?)),
        R::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_from(Some(vote))?)),
    })
}

pub(crate) fn vote_request_to(request: &VoteRequest<TypeConfig>) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(vote_to(&request.vote)),
        last_log_id: opt_log_id_to(request.last_log_id.as_ref()),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_from(proto: pb::VoteRequest) -> Result<VoteRequest<TypeConfig>, BadWire> {
    let mut request = VoteRequest::new(vote_from(proto.vote)?, opt_log_id_from(proto.last_log_id)?);
    request.leadership_transfer = proto.leadership_transfer;
    Ok(request)
}

pub(crate) fn vote_response_to(response: &VoteResponse<TypeConfig>) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(vote_to(&response.vote)),
        granted: response.vote_granted,
        last_log_id: opt_log_id_to(response.last_log_id.as_ref()),
    }
}

pub(crate) fn vote_response_from(proto: pb::VoteResponse) -> Result<VoteResponse<TypeConfig>, BadWire> {
    Ok(VoteResponse::new(
        vote_from(proto.vote)?,
        opt_log_id_from(proto.last_log_id)?,
        proto.granted,
    ))
}

pub(crate) fn transfer_to(request: &TransferLeaderRequest<TypeConfig>) -> pb::TransferRequest {
    pb::TransferRequest {
        from_leader: Some(vote_to(request.from_leader())),
        to: *request.to_node_id(),
        last_log_id: opt_log_id_to(request.last_log_id()),
    }
}

pub(crate) fn transfer_from(proto: pb::TransferRequest) -> Result<TransferLeaderRequest<TypeConfig>, BadWire> {
    let from = vote_from(proto.from_leader)?;
    Ok(TransferLeaderRequest::new(
        from,
        proto.to,
        opt_log_id_from(proto.last_log_id)?,
    ))
}

pub(crate) fn transferred_to(response: &TransferLeaderResponse<TypeConfig>) -> pb::TransferResponse {
    use pb::transfer_response::Result as R;
    let result = match response {
        Ok(()) => R::Ok(pb::Blank {}),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => R::VoteChanged(pb::TransferVoteChanged {
            expected: Some(vote_to(expected)),
            actual: Some(vote_to(actual)),
        }),
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => R::LogNotFlushed(pb::TransferLogNotFlushed {
            expected: opt_log_id_to(expected.as_ref()),
            actual: opt_log_id_to(actual.as_ref()),
        }),
    };
    pb::TransferResponse { result: Some(result) }
}

pub(crate) fn transferred_from(proto: pb::TransferResponse) -> Result<TransferLeaderResponse<TypeConfig>, BadWire> {
    use pb::transfer_response::Result as R;
    Ok(match need(proto.result, "transfer.result")? {
        R::Ok(_) => Ok(()),
        R::VoteChanged(v) => Err(TransferLeaderError::VoteChanged {
            expected: vote_from(v.expected)?,
            actual: vote_from(v.actual)?,
        }),
        R::LogNotFlushed(l) => Err(TransferLeaderError::LogNotFlushed {
            expected: opt_log_id_from(l.expected)?,
            actual: opt_log_id_from(l.actual)?,
        }),
    })
}
