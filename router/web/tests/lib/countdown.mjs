// Do two pages draw the same countdown? What each drew, frame by frame, compared at the same instants.
import assert from 'node:assert/strict';
import { setTimeout as span } from 'node:timers/promises';
import * as b from './browser.mjs';

/** The promise: so far apart may two viewers' numbers be. */
export const CLOSE_TOGETHER_MS = 100;
const WATCHED_MS = 5_000;
/** Instants that a comparison must rest on, of the 300 that 5 s have at 60 frames a second. */
const INSTANTS_MIN = 100;
/** Two frames within so much of each other are one instant; both numbers are carried over the rest. */
const SAME_MS = 100;

/** A number that rises by more than this between two frames was told of time that did not count. */
const RISE_MS = 25;
/** Two edges hear of it with their own next reading, 20 a second: so long may one page know more than the other. */
const HEARD_MS = 100;

/** When a page learned that its clock had been held: its number rose, and didn't fall back. */
function rises(drawn) {
  const end = ([t, left]) => t + left;
  return drawn.filter((frame, i) => {
    const before = drawn[i - 1];
    if (!before || before[2] || frame[2] || end(frame) - end(before) <= RISE_MS) return false;
    const after = drawn.slice(i).filter(([t]) => t - frame[0] <= HEARD_MS);
    return after.every((later) => later[2] || end(later) > end(before) + RISE_MS);
  }).map(([t]) => t);
}

/**
 * Two recordings `[wall time, left, held]`, compared at each frame of the first: how far apart the numbers were. Where
 * either page says that the clock is held, its number stands by design and is not compared; nor are the instants around
 * one at which either learned that it had been.
 */
export function apart(one, other) {
  const found = [];
  const told = [...rises(one), ...rises(other)];
  let next = 0;
  for (const [at, left, held] of one) {
    while (next + 1 < other.length && Math.abs(other[next + 1][0] - at) <= Math.abs(other[next][0] - at)) next += 1;
    const near = other[next];
    if (!near || Math.abs(near[0] - at) > SAME_MS || held || near[2]) continue;
    if (told.some((t) => Math.abs(t - at) <= HEARD_MS)) continue;
    found.push({ at, ms: Math.abs(left + at - (near[1] + near[0])) });
  }
  return found;
}

/** The largest fall of the drawn number between two frames, beyond the time that passed between them. */
export function biggestJump(drawn) {
  let most = 0;
  for (let i = 1; i < drawn.length; i += 1) {
    const [[t0, l0], [t1, l1]] = [drawn[i - 1], drawn[i]];
    most = Math.max(most, l0 - l1 - (t1 - t0));
  }
  return most;
}

/**
 * Watches both pages for some seconds in which nobody bids. At every instant at which neither says 'held', or has just
 * learned that it was, their numbers are less than the promise apart: nothing is tried again.
 */
export async function sameCountdown(one, other) {
  await Promise.all([b.recordCountdown(one.page), b.recordCountdown(other.page)]);
  await span(WATCHED_MS);
  const [x, y] = await Promise.all([b.recorded(one.page), b.recorded(other.page)]);
  const found = apart(x, y);
  assert.ok(found.length >= INSTANTS_MIN, `too few instants at which both clocks ran: ${found.length} of ${x.length} and ${y.length} frames`);
  const worst = found.reduce((a, c) => (c.ms > a.ms ? c : a));
  const far = found.filter((f) => f.ms >= CLOSE_TOGETHER_MS);
  const when = (at) => `${(at - x[0][0]).toFixed(0)} ms`;
  assert.equal(far.length, 0, `${far.length} of ${found.length} instants are too far apart, the worst by ${worst.ms.toFixed(1)} ms at ${when(worst.at)}, from ${far[0] && when(far[0].at)} to ${far.at(-1) && when(far.at(-1).at)}`);
  return { worst: worst.ms, instants: found.length };
}
