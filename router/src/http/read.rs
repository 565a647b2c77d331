//! What is asked of auctions: lists, one, its events, its export, its chat.

use super::{AuctionPath, Caller};
use crate::{
    edge::{Listed, Over, State},
    ports::Freshness,
    problem::{EdgeCode, Problem},
    wire::{AuctionBody, ChatBody, EventBody},
};
use auction::{AuctionId, AuctionView, Event, Id, Phase, Reason, Rights};
use axum::{
    body::{Body, Bytes},
    extract::{Query, State as FromState, rejection::QueryRejection},
    http::header,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::{future::join_all, stream};
use placement::{NodeId, ShardId};
use serde::{Deserialize, Serialize};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use utoipa::{IntoParams, ToSchema};

/// A query that isn't understood is a problem like any other.
fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    query
        .map(|Query(q)| q)
        .map_err(|why| Problem::edge(EdgeCode::BadRequest).because(why.body_text()))
}

/// Which auctions.
#[derive(Deserialize, IntoParams)]
pub(crate) struct ListQuery {
    /// Comma-separated: `live` (with paused), `scheduled`, `closed`, `draft` (the caller's own). Default: all but drafts.
    state: Option<String>,
    /// Only this seller's.
    seller: Option<String>,
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A page of auctions.
#[derive(Serialize, ToSchema)]
pub(crate) struct Page {
    items: Vec<AuctionBody>,
    /// Ask again with it as `cursor`; `null`: that was all.
    next: Option<String>,
    /// Shards that gave no answer: their auctions are missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<u32>,
}

/// Groups of a list, in their order.
const GROUPS: [&str; 4] = ["live", "scheduled", "draft", "closed"];

/// The last of them: it grows for ever, and is read a page at a time.
const CLOSED: usize = 3;
/// Auctions that are over and looked at for one page of a seller's: such a page may hold less than it could.
const SCAN: usize = 200;
/// Pages of what is over that are kept for whoever asks within a moment, and gathered at once.
pub(crate) const PAGES: usize = 16;

fn group(phase: Phase) -> usize {
    match phase {
        Phase::Live | Phase::Paused => 0,
        Phase::Scheduled => 1,
        Phase::Draft => 2,
        Phase::Closed(_) => CLOSED,
    }
}

/// Auctions: what is live first, then what comes, then what is over.
#[utoipa::path(get, path = "/api/v1/auctions", params(ListQuery),
    responses((status = 200, body = Page), (status = 400, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn list(
    FromState(state): FromState<Arc<State>>,
    Caller(caller): Caller,
    wish: Result<Query<ListQuery>, QueryRejection>,
) -> Result<axum::Json<Page>, Problem> {
    let wish = query(wish)?;
    let bad = |what: &str| Problem::edge(EdgeCode::BadRequest).because(what);
    let mut groups = [true, true, false, true];
    if let Some(words) = wish.state.as_deref().filter(|s| !s.is_empty()) {
        groups = [false; 4];
        for word in words.split(',') {
            let known = GROUPS.iter().position(|g| *g == word.trim());
            groups[known.ok_or_else(|| bad("state: live, scheduled, draft, closed"))?] = true;
        }
    }
    let after = match wish.cursor.as_deref().filter(|c| !c.is_empty()) {
        None => None,
        Some(text) => Some(cursor(text).ok_or_else(|| bad("cursor is none of ours"))?),
    };
    let limit = wish.limit.unwrap_or(50).clamp(1, state.options.page_max);
    let listed = listed(&state).await?;
    let sold_by = |v: &AuctionView| wish.seller.as_deref().is_none_or(|s| s == v.definition.seller.as_str());
    let shown = |v: &&AuctionView| {
        let own = caller
            .as_ref()
            .is_some_and(|u| u.id == v.definition.seller || u.rights.has(Rights::OPERATOR));
        groups[group(v.phase)]
            && (v.phase != Phase::Draft || own)
            && sold_by(v)
            && after.as_ref().is_none_or(|(g, id)| (group(v.phase), &v.id) > (*g, id))
    };
    let going_on = listed.views.iter().filter(shown);
    let mut page: Vec<AuctionView> = going_on.take(limit + 1).cloned().collect();
    let mut more = page.len() > limit;
    page.truncate(limit);
    let mut last = page.last().map(|v| (group(v.phase), v.id.clone()));
    let mut missing = listed.missing.to_vec();
    if !more && groups[CLOSED] {
        let from = after.filter(|(g, _)| *g == CLOSED).map(|(_, id)| id);
        let room = limit - page.len();
        let scan = wish.seller.as_ref().map_or(room, |_| room.max(SCAN));
        let over = over(&state, from, scan).await;
        missing.extend(over.missing.iter().filter(|shard| !listed.missing.contains(shard)));
        more = over.more;
        for (id, view) in over.found.iter() {
            if page.len() == limit {
                more = true;
                break;
            }
            // The list goes on after what was looked at, whether or not it could be read.
            last = Some((CLOSED, id.clone()));
            match view {
                Some(view) => page.extend(sold_by(view).then(|| view.clone())),
                None => missing.push(state.routes.shard_of(id).0),
            }
        }
        missing.sort_unstable();
        missing.dedup();
    }
    let next = last.filter(|_| more);
    let next = next.map(|(group, id)| URL_SAFE_NO_PAD.encode(format!("{group}:{id}")));
    let items = page.iter().map(|v| body(&state, v)).collect();
    Ok(axum::Json(Page { items, next, missing }))
}

/// A place in a list: group and id.
fn cursor(text: &str) -> Option<(usize, Id)> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (group, id) = text.split_once(':')?;
    Some((group.parse().ok()?, Id::parse(id)?))
}

fn body(state: &State, view: &AuctionView) -> AuctionBody {
    let shard = state.routes.shard_of(&view.id);
    AuctionBody::of(view, shard.0, state.ports.shards.clock(shard).map(|c| c.now))
}

/// The first auctions of all shards that are over, after one, in order of id, at most so many. The same page is gathered at most once
/// in `list_cache_ms`: who looks at lists looks at their beginning. Whoever wants a page that is being gathered waits for it, and
/// for no other.
async fn over(state: &Arc<State>, after: Option<Id>, many: usize) -> Over {
    let fresh = Duration::from_millis(state.options.list_cache_ms);
    let key = (after, many);
    let place = {
        let mut pages = state.over.lock();
        // A place is taken under this lock alone: one that nobody else holds is nobody's by now.
        pages.retain(|_, place| {
            let kept = || place.try_lock().is_ok_and(|page| fresh_of(&page, fresh).is_some());
            Arc::strong_count(place) > 1 || kept()
        });
        pages.entry(key.clone()).or_default().clone()
    };
    let mut page = place.lock().await;
    if let Some(page) = fresh_of(&page, fresh) {
        return page;
    }
    // Never closed; a permit that isn't given is nothing to fail for.
    let _turn = state.gatherings.acquire().await.ok();
    let gathered = gather_over(state, key.0.as_ref(), many).await;
    *page = Some(gathered.clone());
    let mut pages = state.over.lock();
    // Whoever waits for it has it already; another may have taken its place since.
    if pages.len() > PAGES && pages.get(&key).is_some_and(|now| Arc::ptr_eq(now, &place)) {
        pages.remove(&key);
    }
    gathered
}

fn fresh_of(page: &Option<Over>, fresh: Duration) -> Option<Over> {
    page.as_ref().filter(|page| page.at.elapsed() < fresh).cloned()
}

/// Ids first, which cost nothing, and one more than wanted: whether there are more is known before anything can fail to be read.
/// Then what is shown of those that are on the page.
async fn gather_over(state: &Arc<State>, after: Option<&Id>, many: usize) -> Over {
    let ask = |shard| async move {
        let shards = &state.ports.shards;
        let got = state
            .routes
            .nearest(ShardId(shard), |node| {
                shards.over(node, ShardId(shard), after, many + 1)
            })
            .await;
        (shard, got)
    };
    let (mut ids, mut missing) = (Vec::new(), Vec::new());
    for (shard, got) in join_all((1..=state.routes.map().shards).map(ask)).await {
        match got {
            Ok(some) => ids.extend(some),
            Err(_) => missing.push(shard),
        }
    }
    ids.sort_unstable();
    let more = ids.len() > many;
    ids.truncate(many);
    let read = |id: AuctionId| async move {
        let (shards, shard) = (&state.ports.shards, state.routes.shard_of(&id));
        let ask = |node| shards.read(node, shard, &id, Freshness::AtLeast(0));
        let view = state.routes.nearest(shard, ask).await.ok();
        (id, view)
    };
    let found = join_all(ids.into_iter().map(read)).await;
    Over {
        at: Instant::now(),
        found: Arc::new(found),
        more,
        missing: Arc::new(missing),
    }
}

/// All auctions of all shards that aren't over, gathered at most once in `list_cache_ms`.
async fn listed(state: &Arc<State>) -> Result<Listed, Problem> {
    let mut cache = state.listed.lock().await;
    let fresh = Duration::from_millis(state.options.list_cache_ms);
    if let Some(listed) = cache.as_ref().filter(|l| l.at.elapsed() < fresh) {
        return Ok(listed.clone());
    }
    let shards = state.routes.map().shards;
    let ask = |shard| async move {
        let got = state
            .routes
            .nearest(ShardId(shard), |node| state.ports.shards.list(node, ShardId(shard)))
            .await;
        (shard, got)
    };
    let (mut views, mut missing) = (Vec::new(), Vec::new());
    for (shard, got) in join_all((1..=shards).map(ask)).await {
        match got {
            Ok(some) => views.extend(some),
            Err(_) => missing.push(shard),
        }
    }
    if missing.len() == shards as usize {
        return Err(Problem {
            retry_after_s: Some(1),
            ..Problem::edge(EdgeCode::Unavailable)
        });
    }
    views.sort_by(|a, b| (group(a.phase), &a.id).cmp(&(group(b.phase), &b.id)));
    let listed = Listed {
        at: Instant::now(),
        views: Arc::new(views),
        missing: Arc::new(missing),
    };
    *cache = Some(listed.clone());
    Ok(listed)
}

/// How fresh.
#[derive(Deserialize, IntoParams)]
pub(crate) struct OneQuery {
    /// Any replica that has at least this version will do; without it the read is linearizable.
    at_least: Option<u64>,
}

/// One auction.
#[utoipa::path(get, path = "/api/v1/auctions/{id}", params(("id" = String, Path), OneQuery),
    responses((status = 200, body = AuctionBody), (status = 404, body = Problem)))]
