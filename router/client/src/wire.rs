//! The edge's protocol as types: one struct per object of `docs/protocol.md`, one enum per direction of the socket.
//!
//! Unknown fields are ignored and unknown messages become `ServerFrame::Other`: a client of today speaks with an edge of
//! tomorrow. What the client *sends* is exact. Hashes stay text: the client compares them, it never computes with them.

use serde::{Deserialize, Serialize};

/// How a bid cuts the time left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rush {
    /// Most that one bid can cut, ppm of the time left.
    pub cut_ppm_max: u64,
    /// Cut for a raise of 100 %, ppm of the time left.
    pub cut_per_raise_ppm: u64,
    /// Never below this, ms.
    pub floor_ms: u64,
}

/// How a late bid gives time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SoftClose {
    /// A bid within the last `window_ms` extends.
    pub window_ms: u64,
    /// The time left after it.
    pub reset_to_ms: u64,
    /// How often it may.
    pub extensions_max: u32,
}

/// What a seller posts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NewAuction {
    /// Chosen by the seller; the edge makes one if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// One line.
    pub title: String,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// ISO 4217.
    pub currency: String,
    /// Least first bid.
    pub start_price: u64,
    /// `[from price, increment]` rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub increments: Option<Vec<[u64; 2]>>,
    /// Hidden until met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserve: Option<u64>,
    /// Bidding time at the start.
    pub duration_ms: u64,
    /// Cut by bids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rush: Option<Rush>,
    /// Extension by late bids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_close: Option<SoftClose>,
    /// Guests may bid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guests: Option<bool>,
    /// The clock pauses while the stream is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_without_stream: Option<bool>,
}

/// The node that takes a seller's stream in.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct StreamAt {
    /// The node.
    pub node: u64,
    /// The stream.
    pub id: String,
}

/// An auction as the edge shows it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Auction {
    /// Its id.
    pub id: String,
    /// Version of the definition.
    pub version: u32,
    /// Who sells.
    pub seller: String,
    /// One line.
    pub title: String,
    /// Free text.
    pub description: String,
    /// ISO 4217.
    pub currency: String,
    /// Least first bid.
    pub start_price: u64,
    /// `[from price, increment]` rows.
    pub increments: Vec<[u64; 2]>,
    /// Bidding time at the start.
    pub duration_ms: u64,
    /// Cut by bids.
    pub rush: Option<Rush>,
    /// Extension by late bids.
    pub soft_close: Option<SoftClose>,
    /// Guests may bid.
    pub guests: bool,
    /// The clock pauses while the stream is gone.
    pub pause_without_stream: bool,
    /// `draft`, `scheduled`, `live`, `paused` or `closed`.
    pub phase: String,
    /// `sold`, `unsold` or `cancelled`.
    pub outcome: Option<String>,
    /// Version of the auction.
    pub seq: u64,
    /// Visible price.
    pub price: u64,
    /// Least next bid.
    pub least: u64,
    /// Who leads.
    pub leader: Option<String>,
    /// Accepted bids.
    pub bids: u64,
    /// Whether the reserve is met.
    pub reserve_met: Option<bool>,
    /// The deadline, a stamp.
    pub ends_at: Option<u64>,
    /// Time left while paused.
    pub left_ms: Option<u64>,
    /// Wall time of a scheduled start.
    pub start_at_ms: Option<u64>,
    /// Stamp of the newest event.
    pub ct: u64,
    /// Hash of the newest event.
    pub h: String,
    /// The seller's stream.
    pub stream: Option<StreamAt>,
    /// The shard that holds it.
    pub shard: u32,
    /// The shard's clock when the edge answered.
    pub now: Option<u64>,
}

impl Auction {
    /// Over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase == "closed"
    }
}

