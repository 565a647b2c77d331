import { describe, expect, it } from 'vitest';
import { comeBack } from '../backoff';
import { BLOCKS, decodeBlocks, encodeBlocks } from '../blocks';
import { checkForm, type Form } from '../draft';
import { formatMoney, MAX_MINOR, parseMoney, plainMoney } from '../money';
import { displayName, freshId, learnName, nameTail } from '../names';
import { href, parseRoute } from '../routes';
import { increment, leastNext, rushCut, rushWords } from '../terms';

describe('money in', () => {
  it.each([
    ['12000', 'KRW', 12_000], ['12,000', 'KRW', 12_000], ['₩12,000', 'KRW', 12_000], ['12000원', 'KRW', 12_000], ['１２０００', 'KRW', 12_000],
    [' 7 ', 'KRW', 7], ['0012', 'KRW', 12], ['12.0', 'KRW', 12], ['12.5', 'USD', 1_250], ['$12.50', 'USD', 1_250], ['1,234.5', 'USD', 123_450],
    ['12.', 'USD', 1_200], ['0.01', 'USD', 1], ['1000000000000000', 'KRW', MAX_MINOR],
  ])('%s %s is %d', (text, currency, minor) => expect(parseMoney(text, currency)).toEqual({ ok: true, minor }));

  it.each([
    ['', 'KRW', 'empty'], ['₩', 'KRW', 'empty'], ['abc', 'KRW', 'format'], ['-5', 'KRW', 'format'], ['1e5', 'KRW', 'format'], ['.5', 'USD', 'format'],
    ['1.2.3', 'USD', 'format'], ['12.5', 'KRW', 'precision'], ['12.505', 'USD', 'precision'],
    ['1000000000000001', 'KRW', 'too_big'], ['99999999999999999999999', 'KRW', 'too_big'],
  ])('%s %s is refused: %s', (text, currency, why) => expect(parseMoney(text, currency)).toEqual({ ok: false, why }));
});

describe('money out', () => {
  it.each([
    [12_000, 'KRW', 'ko-KR', '₩12,000'], [12_000, 'KRW', 'en-US', '₩12,000'], [1_250, 'USD', 'en-US', '$12.50'], [1_250, 'USD', 'ko-KR', '$12.50'],
    [5, 'USD', 'en-US', '$0.05'], [0, 'KRW', 'ko-KR', '₩0'], [999_999_999_999_999, 'USD', 'en-US', '$9,999,999,999,999.99'],
  ])('%d %s in %s is %s', (minor, currency, locale, text) => expect(formatMoney(minor, currency, locale)).toBe(text));

  it('reads back what it writes', () => {
    for (const currency of ['KRW', 'USD']) {
      for (const minor of [0, 1, 99, 100, 12_345, MAX_MINOR]) {
        expect(parseMoney(plainMoney(minor, currency), currency)).toEqual({ ok: true, minor });
        expect(parseMoney(formatMoney(minor, currency, 'ko-KR'), currency)).toEqual({ ok: true, minor });
      }
    }
  });
});

describe('terms', () => {
  const ladder: [number, number][] = [[0, 1_000], [50_000, 5_000]];
  it.each([[0, 1_000], [49_999, 1_000], [50_000, 5_000], [1_000_000, 5_000]])('at %d the step is %d', (price, step) => {
    expect(increment(ladder, price)).toBe(step);
  });
  it('the first bid may be the start price', () => {
    expect(leastNext({ bids: 0, start_price: 700, increments: ladder, price: 700 })).toBe(700);
    expect(leastNext({ bids: 1, start_price: 700, increments: ladder, price: 700 })).toBe(1_700);
  });
  const rush = { cut_ppm_max: 500_000, cut_per_raise_ppm: 1_000_000, floor_ms: 10_000 };
  it.each([
    // price, next, left → cut
    [10_000, 11_000, 60_000, 6_000],
    [10_000, 30_000, 60_000, 30_000],
    [10_000, 10_000, 60_000, 0],
    [10_000, 20_000, 12_000, 2_000],
    [10_000, 20_000, 9_000, 0],
    [0, 5, 60_000, 30_000],
    [3, 4, 61_001, 20_333],
    [500_000_000_000_000, MAX_MINOR, 86_400_000, 43_200_000],
  ])('%d to %d with %d left cuts %d', (price, next, left, cut) => expect(rushCut(rush, price, next, left)).toBe(cut));
  it('are told in words', () => {
    expect(rushWords(rush)).toEqual({ perPercent: 1, most: 50, floorS: 10 });
    expect(rushWords({ cut_ppm_max: 200_000, cut_per_raise_ppm: 300_000, floor_ms: 15_000 })).toEqual({ perPercent: 0.3, most: 20, floorS: 15 });
  });
});

