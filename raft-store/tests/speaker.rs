//! A node speaks for its own replicas only: what comes in another's name is refused, whatever it says.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::Cluster;
use placement::{NodeId, ShardId};
use proto::raft::v1::{
    LeaderId, NodePulse, Request, Requests, Vote, VoteRequest, raft_client::RaftClient, request, response,
};
use raft_store::Speaker;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::interceptor::InterceptedService;

/// Node 1's service, as it sounds to callers whose certificate says `speaker`.
async fn heard_as(cluster: &Cluster, speaker: u64) -> RaftClient<tonic::transport::Channel> {
    let service = cluster.running[&1].host.raft_service();
    let tagged = InterceptedService::new(service, move |mut request: tonic::Request<()>| {
        request.extensions_mut().insert(Speaker(NodeId(speaker)));
        Ok(request)
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_service(tagged);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    RaftClient::connect(format!("http://{address}")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_speaks_for_its_own_replicas_only() {
    let cluster = Cluster::three(1).await;
    let map = cluster.running[&1].host.map().borrow().clone();
    let shard = ShardId(1);
    let replica = |node: u64| map.replica_on(shard, NodeId(node)).unwrap().0;
    // A vote of long ago: it is answered, and changes nothing.
    let vote = |of: u64| Request {
        call: 1,
        group: shard.0,
        to: replica(1),
        body: Some(request::Body::PreVote(VoteRequest {
            vote: Some(Vote {
                leader: Some(LeaderId {
                    term: 0,
                    replica: replica(of),
                }),
                committed: false,
            }),
            ..VoteRequest::default()
        })),
    };
    for (speaker, of, believed) in [(2, 2, true), (3, 2, false), (2, 3, false)] {
        let mut client = heard_as(&cluster, speaker).await;
        let requests = Requests {
            requests: vec![vote(of)],
        };
        let asked = tokio_stream::StreamExt::chain(tokio_stream::once(requests), tokio_stream::pending());
        let mut answers = client.control(asked).await.unwrap().into_inner();
        let answer = answers.message().await.unwrap().unwrap().responses.remove(0);
        let refused = matches!(&answer.body, Some(response::Body::Refused(why)) if why.contains("[not_yours]"));
        assert_eq!(refused, !believed, "node {speaker} for node {of}'s: {answer:?}");
    }
    let mut client = heard_as(&cluster, 3).await;
    let pulse = NodePulse {
        node: 2,
        life: 1,
        ..NodePulse::default()
    };
    let told = client.pulse(tokio_stream::once(pulse)).await.unwrap_err();
    assert_eq!(told.code(), tonic::Code::PermissionDenied, "{told}");
}
