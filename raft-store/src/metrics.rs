//! What an operator can read of the shards of a node: every metric of this crate, with unit and meaning, declared once.
//!
//! Names follow `rushroom_<area>_<thing>_<unit>[_total]`. Labels are few and bounded: a shard's number, an outcome's
//! code; never an auction or a person.
//!
//! Deliberately absent: exporting. The node installs the recorder and serves `/metrics`.

use crate::fitness::Unfit;
use auction::Reply;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use placement::{NodeId, ShardId};
use std::sync::atomic::{AtomicU64, Ordering};

const BIDS: &str = "rushroom_shard_commands_judged_total";
const LANE: &str = "rushroom_shard_lane_depth_commands";
const FLYING: &str = "rushroom_shard_flying_commands";
const TRIP: &str = "rushroom_shard_commit_trip_ms";
const ENTRY: &str = "rushroom_shard_entry_size_commands";
const BEATS: &str = "rushroom_shard_beats_total";
const HELD: &str = "rushroom_shard_held_ms_total";
const STRAINED: &str = "rushroom_shard_strained";
const CLAMPED: &str = "rushroom_shard_clamped_stamps_total";
const OFFICES: &str = "rushroom_shard_offices_total";
const LATE: &str = "rushroom_shard_close_late_ms";
const FOLLOWERS: &str = "rushroom_feed_followers";
const RESYNCS: &str = "rushroom_feed_resyncs_total";
const MOVES: &str = "rushroom_moves_under_way";
const GOALS: &str = "rushroom_moves_shards_to_go";
const WORK: &str = "rushroom_moves_work_total";
const WORK_TIME: &str = "rushroom_moves_work_seconds";
const RESTING: &str = "rushroom_raft_resting_groups";
const WOKEN: &str = "rushroom_raft_woken_total";
const STOOD: &str = "rushroom_raft_elections_stood_total";
const HEARTBEATS: &str = "rushroom_raft_heartbeats_total";
const HOME: &str = "rushroom_raft_leaders_sent_home_total";
const PEERS: &str = "rushroom_raft_peers_alive";
const LEADS: &str = "rushroom_shard_leads";
const SHUT: &str = "rushroom_shard_shut_replicas";
const LAG: &str = "rushroom_raft_lag_entries";
const MAP_PEERS: &str = "rushroom_map_peers";
const MAP_VERSION: &str = "rushroom_map_version";
const CLUSTER_VERSION: &str = "rushroom_cluster_version";
const NEWEST: &str = "rushroom_cluster_version_newest";
const PAUSED: &str = "rushroom_moves_paused";
const UNFIT: &str = "rushroom_raft_unfit";
const GIVEN: &str = "rushroom_raft_leaders_given_away_total";
const UNPREPARED: &str = "rushroom_wal_files_not_prepared_total";
const SENT: &str = "rushroom_snapshot_sent_bytes_total";
const RECEIVED: &str = "rushroom_snapshot_received_bytes_total";
const RESUMED: &str = "rushroom_snapshot_resumed_total";
const BROKEN: &str = "rushroom_snapshot_broken_total";
const COLD: &str = "rushroom_cold_auctions";
const COLD_BYTES: &str = "rushroom_cold_bytes";
const PAGED_OUT: &str = "rushroom_cold_paged_out_auctions_total";
const COLD_READS: &str = "rushroom_cold_reads_total";
const COLD_FAILED: &str = "rushroom_cold_failures_total";
const COLD_DAMAGED: &str = "rushroom_cold_damaged_records_total";
const FSYNC: &str = "rushroom_wal_fsync_seconds";
const FSYNCED: &str = "rushroom_wal_fsynced_bytes_total";
const BATCH: &str = "rushroom_wal_fsync_batch_records";
const STALLED: &str = "rushroom_wal_stalled_seconds";
const SEGMENTS: &str = "rushroom_wal_segments";
const FREE: &str = "rushroom_wal_disk_free_bytes";
const PRESSURE: &str = "rushroom_wal_disk_pressure";
const CUTS: &str = "rushroom_wal_cut_tails_total";
const RATE: &str = "rushroom_clock_rate_ppm";
const WALL_OFF: &str = "rushroom_clock_wall_off_ms";
const WALL_ERROR: &str = "rushroom_clock_wall_error_ms";
const JUMPS: &str = "rushroom_clock_steps_total";
const GIVEN_UP: &str = "rushroom_clock_strained_given_up_total";
const BEAT_LATE: &str = "rushroom_shard_beat_late_ms";
const HOLDS: &str = "rushroom_shard_holds_total";
const HURT: &str = "rushroom_wal_hurt_shards";

