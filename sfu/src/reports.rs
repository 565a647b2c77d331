//! A seller's connection, listened to: its sender reports as they come in (everything passes), and its round trip.
//!
//! It sits nearest to the wire, before anything could hold a report up: when it came is half of what it says.

use crate::capture::Uplink;
use rtc::interceptor::{Interceptor, Packet, Slot, StreamInfo, TaggedPacket};
use rtc::rtcp::sender_report::SenderReport;
use rtc::sansio::Protocol;
use rtc::shared::error::Error;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use webrtc::peer_connection::{PeerConnection, StatsSelector};

/// Before all others.
pub(crate) const SLOT: Slot = Slot::Custom(500);

/// The round trip to a publisher, as its connection's checks measure it.
pub(crate) async fn round_trip(connection: &Arc<dyn PeerConnection>) -> Option<Duration> {
    let report = connection.get_stats(Instant::now(), StatsSelector::None).await;
    let took = report
        .candidate_pairs()
        .filter(|pair| pair.nominated)
        .map(|pair| pair.current_round_trip_time)
        .find(|took| *took > 0.0)?;
    Duration::try_from_secs_f64(took).ok()
}

/// The listener, as a link of the seller's chain.
pub(crate) struct Reports {
    uplink: Arc<Uplink>,
    inward: VecDeque<TaggedPacket>,
    outward: VecDeque<TaggedPacket>,
}

impl Reports {
    pub(crate) fn new(uplink: Arc<Uplink>) -> Reports {
        Reports {
            uplink,
            inward: VecDeque::new(),
            outward: VecDeque::new(),
        }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Reports {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, message: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtcp(packets) = &message.message.packet {
            for report in packets
                .iter()
                .filter_map(|packet| packet.as_any().downcast_ref::<SenderReport>())
            {
                self.uplink
                    .report(report.ssrc, report.ntp_time, report.rtp_time, message.now);
            }
        }
        self.inward.push_back(message);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.inward.pop_front()
    }

    fn handle_write(&mut self, message: TaggedPacket) -> Result<(), Error> {
        self.outward.push_back(message);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.outward.pop_front()
    }
}

impl Interceptor for Reports {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}
