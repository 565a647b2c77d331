/**
 * One auction as this page knows it: a fold over what the edge sends.
 *
 * ```text
 *   join ──> snap (forget, start here) ─┐
 *       └──> resumed (what I have holds)┴─> event, event, event … each the next `seq`
 *                                            │ one is missing?  ──> rejoin from the last good offset
 * ```
 *
 * Pure: `reduce(feed, message)` gives the next feed and what the shell must do. The promise behind it is that no gap
 * goes unseen: an event is shown only if it follows the last one, and a page never quietly skips.
 *
 * Deliberately absent: the clock (`countdown.ts`), our own bids (`bids.ts`), sockets.
 */
import { leastNext } from './terms';
import type { Auction, AuctionEvent, ChatLine, ServerMessage } from './types';

/** How many events and chat lines a page keeps for display. */
export const EVENTS_KEPT = 200;
export const CHAT_KEPT = 200;

export interface Feed {
  readonly id: string;
  /** Where we are; absent before the first snapshot. */
  readonly epoch?: number;
  readonly offset: number;
  readonly auction?: Auction;
  /** Oldest first. */
  readonly events: readonly AuctionEvent[];
  readonly chat: readonly ChatLine[];
  /** The leader of the chat changed: its last second may be lost, and the page says so. */
  readonly chatBreaks: readonly string[];
  readonly viewers: number;
  /** A join was sent and not yet answered: what comes meanwhile can't be placed. */
  readonly joining: boolean;
}

/** What the shell must do after a message. */
export type Effect =
  | { do: 'join'; epoch?: number; offset?: number }
  /** Events that happened now (not history), for animation and announcements. */
  | { do: 'show'; event: AuctionEvent; before: Auction };

export interface Step { feed: Feed; effects: Effect[] }

export function newFeed(id: string): Feed {
  return { id, offset: 0, events: [], chat: [], chatBreaks: [], viewers: 0, joining: false };
}

/** The join to send: a resume if there is anything to resume from. */
export function join(feed: Feed): Step {
  const effect: Effect = feed.epoch === undefined || !feed.auction
    ? { do: 'join' }
    : { do: 'join', epoch: feed.epoch, offset: feed.offset };
  return { feed: { ...feed, joining: true }, effects: [effect] };
}

/** Events as the log shows them: holds that follow one another are one line, with all the time that did not count. */
export function logRows(events: readonly AuctionEvent[], me: string | undefined): AuctionEvent[] {
  const rows: AuctionEvent[] = [];
  for (const event of events) {
    if (event.ty === 'raise' && event.actor !== me) continue;
    const last = rows.at(-1);
    if (event.ty === 'held' && last?.ty === 'held') rows[rows.length - 1] = { ...event, dms: (last.dms ?? 0) + (event.dms ?? 0) };
    else rows.push(event);
  }
  return rows;
}

/** History for display (older events, fetched aside): never beyond where the feed is, never over what it has. */
export function prefill(feed: Feed, older: readonly AuctionEvent[]): Feed {
  const first = feed.events[0]?.seq ?? feed.offset + 1;
  const fresh = older.filter((event) => event.seq < first);
  return fresh.length === 0 ? feed : { ...feed, events: [...fresh, ...feed.events].slice(-EVENTS_KEPT) };
}

const same = (feed: Feed): Step => ({ feed, effects: [] });

export function reduce(feed: Feed, message: ServerMessage): Step {
  if (!('a' in message) || message.a !== feed.id) return same(feed);
  switch (message.t) {
    case 'snap':
      return same({
        ...feed,
        epoch: message.epoch,
        offset: message.offset,
        auction: message.auction,
        events: (message.recent ?? []).slice(-EVENTS_KEPT),
        joining: false,
      });
    case 'resumed':
      // Another epoch than ours means a restore: what we hold may never have happened.
      if (!feed.auction || message.epoch !== feed.epoch || message.offset > feed.offset) return anew(feed);
      return same({ ...feed, joining: false });
    case 'event':
      return onEvent(feed, message.event);
    case 'changed':
      return same({ ...feed, auction: message.auction });
    case 'state':
      // The newest value while we were too slow for events; the snapshot that follows sets the offset.
      if (!feed.auction || message.seq <= feed.auction.seq) return same(feed);
      return same({
        ...feed,
        joining: true,
        auction: { ...feed.auction, price: message.price, least: message.least, leader: message.leader ?? null, ends_at: message.ends_at, seq: message.seq },
      });
    case 'counts':
      return same({ ...feed, viewers: message.viewers });
    case 'chat':
      return same(onChat(feed, message.chat));
    default:
      return same(feed);
  }
}

/** Start again without a position. */
function anew(feed: Feed): Step {
  const { epoch: _, ...rest } = feed;
  return join({ ...rest, offset: 0 });
}

function onEvent(feed: Feed, event: AuctionEvent): Step {
  if (!feed.auction || event.seq <= feed.offset) return same(feed);
  if (event.seq !== feed.offset + 1) return feed.joining ? same(feed) : join(feed);
  const next: Feed = {
    ...feed,
    offset: event.seq,
    auction: applyEvent(feed.auction, event),
    events: [...feed.events, event].slice(-EVENTS_KEPT),
  };
  return { feed: next, effects: [{ do: 'show', event, before: feed.auction }] };
}

/** What an event makes of an auction, as far as a viewer can see it. */
export function applyEvent(auction: Auction, event: AuctionEvent): Auction {
  const base: Auction = {
    ...auction,
    seq: event.seq,
    ct: event.ct,
    h: event.h,
    price: event.price,
    leader: event.leader ?? null,
    ends_at: event.ends_at,
  };
  switch (event.ty) {
    case 'open': {
      const next: Auction = { ...base, phase: 'live', left_ms: null };
      return { ...next, least: leastNext(next) };
    }
    case 'bid': {
      const next: Auction = { ...base, bids: auction.bids + 1 };
      return { ...next, least: leastNext(next) };
    }
    case 'pause':
      return { ...base, phase: 'paused', left_ms: event.left_ms ?? null };
    case 'resume':
      return { ...base, phase: 'live', left_ms: null };
    case 'extend':
      // While paused the deadline is only what it was; what counts is the time left.
      return base.phase === 'paused' ? { ...base, left_ms: (auction.left_ms ?? 0) + (event.dms ?? 0) } : base;
    case 'close':
      return { ...base, phase: 'closed', outcome: event.outcome ?? 'unsold', left_ms: null };
    case 'stream':
      return { ...base, stream: event.node != null && event.stream != null ? { node: event.node, id: event.stream } : null };
    case 'raise':
    case 'held':
      return base;
  }
}

function onChat(feed: Feed, line: ChatLine): Feed {
  const last = feed.chat.at(-1);
  const known = feed.chat.some((c) => c.chat_epoch === line.chat_epoch && c.cseq === line.cseq);
  if (known) return feed;
  const breaks = last && last.chat_epoch !== line.chat_epoch
    ? [...feed.chatBreaks, `${line.chat_epoch}/${line.cseq}`].slice(-CHAT_KEPT)
    : feed.chatBreaks;
  return { ...feed, chat: [...feed.chat, line].slice(-CHAT_KEPT), chatBreaks: breaks };
}
