//! Runs one command of `rushroom admin`: asks, prints, waits.

use super::args::{
    AdminArgs, Backup, ClusterCommand, Command, How, NodeCommand, OpsCommand, PlanCommand, ShardCommand, Wished,
};
use super::client::{Client, NotReached};
use super::wire::{Overview, change_to};
use super::{backup, json, refound, roll, tables};
use crate::cli::{complain, say};
use anyhow::Result;
use placement::{Change, NodeId, Override, Rules, ShardId, Wish, explain};
use proto::cluster::v1 as pb;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Not reached.
const UNREACHED: u8 = 3;
/// `--wait` gave up.
const GAVE_UP: u8 = 4;
/// How long a node may take to learn who has the newest map.
const NEWEST: Duration = Duration::from_secs(2);
/// Between two looks while waiting.
const LOOK: Duration = Duration::from_millis(200);

/// Wall time, unix ms: for people, and for what expires.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Does what the command line says.
pub(crate) async fn run(args: AdminArgs, completion: impl FnOnce(clap_complete::Shell) -> String) -> Result<ExitCode> {
    if let Command::Completion { shell } = &args.command {
        return say(&completion(*shell));
    }
    match dispatch(&args).await {
        Err(error) => match error.downcast::<NotReached>() {
            Ok(unreached) => {
                complain(&unreached.to_string());
                Ok(match unreached {
                    NotReached::Silent { .. } => ExitCode::from(UNREACHED),
                    NotReached::Denied(_) => ExitCode::FAILURE,
                })
            }
            Err(error) => Err(error),
        },
        done => done,
    }
}

async fn dispatch(args: &AdminArgs) -> Result<ExitCode> {
    if let Command::Backup(Backup {
        command: Some(what), ..
    }) = &args.command
    {
        return backup::look(what, args.json).await;
    }
    let client = Client::connect(&args.node, &args.papers).await?;
    let asking = Asking { args, client };
    match &args.command {
        Command::Status => asking.show(tables::status).await,
        Command::Node(command) => asking.node(command).await,
        Command::Plan(command) => asking.plan(command).await,
        Command::Shard(command) => asking.shard(command).await,
        Command::Cluster(ClusterCommand::Version) => asking.versions().await,
        Command::Cluster(ClusterCommand::Upgrade { to, how }) => asking.change(Change::Upgrade(*to), how).await,
        Command::Rebalance(how) => asking.change(Change::Rebalance, how).await,
        Command::Pause(how) => asking.change(Change::Pause, how).await,
        Command::Go(how) => asking.change(Change::Go, how).await,
        Command::Ops {
            command: OpsCommand::List,
        } => asking.show(|o| tables::ops(o, wall_ms())).await,
        Command::RollingRestart(how) => roll::roll(&asking.client, how, args).await,
        Command::Restore(what) => refound::restore(&asking.client, what, args).await,
        Command::UnsafeRecover(what) => refound::recover(&asking.client, what, args).await,
        Command::Backup(what) => backup::take(&asking.client, what, args.json).await,
        Command::Completion { .. } => Ok(ExitCode::SUCCESS),
    }
}

struct Asking<'a> {
    args: &'a AdminArgs,
    client: Client,
}

