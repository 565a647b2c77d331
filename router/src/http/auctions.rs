//! What changes an auction: each call is one command, submitted until there is a verdict.

use super::{AuctionPath, Json, Key, Signed, people::base32};
use crate::{
    auth::User,
    edge::State,
    ports::Freshness,
    problem::{EdgeCode, Problem},
    wire::{Amount, AuctionBody, RushBody, SoftCloseBody, VerdictBody},
};
use auction::{
    Action, AuctionId, Command, Currency, Definition, Id, Reason, Reserve, Rights, Stamp, Terms, TimeRule, Verdict,
    money::{MONEY_MAX, Money},
    terms::{Rush, SoftClose},
};
use axum::{
    extract::State as FromState,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// An auction as its seller writes it.
#[derive(Deserialize, ToSchema)]
pub(crate) struct AuctionInput {
    /// Made by the server if missing.
    id: Option<String>,
    title: String,
    #[serde(default)]
    description: String,
    /// ISO 4217.
    currency: String,
    #[schema(value_type = u64)]
    start_price: Amount,
    /// `[from, step]` rows, the first from 0. Default: one row, about 1 % of the start price.
    #[schema(value_type = Option<Vec<(u64, u64)>>)]
    increments: Option<Vec<(Amount, Amount)>>,
    #[schema(value_type = Option<u64>)]
    reserve: Option<Amount>,
    duration_ms: u64,
    rush: Option<RushBody>,
    soft_close: Option<SoftCloseBody>,
    #[serde(default)]
    guests: bool,
    #[serde(default)]
    pause_without_stream: bool,
}

/// The same, for a version that the seller saw.
#[derive(Deserialize, ToSchema)]
pub(crate) struct AuctionEdit {
    version: u32,
    #[serde(flatten)]
    auction: AuctionInput,
}

fn money(amount: Amount) -> Result<Money, Problem> {
    match amount {
        Amount::Is(amount) => Ok(amount),
        Amount::TooBig => Err(Problem::reason(Reason::TooBig)),
    }
}

/// A reserve under a salt of its own, so that its published seal gives nothing away (`auction::bound`).
fn sealed(amount: Amount) -> Result<Reserve, Problem> {
    let (amount, salt) = (money(amount)?, rand::random());
    Ok(Reserve { amount, salt })
}

impl AuctionInput {
    /// As a definition. Only what can't be expressed is refused here; the rules' bounds are the core's.
    fn definition(self, seller: &User) -> Result<Definition, Problem> {
        let wrong = |what: &str| Problem::reason(Reason::Invalid).because(what);
        let start_price = money(self.start_price)?;
        let increments = match self.increments {
            Some(rows) => rows
                .into_iter()
                .map(|(from, step)| Ok((money(from)?, money(step)?)))
                .collect::<Result<_, Problem>>()?,
            None => vec![(0, step_for(start_price))],
        };
        Ok(Definition {
            seller: seller.id.clone(),
            title: self.title,
            description: self.description,
            terms: Terms {
                currency: Currency::parse(&self.currency).ok_or_else(|| wrong("currency: three letters, ISO 4217"))?,
                start_price,
                increments,
                reserve: self.reserve.map(sealed).transpose()?,
                duration_ms: self.duration_ms,
                time: TimeRule {
                    rush: self.rush.map(|r| Rush {
                        cut_ppm_max: r.cut_ppm_max,
                        cut_per_raise_ppm: r.cut_per_raise_ppm,
                        floor_ms: r.floor_ms,
                    }),
                    soft_close: self.soft_close.map(|s| SoftClose {
                        window_ms: s.window_ms,
                        reset_to_ms: s.reset_to_ms,
                        extensions_max: s.extensions_max,
                    }),
                },
                guests: self.guests,
                pause_without_stream: self.pause_without_stream,
            },
        })
    }
}

/// About 1 % of a price, rounded down to 1, 2 or 5 and zeros; at least 1.
fn step_for(price: Money) -> Money {
    let percent = (price / 100).max(1);
    let power = 10u64.pow(percent.ilog10());
    [5, 2, 1]
        .into_iter()
        .map(|n| n * power)
        .find(|step| *step <= percent)
        .unwrap_or(1)
}

/// Submits an action; a refusal is a problem.
async fn act(
    state: &Arc<State>,
    user: &User,
    auction: AuctionId,
    key: Key,
    action: Action,
) -> Result<Verdict, Problem> {
    state.limit_command(user)?;
    // A call without a key gets one, so that our own retries can't act twice.
    let id = key
        .0
        .or_else(|| Id::parse(&format!("edge-{}", base32(rand::random(), 12))));
    let verdict = state
        .submit(Command {
            auction,
            actor: user.actor(),
            id,
            first_sent: None,
            action,
        })
        .await?;
    if verdict.outcome.is_err() {
        Err(Problem::from(&verdict))
    } else {
        Ok(verdict)
    }
}

/// The auction as it is now, after a command. The command was accepted: what fails here is no refusal of it, and asking
/// again with the same key shows the auction.
async fn shown(state: &Arc<State>, auction: &AuctionId, verdict: &Verdict) -> Result<AuctionBody, Problem> {
    // Before it is live a version has no number: then only the leader knows the newest.
    let fresh = if verdict.seq > 0 {
        Freshness::AtLeast(verdict.seq)
    } else {
        Freshness::Linear
    };
    let read = state.routes.read(auction, fresh).await;
    let view = read.map_err(|_| Problem::edge(EdgeCode::Timeout))?;
    let shard = state.routes.shard_of(auction);
    Ok(AuctionBody::of(
        &view,
        shard.0,
        state.ports.shards.clock(shard).map(|c| c.now),
    ))
}

async fn act_and_show(
    state: Arc<State>,
    user: User,
    auction: AuctionId,
    key: Key,
    action: Action,
) -> Result<axum::Json<AuctionBody>, Problem> {
    let verdict = act(&state, &user, auction.clone(), key, action).await?;
    shown(&state, &auction, &verdict).await.map(axum::Json)
}

/// A new draft.
#[utoipa::path(post, path = "/api/v1/auctions", request_body = AuctionInput,
    responses((status = 201, body = AuctionBody), (status = 401, body = Problem), (status = 403, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn create(
    FromState(state): FromState<Arc<State>>,
    Signed(user): Signed,
    key: Key,
    Json(input): Json<AuctionInput>,
) -> Result<Response, Problem> {
    if !user.rights.has(Rights::SELLER) {
        return Err(Problem::reason(Reason::Auth).because("only sellers create auctions"));
    }
    let auction = match &input.id {
        Some(text) => Id::parse(text),
        None => Id::parse(&new_id(&user, &key)),
    };
    let auction = auction.ok_or_else(|| Problem::reason(Reason::Invalid).because("id: 1 to 64 of A-Z a-z 0-9 _ -"))?;
    let definition = Box::new(input.definition(&user)?);
    let verdict = act(&state, &user, auction.clone(), key, Action::Create(definition)).await?;
    let body = shown(&state, &auction, &verdict).await?;
    let location = format!("/api/v1/auctions/{auction}");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], axum::Json(body)).into_response())
}

