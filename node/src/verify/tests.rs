//! What is read and what isn't; what a person is told. Alterations of a real export are in `tests/verify.rs`.

#![allow(clippy::unwrap_used)]
use super::*;

const H: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A draft's head: the shortest export there is.
fn draft() -> String {
    format!(
        r#"{{"format":"rushroom-export/2","auction":{{"id":"a","version":1,"seller":"s","title":"t","description":"","currency":"KRW","start_price":5,"increments":[[0,1]],"duration_ms":60000,"guests":false,"pause_without_stream":false,"phase":"draft","seq":0,"price":5,"least":5,"bids":0,"ct":0,"h":"{H}"}}}}"#
    )
}

const EVENT: &str = r#"{"seq":1,"ty":"open","ct":1,"ends_at":2,"price":5,"h":"H"}"#;

#[test]
fn what_is_no_export_is_told() {
    let draft = draft();
    let with = |line: &str| format!("{draft}\n{line}\n");
    let event = EVENT.replace('H', H);
    let table = [
        ("empty", String::new()),
        ("empty", format!("\n{draft}")),
        ("missing", "{}".into()),
        ("json", "no json".into()),
        ("json", draft[..draft.len() - 1].into()),
        ("trailing", format!("{draft} {{}}")),
        ("format", draft.replace("export/2", "export/1")),
        ("unknown", draft.replace("\"bids\"", "\"bits\"")),
        ("unknown", draft.replace("\"guests\"", "\"shard\":1,\"guests\"")),
        ("unknown", draft.replace("{\"format\"", "{\"more\":1,\"format\"")),
        ("missing", draft.replace("\"bids\":0,", "")),
        (
            "value",
            draft.replace("\"auction\"", "\"cuts\":[{\"epoch\":7,\"after\":1}],\"auction\""),
        ),
        (
            "missing",
            draft.replace("\"auction\"", "\"cuts\":[{\"epoch\":7}],\"auction\""),
        ),
        (
            "unknown",
            draft.replace(
                "\"auction\"",
                "\"cuts\":[{\"epoch\":7,\"after\":0,\"x\":1}],\"auction\"",
            ),
        ),
        ("twice", draft.replace("\"bids\":0", "\"bids\":0,\"bids\":0")),
        ("value", draft.replace("\"bids\":0", "\"bids\":-1")),
        ("value", draft.replace("\"bids\":0", "\"bids\":0.0")),
        ("value", draft.replace("\"bids\":0", "\"bids\":18446744073709551616")),
        ("value", draft.replace("\"bids\":0", "\"bids\":1e999")),
        ("value", draft.replace("\"bids\":0", "\"bids\":\"0\"")),
        ("value", draft.replace("\"version\":1", "\"version\":4294967296")),
        ("value", draft.replace("KRW", "krw")),
        ("value", draft.replace(H, &H[1..])),
        ("value", draft.replace(H, &H.replace('0', "A"))),
        ("json", with("no json")),
        ("json", with("")),
        ("json", with(&format!("\n{event}"))),
        ("json", with(&event[..20])),
        ("trailing", with(&format!("{event},"))),
        ("unknown", with(&event.replace("\"ct\"", "\"note\":1,\"ct\""))),
        ("twice", with(&event.replace("\"ct\":1", "\"ct\":1,\"ct\":1"))),
        ("missing", with(&event.replace("\"ct\":1,", ""))),
        ("value", with(&event.replace("\"ct\":1", "\"ct\":99999999999999999999"))),
        ("unknown", with(&format!("{{\"node\":1,\"shard\":2}}\n{event}"))),
        ("missing", with("{\"node\":1}")),
        ("unknown", with("{\"node\":1,\"shard\":2,\"seq\":3}")),
    ];
    for (row, (code, text)) in table.iter().enumerate() {
        let refused = read(text).unwrap_err();
        assert_eq!(refused.code, format!("file.{code}"), "row {row}: {refused}");
    }
    for good in [
        draft.clone(),
        with("{\"node\":1,\"shard\":2,\"term\":3,\"index\":4}"),
        with(&event),
    ] {
        read(&good).unwrap();
    }
}

#[test]
fn a_draft_proves_nothing_and_says_so() {
    let export = read(&draft()).unwrap();
    let summary = verify(&export).unwrap();
    let told = told(&export, &summary);
    assert_eq!(
        told.lines().last(),
        Some("checked: nothing but the form; it is draft, no event binds terms or seller yet")
    );
}

#[test]
fn a_head_without_its_events_is_refused() {
    let more = read(&draft().replace("\"seq\":0", "\"seq\":3")).unwrap();
    assert_eq!(verify(&more).unwrap_err().code, "head.seq");
    let priced = read(&draft().replace("\"price\":5", "\"price\":6")).unwrap();
    assert_eq!(verify(&priced).unwrap_err().code, "head.price");
    let opened = read(&format!("{}\n{}", draft(), EVENT.replace('H', H))).unwrap();
    assert_eq!(verify(&opened).unwrap_err().code, "event.fields");
}
