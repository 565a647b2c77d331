//! Each mistake that the log could easily make is made on purpose, and a test of the log must fail over it.
//!
//! `cargo test -p raft-store --lib wal::tests::plants` runs them all. A mistake that nothing notices fails here: then either
//! the tests have a hole, or the step isn't needed.
//!
//! Deliberately absent: mistakes of the threads around the writer: plants are a thread's own.

use super::{a_record_is_one_only_in_its_place, crash, losses};
use crate::wal::plant::{Plant, plant};
use std::{
    collections::BTreeSet,
    panic::{UnwindSafe, catch_unwind},
};

/// Random lives, until one ends badly.
fn crashes() {
    (0..400).for_each(crash::run);
}

fn caught(mistake: Plant, by: impl FnOnce() + UnwindSafe) {
    plant(Some(mistake));
    let passed = catch_unwind(by);
    plant(None);
    assert!(passed.is_err(), "{mistake:?} went unnoticed");
}

macro_rules! plants {
    ($($name:ident: $plant:ident, by $check:expr;)*) => {
        $(#[test]
        fn $name() {
            caught(Plant::$plant, $check);
        })*

        const PLANTED: &[Plant] = &[$(Plant::$plant),*];

        /// A plant without a row here doesn't compile.
        #[test]
        fn each_mistake_has_one_row() {
            let row = |plant| match plant { $(Plant::$plant => stringify!($name),)* };
            let names: BTreeSet<&str> = PLANTED.iter().map(|plant| row(*plant)).collect();
            assert_eq!(names.len(), PLANTED.len());
            assert!(names.len() >= 13);
        }
    };
}

plants! {
    acknowledged_before_its_fsync: AckUnsynced, by crashes;
    acknowledged_before_it_is_written: AckUnwritten, by crashes;
    a_failed_fsync_tried_again: RetriedSync, by crashes;
    a_new_name_not_synced: NameUnsynced, by crashes;
    a_header_not_synced: HeaderUnsynced, by crashes;
    sealed_before_the_next_is_there: SealedFirst, by crashes;
    a_checkpoint_without_votes: VotesForgotten, by crashes;
    a_segment_dropped_that_is_needed: DroppedPinned, by crashes;
    a_rewrite_that_frees_its_own_segment: RewroteTooFar, by crashes;
    a_purge_that_frees_one_too_many: PurgedTooFar, by crashes;
    a_truncation_out_of_the_book: TruncationUnbooked, by crashes;
    a_cut_that_leaves_the_pieces: CutKeptPieces, by losses::what_was_cut_never_comes_back;
    damage_taken_for_a_torn_end: DamageTakenForTorn, by losses::a_vote_lost_between_others_is_noticed;
    a_checksum_without_the_place: PlaceUncovered, by a_record_is_one_only_in_its_place;
    a_checksum_without_the_salt: SaltUncovered, by a_record_is_one_only_in_its_place;
    a_gap_that_hurts_nobody: GapsIgnored, by losses::a_vote_lost_between_others_is_noticed;
    a_loss_that_nothing_proves: LossUnproved, by losses::damage_that_no_tally_follows_is_refused;
    a_hurt_that_is_forgotten: HurtForgotten, by losses::who_is_hurt_stays_so_when_the_damaged_segment_is_gone;
}
