//! `rushroom-history/1`: what a run under test writes down, as types; reading many files as one, writing one.
//!
//! The form is fixed by its document; this file follows it line by line. What it adds is called *ours*, is optional, and means
//! nothing to a reader that doesn't know it. A record remembers where it stands (file and
//! line), because a violation is only worth something together with the lines that show it.
//!
//! Deliberately absent: meaning. `book` relates records to each other, `check` judges them.

use serde::{Deserialize, Serialize};
use std::{io::Write, path::Path};

/// Nanoseconds of the harness's CLOCK_MONOTONIC.
pub(crate) type Nanos = i64;

/// The first line: what ran, by which rule.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Meta {
    pub(crate) format: u32,
    pub(crate) run: String,
    pub(crate) commit: String,
    pub(crate) profile: String,
    pub(crate) seed: u64,
    pub(crate) nodes: Vec<u64>,
    pub(crate) replicas: u64,
    pub(crate) start_price: u64,
    pub(crate) min_inc: u64,
    pub(crate) floor_ms: u64,
    pub(crate) k_ppm: u64,
    pub(crate) cap_ppm: u64,
    pub(crate) eps_ms: u64,
    pub(crate) clock_policy: String,
    pub(crate) window: u64,
    /// Ours: a definite answer must come at least this often while someone waits (C12); absent: only measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rto_max_ms: Option<u64>,
    /// Ours: a bid beside a storm on another auction of its shard is answered within this (C14); absent: only measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) neighbour_max_ms: Option<u64>,
    /// Ours: a viewer's picture may stand still this long (C12); absent: only measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) frozen_max_ms: Option<u64>,
    /// Ours: a seller whose node died must be taken in by another within this (C12); absent: only measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) republish_max_ms: Option<u64>,
    /// Ours: viewers of video that the run had, whether they saw anything or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) video_viewers: Option<u64>,
    /// Ours: for how long an id's refusal is remembered, ms of its shard's clock (C5); absent: not judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refusals_ms: Option<u64>,
    /// Ours: what the checks said of a run with a planted bug (`failed`, as it must).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) canary: Option<String>,
}

/// An operation begins.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Inv {
    pub(crate) t: Nanos,
    pub(crate) p: u64,
    pub(crate) op: u64,
    pub(crate) f: String,
    pub(crate) a: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bidder: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) amt: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) arg: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<u64>,
    /// Ours: the stamp before which its id was surely not sent, as the command itself says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sent: Option<u64>,
}

/// An operation ends.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Ret {
    pub(crate) t: Nanos,
    pub(crate) p: u64,
    pub(crate) op: u64,
    pub(crate) st: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hi: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ldr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ph: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ct: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dl: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) h: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) term: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) dup: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
}

/// A viewer got an event, a snapshot or a line of chat.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Evt {
    pub(crate) t: Nanos,
    pub(crate) p: u64,
    pub(crate) sub: u64,
    pub(crate) a: String,
    pub(crate) seq: u64,
    pub(crate) ty: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) h: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) amt: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bidder: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ct: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dl: Option<u64>,
    /// Ours, for `held`: how long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dms: Option<u64>,
    /// For chat: its epoch, its place in it, and the line's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) chat_epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cseq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idem: Option<String>,
}

/// A viewer's connection to an auction opens or closes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Sub {
    pub(crate) t: Nanos,
    pub(crate) p: u64,
    pub(crate) sub: u64,
    pub(crate) a: String,
    pub(crate) ev: String,
    pub(crate) from: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<u64>,
}

/// One event of one auction in one replica's final log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Log {
    pub(crate) node: u64,
    pub(crate) shard: u32,
    pub(crate) a: String,
    pub(crate) seq: u64,
    pub(crate) ty: String,
    pub(crate) idem: String,
    pub(crate) bidder: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) amt: Option<u64>,
    pub(crate) ct: u64,
    pub(crate) dl: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dms: Option<u64>,
    pub(crate) h: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) term: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) chat_epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cseq: Option<u64>,
}

/// A fault starts or stops.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Nem {
    pub(crate) t: Nanos,
    pub(crate) id: u64,
    pub(crate) ev: String,
    pub(crate) f: String,
    pub(crate) tgt: Vec<u64>,
    pub(crate) d: serde_json::Value,
    pub(crate) eff: String,
}

/// What a replica is, as it says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Role {
    pub(crate) t: Nanos,
    pub(crate) node: u64,
    pub(crate) shard: u32,
    pub(crate) role: String,
    pub(crate) term: u64,
    pub(crate) applied: u64,
}

/// A viewer decoded a frame.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Med {
    pub(crate) t: Nanos,
    pub(crate) p: u64,
    pub(crate) a: String,
    pub(crate) n: u64,
    pub(crate) src_t: Nanos,
    pub(crate) node: u64,
}

/// A leader's clock stood.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Held {
    pub(crate) t: Nanos,
    pub(crate) node: u64,
    pub(crate) shard: u32,
    pub(crate) dms: u64,
}

