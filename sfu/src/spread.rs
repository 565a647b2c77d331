//! Which lane a viewer goes to: the one with the fewest viewers of the same stage, then with the fewest at all.
//!
//! By stage, because a picture is work for all its viewers at once: a stage whose viewers sat on one lane would wait there
//! while the others rest, however even the sums are. Counted at the hand-over, not at the arrival: a storm of joins is spread
//! while it comes.

use std::collections::HashMap;

/// Viewers by lane, in all and by auction.
#[derive(Debug)]
pub(crate) struct Spread {
    all: Vec<u64>,
    auctions: HashMap<String, Vec<u64>>,
}

impl Spread {
    /// For so many lanes; at least one.
    pub(crate) fn new(lanes: usize) -> Spread {
        Spread {
            all: vec![0; lanes.max(1)],
            auctions: HashMap::new(),
        }
    }

    /// A viewer of the auction comes; gives its lane.
    pub(crate) fn come(&mut self, auction: &str) -> usize {
        let Spread { all, auctions } = self;
        let here = auctions.entry(auction.into()).or_insert_with(|| vec![0; all.len()]);
        let counts = here.iter().zip(all.iter()).enumerate();
        let lane = counts.min_by_key(|(_, counts)| *counts).map_or(0, |(lane, _)| lane);
        here[lane] += 1;
        all[lane] += 1;
        lane
    }

    /// One that came leaves.
    pub(crate) fn leave(&mut self, auction: &str, lane: usize) {
        let Some(here) = self.auctions.get_mut(auction) else {
            return;
        };
        let Some(count) = here.get_mut(lane).filter(|count| **count > 0) else {
            return;
        };
        *count -= 1;
        self.all[lane] -= 1;
        if here.iter().all(|count| *count == 0) {
            self.auctions.remove(auction);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each letter is a viewer of that auction who comes; in upper case one who leaves, the one who came first.
    #[track_caller]
    fn check(lanes: usize, people: &str, expect: &[usize]) {
        let mut spread = Spread::new(lanes);
        let mut there: Vec<(char, usize)> = Vec::new();
        let mut came = Vec::new();
        for person in people.chars() {
            let auction = person.to_ascii_lowercase();
            if person.is_ascii_lowercase() {
                let lane = spread.come(&auction.to_string());
                there.push((auction, lane));
                came.push(lane);
            } else if let Some(at) = there.iter().position(|(a, _)| *a == auction) {
                let (_, lane) = there.remove(at);
                spread.leave(&auction.to_string(), lane);
            }
        }
        assert_eq!(came, expect, "{people} over {lanes}");
        assert_eq!(spread.all.iter().sum::<u64>(), there.len() as u64);
        let kept = spread.auctions.len();
        there.sort_unstable();
        there.dedup_by_key(|(auction, _)| *auction);
        assert_eq!(kept, there.len(), "an auction without viewers is forgotten");
    }

    #[test]
    fn viewers_of_a_stage_are_spread_evenly() {
        check(1, "aaa", &[0, 0, 0]);
        check(0, "a", &[0]);
        check(2, "aaaa", &[0, 1, 0, 1]);
        check(3, "aaaa", &[0, 1, 2, 0]);
        // By turns from two auctions: by number alone, each would sit on one lane whole.
        check(2, "ababab", &[0, 1, 1, 0, 0, 1]);
        // Who left makes room.
        check(2, "aaaAAa", &[0, 1, 0, 1]);
        check(2, "aA", &[0]);
    }

    #[test]
    fn who_never_came_leaves_nothing() {
        let mut spread = Spread::new(2);
        spread.leave("a", 0);
        spread.come("a");
        spread.leave("a", 1);
        spread.leave("a", 9);
        assert_eq!(spread.all, [1, 0]);
    }
}
