//! What an operator can see of the edge: every metric declared once, with unit and meaning.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use std::time::Duration;

const SOCKETS: &str = "rushroom_edge_sockets";
const CONNECTIONS: &str = "rushroom_edge_connections_total";
const CLOSES: &str = "rushroom_edge_closes_total";
const ROOMS: &str = "rushroom_edge_rooms";
const REFOLLOWS: &str = "rushroom_edge_refollows_total";
const ENCODED: &str = "rushroom_edge_encoded_frames_total";
const SENT: &str = "rushroom_edge_sent_frames_total";
const SLOW: &str = "rushroom_edge_viewer_snapshots_total";
const CHAT_SKIPPED: &str = "rushroom_edge_chat_skipped_total";
const BIDS: &str = "rushroom_edge_bids_total";
const GATE_WAIT: &str = "rushroom_edge_gate_wait_seconds";
const BID_TIME: &str = "rushroom_edge_bid_seconds";
const SETTLED: &str = "rushroom_edge_bids_settled_total";
const TURNED_AWAY: &str = "rushroom_edge_bids_turned_away_total";
const GAVE_WAY: &str = "rushroom_edge_gave_way_total";
const ASKS: &str = "rushroom_edge_asks_total";
const PROBLEMS: &str = "rushroom_edge_problems_total";
const LIMITED: &str = "rushroom_edge_limited_total";
const SEEN: &str = "rushroom_edge_seen_delay_seconds";

/// Tells the recorder what the names mean. Called once by `node`.
pub fn describe() {
    describe_gauge!(SOCKETS, Unit::Count, "WebSockets open at this edge");
    describe_counter!(
        CONNECTIONS,
        Unit::Count,
        "connections by fate: accepted, or turned away because the edge is full"
    );
    describe_counter!(CLOSES, Unit::Count, "WebSockets closed by the edge, by close code");
    describe_gauge!(ROOMS, Unit::Count, "auctions with a feed at this edge");
    describe_counter!(
        REFOLLOWS,
        Unit::Count,
        "feeds that ended and were followed again, by whether events were missed"
    );
    describe_counter!(
        ENCODED,
        Unit::Count,
        "frames encoded for rooms (each is shared by all viewers)"
    );
    describe_counter!(SENT, Unit::Count, "frames sent to viewers");
    describe_counter!(
        SLOW,
        Unit::Count,
        "viewers that fell behind and were given the newest state and a snapshot"
    );
    describe_counter!(CHAT_SKIPPED, Unit::Count, "chat lines that slow viewers never saw");
    describe_counter!(
        BIDS,
        Unit::Count,
        "bids by outcome: accepted, a refusal's code, timeout, unavailable"
    );
    describe_counter!(
        SETTLED,
        Unit::Count,
        "bids answered from this node's own replica, without asking the leader: too low or too late for good, or sent again"
    );
    describe_counter!(
        TURNED_AWAY,
        Unit::Count,
        "bids answered busy at the edge: their shard has as many under way and waiting as it drains"
    );
    describe_counter!(
        GAVE_WAY,
        Unit::Count,
        "pauses of sockets that said many things at once while much else was ready on this node"
    );
    describe_histogram!(
        GATE_WAIT,
        Unit::Seconds,
        "how long bids waited at the edge for their shard's leave, before they could be stamped"
    );
    describe_histogram!(BID_TIME, Unit::Seconds, "from a bid at the edge to its verdict");
    describe_counter!(
        ASKS,
        Unit::Count,
        "questions to shards by what came back; 'verdict' alone in a steady cluster"
    );
    describe_counter!(PROBLEMS, Unit::Count, "problems answered over HTTP, by code");
    describe_counter!(LIMITED, Unit::Count, "requests refused by a rate limit, by kind");
    describe_histogram!(
        SEEN,
        Unit::Seconds,
        "delay of pictures as viewers' pages measured it, by leg: uplink, hops, receive, buffer, decode, display, whole (their sum); hammer: how old the picture on screen was when the auction closed"
    );
    begin();
}

fn begin() {
    // An alert on a counter's rise must see it before it rises.
    counter!(CONNECTIONS, "fate" => "turned_away").increment(0);
    for outcome in ["accepted", "busy", "timeout", "unavailable"] {
        counter!(BIDS, "outcome" => outcome).increment(0);
    }
    for kind in ["bid", "command"] {
        counter!(LIMITED, "kind" => kind).increment(0);
    }
    counter!(CLOSES, "code" => "4503").increment(0);
    for unlabelled in [ENCODED, SENT, SLOW] {
        counter!(unlabelled).increment(0);
    }
    gauge!(SOCKETS).set(0.0);
    gauge!(ROOMS).set(0.0);
}

pub(crate) fn sockets(n: usize) {
    gauge!(SOCKETS).set(n as f64);
}

pub(crate) fn connection(fate: &'static str) {
    counter!(CONNECTIONS, "fate" => fate).increment(1);
}

pub(crate) fn closed(code: u16) {
    counter!(CLOSES, "code" => code.to_string()).increment(1);
}

pub(crate) fn rooms(n: usize) {
    gauge!(ROOMS).set(n as f64);
}

pub(crate) fn refollowed(gap: bool) {
    counter!(REFOLLOWS, "gap" => if gap { "yes" } else { "no" }).increment(1);
}

pub(crate) fn encoded() {
    counter!(ENCODED).increment(1);
}

pub(crate) fn sent(n: u64) {
    counter!(SENT).increment(n);
}

pub(crate) fn fell_behind() {
    counter!(SLOW).increment(1);
}

pub(crate) fn chat_skipped(n: u64) {
    counter!(CHAT_SKIPPED).increment(n);
}

pub(crate) fn bid(outcome: &'static str, took: Duration) {
    counter!(BIDS, "outcome" => outcome).increment(1);
    histogram!(BID_TIME).record(took.as_secs_f64());
}

pub(crate) fn waited_at_the_gate(waited: Duration) {
    histogram!(GATE_WAIT).record(waited.as_secs_f64());
}

pub(crate) fn settled() {
    counter!(SETTLED).increment(1);
}

pub(crate) fn turned_away() {
    counter!(TURNED_AWAY).increment(1);
}

pub(crate) fn gave_way() {
    counter!(GAVE_WAY).increment(1);
}

pub(crate) fn asked(answer: &'static str) {
    counter!(ASKS, "answer" => answer).increment(1);
}

pub(crate) fn problem(code: &'static str) {
    counter!(PROBLEMS, "code" => code).increment(1);
}

pub(crate) fn seen(leg: &'static str, took: Duration) {
    histogram!(SEEN, "leg" => leg).record(took.as_secs_f64());
}

pub(crate) fn limited(kind: &'static str) {
    counter!(LIMITED, "kind" => kind).increment(1);
}
