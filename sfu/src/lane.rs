//! A lane: a thread that owns viewers, their keys and their places in the rings, and sends to them.
//!
//! ```text
//!   Input::Wake(stage) --> for each viewer of the stage: ring[cursor..] --> rewrite --> encrypt --> socket
//!   Input::Datagram    --> transport --> RTCP --> NACK: the ring again;  PLI: the stage's gate
//! ```
//!
//! Nothing here waits for anything but the lane's own queue: sending never blocks (a full socket drops, and the viewer
//! asks again), and the ring's lock is held for the copy of a few handles. One lane does the joins; it has no
//! stages to serve and gives its viewers away when they are open.

use crate::edge::Edge;
use crate::metrics::{self, Residence};
use crate::options::Options;
use crate::outbox::{Exit, Outbox};
use crate::rtcp::{self, Ask};
use crate::session::{Batches, Viewer};
use crate::stage::{Clock, Stage};
use crate::viewer::TransportState;
use bytes::Bytes;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Inputs taken before the clock and the socket are looked after again.
const TURN: usize = 256;
/// Between two looks at the viewers of a media lane, and of the joins lane (whose handshakes have retries).
const LOOK_MEDIA: Duration = Duration::from_millis(250);
const LOOK_JOINS: Duration = Duration::from_millis(20);

/// What a lane is told.
pub(crate) enum Input {
    /// From a viewer's address.
    Datagram {
        viewer: u64,
        from: SocketAddr,
        bytes: Bytes,
    },
    /// The stage has something new.
    Wake(Arc<Stage>),
    /// A viewer comes, from a `watch` or from the joins lane.
    Arrive(Box<Viewer>),
    /// A viewer restarts ICE.
    Restart { viewer: u64, password: String },
    /// A viewer is to go.
    Leave { viewer: u64 },
    /// The lane ends.
    Stop,
}

/// A lane's thread.
pub(crate) struct Lane {
    pub(crate) index: usize,
    /// The joins lane.
    pub(crate) joins: bool,
    pub(crate) inputs: Receiver<Input>,
    exit: Arc<Exit>,
    pub(crate) edge: Arc<Edge>,
    pub(crate) options: Arc<Options>,
    pub(crate) clock: Clock,
    viewers: HashMap<u64, Box<Viewer>>,
    /// Auction to viewers.
    stages: HashMap<String, Vec<u64>>,
    outbox: Outbox,
    batches: Batches,
    residence: Residence,
    sent: ::metrics::Counter,
    looked: Instant,
}

impl Lane {
    pub(crate) fn new(
        index: usize,
        joins: bool,
        inputs: Receiver<Input>,
        exit: Arc<Exit>,
        edge: Arc<Edge>,
        options: Arc<Options>,
        clock: Clock,
    ) -> Lane {
        Lane {
            index,
            joins,
            inputs,
            exit,
            edge,
            options,
            clock,
            viewers: HashMap::new(),
            stages: HashMap::new(),
            outbox: Outbox::default(),
            batches: Batches::default(),
            sent: metrics::packets_to_viewers(),
            residence: Residence::new(),
            looked: Instant::now(),
        }
    }

