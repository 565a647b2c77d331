//! Whom a node asks for an auction's stream, so that one copy crosses to each region.
//!
//! ```text
//!   origin (region east) --+--> nodes of east, each straight from the origin
//!                          '--> root of west (rank 1 there) --> other nodes of west
//! ```
//!
//! Ranks come from rendezvous hashing of (auction, node): every node computes the same, and a node that comes or goes
//! moves only its own auctions. When a parent doesn't answer, the next of the list is asked.

use alloc::vec::Vec;

/// A node that carries media.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member<'a> {
    /// Its id.
    pub node: u64,
    /// Its region.
    pub region: &'a str,
}

/// A node's weight for an auction: FNV-1a over the auction, mixed with the node (SplitMix64's finisher). Fixed
/// forever: nodes of different versions must agree (`golden` below).
pub fn weight(auction: &str, node: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in auction.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let mut mixed = hash ^ node.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Sorts members into the auction's rendezvous order: rank 1 first.
pub fn rank(auction: &str, members: &mut [Member<'_>]) {
    members.sort_by_key(|m| (core::cmp::Reverse(weight(auction, m.node)), m.node));
}

/// Whom `me` asks for the stream that `origin` takes in: the parent first, then who stands in. `ranked`: the live
/// nodes in the auction's rendezvous order. Empty: nobody is to be asked (`me` is the origin, or it isn't alive).
pub fn parents(me: u64, origin: u64, ranked: &[Member<'_>]) -> Vec<u64> {
    let region_of = |node| ranked.iter().find(|m| m.node == node).map(|m| m.region);
    let (Some(here), Some(there)) = (region_of(me), region_of(origin)) else {
        return Vec::new();
    };
    let mut list = Vec::new();
    if me == origin {
        return list;
    }
    if here != there {
        // Those ranked above me in my region, at most root and spare; a root has none above it.
        let above = ranked
            .iter()
            .filter(|m| m.region == here)
            .map(|m| m.node)
            .take_while(|n| *n != me);
        list.extend(above.take(2));
    }
    list.push(origin);
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    const RANKED: [Member<'static>; 6] = [
        Member {
            node: 5,
            region: "west",
        },
        Member {
            node: 1,
            region: "east",
        },
        Member {
            node: 6,
            region: "west",
        },
        Member {
            node: 2,
            region: "east",
        },
        Member {
            node: 7,
            region: "west",
        },
        Member {
            node: 3,
            region: "east",
        },
    ];

    #[track_caller]
    fn check(me: u64, origin: u64, expect: &[u64]) {
        assert_eq!(
            parents(me, origin, &RANKED),
            expect,
            "{me} asks for what comes in at {origin}"
        );
    }

    #[test]
    fn parents_by_region() {
        check(1, 1, &[]);
        check(3, 1, &[1]);
        check(5, 1, &[1]);
        check(6, 1, &[5, 1]);
        check(7, 1, &[5, 6, 1]);
        check(2, 7, &[1, 7]);
        check(9, 1, &[]);
        check(1, 9, &[]);
    }

    #[test]
    fn golden() {
        let got = [("", 0), ("a", 1), ("lamp", 2)].map(|(auction, node)| weight(auction, node));
        assert_eq!(
            got,
            [0xf52a_15e9_a9b5_e89b, 0x832b_e066_bd43_a3b8, 0xb0c8_548d_4a63_1b5a]
        );
        let mut members = RANKED;
        rank("lamp", &mut members);
        assert_eq!(members.map(|m| m.node), [3, 2, 7, 5, 1, 6]);
    }

    proptest! {
        /// Following first parents leads to the origin within two hops, and one node per foreign region asks it.
        #[test]
        fn the_tree_reaches_everyone(auction in "[a-z]{1,8}", regions in proptest::collection::vec(0u8..3, 1..12)) {
            const NAMES: [&str; 3] = ["east", "west", "north"];
            let mut members: Vec<Member<'_>> = regions
                .iter()
                .enumerate()
                .map(|(n, r)| Member { node: n as u64 + 1, region: NAMES[usize::from(*r)] })
                .collect();
            rank(&auction, &mut members);
            let origin = 1;
            let home = members.iter().find(|m| m.node == origin).map(|m| m.region);
            let mut askers = vec![];
            for member in &members {
                let (mut at, mut hops) = (member.node, 0);
                while at != origin {
                    let next = parents(at, origin, &members)[0];
                    if at == member.node && next == origin && Some(member.region) != home {
                        askers.push(member.region);
                    }
                    at = next;
                    hops += 1;
                }
                prop_assert!(hops <= 2);
            }
            askers.sort_unstable();
            let all = askers.len();
            askers.dedup();
            prop_assert_eq!(all, askers.len());
        }
    }
}
