//! Applying: the committed log becomes state, events and answers.
//!
//! ```text
//!   openraft --entries--> apply: write lock { State::apply, Feed::publish } --> answer to the proposer, if it is here
//!                           '--> heard_top, applied index, cluster map: watched by readers and the host
//! ```
//!
//! `Replica` is what the rest of the node may see of a group between two entries: it is shared with the proposer (through
//! `port::Log`), with readers and with followers. Only this file writes to it.
//!
//! Deliberately absent: rules (`State`, `auction`), and any decision of when to make a snapshot (`janitor`).

use crate::{
    behind::Remembered,
    cold::ColdStore,
    feed::Feed,
    log_store::LogStore,
    marks::{self, Marks},
    snapshot::{self, Image, SnapshotFile},
    state::State,
    types::{
        Answer, LogEntry, LogId, LogPayload, Payload, SnapshotData, SnapshotMeta, StoredMembership, TraceContext,
        TypeConfig,
    },
};
use auction::{Applied, Limits};
use futures_util::{Stream, StreamExt};
use openraft::{
    OptionalSend, RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine, Snapshot},
};
use parking_lot::{Mutex, RwLock};
use placement::ClusterMap;
use std::{
    io,
    sync::{Arc, OnceLock},
    time::Instant,
};
use tokio::sync::watch;

/// Room that a snapshot leaves to the log.
const ROOM_LEFT: u64 = 1024 * 1024;

/// A group's state and what hangs on it.
pub(crate) struct Replica {
    pub(crate) state: RwLock<State>,
    pub(crate) feed: Feed,
    /// Index of the newest applied entry; changes wake readers that wait for a version.
    pub(crate) applied: watch::Sender<u64>,
    /// The cluster map, if this is shard 0.
    pub(crate) map: watch::Sender<Option<Arc<ClusterMap>>>,
    pub(crate) heard_top: Mutex<Instant>,
    /// Digests of the state at places where all replicas take one.
    pub(crate) marks: Mutex<Marks>,
    /// Whose lanes were behind when offices were taken.
    pub(crate) behind: Mutex<Remembered>,
    /// What the state has paged out.
    pub(crate) cold: Arc<ColdStore>,
    /// Damage that ended it: an entry names what can't be read here. This replica's loss, not its node's.
    pub(crate) hurt: OnceLock<String>,
}

impl Replica {
    fn new(state: State, cold: ColdStore) -> Replica {
        Replica {
            feed: Feed::new(state.feed_epoch),
            applied: watch::channel(state.applied).0,
            map: watch::channel(state.map.clone()).0,
            heard_top: Mutex::new(Instant::now()),
            marks: Mutex::default(),
            behind: Mutex::default(),
            cold: Arc::new(cold),
            hurt: OnceLock::new(),
            state: RwLock::new(state),
        }
    }
}

/// openraft's state machine over a `Replica`.
pub(crate) struct StateMachine {
    replica: Arc<Replica>,
    log: LogStore,
    file: SnapshotFile,
    limits: Limits,
    applied: Option<LogId>,
    membership: StoredMembership,
}

impl StateMachine {
    /// The state machine as of the group's snapshot file, with what `cold` keeps of it. Blocks for the disk.
    pub(crate) fn open(log: LogStore, file: SnapshotFile, limits: Limits, cold: ColdStore) -> io::Result<StateMachine> {
        let (state, applied, membership) = match file.read()? {
            Some((meta, stored)) => (
                snapshot::decode(stored.body()?, limits)?,
                meta.last_log_id,
                meta.last_membership,
            ),
            None => (State::new(limits), None, StoredMembership::default()),
        };
        Ok(StateMachine {
            replica: Arc::new(Replica::new(state, cold)),
            log,
            file,
            limits,
            applied,
            membership,
        })
    }

    pub(crate) fn replica(&self) -> Arc<Replica> {
        self.replica.clone()
    }

    /// Brings back what an entry names and isn't in memory, for as long as it is applied.
    async fn page_in(&self, cold: Vec<u64>) -> Result<(), io::Error> {
        let store = self.replica.cold.clone();
        #[cfg(feature = "sim")]
        cold.iter().for_each(|_| crate::sim::met_cold("entry"));
        let load = move || cold.into_iter().map(|number| store.load(number)).collect();
        let guests: Vec<_> = blocking(load).await.inspect_err(|error| {
            if error.kind() == io::ErrorKind::InvalidData {
                let _ = self.replica.hurt.set(error.to_string());
            }
        })?;
        let mut state = self.replica.state.write();
        guests.into_iter().for_each(|guest| state.shard.page_in(guest));
        Ok(())
    }

    fn send_away(&self, guests: Vec<u64>) {
        if guests.is_empty() {
            return;
        }
        let mut state = self.replica.state.write();
        let gone: Vec<_> = guests.into_iter().map(|number| state.shard.send_away(number)).collect();
        drop(state);
        drop(gone);
    }

