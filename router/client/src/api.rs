//! The edge's HTTP API: one function a call, problems as typed errors, keys that make repeats safe.
//!
//! Every mutating call carries an `Idempotency-Key` for its whole life: where the answer was lost, or says that the
//! outcome is open (`timeout`, `unavailable`, `busy`), the same key goes to the next node of the list, until the
//! patience of the options is used up. Only then the caller hears `Unknown`, which is not "no".
//!
//! `Api::pinned` gives one attempt at one node: what a harness needs that writes down each attempt by itself.

use crate::{
    dice::Dice,
    wire::{Auction, ChatLine, Cluster, Event, NewAuction, Page, Problem, User, Verdict},
};
use parking_lot::Mutex;
use reqwest::{Method, RequestBuilder, Response};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// Base URLs (`http://host:port`), asked in this order, starting anywhere.
    pub nodes: Vec<String>,
    /// Which of them first.
    pub first: usize,
    /// One attempt may take this long.
    pub attempt: Duration,
    /// All attempts together; zero: one attempt.
    pub patience: Duration,
    /// Largest answer that is read, bytes.
    pub answer_max: usize,
    /// Idle connections kept per node.
    pub idle_max: usize,
    /// Of generated keys and of jitter.
    pub seed: u64,
}

impl Default for ApiOptions {
    fn default() -> ApiOptions {
        ApiOptions {
            nodes: Vec::new(),
            first: 0,
            attempt: Duration::from_secs(6),
            patience: Duration::from_secs(15),
            answer_max: 256 << 20,
            idle_max: 64,
            seed: rand::random(),
        }
    }
}

/// Why a call gave no answer of its kind.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApiError {
    /// Definitely not done, and why.
    #[error("refused: {} ({})", .0.code, .0.detail)]
    Refused(Box<Problem>),
    /// It may or may not have been done. The same key may be sent again.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The answer is not what the protocol says.
    #[error("not understood: {0}")]
    Malformed(String),
}

impl ApiError {
    /// The problem's code, if it was refused.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            ApiError::Refused(problem) => Some(&problem.code),
            ApiError::Unknown(_) | ApiError::Malformed(_) => None,
        }
    }
}

/// What a guest asks to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Bids.
    Bidder,
    /// Sells.
    Seller,
}

/// A token and whose it is.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Session {
    /// Bearer token. Never log it.
    pub token: String,
    /// Whose.
    pub user: User,
    /// When it ends, unix ms.
    #[serde(default)]
    pub expires_at_ms: u64,
}

struct Shared {
    http: reqwest::Client,
    options: ApiOptions,
    next: AtomicUsize,
    dice: Mutex<Dice>,
}

/// A client of the HTTP API. Cheap to clone; clones share connections and the idea of which node answers.
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
    token: Option<Arc<str>>,
    /// One attempt at this node only.
    only: Option<usize>,
}

/// One call, as it is sent at each attempt.
struct Call<'a> {
    method: Method,
    path: &'a str,
    body: Option<serde_json::Value>,
    key: Option<&'a str>,
}

impl Api {
    /// A client of the nodes in `options`.
    ///
    /// # Errors
    /// No nodes are given, or the TLS part can't be set up.
    pub fn new(options: ApiOptions) -> Result<Api, ApiError> {
        if options.nodes.is_empty() {
            return Err(ApiError::Malformed("no nodes to ask".into()));
        }
        let http = reqwest::Client::builder()
            .timeout(options.attempt)
            .connect_timeout(options.attempt.min(Duration::from_secs(2)))
            .pool_max_idle_per_host(options.idle_max)
            .tcp_nodelay(true)
            .build()
            .map_err(|e| ApiError::Malformed(e.to_string()))?;
        let (next, dice) = (AtomicUsize::new(options.first), Mutex::new(Dice::new(options.seed)));
        Ok(Api {
            shared: Arc::new(Shared {
                http,
                options,
                next,
                dice,
            }),
            token: None,
            only: None,
        })
    }

