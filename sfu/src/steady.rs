//! In steady state nothing is allocated for a packet on its way to a viewer: from the ring, through rewriting and sealing,
//! into the kernel.
//!
//! The counter counts this thread's allocations only, so other tests don't disturb it.

#![allow(clippy::unwrap_used)]

use crate::outbox::{Exit, Outbox};
use crate::sdp::{self, Offer};
use crate::session::{Batches, Presence, Viewer};
use crate::stage::tests::{packet, stage};
use crate::stage::{Clock, Stage};
use crate::viewer::answer::{self, Ours, Ssrcs};
use crate::viewer::lean::{Identity, LeanViewer};
use allocation_counter::measure;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

fn viewer(number: u64, stage: &Arc<Stage>, identity: &Arc<Identity>, to: SocketAddr) -> Viewer {
    let ours = Ours {
        ufrag: "ours",
        password: "9876543210987654321098",
        fingerprint: &identity.fingerprint,
        address: to,
        ssrcs: Ssrcs::from(number as u32 * 4),
        wanted: None,
    };
    let offer = Offer::parse(&sdp::tests::offer(), 65_536).unwrap();
    let (_, terms) = answer::answer(&offer, &ours, true).unwrap();
    let transport = LeanViewer::opened(identity.clone(), to);
    Viewer::new(number, Box::new(transport), Presence::new(stage), terms, Instant::now())
}

#[test]
fn the_counter_counts() {
    assert_eq!(measure(|| drop(Vec::<u8>::with_capacity(9))).count_total, 1);
}

#[test]
fn a_forwarded_packet_allocates_nothing() {
    const VIEWERS: u64 = 8;
    let (stage, live, track, _) = stage();
    let identity = Arc::new(Identity::generate().unwrap());
    let theirs = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let ours = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    // What finds no room at the other end is dropped there: nobody reads it.
    ours.set_nonblocking(true).unwrap();
    let exit = Exit::new(ours).unwrap();
    let to = theirs.local_addr().unwrap();
    let mut viewers: Vec<Viewer> = (1..=VIEWERS).map(|n| viewer(n, &stage, &identity, to)).collect();
    let (clock, mut batches, mut outbox) = (Clock(Instant::now()), Batches::default(), Outbox::default());
    let (mut sequence, mut allocated) = (0, 0);
    for picture in 0..200 {
        for _ in 0..6 {
            stage.push(&live, &track, sequence, packet(sequence as u16, sequence == 0));
            sequence += 1;
        }
        let counted = measure(|| {
            for viewer in &mut viewers {
                let pumped = viewer.pump(clock, &mut batches, &mut outbox);
                assert_eq!(pumped.sent, 6);
                exit.flush(&mut outbox);
            }
            batches.clear();
        });
        // The first picture makes the room that all others use.
        if picture > 0 {
            allocated += counted.count_total;
        }
    }
    assert_eq!(allocated, 0, "for {} packets", 199 * 6 * VIEWERS);
}
