//! What is to be sent, in order: datagrams side by side in one buffer, which is kept and used again.
//!
//! ```text
//!   bytes  | 1140 | 1140 | 1140 | 312 | 96 | 1140 ...      | a run: to one address, all of one size, the last may be shorter
//!            \_________ one run ______/   \_ the next ...     one call to the kernel, which cuts it (UDP GSO)
//! ```
//!
//! A packet is written and sealed where it leaves from: nothing is allocated for it, and it is copied once.

use crate::metrics;
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

/// Bytes that one call may take: what fits a datagram of IPv4.
const RUN_BYTES_MAX: usize = 65_507;
/// Datagrams that are larger leave alone, and may be fragmented on their way: the kernel cuts nothing into pieces that don't fit the
/// path, and a call that it refuses would end the cutting for all. This fits any path of IPv6; a browser's packets are smaller.
const SEGMENT_MAX: usize = 1_232;

/// Datagrams to be sent.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    /// Where each goes, and where it ends; it starts where the one before ends.
    datagrams: Vec<(SocketAddr, usize)>,
}

/// Neighbours that leave together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run<'a> {
    pub(crate) to: SocketAddr,
    /// Bytes of each but the last.
    pub(crate) segment: usize,
    pub(crate) bytes: &'a [u8],
}

impl Run<'_> {
    fn count(&self) -> u64 {
        self.bytes.len().div_ceil(self.segment.max(1)) as u64
    }
}

impl Outbox {
    /// Queues a copy of a datagram.
    pub(crate) fn push(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.bytes.extend_from_slice(datagram);
        self.datagrams.push((to, self.bytes.len()));
    }

    /// Queues the datagram that `write` appends. Whatever it appended is taken back if it says no.
    pub(crate) fn write(&mut self, to: SocketAddr, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let start = self.bytes.len();
        let written = write(&mut self.bytes);
        if written {
            self.datagrams.push((to, self.bytes.len()));
        } else {
            self.bytes.truncate(start);
        }
        written
    }

    /// All runs of at most `segments_max` datagrams.
    pub(crate) fn runs(&self, segments_max: usize) -> impl Iterator<Item = Run<'_>> {
        let (mut index, mut start) = (0, 0);
        std::iter::from_fn(move || {
            let (to, mut end) = *self.datagrams.get(index)?;
            let (begin, segment, mut count) = (start, end - start, 1);
            let segments_max = if segment > SEGMENT_MAX { 1 } else { segments_max };
            while let Some((next_to, next_end)) = self.datagrams.get(index + count) {
                let length = next_end - end;
                let full = count >= segments_max || next_end - begin > RUN_BYTES_MAX;
                // The kernel can't cut an empty one off.
                if full || *next_to != to || length > segment || length == 0 {
                    break;
                }
                (end, count) = (*next_end, count + 1);
                if length < segment {
                    break;
                }
            }
            (index, start) = (index + count, end);
            Some(Run {
                to,
                segment,
                bytes: &self.bytes[begin..end],
            })
        })
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.datagrams.clear();
    }
}

/// Where it leaves: the viewers' socket, and what its kernel can do.
pub(crate) struct Exit {
    socket: UdpSocket,
    offload: UdpSocketState,
}

impl Exit {
    pub(crate) fn new(socket: UdpSocket) -> std::io::Result<Exit> {
        // What the kernel can do is asked of another socket: asking changes the socket, which would from then on hand the
        // reader several datagrams as one.
        let probe = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let offload = UdpSocketState::new(UdpSockRef::from(&probe))?;
        Ok(Exit { socket, offload })
    }

    /// Sends all, without waiting: what finds no room is dropped and counted, and its viewer asks again.
    pub(crate) fn flush(&self, outbox: &mut Outbox) {
        for run in outbox.runs(self.offload.max_gso_segments()) {
            let transmit = Transmit {
                destination: run.to,
                ecn: None,
                contents: run.bytes,
                segment_size: (run.segment < run.bytes.len()).then_some(run.segment),
                src_ip: None,
            };
            match self.offload.try_send(UdpSockRef::from(&self.socket), &transmit) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => metrics::dropped_many("socket", run.count()),
                // The peer's port is closed (ICMP): its consent will end, and it with it.
                Err(_) => metrics::dropped_many("unreachable", run.count()),
            }
        }
        outbox.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    /// Datagrams as (port, length); runs as (port, segment, bytes).
    #[track_caller]
    fn check(datagrams: &[(u16, usize)], expect: &[(u16, usize, usize)]) {
        let mut outbox = Outbox::default();
        for (port, length) in datagrams {
            outbox.push(address(*port), &vec![0; *length]);
        }
        let runs: Vec<_> = outbox
            .runs(64)
            .map(|run| (run.to.port(), run.segment, run.bytes.len()))
            .collect();
        assert_eq!(runs, expect, "{datagrams:?}");
    }

    #[test]
    fn a_run_is_of_one_size_to_one_address_and_ends_with_what_is_shorter() {
        check(&[], &[]);
        check(&[(1, 900)], &[(1, 900, 900)]);
        check(&[(1, 900), (1, 900), (1, 900)], &[(1, 900, 2_700)]);
        check(&[(1, 900), (1, 900), (1, 300)], &[(1, 900, 2_100)]);
        check(&[(1, 900), (1, 300), (1, 300)], &[(1, 900, 1_200), (1, 300, 300)]);
        check(&[(1, 300), (1, 900)], &[(1, 300, 300), (1, 900, 900)]);
        check(&[(1, 900), (2, 900)], &[(1, 900, 900), (2, 900, 900)]);
        check(
            &[(1, 900), (2, 900), (1, 900)],
            &[(1, 900, 900), (2, 900, 900), (1, 900, 900)],
        );
    }

    #[test]
    fn a_run_is_no_longer_than_the_kernel_takes() {
        check(&[(1, 100); 65], &[(1, 100, 6_400), (1, 100, 100)]);
        check(&[(1, 1_200); 60], &[(1, 1_200, 64_800), (1, 1_200, 7_200)]);
        check(&[(1, 1_233); 2], &[(1, 1_233, 1_233), (1, 1_233, 1_233)]);
        let mut outbox = Outbox::default();
        (0..3).for_each(|_| outbox.push(address(1), &[0; 9]));
        assert_eq!(outbox.runs(1).count(), 3, "a kernel that cuts nothing");
    }

    #[test]
    fn what_could_not_be_written_leaves_nothing() {
        let mut outbox = Outbox::default();
        let fails = |bytes: &mut Vec<u8>| {
            bytes.extend_from_slice(b"half");
            false
        };
        assert!(!outbox.write(address(1), fails));
        outbox.push(address(1), b"whole");
        let runs: Vec<_> = outbox.runs(64).map(|run| run.bytes.to_vec()).collect();
        assert_eq!(runs, [b"whole"]);
        outbox.clear();
        assert_eq!(outbox.runs(64).count(), 0);
    }

    #[test]
    fn what_leaves_together_arrives_one_by_one() {
        let ours = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let exit = Exit::new(ours).unwrap();
        let theirs = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = theirs.local_addr().unwrap();
        let mut outbox = Outbox::default();
        let datagrams: Vec<Vec<u8>> = [900, 900, 900, 20, 900]
            .iter()
            .zip(1..)
            .map(|(length, n)| vec![n; *length])
            .collect();
        for datagram in &datagrams {
            outbox.push(to, datagram);
        }
        exit.flush(&mut outbox);
        let mut buffer = [0; 2_048];
        for datagram in &datagrams {
            let length = theirs.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], datagram);
        }
    }
}
