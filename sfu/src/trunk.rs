//! The trunk: one encrypted UDP flow per node pair, for all streams that go between the two.
//!
//! ```text
//!   child  --Subscribe (gRPC)-->  parent     answers with a key for this pair
//!   child  <==media, pong======   parent     sealed with the key, counter as nonce
//!   child  ===nack, keyframe, ping=> parent
//! ```
//!
//! A key belongs to (parent, child) and both directions of it; the direction is part of the nonce, so the two counters
//! can't collide. A key is never given to another process of the same node: a restarted child starts its counter anew, so it
//! gets a new key. Datagrams with an unknown key, a wrong tag or an old counter are dropped unread.

use forward::trunk::{Frame, OUTER};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

/// Counters that may come out of order.
const WINDOW: u64 = 1024;
/// Length of a key's secret.
pub(crate) const SECRET: usize = 32;

/// Which end of the pair we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// We serve.
    Parent,
    /// We are served.
    Child,
}

impl End {
    fn other(self) -> End {
        if self == End::Parent { End::Child } else { End::Parent }
    }
}

/// Which counters have been seen: each is taken once.
#[derive(Default)]
struct Seen {
    newest: u64,
    words: [u64; (WINDOW / 64) as usize],
}

impl Seen {
    fn bit(counter: u64) -> (usize, u64) {
        ((counter % WINDOW / 64) as usize, 1 << (counter % 64))
    }

    /// True: it is new. Only for authenticated counters, which start at 1.
    fn take(&mut self, counter: u64) -> bool {
        if counter > self.newest {
            for passed in (self.newest + 1..=counter).take(WINDOW as usize) {
                let (word, bit) = Seen::bit(passed);
                self.words[word] &= !bit;
            }
            self.newest = counter;
        } else if self.newest - counter >= WINDOW {
            return false;
        }
        let (word, bit) = Seen::bit(counter);
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        fresh
    }
}

/// One pair's key in use.
pub(crate) struct Association {
    pub(crate) key: u64,
    pub(crate) node: u64,
    pub(crate) end: End,
    pub(crate) remote: SocketAddr,
    cipher: LessSafeKey,
    counter: u64,
    seen: Seen,
    /// Round trip, ms, smoothed; 0 until measured.
    pub(crate) round_trip: u64,
    /// Something authentic came.
    pub(crate) confirmed: bool,
    pub(crate) heard: Instant,
}

fn nonce(end: End, counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[0] = u8::from(end == End::Child);
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

impl Association {
    /// None: the secret has the wrong length.
    pub(crate) fn new(
        key: u64,
        secret: &[u8],
        node: u64,
        end: End,
        remote: SocketAddr,
        now: Instant,
    ) -> Option<Association> {
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, secret).ok()?);
        let seen = Seen::default();
        let rest = (0, false, now);
        Some(Association {
            key,
            node,
            end,
            remote,
            cipher,
            counter: 0,
            seen,
            round_trip: rest.0,
            confirmed: rest.1,
            heard: rest.2,
        })
    }

    /// Seals a frame into a datagram.
    pub(crate) fn seal(&mut self, frame: &Frame<'_>) -> Option<Vec<u8>> {
        self.counter += 1;
        let mut datagram = Vec::with_capacity(OUTER + 1500);
        datagram.extend_from_slice(&self.key.to_be_bytes());
        datagram.extend_from_slice(&self.counter.to_be_bytes());
        frame.encode(&mut datagram);
        let (head, body) = datagram.split_at_mut(OUTER);
        let head: [u8; OUTER] = (&*head).try_into().ok()?;
        let tag = self
            .cipher
            .seal_in_place_separate_tag(nonce(self.end, self.counter), Aad::from(head), body)
            .ok()?;
        datagram.extend_from_slice(tag.as_ref());
        Some(datagram)
    }

    /// Opens a datagram in place; gives the frame's bytes.
    pub(crate) fn open<'a>(&mut self, datagram: &'a mut [u8], now: Instant) -> Option<&'a [u8]> {
        let (head, body) = datagram.split_at_mut_checked(OUTER)?;
        let head: [u8; OUTER] = (&*head).try_into().ok()?;
        let counter = u64::from_be_bytes(head[8..].try_into().ok()?);
        let plain = self
            .cipher
            .open_in_place(nonce(self.end.other(), counter), Aad::from(head), body)
            .ok()?;
        if !self.seen.take(counter) {
            return None;
        }
        self.confirmed = true;
        self.heard = now;
        Some(plain)
    }

    pub(crate) fn measured(&mut self, sample: u64) {
        self.round_trip = if self.round_trip == 0 {
            sample.max(1)
        } else {
            (self.round_trip * 7 + sample).div_ceil(8)
        };
    }
}

