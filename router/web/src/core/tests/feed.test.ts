import { describe, expect, it } from 'vitest';
import { applyEvent, type Effect, EVENTS_KEPT, type Feed, join, logRows, newFeed, prefill, reduce } from '../feed';
import type { Auction, AuctionEvent, ServerMessage } from '../types';

const auction = (over: Partial<Auction> = {}): Auction => ({
  id: 'a1', version: 1, seller: 'guest-sun-0001', title: 'Vase', description: '', currency: 'KRW', start_price: 10_000,
  increments: [[0, 1_000], [50_000, 5_000]], duration_ms: 60_000, guests: true, pause_without_stream: false, phase: 'live',
  seq: 1, price: 10_000, least: 10_000, leader: null, bids: 0, ends_at: 60_000, ct: 0, h: '00', shard: 3, ...over,
});
const event = (seq: number, over: Partial<AuctionEvent> = {}): AuctionEvent => ({
  seq, ty: 'bid', ct: seq * 10, ends_at: 60_000, price: 10_000 + seq * 1_000, leader: 'b', actor: 'b', h: `h${seq}`, ...over,
});
const snap = (offset: number, over: Partial<Auction> = {}): ServerMessage => ({ t: 'snap', a: 'a1', epoch: 7, offset, auction: auction({ seq: offset, ...over }), recent: [] });
const ev = (seq: number, over: Partial<AuctionEvent> = {}): ServerMessage => ({ t: 'event', a: 'a1', event: event(seq, over) });

/** Feeds messages to a joined feed; gives the end and every effect on the way. */
function run(messages: ServerMessage[], from: Feed = join(newFeed('a1')).feed): { feed: Feed; effects: Effect[] } {
  const effects: Effect[] = [];
  const feed = messages.reduce((now, message) => {
    const step = reduce(now, message);
    effects.push(...step.effects);
    return step.feed;
  }, from);
  return { feed, effects };
}
const joins = (effects: Effect[]) => effects.filter((e) => e.do === 'join');

