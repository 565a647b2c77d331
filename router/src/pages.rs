//! The web page, embedded in the binary.
//!
//! Files whose name bears a hash of their content (`assets/…`) may be kept forever; everything else is asked for again, by
//! ETag. A path that names no file is a route of the page itself: it gets `index.html`. If the page was not built, a
//! plain placeholder says how (`build.rs`).

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use rust_embed::{EmbeddedFile, RustEmbed};

#[derive(RustEmbed)]
#[folder = "web/dist"]
struct Dist;

pub(crate) fn page(path: &str, asked: &HeaderMap) -> Response {
    let path = path.trim_start_matches('/');
    let name = if path.is_empty() { "index.html" } else { path };
    match Dist::get(name) {
        Some(file) => serve(name, file, asked),
        // What looks like a file and isn't there must not be answered with a page.
        None if name.rsplit('/').next().is_some_and(|n| n.contains('.')) => StatusCode::NOT_FOUND.into_response(),
        None => match Dist::get("index.html") {
            Some(file) => serve("index.html", file, asked),
            None => StatusCode::NOT_FOUND.into_response(),
        },
    }
}

fn serve(name: &str, file: EmbeddedFile, asked: &HeaderMap) -> Response {
    let etag = format!("\"{}\"", hex::encode(&file.metadata.sha256_hash()[..12]));
    let hashed = name.starts_with("assets/");
    let cache = if hashed {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let known = asked
        .get(header::IF_NONE_MATCH)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.contains(&etag));
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let kind = mime_guess::from_path(name).first_or_octet_stream();
        let kind = match kind.essence_str() {
            text if text.starts_with("text/") => format!("{text}; charset=utf-8"),
            other => other.to_owned(),
        };
        let mut response = Response::new(Body::from(file.data.into_owned()));
        if let Ok(kind) = HeaderValue::from_str(&kind) {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        response
    };
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}