/// One accepted change of one auction.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Event {
    /// Version after it.
    pub seq: u64,
    /// `open`, `bid`, `raise`, `pause`, `resume`, `extend`, `held`, `close` or `stream`.
    pub ty: String,
    /// Its stamp.
    pub ct: u64,
    /// The deadline after it.
    pub ends_at: u64,
    /// Whose command.
    pub actor: Option<String>,
    /// That command's id.
    pub id: Option<String>,
    /// Visible price after it.
    pub price: u64,
    /// Who leads after it.
    pub leader: Option<String>,
    /// Its hash.
    pub h: String,
    /// What stands in its line's `idem` where that isn't the id.
    pub digest: Option<String>,
    /// Who sells, of an `open`.
    pub seller: Option<String>,
    /// The seal of a hidden reserve, of an `open`.
    pub seal: Option<String>,
    /// A bid's amount.
    pub amount: Option<u64>,
    /// Time that it cut.
    pub cut_ms: Option<u64>,
    /// Time that it gave.
    pub extended_ms: Option<u64>,
    /// Time left, of a pause.
    pub left_ms: Option<u64>,
    /// When a pause ends by itself.
    pub until: Option<u64>,
    /// Length of a declared pause, extension or hold.
    pub dms: Option<u64>,
    /// How it closed.
    pub outcome: Option<String>,
    /// The stream's node.
    pub node: Option<u64>,
    /// The stream.
    pub stream: Option<String>,
}

/// The final answer to a command.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// Accepted.
    pub ok: bool,
    /// Why not.
    pub code: Option<String>,
    /// The version it made or saw.
    pub seq: u64,
    /// Price at that version.
    pub price: u64,
    /// Least next bid at that version.
    pub least: u64,
    /// Who led at that version.
    pub leader: Option<String>,
    /// Phase at that version.
    pub phase: String,
    /// The stamp it was judged at.
    pub ct: u64,
    /// Deadline at that version.
    pub ends_at: Option<u64>,
    /// Hash at that version.
    pub h: String,
    /// The verdict of an earlier sending, remembered.
    pub dup: bool,
}

/// A line of chat.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ChatLine {
    /// Order holds within one.
    pub chat_epoch: u64,
    /// Place in the order.
    pub cseq: u64,
    /// Who.
    pub from: String,
    /// Their shown name.
    pub name: String,
    /// The sender's id of the line.
    pub id: String,
    /// What.
    pub text: String,
}

/// RFC 9457 problem details, with our code.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// A reason of the one table, or `bad_request`, `too_large`, `unsupported`, `timeout`, `unavailable`.
    pub code: String,
    /// HTTP status.
    pub status: u16,
    /// For people.
    pub title: String,
    /// For people, more.
    pub detail: String,
    /// The verdict behind it, if a shard judged.
    pub verdict: Option<Verdict>,
    /// When to send it again with the same id, ms, if the edge says so (`busy`).
    pub retry_after_ms: Option<u64>,
}

impl Problem {
    /// Whether the command may still be accepted: asking again with the same id is right, telling the user "no" is wrong.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.code.as_str(), "timeout" | "unavailable" | "busy" | "")
    }
}

/// A page of a list.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where the next one starts (a cursor, or a number for events).
    #[serde(default)]
    pub next: Option<serde_json::Value>,
}

/// A signed-in person.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct User {
    /// Their id: the `actor` and `leader` of events.
    pub id: String,
    /// Shown name.
    pub name: String,
    /// What they may be.
    pub roles: Vec<String>,
}

/// The cluster as one node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cluster {
    /// The node that answered.
    pub me: u64,
    /// A demo: `stop` works.
    pub demo: bool,
    /// Of the map.
    pub epoch: u64,
    /// The nodes.
    pub nodes: Vec<ClusterNode>,
    /// The shards.
    pub shards: Vec<ClusterShard>,
    /// Live streams at the answering node.
    pub streams: Vec<ClusterStream>,
}

impl Cluster {
    /// Who leads `shard`, as far as the answering node knows.
    #[must_use]
    pub fn leader(&self, shard: u32) -> Option<u64> {
        self.shards.iter().find(|s| s.id == shard).and_then(|s| s.leader)
    }
}

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClusterNode {
    /// Its id.
    pub id: u64,
    /// Failure domain.
    pub zone: String,
    /// Media region.
    pub region: String,
    /// Base URL for clients.
    pub http: String,
    /// The answering node hears it.
    pub alive: bool,
    /// Share of shards.
    pub weight: u32,
}

/// A shard of the cluster, and the answering node's own replica of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClusterShard {
    /// Its id.
    pub id: u32,
    /// Who leads.
    pub leader: Option<u64>,
    /// The own replica's term.
    pub term: Option<u64>,
    /// Who holds it.
    pub replicas: Vec<u64>,
    /// Live auctions in it.
    pub auctions_live: u64,
    /// The clock, as the own replica has it.
    pub now: Option<u64>,
    /// Real time that did not count.
    pub held_total_ms: Option<u64>,
    /// The own replica's role.
    pub role: Option<String>,
    /// The own replica's applied index.
    pub applied: Option<u64>,
    /// Whose lanes the last offices found behind, by the own replica.
    pub behind: Vec<ClusterBehind>,
}

