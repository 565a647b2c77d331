//! A viewer's side: how encrypted packets come and go (`ViewerTransport`), and the lean one that we have.
//!
//! The transport is sans-IO: it is given datagrams and moments, and puts datagrams into an `Outbox`; the lane that owns
//! the viewer owns its time and the socket. So another transport (ICE over TCP, a whole `rtc` peer connection) can take
//! its place without a change in the packet path.

pub(crate) mod answer;
pub(crate) mod lean;
pub(crate) mod seal;
pub(crate) mod stun;

use crate::outbox::Outbox;
use crate::stage::Stored;
use bytes::BytesMut;
use forward::rtp::Stamp;
use std::net::SocketAddr;
use std::time::Instant;

/// A packet for one viewer: the seller's, and what the leg calls it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) stored: &'a Stored,
    pub(crate) stamp: Stamp,
    /// The stream's number with its cycles.
    pub(crate) index: u64,
    /// In a stream of retransmissions: the number under which it went out first.
    pub(crate) again: Option<u16>,
}

/// Where a transport stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TransportState {
    /// ICE or DTLS is not through yet.
    Joining,
    /// Packets flow.
    Open,
    /// Over: the peer said so, or the handshake failed.
    Closed,
}

/// One viewer's encrypted connection.
pub(crate) trait ViewerTransport: Send {
    /// A datagram came. True: its address is proven to be the peer's.
    fn receive(&mut self, now: Instant, from: SocketAddr, bytes: &[u8], out: &mut Outbox) -> bool;
    /// The deadline passed.
    fn timeout(&mut self, now: Instant, out: &mut Outbox);
    /// When `timeout` is due.
    fn deadline(&self) -> Option<Instant>;
    /// Where it stands.
    fn state(&self) -> TransportState;
    /// When the peer last proved that it is there.
    fn heard(&self) -> Instant;
    /// A compound RTCP packet from the peer, decrypted.
    fn next_rtcp(&mut self) -> Option<BytesMut>;
    /// Writes, encrypts and queues an RTP packet. False: it couldn't be. It mustn't allocate, but in `out`.
    fn send_rtp(&mut self, packet: Outgoing<'_>, out: &mut Outbox) -> bool;
    /// Encrypts and queues a compound RTCP packet.
    fn send_rtcp(&mut self, packet: &[u8], out: &mut Outbox);
    /// The peer restarts ICE: from now on its checks are made with this password of ours. (A lite agent sends no
    /// checks, so it has no use for the peer's credentials.)
    fn restart(&mut self, password: String);
    /// Says goodbye.
    fn close(&mut self, now: Instant, out: &mut Outbox);
}
