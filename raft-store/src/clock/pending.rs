//! Pending: who waits for which command's verdict.
//!
//! A command that is sent again while its first sending still waits or flies must not be judged twice: it *joins* and is
//! told the same. The key is (auction, actor, id), bound to the body: another body under a pending key is told *not
//! judged*, because which of the two bodies the log will know is not decided yet (answering `dup_body` from here was a
//! lie whenever the first sending was lost; plant `pending_dup_body` of the model).
//!
//! ```text
//!   submit --> applied table? --> pending? --> early refusal? --> lane        (this order, under the state's read lock)
//! ```
//!
//! The order matters: an entry leaves this map only after it was applied, so whoever looks at the applied table first,
//! and then here, under one read lock, can't fall between the two.
//!
//! Deliberately absent: channels. `W` is whatever the caller answers through.

use super::lanes::Ticket;
use auction::{BodyHash, Command, Key};
use std::collections::HashMap;

#[derive(Debug)]
struct Wait<W> {
    key: Option<Key>,
    body: BodyHash,
    first: W,
    more: Vec<W>,
}

/// The pending commands of one office.
#[derive(Debug)]
pub struct Pending<W> {
    keys: HashMap<Key, Ticket>,
    waits: HashMap<Ticket, Wait<W>>,
    next: u64,
    joiners_max: usize,
}

/// What became of a try to join.
#[derive(Debug)]
pub enum Join<W> {
    /// It waits with the first sending.
    Joined,
    /// Nothing of that key is pending; here is the sender back.
    New(W),
    /// Another body is pending under that key, or too many wait already: not judged.
    Refused(W),
}

impl<W> Pending<W> {
    /// Nothing pending; at most `joiners_max` senders wait for one command beside the first.
    #[must_use]
    pub fn new(joiners_max: usize) -> Self {
        Self {
            keys: HashMap::new(),
            waits: HashMap::new(),
            next: 0,
            joiners_max,
        }
    }

    /// Commands pending.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waits.len()
    }

    /// Whether nothing is pending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waits.is_empty()
    }

    /// Joins the pending command of that key, if there is one.
    pub fn join(&mut self, key: &Key, body: BodyHash, waiter: W) -> Join<W> {
        let Some(wait) = self.keys.get(key).and_then(|ticket| self.waits.get_mut(ticket)) else {
            return Join::New(waiter);
        };
        if wait.body != body || wait.more.len() >= self.joiners_max {
            return Join::Refused(waiter);
        }
        wait.more.push(waiter);
        Join::Joined
    }

    /// A new pending command. Its key, if it has one, must not be pending.
    pub fn add(&mut self, key: Option<Key>, body: BodyHash, waiter: W) -> Ticket {
        self.next += 1;
        let ticket = Ticket(self.next);
        if let Some(key) = &key {
            self.keys.insert(key.clone(), ticket);
        }
        self.waits.insert(
            ticket,
            Wait {
                key,
                body,
                first: waiter,
                more: Vec::new(),
            },
        );
        ticket
    }

    /// The first sender of a pending command.
    #[must_use]
    pub fn first(&self, ticket: Ticket) -> Option<&W> {
        self.waits.get(&ticket).map(|wait| &wait.first)
    }

    /// All who wait for a command, which is pending no longer.
    pub fn settle(&mut self, ticket: Ticket) -> impl Iterator<Item = W> + use<W> {
        let wait = self.waits.remove(&ticket);
        if let Some(key) = wait.as_ref().and_then(|wait| wait.key.as_ref()) {
            self.keys.remove(key);
        }
        wait.into_iter()
            .flat_map(|wait| std::iter::once(wait.first).chain(wait.more))
    }

    /// All who wait for anything; nothing is pending any longer.
    pub fn drain(&mut self) -> impl Iterator<Item = W> + use<W> {
        self.keys.clear();
        let waits = std::mem::take(&mut self.waits);
        waits
            .into_values()
            .flat_map(|wait| std::iter::once(wait.first).chain(wait.more))
    }
}

/// The key of a command, if it has an id.
#[must_use]
pub fn key_of(command: &Command) -> Option<Key> {
    let id = command.id.clone()?;
    Some(Key {
        auction: command.auction.clone(),
        actor: command.actor.id.clone(),
        id,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use auction::Id;

    fn key(id: &str) -> Key {
        let [auction, actor, id] = ["a", "ann", id].map(|text| Id::parse(text).unwrap());
        Key { auction, actor, id }
    }

    #[test]
    fn a_retry_joins_and_is_told_the_same() {
        let mut pending = Pending::new(2);
        assert!(matches!(pending.join(&key("1"), 7, "early"), Join::New("early")));
        let ticket = pending.add(Some(key("1")), 7, "first");
        assert!(matches!(pending.join(&key("1"), 7, "again"), Join::Joined));
        assert!(matches!(
            pending.join(&key("1"), 8, "other body"),
            Join::Refused("other body")
        ));
        assert!(matches!(pending.join(&key("2"), 7, "other id"), Join::New("other id")));
        assert_eq!(pending.first(ticket), Some(&"first"));
        assert_eq!(pending.settle(ticket).collect::<Vec<_>>(), ["first", "again"]);
        assert!(pending.is_empty());
        assert!(matches!(pending.join(&key("1"), 7, "later"), Join::New("later")));
    }

    #[test]
    fn joiners_are_bounded() {
        let mut pending = Pending::new(1);
        let ticket = pending.add(Some(key("1")), 7, 0);
        assert!(matches!(pending.join(&key("1"), 7, 1), Join::Joined));
        assert!(matches!(pending.join(&key("1"), 7, 2), Join::Refused(2)));
        assert_eq!(pending.settle(ticket).count(), 2);
    }

    #[test]
    fn drain_tells_everyone_once() {
        let mut pending = Pending::new(8);
        pending.add(Some(key("1")), 7, 1);
        pending.add(None, 7, 2);
        pending.join(&key("1"), 7, 3);
        let mut told: Vec<_> = pending.drain().collect();
        told.sort_unstable();
        assert_eq!((told, pending.len()), (vec![1, 2, 3], 0));
    }
}