/// An auction whose lane was behind when an office was taken: in that office's grace its bids are stamped with less than
/// the clock reads.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClusterBehind {
    /// The office.
    pub term: u64,
    /// The office, within the term.
    pub turn: u32,
    /// Where the clock stood in its grace.
    pub base: u64,
    /// The auction.
    pub auction: String,
    /// From where on its bids were stamped.
    pub stamp: u64,
    /// Its version then.
    pub seq: u64,
}

/// A live stream at the answering node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClusterStream {
    /// Its auction.
    pub auction: String,
    /// The node that takes it in.
    pub node: u64,
    /// Viewers there.
    pub viewers: u64,
}

/// What a client says on its socket.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "t", rename_all = "lowercase")]
pub enum ClientFrame<'a> {
    /// Signs in.
    Hello {
        /// The token.
        token: &'a str,
    },
    /// Follows an auction.
    Join {
        /// The auction.
        a: &'a str,
        /// Resume: of this feed.
        #[serde(skip_serializing_if = "Option::is_none")]
        epoch: Option<u64>,
        /// Resume: after this version.
        #[serde(skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
    },
    /// Stops following.
    Leave {
        /// The auction.
        a: &'a str,
    },
    /// Bids.
    Bid {
        /// The auction.
        a: &'a str,
        /// The idempotency key.
        id: &'a str,
        /// Minor units.
        amount: u64,
        /// A stamp of the auction's clock from when the id was first sent.
        #[serde(skip_serializing_if = "Option::is_none")]
        sent: Option<u64>,
    },
    /// Says a line.
    Chat {
        /// The auction.
        a: &'a str,
        /// The line's id.
        id: &'a str,
        /// What.
        text: &'a str,
    },
    /// Asks the edge's time.
    Ping {
        /// Given back.
        c: u64,
    },
}

/// What an edge says on a socket.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(tag = "t", rename_all = "lowercase")]
pub enum ServerFrame {
    /// Who answers; who we are.
    Hello {
        /// The node.
        node: u64,
        /// Its region.
        #[serde(default)]
        region: String,
        /// Who we are, after signing in.
        user: Option<User>,
        /// The edge's time.
        s: f64,
    },
    /// Forget what you had: start from here.
    Snap {
        /// The auction.
        a: String,
        /// Of the feed.
        epoch: u64,
        /// Its version.
        offset: u64,
        /// The auction then.
        auction: Box<Auction>,
        /// The newest events up to `offset`.
        #[serde(default)]
        recent: Vec<Event>,
    },
    /// The resume is complete.
    Resumed {
        /// The auction.
        a: String,
        /// Of the feed.
        epoch: u64,
        /// Events after this follow.
        offset: u64,
    },
    /// The next event.
    Event {
        /// The auction.
        a: String,
        /// What happened.
        event: Box<Event>,
    },
    /// The definition changed before it was live.
    Changed {
        /// The auction.
        a: String,
        /// The auction now.
        auction: Box<Auction>,
    },
    /// Newest values: events were coalesced, a `snap` follows.
    State {
        /// The auction.
        a: String,
        /// Visible price.
        price: u64,
        /// Least next bid.
        least: u64,
        /// Who leads.
        leader: Option<String>,
        /// The deadline.
        ends_at: Option<u64>,
        /// Version.
        seq: u64,
    },
    /// At edge time `s` the shard's clock read `now`.
    Clock {
        /// The auction.
        a: String,
        /// The reading.
        now: u64,
        /// The deadline.
        ends_at: Option<u64>,
        /// Edge time of the reading.
        s: f64,
        /// Its error.
        err_ms: f64,
        /// Freeze the number.
        held: bool,
    },
    /// The answer to a bid.
    Verdict {
        /// The auction.
        a: String,
        /// The bid's id.
        id: String,
        /// Judged.
        verdict: Option<Verdict>,
        /// Refused before a shard judged, or not yet known.
        problem: Option<Problem>,
    },
    /// A line of chat.
    Chat {
        /// The auction.
        a: String,
        /// The line.
        chat: ChatLine,
    },
    /// How many watch.
    Counts {
        /// The auction.
        a: String,
        /// Viewers.
        viewers: u64,
    },
    /// The edge's time.
    Pong {
        /// What we sent.
        c: u64,
        /// The edge's time.
        s: f64,
    },
    /// A frame was not understood, or refused.
    Problem {
        /// What is wrong.
        problem: Problem,
        /// The auction it was about.
        a: Option<String>,
        /// The id it had.
        id: Option<String>,
    },
    /// Something that this client doesn't know.
    #[serde(other)]
    Other,
}