/// Declares every metric with its unit and meaning. Once per process, after the recorder is installed.
pub fn describe() {
    describe_gauge!(
        MOVES,
        Unit::Count,
        "Moves of replicas under way, at the node that leads shard 0"
    );
    describe_gauge!(
        GOALS,
        Unit::Count,
        "Shards that aren't where they should be, at the node that leads shard 0"
    );
    describe_counter!(
        WORK,
        Unit::Count,
        "Changes of a group's members or leader that the mover asked for, by kind and outcome"
    );
    describe_histogram!(WORK_TIME, Unit::Seconds, "How long each of those took, by kind");
    describe_counter!(
        BIDS,
        Unit::Count,
        "Commands answered, by outcome: accepted, a refusal's code, or no verdict"
    );
    describe_gauge!(
        LANE,
        Unit::Count,
        "Commands that wait in a shard's lanes, at its leader"
    );
    describe_gauge!(
        FLYING,
        Unit::Count,
        "Commands proposed and not yet applied, at a shard's leader"
    );
    describe_histogram!(TRIP, Unit::Milliseconds, "From proposing an entry to having it applied");
    describe_histogram!(ENTRY, Unit::Count, "Commands in one entry");
    describe_counter!(BEATS, Unit::Count, "Entries whose only work was to move the clock");
    describe_counter!(HELD, Unit::Milliseconds, "Real time that did not count as bidding time");
    describe_counter!(
        CLAMPED,
        Unit::Count,
        "Stamps outside their bounds; anything but 0 is a bug"
    );
    describe_counter!(
        OFFICES,
        Unit::Count,
        "Offices taken by this node's replicas, by why the last one ended"
    );
    describe_histogram!(
        LATE,
        Unit::Milliseconds,
        "From a close's due stamp on the leader's clock to its commit"
    );
    describe_gauge!(FOLLOWERS, Unit::Count, "Open followers of auctions' feeds");
    describe_counter!(
        RESYNCS,
        Unit::Count,
        "Followers that fell behind and were brought up from the event log"
    );
    describe_pulse();
    describe_cold();
    describe_vitals();
    describe_clock();
    describe_wal();
    show();
}

/// An alert on a counter's rise must see it before it rises; so must a page that shows it.
fn show() {
    for kind in ["add learner", "promote", "hand over", "remove", "settle"] {
        counter!(WORK, "kind" => kind, "outcome" => "done").increment(0);
    }
    counter!(WOKEN, "by" => "proposal").increment(0);
    for unlabelled in [STOOD, HEARTBEATS, HOME, RESYNCS, CUTS] {
        counter!(unlabelled).increment(0);
    }
    for reason in Unfit::ALL {
        unfit(reason, false);
    }
    counter!(GIVEN_UP).increment(0);
    counter!(JUMPS).increment(0);
    followers(0);
    moving(0, 0);
}

