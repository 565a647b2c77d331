//! What a replica says by itself, the log never contradicts: however far the replica is behind, whatever is under way.

use super::*;

const LIMITS: Limits = Limits {
    refusals_max: 2,
    refusals_ms: 600_000,
};

/// Bids of few people under few ids, so that ids come again and refusals pile up; now and then the end.
fn any_bid(dice: &mut Dice, price: Money) -> Command {
    let who = *dice.pick(&["ann", "bob", "cho"]);
    let key = format!("k{}", dice.below(40));
    let amount = (price + dice.below(8)).saturating_sub(3).max(1);
    let action = if dice.one_in(4) {
        Action::MaxBid {
            maximum: amount + dice.below(5),
        }
    } else {
        Action::Bid { amount }
    };
    command("a", who, Some(&key), action)
}

/// Runs a story and asks replicas that are behind about each command before the log judges it. Counts the answers, and
/// those that the log contradicts, of `settled` and of the leader's own `early`.
fn contradictions(seed: u64) -> (usize, usize, usize) {
    let mut dice = Dice(seed);
    let mut terms = rush_terms();
    terms.time.rush = None;
    let mut world = World::with(LIMITS);
    let create = Action::Create(Box::new(definition(terms)));
    for action in [create, Action::Start { schedule_version: None }] {
        assert_eq!(world.one(0, command("a", "seller", None, action)).outcome, Ok(()));
    }
    let mut behind = vec![world.shard.clone()];
    let (mut answers, mut wrong, mut wrong_early) = (0, 0, 0);
    for at in 1..200 {
        let bid = any_bid(&mut dice, world.view().price);
        if at == 180 {
            world.one(
                at,
                command("a", "seller", Some("end"), Action::Cancel { reason: "over".into() }),
            );
        }
        let early: Vec<_> = behind.iter().map(|replica| replica.early(&bid)).collect();
        let settled: Vec<_> = behind.iter().map(|replica| replica.settled(&bid)).collect();
        let judged = world.one(at, bid).outcome.is_ok();
        let against = |answer: &Verdict| answer.outcome.is_ok() != judged;
        answers += settled.iter().flatten().count();
        wrong += settled.iter().flatten().filter(|answer| against(answer)).count();
        wrong_early += early.iter().flatten().filter(|answer| against(answer)).count();
        behind.push(world.shard.clone());
        if behind.len() > 12 {
            // Some stay far behind, some near.
            let gone = dice.below(11) as usize;
            behind.remove(gone);
        }
    }
    (answers, wrong, wrong_early)
}

#[test]
fn a_replica_that_is_behind_is_never_contradicted() {
    let (mut answers, mut wrong_early) = (0, 0);
    for seed in seeds(60) {
        let (told, wrong, early) = contradictions(seed);
        assert_eq!(wrong, 0, "{}", replay(seed, "a_replica_that_is_behind"));
        answers += told;
        wrong_early += early;
    }
    if std::env::var_os("AUCTION_SEED").is_none() {
        assert!(answers > 10_000, "{answers} answers: the stories are too tame");
        assert!(
            wrong_early > 0,
            "the stories don't tell `settled` from what only a leader may say"
        );
    }
}

#[test]
fn an_id_that_was_judged_keeps_its_verdict_though_its_bid_would_be_too_low_by_now() {
    let mut world = World::live(rush_terms());
    let first = command("a", "ann", Some("k"), Action::Bid { amount: 100 });
    assert_eq!(world.shard.settled(&first), None, "it may win");
    assert_eq!(world.one(1, first.clone()).outcome, Ok(()));
    assert_eq!(
        world
            .one(2, command("a", "bob", Some("k"), Action::Bid { amount: 200 }))
            .outcome,
        Ok(())
    );
    let again = world.shard.settled(&first).expect("known");
    assert_eq!((again.outcome, again.dup), (Ok(()), true));
    let other = command("a", "ann", Some("k2"), Action::Bid { amount: 100 });
    let refused = world.shard.settled(&other).expect("too low for good");
    assert_eq!(refused.outcome, Err(Reason::Low));
    assert_eq!(
        world
            .shard
            .settled(&command("b", "ann", Some("k"), Action::Bid { amount: 1 })),
        None,
        "not here"
    );
}