/// Ten letters and digits. From the key if there is one: the same call again must name the same auction.
fn new_id(user: &User, Key(key): &Key) -> String {
    let bits = match key {
        None => rand::random(),
        Some(key) => {
            let text = format!("auction of {} {}", user.id, key);
            let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
            digest
                .as_ref()
                .iter()
                .take(8)
                .fold(0u64, |all, byte| all << 8 | u64::from(*byte))
        }
    };
    base32(bits, 10)
}

/// Another definition, before it is live.
#[utoipa::path(put, path = "/api/v1/auctions/{id}", params(("id" = String, Path)), request_body = AuctionEdit,
    responses((status = 200, body = AuctionBody), (status = 409, body = Problem)))]
pub(crate) async fn edit(
    FromState(state): FromState<Arc<State>>,
    AuctionPath(auction): AuctionPath,
    Signed(user): Signed,
    key: Key,
    Json(edit): Json<AuctionEdit>,
) -> Result<axum::Json<AuctionBody>, Problem> {
    let action = Action::Edit {
        version: edit.version,
        definition: Box::new(edit.auction.definition(&user)?),
    };
    act_and_show(state, user, auction, key, action).await
}

/// When it starts by itself.
#[derive(Deserialize, ToSchema)]
pub(crate) struct ScheduleInput {
    /// Unix ms.
    start_at_ms: u64,
}