fn describe_pulse() {
    describe_gauge!(RESTING, Unit::Count, "Replicas here that rest: no ticks, no heartbeats");
    describe_counter!(
        WOKEN,
        Unit::Count,
        "Replicas that rested and were woken, by what for: proposal, vote, came (a node), start, orphan (leader lost), asked, wanted (a command went to a leader elsewhere)"
    );
    describe_counter!(STOOD, Unit::Count, "Times that a replica here stood for election");
    describe_counter!(
        HEARTBEATS,
        Unit::Count,
        "Rounds of heartbeats said by groups led here; beats of a live shard make them needless"
    );
    describe_counter!(
        HOME,
        Unit::Count,
        "Leaderships handed from here to the node that the map prefers"
    );
    describe_gauge!(PEERS, Unit::Count, "Other nodes whose pulse comes");
    describe_gauge!(
        UNFIT,
        Unit::Count,
        "1 while a reason (label) speaks against this node's leading: disk_low, disk_full, disk_stalled, disk_ailing, clock_rate, clock_step, wall_time"
    );
    describe_counter!(
        GIVEN,
        Unit::Count,
        "Leaderships that this node, being unfit, tried to give away, by outcome"
    );
}

fn describe_clock() {
    describe_gauge!(
        RATE,
        Unit::Count,
        "How much faster a peer's monotonic clock runs than this node's, parts per million over 10 s, by peer"
    );
    describe_gauge!(
        WALL_OFF,
        Unit::Milliseconds,
        "This node's wall clock minus the median of all that speak"
    );
    describe_gauge!(
        WALL_ERROR,
        Unit::Milliseconds,
        "Within this of the median lie more than half of the wall clocks"
    );
    describe_counter!(
        JUMPS,
        Unit::Count,
        "Times that this node's monotonic clock was found to have jumped"
    );
    describe_counter!(
        GIVEN_UP,
        Unit::Count,
        "Leaderships handed away because the shard's clock stood too much here"
    );
    describe_histogram!(
        BEAT_LATE,
        Unit::Milliseconds,
        "From when a beat was due by its pace to when it was proposed"
    );
    describe_counter!(HOLDS, Unit::Count, "Stretches of held time declared in the log");
}

fn describe_cold() {
    describe_gauge!(
        COLD,
        Unit::Count,
        "Settled auctions of this node's replicas that lie on disk instead of in memory"
    );
    describe_gauge!(COLD_BYTES, Unit::Bytes, "Bytes of their records");
    describe_counter!(PAGED_OUT, Unit::Count, "Settled auctions that left memory");
    describe_counter!(COLD_READS, Unit::Count, "Reads of auctions that aren't in memory");
    describe_counter!(
        COLD_FAILED,
        Unit::Count,
        "Times that settled auctions couldn't be written, and stayed in memory"
    );
    describe_counter!(
        COLD_DAMAGED,
        Unit::Count,
        "Records of settled auctions that were found damaged: they are never served"
    );
}

fn describe_vitals() {
    describe_gauge!(
        LEADS,
        Unit::Count,
        "1 where this node leads a shard, 0 for all other shards of the map"
    );
    describe_gauge!(
        SHUT,
        Unit::Count,
        "Replicas that the map gives this node and that aren't open here"
    );
    describe_gauge!(
        LAG,
        Unit::Count,
        "Log entries that a node's replicas lack at most, in the groups led here, by node"
    );
    describe_gauge!(
        MAP_PEERS,
        Unit::Count,
        "Other nodes of the cluster that haven't left it, by this node's map"
    );
    describe_gauge!(
        MAP_VERSION,
        Unit::Count,
        "The version of the cluster map that this node has"
    );
    describe_gauge!(
        CLUSTER_VERSION,
        Unit::Count,
        "The cluster version that all nodes rely on, by this node's map"
    );
    describe_gauge!(NEWEST, Unit::Count, "The newest cluster version that this build knows");
    describe_gauge!(PAUSED, Unit::Count, "1 while an operator has paused all moves");
}

