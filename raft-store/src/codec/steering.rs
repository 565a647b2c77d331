//! Where the map is going, to wire and back.
//!
//! A step or standing of an unknown number stops the replica that reads it: guessing would let two replicas of shard 0
//! differ about what is to be done.

use super::{BadWire, Wire, known, need};
use crate::versions;
use placement::{
    Ended, Move, NodeId, Origin, Override, ReplicaId, Said, Seal, ShardId, Standing, Steering, Step, Wish,
};
use proto::log::v1::{self as pb, r#override::Wish as PbWish};

fn replica_to(end: (NodeId, ReplicaId)) -> pb::Replica {
    pb::Replica {
        node: end.0.0,
        replica: end.1.0,
    }
}

fn replica_from(proto: pb::Replica) -> (NodeId, ReplicaId) {
    (NodeId(proto.node), ReplicaId(proto.replica))
}

fn standing_to(standing: Standing) -> pb::Standing {
    match standing {
        Standing::Active => pb::Standing::Active,
        Standing::Draining => pb::Standing::Draining,
        Standing::Lost => pb::Standing::Lost,
        Standing::Decommissioned => pb::Standing::Decommissioned,
    }
}

fn standing_from(number: i32) -> Result<Standing, BadWire> {
    Ok(match pb::Standing::try_from(number) {
        Ok(pb::Standing::Active) => Standing::Active,
        Ok(pb::Standing::Draining) => Standing::Draining,
        Ok(pb::Standing::Lost) => Standing::Lost,
        Ok(pb::Standing::Decommissioned) => Standing::Decommissioned,
        Err(_) => return Err(BadWire::Invalid("standing")),
    })
}

fn step_to(step: Step) -> pb::MoveStep {
    match step {
        Step::Planned => pb::MoveStep::Planned,
        Step::Learner => pb::MoveStep::Learner,
        Step::CaughtUp => pb::MoveStep::CaughtUp,
        Step::Joint => pb::MoveStep::Joint,
        Step::HandedOver => pb::MoveStep::HandedOver,
        Step::Removed => pb::MoveStep::Removed,
    }
}

fn step_from(number: i32) -> Result<Step, BadWire> {
    Ok(match pb::MoveStep::try_from(number) {
        Ok(pb::MoveStep::Planned) => Step::Planned,
        Ok(pb::MoveStep::Learner) => Step::Learner,
        Ok(pb::MoveStep::CaughtUp) => Step::CaughtUp,
        Ok(pb::MoveStep::Joint) => Step::Joint,
        Ok(pb::MoveStep::HandedOver) => Step::HandedOver,
        Ok(pb::MoveStep::Removed) => Step::Removed,
        Ok(pb::MoveStep::Unspecified) | Err(_) => return Err(BadWire::Invalid("move.step")),
    })
}

fn move_to(shard: ShardId, one: &Move, ended_ms: u64) -> pb::Move {
    pb::Move {
        shard: shard.0,
        id: one.id,
        from: one.from.map(replica_to),
        to: one.to.map(replica_to),
        step: step_to(one.step).into(),
        back: one.back,
        forced: one.forced.clone(),
        reason: one.reason.clone(),
        began_ms: one.began_ms,
        ended_ms,
    }
}

fn move_from(proto: pb::Move) -> Result<(ShardId, Move), BadWire> {
    let one = Move {
        id: proto.id,
        from: proto.from.map(replica_from),
        to: proto.to.map(replica_from),
        step: step_from(proto.step)?,
        back: proto.back,
        forced: proto.forced,
        reason: proto.reason,
        began_ms: proto.began_ms,
    };
    Ok((ShardId(proto.shard), one))
}

impl Wire for Override {
    type Proto = pb::Override;

    fn to_proto(&self) -> pb::Override {
        let wish = match self.wish {
            Wish::Pin(node) => PbWish::Pin(node.0),
            Wish::Exclude(node) => PbWish::Exclude(node.0),
            Wish::PreferLeader(node) => PbWish::PreferLeader(node.0),
        };
        pb::Override {
            shard: self.shard.0,
            wish: Some(wish),
            owner: self.owner.clone(),
            until_ms: self.until_ms,
        }
    }

    fn from_proto(proto: pb::Override) -> Result<Override, BadWire> {
        let wish = match need(proto.wish, "override.wish")? {
            PbWish::Pin(node) => Wish::Pin(NodeId(node)),
            PbWish::Exclude(node) => Wish::Exclude(NodeId(node)),
            PbWish::PreferLeader(node) => Wish::PreferLeader(NodeId(node)),
        };
        Ok(Override {
            shard: ShardId(proto.shard),
            wish,
            owner: proto.owner,
            until_ms: proto.until_ms,
        })
    }
}

fn said_to(said: &Said) -> pb::Said {
    pb::Said {
        at_ms: said.at_ms,
        who: said.who.clone(),
        what: said.what.clone(),
        why: said.why.clone(),
        version: said.version,
    }
}

fn said_from(proto: pb::Said) -> Said {
    Said {
        at_ms: proto.at_ms,
        who: proto.who,
        what: proto.what,
        why: proto.why,
        version: proto.version,
    }
}

pub(super) fn origin_to(origin: Origin) -> pb::Origin {
    match origin {
        Origin::Backup => pb::Origin::Backup,
        Origin::Survivor => pb::Origin::Survivor,
    }
}

pub(super) fn origin_from(number: i32) -> Result<Origin, BadWire> {
    match pb::Origin::try_from(number) {
        Ok(pb::Origin::Backup) => Ok(Origin::Backup),
        Ok(pb::Origin::Survivor) => Ok(Origin::Survivor),
        Ok(pb::Origin::Unspecified) | Err(_) => Err(BadWire::Invalid("origin")),
    }
}

fn seal_to(shard: ShardId, seal: &Seal) -> pb::Seal {
    pb::Seal {
        shard: shard.0,
        replica: Some(replica_to((seal.node, seal.replica))),
        from: origin_to(seal.from).into(),
        why: seal.why.clone(),
        since_ms: seal.since_ms,
    }
}

fn seal_from(proto: pb::Seal) -> Result<(ShardId, Seal), BadWire> {
    let (node, replica) = replica_from(need(proto.replica, "seal.replica")?);
    let seal = Seal {
        node,
        replica,
        from: origin_from(proto.from)?,
        why: proto.why,
        since_ms: proto.since_ms,
    };
    Ok((ShardId(proto.shard), seal))
}

impl Wire for Steering {
    type Proto = pb::Steering;

    fn to_proto(&self) -> pb::Steering {
        let standings = self.standings.iter().map(|(node, standing)| pb::NodeStanding {
            node: node.0,
            standing: standing_to(*standing).into(),
        });
        let goal = self.goal.iter().map(|(shard, nodes)| pb::Goal {
            shard: shard.0,
            nodes: nodes.iter().map(|node| node.0).collect(),
        });
        pb::Steering {
            version: self.version,
            standings: standings.collect(),
            watchers: self
                .watchers
                .iter()
                .map(|(node, replica)| replica_to((*node, *replica)))
                .collect(),
            goal: goal.collect(),
            reason: self.reason.clone(),
            forced: self.forced.clone(),
            moves: self.moves.iter().map(|(shard, one)| move_to(*shard, one, 0)).collect(),
            move_ids: self.move_ids,
            ended: self
                .ended
                .iter()
                .map(|ended| move_to(ended.shard, &ended.what, ended.ended_ms))
                .collect(),
            overrides: self.overrides.iter().map(Wire::to_proto).collect(),
            paused: self.paused,
            said: self.said.iter().map(said_to).collect(),
            cluster_version: self.cluster_version,
            sealed: self.sealed.iter().map(|(shard, seal)| seal_to(*shard, seal)).collect(),
        }
    }

    fn from_proto(proto: pb::Steering) -> Result<Steering, BadWire> {
        let standings = proto
            .standings
            .iter()
            .map(|s| Ok((NodeId(s.node), standing_from(s.standing)?)));
        let goal = proto.goal.iter().map(|goal| {
            let nodes = goal.nodes.iter().map(|node| NodeId(*node)).collect();
            (ShardId(goal.shard), nodes)
        });
        let ended = proto.ended.into_iter().map(|one| {
            let ended_ms = one.ended_ms;
            let (shard, what) = move_from(one)?;
            Ok(Ended { shard, what, ended_ms })
        });
        known("the cluster", proto.cluster_version, versions::NEWEST)?;
        Ok(Steering {
            version: proto.version,
            standings: standings.collect::<Result<_, BadWire>>()?,
            watchers: proto.watchers.into_iter().map(replica_from).collect(),
            goal: goal.collect(),
            reason: proto.reason,
            forced: proto.forced,
            moves: proto.moves.into_iter().map(move_from).collect::<Result<_, _>>()?,
            move_ids: proto.move_ids,
            ended: ended.collect::<Result<_, BadWire>>()?,
            overrides: proto
                .overrides
                .into_iter()
                .map(Override::from_proto)
                .collect::<Result<_, _>>()?,
            paused: proto.paused,
            said: proto.said.into_iter().map(said_from).collect(),
            cluster_version: proto.cluster_version,
            sealed: proto.sealed.into_iter().map(seal_from).collect::<Result<_, _>>()?,
        })
    }
}