/// To start by itself.
#[utoipa::path(post, path = "/api/v1/auctions/{id}/schedule", params(("id" = String, Path)), request_body = ScheduleInput,
    responses((status = 200, body = AuctionBody), (status = 409, body = Problem)))]
pub(crate) async fn schedule(
    FromState(state): FromState<Arc<State>>,
    AuctionPath(auction): AuctionPath,
    Signed(user): Signed,
    key: Key,
    Json(input): Json<ScheduleInput>,
) -> Result<axum::Json<AuctionBody>, Problem> {
    act_and_show(
        state,
        user,
        auction,
        key,
        Action::Schedule {
            start_wall_ms: input.start_at_ms,
        },
    )
    .await
}

/// Go live now.
#[utoipa::path(post, path = "/api/v1/auctions/{id}/start", params(("id" = String, Path)),
    responses((status = 200, body = AuctionBody), (status = 409, body = Problem)))]
pub(crate) async fn start(
    FromState(state): FromState<Arc<State>>,
    AuctionPath(auction): AuctionPath,
    Signed(user): Signed,
    key: Key,
) -> Result<axum::Json<AuctionBody>, Problem> {
    act_and_show(state, user, auction, key, Action::Start { schedule_version: None }).await
}

/// End a pause.
#[utoipa::path(post, path = "/api/v1/auctions/{id}/resume", params(("id" = String, Path)),
    responses((status = 200, body = AuctionBody), (status = 409, body = Problem)))]
pub(crate) async fn resume(
    FromState(state): FromState<Arc<State>>,
    AuctionPath(auction): AuctionPath,
    Signed(user): Signed,
    key: Key,
) -> Result<axum::Json<AuctionBody>, Problem> {
    act_and_show(state, user, auction, key, Action::Resume).await
}

/// For how long.
#[derive(Deserialize, ToSchema)]
pub(crate) struct PauseInput {
    /// Until resumed if missing.
    for_ms: Option<u64>,
}

/// Stop the countdown.
#[utoipa::path(post, path = "/api/v1/auctions/{id}/pause", params(("id" = String, Path)), request_body = PauseInput,
    responses((status = 200, body = AuctionBody), (status = 409, body = Problem)))]
pub(crate) async fn pause(
    FromState(state): FromState<Arc<State>>,
    AuctionPath(auction): AuctionPath,
    Signed(user): Signed,
    key: Key,
    Json(input): Json<PauseInput>,
) -> Result<axum::Json<AuctionBody>, Problem> {
    act_and_show(state, user, auction, key, Action::Pause { for_ms: input.for_ms }).await
}

/// How much time.
#[derive(Deserialize, ToSchema)]
pub(crate) struct ExtendInput {
    /// 1 to 86,400,000.
    ms: u64,
}

/// Give more time.
#[utoipa::path(post, path = "/api/v1/auctions/{id}/extend", params(("id" = String, Path)), request_body = ExtendInput,
    responses((status = 200, body = AuctionBody), (status = 409, body = Problem)))]
