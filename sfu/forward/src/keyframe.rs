//! Keyframe asks, merged: however many viewers ask, the source hears one ask per gap, until a keyframe comes.

/// The gate of one track, in ms.
#[derive(Clone, Debug)]
pub struct KeyframeGate {
    gap: u64,
    sent: Option<u64>,
    wanted: bool,
}

impl KeyframeGate {
    /// At most one ask in `gap` ms.
    pub fn new(gap: u64) -> KeyframeGate {
        KeyframeGate {
            gap,
            sent: None,
            wanted: false,
        }
    }

    /// Somebody needs a keyframe. True: ask for one now; else the ask is remembered (`due`).
    pub fn ask(&mut self, now: u64) -> bool {
        self.wanted = true;
        self.due(now)
    }

    /// True: an ask is wanted and the gap is over; it counts as sent. Repeats each gap until a keyframe comes.
    pub fn due(&mut self, now: u64) -> bool {
        let free = self.sent.is_none_or(|sent| now >= sent + self.gap);
        if self.wanted && free {
            self.sent = Some(now);
        }
        self.wanted && free
    }

    /// A keyframe came: who asked is served.
    pub fn arrived(&mut self) {
        self.wanted = false;
    }

    /// Whoever asked hasn't been served yet.
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_viewers_are_one_ask_a_second() {
        let mut gate = KeyframeGate::new(1_000);
        let asks = (0..1_000u64).filter(|n| gate.ask(5_000 + n)).count();
        assert_eq!(asks, 1);
    }

    #[test]
    fn an_ask_is_repeated_until_a_keyframe_comes() {
        let mut gate = KeyframeGate::new(1_000);
        assert!(gate.ask(0));
        assert!(!gate.due(999) && gate.due(1_000) && !gate.due(1_001));
        gate.arrived();
        assert!(!gate.due(5_000));
    }

    #[test]
    fn an_ask_within_the_gap_waits_for_its_end() {
        let mut gate = KeyframeGate::new(1_000);
        gate.ask(0);
        gate.arrived();
        assert!(!gate.ask(400) && gate.is_wanted());
        assert!(gate.due(1_000));
    }
}