describe('feed', () => {
  it('joins without a position first, and resumes with one', () => {
    expect(join(newFeed('a1')).effects).toEqual([{ do: 'join' }]);
    const { feed } = run([snap(4), ev(5)]);
    expect(join(feed).effects).toEqual([{ do: 'join', epoch: 7, offset: 5 }]);
  });

  it('folds events that follow one another', () => {
    const { feed, effects } = run([snap(1), ev(2, { price: 10_000 }), ev(3, { price: 12_000, ends_at: 50_000 })]);
    expect(feed.offset).toBe(3);
    expect(feed.auction).toMatchObject({ price: 12_000, least: 13_000, bids: 2, ends_at: 50_000, leader: 'b', seq: 3 });
    expect(effects.map((e) => e.do)).toEqual(['show', 'show']);
  });

  it('ignores what it has', () => {
    const { feed, effects } = run([snap(3), ev(2), ev(3)]);
    expect(feed.offset).toBe(3);
    expect(feed.auction?.bids).toBe(0);
    expect(effects).toEqual([]);
  });

  it('asks again from the last good offset when one is missing, once', () => {
    const { feed, effects } = run([snap(1), ev(2), ev(4), ev(5)]);
    expect(feed.offset).toBe(2);
    expect(joins(effects)).toEqual([{ do: 'join', epoch: 7, offset: 2 }]);
    const healed = run([{ t: 'resumed', a: 'a1', epoch: 7, offset: 2 }, ev(3), ev(4), ev(5)], feed);
    expect(healed.feed.offset).toBe(5);
    expect(healed.feed.joining).toBe(false);
    expect(healed.feed.events.map((e) => e.seq)).toEqual([2, 3, 4, 5]);
  });

  it('forgets everything at a snapshot', () => {
    const { feed } = run([snap(1), ev(2), { t: 'snap', a: 'a1', epoch: 8, offset: 9, auction: auction({ seq: 9, price: 5 }), recent: [event(8), event(9)] }]);
    expect(feed).toMatchObject({ epoch: 8, offset: 9, joining: false });
    expect(feed.auction?.price).toBe(5);
    expect(feed.events.map((e) => e.seq)).toEqual([8, 9]);
  });

  it('starts anew when a resume is of another epoch', () => {
    const { effects } = run([snap(1), { t: 'resumed', a: 'a1', epoch: 8, offset: 1 }]);
    expect(joins(effects)).toEqual([{ do: 'join' }]);
  });

  it('shows the newest state at once, and waits for its snapshot', () => {
    const coalesced: ServerMessage = { t: 'state', a: 'a1', price: 40_000, least: 41_000, leader: 'c', ends_at: 20_000, seq: 30 };
    const { feed, effects } = run([snap(1), coalesced, ev(31), snap(31)]);
    expect(joins(effects)).toEqual([]);
    expect(feed.offset).toBe(31);
    expect(run([snap(1), coalesced]).feed.auction).toMatchObject({ price: 40_000, leader: 'c', ends_at: 20_000 });
    expect(run([snap(50), coalesced]).feed.auction?.price).toBe(10_000);
  });

  it('is deaf to other auctions', () => {
    const { feed } = run([snap(1), { t: 'event', a: 'other', event: event(2) }]);
    expect(feed.offset).toBe(1);
  });

  it('takes older events for display only', () => {
    const { feed } = run([snap(5), ev(6)]);
    expect(prefill(feed, [event(4), event(5), event(6), event(9)]).events.map((e) => e.seq)).toEqual([4, 5, 6]);
    expect(prefill(feed, [event(4)]).offset).toBe(6);
    expect(prefill(newFeed('a1'), [event(1)]).events).toEqual([]);
  });

  it('shows holds in a row as one, and other people\u2019s hidden raises not at all', () => {
    const held = (seq: number, dms: number) => event(seq, { ty: 'held', dms });
    const rows = logRows([event(1), held(2, 100), held(3, 250), event(4), held(5, 50), event(6, { ty: 'raise', actor: 'c' }), event(7, { ty: 'raise', actor: 'me' })], 'me');
    expect(rows.map((e) => [e.seq, e.ty, e.dms])).toEqual([[1, 'bid', undefined], [3, 'held', 350], [4, 'bid', undefined], [5, 'held', 50], [7, 'raise', undefined]]);
  });

  it('keeps a bounded history', () => {
    const { feed } = run([snap(0), ...Array.from({ length: EVENTS_KEPT + 50 }, (_, i) => ev(i + 1))]);
    expect(feed.events.length).toBe(EVENTS_KEPT);
    expect(feed.events[0]?.seq).toBe(51);
  });

  it('marks where the chat changed hands and drops repeats', () => {
    const line = (chat_epoch: number, cseq: number): ServerMessage => ({ t: 'chat', a: 'a1', chat: { chat_epoch, cseq, from: 'b', name: 'B', id: `${cseq}`, text: 'hi' } });
    const { feed } = run([snap(1), line(1, 1), line(1, 2), line(1, 2), line(2, 1)]);
    expect(feed.chat.length).toBe(3);
    expect(feed.chatBreaks).toEqual(['2/1']);
  });
});

describe('what an event makes of an auction', () => {
  it.each<[string, Partial<Auction>, Partial<AuctionEvent>, Partial<Auction>]>([
    ['open', { phase: 'draft' }, { ty: 'open', price: 10_000, leader: null }, { phase: 'live', least: 10_000, leader: null }],
    ['the first bid', {}, { price: 10_000 }, { bids: 1, least: 11_000 }],
    ['a bid on the next rung', { bids: 3 }, { price: 50_000 }, { bids: 4, least: 55_000 }],
    ['a raise', { bids: 3, least: 14_000 }, { ty: 'raise', price: 13_000 }, { bids: 3, least: 14_000 }],
    ['pause', {}, { ty: 'pause', left_ms: 1_234 }, { phase: 'paused', left_ms: 1_234 }],
    ['resume', { phase: 'paused', left_ms: 5 }, { ty: 'resume', ends_at: 70_000 }, { phase: 'live', left_ms: null, ends_at: 70_000 }],
    ['extend', {}, { ty: 'extend', ends_at: 90_000, dms: 30_000 }, { ends_at: 90_000, phase: 'live' }],
    ['held', {}, { ty: 'held', dms: 200 }, { phase: 'live', ends_at: 60_000 }],
    ['sold', { bids: 1 }, { ty: 'close', outcome: 'sold', leader: 'b' }, { phase: 'closed', outcome: 'sold', leader: 'b' }],
    ['stream up', {}, { ty: 'stream', node: 2, stream: 's' }, { stream: { node: 2, id: 's' } }],
    ['stream down', { stream: { node: 2, id: 's' } }, { ty: 'stream', node: null, stream: 's' }, { stream: null }],
  ])('%s', (_, before, change, after) => {
    expect(applyEvent(auction(before), event(2, change))).toMatchObject(after);
  });
});
