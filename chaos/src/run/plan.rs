//! A plan: faults and load composed in a file. A plan asks one question; its first comment says which.

use serde::Deserialize;

/// A run, as data.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) profile: String,
    pub(crate) seed: Option<u64>,
    /// People act this long.
    pub(crate) seconds: u64,
    /// Longest wait for the last close.
    pub(crate) close_seconds: u64,
    pub(crate) rto_max_ms: Option<u64>,
    pub(crate) neighbour_max_ms: Option<u64>,
    pub(crate) shards: u32,
    /// Nodes talk TLS.
    #[serde(default)]
    pub(crate) tls: bool,
    /// The cluster version to which `upgrade` goes.
    pub(crate) upgrade_to: Option<u32>,
    /// Events that a resume can reach back over.
    #[serde(default = "window")]
    pub(crate) window: u64,
    pub(crate) rule: Rule,
    pub(crate) people: People,
    /// Absent: the run has no video.
    pub(crate) video: Option<Video>,
    #[serde(default, rename = "fault")]
    pub(crate) faults: Vec<Fault>,
}

/// The edge's default: a viewer that is further behind is told to start over (`viewer_lag_max`).
fn window() -> u64 {
    256
}

/// What all auctions go by.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    pub(crate) start_price: u64,
    pub(crate) min_inc: u64,
    pub(crate) k_ppm: u64,
    pub(crate) cap_ppm: u64,
    pub(crate) floor_ms: u64,
    pub(crate) eps_ms: u64,
}

/// Who takes part.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct People {
    pub(crate) auctions: u64,
    pub(crate) duration_ms: u64,
    /// Share of wishes that go to the first auction.
    pub(crate) hot_percent: u64,
    pub(crate) bidders: u64,
    pub(crate) readers: u64,
    /// Per auction.
    pub(crate) viewers: u64,
    pub(crate) chatters: u64,
    /// Least and longest thought between two acts.
    pub(crate) think_ms: [u64; 2],
    /// A viewer's connection breaks this often.
    pub(crate) reconnect_ms: [u64; 2],
}

/// A seller on the air, and who watches. The show is an auction of its own, that nobody bids on: it lasts as long as the
/// people act, however fast bids end the others.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Video {
    /// Viewers that start at each node; each goes elsewhere by itself when its node dies.
    pub(crate) viewers_per_node: u64,
    /// A picture may stand this long while a node on its way dies and another is up.
    pub(crate) frozen_max_ms: u64,
    /// A seller whose own node died is taken in by another within this.
    pub(crate) republish_max_ms: u64,
}

/// One fault.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    /// After the people began.
    pub(crate) at_ms: u64,
    pub(crate) f: FaultKind,
    /// Until it is healed.
    pub(crate) for_ms: u64,
}

/// The kinds of fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FaultKind {
    /// SIGKILL the leader of the hottest auction, then start it again.
    KillLeader,
    /// SIGSTOP it, then SIGCONT.
    PauseLeader,
    /// SIGKILL a node that doesn't lead it.
    KillFollower,
    /// SIGKILL all three at once.
    KillAll,
    /// SIGKILL the node that has the seller's stream.
    KillOrigin,
    /// SIGKILL a node that carries the stream on, in the other region than the seller's node if there is one.
    KillRelay,
    /// SIGTERM one node after the other, and start each again with the build of `RUSHROOM_NEXT_BIN`; `for_ms` lies between.
    Roll,
    /// The cluster goes to the plan's `upgrade_to`; `for_ms` later it must be there.
    Upgrade,
}

impl FaultKind {
    /// The word in a history.
    pub(crate) fn word(self) -> &'static str {
        match self {
            FaultKind::KillLeader => "kill-leader",
            FaultKind::PauseLeader => "pause-leader",
            FaultKind::KillFollower => "kill-follower",
            FaultKind::KillAll => "kill-all",
            FaultKind::KillOrigin => "kill-origin",
            FaultKind::KillRelay => "kill-relay",
            FaultKind::Roll => "roll",
            FaultKind::Upgrade => "upgrade",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_plans_of_the_repository_are_plans() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let plan: Plan = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            assert_eq!(path.file_stem().unwrap().to_str().unwrap(), plan.name);
            let last = plan
                .faults
                .iter()
                .map(|fault| fault.at_ms + fault.for_ms)
                .max()
                .unwrap_or(0);
            assert!(last < plan.seconds * 1000, "{}: a fault outlives the people", plan.name);
            let of_video = |f: &Fault| matches!(f.f, FaultKind::KillOrigin | FaultKind::KillRelay);
            assert!(
                plan.video.is_some() || !plan.faults.iter().any(of_video),
                "{}: a fault of what it doesn't have",
                plan.name
            );
            let upgrades = plan.faults.iter().any(|fault| fault.f == FaultKind::Upgrade);
            assert_eq!(upgrades, plan.upgrade_to.is_some(), "{}: upgrade to what?", plan.name);
            names.push(plan.name);
        }
        assert!(names.contains(&"smoke".to_owned()));
    }

    #[test]
    fn a_misspelt_key_is_an_error() {
        let error = toml::from_str::<Fault>("at_ms = 1\nf = \"kill-leader\"\nfor_m = 2")
            .unwrap_err()
            .to_string();
        assert!(error.contains("for_m"), "{error}");
    }
}
