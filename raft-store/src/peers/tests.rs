//! What shares a stream, as the peer at its other end sees it.

use super::{fake::Frame, *};
use proto::raft::v1::AppendRequest;
use std::{ops::Range, sync::Arc};

const PEER: NodeId = NodeId(2);

/// Each of these groups sends the peer a heartbeat, before the link's task gets a turn.
fn say(peers: &Arc<Peers>, groups: Range<u32>) -> Vec<Calling> {
    let call = |group| {
        let heartbeat = request::Body::Append(AppendRequest::default());
        let sent = peers.call(PEER, Class::Control, group, 1, heartbeat, fake::PATIENCE);
        sent.unwrap_or_else(|error| panic!("group {group}: {error}"))
    };
    groups.map(call).collect()
}

/// Answers each call of a frame in its group's name, the last one first.
fn answer(frame: &Frame) {
    let of = |request: &Request| Response {
        call: request.call,
        body: Some(response::Body::Refused(format!("group {}", request.group))),
    };
    frame.answer(frame.requests.iter().rev().map(of).collect());
}

/// So many groups speak to one peer in one turn: how many calls each frame carries.
async fn check(groups: u32, sizes: &[usize]) {
    let peers = Arc::new(Peers::new(fake::patient(), Dial::default()));
    let mut frames = fake::listen(&peers, PEER).await;
    // A link that is being dialled sends what opened it alone.
    let mut first = say(&peers, 0..1);
    let frame = frames.next().await;
    assert_eq!(frame.requests.len(), 1);
    answer(&frame);
    assert!(matches!(first[0].answer().await, Err(CallError::Refused(_))));

    let mut calls = say(&peers, 1..groups + 1);
    let mut seen: Vec<usize> = Vec::new();
    while seen.iter().sum::<usize>() < calls.len() {
        let frame = frames.next().await;
        seen.push(frame.requests.len());
        answer(&frame);
    }
    assert_eq!(seen, sizes, "{groups} groups");
    for (call, group) in calls.iter_mut().zip(1_u32..) {
        let answer = call.answer().await;
        let own = matches!(&answer, Err(CallError::Refused(why)) if *why == format!("group {group}"));
        assert!(own, "group {group} of {groups}: {answer:?}");
    }
}

/// The heartbeats of all groups to one node cost a frame, or one for each 64; and each call has the answer that is its own.
#[tokio::test]
async fn what_all_groups_say_to_a_node_in_one_turn_goes_together() {
    check(1, &[1]).await;
    check(3, &[3]).await;
    check(64, &[64]).await;
    check(65, &[64, 1]).await;
    check(128, &[64, 64]).await;
    check(130, &[64, 64, 2]).await;
}
