//! Writes the history while it happens: one line at a time, from any task, each stamped by who writes it.

use crate::{
    history::{Behind, Held, Inv, Record, Ret, Writer},
    mono,
};
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// The pen of a run.
pub(crate) struct Recorder {
    writer: Mutex<Option<Writer>>,
    ops: AtomicU64,
    people: AtomicU64,
    subs: AtomicU64,
    /// Holds that were told already: (shard, stamp). A hold is an event in every auction of its shard.
    held: Mutex<BTreeSet<(u32, u64)>>,
    /// Lanes that were behind, as told already: (node, shard, office, auction).
    behind: Mutex<BTreeSet<(u64, u32, (u64, u32), String)>>,
}

/// A call that was written down and waits for its answer.
pub(crate) struct Called {
    p: u64,
    op: u64,
}

impl Recorder {
    pub(crate) fn create(path: &Path) -> std::io::Result<Recorder> {
        let writer = Mutex::new(Some(Writer::create(path)?));
        let (ops, people, subs) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Ok(Recorder {
            writer,
            ops,
            people,
            subs,
            held: Mutex::default(),
            behind: Mutex::default(),
        })
    }

    /// A new process: one sequential client, until an outcome is unknown.
    pub(crate) fn person(&self) -> u64 {
        self.people.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A new connection of a viewer.
    pub(crate) fn sub(&self) -> u64 {
        self.subs.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn ops(&self) -> u64 {
        self.ops.load(Ordering::Relaxed)
    }

    pub(crate) fn write(&self, record: &Record) {
        if let Some(writer) = self.writer.lock().as_mut()
            && let Err(error) = writer.write(record)
        {
            tracing::error!(%error, "the history can't be written");
        }
    }

    /// Just before the first byte is sent.
    pub(crate) fn call(&self, p: u64, inv: Inv) -> Called {
        let op = self.ops.fetch_add(1, Ordering::Relaxed) + 1;
        self.write(&Record::Inv(Inv {
            t: mono::now(),
            p,
            op,
            ..inv
        }));
        Called { p, op }
    }

    /// Just after the whole answer is understood.
    pub(crate) fn answer(&self, called: Called, ret: Ret) {
        self.write(&Record::Ret(Ret {
            t: mono::now(),
            p: called.p,
            op: called.op,
            ..ret
        }));
    }

    /// A hold, as the first viewer hears of it.
    pub(crate) fn held(&self, t: i64, shard: u32, stamp: u64, dms: u64) {
        if self.held.lock().insert((shard, stamp)) {
            self.write(&Record::Held(Held { t, node: 0, shard, dms }));
        }
    }

    /// A lane that was behind, when a replica tells it first.
    pub(crate) fn behind(&self, behind: Behind) {
        let office = (behind.term, behind.turn);
        let key = (behind.node, behind.shard, office, behind.a.clone());
        if self.behind.lock().insert(key) {
            self.write(&Record::Behind(behind));
        }
    }

    /// On disk; nothing can be written after.
    pub(crate) fn finish(&self) -> std::io::Result<()> {
        self.writer.lock().take().map_or(Ok(()), Writer::finish)
    }
}
