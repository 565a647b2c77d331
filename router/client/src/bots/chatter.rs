//! A chatter: says a line now and then.

use super::Seen;
use crate::{Dice, Notice, Notices, Socket};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How a chatter behaves.
#[derive(Clone, Debug)]
pub struct ChatterOptions {
    /// The auction it talks about.
    pub auction: String,
    /// Of its words and pauses.
    pub seed: u64,
    /// Is silent at least this long …
    pub pause_min: Duration,
    /// … and at most this long.
    pub pause_max: Duration,
    /// What it may say; empty: the bots' own phrases.
    pub phrases: Vec<String>,
    /// Says no more lines than this.
    pub lines_max: u64,
}

/// What a chatter said and heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatterReport {
    /// Lines sent.
    pub said: u64,
    /// Own lines that came back with their place.
    pub placed: u64,
    /// Lines of anyone.
    pub heard: u64,
}

/// Said where the options give nothing.
const PHRASES: &[&str] = &[
    "와 예쁘다",
    "What a beauty!",
    "배송은 며칠 걸리나요?",
    "Going up fast",
    "색상이 실물과 같나요?",
    "One more for me",
    "한 번만 더 보여 주세요",
    "Is the box included?",
    "시간이 줄어든다!",
    "Good luck, everyone",
];

/// A chatting bot on its own socket.
pub struct Chatter {
    socket: Socket,
    notices: Notices,
    options: ChatterOptions,
}

impl Chatter {
    /// A chatter that will use `socket`, which must be signed in.
    #[must_use]
    pub fn new(socket: Socket, notices: Notices, options: ChatterOptions) -> Chatter {
        Chatter {
            socket,
            notices,
            options,
        }
    }

    /// Talks until the auction closes, its lines are used up, or `stop` says so.
    pub async fn run(mut self, stop: CancellationToken) -> ChatterReport {
        let mut dice = Dice::new(self.options.seed);
        let (mut seen, mut report) = (Seen::default(), ChatterReport::default());
        let mut mine: Vec<String> = Vec::new();
        self.socket.join(&self.options.auction).await;
        while report.said < self.options.lines_max && !seen.closed() {
            let pause = dice.between(
                self.options.pause_min.as_millis() as u64,
                self.options.pause_max.as_millis() as u64,
            );
            let until = tokio::time::Instant::now() + Duration::from_millis(pause);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return report,
                    () = tokio::time::sleep_until(until) => break,
                    notice = self.notices.recv() => {
                        let Some(notice) = notice else { return report };
                        if let Notice::Chat { line, .. } = &notice {
                            report.heard += 1;
                            let before = mine.len();
                            mine.retain(|id| *id != line.id);
                            report.placed += (before - mine.len()) as u64;
                        }
                        seen.take(&self.options.auction, &notice);
                    }
                }
            }
            let text = match dice.pick(&self.options.phrases) {
                Some(phrase) => phrase.clone(),
                None => dice.pick(PHRASES).copied().unwrap_or("!").into(),
            };
            let id = dice.id("c-");
            self.socket.chat(&self.options.auction, &id, &text).await;
            mine.push(id);
            report.said += 1;
        }
        report
    }
}
