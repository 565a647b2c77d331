//! What the other side's sender reports say, listened to on the way in: which moment of its clock an RTP time is.

use parking_lot::Mutex;
use rtc::interceptor::{Interceptor, Packet, Slot, StreamInfo, TaggedPacket};
use rtc::rtcp::sender_report::SenderReport;
use rtc::sansio::Protocol;
use rtc::shared::error::Error;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// Nearest to the wire.
pub(super) const SLOT: Slot = Slot::Custom(500);
/// Packets of which the least late one counts.
const RECENT: usize = 50;

/// By SSRC: NTP time (32.32) and RTP time of the newest report.
#[derive(Clone, Default)]
pub(super) struct Said(Arc<Mutex<HashMap<u32, (u64, u32)>>>);

/// How late a track's packets are by its reports.
pub(super) struct Late {
    said: Said,
    rate: u32,
    recent: VecDeque<i64>,
}

impl Late {
    pub(super) fn new(said: Said, rate: u32) -> Late {
        Late {
            said,
            rate,
            recent: VecDeque::new(),
        }
    }

    /// A packet is here, `now` µs after a moment that all tracks share. Gives how late the least late of the newest was, in µs
    /// from a zero that all tracks share too.
    pub(super) fn packet(&mut self, ssrc: u32, timestamp: u32, now: i64) -> Option<i64> {
        let (ntp, rtp) = self.said.0.lock().get(&ssrc).copied()?;
        let ticks = i64::from(timestamp.wrapping_sub(rtp) as i32);
        let captured = ((u128::from(ntp) * 1_000_000) >> 32) as i64 + ticks * 1_000_000 / i64::from(self.rate);
        self.recent.push_back(now - captured);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        self.recent
            .iter()
            .min()
            .copied()
            .filter(|_| self.recent.len() == RECENT)
    }
}

/// The listener; everything passes.
#[derive(Default)]
pub(super) struct Listener {
    said: Said,
    inward: VecDeque<TaggedPacket>,
    outward: VecDeque<TaggedPacket>,
}

impl Listener {
    pub(super) fn new(said: Said) -> Listener {
        Listener {
            said,
            ..Listener::default()
        }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Listener {
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
                let mut said = self.said.0.lock();
                // A connection has few streams; a peer that invents more is told nothing by us.
                if said.len() < 16 || said.contains_key(&report.ssrc) {
                    said.insert(report.ssrc, (report.ntp_time, report.rtp_time));
                }
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

impl Interceptor for Listener {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_told_once_enough_packets_came_and_counts_the_least() {
        let said = Said::default();
        said.0.lock().insert(7, (10 << 32, 900_000));
        let mut late = Late::new(said, 90_000);
        for n in 0..49 {
            assert_eq!(late.packet(7, 900_000, 10_000_000 + 500 + n), None);
        }
        assert_eq!(late.packet(8, 0, 0), None, "nothing was said of it");
        // A second later by its RTP time, 300 µs late.
        assert_eq!(late.packet(7, 990_000, 11_000_300), Some(300));
    }
}