fn describe_snapshots() {
    describe_counter!(
        SENT,
        Unit::Bytes,
        "Bytes of snapshots sent to replicas that were too far behind"
    );
    describe_counter!(RECEIVED, Unit::Bytes, "Bytes of snapshots that came in");
    describe_counter!(
        RESUMED,
        Unit::Count,
        "Transfers that went on where one before them broke off"
    );
    describe_counter!(
        BROKEN,
        Unit::Count,
        "Transfers that didn't end with an installed snapshot"
    );
}

fn describe_wal() {
    describe_snapshots();
    describe_histogram!(FSYNC, Unit::Seconds, "One fdatasync of the log");
    describe_counter!(FSYNCED, Unit::Bytes, "Bytes made durable");
    describe_histogram!(BATCH, Unit::Count, "Log records made durable by one fdatasync");
    describe_gauge!(
        STALLED,
        Unit::Seconds,
        "For how long the disk has had the batch in hand, looked at once a second"
    );
    describe_gauge!(SEGMENTS, Unit::Count, "Segment files of the log");
    describe_gauge!(FREE, Unit::Bytes, "Free room on the log's disk");
    describe_gauge!(
        PRESSURE,
        Unit::Count,
        "0: room enough; 1: below the low-water mark; 2: the disk is full and the reserve in use"
    );
    describe_counter!(
        UNPREPARED,
        Unit::Count,
        "Files for the log that could not be prepared, for want of room or by an I/O error"
    );
    describe_counter!(CUTS, Unit::Count, "Torn ends of the log that were cut at a start");
    describe_gauge!(
        HURT,
        Unit::Count,
        "Shards whose replica here was hurt by damage in the log, found at the start"
    );
}

/// A command was answered.
pub fn judged(reply: &Reply) {
    let outcome = match reply {
        Reply::Verdict(verdict) => verdict.outcome.map_or_else(|reason| reason.code(), |()| "accepted"),
        Reply::NotLeader { .. } => "not_leader",
        Reply::WrongEpoch { .. } => "wrong_epoch",
        Reply::Busy { .. } => "busy",
        Reply::NoRoom { .. } => "disk_full",
        Reply::NotJudged => "not_judged",
        Reply::Unknown => "unknown",
    };
    counter!(BIDS, "outcome" => outcome).increment(1);
}

/// The metrics of one office, looked up once: a leader touches them at every look.
pub struct OfOffice {
    lane: Gauge,
    flying: Gauge,
    trip: Histogram,
    entry: Histogram,
    beats: Counter,
    held: Counter,
    held_told: AtomicU64,
    strained: Gauge,
    clamped: Counter,
    late: Histogram,
    beat_late: Histogram,
    holds: Counter,
}

impl OfOffice {
    /// A replica of this node took office in `shard`; `after` tells how its last one ended.
    pub fn taken(shard: ShardId, after: &'static str) -> Self {
        let shard = shard.0.to_string();
        // An alert on a counter's rise must see it before it rises.
        for other in ["deposed", "failed"] {
            counter!(OFFICES, "shard" => shard.clone(), "after" => other).increment(0);
        }
        counter!(OFFICES, "shard" => shard.clone(), "after" => after).increment(1);
        Self {
            lane: gauge!(LANE, "shard" => shard.clone()),
            flying: gauge!(FLYING, "shard" => shard.clone()),
            trip: histogram!(TRIP),
            entry: histogram!(ENTRY),
            beats: counter!(BEATS, "shard" => shard.clone()),
            held: counter!(HELD, "shard" => shard.clone()),
            held_told: AtomicU64::new(0),
            strained: gauge!(STRAINED, "shard" => shard.clone()),
            holds: counter!(HOLDS, "shard" => shard.clone()),
            beat_late: histogram!(BEAT_LATE),
            clamped: counter!(CLAMPED, "shard" => shard),
            late: histogram!(LATE),
        }
    }

    /// What waits and flies now, and all that was ever clamped in the shard.
    pub fn look(&self, waiting: usize, flying: usize, clamped: u64) {
        self.lane.set(waiting as f64);
        self.flying.set(flying as f64);
        self.clamped.absolute(clamped);
    }

