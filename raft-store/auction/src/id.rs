//! Identifiers: short, plain, comparable, safe in a URL, a log line and a hash chain.

use alloc::string::String;
use core::fmt;
use smol_str::SmolStr;

/// An identifier of `[A-Za-z0-9_-]{1,64}`: an auction, a person, or a command. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Id(SmolStr);

/// The id of an auction; its stable hash names the shard (`placement::shard_of`).
pub type AuctionId = Id;

/// Longest identifier, in bytes.
pub const ID_MAX: usize = 64;

impl Id {
    /// The id spelled by `text`, or `None` if `text` is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Id> {
        let fits = !text.is_empty() && text.len() <= ID_MAX;
        let plain = text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        (fits && plain).then(|| Id(SmolStr::new(text)))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<&Id> for String {
    fn from(id: &Id) -> String {
        String::from(id.as_str())
    }
}
