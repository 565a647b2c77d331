//! The viewers' edge: one UDP socket for all of them, and the table that says whose a datagram is.
//!
//! ```text
//!   socket --> reader --(STUN: by user fragment; else: by address)--> the lane that owns the viewer
//!                            joins lane --(open)--> media lane
//! ```
//!
//! A viewer is found by the user fragment of its first check; once a lane has proven that check, its address is in the
//! table too, and media and feedback are found by that. Handshakes (public-key operations) happen in the joins
//! lane, a thread of their own: a viewer moves to a media lane when its keys are ready (`spread` says to which).

use crate::capture::Place;
use crate::lane::Input;
use crate::spread::Spread;
use crate::viewer::stun;
use crate::{MediaError, metrics};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// Addresses that one viewer may prove: interfaces of a phone, times two families, and some.
const ADDRESSES_MAX: usize = 8;
/// The largest datagram that a viewer sends us.
const DATAGRAM_MAX: usize = 2048;

struct Slot {
    lane: usize,
    /// The auction that it was spread by; absent: it is in the joins lane.
    auction: Option<String>,
    session: String,
    shown: Option<Arc<Place>>,
    ufrags: Vec<String>,
    addresses: Vec<SocketAddr>,
}

struct Table {
    spread: Spread,
    slots: HashMap<u64, Slot>,
    ufrags: HashMap<String, u64>,
    addresses: HashMap<SocketAddr, u64>,
    sessions: HashMap<String, u64>,
    next: u64,
}

/// Who is where. Shared by the reader, the lanes, and `Media`.
pub(crate) struct Edge {
    table: Mutex<Table>,
    lanes: Vec<SyncSender<Input>>,
    viewers_max: usize,
}

impl Edge {
    /// `lanes`: the media lanes, then the joins lane.
    pub(crate) fn new(lanes: Vec<SyncSender<Input>>, viewers_max: usize) -> Edge {
        let table = Table {
            spread: Spread::new(lanes.len() - 1),
            slots: HashMap::new(),
            ufrags: HashMap::new(),
            addresses: HashMap::new(),
            sessions: HashMap::new(),
            next: 0,
        };
        Edge {
            table: Mutex::new(table),
            lanes,
            viewers_max,
        }
    }

    /// Number of media lanes.
    pub(crate) fn media_lanes(&self) -> usize {
        self.lanes.len() - 1
    }

    /// Makes room for a viewer that will join by `ufrag`; gives its number. It belongs to the joins lane.
    pub(crate) fn admit(&self, session: &str, ufrag: &str) -> Result<u64, MediaError> {
        let mut table = self.table.lock();
        if table.slots.len() >= self.viewers_max {
            return Err(MediaError::Busy("viewers"));
        }
        table.next += 1;
        let viewer = table.next;
        let slot = Slot {
            lane: self.media_lanes(),
            auction: None,
            session: session.into(),
            shown: None,
            ufrags: vec![ufrag.into()],
            addresses: Vec::new(),
        };
        table.slots.insert(viewer, slot);
        table.ufrags.insert(ufrag.into(), viewer);
        table.sessions.insert(session.into(), viewer);
        Ok(viewer)
    }

    /// The viewer of a session.
    pub(crate) fn find(&self, session: &str) -> Option<u64> {
        self.table.lock().sessions.get(session).copied()
    }

    /// Where a viewer's picture will be found.
    pub(crate) fn show(&self, viewer: u64, shown: &Arc<Place>) {
        if let Some(slot) = self.table.lock().slots.get_mut(&viewer) {
            slot.shown = Some(shown.clone());
        }
    }

    /// Where the picture of a session's viewer is.
    pub(crate) fn shown(&self, session: &str) -> Option<Arc<Place>> {
        let table = self.table.lock();
        let viewer = table.sessions.get(session)?;
        table.slots.get(viewer)?.shown.clone()
    }

    /// Another user fragment for a viewer (ICE restart); the old one goes on working until it leaves.
    pub(crate) fn add_ufrag(&self, viewer: u64, ufrag: &str) {
        let mut table = self.table.lock();
        if let Some(slot) = table.slots.get_mut(&viewer) {
            slot.ufrags.push(ufrag.into());
            table.ufrags.insert(ufrag.into(), viewer);
        }
    }

    /// The viewer proved that this address is its own.
    pub(crate) fn prove(&self, viewer: u64, address: SocketAddr) {
        let mut table = self.table.lock();
        let Some(slot) = table.slots.get_mut(&viewer) else {
            return;
        };
        if slot.addresses.contains(&address) || slot.addresses.len() >= ADDRESSES_MAX {
            return;
        }
        slot.addresses.push(address);
        table.addresses.insert(address, viewer);
    }

    /// The viewer moves to a media lane; gives which. None: there is no such viewer any more.
    pub(crate) fn open(&self, viewer: u64, auction: &str) -> Option<usize> {
        let mut table = self.table.lock();
        let Table { spread, slots, .. } = &mut *table;
        let slot = slots.get_mut(&viewer)?;
        if slot.auction.is_none() {
            slot.lane = spread.come(auction);
            slot.auction = Some(auction.into());
        }
        Some(slot.lane)
    }

    /// The viewer is gone.
    pub(crate) fn forget(&self, viewer: u64) {
        let mut table = self.table.lock();
        let Some(slot) = table.slots.remove(&viewer) else {
            return;
        };
        if let Some(auction) = &slot.auction {
            table.spread.leave(auction, slot.lane);
        }
        table.sessions.remove(&slot.session);
        for ufrag in slot.ufrags {
            table.ufrags.remove(&ufrag);
        }
        for address in slot.addresses {
            // An address may have become another viewer's since.
            if table.addresses.get(&address) == Some(&viewer) {
                table.addresses.remove(&address);
            }
        }
    }

    /// Gives an input to the lane that owns the viewer. False: no such viewer, or its lane is full.
    pub(crate) fn give(&self, viewer: u64, input: Input) -> bool {
        let lane = self.table.lock().slots.get(&viewer).map(|slot| slot.lane);
        lane.is_some_and(|lane| self.offer(lane, input))
    }

    /// Offers an input to a lane without waiting.
    pub(crate) fn offer(&self, lane: usize, input: Input) -> bool {
        match self.lanes[lane].try_send(input) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                metrics::dropped("lane");
                false
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    /// Gives an input to a lane, waiting for room. Only for what mustn't be lost, and never from a media lane.
    pub(crate) fn send(&self, lane: usize, input: Input) -> bool {
        self.lanes[lane].send(input).is_ok()
    }

    fn route(&self, from: SocketAddr, bytes: &[u8]) -> Option<u64> {
        let table = self.table.lock();
        if stun::is_stun(bytes) {
            let request = stun::request(bytes)?;
            return table.ufrags.get(request.local_ufrag()).copied();
        }
        table.addresses.get(&from).copied()
    }
}

/// Reads the socket until it is told to stop.
pub(crate) async fn read(socket: UdpSocket, edge: Arc<Edge>, stop: CancellationToken) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = stop.cancelled() => return,
        };
        // An ICMP answer to a datagram of ours shows up as an error here; it is no reason to stop.
        let Ok((length, from)) = received else { continue };
        let bytes = &buffer[..length];
        if let Some(viewer) = edge.route(from, bytes) {
            edge.give(
                viewer,
                Input::Datagram {
                    viewer,
                    from,
                    bytes: Bytes::copy_from_slice(bytes),
                },
            );
        }
    }
}
