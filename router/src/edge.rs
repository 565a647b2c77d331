//! The edge as a whole: made of options and ports, gives an `axum::Router`, drains when told.

use crate::{
    auth::{Tokens, User},
    gate::{Gates, Place},
    http,
    limits::Buckets,
    metrics,
    options::Options,
    ports::{Admin, ChatLine, Chats, ClusterMapSource, PortError, Shards, Streams},
    problem::Problem,
    room::{RoomStats, Rooms},
    route::{GiveUp, Routes},
    serve,
};
use auction::{Action, AuctionId, AuctionView, Command, Id, Reason, Stamp, Verdict};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::watch, time};
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// What the edge is wired to.
#[derive(Clone)]
pub struct Ports {
    /// The shards.
    pub shards: Arc<dyn Shards>,
    /// The cluster map.
    pub map: Arc<dyn ClusterMapSource>,
    /// Chat at the leaders.
    pub chats: Arc<dyn Chats>,
    /// Video at this node.
    pub streams: Arc<dyn Streams>,
    /// The operator's view.
    pub admin: Arc<dyn Admin>,
}

/// The rate limits of an edge. Each map under its own lock: they are taken for microseconds.
struct Limits {
    bids: Mutex<Buckets<Id>>,
    commands: Mutex<Buckets<Id>>,
    chats: Mutex<Buckets<Id>>,
    guests: Mutex<Buckets<IpAddr>>,
    offers: Mutex<Buckets<IpAddr>>,
}

impl Limits {
    fn new(o: &Options) -> Limits {
        let people = |per_minute: u32, burst: u32| {
            Mutex::new(Buckets::new(u64::from(per_minute), u64::from(burst), o.limit_keys_max))
        };
        let addresses = |per_minute: u32| {
            Mutex::new(Buckets::new(
                u64::from(per_minute),
                u64::from(per_minute),
                o.limit_keys_max,
            ))
        };
        Limits {
            bids: people(o.bids_per_s.saturating_mul(60), o.bids_per_s.saturating_mul(4)),
            commands: people(o.commands_per_s.saturating_mul(60), o.commands_per_s.saturating_mul(4)),
            chats: people(o.chats_per_10s.saturating_mul(6), o.chats_per_10s),
            guests: addresses(o.guests_per_min),
            offers: addresses(o.offers_per_min),
        }
    }
}

/// A merged list of auctions, shared by all who ask within a moment.
#[derive(Clone)]
pub(crate) struct Listed {
    pub(crate) at: Instant,
    pub(crate) views: Arc<Vec<AuctionView>>,
    /// Shards that gave no answer.
    pub(crate) missing: Arc<Vec<u32>>,
}

/// A page of auctions that are over, shared in the same way.
#[derive(Clone)]
pub(crate) struct Over {
    pub(crate) at: Instant,
    /// In order of id; without a view where it could not be read.
    pub(crate) found: Arc<Vec<(AuctionId, Option<AuctionView>)>>,
    /// There are others after these.
    pub(crate) more: bool,
    /// Shards that didn't say what they have.
    pub(crate) missing: Arc<Vec<u32>>,
}

/// Where a page of them is kept. Locked by whoever gathers it.
type OverPlace = Arc<tokio::sync::Mutex<Option<Over>>>;

/// What every handler and socket shares.
pub(crate) struct State {
    pub(crate) options: Options,
    pub(crate) ports: Ports,
    pub(crate) routes: Routes,
    pub(crate) rooms: Rooms,
    pub(crate) tokens: Tokens,
    pub(crate) draining: watch::Sender<bool>,
    pub(crate) sockets: AtomicUsize,
    /// One gatherer at a time; the others wait for its list.
    pub(crate) listed: tokio::sync::Mutex<Option<Listed>>,
    /// Pages of those that are over: after which id, and how many. `PAGES` at most, but for those that somebody waits for.
    pub(crate) over: Mutex<BTreeMap<(Option<Id>, usize), OverPlace>>,
    /// Pages that are gathered at once.
    pub(crate) gatherings: tokio::sync::Semaphore,
    limits: Limits,
    /// Images that are taken in: one at a time.
    pub(crate) images: tokio::sync::Semaphore,
    /// What leaves for each shard.
    gates: Gates,
    started: Instant,
}

