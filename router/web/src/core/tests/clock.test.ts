import { describe, expect, it } from 'vitest';
import { OffsetEstimator } from '../clock';

/** Pings as `sent, received, s`; the offset found at `now` must lie within its own error of the true one. */
function check(truth: number, pings: [number, number, number][], now: number) {
  const clock = new OffsetEstimator();
  for (const [sent, received, s] of pings) clock.sample(sent, received, s);
  const best = clock.best(now);
  expect(best).toBeDefined();
  expect(Math.abs((best?.offset ?? NaN) - truth)).toBeLessThanOrEqual((best?.errMs ?? 0) + 1e-9);
  return best;
}

describe('offset', () => {
  it('is exact when the way is as long there as back', () => {
    expect(check(1000, [[0, 20, 1010]], 20)).toEqual({ offset: 1000, errMs: 10, rttMs: 20 });
  });

  it('comes from the smallest round trip, whatever the others say', () => {
    const best = check(500, [[0, 300, 780], [400, 404, 902], [500, 900, 1010]], 900);
    expect(best?.rttMs).toBe(4);
    expect(best?.offset).toBe(500);
  });

  it('stays within its error when one way takes all the time', () => {
    check(0, [[0, 100, 100]], 100);
    check(0, [[0, 100, 0]], 100);
  });

  it('grows less sure with age, so that a newer sample wins in time', () => {
    const clock = new OffsetEstimator();
    clock.sample(0, 10, 5);
    clock.sample(200_000, 200_020, 200_040);
    expect(clock.best(200_020)?.offset).toBe(30);
  });

  it('ignores nonsense and forgets on a new connection', () => {
    const clock = new OffsetEstimator();
    clock.sample(10, 5, 1);
    clock.sample(0, 5, NaN);
    expect(clock.best(10)).toBeUndefined();
    expect(clock.edgeTime(10)).toBeUndefined();
    clock.sample(0, 10, 105);
    expect(clock.edgeTime(50)).toBe(150);
    clock.reset();
    expect(clock.edgeTime(50)).toBeUndefined();
  });

  it('finds a random true offset through random queues', () => {
    for (let seed = 1; seed <= 200; seed += 1) {
      let x = seed;
      const random = () => {
        x = (Math.imul(x, 1103515245) + 12345) >>> 0;
        return x / 2 ** 32;
      };
      const truth = (random() - 0.5) * 1e6;
      const pings = Array.from({ length: 16 }, (_, i): [number, number, number] => {
        const there = random() * 80;
        const back = random() * 80;
        return [i * 500, i * 500 + there + back, i * 500 + there + truth];
      });
      check(truth, pings, 8_000);
    }
  });
});
