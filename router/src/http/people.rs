//! Who people are. For now: guests, by a token of our own that says so.

use super::{Json, Peer};
use crate::{
    auth::User,
    edge::State,
    problem::{EdgeCode, Problem},
    wire::UserBody,
};
use auction::{Id, Reason, Rights};
use axum::extract::State as FromState;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// A guest's wishes.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct Guest {
    /// Shown to others; made up if missing.
    name: Option<String>,
    /// `bidder` (default) or `seller`.
    role: Option<String>,
}

/// A token and whom it proves.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenBody {
    token: String,
    user: UserBody,
    expires_at_ms: u64,
}

/// Names for those who give none.
const NAMES: [&str; 16] = [
    "amber", "birch", "cedar", "clover", "coral", "fern", "hazel", "heron", "indigo", "lark", "maple", "olive",
    "otter", "robin", "willow", "wren",
];

/// A guest's token.
#[utoipa::path(post, path = "/api/v1/auth/guest", request_body = Guest,
    responses((status = 200, body = TokenBody), (status = 422, body = Problem), (status = 429, body = Problem)))]
pub(crate) async fn guest(
    FromState(state): FromState<Arc<State>>,
    Peer(peer): Peer,
    Json(wish): Json<Guest>,
) -> Result<axum::Json<TokenBody>, Problem> {
    state.limit_guest(peer)?;
    let invalid = |detail: &str| Problem::reason(Reason::Invalid).because(detail);
    let mut rights = Rights::BIDDER;
    match wish.role.as_deref() {
        None | Some("bidder") => {}
        Some("seller") if state.options.guest_sellers => rights = rights.and(Rights::SELLER),
        Some("seller") => return Err(Problem::reason(Reason::Auth).because("guests may not sell here")),
        Some(_) => return Err(invalid("role is bidder or seller")),
    }
    let name = match wish.name.as_deref().map(str::trim).filter(|n| !n.is_empty()) {
        Some(name) if name.chars().count() > crate::chat::NAME_MAX => {
            return Err(invalid("name: at most 40 characters"));
        }
        Some(name) if name.chars().any(char::is_control) => return Err(invalid("name: no control characters")),
        Some(name) => name.to_owned(),
        None => NAMES[rand::random_range(0..NAMES.len())].to_owned(),
    };
    let id = guest_id(&name).ok_or_else(|| Problem::edge(EdgeCode::Unavailable))?;
    let (token, user): (String, User) = state
        .tokens
        .mint(&id, &name, rights)
        .ok_or_else(|| Problem::edge(EdgeCode::Unavailable))?;
    Ok(axum::Json(TokenBody {
        token,
        expires_at_ms: user.expires_at_ms,
        user: UserBody::from(&user),
    }))
}

/// `guest-NAME-XXXXXXXX`: the name's plain letters, and 40 random bits so that no guest can become another by asking
/// often for the same name.
fn guest_id(name: &str) -> Option<Id> {
    let mut plain: String = name.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
    plain.make_ascii_lowercase();
    if plain.is_empty() {
        plain.push_str("anon");
    }
    Id::parse(&format!("guest-{plain}-{}", base32(rand::random::<u64>(), 8)))
}

/// The low bits of `n` as `digits` letters and digits that aren't mistaken for each other (Crockford's base 32).
pub(super) fn base32(n: u64, digits: u32) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    (0..digits)
        .map(|i| char::from(ALPHABET[(n >> (5 * i)) as usize & 31]))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_guests_id_is_always_an_id_and_tells_the_name() {
        let long = "x".repeat(40);
        let table = [
            ("Ann", "guest-ann-"),
            ("민지", "guest-anon-"),
            ("a b-c_d!", "guest-abcd-"),
            (&long, "guest-xxxxxxxxxxxxxxxxxxxx-"),
        ];
        for (name, prefix) in table {
            let id = guest_id(name).unwrap();
            let tail = id.as_str().strip_prefix(prefix).unwrap();
            assert_eq!(tail.len(), 8, "{id}");
        }
    }
}
