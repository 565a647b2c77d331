//! The shell: a UDP port that stands for a peer, and a link for each direction between it and that peer.
//!
//! Whoever sends to the port gets a socket of its own towards the target, so that the target tells its peers apart. All of
//! them share the two links, as they would share a line.

use crate::link::{Counts, Fate, Link, Weather};
use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The largest datagram of UDP.
const DATAGRAM_MAX: usize = 65_535;
/// Peers that one proxy takes.
const PEERS_MAX: usize = 1_024;
/// Datagrams on their way in one direction; more are lost.
const UNDER_WAY_MAX: usize = 65_536;

/// What both links have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Towards the target.
    pub there: Counts,
    /// Away from it.
    pub back: Counts,
}

struct Parcel {
    at: Instant,
    by: Arc<UdpSocket>,
    /// Absent: to where the socket is connected.
    to: Option<SocketAddr>,
    bytes: Vec<u8>,
}

/// One direction: its link, and what is on its way.
#[derive(Clone)]
struct Way {
    link: Arc<Mutex<Link>>,
    began: Instant,
    parcels: mpsc::Sender<Parcel>,
}

impl Way {
    fn new(weather: Weather, seed: u64, stop: &CancellationToken) -> Way {
        let (parcels, under_way) = mpsc::channel(UNDER_WAY_MAX);
        tokio::spawn(stop.clone().run_until_cancelled_owned(deliver(under_way)));
        Way {
            link: Arc::new(Mutex::new(Link::new(weather, seed))),
            began: Instant::now(),
            parcels,
        }
    }

    fn counts(&self) -> Counts {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).counts()
    }

    fn take(&self, by: &Arc<UdpSocket>, to: Option<SocketAddr>, bytes: &[u8]) {
        let now = self.began.elapsed();
        let fate = self
            .link
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .offer(now, bytes.len());
        let Fate::Comes { at, twice } = fate else { return };
        for _ in 0..=u8::from(twice) {
            let parcel = Parcel {
                at: self.began + at,
                by: by.clone(),
                to,
                bytes: bytes.to_vec(),
            };
            // A full queue is a network that has failed.
            let _ = self.parcels.try_send(parcel);
        }
    }
}

/// Hands out parcels when they are due; of those due at once, the one that came first.
async fn deliver(mut under_way: mpsc::Receiver<Parcel>) {
    let mut due: BinaryHeap<Reverse<(Instant, u64)>> = BinaryHeap::new();
    let mut parcels: HashMap<u64, Parcel> = HashMap::new();
    let mut count = 0;
    loop {
        let next = due.peek().map(|Reverse((at, _))| *at);
        let parcel = tokio::select! {
            biased;
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => None,
            parcel = under_way.recv() => match parcel {
                Some(parcel) => Some(parcel),
                None => return,
            },
        };
        if let Some(parcel) = parcel {
            count += 1;
            due.push(Reverse((parcel.at, count)));
            parcels.insert(count, parcel);
            continue;
        }
        if let Some(parcel) = due.pop().and_then(|Reverse((_, number))| parcels.remove(&number)) {
            // A peer that is gone is no failure of the network.
            let _ = match parcel.to {
                Some(to) => parcel.by.send_to(&parcel.bytes, to).await,
                None => parcel.by.send(&parcel.bytes).await,
            };
        }
    }
}

/// A bad network in front of one UDP address. It ends when it is dropped.
pub struct Proxy {
    /// Where to send instead of to the target.
    pub address: SocketAddr,
    there: Way,
    back: Way,
    _stop: DropGuard,
}

fn local(like: SocketAddr) -> SocketAddr {
    let ip = match like.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, 0)
}

