//! Tables and properties of the capture line.

#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

const VIDEO: u32 = 1;
const AUDIO: u32 = 2;
/// The seller's clock shows this when ours shows 0.
const THEIRS: u64 = 3_900_000_000 << 32;

/// The seller's NTP time at our instant, if the clocks keep the same pace.
fn ntp(at: i64) -> u64 {
    THEIRS.wrapping_add(((i128::from(at) << 32) / i128::from(SECOND)) as u64)
}

fn ms(ms: i64) -> i64 {
    ms * 1_000
}

/// A seller whose video and sound started at our instant 0 with these RTP times.
const RTP: [(u32, u32, u32); 2] = [(VIDEO, 90_000, 4_294_000_000), (AUDIO, 48_000, 77)];

fn rtp(ssrc: u32, at: i64) -> u32 {
    let (_, rate, first) = RTP.into_iter().find(|t| t.0 == ssrc).unwrap();
    Line {
        rtp: first,
        at: 0,
        rate,
    }
    .rtp(at)
}

/// A packet captured at `at`, under way for `way`.
fn packet(seller: &mut Seller, ssrc: u32, at: i64, way: i64) {
    let rate = RTP.into_iter().find(|t| t.0 == ssrc).unwrap().1;
    seller.packet(ssrc, rate, rtp(ssrc, at), at + way);
}

fn report(seller: &mut Seller, ssrc: u32, at: i64, way: i64) {
    seller.report(ssrc, ntp(at), rtp(ssrc, at), at + way);
}

/// How far a seller's track is placed from where it was captured.
fn error(seller: &Seller, ssrc: u32, at: i64) -> i64 {
    seller.line(ssrc).unwrap().at(rtp(ssrc, at)) - at
}

#[track_caller]
fn check(seller: &Seller, at: i64, video: i64, audio: i64) {
    let errors = [error(seller, VIDEO, at), error(seller, AUDIO, at)];
    for (error, expect) in errors.into_iter().zip([video, audio]) {
        assert!((error - expect).abs() <= 30, "{errors:?}, not {:?}", [video, audio]);
    }
}

#[test]
fn a_line_leads_there_and_back() {
    let line = Line {
        rtp: u32::MAX,
        at: 5_000,
        rate: 90_000,
    };
    for (rtp, at) in [
        (u32::MAX, 5_000),
        (89, 6_000),
        (u32::MAX - 90, 4_000),
        (89_999, 1_005_000),
    ] {
        assert_eq!((line.at(rtp), line.rtp(at)), (at, rtp));
    }
    assert_eq!(line.moved(-7).at(u32::MAX), 4_993);
}

#[test]
fn sound_that_is_held_up_stands_on_the_same_line_as_the_picture() {
    let mut seller = Seller::default();
    for second in 0..5 {
        packet(&mut seller, VIDEO, ms(second * 1_000), ms(10));
        packet(&mut seller, AUDIO, ms(second * 1_000), ms(90));
    }
    // Nothing was said yet: what is known is when they came.
    check(&seller, ms(5_000), ms(10), ms(90));
    report(&mut seller, AUDIO, ms(5_000), ms(90));
    report(&mut seller, VIDEO, ms(5_000), ms(10));
    check(&seller, ms(6_000), ms(10), ms(10));
    seller.round_trip(ms(20), ms(5_000));
    seller.round_trip(ms(300), ms(5_500));
    check(&seller, ms(6_000), 0, 0);
}

#[test]
fn jitter_moves_nothing_and_a_quicker_report_does() {
    let mut seller = Seller::default();
    packet(&mut seller, VIDEO, 0, 0);
    packet(&mut seller, AUDIO, 0, 0);
    for (second, way, expect) in [
        (1, 40, 40),
        (2, 20, 20),
        (3, 500, 20),
        (4, 60, 20),
        (5, 5, 5),
        (6, 90, 5),
    ] {
        report(&mut seller, VIDEO, ms(second * 1_000), ms(way));
        report(&mut seller, AUDIO, ms(second * 1_000), ms(way + 3));
        check(&seller, ms(second * 1_000), ms(expect), ms(expect));
    }
}

#[test]
fn a_clock_that_was_set_is_believed_at_once() {
    let mut seller = Seller::default();
    packet(&mut seller, VIDEO, 0, 0);
    packet(&mut seller, AUDIO, 0, 0);
    report(&mut seller, VIDEO, ms(1_000), ms(5));
    report(&mut seller, AUDIO, ms(1_000), ms(5));
    // An hour back and an hour ahead: the RTP clock went on.
    for (at, shift) in [(2_000, -3_600_000), (3_000, 3_600_000)] {
        let said = ntp(ms(at + shift));
        seller.report(VIDEO, said, rtp(VIDEO, ms(at)), ms(at + 5));
        seller.report(AUDIO, said, rtp(AUDIO, ms(at)), ms(at + 5));
        check(&seller, ms(at), ms(5), ms(5));
    }
}

