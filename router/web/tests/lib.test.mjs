// The tools of these tests, tested: what they look for they must be able to find.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { panics } from './lib/cluster.mjs';
import { CLOSE_TOGETHER_MS, apart, biggestJump } from './lib/countdown.mjs';

test('a panic is found in a log', () => {
  assert.deepEqual(panics('INFO ready\nINFO bye\n'), []);
  assert.deepEqual(panics("INFO ready\nthread 'tokio-runtime-worker' panicked at router/src/room.rs:1:1:\nboom\n").length, 1);
});

/** A page that draws every 16 ms from `left`; at each frame `wrong(i)` ms are added, and it is held where `held(i)`. */
const page = (left, { wrong = () => 0, held = () => false, phase = 0 } = {}) => Array.from({ length: 200 }, (_, i) => {
  const at = 1_000_000 + phase + 16 * i;
  return [at, left - phase - 16 * i + wrong(i), held(i)];
});
const worst = (one, other) => Math.max(...apart(one, other).map((f) => f.ms));

test('pages that draw the same deadline are together, whenever their frames fall', () => {
  assert.equal(worst(page(60_000), page(60_000)), 0);
  assert.equal(worst(page(60_000), page(60_000, { phase: 7 })), 0);
});

test('one wrong frame is found, and one that stands still unannounced', () => {
  assert.ok(worst(page(60_000), page(60_000, { wrong: (i) => (i === 100 ? 150 : 0) })) > CLOSE_TOGETHER_MS);
  assert.ok(worst(page(60_000), page(60_000, { wrong: (i) => (i > 100 && i < 115 ? 16 * (i - 100) : 0) })) > CLOSE_TOGETHER_MS);
});

test('what a page declares held is not compared, and only that', () => {
  const stands = (i) => i > 50 && i < 80;
  const off = { wrong: (i) => (stands(i) ? 500 : 0), held: stands };
  assert.equal(worst(page(60_000), page(60_000, off)), 0);
  assert.equal(apart(page(60_000), page(60_000, off)).length, 200 - 29);
});

test('one page may learn of a hold a little before the other, but only a little', () => {
  const learns = (from) => ({ wrong: (i) => (i >= from ? 200 : 0) });
  assert.equal(worst(page(60_000, learns(100)), page(60_000, learns(105))), 0);
  assert.ok(worst(page(60_000, learns(100)), page(60_000, learns(120))) > CLOSE_TOGETHER_MS);
  assert.ok(worst(page(60_000, learns(100)), page(60_000)) > CLOSE_TOGETHER_MS);
});

test('a cut is a jump, time that passes is none', () => {
  assert.equal(biggestJump(page(60_000)), 0);
  assert.equal(biggestJump(page(60_000, { wrong: (i) => (i > 10 ? -18_000 : 0) })), 18_000);
});
