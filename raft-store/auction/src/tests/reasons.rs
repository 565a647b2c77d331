//! The table of reasons exists twice, as our enum and as `common/v1/reason.proto`: the two say the same.
//!
//! The `.proto` is read as text, so that the core needs no encoding to be held to it.

use super::*;

const PROTO: &str = include_str!("../../../../proto/rushroom/common/v1/reason.proto");

#[test]
fn the_core_and_the_wire_have_the_same_reasons() {
    let lines = PROTO.lines().filter_map(|line| line.trim().strip_prefix("REASON_"));
    let wire: Vec<(String, u16)> = lines
        .map(|line| {
            let (name, rest) = line.split_once(" = ").expect(line);
            let number = rest.split(';').next().expect(line);
            (name.to_lowercase(), number.parse().expect(line))
        })
        .collect();
    let ours = Reason::ALL
        .iter()
        .map(|reason| (reason.code().to_string(), reason.number()));
    let want: Vec<_> = std::iter::once(("unspecified".to_string(), 0)).chain(ours).collect();
    assert_eq!(wire, want);
}

#[test]
fn numbers_and_codes_name_one_reason_each() {
    for (i, reason) in Reason::ALL.iter().enumerate() {
        assert_eq!(Reason::from_number(reason.number()), Some(*reason));
        assert!(Reason::ALL[..i].iter().all(|other| other.code() != reason.code()));
    }
    assert_eq!(Reason::from_number(0), None);
    assert_eq!(Reason::from_number(Reason::ALL.len() as u16 + 1), None);
}

#[test]
fn every_reason_speaks_to_users_and_operators() {
    for reason in Reason::ALL {
        let korean = reason.korean().chars().any(|c| ('가'..='힣').contains(&c));
        assert!(
            korean && reason.english().is_ascii() && !reason.operator().is_empty(),
            "{}",
            reason.code()
        );
    }
}
