//! Answers as a person likes to read them: aligned columns, words for states, times ago.

use super::wire::Overview;
use placement::{ClusterMap, Explained, NodeId, ShardId, plan::open_moves};
use proto::cluster::v1 as pb;
use std::fmt::Write as _;

/// Rows under a head, columns as wide as they must be; numbers to the right.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |i: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(i))
            .map(|cell| cell.chars().count());
        cells.chain([head[i].len()]).max().unwrap_or(0)
    };
    let right = |i: usize| !rows.is_empty() && rows.iter().all(|row| row.get(i).is_some_and(|cell| numeric(cell)));
    let mut out = String::new();
    let heads: Vec<String> = head.iter().map(|word| word.to_uppercase()).collect();
    for row in std::iter::once(&heads).chain(rows) {
        let mut line = String::new();
        for (i, cell) in row.iter().enumerate().take(head.len()) {
            let pad = " ".repeat(width(i).saturating_sub(cell.chars().count()));
            let (before, after) = if right(i) {
                (pad.as_str(), "")
            } else {
                ("", pad.as_str())
            };
            let _ = write!(line, "{before}{cell}{after}  ");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

fn numeric(cell: &str) -> bool {
    cell == "-" || !cell.is_empty() && cell.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '/'))
}

fn ids(nodes: impl IntoIterator<Item = NodeId>) -> String {
    nodes
        .into_iter()
        .map(|node| node.0.to_string())
        .collect::<Vec<_>>()
        .join(" ")
}

fn or_dash(node: Option<u64>) -> String {
    node.map_or("-".into(), |node| node.to_string())
}

/// A moment before `now_ms`.
pub(super) fn ago(then_ms: u64, now_ms: u64) -> String {
    match now_ms.saturating_sub(then_ms) / 1_000 {
        s @ 0..=119 => format!("{s} s ago"),
        s @ 120..=7_199 => format!("{} min ago", s / 60),
        s @ 7_200..=172_799 => format!("{} h ago", s / 3_600),
        s => format!("{} d ago", s / 86_400),
    }
}

/// Builds, and what can be done about the cluster's version.
pub(super) fn versions(reply: &pb::VersionsReply) -> String {
    let rows: Vec<Vec<String>> = reply
        .nodes
        .iter()
        .map(|n| match n.answers {
            true => vec![n.node.to_string(), n.build.clone(), n.newest.to_string()],
            false => vec![n.node.to_string(), "doesn't answer".into(), "-".into()],
        })
        .collect();
    let common = reply.nodes.iter().map(|n| if n.answers { n.newest } else { 0 }).min();
    let next = match common {
        Some(0) => "not all nodes answer".into(),
        Some(common) if common > reply.cluster_version => {
            format!("all builds know {common}: `cluster upgrade --to {common}` when nobody wants to go back")
        }
        _ => "no newer one is known to all builds".into(),
    };
    format!(
        "cluster version {}; {next}\n\n{}",
        reply.cluster_version,
        table(&["node", "build", "knows up to"], &rows)
    )
}

pub(super) fn status(o: &Overview) -> String {
    let map = &o.map;
    let led = map
        .placement
        .keys()
        .filter(|shard| o.leaders.contains_key(shard))
        .count();
    let whole = map
        .placement
        .values()
        .filter(|p| p.replicas.iter().all(|r| o.alive.contains(&r.0)))
        .count();
    let paused = if map.steering.paused { ", paused" } else { "" };
    let mut out = format!(
        "{} shards: {led} of {} led, {whole} with all replicas answering\n{} nodes: {} answer\nmap: epoch {}, version {}{paused}\n\
         moves: {} under way, {} shards still to go\n\n",
        map.shards,
        map.placement.len(),
        map.nodes.len(),
        o.alive.len(),
        map.epoch,
        map.steering.version,
        map.steering.moves.len(),
        map.steering.goal.len(),
    );
    for (shard, seal) in &map.steering.sealed {
        let (shard, node, from, why) = (shard.0, seal.node.0, seal.from.word(), &seal.why);
        let _ = writeln!(
            out,
            "shard {shard} is closed [shard_sealed]: to be founded anew from {from} on node {node} ({why})"
        );
    }
    if !map.steering.sealed.is_empty() {
        out += "\n";
    }
    out += &nodes(o);
    if !map.steering.moves.is_empty() || !o.waits.is_empty() {
        out += "\n";
        out += &moves(o);
    }
    out
}

