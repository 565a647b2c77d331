import { describe, expect, it } from 'vitest';
import { capturedAt, delay, LEGS, type Table } from '../delay';

const TABLE: Table = { rtp: 1_000, rate: 90_000, s: 50_000, legsMs: [10, 50] };

describe('capture', () => {
  it.each([
    [1_000, 50_000],
    [91_000, 51_000],
    [1_000 - 45_000 + 2 ** 32, 49_500],
  ])('of RTP time %d is at %d', (rtp, at) => {
    expect(capturedAt(TABLE, rtp)).toBe(at);
  });

  it('goes on over the end of RTP time', () => {
    expect(capturedAt({ ...TABLE, rtp: 2 ** 32 - 90 }, 90)).toBe(50_002);
  });
});

describe('delay', () => {
  const frame = { rtp: 1_000, receivedAt: 80, decodeMs: 4, composedAt: 130, shownAt: 146 };

  it('is told part by part, on one clock', () => {
    // The page's clock is 49,990 behind the edge's: the capture was at 10 by it.
    expect(delay(TABLE, frame, 49_990)).toEqual({ uplink: 10, hops: 40, receive: 20, buffer: 46, decode: 4, display: 16, whole: 136 });
  });

  it.each([[[]], [[7]], [[7, 9, 30, 31]]])('is the sum of its parts with legs %j', (legsMs) => {
    const told = delay({ ...TABLE, legsMs }, frame, 49_990);
    expect(LEGS.reduce((sum, leg) => sum + told[leg], 0)).toBeCloseTo(told.whole, 9);
  });
});
