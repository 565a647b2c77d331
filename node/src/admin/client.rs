//! A node, as `rushroom admin` asks it.

use super::args::Papers;
use super::wire::{Overview, overview_from};
use crate::tls;
use proto::cluster::v1::{self as pb, admin_client::AdminClient, cluster_client::ClusterClient};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// Connecting takes no longer.
const CONNECT: Duration = Duration::from_secs(3);
/// An answer neither: a change waits for a leader of shard 0, for 10 s at most.
const ANSWER: Duration = Duration::from_secs(20);
/// A shard that is founded anew: its image travels, is recomputed, and written.
const FOUNDING: Duration = Duration::from_secs(900);
/// Bytes of an image in one message.
const IMAGE_CHUNK: usize = 1 << 20;
/// Longest answer.
const MESSAGE_MAX: usize = 32 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotReached {
    #[error("{node} was not reached: {why}")]
    Silent { node: String, why: String },
    /// It answered that whoever asks may not, or not so.
    #[error("refused {0}")]
    Denied(String),
}

pub(super) struct Client {
    node: String,
    papers: Papers,
    channel: Channel,
}

impl Client {
    pub(super) async fn connect(node: &str, papers: &Papers) -> Result<Client, NotReached> {
        Client::connect_for(node, papers, ANSWER).await
    }

    async fn connect_for(node: &str, papers: &Papers, answer: Duration) -> Result<Client, NotReached> {
        let failed = |why: String| NotReached::Silent {
            node: node.to_owned(),
            why,
        };
        let endpoint = Endpoint::from_shared(format!("http://{node}")).map_err(|error| failed(error.to_string()))?;
        let endpoint = endpoint.connect_timeout(CONNECT).timeout(answer);
        let tls = papers.open().map_err(|fault| failed(fault.to_string()))?;
        let channel = tls::connect(tls.as_ref(), &endpoint).await;
        let channel = channel.map_err(|error| failed(chain(&error)))?;
        Ok(Client {
            node: node.to_owned(),
            papers: papers.clone(),
            channel,
        })
    }

    /// Another node, asked by the same person.
    pub(super) async fn elsewhere(&self, node: &str) -> Result<Client, NotReached> {
        Client::connect(node, &self.papers).await
    }

    fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX)
    }

    fn failed(&self, why: impl ToString) -> NotReached {
        NotReached::Silent {
            node: self.node.clone(),
            why: why.to_string(),
        }
    }

    fn answered(&self, status: &tonic::Status) -> NotReached {
        use tonic::Code::{InvalidArgument, PermissionDenied};
        match status.code() {
            PermissionDenied | InvalidArgument => NotReached::Denied(status.message().to_owned()),
            _ => self.failed(status.message()),
        }
    }

    pub(super) async fn overview(&self) -> Result<Overview, NotReached> {
        let reply = self.admin().overview(pb::OverviewRequest { own: false }).await;
        let reply = reply.map_err(|status| self.answered(&status))?;
        overview_from(reply.into_inner()).map_err(|bad| self.failed(bad))
    }

    pub(super) async fn change(&self, request: pb::ChangeRequest) -> Result<pb::ChangeReply, NotReached> {
        let reply = self.admin().change(request).await;
        Ok(reply.map_err(|status| self.answered(&status))?.into_inner())
    }

    pub(super) async fn transfer(&self, request: pb::TransferRequest) -> Result<pb::TransferReply, NotReached> {
        let reply = self.admin().transfer(request).await;
        Ok(reply.map_err(|status| self.answered(&status))?.into_inner())
    }

    /// Who runs which build.
    pub(super) async fn versions(&self) -> Result<pb::VersionsReply, NotReached> {
        let reply = self.admin().versions(pb::VersionsRequest {}).await;
        Ok(reply.map_err(|status| self.answered(&status))?.into_inner())
    }

    /// A shard's state, by the node that leads it; of a dry run only what it would be.
    pub(super) async fn image(&self, shard: u32, dry_run: bool) -> Result<(pb::ImageHead, Vec<u8>), NotReached> {
        let failed = |status: tonic::Status| self.answered(&status);
        let mut chunks = self
            .admin()
            .image(pb::ImageRequest { shard, dry_run })
            .await
            .map_err(failed)?
            .into_inner();
        let first = chunks.message().await.map_err(failed)?.and_then(|chunk| chunk.part);
        let Some(pb::image_chunk::Part::Head(head)) = first else {
            return Err(self.failed("an image without a head"));
        };
        let mut body = Vec::new();
        while let Some(chunk) = chunks.message().await.map_err(failed)? {
            let Some(pb::image_chunk::Part::Data(data)) = chunk.part else {
                return Err(self.failed("an image with two heads"));
            };
            body.extend_from_slice(&data);
            if body.len() as u64 > head.size {
                return Err(self.failed("an image longer than it said"));
            }
        }
        if body.len() as u64 != head.size && !dry_run {
            return Err(self.failed("an image that broke off"));
        }
        Ok((head, body))
    }

    /// Has a shard founded anew at a node: from an image, or from what the node's own replica has.
    pub(super) async fn refound(
        &self,
        node: &str,
        head: pb::RefoundHead,
        image: Option<bytes::Bytes>,
    ) -> Result<pb::RefoundReply, NotReached> {
        let there = Client::connect_for(node, &self.papers, FOUNDING).await?;
        let body = image.unwrap_or_default();
        let pieces = (0..body.len()).step_by(IMAGE_CHUNK).map(move |from| {
            let upto = (from + IMAGE_CHUNK).min(body.len());
            pb::refound_chunk::Part::Data(body.slice(from..upto))
        });
        let parts = std::iter::once(pb::refound_chunk::Part::Head(head)).chain(pieces);
        let chunks = parts.map(|part| pb::RefoundChunk { part: Some(part) });
        let reply = there.admin().refound(futures_util::stream::iter(chunks)).await;
        Ok(reply.map_err(|status| there.answered(&status))?.into_inner())
    }

    /// The node's own replicas.
    pub(super) async fn status(&self) -> Result<pb::StatusReply, NotReached> {
        let reply = ClusterClient::new(self.channel.clone())
            .status(pb::StatusRequest {})
            .await;
        Ok(reply.map_err(|status| self.answered(&status))?.into_inner())
    }
}

/// An error with its causes: tonic's own says "transport error" only.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
