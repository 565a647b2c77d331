//! Ports for a cluster on loopback: free ones, or a fixed base that a person can remember.
//!
//! A cluster keeps the ports that it was born with: they are in its map, which lies in its log. So they are written down
//! in its folder, and a later start in that folder takes them again.

use anyhow::{Context as _, Result, bail};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;

/// The ports of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    /// HTTP.
    pub(super) http: u16,
    /// gRPC.
    pub(super) grpc: u16,
    /// Viewers' media (UDP).
    pub(super) media: u16,
    /// Relays between nodes (UDP).
    pub(super) trunk: u16,
}

/// Below the range from which the system hands out ports by itself: nothing else takes them between here and the child.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// The file in a cluster's folder that holds its ports: a line a node, HTTP, gRPC, media, trunk.
const FILE: &str = "ports";

/// The ports of the cluster in `dir`: those that it was born with, or new ones, written down.
pub(super) fn settle(dir: &Path, nodes: u16, base: Option<u16>) -> Result<Vec<Ports>> {
    let file = dir.join(FILE);
    if let Ok(text) = std::fs::read_to_string(&file) {
        let ports = parse(&text).with_context(|| format!("{} is damaged", file.display()))?;
        let Some(first) = ports.first().filter(|_| ports.len() == usize::from(nodes)) else {
            bail!("{} is of another cluster", file.display());
        };
        if base.is_some_and(|base| base != first.http) {
            bail!(
                "the cluster in {} was born at port {}; leave --port out, or take another folder",
                dir.display(),
                first.http
            );
        }
        return Ok(ports);
    }
    let ports = pick(nodes, base)?;
    let text: String = ports
        .iter()
        .map(|p| format!("{} {} {} {}\n", p.http, p.grpc, p.media, p.trunk))
        .collect();
    std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    Ok(ports)
}

fn parse(text: &str) -> Option<Vec<Ports>> {
    let line = |line: &str| {
        let mut numbers = line.split(' ').map(|n| n.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(Ports {
            http: next()?,
            grpc: next()?,
            media: next()?,
            trunk: next()?,
        })
    };
    text.lines().map(line).collect()
}

/// Ports for `nodes` nodes: from `base` upwards (HTTP first), or free ones.
pub(super) fn pick(nodes: u16, base: Option<u16>) -> Result<Vec<Ports>> {
    if let Some(base) = base {
        let at = |kind: u16, node: u16| {
            base.checked_add(kind * nodes + node)
                .with_context(|| format!("--port {base} leaves no room above it"))
        };
        let ports = (0..nodes).map(|n| {
            Ok(Ports {
                http: at(0, n)?,
                grpc: at(1, n)?,
                media: at(2, n)?,
                trunk: at(3, n)?,
            })
        });
        return ports.collect();
    }
    let mut taken = Vec::new();
    (0..nodes)
        .map(|_| {
            Ok(Ports {
                http: free(&mut taken)?,
                grpc: free(&mut taken)?,
                media: free(&mut taken)?,
                trunk: free(&mut taken)?,
            })
        })
        .collect()
}

/// A port that nobody has, neither for TCP nor for UDP.
fn free(taken: &mut Vec<u16>) -> Result<u16> {
    for _ in 0..1_000 {
        let port = rand::random_range(RANGE);
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, port));
        if !taken.contains(&port) && tcp.is_ok() && udp.is_ok() {
            taken.push(port);
            return Ok(port);
        }
    }
    bail!("no free port between {} and {}", RANGE.start, RANGE.end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_base_gives_ports_that_can_be_remembered() {
        let ports = pick(3, Some(8080)).unwrap();
        assert_eq!(ports.iter().map(|p| p.http).collect::<Vec<_>>(), [8080, 8081, 8082]);
        assert_eq!(
            ports[0],
            Ports {
                http: 8080,
                grpc: 8083,
                media: 8086,
                trunk: 8089
            }
        );
        assert!(pick(3, Some(65_530)).is_err());
    }

    #[test]
    fn a_folder_keeps_its_ports() {
        let dir = tempfile::tempdir().unwrap();
        let born = settle(dir.path(), 3, None).unwrap();
        assert_eq!(settle(dir.path(), 3, None).unwrap(), born);
        assert_eq!(settle(dir.path(), 3, Some(born[0].http)).unwrap(), born);
        assert!(settle(dir.path(), 3, Some(born[0].http + 1)).is_err());
        assert!(settle(dir.path(), 4, None).is_err());
        std::fs::write(dir.path().join(FILE), "1 2 3\n").unwrap();
        assert!(settle(dir.path(), 3, None).is_err());
    }

    #[test]
    fn free_ports_are_all_different() {
        let ports = pick(3, None).unwrap();
        let mut all: Vec<u16> = ports.iter().flat_map(|p| [p.http, p.grpc, p.media, p.trunk]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 12);
    }
}