impl State {
    /// The edge's own clock, ms since it began: what clients estimate their offset to.
    pub(crate) fn monotonic_ms(&self) -> f64 {
        self.started.elapsed().as_micros() as f64 / 1_000.0
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Base URLs of the cluster's other nodes.
    pub(crate) fn edges(&self) -> Vec<String> {
        let me = self.ports.map.me();
        let map = self.routes.map();
        map.nodes
            .values()
            .filter(|n| n.id != me && !n.http.is_empty())
            .map(|n| n.http.clone())
            .collect()
    }

    pub(crate) fn limit_bid(&self, user: &User) -> Result<(), Problem> {
        limited("bid", self.limits.bids.lock().take(&user.id, self.now_ms()))
    }

    pub(crate) fn limit_command(&self, user: &User) -> Result<(), Problem> {
        limited("command", self.limits.commands.lock().take(&user.id, self.now_ms()))
    }

    pub(crate) fn limit_guest(&self, peer: IpAddr) -> Result<(), Problem> {
        self.limit_address("guest", &self.limits.guests, peer)
    }

    pub(crate) fn limit_offer(&self, peer: IpAddr) -> Result<(), Problem> {
        self.limit_address("offer", &self.limits.offers, peer)
    }

    fn limit_address(&self, kind: &'static str, buckets: &Mutex<Buckets<IpAddr>>, peer: IpAddr) -> Result<(), Problem> {
        let peer = peer.to_canonical();
        if self.options.loopback_unlimited && peer.is_loopback() {
            return Ok(());
        }
        // One household of IPv6 is a /64.
        let key = match peer {
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
            v4 => v4,
        };
        limited(kind, buckets.lock().take(&key, self.now_ms()))
    }

    /// A bid, whichever way it came; the root (or, with `parent`, the continuation) of its trace.
    pub(crate) async fn bid(
        self: &Arc<Self>,
        command: Command,
        parent: Option<opentelemetry::Context>,
    ) -> Result<Verdict, Problem> {
        let span = tracing::info_span!("edge.bid", auction = %command.auction, outcome = tracing::field::Empty);
        if let Some(parent) = parent {
            // Fails only where no tracing layer is installed: then there is no trace to continue.
            let _ = span.set_parent(parent);
        }
        let begun = Instant::now();
        let verdict = self.submit(command).instrument(span.clone()).await;
        let outcome = match &verdict {
            Ok(Verdict { outcome: Ok(()), .. }) => "accepted",
            Ok(Verdict {
                outcome: Err(reason), ..
            }) => reason.code(),
            Err(problem) => problem.code,
        };
        span.record("outcome", outcome);
        metrics::bid(outcome, begun.elapsed());
        verdict
    }

    /// A bid's verdict, if this node knows it without asking anyone: most of a crowd's bids are too low when they arrive.
    pub(crate) fn settled(&self, command: &Command) -> Option<Verdict> {
        let begun = Instant::now();
        let shard = self.routes.shard_of(&command.auction);
        let verdict = self.ports.shards.settled(shard, command)?;
        let outcome = verdict.outcome.map_or_else(|reason| reason.code(), |()| "accepted");
        metrics::bid(outcome, begun.elapsed());
        metrics::settled();
        Some(verdict)
    }

    /// A place among the bids under way to a shard; see `gate`.
    async fn pass(&self, auction: &AuctionId) -> Result<Place, Problem> {
        let shard = self.routes.shard_of(auction);
        let credit = match self.ports.shards.drains(shard) {
            Some(drains) => (drains as usize / self.routes.map().nodes.len().max(1)).min(self.options.shard_bids_max),
            None => self.options.shard_bids_max,
        };
        let passed = self.gates.enter(shard, auction, credit).await;
        passed.map_err(|busy| {
            metrics::turned_away();
            busy.into()
        })
    }

    /// When a command's id was first sent, on its shard's clock: as its sender says, but not later than now; where they say
    /// nothing, now. `None`: nobody knows (a clock that isn't heard may be anywhere by now).
    fn first_sent(&self, command: &Command) -> Option<Stamp> {
        let clock = self.ports.shards.clock(self.routes.shard_of(&command.auction));
        let now = clock.filter(|clock| !clock.held).map(|clock| clock.now);
        match (command.first_sent, now) {
            (Some(sent), Some(now)) => Some(sent.min(now)),
            (sent, now) => sent.or(now),
        }
    }

    /// A command, until there is a verdict.
    pub(crate) async fn submit(self: &Arc<Self>, mut command: Command) -> Result<Verdict, Problem> {
        // Once, for all askings of it: a copy that is held up somewhere must not come back as new.
        command.first_sent = self.first_sent(&command);
        let _place = match command.action {
            Action::Bid { .. } | Action::MaxBid { .. } => Some(self.pass(&command.auction).await?),
            _ => None,
        };
        let room = self.rooms.get(&command.auction);
        let verdict = self.routes.submit(command).await?;
        if let Some(room) = room {
            room.expect(verdict.seq);
        }
        Ok(verdict)
    }

    /// A chat line, said at the leader.
    pub(crate) async fn chat(&self, auction: &AuctionId, line: ChatLine) -> Result<ChatLine, Problem> {
        limited("chat", self.limits.chats.lock().take(&line.from, self.now_ms()))?;
        let shard = self.routes.shard_of(auction);
        let chats = &self.ports.chats;
        let said = self.routes.at_leader(shard, |node| {
            let line = line.clone();
            async move {
                match chats.say(node, auction, line).await {
                    // A refusal with a code is an answer, not a failure to get one.
                    Err(PortError::Refused(code)) => match reason_of(&code) {
                        Some(reason) => Ok(Err(Problem::reason(reason))),
                        None => Err(PortError::Refused(code)),
                    },
                    other => other.map(Ok),
                }
            }
        });
        said.await.map_err(|why: GiveUp| Problem::from(why))?
    }
}

/// The reason that a port named by its code.
pub(crate) fn reason_of(code: &str) -> Option<Reason> {
    Reason::ALL.iter().copied().find(|r| r.code() == code)
}

fn limited(kind: &'static str, taken: Result<(), u64>) -> Result<(), Problem> {
    taken.map_err(|wait_ms| {
        metrics::limited(kind);
        Problem::rate(wait_ms)
    })
}

/// One node's edge. Cheap to clone.
#[derive(Clone)]
pub struct Edge {
    state: Arc<State>,
}

impl Edge {
    /// An edge over these ports. Starts nothing until it is served.
    #[must_use]
    pub fn new(options: Options, ports: Ports) -> Edge {
        let ms = Duration::from_millis;
        let routes = Routes::new(
            ports.shards.clone(),
            &*ports.map,
            ms(options.ask_ms),
            ms(options.deadline_ms),
        );
        let state = State {
            tokens: Tokens::new(&options),
            limits: Limits::new(&options),
            routes,
            rooms: Rooms::default(),
            draining: watch::channel(false).0,
            sockets: AtomicUsize::new(0),
            listed: tokio::sync::Mutex::new(None),
            over: Mutex::default(),
            gatherings: tokio::sync::Semaphore::new(http::PAGES),
            images: tokio::sync::Semaphore::new(1),
            gates: Gates::default(),
            started: Instant::now(),
            options,
            ports,
        };
        Edge { state: Arc::new(state) }
    }

