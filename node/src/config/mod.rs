//! Settings: one table of keys, three places to set them, every fault told at once and before a port is bound.
//!
//! ```text
//!   file, RUSHROOM_*, --set  --Source-->  keys (one table)  -->  checks across keys  -->  Config | all faults
//! ```
//!
//! A key that nobody declared is a fault too: a misspelt setting must not be a silent default.

mod keys;
mod source;
mod value;

pub(crate) use keys::{Config, KEYS};
pub(crate) use source::{Environment, Pairs, Source, TomlFile};
pub(crate) use value::LogFormat;

use placement::{Node, NodeId};
use std::fmt::Write as _;

/// One thing wrong with the settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    /// The key.
    pub(crate) key: String,
    /// Where it was set.
    pub(crate) place: String,
    /// What is wrong, for the person who wrote it.
    pub(crate) what: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}): {}", self.key, self.place, self.what)
    }
}

/// Reads all settings; the later source wins.
pub(crate) fn read(sources: &[&dyn Source]) -> Result<Config, Vec<Fault>> {
    let mut faults = Vec::new();
    for source in sources {
        for key in source.named() {
            if !KEYS.iter().any(|k| k.name == key) {
                faults.push(Fault {
                    key,
                    place: source.name(),
                    what: "there is no such setting".into(),
                });
            }
        }
    }
    let config = Config::parse(sources, &mut faults);
    if let Some(config) = &config {
        config.check(&mut faults);
    }
    match config {
        Some(config) if faults.is_empty() => Ok(config),
        _ => Err(faults),
    }
}

impl Config {
    /// What no key can know alone.
    fn check(&self, faults: &mut Vec<Fault>) {
        let mut must = |holds: bool, key: &str, what: &str| {
            if !holds {
                faults.push(Fault {
                    key: key.into(),
                    place: "together".into(),
                    what: what.into(),
                });
            }
        };
        must(self.node_id > 0, "node.id", "ids begin at 1");
        must(
            (1..=4096).contains(&self.cluster_shards),
            "cluster.shards",
            "must be 1..=4096",
        );
        must(
            self.raft_heartbeat_ms > 0 && self.raft_heartbeat_ms * 2 <= self.raft_election_min_ms,
            "raft.election_min_ms",
            "must be at least twice raft.heartbeat_ms, or one late heartbeat unseats a leader",
        );
        must(
            self.raft_election_min_ms < self.raft_election_max_ms,
            "raft.election_max_ms",
            "must be above raft.election_min_ms, or candidates collide",
        );
        must(
            self.clock_step_ms < self.clock_hold_ms,
            "clock.step_ms",
            "must be below clock.hold_ms",
        );
        must(
            self.clock_beat_ms > 0 && self.clock_beat_ms < self.clock_hold_ms,
            "clock.beat_ms",
            "must be 1 or more and below clock.hold_ms, or the clock holds between two beats",
        );
        must(
            self.telemetry_sample_ppm <= 1_000_000,
            "telemetry.sample_ppm",
            "at most 1000000",
        );
        must(
            self.http_listen != self.grpc_listen || self.http_listen.port() == 0,
            "grpc.listen",
            "is http.listen too",
        );
        must(
            !self.demo_enabled || self.http_listen.ip().is_loopback(),
            "demo.enabled",
            "lets everyone stop nodes: only with http.listen on loopback",
        );
        must(
            self.grpc_allow_plaintext || self.grpc_listen.ip().is_loopback(),
            "grpc.listen",
            "beyond loopback nodes would talk without TLS; see grpc.allow_plaintext",
        );
        let founders = &self.cluster_founders.0;
        must(
            founders.is_empty() || founders.iter().any(|n| n.id.0 == self.node_id),
            "cluster.founders",
            "this node (node.id) is not among them",
        );
        let seed = hex::decode(&self.cluster_secret).is_ok_and(|bytes| bytes.len() == 32);
        must(
            seed || self.cluster_secret.is_empty(),
            "cluster.secret",
            "must be 64 hex digits",
        );
        must(
            seed || founders.len() < 2,
            "cluster.secret",
            "must be set when there is more than one node: each must verify the others' tokens",
        );
        must(
            (100..=60_000).contains(&self.grpc_deadline_ms),
            "grpc.deadline_ms",
            "must be 100..=60000",
        );
        must(self.grpc_in_flight > 0, "grpc.in_flight", "must be at least 1");
    }

