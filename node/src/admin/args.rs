//! The command line of `rushroom admin`.

use crate::tls::{Tls, TlsFault};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// What an operator asks of a cluster.
#[derive(Args, Debug)]
pub(crate) struct AdminArgs {
    /// Any node's gRPC address.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "RUSHROOM_ADMIN",
        default_value = "127.0.0.1:8081",
        global = true
    )]
    pub(super) node: String,
    #[command(flatten)]
    pub(super) papers: Papers,
    /// Answers as JSON.
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Who asks, for the audit.
    #[arg(long, value_name = "NAME", env = "USER", default_value = "operator", global = true)]
    pub(super) who: String,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// By what an operator is known to a cluster that speaks TLS, as `rushroom node cert --operator NAME` makes it.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct Papers {
    /// The cluster's authority.
    #[arg(
        long,
        value_name = "FILE",
        env = "RUSHROOM_ADMIN_CA",
        global = true,
        requires = "cert"
    )]
    ca: Option<PathBuf>,
    /// The certificate of an operator or an auditor.
    #[arg(
        long,
        value_name = "FILE",
        env = "RUSHROOM_ADMIN_CERT",
        global = true,
        requires = "key"
    )]
    cert: Option<PathBuf>,
    /// Its key.
    #[arg(
        long,
        value_name = "FILE",
        env = "RUSHROOM_ADMIN_KEY",
        global = true,
        requires = "ca"
    )]
    key: Option<PathBuf>,
}

impl Papers {
    /// What to show, if anything is to be shown.
    pub(super) fn open(&self) -> Result<Option<Tls>, TlsFault> {
        match (&self.ca, &self.cert, &self.key) {
            (Some(ca), Some(cert), Some(key)) => Tls::open(ca.clone(), cert.clone(), key.clone(), None).map(Some),
            _ => Ok(None),
        }
    }
}

/// How a change is made.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct How {
    /// Show what would be done, do nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Only if the map is still at this version.
    #[arg(long, value_name = "N")]
    pub(super) version: Option<u64>,
    /// Override a guard rail; the reason is kept.
    #[arg(long, value_name = "REASON")]
    pub(super) force: Option<String>,
    /// Wait until it has come true.
    #[arg(long)]
    pub(super) wait: bool,
    /// Longest wait, seconds.
    #[arg(long, value_name = "S", default_value_t = 600)]
    pub(super) timeout: u64,
}

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// The cluster at a glance.
    Status,
    /// Nodes: list, join, drain, resume, weight, decommission.
    #[command(subcommand)]
    Node(NodeCommand),
    /// What is planned: show, apply, cancel, history.
    #[command(subcommand)]
    Plan(PlanCommand),
    /// Shards: list, explain, move, pin, exclude, lift, transfer-leader, top.
    #[command(subcommand)]
    Shard(ShardCommand),
    /// The cluster's version: show, upgrade.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Shards to an object store, and what lies there: take (as without a word), list, verify.
    Backup(Backup),
    /// A backup back into its shard: read and recomputed first, then the shard is closed everywhere and founded anew on one
    /// node; the others follow by themselves.
    Restore(Restore),
    /// A shard whose majority is lost for good, from what one replica has. Without `--force` it shows what is left.
    UnsafeRecover(Recover),
    /// Everything to where the arithmetic wants it.
    Rebalance(How),
    /// Nothing moves until `go`.
    Pause(How),
    /// Moves go on.
    Go(How),
    /// What was asked for, by whom, and what is under way.
    Ops {
        #[command(subcommand)]
        command: OpsCommand,
    },
    /// Restart nodes one after the other, each only when all are whole and no auction that it leads closes within 30 s.
    RollingRestart(Roll),
    /// Print a completion script.
    Completion {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand, Debug)]
pub(super) enum ClusterCommand {
    /// Which builds run, and which version all may rely on.
    Version,
    /// All nodes may rely on all others to know this version: after a roll, when no one wants to go back.
    Upgrade {
        /// The version.
        #[arg(long, value_name = "N")]
        to: u32,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Subcommand, Debug)]
pub(super) enum OpsCommand {
    /// The newest.
    List,
}

#[derive(Subcommand, Debug)]
pub(super) enum NodeCommand {
    /// All nodes.
    List,
    /// Let a node into the map. (A node with `cluster.join` set does this itself.)
    Join {
        /// As in the settings: `id=4 zone=a region=x grpc=H:P http=URL trunk=H:P`.
        #[arg(id = "line", value_name = "LINE")]
        node: String,
        #[command(flatten)]
        how: How,
    },
    /// It leads nothing, and gives its replicas away where others can take them.
    Drain {
        /// Its id.
        id: u64,
        #[command(flatten)]
        how: How,
    },
    /// It takes shards again.
    Resume {
        /// Its id.
        id: u64,
        #[command(flatten)]
        how: How,
    },
    /// Its share of shards.
    Weight {
        /// Its id.
        id: u64,
        /// The weight; 0: no shards.
        weight: u32,
        #[command(flatten)]
        how: How,
    },
    /// It goes for good; its id is never used again.
    Decommission {
        /// Its id.
        id: u64,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Subcommand, Debug)]
pub(super) enum PlanCommand {
    /// What a rebalance would move now, and what is under way.
    Show,
    /// Make it so.
    Apply(How),
    /// What has not begun is dropped, what is under way goes back while it can.
    Cancel {
        /// Only this shard.
        #[arg(long)]
        shard: Option<u32>,
        #[command(flatten)]
        how: How,
    },
    /// Moves that are over.
    History,
}

