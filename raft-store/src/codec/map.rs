//! The cluster map and the commands that change it, to wire and back.

use super::{BadWire, Wire, need};
use crate::types::MetaCommand;
use placement::{ClusterMap, Node, NodeId, Placement, ReplicaId, ShardId, Steering};
use proto::log::v1::{self as pb, meta_command::Command as Pb};

impl Wire for Node {
    type Proto = pb::Node;

    fn to_proto(&self) -> pb::Node {
        pb::Node {
            id: self.id.0,
            zone: self.zone.clone(),
            region: self.region.clone(),
            weight: self.weight,
            grpc: self.grpc.clone(),
            http: self.http.clone(),
            trunk: self.trunk.clone(),
        }
    }

    fn from_proto(proto: pb::Node) -> Result<Node, BadWire> {
        Ok(Node {
            id: NodeId(proto.id),
            zone: proto.zone,
            region: proto.region,
            weight: proto.weight,
            grpc: proto.grpc,
            http: proto.http,
            trunk: proto.trunk,
        })
    }
}

impl Wire for ClusterMap {
    type Proto = pb::ClusterMap;

    fn to_proto(&self) -> pb::ClusterMap {
        let placement = self.placement.iter().map(|(shard, placement)| pb::Placement {
            shard: shard.0,
            replicas: placement
                .replicas
                .iter()
                .map(|(n, r)| pb::Replica {
                    node: n.0,
                    replica: r.0,
                })
                .collect(),
        });
        pb::ClusterMap {
            epoch: self.epoch,
            shards: self.shards,
            nodes: self.nodes.values().map(Wire::to_proto).collect(),
            placement: placement.collect(),
            replica_ids: self.replica_ids,
            steering: Some(self.steering.to_proto()),
        }
    }

    fn from_proto(proto: pb::ClusterMap) -> Result<ClusterMap, BadWire> {
        let nodes = proto
            .nodes
            .into_iter()
            .map(|node| Node::from_proto(node).map(|node| (node.id, node)));
        let placement = proto.placement.into_iter().map(|p| {
            let replicas = p
                .replicas
                .iter()
                .map(|r| (NodeId(r.node), ReplicaId(r.replica)))
                .collect();
            (ShardId(p.shard), Placement { replicas })
        });
        Ok(ClusterMap {
            epoch: proto.epoch,
            shards: proto.shards,
            nodes: nodes.collect::<Result<_, _>>()?,
            placement: placement.collect(),
            replica_ids: proto.replica_ids,
            steering: proto
                .steering
                .map(Steering::from_proto)
                .transpose()?
                .unwrap_or_default(),
        })
    }
}

impl Wire for MetaCommand {
    type Proto = pb::MetaCommand;

    fn to_proto(&self) -> pb::MetaCommand {
        let store = |expected: &u64, map: &ClusterMap| pb::StoreMap {
            expected: *expected,
            map: Some(map.to_proto()),
        };
        let command = match self {
            MetaCommand::StoreMap { expected, map } => Pb::StoreMap(store(expected, map)),
            MetaCommand::Steer { expected, map } => Pb::Steer(store(expected, map)),
        };
        pb::MetaCommand { command: Some(command) }
    }

    fn from_proto(proto: pb::MetaCommand) -> Result<MetaCommand, BadWire> {
        let read = |store: pb::StoreMap| {
            let map = Box::new(ClusterMap::from_proto(need(store.map, "store_map.map")?)?);
            Ok::<_, BadWire>((store.expected, map))
        };
        Ok(match need(proto.command, "meta.command")? {
            Pb::StoreMap(store) => {
                let (expected, map) = read(store)?;
                MetaCommand::StoreMap { expected, map }
            }
            Pb::Steer(store) => {
                let (expected, map) = read(store)?;
                MetaCommand::Steer { expected, map }
            }
        })
    }
}
