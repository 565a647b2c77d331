//! What can still be read of a replica's settled auctions, where nobody else has them: a shard is founded from it.
//!
//! ```text
//!   own files, condemned or not --each number below F--> the record, if it is what its entry of the index says
//!                                                    '--> else the same record in files of a former replica of the shard here
//!                                                    '--> else a gap: which auction, and what it lacked
//! ```
//!
//! **Only reads.** Nothing is condemned, cut off or deleted here: what can't be read today is kept as it lies, and a look before a
//! founding changes nothing. What is read is checked as for any reader; an entry of the index that is damaged takes its record
//! along only if where that lies can't be told from its neighbours, or it doesn't prove itself (its chain, and the rules).
//!
//! One record at a time is in memory.
//!
//! Deliberately absent: what becomes of gaps (`refound`, `state::Lost`).

use super::{ColdDir, ENTRY, Files, HEAD, Place, damaged, is_former, own_prefix, record};
use crate::wal::disk::{AnyFile, Disk, DiskFile, exactly};
use auction::{AuctionId, Cold, Settled, Sum, verify};
use std::{io, path::Path};

/// A settled auction that can't be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Gap {
    /// Which, if that can be told.
    pub(crate) auction: Option<AuctionId>,
    /// What it lacked.
    pub(crate) what: String,
}

/// Gives `each` the settled auctions below `cold` that can be read, in order of number, and tells of the rest. Blocks.
pub(crate) fn salvage(
    place: &ColdDir,
    group: u32,
    replica: u64,
    cold: &Cold,
    mut each: impl FnMut(Settled) -> io::Result<()>,
) -> io::Result<Vec<Gap>> {
    if cold.count == 0 {
        return Ok(Vec::new());
    }
    let own = Shelf::open(place, own_prefix(group, replica).trim_end_matches('.'));
    let former = former(place, group, replica)?;
    let (mut gaps, mut sum) = (Vec::new(), Sum::default());
    for number in 0..cold.count {
        let read = own.read(number).or_else(|error| {
            // A former replica's record is this one only if its digest says so.
            let wanted = own.entry(number).map_err(|_| error.to_string());
            let known = wanted.and_then(|place| {
                let same = |settled: &Settled| *settled.digest() == place.digest;
                let mut there = former.iter().filter_map(|shelf| shelf.read(number).ok());
                there.find(same).ok_or_else(|| error.to_string())
            });
            known.map_err(|what| Gap {
                auction: own.entry(number).ok().map(|place| place.id),
                what,
            })
        });
        match read {
            Ok(settled) => {
                sum = sum.plus(settled.digest());
                each(settled)?;
            }
            Err(gap) => gaps.push(gap),
        }
    }
    if gaps.is_empty() && sum != cold.sum {
        gaps.push(Gap {
            auction: None,
            what: "the records are sound, but they aren't those that the snapshot names".into(),
        });
    }
    Ok(gaps)
}

/// Other replicas' files of a group.
fn former(place: &ColdDir, group: u32, replica: u64) -> io::Result<Vec<Shelf>> {
    let names = match place.disk.names(&place.dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        names => names?,
    };
    let is_former = is_former(group, replica);
    let others = names.iter().filter(|name| is_former(name));
    let stems = others.filter_map(|name| name.strip_suffix(".cold"));
    Ok(stems.map(|stem| Shelf::open(place, stem)).collect())
}

/// One replica's files, as far as they are there.
struct Shelf(io::Result<Files<AnyFile>>);

impl Shelf {
    fn open(place: &ColdDir, stem: &str) -> Shelf {
        let open = |ending: &str| place.disk.open(&place.dir.join(format!("{stem}.{ending}")));
        let index = open("cidx").or_else(|error| match error.kind() {
            // As a replica that was condemned has it.
            io::ErrorKind::NotFound => open("damaged"),
            _ => Err(error),
        });
        let files = index.and_then(|index| {
            let records = open("cold")?;
            Ok(Files { records, index })
        });
        Shelf(files.map_err(|error| damaged(format!("{}: {error}", place.dir.join(Path::new(stem)).display()))))
    }

    fn files(&self) -> io::Result<&Files<AnyFile>> {
        let files = self.0.as_ref();
        files.map_err(|error| io::Error::new(error.kind(), error.to_string()))
    }

    fn entry(&self, number: u64) -> io::Result<Place> {
        let mut bytes = [0; ENTRY];
        exactly(&self.files()?.index, &mut bytes, ENTRY as u64 * (1 + number))?;
        Place::from_bytes(&bytes).ok_or_else(|| damaged("its entry of the index"))
    }

    fn read(&self, number: u64) -> io::Result<Settled> {
        let known = self.entry(number);
        let (at, end) = match &known {
            Ok(place) => (place.at, place.at.saturating_add(place.len)),
            Err(_) => self.between(number)?,
        };
        let records = &self.files()?.records;
        if at > end || end > records.len()? {
            return Err(damaged("the file of records ends before it"));
        }
        let mut bytes = vec![0; usize::try_from(end - at).map_err(io::Error::other)?];
        exactly(records, &mut bytes, at)?;
        let (settled, head) = record::decode(&bytes)?;
        let sound = match &known {
            Ok(place) => *settled.digest() == place.digest && head == place.head,
            Err(_) => proves_itself(&settled),
        };
        if settled.number() == number && sound {
            Ok(settled)
        } else {
            Err(damaged("it isn't what its digest says"))
        }
    }

    /// Where a record must lie whose own entry is damaged.
    fn between(&self, number: u64) -> io::Result<(u64, u64)> {
        let at = match number.checked_sub(1) {
            Some(before) => self.entry(before).map(|place| place.at.saturating_add(place.len))?,
            None => HEAD,
        };
        let next = self.entry(number + 1).map(|place| place.at);
        Ok((at, next.or_else(|_| self.files()?.records.len())?))
    }
}

/// Whether an auction's chain and rules bear out what it says.
fn proves_itself(settled: &Settled) -> bool {
    let lines = settled.events().iter().map(|event| verify::Line::from(&**event));
    verify::verify(&verify::Head::from(&settled.view()), lines).is_ok()
}