    /// The clock now: all that was held in this office, and whether that is too much.
    pub fn clock(&self, held_ms: u64, strained: bool) {
        let told = self.held_told.swap(held_ms, Ordering::Relaxed);
        self.held.increment(held_ms.saturating_sub(told));
        self.strained.set(f64::from(u8::from(strained)));
    }

    /// An entry was proposed.
    pub fn proposed(&self, commands: usize) {
        if commands == 0 {
            self.beats.increment(1);
        } else {
            self.entry.record(commands as f64);
        }
    }

    /// A beat was proposed this much after its pace wanted it.
    pub fn beat_late(&self, ms: u64) {
        self.beat_late.record(ms as f64);
    }

    /// So many holds went into an entry.
    pub fn holds(&self, count: usize) {
        self.holds.increment(count as u64);
    }

    /// An entry came back after this long.
    pub fn committed(&self, trip_ms: f64) {
        self.trip.record(trip_ms);
    }

    /// A close was committed this much after its due stamp.
    pub fn close_late(&self, ms: u64) {
        self.late.record(ms as f64);
    }
}

impl Drop for OfOffice {
    fn drop(&mut self) {
        self.lane.set(0.0);
        self.flying.set(0.0);
        self.strained.set(0.0);
    }
}

/// A peer's monotonic clock against ours.
pub fn rate(node: NodeId, ppm: i64) {
    gauge!(RATE, "node" => node.0.to_string()).set(ppm as f64);
}

/// This node's wall clock against the median, and how sure that is, both in µs.
pub fn wall(off_us: i64, error_us: u64) {
    gauge!(WALL_OFF).set(off_us as f64 / 1e3);
    gauge!(WALL_ERROR).set(error_us as f64 / 1e3);
}

/// This node's monotonic clock jumped.
pub fn jumped() {
    counter!(JUMPS).increment(1);
}

/// A leadership goes because the shard's clock stood too much here.
pub fn given_up() {
    counter!(GIVEN_UP).increment(1);
}

/// What the mover has before it.
pub fn moving(moves: usize, goals: usize) {
    gauge!(MOVES).set(moves as f64);
    gauge!(GOALS).set(goals as f64);
}

/// The mover asked a group's leader for something.
pub fn move_work(kind: &'static str, done: bool, took: std::time::Duration) {
    counter!(WORK, "kind" => kind, "outcome" => if done { "done" } else { "refused" }).increment(1);
    histogram!(WORK_TIME, "kind" => kind).record(took.as_secs_f64());
}

/// Whether this node leads a shard of the map.
pub fn leads(shard: ShardId, leads: bool) {
    gauge!(LEADS, "shard" => shard.0.to_string()).set(f64::from(u8::from(leads)));
}

/// So many replicas that should be open aren't.
pub fn shut(count: usize) {
    gauge!(SHUT).set(count as f64);
}

/// A node's replicas lack at most so many entries of the groups led here.
pub fn lag(node: NodeId, entries: u64) {
    gauge!(LAG, "node" => node.0.to_string()).set(entries as f64);
}

/// What all nodes rely on, and what this build knows.
pub fn versions(cluster: u32, newest: u32) {
    gauge!(CLUSTER_VERSION).set(f64::from(cluster));
    gauge!(NEWEST).set(f64::from(newest));
}

/// What the map says of the cluster.
pub fn map(version: u64, peers: usize, paused: bool) {
    gauge!(MAP_VERSION).set(version as f64);
    gauge!(MAP_PEERS).set(peers as f64);
    gauge!(PAUSED).set(f64::from(u8::from(paused)));
}

/// A follower opened (+1) or ended (-1).
pub fn followers(change: i32) {
    gauge!(FOLLOWERS).increment(f64::from(change));
}

/// A follower fell behind its buffer and was brought up from the event log.
pub fn resync() {
    counter!(RESYNCS).increment(1);
}

