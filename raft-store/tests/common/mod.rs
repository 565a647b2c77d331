//! A cluster of real hosts in one process: real files in a temporary folder, real sockets on the loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, missing_docs, unreachable_pub)]

use auction::{Action, Actor, AuctionId, Command, Currency, Definition, Id, Reply, Rights, Terms, TimeRule, Verdict};
use placement::{Change, ClusterMap, Node, NodeId, Origin, Plan, ReplicaId, ShardId, mover::Limits};
use raft_store::{
    Ask, Dial, GroupStatus, Host, Options, RaftOptions, Role,
    clock::{Time, compare},
    mover::Pace,
    wal,
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::Instant};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Status, service::interceptor::InterceptedService};

/// How long anything that must happen may take before the test fails. Never slept through.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Running {
    pub host: Host,
    server: JoinHandle<()>,
    end: oneshot::Sender<()>,
}

impl Running {
    async fn close(self) {
        let _ = self.end.send(());
        self.server.await.unwrap();
    }
}

/// What lies between nodes: one of them may be cut off from Raft, while movers still ask and are answered.
#[derive(Default)]
pub struct Between {
    /// The node that no Raft call reaches or comes from; 0: none. Calls that stand already go on.
    pub cut: AtomicU64,
    /// How often that node's mover asked another node.
    pub asked: AtomicU64,
}

impl Between {
    fn is_cut(&self, to: u64, request: &Request<()>) -> bool {
        let cut = self.cut.load(Ordering::Relaxed);
        cut != 0 && (to == cut || is_from(cut, request))
    }
}

/// A node's requests bear its name.
fn named(id: u64) -> Dial {
    Dial::by(move |_, endpoint| {
        let named = endpoint.clone().user_agent(format!("node-{id}"));
        named.unwrap().connect_lazy()
    })
}

fn is_from(id: u64, request: &Request<()>) -> bool {
    let name = request.metadata().get("user-agent").and_then(|name| name.to_str().ok());
    name.is_some_and(|name| name.split(' ').next() == Some(&format!("node-{id}")))
}

pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub founders: Vec<Node>,
    pub shards: u32,
    pub raft: RaftOptions,
    pub moves: Limits,
    /// Nodes that joined later, and the replicas of shard 0 by which they did.
    pub joined: BTreeMap<u64, (Node, ReplicaId)>,
    pub running: BTreeMap<u64, Running>,
    /// A node that remembers by other bounds than the rest, to plant a state that diverges.
    pub odd: Option<(u64, auction::Limits)>,
    /// Nodes whose clocks aren't the machine's.
    pub times: BTreeMap<u64, Time>,
    /// How nodes compare their clocks.
    pub compare: compare::Options,
    pub between: Arc<Between>,
    listeners: BTreeMap<u64, std::net::TcpListener>,
}

impl Cluster {
    /// Three nodes that have not started.
    pub fn new(shards: u32, raft: RaftOptions) -> Cluster {
        Cluster::of(3, shards, raft)
    }