pub(super) fn nodes(o: &Overview) -> String {
    let rows: Vec<Vec<String>> = o
        .map
        .nodes
        .values()
        .map(|node| {
            let leads = o
                .leaders
                .iter()
                .filter(|(s, leader)| **leader == node.id && **s != ShardId::META)
                .count();
            let held = o.map.shards_on(node.id).filter(|seat| seat.0 != ShardId::META).count();
            let map = if o.leaders.get(&ShardId::META) == Some(&node.id) {
                "leads"
            } else if o.map.replica_on(ShardId::META, node.id).is_some() {
                "keeps"
            } else {
                "follows"
            };
            vec![
                node.id.0.to_string(),
                node.zone.clone(),
                node.region.clone(),
                node.weight.to_string(),
                o.map.standing(node.id).word().into(),
                if o.alive.contains(&node.id) { "yes" } else { "no" }.into(),
                held.to_string(),
                leads.to_string(),
                map.into(),
                o.map.steering.moves_of(node.id).to_string(),
            ]
        })
        .collect();
    table(
        &[
            "node", "zone", "region", "weight", "standing", "answers", "replicas", "leads", "map", "moves",
        ],
        &rows,
    )
}

pub(super) fn shards(o: &Overview) -> String {
    let rows: Vec<Vec<String>> = o
        .map
        .placement
        .iter()
        .map(|(shard, placement)| {
            let goal = o
                .map
                .steering
                .goal
                .get(shard)
                .map_or(String::new(), |nodes| ids(nodes.iter().copied()));
            let step = o
                .map
                .steering
                .moves
                .get(shard)
                .map_or(String::new(), |one| one.step.word().to_owned());
            vec![
                if *shard == ShardId::META {
                    "0 (map)".into()
                } else {
                    shard.0.to_string()
                },
                or_dash(o.leaders.get(shard).map(|node| node.0)),
                ids(placement.replicas.iter().map(|r| r.0)),
                goal,
                step,
            ]
        })
        .collect();
    table(&["shard", "leader", "replicas", "goal", "step"], &rows)
}

/// What is under way and what waits.
pub(super) fn moves(o: &Overview) -> String {
    let under_way = o.map.steering.moves.iter().map(|(shard, one)| {
        let back = if one.back { " (going back)" } else { "" };
        vec![
            shard.0.to_string(),
            or_dash(one.from.map(|end| end.0.0)),
            or_dash(one.to.map(|end| end.0.0)),
            format!("{}{back}", one.step.word()),
            o.waits.get(shard).cloned().unwrap_or_default(),
            one.reason.clone(),
        ]
    });
    let open = open_moves(&o.map)
        .into_iter()
        .filter(|m| !o.map.steering.moves.contains_key(&m.shard))
        .map(|m| {
            vec![
                m.shard.0.to_string(),
                or_dash(m.from.map(|node| node.0)),
                or_dash(m.to.map(|node| node.0)),
                "to begin".into(),
                o.waits.get(&m.shard).cloned().unwrap_or_default(),
                m.reason,
            ]
        });
    // What a draining node leads, and may not give away yet.
    let moves = |shard: &ShardId| o.map.steering.moves.contains_key(shard) || o.map.steering.goal.contains_key(shard);
    let led = o.waits.iter().filter(|(shard, _)| !moves(shard)).map(|(shard, why)| {
        let leader = o.leaders.get(shard);
        let standing = leader.map(|node| format!("node {} is {}", node.0, o.map.standing(*node).word()));
        vec![
            shard.0.to_string(),
            or_dash(leader.map(|node| node.0)),
            "-".into(),
            "to hand over".into(),
            why.clone(),
            standing.unwrap_or_default(),
        ]
    });
    let rows: Vec<Vec<String>> = under_way.chain(open).chain(led).collect();
    if rows.is_empty() {
        return "nothing moves\n".into();
    }
    table(&["shard", "from", "to", "step", "waits for", "why"], &rows)
}

pub(super) fn history(map: &ClusterMap, now_ms: u64) -> String {
    let rows: Vec<Vec<String>> = map
        .steering
        .ended
        .iter()
        .rev()
        .map(|ended| {
            let (one, took) = (&ended.what, ended.ended_ms.saturating_sub(ended.what.began_ms));
            vec![
                one.id.to_string(),
                ended.shard.0.to_string(),
                or_dash(one.from.map(|end| end.0.0)),
                or_dash(one.to.map(|end| end.0.0)),
                if one.back { "taken back" } else { "done" }.into(),
                format!("{:.1} s", took as f64 / 1_000.0),
                ago(ended.ended_ms, now_ms),
                one.reason.clone(),
            ]
        })
        .collect();
    table(
        &["move", "shard", "from", "to", "outcome", "took", "ended", "why"],
        &rows,
    )
}

