//! Live video for programs: a synthetic seller (WHIP) and a viewer that counts what it sees (WHEP).
//!
//! ```text
//!   Publisher: clip.ivf --> VP8 packets --> peer connection --WHIP--> node ~~> node --WHEP--> Viewer: frames, gaps
//! ```
//!
//! Both keep at it: a connection that is lost, or a node that answers no more, is tried again with growing waits and
//! jitter. As in the page, the judge is what comes and not the state of ICE, which needs many seconds to notice a dead
//! node: a connection over which nothing at all comes any more is left, and the next one is made elsewhere. Nothing is decoded: a viewer counts whole pictures by their packets, and reads the picture's number from
//! the VP8 descriptor, where our publisher puts a running count.

mod connect;
pub mod ivf;
mod publisher;
mod reports;
mod viewer;
pub mod vp8;

pub use publisher::{Publisher, PublisherOptions};
pub use viewer::{Seen, Viewer, ViewerOptions};

use async_trait::async_trait;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The loop that a synthetic seller publishes: 640x360, 20 pictures a second, a keyframe each second, 8 s. How its
/// picture number is drawn is written in `assets/make_clip.py`, which makes it.
pub const CLIP: &[u8] = include_bytes!("../../assets/clip.ivf");

/// A picture, as it is sent or became whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Its number, as its publisher counts (15 bits), if it is told.
    pub number: Option<u16>,
    /// It needs no other.
    pub keyframe: bool,
    /// When.
    pub at: Instant,
}

/// Told of every picture, on the task that handles it: it must be quick, and must not wait.
#[derive(Clone)]
pub struct OnPicture(Arc<dyn Fn(Picture) + Send + Sync>);

impl OnPicture {
    /// Tells `tell`.
    pub fn new(tell: impl Fn(Picture) + Send + Sync + 'static) -> OnPicture {
        OnPicture(Arc::new(tell))
    }

    fn tell(&self, number: Option<u16>, keyframe: bool) {
        let at = Instant::now();
        (self.0)(Picture { number, keyframe, at });
    }
}

impl std::fmt::Debug for OnPicture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnPicture")
    }
}

/// A media call failed.
#[derive(Debug, thiserror::Error)]
pub enum MediaClientError {
    /// The peer connection failed.
    #[error("WebRTC: {0}")]
    WebRtc(String),
    /// The node refused, with its status and problem.
    #[error("refused with {status}: {body}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The problem document.
        body: String,
    },
    /// The node didn't answer.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// The clip isn't a VP8 IVF file.
    #[error("the clip can't be read: {0}")]
    BadClip(&'static str),
}

/// How offers reach a node: WHIP and WHEP over HTTP, or, in tests, straight into it.
#[async_trait]
pub trait Signal: Send + Sync + 'static {
    /// Gives an offer; gets the answer, and the name of the session.
    async fn offer(&self, sdp: String) -> Result<(String, String), MediaClientError>;
    /// Ends a session.
    async fn end(&self, session: &str);
    /// The node fell silent: the next offer had better go to another one.
    fn left(&self) {}
}

/// WHIP or WHEP over HTTP, with a bearer token.
pub struct HttpSignal {
    http: reqwest::Client,
    urls: Vec<String>,
    token: Option<String>,
    next: std::sync::atomic::AtomicUsize,
}

impl HttpSignal {
    /// `urls`: the endpoint at each node that may be asked (`http://…/whep/{auction}`), tried in turn.
    pub fn new(urls: Vec<String>, token: Option<String>) -> Result<HttpSignal, MediaClientError> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(2))
            .timeout(Duration::from_secs(10))
            .build()
            .map_err(|e| MediaClientError::NoAnswer(e.to_string()))?;
        Ok(HttpSignal {
            http,
            urls,
            token,
            next: 0.into(),
        })
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }
}

#[async_trait]
impl Signal for HttpSignal {
    async fn offer(&self, sdp: String) -> Result<(String, String), MediaClientError> {
        let turn = self.next.load(std::sync::atomic::Ordering::Relaxed);
        let url = self
            .urls
            .get(turn % self.urls.len().max(1))
            .ok_or(MediaClientError::NoAnswer("no URL".into()))?;
        let request = self.http.post(url).header("content-type", "application/sdp").body(sdp);
        let failed = |error: reqwest::Error| {
            // The next try goes to the next node.
            self.left();
            MediaClientError::NoAnswer(error.to_string())
        };
        let response = self.authorized(request).send().await.map_err(failed)?;
        let status = response.status();
        let location = response
            .headers()
            .get("location")
            .and_then(|v| v.to_str().ok())
            .map(str::to_string);
        let session = location
            .and_then(|location| response.url().join(&location).ok())
            .map(|url| url.to_string())
            .unwrap_or_default();
        let body = response
            .text()
            .await
            .map_err(|e| MediaClientError::NoAnswer(e.to_string()))?;
        if !status.is_success() {
            self.left();
            return Err(MediaClientError::Refused {
                status: status.as_u16(),
                body,
            });
        }
        Ok((body, session))
    }

    async fn end(&self, session: &str) {
        if !session.is_empty() {
            // A node that is gone ends the session by itself.
            let _ = self.authorized(self.http.delete(session)).send().await;
        }
    }

    fn left(&self) {
        self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}