/// So many replicas rest.
pub fn resting(count: u64) {
    gauge!(RESTING).set(count as f64);
}

/// A replica that rested was woken.
pub fn woken(by: &'static str) {
    counter!(WOKEN, "by" => by).increment(1);
}

/// A replica stood for election.
pub fn stood() {
    counter!(STOOD).increment(1);
}

/// A leader said a heartbeat to all its followers.
pub fn heartbeat() {
    counter!(HEARTBEATS).increment(1);
}

/// A leadership goes to the node that the map prefers.
pub fn sent_home() {
    counter!(HOME).increment(1);
}

/// So many other nodes live.
pub fn peers_alive(count: usize) {
    gauge!(PEERS).set(count as f64);
}

/// A reason not to lead is there, or gone.
pub fn unfit(reason: Unfit, is_so: bool) {
    gauge!(UNFIT, "reason" => reason.code()).set(f64::from(u8::from(is_so)));
}

/// This node, being unfit, gave a leadership away, or tried to.
pub fn given_away(done: bool) {
    counter!(GIVEN, "outcome" => if done { "done" } else { "stayed" }).increment(1);
}

/// A file for the log could not be prepared.
pub fn unprepared() {
    counter!(UNPREPARED).increment(1);
}

/// A piece of a snapshot goes out.
pub fn snapshot_sent(bytes: usize) {
    counter!(SENT).increment(bytes as u64);
}

/// A piece of a snapshot came in.
pub fn snapshot_received(bytes: usize) {
    counter!(RECEIVED).increment(bytes as u64);
}

/// A transfer goes on where one before it broke off.
pub fn snapshot_resumed() {
    counter!(RESUMED).increment(1);
}

/// A transfer broke off.
pub fn snapshot_broken() {
    counter!(BROKEN).increment(1);
}

/// So many settled auctions lie on this node's disk, in so many bytes.
pub fn cold(auctions: u64, bytes: u64) {
    gauge!(COLD).set(auctions as f64);
    gauge!(COLD_BYTES).set(bytes as f64);
    // What never happened is told as well: a panel that is empty says nothing.
    for never in [PAGED_OUT, COLD_READS, COLD_FAILED, COLD_DAMAGED] {
        counter!(never).increment(0);
    }
}

/// Settled auctions left memory.
pub fn cold_paged_out(auctions: usize) {
    counter!(PAGED_OUT).increment(auctions as u64);
}

/// Somebody asked for what isn't in memory.
pub fn cold_read() {
    counter!(COLD_READS).increment(1);
}

/// Settled auctions couldn't be written, and stay in memory.
pub fn cold_failed() {
    counter!(COLD_FAILED).increment(1);
}

/// A record of a settled auction isn't what was written.
pub fn cold_damaged() {
    counter!(COLD_DAMAGED).increment(1);
}

/// One fdatasync of the log took `seconds` for `records` and `bytes`.
pub fn fsync(seconds: f64, records: usize, bytes: u64) {
    histogram!(FSYNC).record(seconds);
    histogram!(BATCH).record(records as f64);
    counter!(FSYNCED).increment(bytes);
}

/// For how long the disk has had the batch in hand.
pub fn stalled(seconds: f64) {
    gauge!(STALLED).set(seconds);
}

/// So many segment files.
pub fn segments(count: usize) {
    gauge!(SEGMENTS).set(count as f64);
}

/// So many bytes are free, and so hard it presses (see `wal::Pressure`).
pub fn disk(free: u64, pressure: u8) {
    gauge!(FREE).set(free as f64);
    gauge!(PRESSURE).set(f64::from(pressure));
}

/// A torn end of the log was cut.
pub fn cut() {
    counter!(CUTS).increment(1);
}

/// So many groups are hurt.
pub fn hurt(count: usize) {
    gauge!(HURT).set(count as f64);
}