impl Asking<'_> {
    async fn show(&self, table: impl Fn(&Overview) -> String) -> Result<ExitCode> {
        let overview = self.newest().await?;
        self.print(&json::overview(&overview), || table(&overview))
    }

    /// The cluster by the newest map: a node that has just started doesn't know who has it, for a moment.
    async fn newest(&self) -> Result<Overview, NotReached> {
        let deadline = Instant::now() + NEWEST;
        loop {
            let overview = self.client.overview().await?;
            if !overview.may_be_old {
                return Ok(overview);
            }
            if Instant::now() > deadline {
                complain("the node that leads shard 0 doesn't answer: what follows may be old");
                return Ok(overview);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn print(&self, json: &serde_json::Value, table: impl Fn() -> String) -> Result<ExitCode> {
        if self.args.json {
            return say(&format!("{json:#}\n"));
        }
        say(&table())
    }

    async fn node(&self, command: &NodeCommand) -> Result<ExitCode> {
        match command {
            NodeCommand::List => self.show(tables::nodes).await,
            NodeCommand::Join { node, how } => {
                let node = crate::config::node_line(node).map_err(anyhow::Error::msg)?;
                self.change(Change::Join(node), how).await
            }
            NodeCommand::Drain { id, how } => self.change(Change::Drain(NodeId(*id)), how).await,
            NodeCommand::Resume { id, how } => self.change(Change::Resume(NodeId(*id)), how).await,
            NodeCommand::Weight { id, weight, how } => self.change(Change::Weight(NodeId(*id), *weight), how).await,
            NodeCommand::Decommission { id, how } => self.change(Change::Decommission(NodeId(*id)), how).await,
        }
    }

    async fn versions(&self) -> Result<ExitCode> {
        let reply = self.client.versions().await?;
        self.print(&json::versions(&reply), || tables::versions(&reply))
    }

    async fn plan(&self, command: &PlanCommand) -> Result<ExitCode> {
        match command {
            PlanCommand::Show => {
                let how = How {
                    dry_run: true,
                    ..How::default()
                };
                let overview = self.client.overview().await?;
                let still = overview.map.steering.moves.is_empty() && overview.waits.is_empty();
                if !self.args.json && !still {
                    say(&(tables::moves(&overview) + "\n"))?;
                }
                self.change(Change::Rebalance, &how).await
            }
            PlanCommand::Apply(how) => self.change(Change::Rebalance, how).await,
            PlanCommand::Cancel { shard, how } => self.change(Change::Cancel(shard.map(ShardId)), how).await,
            PlanCommand::History => {
                let overview = self.newest().await?;
                let told = json::history(&overview.map).into();
                self.print(&told, || tables::history(&overview.map, wall_ms()))
            }
        }
    }

    async fn shard(&self, command: &ShardCommand) -> Result<ExitCode> {
        match command {
            ShardCommand::List => self.show(tables::shards).await,
            ShardCommand::Explain { id } => {
                let overview = self.newest().await?;
                if *id > overview.map.shards {
                    let refusal = placement::Refusal::UnknownShard(ShardId(*id));
                    return self.refused(&pb::Refused {
                        code: refusal.code().into(),
                        why: refusal.to_string(),
                        may_be_forced: false,
                    });
                }
                let told = explain(&overview.map, ShardId(*id), Rules::default(), wall_ms());
                self.print(&json::explained(&told), || tables::explained(&told, wall_ms()))
            }
            ShardCommand::Move { id, from, to, how } => {
                let (shard, from, to) = (ShardId(*id), NodeId(*from), NodeId(*to));
                let owner = self.args.who.clone();
                self.change(Change::Move { shard, from, to, owner }, how).await
            }
            ShardCommand::Pin(wished) => self.wish(wished, Wish::Pin(NodeId(wished.node))).await,
            ShardCommand::Exclude(wished) => self.wish(wished, Wish::Exclude(NodeId(wished.node))).await,
            ShardCommand::Lift { id, node, how } => self.change(Change::Lift(ShardId(*id), NodeId(*node)), how).await,
            ShardCommand::TransferLeader { id, to, force, dry_run } => {
                self.transfer(*id, *to, force.clone(), *dry_run).await
            }
            ShardCommand::Top => self.top().await,
        }
    }

    async fn wish(&self, wished: &Wished, wish: Wish) -> Result<ExitCode> {
        let o = Override {
            shard: ShardId(wished.id),
            wish,
            owner: self.args.who.clone(),
            until_ms: wall_ms() + wished.hours * 3_600_000,
        };
        self.change(Change::Override(o), &wished.how).await
    }

    async fn transfer(&self, shard: u32, to: Option<u64>, force: Option<String>, dry_run: bool) -> Result<ExitCode> {
        let request = pb::TransferRequest {
            shard,
            to,
            who: self.args.who.clone(),
            force,
            dry_run,
            for_ms: None,
        };
        let reply = self.client.transfer(request).await?;
        if let Some(refused) = &reply.refused {
            return self.refused(refused);
        }
        let told = serde_json::json!({"shard": shard, "leader": reply.leader, "done": !dry_run});
        let would = if dry_run { "would be" } else { "is" };
        self.print(&told, || {
            format!("shard {shard} {would} led by node {}\n", reply.leader)
        })
    }

    /// Says why not; as JSON too, if that was asked for.
    fn refused(&self, refused: &pb::Refused) -> Result<ExitCode> {
        if self.args.json {
            say(&format!("{:#}\n", json::refused(refused)))?;
        }
        complain(&told(refused));
        Ok(ExitCode::FAILURE)
    }

    /// The shards of the asked node's leaders with most live auctions, asked of every node that answers.
    async fn top(&self) -> Result<ExitCode> {
        let overview = self.client.overview().await?;
        let mut rows: Vec<(u32, u32, u64, u64)> = Vec::new();
        for node in overview
            .map
            .nodes
            .values()
            .filter(|node| overview.alive.contains(&node.id))
        {
            let Ok(client) = self.client.elsewhere(&node.grpc).await else {
                continue;
            };
            let Ok(status) = client.status().await else { continue };
            let led = status.replicas.iter().filter(|r| r.role == "leader" && r.shard > 0);
            rows.extend(led.map(|r| (r.auctions_live, r.shard, node.id.0, r.held_total_ms)));
        }
        rows.sort_unstable_by_key(|row| std::cmp::Reverse(*row));
        rows.truncate(20);
        let one =
            |r: &(u32, u32, u64, u64)| serde_json::json!({"shard": r.1, "live": r.0, "leader": r.2, "held_ms": r.3});
        let told = rows.iter().map(one).collect::<Vec<_>>().into();
        let cells = |r: &(u32, u32, u64, u64)| vec![r.1.to_string(), r.0.to_string(), r.2.to_string(), r.3.to_string()];
        let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
        self.print(&told, || tables::table(&["shard", "live", "leader", "held ms"], &cells))
    }

    async fn change(&self, change: Change, how: &How) -> Result<ExitCode> {
        let Some((wanted, who)) = change_to(&change, &self.args.who) else {
            anyhow::bail!("no operator's change");
        };
        let request = pb::ChangeRequest {
            change: Some(wanted),
            who,
            force: how.force.clone(),
            version: how.version,
            dry_run: how.dry_run,
            // Of a node that joins. Whoever lets it in by hand vouches for its build; an older one would stop itself.
            newest: raft_store::versions::NEWEST,
        };
        let reply = self.client.change(request).await?;
        if let Some(refused) = &reply.refused {
            return self.refused(refused);
        }
        self.print(&json::change(&reply, how.dry_run), || {
            tables::change(&reply, how.dry_run)
        })?;
        if how.wait && !how.dry_run {
            return self.wait(how).await;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Until nothing has to move and no node that shouldn't lead does; progress goes to stderr.
    async fn wait(&self, how: &How) -> Result<ExitCode> {
        let deadline = Instant::now() + Duration::from_secs(how.timeout);
        let (mut most, mut told) = (0, String::new());
        loop {
            let o = self.client.overview().await?;
            let left = o.map.steering.goal.len().max(o.map.steering.moves.len());
            let leads = o
                .leaders
                .values()
                .any(|node| o.map.standing(*node) != placement::Standing::Active);
            if left == 0 && !leads {
                complain("done: the map has come true");
                return Ok(ExitCode::SUCCESS);
            }
            most = most.max(left);
            let line = progress(&o, most, left);
            if line != told {
                complain(&line);
                told = line;
            }
            if Instant::now() > deadline {
                complain("gave up waiting; it goes on by itself (see `plan show`)");
                return Ok(ExitCode::from(GAVE_UP));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A refusal as a person reads it.
pub(super) fn told(refused: &pb::Refused) -> String {
    let hint = if refused.may_be_forced {
        " (--force REASON overrides this)"
    } else {
        ""
    };
    format!("refused [{}]: {}{hint}", refused.code, refused.why)
}

/// One line of progress: a bar, and what is under way.
fn progress(o: &Overview, most: usize, left: usize) -> String {
    const WIDTH: usize = 24;
    let full = (most - left.min(most)) * WIDTH / most.max(1);
    let steps = o
        .map
        .steering
        .moves
        .iter()
        .map(|(shard, one)| format!("{}: {}", shard.0, one.step.word()));
    let steps: Vec<String> = steps.take(4).collect();
    let waits = o
        .waits
        .values()
        .next()
        .map_or(String::new(), |why| format!("; waits for {why}"));
    format!(
        "[{}{}] {left} to go; {}{waits}",
        "#".repeat(full),
        ".".repeat(WIDTH - full),
        if steps.is_empty() {
            "leaders change".into()
        } else {
            steps.join(", ")
        }
    )
}

#[cfg(test)]
mod tests {
    use super::{NodeId, Overview, ShardId, progress};
    use placement::{Move, ReplicaId, Step};

    /// Moves of shards 1 and on, at these steps; what some shard waits for.
    fn overview(steps: &[Step], waits: Option<&str>) -> Overview {
        let mut overview = Overview::default();
        for (shard, step) in (1..).map(ShardId).zip(steps) {
            let one = Move {
                id: u64::from(shard.0),
                from: None,
                to: Some((NodeId(4), ReplicaId(9))),
                step: *step,
                back: false,
                forced: None,
                reason: String::new(),
                began_ms: 0,
            };
            overview.map.steering.moves.insert(shard, one);
        }
        overview.waits.extend(waits.map(|why| (ShardId(1), why.to_owned())));
        overview
    }

    /// The bar is what is done of the most that there was to do; of many moves the first four are named.
    #[test]
    fn progress_in_a_line() {
        let check = |steps: &[Step], waits, most, left, line: &str| {
            assert_eq!(progress(&overview(steps, waits), most, left), line);
        };
        check(&[], None, 0, 0, "[........................] 0 to go; leaders change");
        check(&[], None, 4, 0, "[########################] 0 to go; leaders change");
        let soon = Some("a live auction closes soon");
        check(
            &[],
            soon,
            4,
            4,
            "[........................] 4 to go; leaders change; waits for a live auction closes soon",
        );
        let two = [Step::CaughtUp, Step::HandedOver];
        let told = "[############............] 2 to go; 1: caught up, 2: handed over";
        check(&two, None, 4, 2, told);
        check(
            &two,
            Some("node 4 to answer"),
            4,
            2,
            &format!("{told}; waits for node 4 to answer"),
        );
        let first = "1: planned, 2: planned, 3: planned, 4: planned";
        let told = format!("[####....................] 5 to go; {first}");
        check(&[Step::Planned; 4], None, 6, 5, &told);
        check(&[Step::Planned; 5], None, 6, 5, &told);
    }
}