impl Proxy {
    /// On loopback, towards `target`: the weather there, and back. Both links' dice come from `seed`.
    pub async fn start(target: SocketAddr, there: Weather, back: Weather, seed: u64) -> io::Result<Proxy> {
        let front = Arc::new(UdpSocket::bind(local(target)).await?);
        let address = front.local_addr()?;
        let stop = CancellationToken::new();
        let proxy = Proxy {
            address,
            there: Way::new(there, seed, &stop),
            back: Way::new(back, !seed, &stop),
            _stop: stop.clone().drop_guard(),
        };
        let (to, fro) = (proxy.there.clone(), proxy.back.clone());
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(carry(front, target, to, fro, stop)),
        );
        Ok(proxy)
    }

    /// What it has done so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        Seen {
            there: self.there.counts(),
            back: self.back.counts(),
        }
    }

    /// The weather changes.
    pub fn change(&self, there: Weather, back: Weather) {
        for (way, weather) in [(&self.there, there), (&self.back, back)] {
            way.link.lock().unwrap_or_else(PoisonError::into_inner).change(weather);
        }
    }
}

async fn carry(front: Arc<UdpSocket>, target: SocketAddr, there: Way, back: Way, stop: CancellationToken) {
    let mut peers: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        // An ICMP answer to a datagram of ours shows up as an error; it is no reason to stop.
        let Ok((length, from)) = front.recv_from(&mut buffer).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let room = peers.len() < PEERS_MAX;
        let peer = match peers.entry(from) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(new) if room => {
                let Ok(socket) = UdpSocket::bind(local(target)).await else {
                    continue;
                };
                if socket.connect(target).await.is_err() {
                    continue;
                }
                let socket = new.insert(Arc::new(socket)).clone();
                let home = carry_back(socket.clone(), front.clone(), from, back.clone());
                tokio::spawn(stop.clone().run_until_cancelled_owned(home));
                socket
            }
            Entry::Vacant(_) => continue,
        };
        there.take(&peer, None, &buffer[..length]);
    }
}

async fn carry_back(socket: Arc<UdpSocket>, front: Arc<UdpSocket>, to: SocketAddr, back: Way) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        match socket.recv(&mut buffer).await {
            Ok(length) => back.take(&front, Some(to), &buffer[..length]),
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    async fn peer() -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
    }

    #[tokio::test]
    async fn both_ways_lead_through_and_take_their_time() {
        let (one, other) = (peer().await, peer().await);
        let slow = |ms| Weather {
            delay: Duration::from_millis(ms),
            ..Weather::default()
        };
        let proxy = Proxy::start(other.local_addr().unwrap(), slow(30), slow(20), 1)
            .await
            .unwrap();
        let began = Instant::now();
        let mut buffer = [0; 64];
        one.send_to(b"there", proxy.address).await.unwrap();
        let (length, from) = other.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"there");
        other.send_to(b"back", from).await.unwrap();
        let (length, from) = one.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], from), (&b"back"[..], proxy.address));
        assert!(began.elapsed() >= Duration::from_millis(50), "never early");
        let seen = proxy.seen();
        assert_eq!((seen.there.offered, seen.back.offered), (1, 1));
    }

    #[tokio::test]
    async fn what_is_lost_is_what_the_seed_says() {
        let (one, other) = (peer().await, peer().await);
        let weather = Weather {
            loss_ppm: 300_000,
            duplicate_ppm: 200_000,
            ..Weather::default()
        };
        let proxy = Proxy::start(other.local_addr().unwrap(), weather, Weather::default(), 9)
            .await
            .unwrap();
        let mut link = Link::new(weather, 9);
        let mut expect = Vec::new();
        for number in 0..200u8 {
            if let Fate::Comes { twice, .. } = link.offer(Duration::ZERO, 1) {
                expect.extend(std::iter::repeat_n(number, 1 + usize::from(twice)));
            }
        }
        let mut seen = Vec::new();
        for number in 0..200u8 {
            one.send_to(&[number], proxy.address).await.unwrap();
            // Its like is awaited before the next is sent: no socket's queue has a say.
            while seen.len() < expect.len() && expect[seen.len()] == number {
                let mut byte = [0];
                other.recv(&mut byte).await.unwrap();
                seen.push(byte[0]);
            }
        }
        assert_eq!(seen, expect);
    }
}
