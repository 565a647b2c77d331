//! What no key can know alone: rules over the settings together, as one table.
//!
//! A rule is told only when every key that it looks at could be read: what follows from a typo is noise beside the typo.
//! Its place names each of those keys with where it stands, since any of them may be the one to mend.

use super::keys::Places;
use super::{Config, Fault};
use std::collections::BTreeSet;

/// One rule.
struct Rule {
    /// The keys that it looks at; the first is the one that is named.
    keys: &'static [&'static str],
    /// What must be so.
    holds: fn(&Config) -> bool,
    /// What is told otherwise.
    what: &'static str,
}

/// All of them.
const RULES: &[Rule] = &[
    Rule {
        keys: &["node.id"],
        holds: |c| c.node_id > 0,
        what: "ids begin at 1",
    },
    Rule {
        keys: &["cluster.shards"],
        holds: |c| (1..=4096).contains(&c.cluster_shards),
        what: "must be 1..=4096",
    },
    Rule {
        keys: &["raft.election_min_ms", "raft.heartbeat_ms"],
        holds: |c| c.raft_heartbeat_ms > 0 && c.raft_heartbeat_ms.saturating_mul(2) <= c.raft_election_min_ms,
        what: "must be at least twice raft.heartbeat_ms, or one late heartbeat unseats a leader",
    },
    Rule {
        keys: &["raft.election_max_ms", "raft.election_min_ms"],
        holds: |c| c.raft_election_min_ms < c.raft_election_max_ms,
        what: "must be above raft.election_min_ms, or candidates collide",
    },
    Rule {
        keys: &["raft.snapshot_piece_bytes"],
        holds: |c| (4096..=1 << 20).contains(&c.raft_snapshot_piece_bytes),
        what: "from 4096 to 1048576: no node takes a longer one",
    },
    Rule {
        keys: &["clock.step_ms", "clock.hold_ms"],
        holds: |c| c.clock_step_ms < c.clock_hold_ms,
        what: "must be below clock.hold_ms",
    },
    Rule {
        keys: &["clock.beat_ms", "clock.hold_ms"],
        holds: |c| c.clock_beat_ms > 0 && c.clock_beat_ms < c.clock_hold_ms,
        what: "must be 1 or more and below clock.hold_ms, or the clock holds between two beats",
    },
    Rule {
        keys: &["lanes.window", "lanes.entry_max", "lanes.pipeline"],
        holds: |c| c.lanes_window > 0 && c.lanes_entry_max > 0 && c.lanes_pipeline > 0,
        what: "must be 1 or more, each, or nothing is ever logged",
    },
    Rule {
        keys: &["media.lanes"],
        holds: |c| c.media_lanes <= 64,
        what: "at most 64",
    },
    Rule {
        keys: &["limits.bids_per_s", "limits.frames_per_s"],
        holds: |c| c.limits_bids_per_s > 0 && c.limits_frames_per_s > 0,
        what: "must be 1 or more, each, or nobody can bid",
    },
    Rule {
        keys: &["telemetry.sample_ppm"],
        holds: |c| c.telemetry_sample_ppm <= 1_000_000,
        what: "at most 1000000",
    },
    Rule {
        keys: &["grpc.listen", "http.listen"],
        holds: |c| c.http_listen != c.grpc_listen || c.http_listen.port() == 0,
        what: "is http.listen too",
    },
    Rule {
        keys: &["listen.backlog"],
        holds: |c| (1..=1_000_000).contains(&c.listen_backlog),
        what: "from 1 to 1000000",
    },
    Rule {
        keys: &["demo.enabled", "http.listen"],
        holds: |c| !c.demo_enabled || c.http_listen.ip().is_loopback(),
        what: "lets everyone stop nodes: only with http.listen on loopback",
    },
    Rule {
        keys: &["grpc.listen", "tls.cert", "grpc.allow_plaintext"],
        holds: |c| c.grpc_allow_plaintext || c.grpc_listen.ip().is_loopback() || !c.tls_cert.is_empty(),
        what: "beyond loopback nodes would talk without TLS; set tls.* (or see grpc.allow_plaintext)",
    },
    Rule {
        keys: &["tls.cert", "tls.ca", "tls.key"],
        holds: |c| c.tls_cert.is_empty() == c.tls_ca.is_empty() && c.tls_cert.is_empty() == c.tls_key.is_empty(),
        what: "tls.ca, tls.cert and tls.key go together: all three or none",
    },
    Rule {
        keys: &["tls.look_ms"],
        holds: |c| (100..=3_600_000).contains(&c.tls_look_ms),
        what: "must be 100..=3600000",
    },
    Rule {
        keys: &["cluster.founders", "node.id"],
        holds: |c| c.cluster_founders.0.is_empty() || c.cluster_founders.0.iter().any(|n| n.id.0 == c.node_id),
        what: "this node (node.id) is not among them",
    },
    Rule {
        keys: &["cluster.secret"],
        holds: |c| c.cluster_secret.is_empty() || is_seed(&c.cluster_secret),
        what: "must be 64 hex digits",
    },
    Rule {
        keys: &["cluster.secret", "cluster.founders"],
        holds: |c| !c.cluster_secret.is_empty() || c.cluster_founders.0.len() < 2,
        what: "must be set when there is more than one node: each must verify the others' tokens",
    },
    Rule {
        keys: &["cluster.join", "cluster.founders"],
        holds: |c| c.cluster_join.is_empty() || c.cluster_founders.0.is_empty(),
        what: "a node founds a cluster or joins one, not both",
    },
    Rule {
        keys: &["cluster.secret", "cluster.join"],
        holds: |c| !c.cluster_secret.is_empty() || c.cluster_join.is_empty(),
        what: "must be the secret of the cluster that the node joins",
    },
    Rule {
        keys: &["grpc.deadline_ms"],
        holds: |c| (100..=60_000).contains(&c.grpc_deadline_ms),
        what: "must be 100..=60000",
    },
    Rule {
        keys: &["grpc.in_flight"],
        holds: |c| c.grpc_in_flight > 0,
        what: "must be at least 1",
    },
];

fn is_seed(text: &str) -> bool {
    hex::decode(text).is_ok_and(|bytes| bytes.len() == 32)
}

/// Adds what the settings break together.
pub(super) fn check(config: &Config, places: &Places, faults: &mut Vec<Fault>) {
    let unread: BTreeSet<String> = faults.iter().map(|f| f.key.clone()).collect();
    for rule in RULES.iter().filter(|r| !(r.holds)(config)) {
        if rule.keys.iter().any(|key| unread.contains(*key)) {
            continue;
        }
        let at = |key: &&'static str| places.get(key).map_or("default", String::as_str);
        let place = match rule.keys {
            [key] => at(key).to_string(),
            keys => {
                let each: Vec<String> = keys.iter().map(|key| format!("{key}: {}", at(key))).collect();
                each.join(", ")
            }
        };
        faults.push(Fault {
            key: rule.keys[0].into(),
            place,
            what: rule.what.into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KEYS;

    #[test]
    fn rules_speak_of_keys_that_exist() {
        for key in RULES.iter().flat_map(|r| r.keys) {
            assert!(KEYS.iter().any(|k| k.name == *key), "{key}");
        }
    }
}
