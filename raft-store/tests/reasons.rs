//! The table of reasons exists twice, as the core's enum and as `common/v1/reason.proto`: the two say the same.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use auction::Reason;
use proto::common::v1::Reason as Wire;

#[test]
fn the_core_and_the_wire_have_the_same_reasons() {
    for reason in Reason::ALL {
        let wire = Wire::try_from(i32::from(reason.number())).unwrap_or_else(|_| panic!("{}", reason.code()));
        let name = format!("REASON_{}", reason.code().to_uppercase());
        assert_eq!(wire.as_str_name(), name);
        assert_eq!(Reason::from_number(reason.number()), Some(*reason));
    }
    let beyond = Reason::ALL.len() as i32 + 1;
    assert!(Wire::try_from(beyond).is_err(), "the wire knows a reason that the core doesn't");
    assert_eq!(Reason::from_number(0), None);
}

#[test]
fn every_reason_speaks_to_user_and_operator() {
    for reason in Reason::ALL {
        let korean = reason.korean().chars().any(|c| ('가'..='힣').contains(&c));
        assert!(korean && reason.english().is_ascii() && !reason.operator().is_empty(), "{}", reason.code());
    }
}