    /// Runs until `Stop`, or until nobody can tell it anything any more.
    pub(crate) fn run(mut self) {
        loop {
            let first = if self.viewers.is_empty() {
                self.inputs.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                let due = self.looked + if self.joins { LOOK_JOINS } else { LOOK_MEDIA };
                self.inputs.recv_timeout(due.saturating_duration_since(Instant::now()))
            };
            match first {
                Ok(input) => {
                    let mut next = Some(input);
                    for _ in 0..TURN {
                        let Some(input) = next else { break };
                        if !self.take(input) {
                            self.stop();
                            return;
                        }
                        next = self.inputs.try_recv().ok();
                    }
                    // The turn is over with one in hand: it is served before the next wait.
                    if let Some(input) = next
                        && !self.take(input)
                    {
                        self.stop();
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look(Instant::now());
            self.flush();
        }
    }

    /// False: the lane ends.
    fn take(&mut self, input: Input) -> bool {
        match input {
            Input::Datagram { viewer, from, bytes } => self.datagram(viewer, from, &bytes),
            Input::Wake(stage) => self.serve(&stage),
            Input::Arrive(viewer) => self.arrive(viewer),
            Input::Restart { viewer, password } => {
                if let Some(viewer) = self.viewers.get_mut(&viewer) {
                    viewer.transport.restart(password);
                }
            }
            Input::Leave { viewer } => self.leave(viewer, "it was ended"),
            Input::Stop => return false,
        }
        true
    }

    fn arrive(&mut self, mut viewer: Box<Viewer>) {
        if !self.joins {
            let stage = viewer.stage().clone();
            stage.lane_viewers(self.index, true);
            self.stages
                .entry(stage.auction.clone())
                .or_default()
                .push(viewer.number);
            viewer.pump(self.clock, &mut self.batches, &mut self.outbox);
            self.batches.clear();
        }
        self.viewers.insert(viewer.number, viewer);
        self.flush();
    }

    fn serve(&mut self, stage: &Arc<Stage>) {
        // Before the ring is read: a packet that comes from here on wakes us again.
        stage.waking(self.index);
        let Some(numbers) = self.stages.get(&stage.auction) else {
            return;
        };
        let mut sent = 0;
        for number in numbers {
            let Some(viewer) = self.viewers.get_mut(number) else {
                continue;
            };
            let pumped = viewer.pump(self.clock, &mut self.batches, &mut self.outbox);
            sent += pumped.sent;
            // Viewer by viewer: the first one's packets mustn't wait for the last one's encryption.
            self.exit.flush(&mut self.outbox);
            if let Some(oldest) = pumped.oldest {
                self.residence.portion(oldest);
            }
        }
        self.batches.clear();
        self.sent.increment(sent);
    }

    fn datagram(&mut self, number: u64, from: SocketAddr, bytes: &[u8]) {
        let Some(viewer) = self.viewers.get_mut(&number) else {
            // It moved on while this was on its way here.
            if self.joins {
                self.edge.give(
                    number,
                    Input::Datagram {
                        viewer: number,
                        from,
                        bytes: Bytes::copy_from_slice(bytes),
                    },
                );
            }
            return;
        };
        let before = viewer.transport.state();
        if viewer.transport.receive(Instant::now(), from, bytes, &mut self.outbox) {
            self.edge.prove(number, from);
        }
        let mut bye = false;
        while let Some(compound) = viewer.transport.next_rtcp() {
            for ask in rtcp::read(&compound) {
                match ask {
                    Ask::Nack { ssrc, numbers } => viewer.retransmit(ssrc, &numbers, self.clock, &mut self.outbox),
                    Ask::Heard { ssrc, last, held } => viewer.heard(ssrc, last, held),
                    Ask::Keyframe { ssrc } => viewer.ask_keyframe(ssrc),
                    Ask::Bye => bye = true,
                }
            }
        }
        match viewer.transport.state() {
            TransportState::Closed => self.leave(number, "its transport is closed"),
            _ if bye => self.leave(number, "it said goodbye"),
            TransportState::Open if before == TransportState::Joining => self.open(number),
            _ => {}
        }
    }

    /// A handshake is through: the viewer moves to a media lane.
    fn open(&mut self, number: u64) {
        // The last flight of the handshake goes out before the first packet.
        self.flush();
        let Some(viewer) = self.viewers.remove(&number) else {
            return;
        };
        viewer.opened();
        let Some(lane) = self.edge.open(number, &viewer.stage().auction) else {
            return;
        };
        if !self.edge.send(lane, Input::Arrive(viewer)) {
            self.edge.forget(number);
        }
    }

    fn leave(&mut self, number: u64, why: &str) {
        let Some(mut viewer) = self.viewers.remove(&number) else {
            if self.joins {
                self.edge.give(number, Input::Leave { viewer: number });
            }
            return;
        };
        tracing::debug!(viewer = number, auction = %viewer.stage().auction, why, "a viewer leaves");
        viewer.transport.close(Instant::now(), &mut self.outbox);
        if !self.joins {
            let stage = viewer.stage().clone();
            stage.lane_viewers(self.index, false);
            if let Some(numbers) = self.stages.get_mut(&stage.auction) {
                numbers.retain(|n| *n != number);
                if numbers.is_empty() {
                    self.stages.remove(&stage.auction);
                }
            }
        }
        self.edge.forget(number);
        self.flush();
    }

    /// What is due: handshake retries, reports, viewers that fell silent.
    fn look(&mut self, now: Instant) {
        let every = if self.joins { LOOK_JOINS } else { LOOK_MEDIA };
        if now < self.looked + every {
            return;
        }
        self.looked = now;
        let mut gone = Vec::new();
        for (number, viewer) in &mut self.viewers {
            if viewer.transport.deadline().is_some_and(|due| due <= now) {
                viewer.transport.timeout(now, &mut self.outbox);
            }
            let late = self.joins && now >= viewer.since + self.options.handshake_max;
            let silent = !self.joins && now >= viewer.transport.heard() + self.options.viewer_silence;
            if viewer.transport.state() == TransportState::Closed || late || silent {
                gone.push(*number);
            } else if !self.joins {
                viewer.report(now, self.clock, &mut self.outbox);
            }
        }
        for number in gone {
            self.leave(number, "its time is over");
        }
    }

    fn stop(&mut self) {
        let numbers: Vec<u64> = self.viewers.keys().copied().collect();
        for number in numbers {
            self.leave(number, "the node stops");
        }
    }

    fn flush(&mut self) {
        self.exit.flush(&mut self.outbox);
    }
}
