//! Money: whole minor units of one currency. No floats, no conversion, no arithmetic that can wrap.

/// An amount in minor units (won, cents) of the auction's currency.
pub type Money = u64;

/// Largest amount that an auction handles: leaves every `u128` product of the rules far from overflow.
pub const MONEY_MAX: Money = 1_000_000_000_000_000;

/// An ISO 4217 code, such as `KRW`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Currency(pub [u8; 3]);

impl Currency {
    /// The currency spelled by three upper-case letters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Currency> {
        let bytes: [u8; 3] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(u8::is_ascii_uppercase).then_some(Currency(bytes))
    }

    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).unwrap_or("XXX")
    }
}
