//! People of the demo: guests signed in over the public API, each on an own socket at an own node.

use anyhow::{Context as _, Result};
use client::{Api, ApiOptions, Notices, Role, Session, Socket, SocketOptions};

/// How to meet the cluster.
#[derive(Clone)]
pub(super) struct Door {
    api: Api,
    urls: Vec<String>,
    seed: u64,
}

/// Someone signed in, with a socket.
pub(super) struct Guest {
    /// Who.
    pub(super) session: Session,
    /// Their socket.
    pub(super) socket: Socket,
    /// What it tells.
    pub(super) notices: Notices,
}

impl Door {
    /// To these nodes.
    pub(super) fn new(urls: Vec<String>, seed: u64) -> Result<Door> {
        let api = Api::new(ApiOptions {
            nodes: urls.clone(),
            seed,
            ..ApiOptions::default()
        })
        .context("an API client")?;
        Ok(Door { api, urls, seed })
    }

    /// The API, as nobody.
    pub(super) fn api(&self) -> &Api {
        &self.api
    }

    /// Base URLs, by place.
    pub(super) fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Signs someone in.
    pub(super) async fn sign_in(&self, name: &str, role: Role) -> Result<Session> {
        self.api
            .guest(name, role)
            .await
            .with_context(|| format!("signing {name} in"))
    }

    /// Signs a bidder in and connects them to the node at `place` first.
    pub(super) async fn guest(&self, name: &str, place: usize, salt: u64) -> Result<Guest> {
        let session = self.sign_in(name, Role::Bidder).await?;
        let (socket, notices) = self.connect(Some(session.token.clone()), place, salt);
        Ok(Guest {
            session,
            socket,
            notices,
        })
    }

    /// A socket, signed in or not.
    pub(super) fn connect(&self, token: Option<String>, place: usize, salt: u64) -> (Socket, Notices) {
        Socket::open(SocketOptions {
            nodes: self.urls.clone(),
            first: place,
            token,
            seed: self.seed ^ salt,
            ..SocketOptions::default()
        })
    }
}