    /// The same client, signed in.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Api {
        Api {
            token: Some(token.into()),
            ..self.clone()
        }
    }

    /// The same client, but each call is one attempt at the node with this place in the list.
    #[must_use]
    pub fn pinned(&self, node: usize) -> Api {
        Api {
            only: Some(node),
            ..self.clone()
        }
    }

    /// The base URLs.
    #[must_use]
    pub fn nodes(&self) -> &[String] {
        &self.shared.options.nodes
    }

    /// A fresh idempotency key.
    #[must_use]
    pub fn key(&self) -> String {
        self.shared.dice.lock().id("k-")
    }

    /// Signs a guest in.
    ///
    /// # Errors
    /// As every call: `ApiError`.
    pub async fn guest(&self, name: &str, role: Role) -> Result<Session, ApiError> {
        let body = serde_json::json!({ "name": name, "role": role });
        self.post("/api/v1/auth/guest", body, None).await
    }

    /// Auctions by state (`live,scheduled,closed`; empty: all).
    ///
    /// # Errors
    /// As every call: `ApiError`.
    pub async fn auctions(&self, state: &str, limit: u32, cursor: Option<&str>) -> Result<Page<Auction>, ApiError> {
        let mut path = format!("/api/v1/auctions?limit={limit}");
        for (name, value) in [("state", Some(state).filter(|s| !s.is_empty())), ("cursor", cursor)] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", escape(value)));
            }
        }
        self.get(&path).await
    }

    /// A new draft.
    ///
    /// # Errors
    /// As every call: `ApiError`.
    pub async fn create(&self, auction: &NewAuction) -> Result<Auction, ApiError> {
        self.post("/api/v1/auctions", to_value(auction)?, None).await
    }

    /// Another definition, if `version` is the newest.
    ///
    /// # Errors
    /// As every call: `ApiError`.
    pub async fn edit(&self, id: &str, version: u32, auction: &NewAuction) -> Result<Auction, ApiError> {
        let mut body = to_value(auction)?;
        body["version"] = version.into();
        let key = self.key();
        let path = format!("/api/v1/auctions/{id}");
        self.call(Call {
            method: Method::PUT,
            path: &path,
            body: Some(body),
            key: Some(&key),
        })
        .await
    }

    /// One auction, linearizable.
    ///
    /// # Errors
    /// As every call: `ApiError`.
    pub async fn auction(&self, id: &str) -> Result<Auction, ApiError> {
        self.get(&format!("/api/v1/auctions/{id}")).await
    }

    /// One auction from any replica that has version `seq`.
    ///
    /// # Errors
    /// As every call: `ApiError`.
    pub async fn auction_at_least(&self, id: &str, seq: u64) -> Result<Auction, ApiError> {
        self.get(&format!("/api/v1/auctions/{id}?at_least={seq}")).await
    }

    /// Starts by itself at a wall time.
    ///
    /// # Errors
    /// As every call: `ApiError`.
    pub async fn schedule(&self, id: &str, start_at_ms: u64) -> Result<Auction, ApiError> {
        self.act(id, "schedule", serde_json::json!({ "start_at_ms": start_at_ms }))
            .await
    }

    /// Live now.
    ///
    /// # Errors
    /// As every call: `ApiError`.
    pub async fn start(&self, id: &str) -> Result<Auction, ApiError> {
        self.act(id, "start", serde_json::json!({})).await
    }

    /// Stops the countdown, for a time or until resumed.
    ///
    /// # Errors
    /// As every call: `ApiError`.
    pub async fn pause(&self, id: &str, for_ms: Option<u64>) -> Result<Auction, ApiError> {
        let body = for_ms.map_or_else(|| serde_json::json!({}), |ms| serde_json::json!({ "for_ms": ms }));
        self.act(id, "pause", body).await
    }

    /// The countdown goes on.
    ///
    /// # Errors
    /// As every call: `ApiError`.
    pub async fn resume(&self, id: &str) -> Result<Auction, ApiError> {
        self.act(id, "resume", serde_json::json!({})).await
    }

    /// Gives time.
    ///
    /// # Errors
    /// As every call: `ApiError`.
    pub async fn extend(&self, id: &str, ms: u64) -> Result<Auction, ApiError> {
        self.act(id, "extend", serde_json::json!({ "ms": ms })).await
    }

    /// Calls it off.
    ///
    /// # Errors
    /// As every call: `ApiError`.
    pub async fn cancel(&self, id: &str, reason: &str) -> Result<Auction, ApiError> {
        self.act(id, "cancel", serde_json::json!({ "reason": reason })).await
    }

    /// Bids. A refusal that a shard judged is a `Verdict` with `ok: false`; one that the edge made is `Refused`.
    ///
    /// # Errors
    /// As every call: `ApiError`.
    pub async fn bid(&self, id: &str, amount: u64, key: &str) -> Result<Verdict, ApiError> {
        self.bid_since(id, amount, key, None).await
    }

    /// The same under a key that was sent before: `sent` as it was said then, or the newest stamp of the auction's clock that
    /// was seen by then.
    ///
    /// # Errors
    /// As every call: `ApiError`.
    pub async fn bid_since(&self, id: &str, amount: u64, key: &str, sent: Option<u64>) -> Result<Verdict, ApiError> {
        let path = format!("/api/v1/auctions/{id}/bids");
        let body = Some(match sent {
            Some(sent) => serde_json::json!({ "amount": amount, "sent": sent }),
            None => serde_json::json!({ "amount": amount }),
        });
        match self
            .call(Call {
                method: Method::POST,
                path: &path,
                body,
                key: Some(key),
            })
            .await
        {
            Err(ApiError::Refused(mut problem)) => match problem.verdict.take() {
                Some(verdict) => Ok(verdict),
                None => Err(ApiError::Refused(problem)),
            },
            other => other,
        }
    }

    /// Events after `after`.
    ///
    /// # Errors
    /// As every call: `ApiError`.
    pub async fn events(&self, id: &str, after: u64, limit: u32) -> Result<Page<Event>, ApiError> {
        self.get(&format!("/api/v1/auctions/{id}/events?after={after}&limit={limit}"))
            .await
    }

    /// The whole auction as JSON Lines; `local`: as the asked node's own replica has it (use with `pinned`).
    ///
    /// # Errors
    /// As every call: `ApiError`.
    pub async fn export(&self, id: &str, local: bool) -> Result<String, ApiError> {
        let query = if local { "?replica=local" } else { "" };
        let path = format!("/api/v1/auctions/{id}/export{query}");
        let bytes = self
            .answer(&Call {
                method: Method::GET,
                path: &path,
                body: None,
                key: None,
            })
            .await?;
        String::from_utf8(bytes).map_err(|e| ApiError::Malformed(e.to_string()))
    }

    /// The newest lines of chat.
    ///
    /// # Errors
    /// As every call: `ApiError`.
    pub async fn chat(&self, id: &str) -> Result<Page<ChatLine>, ApiError> {
        self.get(&format!("/api/v1/auctions/{id}/chat")).await
    }

    /// The cluster as the asked node sees it.
    ///
    /// # Errors
    /// As every call: `ApiError`.
    pub async fn cluster(&self) -> Result<Cluster, ApiError> {
        self.get("/api/v1/cluster").await
    }

    /// Demo only: a node dies as by `kill -9`.
    ///
    /// # Errors
    /// As every call: `ApiError`.
    pub async fn stop_node(&self, node: u64) -> Result<(), ApiError> {
        let path = format!("/api/v1/admin/nodes/{node}/stop");
        let key = self.key();
        let call = Call {
            method: Method::POST,
            path: &path,
            body: Some(serde_json::json!({})),
            key: Some(&key),
        };
        self.answer(&call).await.map(|_| ())
    }

    /// Whether the node at this place of the list says that it is ready.
    pub async fn ready(&self, node: usize) -> bool {
        let call = Call {
            method: Method::GET,
            path: "/readyz",
            body: None,
            key: None,
        };
        self.pinned(node).answer(&call).await.is_ok()
    }

    async fn act(&self, id: &str, verb: &str, body: serde_json::Value) -> Result<Auction, ApiError> {
        self.post(&format!("/api/v1/auctions/{id}/{verb}"), body, None).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.call(Call {
            method: Method::GET,
            path,
            body: None,
            key: None,
        })
        .await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: serde_json::Value,
        key: Option<&str>,
    ) -> Result<T, ApiError> {
        let made = self.key();
        let key = Some(key.unwrap_or(&made));
        self.call(Call {
            method: Method::POST,
            path,
            body: Some(body),
            key,
        })
        .await
    }

    async fn call<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, ApiError> {
        let bytes = self.answer(&call).await?;
        serde_json::from_slice(&bytes).map_err(|e| ApiError::Malformed(format!("{}: {e}", call.path)))
    }

    /// The whole of a successful answer, after as many attempts as patience allows.
    async fn answer(&self, call: &Call<'_>) -> Result<Vec<u8>, ApiError> {
        let options = &self.shared.options;
        let until = Instant::now() + options.patience;
        loop {
            let node = self.only.unwrap_or_else(|| self.shared.next.load(Ordering::Relaxed)) % options.nodes.len();
            let error = match self.attempt(node, call).await {
                Err(ApiError::Refused(problem)) if problem.is_open() => {
                    ApiError::Unknown(format!("{} {}", problem.code, problem.detail))
                }
                Err(ApiError::Unknown(why)) => ApiError::Unknown(why),
                answered => return answered,
            };
            let pause = Duration::from_millis(self.shared.dice.lock().between(20, 150));
            if self.only.is_some() || Instant::now() + pause >= until {
                return Err(error);
            }
            // Whoever finds the node silent moves all on, once.
            let moved = node + 1;
            let _ = self
                .shared
                .next
                .compare_exchange(node, moved, Ordering::Relaxed, Ordering::Relaxed);
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, node: usize, call: &Call<'_>) -> Result<Vec<u8>, ApiError> {
        let unknown = |e: reqwest::Error| ApiError::Unknown(format!("{e:?}"));
        let response = self.request(node, call).send().await.map_err(unknown)?;
        let status = response.status();
        let bytes = self.body(response).await?;
        if status.is_success() {
            return Ok(bytes);
        }
        // A body that is no problem document (a proxy's page) leaves the code empty: an open outcome, if it's a 5xx.
        let mut problem: Problem = serde_json::from_slice(&bytes).unwrap_or_default();
        problem.status = status.as_u16();
        if problem.code.is_empty() && !status.is_server_error() {
            problem.code = "bad_request".into();
        }
        Err(ApiError::Refused(Box::new(problem)))
    }

    fn request(&self, node: usize, call: &Call<'_>) -> RequestBuilder {
        let base = self.shared.options.nodes[node % self.shared.options.nodes.len()].trim_end_matches('/');
        let mut request = self
            .shared
            .http
            .request(call.method.clone(), format!("{base}{}", call.path));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(key) = call.key {
            request = request.header("idempotency-key", key);
        }
        match &call.body {
            Some(body) => request.json(body),
            None => request,
        }
    }

    /// The body, chunk by chunk up to the bound: a broken server can't fill our memory.
    async fn body(&self, mut response: Response) -> Result<Vec<u8>, ApiError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| ApiError::Unknown(e.to_string()))? {
            if bytes.len() + chunk.len() > self.shared.options.answer_max {
                return Err(ApiError::Malformed("the answer is too large".into()));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

fn to_value<T: Serialize>(body: &T) -> Result<serde_json::Value, ApiError> {
    serde_json::to_value(body).map_err(|e| ApiError::Malformed(e.to_string()))
}

/// A value in a query, with everything escaped that isn't plain.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~,".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
