//! Why a media request was refused: one enum, each with a stable code, so that the edge can make a problem of it.

/// A request that the media plane can't serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// The SDP isn't SDP, or lacks what WebRTC needs (ICE credentials, a fingerprint, a bundle).
    #[error("the SDP can't be used: {0}")]
    BadSdp(&'static str),
    /// Longer than `Options::sdp_max`.
    #[error("the SDP is longer than {0} bytes")]
    TooLarge(usize),
    /// Nothing in the offer that we speak: VP8, H.264 or VP9, and Opus.
    #[error("no codec in common: {0}")]
    NoCodec(&'static str),
    /// No such session, or it is over.
    #[error("no such media session")]
    NotFound,
    /// A bound of this node is reached.
    #[error("this node is full: {0}")]
    Busy(&'static str),
    /// Asked of a session that can't do it.
    #[error("not supported here: {0}")]
    Unsupported(&'static str),
    /// The media plane is shutting down, or a part of it failed; the operator's log says more.
    #[error("media is unavailable: {0}")]
    Unavailable(String),
}

impl MediaError {
    /// The code of the problem, as in `docs/protocol.md`.
    pub fn code(&self) -> &'static str {
        match self {
            MediaError::BadSdp(_) | MediaError::NoCodec(_) => "bad_request",
            MediaError::TooLarge(_) => "too_large",
            MediaError::NotFound => "not_found",
            MediaError::Busy(_) => "busy",
            MediaError::Unsupported(_) => "unsupported",
            MediaError::Unavailable(_) => "unavailable",
        }
    }
}

/// A relay could not be reached, or refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ControlError {
    /// No answer from the peer.
    #[error("node {0} is unreachable: {1}")]
    Unreachable(u64, String),
    /// It answered, and won't serve us.
    #[error("refused: {0}")]
    Refused(String),
}
