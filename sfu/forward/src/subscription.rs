//! Who wants an auction's stream at this node, and so whether this node asks its parent for it: the first who wants it
//! subscribes, the last who leaves unsubscribes, and however many there are, one copy comes in.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// What the node is to do towards its parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upstream {
    /// Ask for the stream.
    Subscribe,
    /// Give it back.
    Unsubscribe,
}

/// Viewers here and nodes below, of one auction.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    viewers: u64,
    /// Node below, and when its lease ends (ms).
    leases: BTreeMap<u64, u64>,
}

impl Demand {
    fn change<R>(&mut self, act: impl FnOnce(&mut Demand) -> R) -> (R, Option<Upstream>) {
        let before = self.is_wanted();
        let result = act(self);
        let upstream = match (before, self.is_wanted()) {
            (false, true) => Some(Upstream::Subscribe),
            (true, false) => Some(Upstream::Unsubscribe),
            _ => None,
        };
        (result, upstream)
    }

    /// A viewer came.
    pub fn viewer_came(&mut self) -> Option<Upstream> {
        self.change(|demand| demand.viewers += 1).1
    }

    /// A viewer left.
    pub fn viewer_left(&mut self) -> Option<Upstream> {
        self.change(|demand| demand.viewers = demand.viewers.saturating_sub(1))
            .1
    }

    /// A node below takes or renews a lease. The first part: it is new.
    pub fn lease(&mut self, node: u64, until: u64) -> (bool, Option<Upstream>) {
        self.change(|demand| demand.leases.insert(node, until).is_none())
    }

    /// A node below gives its lease back. The first part: it had one.
    pub fn release(&mut self, node: u64) -> (bool, Option<Upstream>) {
        self.change(|demand| demand.leases.remove(&node).is_some())
    }

    /// Ends the leases that weren't renewed; gives the nodes whose leases ended.
    pub fn expire(&mut self, now: u64) -> (Vec<u64>, Option<Upstream>) {
        self.change(|demand| {
            let ended: Vec<u64> = demand
                .leases
                .iter()
                .filter(|(_, until)| **until <= now)
                .map(|(n, _)| *n)
                .collect();
            demand.leases.retain(|_, until| *until > now);
            ended
        })
    }

    /// Anybody wants the stream here.
    pub fn is_wanted(&self) -> bool {
        self.viewers > 0 || !self.leases.is_empty()
    }

    /// Viewers here.
    pub fn viewers(&self) -> u64 {
        self.viewers
    }

    /// Nodes below.
    pub fn nodes(&self) -> impl Iterator<Item = u64> + '_ {
        self.leases.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn first_viewer_subscribes_last_leaves() {
        let mut demand = Demand::default();
        assert_eq!(demand.viewer_came(), Some(Upstream::Subscribe));
        assert_eq!(demand.viewer_came(), None);
        assert_eq!(demand.viewer_left(), None);
        assert_eq!(demand.viewer_left(), Some(Upstream::Unsubscribe));
        assert_eq!(demand.viewer_left(), None);
    }

    #[test]
    fn a_lease_is_demand_too_until_it_ends() {
        let mut demand = Demand::default();
        assert_eq!(demand.lease(7, 2_000), (true, Some(Upstream::Subscribe)));
        assert_eq!(demand.lease(7, 2_500), (false, None));
        assert_eq!(demand.viewer_came(), None);
        assert_eq!(demand.expire(2_499), (vec![], None));
        assert_eq!(demand.expire(2_500), (vec![7], None));
        assert_eq!(demand.viewer_left(), Some(Upstream::Unsubscribe));
    }

    #[test]
    fn a_lease_given_back_ends_at_once() {
        let mut demand = Demand::default();
        demand.lease(7, 2_000);
        assert_eq!(demand.release(8), (false, None));
        assert_eq!(demand.release(7), (true, Some(Upstream::Unsubscribe)));
    }
}