pub(super) fn ops(o: &Overview, now_ms: u64) -> String {
    let rows: Vec<Vec<String>> = o
        .map
        .steering
        .said
        .iter()
        .rev()
        .map(|said| {
            vec![
                ago(said.at_ms, now_ms),
                said.who.clone(),
                said.what.clone(),
                said.version.to_string(),
                said.why.clone().unwrap_or_default(),
            ]
        })
        .collect();
    table(&["when", "who", "what", "version", "forced because"], &rows) + "\n" + &moves(o)
}

/// What a change did, or would do.
pub(super) fn change(reply: &pb::ChangeReply, dry_run: bool) -> String {
    let mut out = String::new();
    for warning in &reply.warnings {
        let _ = writeln!(out, "note: {warning}");
    }
    let rows: Vec<Vec<String>> = reply
        .moves
        .iter()
        .map(|m| vec![m.shard.to_string(), or_dash(m.from), or_dash(m.to), m.reason.clone()])
        .collect();
    if !rows.is_empty() {
        out += &table(&["shard", "from", "to", "why"], &rows);
    }
    if !reply.leaders.is_empty() {
        let _ = writeln!(out, "{} shards get another preferred leader", reply.leaders.len());
    }
    let next = reply.base + 1;
    let _ = match (dry_run, rows.len()) {
        (true, n) => writeln!(
            out,
            "{n} replicas would move; this is version {}: apply with --version {}",
            reply.base, reply.base
        ),
        (false, 0) => writeln!(out, "stored as version {next}; nothing has to move"),
        (false, n) => writeln!(out, "stored as version {next}; {n} replicas move"),
    };
    out
}

pub(super) fn explained(e: &Explained, now_ms: u64) -> String {
    let rows: Vec<Vec<String>> = e
        .candidates
        .iter()
        .map(|c| {
            let word = match (c.has, c.wanted) {
                (true, true) => "stays",
                (true, false) => "would go",
                (false, true) => "would come",
                (false, false) => "",
            };
            vec![
                c.rank.map_or("-".into(), |rank| rank.to_string()),
                c.node.0.to_string(),
                c.zone.clone(),
                c.standing.word().into(),
                c.weight.to_string(),
                c.score.map_or("-".into(), |score| format!("{score:.3}")),
                format!("{}/{}", c.held, c.bound),
                word.into(),
            ]
        })
        .collect();
    let mut out = table(
        &[
            "rank",
            "node",
            "zone",
            "standing",
            "weight",
            "score",
            "held/bound",
            "replica",
        ],
        &rows,
    );
    for o in &e.overrides {
        let hours = o.until_ms.saturating_sub(now_ms) / 3_600_000;
        let _ = writeln!(
            out,
            "override: {} node {} by {}, for {hours} h",
            o.wish.word(),
            o.wish.node().0,
            o.owner
        );
    }
    for void in &e.void {
        let _ = writeln!(out, "note: {void}");
    }
    if let Some(goal) = &e.goal {
        let _ = writeln!(out, "on its way to nodes {}", ids(goal.iter().copied()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be_and_numbers_stand_right() {
        let rows = [vec!["7".into(), "seoul".into()], vec!["128".into(), "b".into()]];
        assert_eq!(
            table(&["shard", "zone"], &rows),
            "SHARD  ZONE\n    7  seoul\n  128  b\n"
        );
    }

    #[test]
    fn a_drain_that_waits_is_told() {
        let mut o = Overview::default();
        assert_eq!(moves(&o), "nothing moves\n");
        o.leaders.insert(ShardId(7), NodeId(3));
        let standings = &mut o.map.steering.standings;
        standings.insert(NodeId(3), placement::Standing::Draining);
        o.waits.insert(ShardId(7), "a live auction closes soon".into());
        assert_eq!(
            moves(&o),
            "SHARD  FROM  TO  STEP          WAITS FOR                   WHY\n    \
             7     3   -  to hand over  a live auction closes soon  node 3 is draining\n"
        );
    }

    #[test]
    fn times_are_told_in_one_unit() {
        for (s, told) in [
            (0, "0 s ago"),
            (119, "119 s ago"),
            (120, "2 min ago"),
            (7_200, "2 h ago"),
            (172_800, "2 d ago"),
        ] {
            assert_eq!(ago(1_000, 1_000 + s * 1_000), told);
        }
    }
}