impl ServerFrame {
    /// Reads a frame. Verdicts are read straight: by its tag, a frame is first taken apart into values and then put together
    /// again, and most of what a busy bidder hears are verdicts.
    ///
    /// # Errors
    /// When it isn't a frame of the protocol.
    pub fn parse(text: &str) -> Result<ServerFrame, serde_json::Error> {
        #[derive(Deserialize)]
        struct Straight {
            a: String,
            id: String,
            verdict: Option<Verdict>,
            problem: Option<Problem>,
        }
        if text.starts_with(r#"{"t":"verdict","#) {
            let Straight {
                a,
                id,
                verdict,
                problem,
            } = serde_json::from_str(text)?;
            return Ok(ServerFrame::Verdict {
                a,
                id,
                verdict,
                problem,
            });
        }
        serde_json::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_we_send_is_what_the_protocol_says() {
        let check = |frame: ClientFrame<'_>, text: &str| assert_eq!(serde_json::to_string(&frame).unwrap(), text);
        check(
            ClientFrame::Join {
                a: "a1",
                epoch: None,
                offset: None,
            },
            r#"{"t":"join","a":"a1"}"#,
        );
        check(
            ClientFrame::Join {
                a: "a1",
                epoch: Some(2),
                offset: Some(9),
            },
            r#"{"t":"join","a":"a1","epoch":2,"offset":9}"#,
        );
        check(
            ClientFrame::Bid {
                a: "a1",
                id: "k",
                amount: 5,
                sent: None,
            },
            r#"{"t":"bid","a":"a1","id":"k","amount":5}"#,
        );
        check(
            ClientFrame::Bid {
                a: "a1",
                id: "k",
                amount: 5,
                sent: Some(77),
            },
            r#"{"t":"bid","a":"a1","id":"k","amount":5,"sent":77}"#,
        );
        check(ClientFrame::Ping { c: 3 }, r#"{"t":"ping","c":3}"#);
    }

    #[test]
    fn what_we_don_t_know_is_not_an_error() {
        let frame: ServerFrame = serde_json::from_str(r#"{"t":"weather","mood":"fine"}"#).unwrap();
        assert_eq!(frame, ServerFrame::Other);
        let frame: ServerFrame =
            serde_json::from_str(r#"{"t":"event","a":"x","event":{"seq":4,"ty":"bid","new":1}}"#).unwrap();
        let ServerFrame::Event { event, .. } = frame else {
            panic!("{frame:?}")
        };
        assert_eq!((event.seq, event.ty.as_str(), event.amount), (4, "bid", None));
    }

    #[test]
    fn a_verdict_is_the_same_read_straight_and_by_its_tag() {
        for text in [
            r#"{"t":"verdict","a":"x","id":"k","verdict":{"ok":true,"seq":3,"price":7}}"#,
            r#"{"t":"verdict","a":"x","id":"k","problem":{"code":"busy","retry_after_ms":80}}"#,
            r#"{"t":"verdict","a":"x","id":"k","new":[1]}"#,
        ] {
            let tagged: ServerFrame = serde_json::from_str(text).unwrap();
            assert!(matches!(tagged, ServerFrame::Verdict { .. }), "{text}");
            assert_eq!(ServerFrame::parse(text).unwrap(), tagged, "{text}");
        }
        assert!(ServerFrame::parse(r#"{"t":"verdict","a":1}"#).is_err());
        assert_eq!(ServerFrame::parse(r#"{"t":"weather"}"#).unwrap(), ServerFrame::Other);
    }

    #[test]
    fn only_an_open_problem_is_asked_again() {
        for (code, open) in [
            ("timeout", true),
            ("unavailable", true),
            ("busy", true),
            ("low", false),
            ("rate", false),
        ] {
            assert_eq!(
                Problem {
                    code: code.into(),
                    ..Problem::default()
                }
                .is_open(),
                open,
                "{code}"
            );
        }
    }
}
