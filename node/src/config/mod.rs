//! Settings: one table of keys, three places to set them, every fault told at once and before a port is bound.
//!
//! ```text
//!   file, RUSHROOM_*, --set  --Source-->  keys (one table)  -->  checks across keys  -->  Config | all faults
//! ```
//!
//! A key that nobody declared is a fault too: a misspelt setting must not be a silent default.

mod keys;
mod rules;
mod source;
mod value;

pub(crate) use keys::{Config, KEYS};
pub(crate) use source::{Environment, Flags, Source, TomlFile};
pub(crate) use value::{LogFormat, node_line};

use placement::{Node, NodeId};
use std::fmt::Write as _;
use value::Shape;

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
    let mut faults: Vec<Fault> = sources.iter().flat_map(|s| s.faults()).collect();
    let mut places = keys::Places::new();
    let config = Config::parse(sources, &mut places, &mut faults);
    if let Some(config) = &config {
        rules::check(config, &places, &mut faults);
    }
    match config {
        Some(config) if faults.is_empty() => Ok(config),
        _ => Err(faults),
    }
}

impl Config {
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
        let value = match key.shape {
            Shape::Whole | Shape::Truth => key.default.to_string(),
            Shape::List => "[]".to_string(),
            Shape::Text | Shape::Other => format!("\"{}\"", key.default),
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

    /// What is wrong with these settings, each as `key (place)`.
    fn faults(toml: &str, vars: &[(&str, &str)], sets: &[&str]) -> Vec<Fault> {
        let file = TomlFile::parse("file", toml);
        let vars = vars.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let (vars, sets) = (
            Environment::of(vars),
            sets.iter().map(ToString::to_string).collect::<Vec<_>>(),
        );
        match read(&[&file, &vars, &Flags::parse(&sets)]) {
            Ok(_) => Vec::new(),
            Err(faults) => faults,
        }
    }

    fn check(toml: &str, sets: &[&str], expect: &[&str]) {
        check_all(toml, &[], sets, expect);
    }

    fn check_all(toml: &str, vars: &[(&str, &str)], sets: &[&str], expect: &[&str]) {
        let found: Vec<String> = faults(toml, vars, sets)
            .iter()
            .map(|f| format!("{} ({})", f.key, f.place))
            .collect();
        assert_eq!(found, expect, "{toml:?} {vars:?} {sets:?}");
    }

    #[test]
    fn faults_come_all_at_once_and_name_their_place() {
        check("", &[], &[]);
        check(
            "[node]\nid = 'x'\nzon = 'a'\n[http]\nlisten = 'here'",
            &[],
            &["node.zon (file:3)", "node.id (file:2)", "http.listen (file:5)"],
        );
        check("[node]\nid = 'x'", &["node.id=3"], &[]);
        check(
            "[clock]\nhold_ms = 250",
            &["raft.heartbeat_ms=100", "clock.beat_ms=300"],
            &[
                "raft.election_min_ms (raft.election_min_ms: default, raft.heartbeat_ms: --set)",
                "clock.beat_ms (clock.beat_ms: --set, clock.hold_ms: file:2)",
            ],
        );
        check(
            "",
            &["demo.enabled=true", "http.listen=0.0.0.0:80"],
            &["demo.enabled (demo.enabled: --set, http.listen: --set)"],
        );
        check(
            "",
            &["grpc.listen=10.0.0.1:80"],
            &["grpc.listen (grpc.listen: --set, tls.cert: default, grpc.allow_plaintext: default)"],
        );
        check(
            "",
            &["cluster.secret=beef", "node.id"],
            &["node.id (--set)", "cluster.secret (--set)"],
        );
        check("", &["telemetry.format=xml"], &["telemetry.format (--set)"]);
        // A file that is no TOML hides neither flags nor variables.
        check_all(
            "[node\nid = 3",
            &[("RUSHROOM_NODE_ID", "three")],
            &["clock.step_ms=900"],
            &[
                "TOML (file:1)",
                "node.id (RUSHROOM_NODE_ID)",
                "clock.step_ms (clock.step_ms: --set, clock.hold_ms: default)",
            ],
        );
    }

    #[test]
    fn a_value_that_cannot_be_read_hides_no_other_fault() {
        check(
            "[node]\nid = 'x'\n[clock]\nbeat_ms = 300\nstep_ms = 'y'",
            &[],
            &[
                "node.id (file:2)",
                "clock.step_ms (file:5)",
                "clock.beat_ms (clock.beat_ms: file:4, clock.hold_ms: default)",
            ],
        );
        // What only follows from it is not told: nobody knows what hold_ms was meant to be.
        check(
            "[clock]\nhold_ms = 'long'\nbeat_ms = 300",
            &[],
            &["clock.hold_ms (file:2)"],
        );
    }

    #[test]
    fn a_file_says_of_what_kind_its_values_are() {
        for (line, fault) in [
            ("zone = 3", Some("node.zone (file:2)")),
            ("zone = true", Some("node.zone (file:2)")),
            ("zone = ['a']", Some("node.zone (file:2)")),
            ("id = '3'", Some("node.id (file:2)")),
            ("id = 3.0", Some("node.id (file:2)")),
            ("id = true", Some("node.id (file:2)")),
            ("id = 1979-05-27", Some("node.id (file:2)")),
            ("id = -3", Some("node.id (file:2)")),
            ("id = 0x10", None),
            ("id = 1_0", None),
            ("id.x = 1", Some("node.id.x (file:2)")),
            ("[demo]\nenabled = 'false'", Some("demo.enabled (file:3)")),
            ("[cluster]\nfounders = [1]", Some("cluster.founders (file:3)")),
            ("[cluster]\nfounders = ''", Some("cluster.founders (file:3)")),
            ("[nodes]", Some("nodes (file:2)")),
            ("[http]", None),
        ] {
            check(&format!("[node]\n{line}"), &[], &fault.into_iter().collect::<Vec<_>>());
        }
        let told = faults("[node]\nzone = 3", &[], &[])[0].to_string();
        assert_eq!(
            told,
            "node.zone (file:2): must be a text in quotes, but is a whole number without quotes"
        );
    }

    #[test]
    fn a_misspelt_variable_is_no_silent_default() {
        let table: &[(&str, &[&str])] = &[
            ("RUSHROOM_NODE_ID", &[]),
            ("RUSHROOM_NOED_ID", &["RUSHROOM_NOED_ID (environment)"]),
            ("RUSHROOM_NODE_NUMBER", &["RUSHROOM_NODE_NUMBER (environment)"]),
            // Of the tools around us, and of others.
            ("RUSHROOM_BIN", &[]),
            ("RUSHROOM_NETNS", &[]),
            ("RUSHROOM_TEST_OTLP_GRPC", &[]),
            ("NODE_ID", &[]),
        ];
        for (name, expect) in table {
            check_all("", &[(name, "7")], &[], expect);
        }
        let told = faults("", &[("RUSHROOM_NOED_ID", "7")], &["node.zoen=b"]);
        let hints: Vec<_> = told
            .iter()
            .map(|f| f.what.rsplit_once("did you mean ").map(|(_, key)| key))
            .collect();
        assert_eq!(hints, [Some("RUSHROOM_NODE_ID?"), Some("node.zone?")]);
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
            &["cluster.secret (cluster.secret: default, cluster.founders: file:2)"],
        );
        check(
            &format!("{secret}founders = ['{a}', '{a}']"),
            &[],
            &["cluster.founders (file:3)"],
        );
        check(
            &format!("{secret}founders = ['{b}']"),
            &[],
            &["cluster.founders (cluster.founders: file:3, node.id: default)"],
        );
        check(
            &format!("{secret}founders = ['id=1 zone=a']"),
            &[],
            &["cluster.founders (file:3)"],
        );
    }

    #[test]
    fn the_default_file_reads_as_the_defaults() {
        let file = TomlFile::parse("default", &default_file());
        assert!(read(&[&file]).is_ok());
        for key in KEYS {
            assert_eq!(file.get(key.name).unwrap().text, key.default, "{}", key.name);
            assert!(doc().contains(key.name));
        }
    }
}
