//! What went wrong, for people and programs: RFC 9457 problems with a code.
//!
//! A code is a reason of the one table (`auction::Reason`: verdicts use the same) or one of the few that only an edge can
//! know. Nothing internal (addresses, error chains, tokens) is ever put into a problem.

use crate::{gate::Busy, route::GiveUp, wire::VerdictBody};
use auction::{Reason, Verdict};
use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// When to come back to a disk that was full, s: someone has to make room.
const DISK_FULL_S: u32 = 10;

/// Codes that aren't reasons of the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EdgeCode {
    BadRequest,
    TooLarge,
    Unsupported,
    Timeout,
    Unavailable,
    DiskFull,
    Busy,
    NoSuchPath,
    Method,
}

impl EdgeCode {
    /// status, code, English, Korean.
    const fn row(self) -> (StatusCode, &'static str, &'static str, &'static str) {
        match self {
            EdgeCode::BadRequest => (
                StatusCode::BAD_REQUEST,
                "bad_request",
                "The request was not understood.",
                "요청을 이해할 수 없습니다.",
            ),
            EdgeCode::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                "The request is too large.",
                "요청이 너무 큽니다.",
            ),
            EdgeCode::Unsupported => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported",
                "This content type is not supported.",
                "지원하지 않는 형식입니다.",
            ),
            EdgeCode::Timeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "timeout",
                "No answer yet. Send it again with the same key.",
                "아직 응답이 없습니다. 같은 요청을 다시 보내 주세요.",
            ),
            EdgeCode::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "This is not available right now. Please try again.",
                "지금은 사용할 수 없습니다. 잠시 후 다시 시도해 주세요.",
            ),
            EdgeCode::DiskFull => (
                StatusCode::SERVICE_UNAVAILABLE,
                "disk_full",
                "There is no room for this right now. Please try again later.",
                "저장 공간이 부족합니다. 잠시 후 다시 시도해 주세요.",
            ),
            EdgeCode::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "Too many bids at this moment. Yours was not judged: send it again shortly.",
                "지금 입찰이 몰리고 있습니다. 아직 처리되지 않았으니 잠시 후 다시 보내 주세요.",
            ),
            EdgeCode::NoSuchPath => (
                StatusCode::NOT_FOUND,
                "no_such_path",
                "There is nothing here.",
                "요청한 주소가 없습니다.",
            ),
            EdgeCode::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method",
                "This can't be done with that method.",
                "허용되지 않는 방식입니다.",
            ),
        }
    }
}

/// A problem's type: a path made of its code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind(&'static str);

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("/problems/{}", self.0))
    }
}

/// An RFC 9457 problem.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// `/problems/{code}`.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub(crate) kind: Kind,
    /// One line, English.
    pub(crate) title: &'static str,
    /// The HTTP status.
    pub(crate) status: u16,
    /// What exactly, for a developer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) detail: Option<Box<str>>,
    /// From the one table.
    pub(crate) code: &'static str,
    /// One line, Korean.
    pub(crate) ko: &'static str,
    /// The refusal, if a shard judged it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) verdict: Option<Box<VerdictBody>>,
    /// When to send it again with the same id, ms: `busy` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_after_ms: Option<u32>,
    #[serde(skip)]
    pub(crate) retry_after_s: Option<u32>,
}

impl Problem {
    pub(crate) fn edge(code: EdgeCode) -> Problem {
        let (status, code, title, ko) = code.row();
        Problem {
            kind: Kind(code),
            title,
            status: status.as_u16(),
            detail: None,
            code,
            ko,
            verdict: None,
            retry_after_ms: None,
            retry_after_s: None,
        }
    }

    pub(crate) fn reason(reason: Reason) -> Problem {
        let status = match reason {
            Reason::Auth => StatusCode::FORBIDDEN,
            Reason::NotFound => StatusCode::NOT_FOUND,
            Reason::Lost => StatusCode::GONE,
            Reason::Rate => StatusCode::TOO_MANY_REQUESTS,
            Reason::Invalid | Reason::TooBig => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::CONFLICT,
        };
        Problem {
            kind: Kind(reason.code()),
            title: reason.english(),
            status: status.as_u16(),
            detail: None,
            code: reason.code(),
            ko: reason.korean(),
            verdict: None,
            retry_after_ms: None,
            retry_after_s: None,
        }
    }

    /// No token, or one that proves nobody.
    pub(crate) fn unsigned(detail: &str) -> Problem {
        let mut problem = Problem::reason(Reason::Auth).because(detail);
        problem.status = StatusCode::UNAUTHORIZED.as_u16();
        problem
    }

    /// Too fast; when it may go on.
    pub(crate) fn rate(wait_ms: u64) -> Problem {
        Problem {
            retry_after_s: Some(wait_ms.div_ceil(1000).max(1) as u32),
            ..Problem::reason(Reason::Rate)
        }
    }

    pub(crate) fn because(mut self, detail: impl Into<String>) -> Problem {
        self.detail = Some(detail.into().into());
        self
    }

    /// A body that parsed, or didn't: malformed JSON is `bad_request`, a wrong value is `invalid`.
    pub(crate) fn json(error: &serde_json::Error) -> Problem {
        // The library calls 1e400 bad syntax; by the grammar it is a number, only out of any field's bounds.
        let out_of_range = error.to_string().starts_with("number out of range");
        match error.classify() {
            _ if out_of_range => Problem::reason(Reason::Invalid).because(error.to_string()),
            serde_json::error::Category::Data => Problem::reason(Reason::Invalid).because(error.to_string()),
            _ => Problem::edge(EdgeCode::BadRequest).because(error.to_string()),
        }
    }
}

impl From<Busy> for Problem {
    fn from(busy: Busy) -> Problem {
        Problem {
            retry_after_ms: Some(busy.retry_after_ms),
            retry_after_s: Some(busy.retry_after_ms.div_ceil(1000)),
            ..Problem::edge(EdgeCode::Busy)
        }
    }
}

impl From<&Verdict> for Problem {
    /// A refusal. (An accepted verdict is no problem; then this says `invalid` and a test would show it.)
    fn from(verdict: &Verdict) -> Problem {
        let reason = verdict.outcome.err().unwrap_or(Reason::Invalid);
        Problem {
            verdict: Some(Box::new(verdict.into())),
            ..Problem::reason(reason)
        }
    }
}

impl From<GiveUp> for Problem {
    fn from(why: GiveUp) -> Problem {
        match why {
            GiveUp::Timeout => Problem::edge(EdgeCode::Timeout),
            GiveUp::Unavailable => Problem {
                retry_after_s: Some(1),
                ..Problem::edge(EdgeCode::Unavailable)
            },
            GiveUp::DiskFull => Problem {
                retry_after_s: Some(DISK_FULL_S),
                ..Problem::edge(EdgeCode::DiskFull)
            },
            GiveUp::NotFound => Problem::reason(Reason::NotFound),
            GiveUp::Lost => Problem::reason(Reason::Lost),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        crate::metrics::problem(self.code);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED.as_u16() {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
