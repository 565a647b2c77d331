/**
 * Our own bids, from the tap to the verdict.
 *
 * ```text
 *   place ──> sending ──verdict──> accepted | refused
 *              │  ^
 *   lost, busy,│  │ the same id again: after a reconnect at once, else after a pause that grows
 *   unknown ───┘──┘
 * ```
 *
 * A bid has one id for its whole life, so sending it again can never bid twice, and an answer that says 'not judged',
 * 'busy' or 'unknown' is no failure: the bid may still be accepted, and showing it as failed would make people bid
 * again. So it stays 'sending' until a verdict comes. Open bids are kept for a reload, too (`save`/`restore`), and with
 * them when they were first sent: a shard forgets its refusals after ten minutes, and must not take an old bid for new.
 *
 * Pure: time is an argument, what must be sent is the return value.
 */
import type { Problem, Verdict } from './types';

/** Answers that decide nothing: ask again with the same id. */
const UNDECIDED: ReadonlySet<string> = new Set(['timeout', 'unavailable', 'busy', 'unknown', 'not_judged']);

/** Without any answer a bid is sent again after this long on a connection that seems alive. */
export const RESEND_MS = 1_500;
const RESEND_MAX_MS = 6_000;

export type BidStatus = 'sending' | 'accepted' | 'refused';

export interface Bid {
  readonly id: string;
  readonly amount: number;
  readonly status: BidStatus;
  readonly placedAt: number;
  readonly tries: number;
  /** When it is due to be sent again. */
  readonly nextAt: number;
  /** A stamp of the auction's clock from when it was first sent; said the same each time. */
  readonly sent?: number;
  readonly verdict?: Verdict;
  readonly problem?: Problem;
}

/** A bid to put on the wire. */
export interface Send { id: string; amount: number; sent?: number }

export interface Bids { readonly list: readonly Bid[] }

/** Bids kept for display; those still open are never dropped. */
const KEPT = 30;

export const noBids: Bids = { list: [] };

/** `stamp`: a moment on the auction's clock that is certainly past, if one is known. */
export function place(bids: Bids, id: string, amount: number, now: number, stamp?: number): { bids: Bids; send: Send[] } {
  if (bids.list.some((b) => b.id === id)) return { bids, send: [] };
  const sent = stamp === undefined ? {} : { sent: stamp };
  const bid: Bid = { id, amount, status: 'sending', placedAt: now, tries: 1, nextAt: now + RESEND_MS, ...sent };
  return { bids: trim([...bids.list, bid]), send: [wire(bid)] };
}

/** An answer came. A second answer to a judged bid changes nothing: the first verdict stands. */
export function answer(bids: Bids, id: string, reply: { verdict?: Verdict; problem?: Problem }, now: number): Bids {
  return {
    list: bids.list.map((bid) => {
      if (bid.id !== id || bid.status !== 'sending') return bid;
      const verdict = reply.verdict ?? reply.problem?.verdict ?? undefined;
      if (verdict?.ok) return { ...bid, status: 'accepted' as const, verdict };
      const code = reply.problem?.code ?? verdict?.code ?? 'unknown';
      if (UNDECIDED.has(code)) return { ...bid, nextAt: now + wait(bid.tries) };
      return { ...bid, status: 'refused' as const, ...(verdict && { verdict }), ...(reply.problem && { problem: reply.problem }) };
    }),
  };
}

/** What is due to be sent again. */
export function due(bids: Bids, now: number): { bids: Bids; send: Send[] } {
  const send: Send[] = [];
  const list = bids.list.map((bid) => {
    if (bid.status !== 'sending' || bid.nextAt > now) return bid;
    send.push(wire(bid));
    return { ...bid, tries: bid.tries + 1, nextAt: now + wait(bid.tries + 1) };
  });
  return send.length > 0 ? { bids: { list }, send } : { bids, send };
}

/** The connection is back: everything open goes out again at once, same ids. */
export function reconnected(bids: Bids, now: number): { bids: Bids; send: Send[] } {
  const open = bids.list.map((bid) => (bid.status === 'sending' ? { ...bid, nextAt: now } : bid));
  return due({ list: open }, now);
}

export function pending(bids: Bids): Bid | undefined {
  return bids.list.findLast((bid) => bid.status === 'sending');
}

export function latest(bids: Bids): Bid | undefined {
  return bids.list.at(-1);
}

/** What to keep over a reload: the open bids. */
export function save(bids: Bids): string {
  return JSON.stringify(bids.list.filter((b) => b.status === 'sending').map(wire));
}

/** Open bids from before a reload; anything unreadable is nothing. */
export function restore(text: string | null, now: number): Bids {
  try {
    const rows: unknown = JSON.parse(text ?? '[]');
    if (!Array.isArray(rows)) return noBids;
    const list = rows.flatMap((row: unknown): Bid[] => {
      const { id, amount, sent } = (row ?? {}) as { id?: unknown; amount?: unknown; sent?: unknown };
      if (typeof id !== 'string' || !/^[A-Za-z0-9_-]{1,64}$/.test(id) || !Number.isSafeInteger(amount)) return [];
      const stamp = Number.isSafeInteger(sent) && (sent as number) >= 0 ? { sent: sent as number } : {};
      return [{ id, amount: amount as number, status: 'sending', placedAt: now, tries: 1, nextAt: now, ...stamp }];
    });
    return { list };
  } catch {
    return noBids;
  }
}

function wire({ id, amount, sent }: Bid): Send {
  return sent === undefined ? { id, amount } : { id, amount, sent };
}

function wait(tries: number): number {
  return Math.min(RESEND_MAX_MS, RESEND_MS * 2 ** Math.max(0, tries - 1));
}

function trim(list: Bid[]): Bids {
  const surplus = list.length - KEPT;
  if (surplus <= 0) return { list };
  let dropped = 0;
  return { list: list.filter((bid) => bid.status === 'sending' || dropped++ >= surplus) };
}
