//! Who may call what: one table over the paths of all services, before any of them sees the request.
//!
//! | service | nodes | operators | auditors |
//! |---|---|---|---|
//! | raft, moves, shards, chats, relay | yes | | |
//! | `Admin`: looking | yes | yes | yes |
//! | `Admin`: acting | joining only, itself (`admin::service`) | yes | |
//! | `Admin.Image` (all of a shard, hidden maxima too), `Admin.Refound` | | yes | |
//! | `Cluster.Status` | yes | yes | yes |
//! | `Cluster.Stop` (demo) | yes | yes | |
//!
//! What isn't in the table is refused: a service that is added must say whom it is for. Without TLS nobody is anybody, and
//! everything is allowed: that is for loopback (`grpc.allow_plaintext` says otherwise, loudly).
//!
//! A node's number goes with the request (`raft_store::Speaker`, `sfu::Speaker`): whoever serves it can tell whose word it is.

use super::{Caller, Identity};
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct May {
    nodes: bool,
    operators: bool,
    auditors: bool,
}

const NODES: May = May {
    nodes: true,
    operators: false,
    auditors: false,
};
const LOOK: May = May {
    nodes: true,
    operators: true,
    auditors: true,
};
const ACT: May = May {
    nodes: true,
    operators: true,
    auditors: false,
};

/// Longest match first where one begins another.
const TABLE: &[(&str, May)] = &[
    ("/rushroom.raft.v1.Raft/", NODES),
    ("/rushroom.cluster.v1.Moves/", NODES),
    ("/rushroom.shard.v1.Shards/", NODES),
    ("/rushroom.shard.v1.Chats/", NODES),
    ("/rushroom.relay.v1.Relay/", NODES),
    ("/rushroom.cluster.v1.Cluster/Status", LOOK),
    ("/rushroom.cluster.v1.Cluster/Stop", ACT),
    ("/rushroom.cluster.v1.Admin/Overview", LOOK),
    ("/rushroom.cluster.v1.Admin/Watch", LOOK),
    ("/rushroom.cluster.v1.Admin/Versions", LOOK),
    ("/rushroom.cluster.v1.Admin/Change", ACT),
    (
        "/rushroom.cluster.v1.Admin/Image",
        May {
            nodes: false,
            operators: true,
            auditors: false,
        },
    ),
    (
        "/rushroom.cluster.v1.Admin/Refound",
        May {
            nodes: false,
            operators: true,
            auditors: false,
        },
    ),
    (
        "/rushroom.cluster.v1.Admin/Transfer",
        May {
            nodes: false,
            operators: true,
            auditors: false,
        },
    ),
];

/// Whether somebody may call a path; why not.
fn may(identity: Option<&Identity>, path: &str) -> Result<(), String> {
    let Some(identity) = identity else { return Ok(()) };
    let may = TABLE
        .iter()
        .find(|(prefix, _)| path.starts_with(prefix))
        .map(|(_, may)| *may);
    let allowed = may.is_some_and(|may| match identity {
        Identity::Node(_) => may.nodes,
        Identity::Operator(_) => may.operators,
        Identity::Auditor(_) => may.auditors,
    });
    if allowed {
        return Ok(());
    }
    Err(format!("[not_allowed] {identity} may not call {path}"))
}

/// Puts the table before a server's services.
#[derive(Clone, Copy, Default)]
pub(crate) struct GateLayer;

impl<S> tower::Layer<S> for GateLayer {
    type Service = Gate<S>;
    fn layer(&self, inner: S) -> Gate<S> {
        Gate { inner }
    }
}

/// See `GateLayer`.
#[derive(Clone)]
pub(crate) struct Gate<S> {
    inner: S,
}

impl<S, B> tower::Service<http::Request<B>> for Gate<S>
where
    S: tower::Service<http::Request<B>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = futures_util::future::Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        use futures_util::future::Either;
        let identity = request
            .extensions()
            .get::<Caller>()
            .and_then(|caller| caller.identity.clone());
        if let Err(why) = may(identity.as_ref(), request.uri().path()) {
            crate::metrics::not_allowed();
            tracing::warn!(%why, "a call was refused");
            return Either::Right(ready(Ok(Status::permission_denied(why).into_http())));
        }
        if let Some(Identity::Node(node)) = identity {
            request
                .extensions_mut()
                .insert(raft_store::Speaker(placement::NodeId(node)));
            request.extensions_mut().insert(sfu::Speaker(node));
        }
        Either::Left(self.inner.call(request))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Identity, TABLE, may};

    /// A call that is added to a service must say whom it is for, or nobody may make it.
    #[test]
    fn every_call_of_every_service_is_in_the_table() {
        let protos = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/rushroom");
        let mut calls = 0;
        for area in std::fs::read_dir(protos).unwrap() {
            for file in std::fs::read_dir(area.unwrap().path().join("v1")).unwrap() {
                let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
                let (mut package, mut service) = (String::new(), String::new());
                for line in text.lines().map(str::trim) {
                    let word = |of: &str| {
                        line.strip_prefix(of)
                            .map(|rest| rest.split([' ', ';', '(']).next().unwrap().to_owned())
                    };
                    package = word("package ").unwrap_or(package);
                    service = word("service ").unwrap_or(service);
                    if let Some(call) = word("rpc ") {
                        let path = format!("/{package}.{service}/{call}");
                        assert!(TABLE.iter().any(|(prefix, _)| path.starts_with(prefix)), "{path}");
                        calls += 1;
                    }
                }
            }
        }
        assert!(calls >= 20, "{calls} calls were found");
    }

    #[test]
    fn each_role_has_its_calls_and_no_other() {
        let node = Identity::Node(1);
        let operator = Identity::Operator("o".into());
        let auditor = Identity::Auditor("a".into());
        // path | node | operator | auditor
        let table: &[(&str, bool, bool, bool)] = &[
            ("/rushroom.raft.v1.Raft/Control", true, false, false),
            ("/rushroom.raft.v1.Raft/Snapshot", true, false, false),
            ("/rushroom.cluster.v1.Moves/Store", true, false, false),
            ("/rushroom.shard.v1.Shards/Commands", true, false, false),
            ("/rushroom.relay.v1.Relay/Subscribe", true, false, false),
            ("/rushroom.cluster.v1.Cluster/Status", true, true, true),
            ("/rushroom.cluster.v1.Cluster/Stop", true, true, false),
            ("/rushroom.cluster.v1.Admin/Overview", true, true, true),
            ("/rushroom.cluster.v1.Admin/Change", true, true, false),
            ("/rushroom.cluster.v1.Admin/Transfer", false, true, false),
            ("/rushroom.cluster.v1.Admin/Image", false, true, false),
            ("/rushroom.cluster.v1.Admin/Refound", false, true, false),
            ("/rushroom.cluster.v1.Admin/Unheard", false, false, false),
            ("/", false, false, false),
            ("", false, false, false),
        ];
        for (path, by_node, by_operator, by_auditor) in table {
            assert_eq!(may(Some(&node), path).is_ok(), *by_node, "node: {path}");
            assert_eq!(may(Some(&operator), path).is_ok(), *by_operator, "operator: {path}");
            assert_eq!(may(Some(&auditor), path).is_ok(), *by_auditor, "auditor: {path}");
            assert!(may(None, path).is_ok(), "without TLS: {path}");
        }
    }
}