    /// The founding nodes; this one alone if none are listed.
    pub(crate) fn founders(&self) -> Vec<Node> {
        if !self.cluster_founders.0.is_empty() {
            return self.cluster_founders.0.clone();
        }
        vec![Node {
            id: NodeId(self.node_id),
            zone: self.node_zone.clone(),
            region: self.node_region.clone(),
            weight: 1,
            grpc: if self.grpc_advertise.is_empty() {
                self.grpc_listen.to_string()
            } else {
                self.grpc_advertise.clone()
            },
            http: if self.http_url.is_empty() {
                format!("http://{}", self.http_listen)
            } else {
                self.http_url.clone()
            },
            trunk: std::net::SocketAddr::new(self.media_ip, self.media_trunk_port).to_string(),
        }]
    }
}

/// The settings as a file with each default and its meaning.
pub(crate) fn default_file() -> String {
    let mut out =
        String::from("# Rushroom's settings with their defaults. Each can be set as RUSHROOM_SECTION_KEY too.\n");
    let mut section = "";
    for key in KEYS {
        let (table, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if table != section {
            let _ = write!(out, "\n[{table}]\n");
            section = table;
        }
        let unit = if key.unit.is_empty() {
            String::new()
        } else {
            format!(" [{}]", key.unit)
        };
        let bare = matches!(key.kind, "whole number" | "port" | "true or false");
        let value = if bare {
            key.default.to_string()
        } else if key.name == "cluster.founders" {
            "[]".to_string()
        } else {
            format!("\"{}\"", key.default)
        };
        let _ = write!(out, "# {}{unit}\n{name} = {value}\n", key.doc);
    }
    out
}

/// The settings as a table in Markdown.
pub(crate) fn doc() -> String {
    let mut out = String::from("| setting | variable | kind | default | meaning |\n|---|---|---|---|---|\n");
    for key in KEYS {
        let unit = if key.unit.is_empty() {
            String::new()
        } else {
            format!(" ({})", key.unit)
        };
        let variable = source::variable(key.name);
        let _ = writeln!(
            out,
            "| `{}` | `{variable}` | {}{unit} | `{}` | {} |",
            key.name, key.kind, key.default, key.doc
        );
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn check(toml: &str, sets: &[&str], expect: &[&str]) {
        let file = TomlFile::parse("file", toml).unwrap();
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        let flags = Pairs::parse("flags", &sets).unwrap();
        let faults = match read(&[&file, &flags]) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.iter().map(|f| format!("{} ({})", f.key, f.place)).collect(),
        };
        assert_eq!(faults, expect, "{toml:?} {sets:?}");
    }

    #[test]
    fn faults_come_all_at_once_and_name_their_place() {
        check("", &[], &[]);
        check(
            "[node]\nid = 'x'\nzon = 'a'\n[http]\nlisten = 'here'",
            &[],
            &["node.zon (file)", "node.id (file)", "http.listen (file)"],
        );
        check("[node]\nid = 'x'", &["node.id=3"], &[]);
        check(
            "",
            &["raft.heartbeat_ms=100", "clock.beat_ms=300"],
            &["raft.election_min_ms (together)", "clock.beat_ms (together)"],
        );
        check(
            "",
            &["demo.enabled=true", "http.listen=0.0.0.0:80"],
            &["demo.enabled (together)"],
        );
        check("", &["grpc.listen=10.0.0.1:80"], &["grpc.listen (together)"]);
        check("", &["cluster.secret=beef"], &["cluster.secret (together)"]);
        check("", &["telemetry.format=xml"], &["telemetry.format (flags)"]);
    }

    #[test]
    fn founders_are_lines() {
        let a = "id=1 zone=a region=x grpc=127.0.0.1:1 http=http://127.0.0.1:2 trunk=127.0.0.1:3";
        let b = "id=2 zone=b region=x grpc=127.0.0.1:4 http=http://127.0.0.1:5 trunk=127.0.0.1:6";
        let secret = format!("[cluster]\nsecret = '{}'\n", "07".repeat(32));
        check(&format!("{secret}founders = ['{a}', '{b}']"), &[], &[]);
        check(
            &format!("[cluster]\nfounders = ['{a}', '{b}']"),
            &[],
            &["cluster.secret (together)"],
        );
        check(
            &format!("{secret}founders = ['{a}', '{a}']"),
            &[],
            &["cluster.founders (file)"],
        );
        check(
            &format!("{secret}founders = ['{b}']"),
            &[],
            &["cluster.founders (together)"],
        );
        check(
            &format!("{secret}founders = ['id=1 zone=a']"),
            &[],
            &["cluster.founders (file)"],
        );
    }

    #[test]
    fn the_default_file_reads_as_the_defaults() {
        let file = TomlFile::parse("default", &default_file()).unwrap();
        assert!(read(&[&file]).is_ok());
        for key in KEYS {
            assert_eq!(file.get(key.name).unwrap(), key.default, "{}", key.name);
            assert!(doc().contains(key.name));
        }
    }
}