pub(crate) async fn extend(
    FromState(state): FromState<Arc<State>>,
    AuctionPath(auction): AuctionPath,
    Signed(user): Signed,
    key: Key,
    Json(input): Json<ExtendInput>,
) -> Result<axum::Json<AuctionBody>, Problem> {
    act_and_show(state, user, auction, key, Action::Extend { ms: input.ms }).await
}

/// Why.
#[derive(Deserialize, ToSchema)]
pub(crate) struct CancelInput {
    /// Shown to bidders.
    reason: String,
}

/// Call it off.
#[utoipa::path(post, path = "/api/v1/auctions/{id}/cancel", params(("id" = String, Path)), request_body = CancelInput,
    responses((status = 200, body = AuctionBody), (status = 409, body = Problem)))]
pub(crate) async fn cancel(
    FromState(state): FromState<Arc<State>>,
    AuctionPath(auction): AuctionPath,
    Signed(user): Signed,
    key: Key,
    Json(input): Json<CancelInput>,
) -> Result<axum::Json<AuctionBody>, Problem> {
    act_and_show(state, user, auction, key, Action::Cancel { reason: input.reason }).await
}

/// How much.
#[derive(Deserialize, ToSchema)]
pub(crate) struct BidInput {
    /// Minor units.
    #[schema(value_type = u64)]
    amount: Amount,
    /// A stamp of the auction's clock that was told (`now`) no later than this key was first sent; the same whenever it is
    /// sent again. A key that was sent ten minutes ago is then refused (`expired`) unless its verdict is known.
    sent: Option<u64>,
}

/// A bid. The same key asks for the same bid's verdict.
#[utoipa::path(post, path = "/api/v1/auctions/{id}/bids", request_body = BidInput,
    params(("id" = String, Path), ("Idempotency-Key" = String, Header)),
    responses((status = 200, body = VerdictBody), (status = 401, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem),
        (status = 429, body = Problem), (status = 504, body = Problem)))]
pub(crate) async fn bid(
    FromState(state): FromState<Arc<State>>,
    AuctionPath(auction): AuctionPath,
    Signed(user): Signed,
    Key(key): Key,
    headers: HeaderMap,
    Json(input): Json<BidInput>,
) -> Result<axum::Json<VerdictBody>, Problem> {
    let missing = || Problem::edge(EdgeCode::BadRequest).because("Idempotency-Key is required");
    let id = Some(key.ok_or_else(missing)?);
    let amount = money(input.amount)?;
    debug_assert!(amount <= MONEY_MAX);
    state.limit_bid(&user)?;
    let command = Command {
        auction,
        actor: user.actor(),
        id,
        first_sent: input.sent.map(Stamp),
        action: Action::Bid { amount },
    };
    let verdict = match state.settled(&command) {
        Some(verdict) => verdict,
        None => state.bid(command, parent(&headers)).await?,
    };
    if verdict.outcome.is_err() {
        Err(Problem::from(&verdict))
    } else {
        Ok(axum::Json((&verdict).into()))
    }
}

/// The trace that the caller is in (W3C `traceparent`), if a propagator is installed.
fn parent(headers: &HeaderMap) -> Option<opentelemetry::Context> {
    struct Carrier<'a>(&'a HeaderMap);
    impl opentelemetry::propagation::Extractor for Carrier<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key)?.to_str().ok()
        }
        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(|k| k.as_str()).collect()
        }
    }
    headers
        .contains_key("traceparent")
        .then(|| opentelemetry::global::get_text_map_propagator(|propagator| propagator.extract(&Carrier(headers))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_default_step_is_about_one_percent() {
        let table = [
            (0, 1),
            (99, 1),
            (100, 1),
            (1_000, 10),
            (5_500, 50),
            (10_000, 100),
            (39_999, 200),
            (123_456, 1_000),
        ];
        for (price, step) in table {
            assert_eq!(step_for(price), step, "{price}");
        }
        assert_eq!(step_for(MONEY_MAX), MONEY_MAX / 100);
    }
}
