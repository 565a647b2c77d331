/**
 * How far the edge's clock is from ours.
 *
 * A ping carries our monotonic time, its pong the edge's. The true offset lies within half a round trip of the middle,
 * so the sample with the smallest round trip is the best one: queues only ever add. A sample grows stale as the two
 * crystals drift apart, so its error grows with age and a newer one takes over by itself.
 *
 * Deliberately absent: wall clocks. `performance.now()` goes in, the edge's monotonic ms come out.
 */

/** How much two monotonic clocks may drift apart, ms per ms: a bad crystal is 0.02 %. */
const DRIFT = 0.0002;
/** Samples kept: 16 pings are over a minute at the steady pace. */
const KEPT = 16;

interface Sample { offset: number; rtt: number; at: number }

export class OffsetEstimator {
  #samples: Sample[] = [];

  /** A pong: `sent` and `received` by our clock, `s` by the edge's. Nonsense (time that ran backwards) is dropped. */
  sample(sent: number, received: number, s: number): void {
    const rtt = received - sent;
    if (!(rtt >= 0) || !Number.isFinite(s)) return;
    this.#samples.push({ offset: s - (sent + received) / 2, rtt, at: received });
    if (this.#samples.length > KEPT) this.#samples.shift();
  }

  /** A reconnect may lead to another edge, whose clock has nothing to do with the last one's. */
  reset(): void {
    this.#samples = [];
  }

  /** The best estimate at our time `now`, or nothing before the first pong. */
  best(now: number): { offset: number; errMs: number; rttMs: number } | undefined {
    let best: { offset: number; errMs: number; rttMs: number } | undefined;
    for (const { offset, rtt, at } of this.#samples) {
      const errMs = rtt / 2 + Math.max(0, now - at) * DRIFT;
      if (!best || errMs < best.errMs) best = { offset, errMs, rttMs: rtt };
    }
    return best;
  }

  /** The edge's time at our time `now`. */
  edgeTime(now: number): number | undefined {
    const best = this.best(now);
    return best && now + best.offset;
  }
}