/// The key id of a datagram.
pub(crate) fn key_of(datagram: &[u8]) -> Option<u64> {
    datagram.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

/// All pairs of this node.
#[derive(Default)]
pub(crate) struct Associations {
    by_key: HashMap<u64, Association>,
    /// (node, the end that we are) to the key in use.
    current: HashMap<(u64, bool), u64>,
    /// The process that a child's key was made for, and its secret until the child confirmed it.
    given: HashMap<u64, (u64, Vec<u8>)>,
}

impl Associations {
    pub(crate) fn by_key(&mut self, key: u64) -> Option<&mut Association> {
        self.by_key.get_mut(&key)
    }

    pub(crate) fn of(&mut self, node: u64, end: End) -> Option<&mut Association> {
        let key = self.current.get(&(node, end == End::Parent))?;
        self.by_key.get_mut(key)
    }

    pub(crate) fn all(&mut self) -> impl Iterator<Item = &mut Association> {
        self.by_key.values_mut()
    }

    /// Puts a key to use in place of the pair's old one. A key that is in use already stays as it is.
    pub(crate) fn install(&mut self, association: Association) {
        let pair = (association.node, association.end == End::Parent);
        let key = association.key;
        if let Some(held) = self.by_key.get_mut(&key) {
            held.remote = association.remote;
            return;
        }
        if let Some(old) = self.current.insert(pair, key) {
            self.by_key.remove(&old);
        }
        self.by_key.insert(key, association);
    }

    /// The key for a child's process: the one in use if the child has it (then no secret is told), or a new one.
    pub(crate) fn give(
        &mut self,
        node: u64,
        instance: u64,
        known: u64,
        remote: SocketAddr,
        now: Instant,
    ) -> Option<(u64, Option<Vec<u8>>)> {
        if let Some(held) = self.of(node, End::Parent) {
            held.remote = remote;
            if held.key == known {
                let key = held.key;
                self.given.remove(&node);
                return Some((key, None));
            }
            let key = held.key;
            // Two asks of one child may cross: both get the same key, as long as it isn't in use.
            if !held.confirmed
                && let Some((made_for, secret)) = self.given.get(&node)
                && *made_for == instance
            {
                return Some((key, Some(secret.clone())));
            }
        }
        let key = rand::random::<u64>() | 1;
        let secret: Vec<u8> = rand::random::<[u8; SECRET]>().to_vec();
        self.install(Association::new(key, &secret, node, End::Parent, remote, now)?);
        self.given.insert(node, (instance, secret.clone()));
        Some((key, Some(secret)))
    }
}

/// The largest trunk datagram.
pub(crate) const DATAGRAM_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pair() -> (Association, Association) {
        let (now, remote) = (Instant::now(), "127.0.0.1:1".parse().unwrap());
        let make = |end| Association::new(7, &[1; SECRET], 1, end, remote, now).unwrap();
        (make(End::Parent), make(End::Child))
    }

    #[test]
    fn what_one_end_seals_the_other_opens_once() {
        let (mut parent, mut child) = pair();
        let frame = Frame::Ping { stamp: 5 };
        let mut sealed = parent.seal(&frame).unwrap();
        let mut first = sealed.clone();
        assert_eq!(
            Frame::decode(child.open(&mut first, Instant::now()).unwrap()),
            Some(frame)
        );
        assert!(child.open(&mut sealed.clone(), Instant::now()).is_none(), "a replay");
        assert!(
            parent.open(&mut sealed, Instant::now()).is_none(),
            "one's own, reflected"
        );
    }

    #[test]
    fn a_changed_datagram_is_dropped() {
        let (mut parent, mut child) = pair();
        let sealed = parent.seal(&Frame::Ping { stamp: 5 }).unwrap();
        for at in 8..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(child.open(&mut changed, Instant::now()).is_none(), "byte {at}");
        }
        for end in 0..sealed.len() {
            assert!(
                child.open(&mut sealed[..end].to_vec(), Instant::now()).is_none(),
                "cut to {end}"
            );
        }
    }

    #[test]
    fn counters_may_come_out_of_order_within_the_window_and_never_twice() {
        let mut seen = Seen::default();
        for (counter, fresh) in [
            (1, true),
            (5, true),
            (3, true),
            (3, false),
            (5, false),
            (WINDOW + 5, true),
            (5, false),
            (6, true),
            (10 * WINDOW, true),
            (6, false),
            (9 * WINDOW + 1, true),
        ] {
            assert_eq!(seen.take(counter), fresh, "{counter}");
        }
    }

    #[test]
    fn a_child_keeps_its_key_a_restarted_child_gets_another() {
        let (now, remote) = (Instant::now(), "127.0.0.1:1".parse().unwrap());
        let mut all = Associations::default();
        let (first, secret) = all.give(9, 1, 0, remote, now).unwrap();
        let (same, again) = all.give(9, 1, 0, remote, now).unwrap();
        assert_eq!((first, &secret), (same, &again));
        assert_eq!(all.give(9, 1, first, remote, now).unwrap(), (first, None));
        let (other, _) = all.give(9, 2, 0, remote, now).unwrap();
        assert_ne!(first, other);
        assert!(all.by_key(first).is_none());
    }
}