#[test]
fn rtp_time_that_jumped_is_placed_by_arrival_until_the_next_report() {
    let mut seller = Seller::default();
    packet(&mut seller, VIDEO, 0, ms(5));
    report(&mut seller, VIDEO, 0, ms(5));
    seller.packet(VIDEO, 90_000, 1 << 20, ms(40));
    let line = seller.line(VIDEO).unwrap();
    assert_eq!(line.at(1 << 20), ms(40));
    seller.report(VIDEO, ntp(ms(1_000)), (1 << 20) + 90_000, ms(1_005));
    assert_eq!(seller.line(VIDEO).unwrap().at((1 << 20) + 90_000), ms(1_005));
}

#[test]
fn what_packets_say_themselves_counts_more_than_reports() {
    let mut seller = Seller::default();
    packet(&mut seller, VIDEO, 0, ms(5));
    report(&mut seller, VIDEO, 0, ms(5));
    // The capturer's clock is a second ahead of the sender's; the picture is 30 ms older than the report says.
    let ahead = 1i64 << 32;
    let captured = ntp(ms(100 - 30)).wrapping_add(ahead as u64);
    seller.captured(VIDEO, captured, ahead, rtp(VIDEO, ms(100)), ms(105));
    assert!((error(&seller, VIDEO, ms(100)) - ms(5 - 30)).abs() <= 30);
    report(&mut seller, VIDEO, ms(1_000), ms(5));
    assert!((error(&seller, VIDEO, ms(1_000)) - ms(5 - 30)).abs() <= 30);
    report(&mut seller, VIDEO, ms(11_000), ms(5));
    assert!((error(&seller, VIDEO, ms(11_000)) - ms(5)).abs() <= 30);
}

#[test]
fn abs_capture_time_is_eight_bytes_or_sixteen() {
    let mut data = 7u64.to_be_bytes().to_vec();
    assert_eq!(abs_capture_time(&data), Some((7, 0)));
    data.extend_from_slice(&(-3i64).to_be_bytes());
    assert_eq!(abs_capture_time(&data), Some((7, -3)));
    for length in [0, 7, 9, 15] {
        assert_eq!(abs_capture_time(&data[..length]), None, "{length}");
    }
}

#[test]
fn sources_are_bounded() {
    let mut seller = Seller::default();
    for ssrc in 0..1_000 {
        seller.packet(ssrc, 90_000, 0, 0);
        seller.report(ssrc, 1, 0, 0);
    }
    assert_eq!(seller.sources.len(), SOURCES_MAX);
    assert_eq!(seller.line(999), None);
}

#[test]
fn the_quickest_answer_tells_the_distance_and_ages() {
    let mut apart = Apart::default();
    assert_eq!(apart.ahead(), None);
    // Asked at, theirs, answered at; what is believed then.
    for (asked, theirs, now, expect) in [
        (0, 1_000_000 + 10_000, 40_000, 990_000),
        (50_000, 1_000_000 + 51_000, 52_000, 1_000_000),
        (60_000, 1_000_000 + 90_000, 100_000, 1_000_000),
        // As quick as the best one, half an hour on: the clocks drifted.
        (1_800_000_000, 1_801_001_000 + 9_000, 1_800_002_000, 1_009_000),
        (5, 0, 4, 1_009_000),
    ] {
        apart.answered(asked, theirs, now);
        assert_eq!(apart.ahead(), Some(expect), "{asked}");
    }
}

proptest! {
    /// Whatever the jitter and the drift: both tracks stand within a few ms of where they belong, and of each other.
    #[test]
    fn jitter_and_drift_leave_the_line_in_place(
        ppm in -60i64..60, ways in proptest::collection::vec((0i64..80, 0i64..80), 60..200),
    ) {
        let mut seller = Seller::default();
        packet(&mut seller, VIDEO, 0, 0);
        packet(&mut seller, AUDIO, 0, 0);
        report(&mut seller, VIDEO, 0, 0);
        report(&mut seller, AUDIO, 0, 0);
        for (second, (video, audio)) in ways.iter().enumerate() {
            let at = ms(second as i64 * 1_000);
            // The seller's clock and its RTP clocks run by one crystal, ours by another.
            let theirs = at + at * ppm / SECOND;
            for (ssrc, way) in [(VIDEO, video), (AUDIO, audio)] {
                seller.report(ssrc, ntp(theirs), rtp(ssrc, theirs), at + ms(*way));
            }
            let placed = [VIDEO, AUDIO].map(|ssrc| seller.line(ssrc).unwrap().at(rtp(ssrc, theirs)) - at);
            prop_assert!((placed[0] - placed[1]).abs() <= 50, "apart: {placed:?}");
            // Drift that is older than the best report, and the best report's own way.
            prop_assert!(placed[0].abs() <= ms(20), "{placed:?} after {second} s");
        }
    }

    /// Nothing that a seller says makes this panic.
    #[test]
    fn any_words_are_taken(said in proptest::collection::vec((0u32..3, any::<u64>(), any::<i64>(), any::<u32>(), any::<i64>()), 0..40)) {
        let mut seller = Seller::default();
        for (ssrc, ntp, ahead, rtp, now) in said {
            seller.packet(ssrc, (ntp % 100_000) as u32, rtp, now);
            seller.report(ssrc, ntp, rtp, now);
            seller.captured(ssrc, ntp, ahead, rtp, now);
            seller.round_trip(ahead, now);
            if let Some(line) = seller.line(ssrc) {
                line.rtp(line.at(rtp));
            }
        }
    }
}
