//! The clock of a shard, whole: how time is read, who may stamp, where commands wait, what goes into the log and when.
//!
//! ```text
//!   sockets --> proposer --------------------- lock ---------------------> port::Log
//!               task, futures   | office: door, stamp, place; pack; settle |
//!                               |   reading   lanes   pending              |
//! ```
//!
//! Time is moved by consensus, not the other way round: the shard's clock is a number in the replicated state, and only
//! committed entries move it. `reading` tells why a leader's guess at it can be trusted; this table is the whole argument,
//! sentence by sentence. Each has code that makes it so and a test that fails without it.
//!
//! | what is claimed | code | test |
//! |---|---|---|
//! | An entry of an older office, or out of number, is void, and what was piped behind it | `auction/src/shard.rs` | `entries_that_do_not_follow_are_void`, `a_void_entry_leaves_no_trace` |
//! | A command meets its auction's timers first, in due order, timers before commands on a tie | `auction/src/shard.rs` | `every_packing_gives_the_same_history`, `generated_logs_come_out_the_same` |
//! | A timer's event is anchored at its due stamp, a command's at its arrival; packing decides nothing | `auction/src/auction.rs` | `every_packing_gives_the_same_history` |
//! | An auction's watermark is `min(at, behind)`: a hot lane holds back its own close only | `auction/src/shard.rs` | `a_backlog_holds_back_its_own_close_and_nobody_elses` |
//! | A stamp out of its bounds is clamped and counted; the count stays 0 | `auction/src/shard.rs` | `stamps_out_of_bounds_are_clamped_and_counted`, `no_promise_is_broken_by_what_comes_later` |
//! | Door, stamp and place are one step; `at` is read before the lanes are looked at | `clock/office.rs` | `no_promise_is_broken_by_what_comes_later`, `a_gap_before_the_place_or_lanes_seen_first_break_a_promise` |
//! | Ids are looked up: applied table, pending, early refusal, lane | `clock/office.rs` | `ids_are_looked_up_in_order`, `the_same_command_sent_many_times_acts_once` |
//! | An office begins at `base` and stands for its grace; what was behind loses nothing | `clock/office.rs` | `stands_in_the_grace_and_runs_from_its_end`, `every_promise_holds_over_every_schedule` |
//! | A rejected or void proposal ends the office; the next turn goes on | `clock/proposer/reign.rs` | `a_rejected_proposal_ends_the_office_and_the_next_turn_goes_on`, `loss_of_office_answers_everyone` |
//! | The reading is at most `hold_ms` ahead of `top`, `step_ms` a look, and re-anchors | `clock/reading.rs` | `holds_its_bounds_over_any_life`, `stands_where_the_majority_last_was_and_goes_on_without_a_jump`, `a_freeze_eats_one_step` |
//! | Lost time is summed, declared over 50 ms, and an event after all else at its stamp | `clock/reading.rs` | `small_losses_are_summed_until_they_are_worth_telling`, `a_hold_comes_after_all_else_at_its_stamp_in_each_open_auction` |
//! | Time counts only while a timer pends or a command is under way | `clock/office.rs` | `idle_time_is_nobodys_loss` |
//! | Above 5 % lost in 10 s another replica should lead | `pulse/rounds.rs` | `a_clock_that_loses_much_says_so_until_it_is_better`, `a_leader_that_loses_much_time_says_so` |
//! | While a timer pends the leader beats, and at once when one comes due | `clock/office.rs` | `a_live_auction_beats_ten_times_a_second`, `a_bid_is_judged_and_the_auction_closes_by_itself` |
//! | Beats come twice as often where commits take over 60 ms, and have room in a full window | `clock/office.rs` | `slow_commits_make_beats_closer`, `a_beat_finds_room_in_a_full_window` |
//! | A shard without timers commits nothing and costs nothing | `clock/office.rs` | `a_shard_without_timers_and_work_proposes_nothing` |
//! | Due lanes go first, earliest due before all, then fair turns | `clock/lanes.rs` | `turns_are_fair_and_due_lanes_go_first` |
//! | A lane's room is what is free of what the shard drains in 40 ms | `clock/lanes.rs` | `hot_lanes_share_and_a_newcomer_finds_room`, `a_hot_auction_is_told_busy_and_a_quiet_one_is_not` |
//! | Wall time is the median of what nodes say, with its error | `clock/compare.rs` | `wall_time_is_the_median_and_says_how_sure_it_is`, `wall_time_between_looks_goes_by_the_slower_clock` |
//! | A start is proposed as long as wall time is past it, and declares that time in the log | `clock/office.rs` | `a_scheduled_auction_starts_at_its_wall_time`, `a_scheduled_start_goes_by_the_clocks_of_most` |
//! | A shard at rest is awake for its next start | `pulse.rs` | `a_scheduled_start_wakes_its_shard` |
//! | A node whose clocks stray (0.5 % over 10 s, a step, wall time) shows it and gives up leadership | `clock/fleet.rs` | `a_clock_at_another_rate_and_one_that_steps_are_found`, `a_node_whose_clock_strays_leads_nothing_until_it_is_good` |
//! | No network accuses a good clock, and no bad clock a good node | `clock/compare.rs` | `a_slow_network_accuses_nobody`, `one_bad_clock_costs_no_good_node` |
//! | Busy, not judged and unknown are no verdicts | `clock/office.rs` | `every_planted_mistake_is_caught` |
//! | A planned hand-over pauses intake, and a failed one leaves no silent shard | `clock/proposer.rs` | `a_hand_over_pauses_intake_and_a_failed_one_leaves_no_silent_shard` |
//! | The code and the reference model tell the same history | `auction/src/shard.rs` | `the_models_own_clusters_come_out_the_same`, `generated_logs_come_out_the_same`, `each_mistake_planted_in_the_model_is_a_difference` |
//!
//! The files: `reading` (the held reading), `lanes` (what waits), `pending` (who waits), `office` (one replica's time as
//! leader, as a value), `proposer` (the task around it), `time` (a node's own clocks), `compare` and `fleet` (against its
//! peers'). Whether a node should lead at all is told by the crate's `fitness`.
//!
//! Deliberately absent: what a stamp does to an auction (the core's `Shard::apply`).

pub mod compare;
pub(crate) mod fleet;
pub mod lanes;
pub mod office;
pub mod pending;
pub mod proposer;
mod reading;
pub mod time;

pub use fleet::NodeClock;
#[cfg(test)]
pub(crate) use reading::Plant;
pub use reading::{Clock, Options};
pub use time::Time;