/// Ours: an auction whose lane was behind when an office of its shard was taken, as a replica has it from the log. In that
/// office's grace its bids are stamped from `ct` on, while the clock reads `base`; nothing else in a history tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Behind {
    /// When the harness saw it.
    pub(crate) t: Nanos,
    pub(crate) node: u64,
    pub(crate) shard: u32,
    pub(crate) term: u64,
    pub(crate) turn: u32,
    /// Where the office's clock stood until the end of its grace.
    pub(crate) base: u64,
    pub(crate) a: String,
    /// The auction's watermark, below `base`.
    pub(crate) ct: u64,
    /// The auction's version when the office was taken.
    pub(crate) seq: u64,
}

/// The last line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct End {
    pub(crate) t: Nanos,
    pub(crate) ops: u64,
    pub(crate) healed: bool,
}

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "k", rename_all = "lowercase")]
pub(crate) enum Record {
    Meta(Meta),
    Inv(Inv),
    Ret(Ret),
    Evt(Evt),
    Sub(Sub),
    Log(Log),
    Nem(Nem),
    Role(Role),
    Med(Med),
    Held(Held),
    Behind(Behind),
    End(End),
}

/// Where a record stands: (file, line), from 0 and 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) file: u32,
    pub(crate) line: u32,
}

/// A record and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) place: Place,
    pub(crate) is: T,
}

/// Everything that was read.
#[derive(Debug, Default)]
pub(crate) struct History {
    names: Vec<String>,
    texts: Vec<String>,
    /// Start of each line in its text, per file: a violation shows its lines without a second copy of them.
    starts: Vec<Vec<usize>>,
    pub(crate) records: Vec<At<Record>>,
    /// Lines that are no record: (where, why).
    pub(crate) broken: Vec<(Place, String)>,
}

impl History {
    /// Reads files as one history.
    pub(crate) fn read<P: AsRef<Path>>(paths: &[P]) -> std::io::Result<History> {
        let mut history = History::default();
        for path in paths {
            let text = std::fs::read_to_string(path)?;
            history.add(&path.as_ref().display().to_string(), text);
        }
        Ok(history)
    }

    /// A history of records that were never a file: how the checkers are proven.
    pub(crate) fn of(records: &[Record]) -> History {
        let mut text = String::new();
        for record in records {
            text.push_str(&serde_json::to_string(record).unwrap_or_default());
            text.push('\n');
        }
        let mut history = History::default();
        history.add("generated", text);
        history
    }

    fn add(&mut self, name: &str, text: String) {
        let file = self.texts.len() as u32;
        let mut starts = Vec::new();
        let mut start = 0;
        for (n, line) in text.split_inclusive('\n').enumerate() {
            starts.push(start);
            start += line.len();
            let place = Place {
                file,
                line: n as u32 + 1,
            };
            match line.trim() {
                "" => {}
                line => match serde_json::from_str(line) {
                    Ok(is) => self.records.push(At { place, is }),
                    Err(error) => self.broken.push((place, error.to_string())),
                },
            }
        }
        self.names.push(name.into());
        self.texts.push(text);
        self.starts.push(starts);
    }

    /// A line as it stands in its file, with its address.
    pub(crate) fn show(&self, place: Place) -> String {
        let (file, n) = (place.file as usize, place.line as usize - 1);
        let line = self.starts.get(file).and_then(|starts| {
            let (from, text) = (*starts.get(n)?, &self.texts[file]);
            let to = starts.get(n + 1).copied().unwrap_or(text.len());
            Some(text[from..to].trim_end())
        });
        let name = self.names.get(file).map_or("?", String::as_str);
        format!("{name}:{}: {}", place.line, line.unwrap_or("?"))
    }
}

/// Writes a history, line by line.
pub(crate) struct Writer {
    file: std::io::BufWriter<std::fs::File>,
}

impl Writer {
    /// A new history at `path`.
    pub(crate) fn create(path: &Path) -> std::io::Result<Writer> {
        Ok(Writer {
            file: std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(path)?),
        })
    }

    /// One more line.
    pub(crate) fn write(&mut self, record: &Record) -> std::io::Result<()> {
        serde_json::to_writer(&mut self.file, record)?;
        self.file.write_all(b"\n")
    }

    /// On disk.
    pub(crate) fn finish(mut self) -> std::io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_line_is_shown_where_it_stands() {
        let mut history = History::default();
        history.add(
            "h",
            "{\"k\":\"end\",\"t\":1,\"ops\":2,\"healed\":true}\n\nnot a record\n".into(),
        );
        assert_eq!(history.records.len(), 1);
        assert_eq!(history.broken.len(), 1);
        assert_eq!(history.show(history.broken[0].0), "h:3: not a record");
        assert_eq!(
            history.show(Place { file: 0, line: 1 }),
            r#"h:1: {"k":"end","t":1,"ops":2,"healed":true}"#
        );
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let inv = Inv {
            t: 5,
            p: 1,
            op: 2,
            f: "bid".into(),
            a: "x".into(),
            amt: Some(9),
            ..Inv::default()
        };
        let text = serde_json::to_string(&Record::Inv(inv)).unwrap();
        assert_eq!(text, r#"{"k":"inv","t":5,"p":1,"op":2,"f":"bid","a":"x","amt":9}"#);
        assert!(matches!(
            serde_json::from_str(&text),
            Ok(Record::Inv(Inv { amt: Some(9), .. }))
        ));
    }
}