pub(crate) async fn one(
    FromState(state): FromState<Arc<State>>,
    AuctionPath(auction): AuctionPath,
    wish: Result<Query<OneQuery>, QueryRejection>,
) -> Result<axum::Json<AuctionBody>, Problem> {
    let fresh = query(wish)?.at_least.map_or(Freshness::Linear, Freshness::AtLeast);
    let view = state.routes.read(&auction, fresh).await?;
    Ok(axum::Json(body(&state, &view)))
}

/// Which events.
#[derive(Deserialize, IntoParams)]
pub(crate) struct EventsQuery {
    after: Option<u64>,
    limit: Option<usize>,
}

/// A page of events.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventPage {
    items: Vec<EventBody>,
    /// Ask again with it as `after`; `null`: that was all.
    next: Option<u64>,
}

/// An auction's events, oldest first.
#[utoipa::path(get, path = "/api/v1/auctions/{id}/events", params(("id" = String, Path), EventsQuery),
    responses((status = 200, body = EventPage), (status = 404, body = Problem)))]
pub(crate) async fn events(
    FromState(state): FromState<Arc<State>>,
    AuctionPath(auction): AuctionPath,
    wish: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<axum::Json<EventPage>, Problem> {
    let wish = query(wish)?;
    let (after, limit) = (
        wish.after.unwrap_or(0),
        wish.limit.unwrap_or(500).clamp(1, state.options.page_max),
    );
    let shard = state.routes.shard_of(&auction);
    let ask = |node| state.ports.shards.events(node, shard, &auction, after, limit);
    let events = state.routes.nearest(shard, ask).await?;
    let next = (events.len() == limit).then(|| events.last().map(|e| e.seq)).flatten();
    Ok(axum::Json(EventPage {
        items: events.iter().map(|e| (&**e).into()).collect(),
        next,
    }))
}

/// Which replica.
#[derive(Deserialize, IntoParams)]
pub(crate) struct ExportQuery {
    /// `local`: this node's own replica, whatever it has.
    replica: Option<String>,
}

/// Events in one page of an export.
const EXPORT_PAGE: usize = 500;

/// An auction whole, for `rushroom verify`: JSON Lines, first the auction, then each event.
#[utoipa::path(get, path = "/api/v1/auctions/{id}/export", params(("id" = String, Path), ExportQuery),
    responses((status = 200, content_type = "application/jsonl"), (status = 404, body = Problem)))]
