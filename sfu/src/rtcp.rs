//! RTCP as the viewer's leg needs it (RFC 3550, RFC 4585, RFC 5104): what a viewer asks for, read; sender reports, written.
//!
//! A malformed part ends the reading of its compound packet; what came before it counts.

/// What a viewer asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ask {
    /// These numbers of this SSRC again.
    Nack { ssrc: u32, numbers: Vec<u16> },
    /// A picture that needs no other.
    Keyframe { ssrc: u32 },
    /// What a reception report says of a sender report of ours: the middle of its NTP time, and for how long it was held, 1/65536 s.
    Heard { ssrc: u32, last: u32, held: u32 },
    /// It leaves.
    Bye,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map(u32::from_be_bytes)
}

fn nack(body: &[u8]) -> Option<Ask> {
    let ssrc = u32_at(body, 8)?;
    let mut numbers = Vec::new();
    for item in body.get(12..)?.chunks_exact(4) {
        let first = u16::from_be_bytes([item[0], item[1]]);
        let mask = u16::from_be_bytes([item[2], item[3]]);
        numbers.push(first);
        numbers.extend(
            (0..16)
                .filter(|bit| mask & (1 << bit) != 0)
                .map(|bit| first.wrapping_add(bit + 1)),
        );
    }
    Some(Ask::Nack { ssrc, numbers })
}

/// The reports on our streams that lie in a packet from byte `at` on.
fn heard(body: &[u8], at: usize, asks: &mut Vec<Ask>) {
    let blocks = body.get(at..).unwrap_or(&[]).chunks_exact(24);
    for block in blocks.take(usize::from(body[0] & 0x1f)) {
        if let (Some(ssrc), Some(last), Some(held)) = (u32_at(block, 0), u32_at(block, 16), u32_at(block, 20)) {
            asks.push(Ask::Heard { ssrc, last, held });
        }
    }
}

/// Reads a compound packet.
pub(crate) fn read(mut bytes: &[u8]) -> Vec<Ask> {
    let mut asks = Vec::new();
    while bytes.len() >= 8 && bytes[0] >> 6 == 2 {
        let length = (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])) + 1) * 4;
        let Some(body) = bytes.get(..length) else { break };
        match body[1] {
            200 => heard(body, 28, &mut asks),
            201 => heard(body, 8, &mut asks),
            _ => {}
        }
        let ask = match (body[1], body[0] & 0x1f) {
            (205, 1) => nack(body),
            (206, 1) => u32_at(body, 8).map(|ssrc| Ask::Keyframe { ssrc }),
            // A full intra request names its target in the first entry.
            (206, 4) => u32_at(body, 12).map(|ssrc| Ask::Keyframe { ssrc }),
            (203, _) => Some(Ask::Bye),
            _ => None,
        };
        asks.extend(ask);
        bytes = &bytes[length..];
    }
    asks
}

/// What a sender report says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Report {
    pub(crate) ssrc: u32,
    /// NTP time, 32.32.
    pub(crate) ntp: u64,
    /// The leg's timestamp at that time.
    pub(crate) timestamp: u32,
    pub(crate) packets: u32,
    pub(crate) octets: u32,
}

/// A sender report with its source description.
pub(crate) fn sender_report(report: Report) -> Vec<u8> {
    const CNAME: &[u8] = b"rushroom";
    let mut out = vec![0x80, 200, 0, 6];
    out.extend_from_slice(&report.ssrc.to_be_bytes());
    out.extend_from_slice(&report.ntp.to_be_bytes());
    for word in [report.timestamp, report.packets, report.octets] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(&[0x81, 202, 0, 4]);
    out.extend_from_slice(&report.ssrc.to_be_bytes());
    out.extend_from_slice(&[1, CNAME.len() as u8]);
    out.extend_from_slice(CNAME);
    // The list ends with a zero, padded to a word.
    out.extend_from_slice(&[0, 0]);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::Bytes;
    use rtc::rtcp::packet::unmarshal;
    use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
    use rtc::rtcp::sender_report::SenderReport;
    use rtc::rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};
    use rtc::shared::marshal::Marshal;

    #[test]
    fn another_implementations_asks_are_read() {
        let numbers = [5u16, 6, 21, 40, 65_535];
        let nacks = nack_pairs_from_sequence_numbers(&numbers);
        let nack = TransportLayerNack {
            sender_ssrc: 1,
            media_ssrc: 7,
            nacks,
        };
        let pli = PictureLossIndication {
            sender_ssrc: 1,
            media_ssrc: 8,
        };
        let mut bytes = nack.marshal().unwrap().to_vec();
        bytes.extend_from_slice(&pli.marshal().unwrap());
        let asks = read(&bytes);
        assert_eq!(
            asks,
            [
                Ask::Nack {
                    ssrc: 7,
                    numbers: numbers.to_vec()
                },
                Ask::Keyframe { ssrc: 8 }
            ]
        );
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).len() <= 1);
        }
    }

    #[test]
    fn another_implementation_reads_our_report() {
        let report = Report {
            ssrc: 9,
            ntp: 1 << 40,
            timestamp: 3,
            packets: 4,
            octets: 5,
        };
        let packets = unmarshal(&mut Bytes::from(sender_report(report))).unwrap();
        let read = packets[0].as_any().downcast_ref::<SenderReport>().unwrap();
        let got = (
            read.ssrc,
            read.ntp_time,
            read.rtp_time,
            read.packet_count,
            read.octet_count,
        );
        assert_eq!((got, packets.len()), ((9, 1 << 40, 3, 4, 5), 2));
    }
}
