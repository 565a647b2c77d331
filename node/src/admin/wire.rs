//! The admin API's words to the core's, and back.

use placement::{Change, ClusterMap, NodeId, Plan, ShardId};
use proto::cluster::v1::{self as pb, change_request::Change as Pb};
use raft_store::codec::{BadWire, Wire as _};
use std::collections::{BTreeMap, BTreeSet};

/// What a node knows of the cluster.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Overview {
    /// Who answers.
    pub(crate) node: NodeId,
    /// The map.
    pub(crate) map: ClusterMap,
    /// Nodes that it hears.
    pub(crate) alive: BTreeSet<NodeId>,
    /// Who leads, as far as it knows.
    pub(crate) leaders: BTreeMap<ShardId, NodeId>,
    /// What moves wait for.
    pub(crate) waits: BTreeMap<ShardId, String>,
    /// The node that leads shard 0 didn't answer: there may be a newer map.
    pub(crate) may_be_old: bool,
}

pub(crate) fn overview_to(overview: &Overview) -> pb::OverviewReply {
    let leaders = overview.leaders.iter().map(|(shard, node)| pb::Leader {
        shard: shard.0,
        node: node.0,
    });
    let waits = overview.waits.iter().map(|(shard, why)| pb::Wait {
        shard: shard.0,
        why: why.clone(),
    });
    pb::OverviewReply {
        node: overview.node.0,
        map: Some(overview.map.to_proto()),
        alive: overview.alive.iter().map(|node| node.0).collect(),
        leaders: leaders.collect(),
        waits: waits.collect(),
        may_be_old: overview.may_be_old,
    }
}

pub(crate) fn overview_from(proto: pb::OverviewReply) -> Result<Overview, BadWire> {
    let map = ClusterMap::from_proto(proto.map.ok_or(BadWire::Missing("overview.map"))?)?;
    Ok(Overview {
        node: NodeId(proto.node),
        map,
        alive: proto.alive.into_iter().map(NodeId).collect(),
        leaders: proto
            .leaders
            .iter()
            .map(|l| (ShardId(l.shard), NodeId(l.node)))
            .collect(),
        waits: proto.waits.into_iter().map(|w| (ShardId(w.shard), w.why)).collect(),
        may_be_old: proto.may_be_old,
    })
}

/// `Lose` is the mover's own, `HandedOver` a transfer's note, `Copy` a backup's, `Seal` and `Found` a founding's (`Admin.Refound`): no form here.
pub(crate) fn change_to(change: &Change, owner: &str) -> Option<(Pb, String)> {
    let pb = match change {
        Change::Join(node) => Pb::Join(node.to_proto()),
        Change::Drain(node) => Pb::Drain(node.0),
        Change::Resume(node) => Pb::Resume(node.0),
        Change::Weight(node, weight) => Pb::Weight(pb::Weight {
            node: node.0,
            weight: *weight,
        }),
        Change::Decommission(node) => Pb::Decommission(node.0),
        Change::Move { shard, from, to, .. } => Pb::Move(pb::MoveOne {
            shard: shard.0,
            from: from.0,
            to: to.0,
        }),
        Change::Override(o) => Pb::Override(o.to_proto()),
        Change::Lift(shard, node) => Pb::Lift(pb::Lift {
            shard: shard.0,
            node: node.0,
        }),
        Change::Rebalance => Pb::Rebalance(pb::Nothing {}),
        Change::Cancel(shard) => Pb::Cancel(pb::Cancel {
            shard: shard.map(|shard| shard.0),
        }),
        Change::Pause => Pb::Pause(pb::Nothing {}),
        Change::Go => Pb::Go(pb::Nothing {}),
        Change::Upgrade(to) => Pb::Upgrade(*to),
        Change::Restart(node) => Pb::Restart(node.0),
        Change::Lose(_) | Change::HandedOver { .. } | Change::Copy | Change::Seal { .. } | Change::Found(_) => {
            return None;
        }
    };
    Some((pb, owner.to_owned()))
}

pub(crate) fn change_from(proto: Pb, who: &str) -> Result<Change, BadWire> {
    Ok(match proto {
        Pb::Join(node) => Change::Join(placement::Node::from_proto(node)?),
        Pb::Drain(node) => Change::Drain(NodeId(node)),
        Pb::Resume(node) => Change::Resume(NodeId(node)),
        Pb::Weight(w) => Change::Weight(NodeId(w.node), w.weight),
        Pb::Decommission(node) => Change::Decommission(NodeId(node)),
        Pb::Move(m) => Change::Move {
            shard: ShardId(m.shard),
            from: NodeId(m.from),
            to: NodeId(m.to),
            owner: who.to_owned(),
        },
        // Whose it is, is who asks: a caller may call itself what it likes, and the certificate says otherwise.
        Pb::Override(o) => Change::Override(placement::Override {
            owner: who.to_owned(),
            ..placement::Override::from_proto(o)?
        }),
        Pb::Lift(l) => Change::Lift(ShardId(l.shard), NodeId(l.node)),
        Pb::Rebalance(_) => Change::Rebalance,
        Pb::Cancel(c) => Change::Cancel(c.shard.map(ShardId)),
        Pb::Pause(_) => Change::Pause,
        Pb::Go(_) => Change::Go,
        Pb::Upgrade(to) => Change::Upgrade(to),
        Pb::Restart(node) => Change::Restart(NodeId(node)),
    })
}

pub(crate) fn plan_to(plan: &Plan) -> pb::ChangeReply {
    let moves = plan.moves.iter().map(|m| pb::Planned {
        shard: m.shard.0,
        from: m.from.map(|node| node.0),
        to: m.to.map(|node| node.0),
        reason: m.reason.clone(),
    });
    let leaders = plan.leaders.iter().map(|(shard, from, to)| pb::NewLeader {
        shard: shard.0,
        from: from.map(|node| node.0),
        to: to.map(|node| node.0),
    });
    pb::ChangeReply {
        refused: None,
        base: plan.base,
        map: Some(plan.map.to_proto()),
        moves: moves.collect(),
        leaders: leaders.collect(),
        warnings: plan.warnings.clone(),
    }
}

pub(crate) fn refused_to(code: &str, why: String, may_be_forced: bool) -> pb::ChangeReply {
    pb::ChangeReply {
        refused: Some(pb::Refused {
            code: code.to_owned(),
            why,
            may_be_forced,
        }),
        ..pb::ChangeReply::default()
    }
}
