//! A cluster in memory: three nodes, one of them leads, the real `auction::Shard` judges. Time moves only when a test moves
//! it. Faults are said, not dealt: a node is down, a reply is scripted, a feed is cut.

use async_trait::async_trait;
use auction::{
    Action, Actor, AuctionId, AuctionView, Command, Entry, Event, FeedItem, Id, Office, Position, Reply, Rights, Shard,
    Stamp, Stamped, Verdict, shard::Applied, shard::Limits,
};
use futures_util::{StreamExt, stream, stream::BoxStream};
use parking_lot::Mutex;
use placement::{ClusterMap, Node, NodeId, Placement, ReplicaId, ShardId};
use router::{
    chat::{DeskLimits, Hall},
    ports::{
        Admin, AdminChange, AdminFounding, AdminImage, AdminStep, ChatLine, Chats, ClockEstimate, ClusterMapSource,
        Freshness, MediaAnswer, MediaCaptured, PortError, Shards, Streams,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

pub(crate) const NODES: [u64; 3] = [1, 2, 3];

struct Inner {
    shard: Shard,
    now: Stamp,
    leader: u64,
    /// What `Shards::leader` says, if not the truth.
    rumour: Option<u64>,
    down: BTreeSet<u64>,
    epoch: u64,
    /// Replies given instead of the judge's; `true`: after judging (the answer was lost).
    scripted: VecDeque<(Reply, bool)>,
    asked: Vec<(u64, Option<Id>)>,
    /// What those commands said of when they were first sent.
    sent: Vec<Option<u64>>,
    followers: BTreeMap<AuctionId, Vec<(u64, mpsc::UnboundedSender<FeedItem>)>>,
    /// Followers of these nodes hear nothing, though their streams stay open.
    mute: BTreeSet<u64>,
    held: bool,
    chat_epoch: u64,
    stopped: Vec<u64>,
    /// This edge's node has a replica that can be asked without a wait.
    replica_here: bool,
    /// What the leader says that it drains.
    drains: Option<u32>,
    /// Auctions that no replica gives.
    unread: BTreeSet<AuctionId>,
}

/// The cluster.
#[derive(Clone)]
pub(crate) struct Fake {
    inner: Arc<Mutex<Inner>>,
    map: watch::Sender<Arc<ClusterMap>>,
    clock_news: watch::Sender<u64>,
    hall: Hall,
    slow: Arc<tokio::sync::Mutex<()>>,
    /// After which auction it was asked for those that are over, each time.
    over_asked: watch::Sender<Vec<Option<AuctionId>>>,
    /// What is over after this one isn't said.
    over_held: watch::Sender<Option<AuctionId>>,
}

fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

impl Fake {
    pub(crate) fn new() -> Fake {
        let node = |n: u64| Node {
            id: NodeId(n),
            zone: format!("z{n}"),
            region: "seoul".into(),
            weight: 1,
            grpc: String::new(),
            http: format!("http://10.0.0.{n}:8080"),
            trunk: String::new(),
        };
        let replicas = NODES.map(|n| (NodeId(n), ReplicaId(n))).to_vec();
        let map = ClusterMap {
            epoch: 1,
            shards: 2,
            nodes: NODES.map(|n| (NodeId(n), node(n))).into(),
            placement: (0..=2)
                .map(|s| {
                    (
                        ShardId(s),
                        Placement {
                            replicas: replicas.clone(),
                        },
                    )
                })
                .collect(),
            ..ClusterMap::default()
        };
        let mut shard = Shard::new(Limits::default());
        shard.raise_rules(auction::RULES_VERSION);
        let office = Office { term: 1, turn: 0 };
        shard.apply(&Entry {
            office,
            ..Entry::default()
        });
        let inner = Inner {
            shard,
            now: Stamp(1_000),
            leader: 2,
            rumour: None,
            down: BTreeSet::new(),
            epoch: 7,
            scripted: VecDeque::new(),
            asked: Vec::new(),
            sent: Vec::new(),
            followers: BTreeMap::new(),
            mute: BTreeSet::new(),
            held: false,
            chat_epoch: 1,
            stopped: Vec::new(),
            replica_here: false,
            drains: None,
            unread: BTreeSet::new(),
        };
        Fake {
            inner: Arc::new(Mutex::new(inner)),
            map: watch::channel(Arc::new(map)).0,
            clock_news: watch::Sender::new(0),
            hall: Hall::new(DeskLimits::default()),
            slow: Arc::default(),
            over_asked: watch::Sender::default(),
            over_held: watch::Sender::default(),
        }
    }

    // ---- what tests do to it

    pub(crate) fn script(&self, reply: Reply, after_judging: bool) {
        self.inner.lock().scripted.push_back((reply, after_judging));
    }

    pub(crate) fn down(&self, node: u64) {
        let mut inner = self.inner.lock();
        inner.down.insert(node);
        for followers in inner.followers.values_mut() {
            followers.retain(|(n, _)| *n != node);
        }
    }

    pub(crate) fn up(&self, node: u64) {
        self.inner.lock().down.remove(&node);
    }

    pub(crate) fn lead(&self, node: u64) {
        self.inner.lock().leader = node;
    }

    pub(crate) fn replica_here(&self) {
        self.inner.lock().replica_here = true;
    }

    pub(crate) fn drains(&self, commands: u32) {
        self.inner.lock().drains = Some(commands);
    }

    /// Nothing is answered until the guard is dropped.
    pub(crate) async fn stall(&self) -> tokio::sync::OwnedMutexGuard<()> {
        self.slow.clone().lock_owned().await
    }

    /// No replica gives this auction (`None`: all are given again).
    pub(crate) fn unread(&self, auction: Option<&str>) {
        self.inner.lock().unread = auction.map(id).into_iter().collect();
    }

    /// Whoever asks what is over after this auction waits, until another is held or none.
    pub(crate) fn hold_over(&self, after: Option<&str>) {
        self.over_held.send_replace(after.map(id));
    }

    /// Waits until it was asked what is over after this auction.
    pub(crate) async fn over_is_asked(&self, after: &str) {
        let after = Some(id(after));
        let mut asked = self.over_asked.subscribe();
        asked.wait_for(|asked| asked.contains(&after)).await.unwrap();
    }

    /// How often it was asked, of whichever shard.
    pub(crate) fn over_asked(&self, after: &str) -> usize {
        let after = Some(id(after));
        self.over_asked.borrow().iter().filter(|asked| **asked == after).count()
    }

    /// Commands that were asked of shards so far.
    pub(crate) fn asked_count(&self) -> usize {
        self.inner.lock().asked.len()
    }

    /// The node knows no map yet (true), or has it (false).
    pub(crate) fn mapless(&self, mapless: bool) {
        let shards = if mapless { 0 } else { 2 };
        self.map.send_modify(|map| {
            *map = Arc::new(ClusterMap {
                shards,
                ..ClusterMap::clone(map)
            });
        });
    }

    pub(crate) fn rumour(&self, node: Option<u64>) {
        self.inner.lock().rumour = node;
    }

    pub(crate) fn mute(&self, node: u64) {
        self.inner.lock().mute.insert(node);
    }

    pub(crate) fn hold(&self, held: bool) {
        self.inner.lock().held = held;
        self.clock_news.send_modify(|n| *n += 1);
    }

    /// A restore: the same auctions, another epoch; every feed ends.
    pub(crate) fn restore(&self) {
        let mut inner = self.inner.lock();
        inner.epoch += 1;
        inner.followers.clear();
    }

    /// Ends every feed, as when nodes restart.
    pub(crate) fn cut_feeds(&self) {
        self.inner.lock().followers.clear();
    }

    pub(crate) fn followers(&self, auction: &str) -> Vec<u64> {
        let inner = self.inner.lock();
        inner
            .followers
            .get(&id(auction))
            .map(|all| all.iter().map(|(n, _)| *n).collect())
            .unwrap_or_default()
    }

    pub(crate) fn new_chat_epoch(&self) {
        self.inner.lock().chat_epoch += 1;
        self.hall.retain(|_| false);
    }

    pub(crate) fn asked(&self) -> Vec<u64> {
        self.inner.lock().asked.iter().map(|(n, _)| *n).collect()
    }

    /// What the commands that were asked of shards said of when they were first sent.
    pub(crate) fn sent(&self) -> Vec<Option<u64>> {
        self.inner.lock().sent.clone()
    }

    pub(crate) fn stopped(&self) -> Vec<u64> {
        self.inner.lock().stopped.clone()
    }

    /// What the clock reads.
    pub(crate) fn now(&self) -> u64 {
        self.inner.lock().now.0
    }

    /// Moves the clock: what is due happens.
    pub(crate) fn advance(&self, ms: u64) {
        let mut inner = self.inner.lock();
        inner.now = inner.now.plus(ms);
        inner.apply(Vec::new());
    }

    /// A command as from nowhere (a bot on another edge).
    pub(crate) fn act(&self, auction: &str, who: &str, action: Action) -> auction::Verdict {
        let mut inner = self.inner.lock();
        let rights = Rights::BIDDER
            .and(Rights::SELLER)
            .and(Rights::MEMBER)
            .and(Rights::OPERATOR);
        let n = inner.shard.next_n();
        let actor = Actor { id: id(who), rights };
        inner.judge(Command {
            auction: id(auction),
            actor,
            id: Some(id(&format!("auto-{n}"))),
            first_sent: None,
            action,
        })
    }

    pub(crate) fn view(&self, auction: &str) -> Option<AuctionView> {
        self.inner.lock().shard.view(&id(auction))
    }
}

impl Inner {
    fn apply(&mut self, commands: Vec<Stamped>) -> Vec<auction::Verdict> {
        let entry = Entry {
            office: self.shard.office(),
            n: self.shard.next_n(),
            at: self.now,
            commands,
            ..Entry::default()
        };
        let Applied::Done(done) = self.shard.apply(&entry) else {
            panic!("the fake's entries follow each other")
        };
        for event in done.events {
            let auction = event.auction.clone();
            self.tell(&auction, FeedItem::Event(event));
        }
        for auction in done.changed {
            if let Some(view) = self.shard.view(&auction) {
                self.tell(&auction, FeedItem::Changed(Box::new(view)));
            }
        }
        done.verdicts
    }

    fn tell(&mut self, auction: &AuctionId, item: FeedItem) {
        let mute = &self.mute;
        if let Some(followers) = self.followers.get_mut(auction) {
            followers.retain(|(node, f)| mute.contains(node) || f.send(item.clone()).is_ok());
        }
    }

    fn judge(&mut self, command: Command) -> auction::Verdict {
        self.apply(vec![Stamped {
            arrived: self.now,
            command,
        }])
        .pop()
        .unwrap()
    }

    fn reach(&self, node: NodeId) -> Result<(), PortError> {
        if self.down.contains(&node.0) {
            Err(PortError::Unreachable(node.0))
        } else {
            Ok(())
        }
    }

    fn hint(&self) -> Option<NodeId> {
        NODES.contains(&self.leader).then_some(NodeId(self.leader))
    }

    fn leads(&self, node: NodeId) -> Result<(), PortError> {
        self.reach(node)?;
        let hint = self.hint();
        if node.0 == self.leader {
            Ok(())
        } else {
            Err(PortError::NotLeader { hint })
        }
    }
}

#[async_trait]
impl Shards for Fake {
    fn settled(&self, _: ShardId, command: &Command) -> Option<Verdict> {
        let inner = self.inner.lock();
        inner.replica_here.then(|| inner.shard.settled(command))?
    }

    fn drains(&self, _: ShardId) -> Option<u32> {
        self.inner.lock().drains
    }

    async fn submit(&self, node: NodeId, _: ShardId, _: u64, command: Command) -> Reply {
        // Whoever wants to see what waits behind this holds it here.
        let _slow = self.slow.clone().lock_owned().await;
        let mut inner = self.inner.lock();
        inner.asked.push((node.0, command.id.clone()));
        inner.sent.push(command.first_sent.map(|stamp| stamp.0));
        if inner.down.contains(&node.0) {
            return Reply::Unknown;
        }
        if let Some((reply, after)) = inner.scripted.pop_front() {
            // Whatever it was, it took its time.
            inner.now = inner.now.plus(1);
            if after {
                inner.judge(command);
            }
            return reply;
        }
        if node.0 != inner.leader {
            let hint = inner.hint().map(|n| n.0);
            return Reply::NotLeader { hint, term: 1 };
        }
        Reply::Verdict(inner.judge(command))
    }

    async fn read(
        &self,
        node: NodeId,
        _: ShardId,
        auction: &AuctionId,
        fresh: Freshness,
    ) -> Result<AuctionView, PortError> {
        let inner = self.inner.lock();
        match fresh {
            Freshness::Linear => inner.leads(node)?,
            Freshness::AtLeast(_) => inner.reach(node)?,
        }
        if inner.unread.contains(auction) {
            return Err(PortError::Unreachable(node.0));
        }
        inner.shard.view(auction).ok_or(PortError::NotFound)
    }

    async fn list(&self, node: NodeId, shard: ShardId) -> Result<Vec<AuctionView>, PortError> {
        let inner = self.inner.lock();
        inner.reach(node)?;
        let map = self.map.borrow().clone();
        Ok(inner
            .shard
            .going_on()
            .filter(|v| map.shard_of(v.id.as_str()) == shard)
            .collect())
    }

    async fn over(
        &self,
        node: NodeId,
        shard: ShardId,
        after: Option<&AuctionId>,
        limit: usize,
    ) -> Result<Vec<AuctionId>, PortError> {
        self.over_asked.send_modify(|asked| asked.push(after.cloned()));
        let mut held = self.over_held.subscribe();
        let held = held.wait_for(|held| held.is_none() || held.as_ref() != after).await;
        held.map_err(|_| PortError::Unreachable(node.0))?;
        let inner = self.inner.lock();
        inner.reach(node)?;
        let map = self.map.borrow().clone();
        let over = inner.shard.over(after, usize::MAX).into_iter();
        Ok(over
            .filter(|id| map.shard_of(id.as_str()) == shard)
            .take(limit)
            .collect())
    }

    async fn follow(
        &self,
        node: NodeId,
        _: ShardId,
        auction: &AuctionId,
        from: Option<Position>,
    ) -> Result<BoxStream<'static, FeedItem>, PortError> {
        let mut inner = self.inner.lock();
        inner.reach(node)?;
        let view = inner.shard.view(auction).ok_or(PortError::NotFound)?;
        let epoch = inner.epoch;
        let first: Vec<FeedItem> = match from {
            Some(from) if from.epoch == epoch && from.offset <= view.seq => {
                let events = inner.shard.events(auction, from.offset, usize::MAX).unwrap_or_default();
                events.iter().cloned().map(FeedItem::Event).collect()
            }
            _ => vec![FeedItem::Snapshot {
                position: Position {
                    epoch,
                    offset: view.seq,
                },
                view: Box::new(view),
            }],
        };
        let (tx, rx) = mpsc::unbounded_channel();
        inner.followers.entry(auction.clone()).or_default().push((node.0, tx));
        Ok(stream::iter(first).chain(UnboundedReceiverStream::new(rx)).boxed())
    }

    async fn events(
        &self,
        node: NodeId,
        _: ShardId,
        auction: &AuctionId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<Event>>, PortError> {
        let inner = self.inner.lock();
        inner.reach(node)?;
        inner
            .shard
            .events(auction, after, limit)
            .map(<[_]>::to_vec)
            .ok_or(PortError::NotFound)
    }

    fn clock(&self, _: ShardId) -> Option<ClockEstimate> {
        let inner = self.inner.lock();
        Some(ClockEstimate {
            now: inner.now,
            err_ms: 3,
            held: inner.held,
            held_in_ms: None,
        })
    }

    fn clock_news(&self) -> watch::Receiver<u64> {
        self.clock_news.subscribe()
    }

    fn leader(&self, _: ShardId) -> Option<NodeId> {
        let inner = self.inner.lock();
        inner.rumour.map(NodeId).or(inner.hint())
    }
}

impl ClusterMapSource for Fake {
    fn map(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.map.subscribe()
    }

    fn me(&self) -> NodeId {
        NodeId(1)
    }
}

#[async_trait]
impl Chats for Fake {
    async fn say(&self, node: NodeId, auction: &AuctionId, line: ChatLine) -> Result<ChatLine, PortError> {
        let epoch = {
            let inner = self.inner.lock();
            inner.leads(node)?;
            inner.chat_epoch
        };
        Ok(self.hall.say(auction, epoch, line)?)
    }

    async fn follow(
        &self,
        node: NodeId,
        auction: &AuctionId,
        after: Option<(u64, u64)>,
    ) -> Result<BoxStream<'static, ChatLine>, PortError> {
        let epoch = {
            let inner = self.inner.lock();
            inner.leads(node)?;
            inner.chat_epoch
        };
        Ok(self.hall.follow(auction, epoch, after))
    }
}

#[async_trait]
impl Streams for Fake {
    async fn publish(&self, auction: &AuctionId, offer: String) -> Result<MediaAnswer, PortError> {
        if offer.starts_with("v=0") {
            Ok(MediaAnswer {
                session: format!("pub-{auction}"),
                sdp: "v=0 answer".into(),
            })
        } else {
            Err(PortError::Refused("not an offer".into()))
        }
    }

    async fn watch(&self, auction: &AuctionId, _: Option<NodeId>, offer: String) -> Result<MediaAnswer, PortError> {
        if offer.starts_with("v=0") {
            Ok(MediaAnswer {
                session: format!("view-{auction}"),
                sdp: "v=0 answer".into(),
            })
        } else {
            Err(PortError::Refused("not an offer".into()))
        }
    }

    async fn patch(&self, session: &str, _: String) -> Result<Option<String>, PortError> {
        if session.starts_with("pub-") {
            Ok(None)
        } else {
            Err(PortError::NotFound)
        }
    }

    async fn end(&self, session: &str) -> Result<(), PortError> {
        if session.starts_with("pub-") {
            Ok(())
        } else {
            Err(PortError::NotFound)
        }
    }

    fn captured(&self, session: &str) -> Option<MediaCaptured> {
        session.starts_with("view-").then(|| MediaCaptured {
            rtp: 7,
            rate: 90_000,
            legs_us: vec![12_500, 40_000],
        })
    }
}

#[async_trait]
impl Admin for Fake {
    async fn status(&self) -> serde_json::Value {
        let shards: Vec<_> = (1..=2)
            .map(|s| serde_json::json!({"id": s, "term": 5, "applied": 99}))
            .collect();
        serde_json::json!({"me": 1, "shards": shards})
    }

    async fn versions(&self) -> serde_json::Value {
        serde_json::json!({"cluster_version": 2})
    }

    async fn change(&self, ask: AdminChange) -> Result<serde_json::Value, serde_json::Value> {
        Ok(serde_json::json!({"change": format!("{:?}", ask.change), "newest": ask.newest}))
    }

    async fn image(&self, shard: ShardId, who: &str, dry_run: bool) -> Result<AdminImage, serde_json::Value> {
        if shard != ShardId(3) {
            return Err(serde_json::json!({"refused": {"code": "not_leader"}}));
        }
        Ok(AdminImage {
            head: serde_json::json!({"shard": 3, "who": who}),
            body: (!dry_run).then(|| bytes::Bytes::from_static(b"all of it")),
        })
    }

    /// Tells what it was asked for; without a reason it refuses.
    fn found(&self, ask: AdminFounding) -> BoxStream<'static, AdminStep> {
        let image = ask
            .image
            .as_ref()
            .map(|image| String::from_utf8_lossy(image).into_owned());
        let told = serde_json::json!({
            "shard": ask.shard.0, "who": ask.who, "why": ask.force, "dry_run": ask.dry_run, "image": image,
        });
        let last = match ask.force {
            Some(_) => AdminStep::Done(told),
            None => AdminStep::Refused(serde_json::json!({"refused": {"code": "gives_up"}})),
        };
        let first = AdminStep::Progress(serde_json::json!({"step": "weighed"}));
        stream::iter([first, last]).boxed()
    }

    async fn stop_node(&self, node: NodeId) -> Result<(), PortError> {
        if !NODES.contains(&node.0) {
            return Err(PortError::NotFound);
        }
        self.inner.lock().stopped.push(node.0);
        Ok(())
    }
}