    /// Applies an entry, unless it names what isn't in memory: then nothing has happened.
    fn apply_one(&mut self, entry: &LogEntry) -> Result<Answer, Missing> {
        let LogEntry { log_id, payload } = entry;
        let answer = match payload {
            LogPayload::Blank => self.touch(log_id.index),
            LogPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(*log_id), membership.clone());
                self.touch(log_id.index)
            }
            LogPayload::Normal(logged) => self.apply_payload(log_id.index, logged.payload())?,
        };
        self.applied = Some(*log_id);
        self.replica.applied.send_replace(log_id.index);
        Ok(answer)
    }

    fn touch(&self, index: u64) -> Answer {
        self.replica.state.write().applied = index;
        Answer::Nothing
    }

    fn apply_payload(&self, index: u64, payload: &Payload) -> Result<Answer, Missing> {
        let mut state = self.replica.state.write();
        if let Payload::Entry { entry, .. } = payload {
            // Under the lock that the pager takes, too: what is here now is here until the entry is applied.
            let cold = self.replica.named(&state.shard, entry);
            if !cold.is_empty() {
                return Err(Missing(cold));
            }
        }
        let top = state.shard.top();
        let answer = state.apply(payload);
        state.applied = index;
        if state.shard.top() != top {
            // An entry that is gone from memory was covered by a snapshot: then nobody waits for this moment.
            let heard = self.log.heard(index).unwrap_or_else(Instant::now);
            *self.replica.heard_top.lock() = heard;
        }
        match (&answer, payload) {
            (Answer::Entry(applied), Payload::Entry { entry, .. }) if entry.n == 0 => {
                if matches!(**applied, Applied::Done(_)) {
                    self.replica.behind.lock().taken(&state.shard);
                }
            }
            (Answer::Entry(applied), Payload::Entry { traces, .. }) => {
                let _spans: Vec<_> = traces.iter().map(|(_, trace)| publish_span(*trace)).collect();
                if let Applied::Done(done) = &**applied {
                    self.replica.feed.publish(done, &state.shard);
                }
            }
            (Answer::Meta { stored: true, .. }, _) => {
                self.replica.map.send_replace(state.map.clone());
            }
            _ => {}
        }
        Ok(answer)
    }
}

/// Settled auctions that an entry names and that aren't in memory, by number.
struct Missing(Vec<u64>);

/// A span under the trace of whoever sent a command: it goes on here, whatever replica this is.
fn publish_span(trace: TraceContext) -> tracing::Span {
    use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
    use tracing_opentelemetry::OpenTelemetrySpanExt;
    let parent = SpanContext::new(
        TraceId::from_bytes(trace.trace.to_be_bytes()),
        SpanId::from_bytes(trace.span.to_be_bytes()),
        TraceFlags::new(trace.flags),
        true,
        TraceState::default(),
    );
    let span = tracing::info_span!("feed.publish");
    // Fails only where no exporter listens: then there is no trace to go on with.
    let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(parent));
    span
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let index = entry.log_id.index;
            let mut guests = Vec::new();
            let answer = loop {
                match self.apply_one(&entry) {
                    Ok(answer) => break answer,
                    Err(Missing(cold)) => {
                        guests.extend_from_slice(&cold);
                        self.page_in(cold).await?;
                    }
                }
            };
            self.send_away(guests);
            if index.is_multiple_of(marks::EVERY) {
                let digest = self.replica.state.read().digest();
                // A state that diverged ends the replica: nothing that it says is true.
                self.replica
                    .marks
                    .lock()
                    .mark(index, digest)
                    .map_err(io::Error::other)?;
            }
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        // A snapshot that finds no room would stop the replica; one that isn't made now is made when there is room.
        let need = 2 * self.file.bytes() + self.log.bytes() + ROOM_LEFT;
        let room = self.file.free().unwrap_or(u64::MAX);
        if !force && room < need {
            tracing::debug!(room, need, "no room for a snapshot");
            return None;
        }
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            image: Some(Image::of(&self.replica.state.read())),
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
            },
            file: self.file.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> Result<(), io::Error> {
        let (file, limits) = (self.file.clone(), self.limits);
        let (applied, membership) = (meta.last_log_id, meta.last_membership.clone());
        let cold = self.replica.cold.clone();
        let state = blocking(move || {
            let state = snapshot::decode(snapshot.0.body()?, limits)?;
            // They came before it: a snapshot is worth nothing without what it leaves out.
            cold.holds(&state.shard.cold())?;
            // openraft doesn't wait for this when the replica stops: then all these names are its successor's.
            file.adopt(&snapshot.0, applied, || cold.succeed())?;
            Ok(state)
        })
        .await?;
        self.applied = applied;
        self.membership = membership;
        let index = state.applied;
        let mut present = self.replica.state.write();
        *present = state;
        *self.replica.heard_top.lock() = Instant::now();
        self.replica.map.send_replace(present.map.clone());
        self.replica.feed.reset(present.feed_epoch);
        drop(present);
        self.replica.applied.send_replace(index);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot1>, io::Error> {
        let file = self.file.clone();
        let found = blocking(move || file.read()).await?;
        Ok(found.map(|(meta, stored)| Snapshot {
            meta,
            snapshot: SnapshotData(Arc::new(stored)),
        }))
    }
}

type Snapshot1 = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// Encodes and stores an image that was taken between two entries.
pub(crate) struct Builder {
    image: Option<Image>,
    meta: SnapshotMeta,
    file: SnapshotFile,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot1, io::Error> {
        let Some(image) = self.image.take() else {
            return Err(io::Error::other("an image is built once"));
        };
        let (meta, file) = (self.meta.clone(), self.file.clone());
        let (meta, stored) = blocking(move || {
            let body = image.encode();
            file.write(&meta, &image.cold(), &body)
        })
        .await?;
        // Its own, or a newer one that was installed meanwhile.
        Ok(Snapshot {
            meta,
            snapshot: SnapshotData(Arc::new(stored)),
        })
    }
}

/// Runs what waits for the disk where it may block.
pub(crate) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    // A simulated disk answers at once, and a thread would bring the real world's timing in.
    #[cfg(feature = "sim")]
    if crate::sim::running() {
        return f();
    }
    tokio::task::spawn_blocking(f)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests;
