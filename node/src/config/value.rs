//! What the text of a setting may mean: one small parser per kind of value.

use placement::{Node, NodeId};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// How a value is written in TOML.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    Text,
    Whole,
    Truth,
    List,
    /// Floats, dates, arrays of anything but text: no setting is written so.
    Other,
}

impl Shape {
    /// For people.
    pub(super) fn words(self) -> &'static str {
        match self {
            Shape::Text => "a text in quotes",
            Shape::Whole => "a whole number without quotes",
            Shape::Truth => "true or false without quotes",
            Shape::List => "a list of texts",
            Shape::Other => "something else",
        }
    }
}

/// A kind of value that a setting can have.
pub(crate) trait Value: Sized {
    /// Its name in the reference.
    const KIND: &'static str;
    /// How a TOML file writes it.
    const SHAPE: Shape = Shape::Text;
    /// The value that `text` spells, or what is wrong with it (without naming the key).
    fn parse(text: &str) -> Result<Self, String>;
}

impl Value for u64 {
    const KIND: &'static str = "whole number";
    const SHAPE: Shape = Shape::Whole;
    fn parse(text: &str) -> Result<u64, String> {
        text.replace('_', "")
            .parse()
            .map_err(|_| format!("`{text}` is not a whole number"))
    }
}

impl Value for u32 {
    const KIND: &'static str = "whole number";
    const SHAPE: Shape = Shape::Whole;
    fn parse(text: &str) -> Result<u32, String> {
        text.replace('_', "")
            .parse()
            .map_err(|_| format!("`{text}` is not a whole number below 2^32"))
    }
}

impl Value for u16 {
    const KIND: &'static str = "port";
    const SHAPE: Shape = Shape::Whole;
    fn parse(text: &str) -> Result<u16, String> {
        text.parse().map_err(|_| format!("`{text}` is not a port"))
    }
}

impl Value for bool {
    const KIND: &'static str = "true or false";
    const SHAPE: Shape = Shape::Truth;
    fn parse(text: &str) -> Result<bool, String> {
        text.parse().map_err(|_| format!("`{text}` is neither true nor false"))
    }
}

impl Value for String {
    const KIND: &'static str = "text";
    fn parse(text: &str) -> Result<String, String> {
        Ok(text.to_string())
    }
}

impl Value for PathBuf {
    const KIND: &'static str = "path";
    fn parse(text: &str) -> Result<PathBuf, String> {
        if text.is_empty() {
            Err("a path must not be empty".into())
        } else {
            Ok(PathBuf::from(text))
        }
    }
}

impl Value for SocketAddr {
    const KIND: &'static str = "address:port";
    fn parse(text: &str) -> Result<SocketAddr, String> {
        text.parse()
            .map_err(|_| format!("`{text}` is not an address with a port, such as 127.0.0.1:8080"))
    }
}

impl Value for IpAddr {
    const KIND: &'static str = "address";
    fn parse(text: &str) -> Result<IpAddr, String> {
        text.parse().map_err(|_| format!("`{text}` is not an IP address"))
    }
}

/// How log lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LogFormat {
    /// For a person.
    Text,
    /// One JSON object a line.
    Json,
}

impl Value for LogFormat {
    const KIND: &'static str = "text or json";
    fn parse(text: &str) -> Result<LogFormat, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            other => Err(format!("`{other}` is neither text nor json")),
        }
    }
}

/// The nodes that found a cluster, one a line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Founders(pub(crate) Vec<Node>);

impl Value for Founders {
    const KIND: &'static str = "list of `id=1 zone=a region=x grpc=host:port http=url trunk=host:port`";
    const SHAPE: Shape = Shape::List;
    fn parse(text: &str) -> Result<Founders, String> {
        let lines = text.split(['\n', ';']).map(str::trim).filter(|l| !l.is_empty());
        let nodes = lines.map(founder).collect::<Result<Vec<_>, _>>()?;
        let mut ids: Vec<u64> = nodes.iter().map(|n| n.id.0).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() == nodes.len() {
            Ok(Founders(nodes))
        } else {
            Err("two founders have the same id".into())
        }
    }
}

/// One node, as a line of the founders' list.
pub(crate) fn node_line(line: &str) -> Result<Node, String> {
    founder(line)
}

fn founder(line: &str) -> Result<Node, String> {
    let mut node = Node {
        id: NodeId(0),
        zone: String::new(),
        region: String::new(),
        weight: 1,
        grpc: String::new(),
        http: String::new(),
        trunk: String::new(),
    };
    for word in line.split_whitespace() {
        let (key, value) = word
            .split_once('=')
            .ok_or_else(|| format!("`{word}` in `{line}` is not key=value"))?;
        match key {
            "id" => node.id = NodeId(u64::parse(value)?),
            "weight" => node.weight = u32::parse(value)?,
            "zone" => node.zone = value.into(),
            "region" => node.region = value.into(),
            "grpc" => node.grpc = value.into(),
            "http" => node.http = value.into(),
            "trunk" => node.trunk = value.into(),
            other => return Err(format!("a founder has no `{other}`")),
        }
    }
    let missing = [
        ("zone", &node.zone),
        ("region", &node.region),
        ("grpc", &node.grpc),
        ("http", &node.http),
    ];
    for (name, value) in missing {
        if value.is_empty() {
            return Err(format!("founder `{line}` has no {name}"));
        }
    }
    if node.id.0 == 0 {
        return Err(format!("founder `{line}` has no id (from 1)"));
    }
    Ok(node)
}