pub(crate) async fn export(
    FromState(state): FromState<Arc<State>>,
    AuctionPath(auction): AuctionPath,
    wish: Result<Query<ExportQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let local = match query(wish)?.replica.as_deref() {
        None => false,
        Some("local") => true,
        Some(_) => return Err(Problem::edge(EdgeCode::BadRequest).because("replica is local, if given")),
    };
    let shard = state.routes.shard_of(&auction);
    let me = state.ports.map.me();
    let view = if local {
        let fresh = Freshness::AtLeast(0);
        let read = state.ports.shards.read(me, shard, &auction, fresh).await;
        read.map_err(|_| Problem::reason(Reason::NotFound).because("this node has no replica of it"))?
    } else {
        state.routes.read(&auction, Freshness::Linear).await?
    };
    let mut head = line(&head(&state, &view));
    let end = if local {
        line(&replica(&state, me, shard).await)
    } else {
        Vec::new()
    };
    // The first page before the answer begins: what fails until then is a problem, not a broken stream.
    let export = Export {
        state,
        auction,
        shard,
        me: local.then_some(me),
        upto: view.seq,
    };
    let first = export.page(0).await?;
    head.extend(lines(&first));
    let seen = first.last().map_or(0, |e| e.seq);
    let rest = stream::unfold((export, seen, Some(end)), |(export, seen, end)| async move {
        if seen < export.upto {
            return match export.page(seen).await {
                Ok(events) if events.is_empty() => Some((
                    Err(std::io::Error::other("the replica has no more")),
                    (export, u64::MAX, None),
                )),
                Ok(events) => {
                    let seen = events.last().map_or(u64::MAX, |e| e.seq);
                    Some((Ok(Bytes::from(lines(&events))), (export, seen, end)))
                }
                Err(_) => Some((Err(std::io::Error::other("the replica went")), (export, u64::MAX, None))),
            };
        }
        end.map(|end| (Ok(Bytes::from(end)), (export, seen, None)))
    });
    let whole = futures_util::StreamExt::chain(stream::iter([Ok(Bytes::from(head))]), rest);
    Ok(([(header::CONTENT_TYPE, "application/jsonl")], Body::from_stream(whole)).into_response())
}