    /// So many nodes that have not started.
    pub fn of(nodes: u64, shards: u32, raft: RaftOptions) -> Cluster {
        let mut listeners = BTreeMap::new();
        let founders = (1..=nodes).map(|id| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let grpc = listener.local_addr().unwrap().to_string();
            listeners.insert(id, listener);
            Node {
                id: NodeId(id),
                zone: format!("zone-{id}"),
                region: "here".into(),
                weight: 1,
                grpc,
                http: String::new(),
                trunk: String::new(),
            }
        });
        let founders = founders.collect();
        let dir = tempfile::tempdir().unwrap();
        Cluster {
            dir,
            founders,
            shards,
            raft,
            moves: Limits::default(),
            joined: BTreeMap::new(),
            running: BTreeMap::new(),
            odd: None,
            times: BTreeMap::new(),
            compare: compare::Options::default(),
            between: Arc::default(),
            listeners,
        }
    }

    /// Three nodes, started, with a map and leaders.
    pub async fn three(shards: u32) -> Cluster {
        let mut cluster = Cluster::new(shards, RaftOptions::default());
        cluster.start_all().await;
        cluster
    }

    pub async fn start_all(&mut self) {
        for id in 1..=self.founders.len() as u64 {
            self.start(id).await;
        }
        self.until("all nodes are ready", |cluster| {
            cluster.running.values().all(|r| r.host.ready())
        })
        .await;
    }

    pub fn folder(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("node-{id}"))
    }

    pub fn options(&self, id: u64) -> Options {
        let joined = self.joined.get(&id).map(|(_, replica)| *replica);
        Options {
            node: NodeId(id),
            dir: self.folder(id),
            shards: self.shards,
            founders: if joined.is_some() {
                Vec::new()
            } else {
                self.founders.clone()
            },
            moves: self.moves,
            pace: Pace {
                busy: Duration::from_millis(20),
                idle: Duration::from_millis(100),
            },
            joined,
            dial: named(id),
            wal: wal::Options {
                segment_bytes: 1024 * 1024,
                preallocate: false,
                ..wal::Options::default()
            },
            raft: self.raft.clone(),
            time: self.times.get(&id).cloned().unwrap_or_default(),
            compare: self.compare,
            limits: self
                .odd
                .filter(|odd| odd.0 == id)
                .map_or_else(auction::Limits::default, |odd| odd.1),
            ..Options::default()
        }
    }

    pub async fn start(&mut self, id: u64) {
        let host = Host::open(self.options(id)).await.unwrap();
        let address: SocketAddr = match self.joined.get(&id) {
            Some((node, _)) => node.grpc.parse().unwrap(),
            None => self.founders[id as usize - 1].grpc.parse().unwrap(),
        };
        let listener = match self.listeners.remove(&id) {
            Some(listener) => {
                listener.set_nonblocking(true).unwrap();
                TcpListener::from_std(listener).unwrap()
            }
            None => TcpListener::bind(address).await.unwrap(),
        };
        let (cut, asked) = (self.between.clone(), self.between.clone());
        let service = InterceptedService::new(host.raft_service(), move |request: Request<()>| {
            match cut.is_cut(id, &request) {
                true => Err(Status::unavailable("cut off")),
                false => Ok(request),
            }
        });
        let moves = InterceptedService::new(host.moves_service(), move |request: Request<()>| {
            if is_from(asked.cut.load(Ordering::Relaxed), &request) {
                asked.asked.fetch_add(1, Ordering::Relaxed);
            }
            Ok(request)
        });
        let (end, ended) = oneshot::channel();
        let server = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let server = tonic::transport::Server::builder()
                .add_service(service)
                .add_service(moves);
            server
                .serve_with_incoming_shutdown(incoming, async { drop(ended.await) })
                .await
                .unwrap();
        });
        self.running.insert(id, Running { host, server, end });
    }

    /// Lets a new node into the cluster, and starts it.
    pub async fn join(&mut self, id: u64) {
        let any = *self.running.keys().next().unwrap();
        self.join_by(any, id).await;
    }

    /// The same, asked of a certain node.
    pub async fn join_by(&mut self, of: u64, id: u64) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let grpc = listener.local_addr().unwrap().to_string();
        let node = Node {
            id: NodeId(id),
            zone: format!("zone-{id}"),
            region: "here".into(),
            weight: 1,
            grpc,
            http: String::new(),
            trunk: String::new(),
        };
        let plan = steer(&self.running[&of].host, Change::Join(node.clone()), None).await;
        self.joined.insert(id, (node, plan.map.steering.watchers[&NodeId(id)]));
        self.listeners.insert(id, listener);
        self.start(id).await;
    }

    /// Has any running node store a change.
    pub async fn steer(&self, change: Change) -> Plan {
        let host = &self.running.values().next().unwrap().host;
        steer(host, change, None).await
    }

    /// Closes a shard as its founding on `node` from what lives there does first, where a majority that lives would make it
    /// refuse.
    pub async fn seal(&self, shard: ShardId, node: u64) {
        let change = Change::Seal {
            shard,
            node: NodeId(node),
            from: Origin::Survivor,
        };
        steer(&self.running[&node].host, change, Some("two are gone")).await;
    }

    /// Waits until a shard has all its replicas, and they agree.
    pub async fn three_again(&self, shard: ShardId) {
        self.until("the shard has three replicas again", |cluster| {
            let map = cluster.map();
            map.replicas_of(shard).len() == 3 && map.steering.moves.is_empty() && map.steering.goal.is_empty()
        })
        .await;
        self.agree(shard).await;
    }

    /// The newest map that any running node knows.
    pub fn map(&self) -> Arc<ClusterMap> {
        let maps = self.running.values().map(|r| r.host.map().borrow().clone());
        maps.max_by_key(|map| map.steering.version).unwrap()
    }

    /// Stops a node without handing anything over.
    pub async fn crash(&mut self, id: u64) {
        let running = self.running.remove(&id).unwrap();
        running.host.halt().await;
        running.close().await;
    }

    /// Stops a node as an operator would.
    pub async fn stop(&mut self, id: u64) {
        let running = self.running.remove(&id).unwrap();
        running.host.shutdown().await;
        running.close().await;
    }

    /// Waits until something is so; it is looked at often, and given up loudly.
    pub async fn until(&self, what: &str, mut so: impl FnMut(&Cluster) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !so(self) {
            assert!(
                Instant::now() < deadline,
                "gave up waiting until {what}: {:#?}\n{:?}\n{:?}",
                self.statuses(),
                self.map().steering,
                self.running.values().map(|r| r.host.waits()).collect::<Vec<_>>()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn statuses(&self) -> Vec<(u64, Vec<GroupStatus>)> {
        self.running.iter().map(|(id, r)| (*id, r.host.status())).collect()
    }

    pub fn leader_of(&self, shard: ShardId) -> Option<u64> {
        let leads = |r: &Running| {
            r.host
                .status()
                .iter()
                .any(|g| g.shard == shard && g.role == Role::Leader)
        };
        self.running.iter().find(|(_, r)| leads(r)).map(|(id, _)| *id)
    }

    /// Sends a command as an edge would: to whoever leads, again and again with the same id until there is a verdict.
    pub async fn say(&self, shard: ShardId, command: Command) -> Verdict {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        while Instant::now() < deadline {
            for running in self.running.values() {
                let epoch = running.host.map().borrow().epoch;
                let reply = running.host.submit(shard, epoch, command.clone());
                match tokio::time::timeout(Duration::from_secs(2), reply).await {
                    Ok(Reply::Verdict(verdict)) => return verdict,
                    Ok(other) => last = Some(other),
                    Err(_) => {}
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "no verdict on {command:?}; the last answer was {last:?}; {:#?}",
            self.statuses()
        );
    }

    /// Waits until every running replica of a shard has applied the same log, and compares states.
    pub async fn agree(&self, shard: ShardId) {
        self.until("replicas agree", |cluster| {
            let states: Vec<_> = cluster.running.values().map(|r| r.host.digest(shard)).collect();
            states.iter().all(|state| state.is_some() && *state == states[0])
        })
        .await;
    }
}

/// An operator's change, of whatever version the map has.
pub fn ask(change: Change) -> Ask {
    Ask {
        newest: raft_store::versions::NEWEST,
        change,
        who: "olga".into(),
        force: None,
        version: None,
        dry_run: false,
    }
}

async fn steer(host: &Host, change: Change, force: Option<&str>) -> Plan {
    let ask = Ask {
        force: force.map(Into::into),
        ..ask(change)
    };
    host.steer(ask).await.unwrap()
}

pub fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

pub fn definition(duration_ms: u64) -> Definition {
    Definition {
        seller: id("seller"),
        title: "a lamp".into(),
        description: String::new(),
        terms: Terms {
            currency: Currency::parse("KRW").unwrap(),
            start_price: 1_000,
            increments: vec![(0, 100)],
            reserve: None,
            duration_ms,
            time: TimeRule::default(),
            guests: true,
            pause_without_stream: false,
        },
    }
}

pub fn command(auction: &AuctionId, who: &str, command: &str, action: Action) -> Command {
    let rights = Rights::MEMBER.and(Rights::BIDDER).and(Rights::SELLER);
    Command {
        auction: auction.clone(),
        actor: Actor { id: id(who), rights },
        id: Some(id(command)),
        first_sent: None,
        action,
    }
}

/// Creates an auction and takes it live.
pub async fn open_auction(cluster: &Cluster, auction: &str, duration_ms: u64) -> (ShardId, AuctionId) {
    let auction = id(auction);
    let shard = placement::shard_of(auction.as_str(), cluster.shards);
    let create = command(
        &auction,
        "seller",
        "create",
        Action::Create(Box::new(definition(duration_ms))),
    );
    let verdict = cluster.say(shard, create).await;
    assert_eq!(verdict.outcome, Ok(()), "create: {verdict:?}");
    let start = command(&auction, "seller", "start", Action::Start { schedule_version: None });
    let verdict = cluster.say(shard, start).await;
    assert_eq!(verdict.outcome, Ok(()), "start: {verdict:?}");
    (shard, auction)
}

pub async fn bid(cluster: &Cluster, shard: ShardId, auction: &AuctionId, n: u64) -> Verdict {
    let who = if n.is_multiple_of(2) { "ann" } else { "bob" };
    let bid = command(
        auction,
        who,
        &format!("bid-{n}"),
        Action::Bid {
            amount: 1_000 + 100 * n,
        },
    );
    cluster.say(shard, bid).await
}
