import { describe, expect, it } from 'vitest';
import { answer, type Bids, due, latest, noBids, pending, place, reconnected, RESEND_MS, restore, save } from '../bids';
import type { Problem, Verdict } from '../types';

const verdict = (ok: boolean, code?: string): Verdict => ({ ok, ...(code && { code }), seq: 2, price: 5, least: 6, phase: 'live', ct: 1, h: '', dup: false });
const problem = (code: string): Problem => ({ code, title: code, status: 409 });
const placed = (): Bids => place(noBids, 'id1', 500, 0).bids;

describe('a bid', () => {
  it('goes out once when placed', () => {
    const { bids, send } = place(noBids, 'id1', 500, 0);
    expect(send).toEqual([{ id: 'id1', amount: 500 }]);
    expect(pending(bids)?.id).toBe('id1');
    expect(place(bids, 'id1', 500, 1).send).toEqual([]);
  });

  it.each([
    ['accepted', { verdict: verdict(true) }, 'accepted'],
    ['refused by a verdict', { verdict: verdict(false, 'low') }, 'refused'],
    ['refused by a problem', { problem: problem('auth') }, 'refused'],
    ['a problem with a verdict in it', { problem: { ...problem('low'), verdict: verdict(false, 'low') } }, 'refused'],
    ['timeout decides nothing', { problem: problem('timeout') }, 'sending'],
    ['unavailable decides nothing', { problem: problem('unavailable') }, 'sending'],
    ['busy decides nothing', { problem: problem('busy') }, 'sending'],
  ])('%s', (_, reply, status) => {
    expect(latest(answer(placed(), 'id1', reply, 10))?.status).toBe(status);
  });

  it('keeps its first verdict', () => {
    const judged = answer(placed(), 'id1', { verdict: verdict(true) }, 10);
    expect(latest(answer(judged, 'id1', { verdict: verdict(false, 'low') }, 20))?.status).toBe('accepted');
  });

  it('goes out again with the same id while nothing is known, ever less often', () => {
    let bids = placed();
    const times: number[] = [];
    for (let now = 0; now < 40_000; now += 50) {
      const next = due(bids, now);
      bids = next.bids;
      for (const { id, amount } of next.send) {
        expect([id, amount]).toEqual(['id1', 500]);
        times.push(now);
      }
    }
    expect(times[0]).toBe(RESEND_MS);
    const gaps = times.slice(1).map((t, i) => t - (times[i] ?? 0));
    expect(gaps.every((gap, i) => gap >= (gaps[i - 1] ?? 0))).toBe(true);
    expect(latest(bids)?.status).toBe('sending');
  });

  it('goes out at once after a reconnect, same id', () => {
    const { send } = reconnected(placed(), 10);
    expect(send).toEqual([{ id: 'id1', amount: 500 }]);
    const judged = answer(placed(), 'id1', { verdict: verdict(true) }, 10);
    expect(reconnected(judged, 20).send).toEqual([]);
  });

  it('survives a reload while open, and only then', () => {
    const back = restore(save(placed()), 100);
    expect(reconnected(back, 100).send).toEqual([{ id: 'id1', amount: 500 }]);
    expect(save(answer(placed(), 'id1', { verdict: verdict(true) }, 10))).toBe('[]');
    for (const junk of [null, '', '{', '{}', '[null]', '[{"id":"a b","amount":5}]', '[{"id":"x","amount":1.5}]']) {
      expect(restore(junk, 0).list).toEqual([]);
    }
  });

  it('says the same of when it was first sent each time, also after a reload', () => {
    const { bids, send } = place(noBids, 'id1', 500, 0, 70_000);
    const said = [{ id: 'id1', amount: 500, sent: 70_000 }];
    expect(send).toEqual(said);
    expect(due(bids, RESEND_MS).send).toEqual(said);
    expect(reconnected(restore(save(bids), 100), 100).send).toEqual(said);
    for (const junk of ['-1', '1.5', '"now"', 'null']) {
      expect(reconnected(restore(`[{"id":"id1","amount":500,"sent":${junk}}]`, 0), 0).send).toEqual([{ id: 'id1', amount: 500 }]);
    }
  });

  it('never drops an open one from the list', () => {
    let bids = placed();
    for (let i = 0; i < 100; i += 1) {
      bids = answer(place(bids, `n${i}`, i + 1, i).bids, `n${i}`, { verdict: verdict(false, 'low') }, i);
    }
    expect(bids.list.length).toBeLessThanOrEqual(31);
    expect(bids.list.some((b) => b.id === 'id1')).toBe(true);
  });
});
