//! Writes a run's history as it happens, in memory: edges and the harness share one pen.
//!
//! Everything runs on one thread, so the order of writing is the order of things. A moment is the simulated ms and, in
//! its lower digits, how many lines were written before in it: two things of the same ms stay in their order.

use crate::history::{Behind, Held, Inv, Nanos, Record, Ret};
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

#[derive(Default)]
struct Page {
    lines: Vec<Record>,
    ms: u64,
    within: i64,
    ops: u64,
    people: u64,
    held: BTreeSet<(u32, u64)>,
    /// (node, shard, office, auction).
    behind: BTreeSet<(u64, u32, (u64, u32), String)>,
}

/// The pen.
#[derive(Clone, Default)]
pub(super) struct Pen {
    page: Arc<Mutex<Page>>,
    /// The world's clock, ms.
    now_ms: Arc<AtomicU64>,
}

/// A call that waits for its answer.
pub(super) struct Called {
    p: u64,
    op: u64,
}

impl Pen {
    pub(super) fn set_now(&self, ms: u64) {
        self.now_ms.store(ms, Ordering::Relaxed);
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    fn moment(&self, page: &mut Page) -> Nanos {
        let ms = self.now_ms();
        if page.ms != ms {
            (page.ms, page.within) = (ms, 0);
        }
        page.within += 1;
        ms as i64 * 1_000_000 + page.within
    }

    pub(super) fn write(&self, record: impl FnOnce(Nanos) -> Record) {
        let mut page = self.page.lock();
        let t = self.moment(&mut page);
        page.lines.push(record(t));
    }

    /// A new sequential client, or viewer, or connection.
    pub(super) fn person(&self) -> u64 {
        let mut page = self.page.lock();
        page.people += 1;
        page.people
    }

    pub(super) fn ops(&self) -> u64 {
        self.page.lock().ops
    }

    pub(super) fn call(&self, p: u64, inv: Inv) -> Called {
        let op = {
            let mut page = self.page.lock();
            page.ops += 1;
            page.ops
        };
        self.write(|t| Record::Inv(Inv { t, p, op, ..inv }));
        Called { p, op }
    }

    pub(super) fn answer(&self, called: Called, ret: Ret) {
        let Called { p, op } = called;
        self.write(|t| Record::Ret(Ret { t, p, op, ..ret }));
    }

    /// A hold, as the first who hears of it tells it.
    pub(super) fn held(&self, shard: u32, stamp: u64, dms: u64) {
        let first = self.page.lock().held.insert((shard, stamp));
        if first {
            self.write(|t| Record::Held(Held { t, node: 0, shard, dms }));
        }
    }

    /// A lane that was behind, when a replica tells it first.
    pub(super) fn behind(&self, node: u64, shard: u32, b: &raft_store::Behind) {
        let (office, a) = ((b.office.term, b.office.turn), b.auction.to_string());
        let first = self.page.lock().behind.insert((node, shard, office, a.clone()));
        if first {
            let ((term, turn), base) = (office, b.base.0);
            let (ct, seq) = (b.stamp.0, b.seq);
            self.write(|t| {
                Record::Behind(Behind {
                    t,
                    node,
                    shard,
                    term,
                    turn,
                    base,
                    a,
                    ct,
                    seq,
                })
            });
        }
    }

    pub(super) fn take(&self) -> Vec<Record> {
        std::mem::take(&mut self.page.lock().lines)
    }
}
