//! The HTTP API as OpenAPI, gathered from the handlers themselves, so that it can't say what isn't so.

use super::{admin, auctions, cluster, copies, media, people, read};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Rushroom", description = "Live auctions whose countdown the bids themselves shorten. See docs/protocol.md for the WebSocket."),
    paths(
        people::guest,
        read::list, read::one, read::events, read::export, read::chat,
        auctions::create, auctions::edit, auctions::schedule, auctions::start, auctions::resume, auctions::pause,
        auctions::extend, auctions::cancel, auctions::bid,
        media::publish, media::watch, media::patch, media::end,
        cluster::status, cluster::stop,
        admin::overview, admin::events, admin::explain, admin::change, admin::transfer, admin::versions,
        copies::image, copies::restore, copies::recover,
    ),
    modifiers(&Bearer)
)]
struct Api;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .build();
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// The API's description as JSON (`rushroom openapi`).
#[must_use]
pub fn openapi() -> String {
    Api::openapi().to_pretty_json().unwrap_or_default()
}

pub(super) async fn serve() -> impl axum::response::IntoResponse {
    ([(axum::http::header::CONTENT_TYPE, "application/json")], openapi())
}