describe('come back', () => {
  it.each([[4400, false], [4401, true], [4408, true], [4429, true], [4503, true], [1006, true], [1000, true]])('%d: %s', (code, go) => {
    expect(comeBack(code, 0, 0.5).go).toBe(go);
  });
  it('goes elsewhere when draining or dead, and signs out when the token is refused', () => {
    expect(comeBack(4503, 0, 0.5)).toMatchObject({ elsewhere: true });
    expect(comeBack(1006, 0, 0.5)).toMatchObject({ elsewhere: false, afterMs: 50 });
    expect(comeBack(1006, 1, 0.5)).toMatchObject({ elsewhere: true });
    expect(comeBack(4401, 0, 0.5)).toMatchObject({ signOut: true });
  });
  it('never waits longer than its bounds', () => {
    for (let tries = 0; tries < 50; tries += 1) {
      for (const code of [1006, 4401, 4408, 4429, 4503]) {
        const next = comeBack(code, tries, 0.999);
        expect(next.go && next.afterMs).toBeLessThanOrEqual(10_000);
      }
    }
  });
});

describe('blocks', () => {
  it('reads every counter back, also from a smeared picture', () => {
    for (let c = 0; c < 65_536; c += 7) {
      const bits = encodeBlocks(c);
      expect(bits.length).toBe(BLOCKS);
      expect(decodeBlocks(bits.map((b) => (b ? 190 : 70)))).toBe(c);
    }
    expect(decodeBlocks(encodeBlocks(65_536 + 5).map((b) => b * 255))).toBe(5);
  });
  it('refuses a picture with any single block wrong', () => {
    const bits = encodeBlocks(12_345);
    for (let i = 0; i < BLOCKS; i += 1) {
      expect(decodeBlocks(bits.map((b, j) => (j === i ? 1 - b : b) * 255))).toBeUndefined();
    }
    expect(decodeBlocks([])).toBeUndefined();
    expect(decodeBlocks(new Array<number>(BLOCKS).fill(0))).toBeUndefined();
  });
});

describe('the form of a new auction', () => {
  const form: Form = { title: ' Vase ', description: 'old', currency: 'KRW', start: '10,000', step: '1000', reserve: '', durationMs: 60_000, preset: 'rush', guests: true, pauseWithoutStream: false };
  it('becomes a body', () => {
    const checked = checkForm(form);
    expect(checked).toMatchObject({ ok: true, body: { title: 'Vase', start_price: 10_000, increments: [[0, 1_000]], duration_ms: 60_000, rush: { floor_ms: 10_000 } } });
    expect(checked.ok && 'reserve' in checked.body).toBe(false);
  });
  it.each<[Partial<Form>, string[]]>([
    [{ title: '  ' }, ['title']], [{ title: 'x'.repeat(121) }, ['title']], [{ title: '가'.repeat(120) }, []], [{ start: 'x' }, ['start']], [{ step: '0' }, ['step']],
    [{ reserve: '9999' }, ['reserve']], [{ reserve: '10000' }, []], [{ durationMs: 9_999 }, ['duration']], [{ durationMs: NaN }, ['duration']],
    [{ title: '', start: '', step: '' }, ['title', 'start', 'step']],
  ])('%o is wrong in %o', (change, fields) => {
    const checked = checkForm({ ...form, ...change });
    expect(checked.ok ? [] : Object.keys(checked.wrong)).toEqual(fields);
  });
});

describe('names and addresses', () => {
  it.each([['guest-mina-x7k2abcd', 'Mina', 'cd'], ['guest-a-b-1', 'A-b', '1'], ['guest-anon-0000zz11', undefined, '11'], ['member42', 'member42', '']])('%s', (id, name, tail) => {
    expect([displayName(id), nameTail(id)]).toEqual([name, tail]);
  });
  it('a name that was told is used as it is written', () => {
    learnName('guest-anon-abcd1234', '민지');
    expect(displayName('guest-anon-abcd1234')).toBe('민지');
  });
  it('ids fit the protocol', () => {
    expect(freshId()).toMatch(/^[A-Za-z0-9_-]{1,64}$/);
    expect(freshId((n) => new Uint8Array(n).fill(255))).toBe('7'.repeat(20));
  });
  it.each(['/', '/a/vase-1', '/studio', '/studio/vase-1', '/cluster'])('%s comes back', (path) => expect(href(parseRoute(path))).toBe(path));
  it.each(['/x', '/a', '/a/b/c', '/a/sp ace', '/cluster/1', `/a/${'x'.repeat(65)}`])('%s is missing', (path) => {
    expect(parseRoute(path)).toEqual({ page: 'missing' });
  });
});