/// The first line of an export: the auction without what its events can't bear out (where it lies, what time it is, who
/// takes the video in at the moment); and where its history was cut, if it was.
fn head(state: &State, view: &AuctionView) -> serde_json::Value {
    let mut auction = serde_json::json!(body(state, view));
    if let Some(fields) = auction.as_object_mut() {
        for passing in ["shard", "now", "stream"] {
            fields.remove(passing);
        }
    }
    let mut head = serde_json::json!({"format": "rushroom-export/2", "auction": auction});
    if !view.cuts.is_empty() {
        let cuts = view.cuts.iter();
        head["cuts"] = cuts
            .map(|(epoch, seq)| serde_json::json!({"epoch": epoch, "after": seq}))
            .collect();
    }
    head
}

struct Export {
    state: Arc<State>,
    auction: AuctionId,
    shard: ShardId,
    /// Only this node's replica.
    me: Option<NodeId>,
    upto: u64,
}

impl Export {
    async fn page(&self, after: u64) -> Result<Vec<Arc<Event>>, Problem> {
        let (shards, routes) = (&self.state.ports.shards, &self.state.routes);
        let ask = |node| shards.events(node, self.shard, &self.auction, after, EXPORT_PAGE);
        let mut events = match self.me {
            Some(me) => ask(me).await.map_err(|_| Problem::reason(Reason::NotFound))?,
            None => routes.at_leader(self.shard, ask).await?,
        };
        events.retain(|e| e.seq <= self.upto);
        Ok(events)
    }
}

/// Which replica spoke, and how far it was: from the node's own status.
async fn replica(state: &State, me: NodeId, shard: ShardId) -> serde_json::Value {
    let status = state.ports.admin.status().await;
    let of_shard = status["shards"]
        .as_array()
        .and_then(|all| all.iter().find(|s| s["id"] == shard.0));
    let number = |key: &str| of_shard.map_or(serde_json::Value::Null, |s| s[key].clone());
    serde_json::json!({"node": me.0, "shard": shard.0, "term": number("term"), "index": number("applied")})
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

fn lines(events: &[Arc<Event>]) -> Vec<u8> {
    events.iter().flat_map(|e| line(&EventBody::from(&**e))).collect()
}

/// The newest lines of chat.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChatPage {
    items: Vec<ChatBody>,
}

/// The newest 50 lines of an auction's chat.
#[utoipa::path(get, path = "/api/v1/auctions/{id}/chat", params(("id" = String, Path)),
    responses((status = 200, body = ChatPage), (status = 404, body = Problem)))]
pub(crate) async fn chat(
    FromState(state): FromState<Arc<State>>,
    AuctionPath(auction): AuctionPath,
) -> Result<axum::Json<ChatPage>, Problem> {
    state.routes.read(&auction, Freshness::AtLeast(0)).await?;
    let shard = state.routes.shard_of(&auction);
    let ask = |node| state.ports.chats.recent(node, &auction, 50);
    let lines = state.routes.at_leader(shard, ask).await?;
    Ok(axum::Json(ChatPage {
        items: lines.iter().map(ChatBody::from).collect(),
    }))
}