#[derive(Subcommand, Debug)]
pub(super) enum ShardCommand {
    /// All shards.
    List,
    /// Why it lies where it lies.
    Explain {
        /// The shard.
        id: u32,
    },
    /// One replica to another node, where it stays for a week.
    Move {
        /// The shard.
        id: u32,
        /// Where it is.
        #[arg(long)]
        from: u64,
        /// Where it shall be.
        #[arg(long)]
        to: u64,
        #[command(flatten)]
        how: How,
    },
    /// A replica stays on a node.
    Pin(Wished),
    /// No replica on a node.
    Exclude(Wished),
    /// No override for a node any more.
    Lift {
        /// The shard.
        id: u32,
        /// The node. (An argument named as the global `--node` would be that.)
        #[arg(id = "seat", value_name = "NODE")]
        node: u64,
        #[command(flatten)]
        how: How,
    },
    /// Another replica leads.
    TransferLeader {
        /// The shard.
        id: u32,
        /// On this node, which leads it by preference for a week; else whoever can.
        #[arg(long)]
        to: Option<u64>,
        /// Override the guard of auctions that close soon; the reason is kept.
        #[arg(long, value_name = "REASON")]
        force: Option<String>,
        /// Show who would lead, do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// The shards with most live auctions.
    Top,
}

#[derive(Args, Debug)]
pub(super) struct Wished {
    /// The shard.
    pub(super) id: u32,
    /// The node.
    #[arg(id = "seat", value_name = "NODE")]
    pub(super) node: u64,
    /// For how many hours: up to a year.
    #[arg(long, default_value_t = 168, value_parser = clap::value_parser!(u64).range(1..=8_760))]
    pub(super) hours: u64,
    #[command(flatten)]
    pub(super) how: How,
}

#[derive(Args, Debug)]
pub(super) struct Roll {
    /// What restarts one node; `{node}` is its id. It must return once the old process has ended.
    #[arg(long, value_name = "COMMAND")]
    pub(super) command: String,
    /// Only these nodes, in this order.
    #[arg(long, value_delimiter = ',')]
    pub(super) nodes: Vec<u64>,
    /// Show what would be done, and what stands against it now; do nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Restart though an auction closes soon, or a shard would be without a majority; the reason is kept.
    #[arg(long, value_name = "REASON")]
    pub(super) force: Option<String>,
    /// Longest wait until a node may be restarted, and until it is whole again, seconds.
    #[arg(long, default_value_t = 120)]
    pub(super) timeout: u64,
}

/// Where backups lie, by URL.
#[derive(Args, Debug, Clone)]
pub(super) struct At {
    /// `s3://BUCKET/PREFIX` (keys and endpoint from AWS_* variables) or `file:///FOLDER`.
    #[arg(value_name = "URL")]
    pub(super) url: String,
    /// Only this shard.
    #[arg(long, value_name = "ID")]
    pub(super) shard: Option<u32>,
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Backup {
    #[command(subcommand)]
    pub(super) command: Option<BackupCommand>,
    /// `s3://BUCKET/PREFIX` (keys and endpoint from AWS_* variables) or `file:///FOLDER`.
    #[arg(long, value_name = "URL", required = true)]
    pub(super) to: Option<String>,
    /// This shard; may be given more than once.
    #[arg(long, value_name = "ID", required = true, conflicts_with = "all")]
    pub(super) shard: Vec<u32>,
    /// All shards, the cluster map among them.
    #[arg(long)]
    pub(super) all: bool,
    /// Show what would be kept; put nothing, write nothing down.
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Args, Debug)]
pub(super) struct Restore {
    /// `s3://BUCKET/PREFIX` (keys and endpoint from AWS_* variables) or `file:///FOLDER`.
    #[arg(long, value_name = "URL")]
    pub(super) from: String,
    /// The shard.
    #[arg(long, value_name = "ID")]
    pub(super) shard: u32,
    /// This backup, as `backup list` names it; else the shard's newest.
    #[arg(long)]
    pub(super) name: Option<String>,
    /// On this node; else on one that has the shard and answers.
    #[arg(long, value_name = "NODE")]
    pub(super) on: Option<u64>,
    /// Why what the shard has now may be given up; only an empty shard needs no reason. It is kept.
    #[arg(long, value_name = "REASON")]
    pub(super) force: Option<String>,
    /// Show what would be done, do nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Args, Debug)]
pub(super) struct Recover {
    /// The shard; 0 is the map, which comes first where it is lost, too.
    #[arg(long, value_name = "ID")]
    pub(super) shard: u32,
    /// On this node, which has a replica; else on the one with the longest log.
    #[arg(long, value_name = "NODE")]
    pub(super) on: Option<u64>,
    /// That the other replicas are gone for good, and why; it is kept. Without it nothing is done.
    #[arg(long, value_name = "REASON")]
    pub(super) force: Option<String>,
    /// Go on without auctions that are over and whose records can't be read there: they are lost. Refused without, and named.
    #[arg(long)]
    pub(super) give_up_unreadable: bool,
    /// Show what is left, do nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Subcommand, Debug)]
pub(super) enum BackupCommand {
    /// What lies there; backups that were not finished are named, too. Asks no node.
    List(At),
    /// Reads everything again, and recomputes it: checksums, chains, rules, digests. Asks no node.
    Verify(At),
}
