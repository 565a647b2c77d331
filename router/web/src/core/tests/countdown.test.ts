import { describe, expect, it } from 'vitest';
import { Countdown, formatLeft, spokenMark } from '../countdown';

/** A live auction that ends at 60 000; at edge time 1 000 the shard's clock read 10 000. */
function live(): Countdown {
  const c = new Countdown();
  c.rule('live', 60_000);
  c.clock({ now: 10_000, s: 1_000, held: false, errMs: 2 });
  return c;
}

describe('countdown', () => {
  it('is ends_at less the clock, at the edge time of the look', () => {
    const c = live();
    expect(c.left(1_000)).toBe(50_000);
    expect(c.left(1_500)).toBe(49_500);
  });

  it('never falls below 0', () => {
    expect(live().left(900_000)).toBe(0);
  });

  it('does not climb when an estimate improves', () => {
    const c = live();
    expect(c.left(2_000)).toBe(49_000);
    c.clock({ now: 10_900, s: 2_000, held: false, errMs: 1 });
    expect(c.left(2_000)).toBe(49_000);
    expect(c.left(2_050)).toBe(49_000);
    expect(c.left(2_300)).toBe(48_800);
  });

  it('jumps down by a cut and up by an extension', () => {
    const c = live();
    expect(c.left(1_000)).toBe(50_000);
    c.rule('live', 40_000);
    expect(c.left(1_000)).toBe(30_000);
    c.rule('live', 70_000);
    expect(c.left(1_000)).toBe(60_000);
  });

  it('stands still while the clock is held, and may climb when the hold is declared', () => {
    const c = live();
    expect(c.left(1_200)).toBe(49_800);
    c.clock({ now: 10_100, s: 1_200, held: true, errMs: 2 });
    expect(c.isHeld).toBe(true);
    expect(c.left(1_200)).toBe(49_900);
    expect(c.left(9_999)).toBe(49_900);
    c.clock({ now: 10_100, s: 10_000, held: false, errMs: 2 });
    expect(c.isHeld).toBe(false);
    expect(c.left(10_100)).toBe(49_800);
  });

  it('climbs by a declared hold once the clock that knows of it comes, and only then', () => {
    const c = live();
    expect(c.left(2_000)).toBe(49_000);
    c.held();
    expect(c.left(2_016)).toBe(48_984);
    c.clock({ now: 10_700, s: 2_016, held: false, errMs: 2 });
    expect(c.left(2_016)).toBe(49_300);
    c.clock({ now: 10_700, s: 2_116, held: false, errMs: 2 });
    expect(c.left(2_116)).toBe(49_300);
    expect(c.left(2_100)).toBe(49_300);
  });

  it('shows the rest while paused and goes on after it', () => {
    const c = live();
    expect(c.left(2_000)).toBe(49_000);
    c.rule('paused', 60_000, 48_900);
    expect(c.left(500_000)).toBe(48_900);
    c.rule('live', 565_000);
    c.clock({ now: 516_100, s: 507_100, held: false, errMs: 2 });
    expect(c.left(507_100)).toBe(48_900);
  });

  it('keeps its last number without a clock, and has none before the first', () => {
    const c = new Countdown();
    c.rule('live', 60_000);
    expect(c.left(1)).toBeUndefined();
    c.clock({ now: 10_000, s: 0, held: false, errMs: 1 });
    expect(c.left(0)).toBe(50_000);
    c.disconnected();
    expect(c.isKnown).toBe(false);
    expect(c.left(undefined)).toBe(50_000);
    expect(c.left(99_999)).toBe(50_000);
  });

  it('has nothing to say of what is not live', () => {
    for (const phase of ['draft', 'scheduled', 'closed'] as const) {
      const c = new Countdown();
      c.rule(phase, 60_000);
      c.clock({ now: 0, s: 0, held: false, errMs: 1 });
      expect(c.left(0)).toBeUndefined();
    }
  });

  it('falls without ever rising through random readings of one clock', () => {
    for (let seed = 1; seed <= 100; seed += 1) {
      let x = seed;
      const random = () => {
        x = (Math.imul(x, 1103515245) + 12345) >>> 0;
        return x / 2 ** 32;
      };
      const c = live();
      let last = Infinity;
      for (let edge = 1_000; edge < 70_000; edge += 16 + random() * 40) {
        if (random() < 0.05) c.clock({ now: 9_000 + edge + (random() - 0.5) * 60, s: edge, held: false, errMs: 30 });
        const left = c.left(edge) ?? NaN;
        if (!(left <= last && left >= 0)) expect.fail(`seed ${seed}: ${last} became ${left} at ${edge}`);
        last = left;
      }
    }
  });
});

describe('formatLeft', () => {
  it.each([
    [0, '0.0'], [1, '0.1'], [99, '0.1'], [9_949, '10.0'], [42_300, '42.3'], [59_900, '59.9'], [59_901, '1:00'],
    [60_000, '1:00'], [60_001, '1:01'], [61_000, '1:01'], [3_599_000, '59:59'], [3_600_000, '1:00:00'], [3_723_000, '1:02:03'],
  ])('%d ms reads %s', (ms, text) => expect(formatLeft(ms)).toBe(text));
});

describe('spokenMark', () => {
  it.each([
    [61_000, 60_500, undefined], [60_010, 59_990, 60], [45_000, 29_000, 30], [31_000, 4_000, 5], [4_000, 3_000, undefined],
  ])('%d to %d says %s', (before, after, mark) => expect(spokenMark(before, after)).toBe(mark));
});