    /// All routes of the edge. `extra` (metrics, health) is merged in under the same headers.
    ///
    /// Serve it with `into_make_service_with_connect_info::<SocketAddr>()`, or use `serve`: limits need the address.
    pub fn app(&self, extra: axum::Router) -> axum::Router {
        http::app(self.state.clone(), extra)
    }

    /// Serves `app(extra)` on a listener until `shutdown`, then lets requests under way finish.
    pub async fn serve(&self, listener: tokio::net::TcpListener, extra: axum::Router) -> std::io::Result<()> {
        serve::serve(&self.state, listener, self.app(extra)).await
    }

    /// Who signs and verifies tokens here (operators' tokens are minted with it).
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.state.tokens
    }

    /// WebSockets open now.
    #[must_use]
    pub fn sockets(&self) -> usize {
        self.state.sockets.load(Ordering::Relaxed)
    }

    /// The rooms that are open here.
    #[must_use]
    pub fn rooms(&self) -> Vec<RoomStats> {
        self.state.rooms.stats()
    }

    /// Drains: no new sockets, open ones are told to go elsewhere (4503, spread over `drain_ms`), then rooms close.
    /// Returns when the sockets are gone, or shortly after they should be.
    pub async fn shutdown(&self) {
        self.state.draining.send_replace(true);
        let patience = Instant::now() + Duration::from_millis(self.state.options.drain_ms + 1_500);
        while self.sockets() > 0 && Instant::now() < patience {
            time::sleep(Duration::from_millis(20)).await;
        }
        self.state.rooms.close_all();
    }
}
