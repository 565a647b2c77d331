/**
 * The countdown that a viewer sees.
 *
 * ```text
 *   edge:  clock {now, s, held} ──┐
 *   feed:  ends_at, phase ────────┼──> Countdown.left(edge time) ──> the number, the bar
 *   page:  edge time (pings) ─────┘
 * ```
 *
 * What is drawn is `ends_at − (now + (edge time − s))`, never below 0. Estimates of the edge's time improve as pongs
 * come in, and an improvement must not make the number tick upward: it climbs only by a rule (a new `ends_at`), a
 * declared pause or a declared hold. Each of those opens a new `chapter`; within one the number never rises.
 *
 * While the shard's clock is held the number stands still: time that no majority of replicas witnessed did not pass.
 */
import type { Phase } from './types';

export interface ClockReading { now: number; s: number; held: boolean; errMs: number }

export class Countdown {
  #phase: Phase = 'draft';
  #endsAt: number | undefined;
  #pausedLeft: number | undefined;
  #clock: ClockReading | undefined;
  #shown = Infinity;
  #declared = false;

  /** What the feed says. `left` is the time left while paused. */
  rule(phase: Phase, endsAt: number | undefined, left?: number): void {
    if (phase !== this.#phase || endsAt !== this.#endsAt || left !== this.#pausedLeft) this.#chapter();
    this.#phase = phase;
    this.#endsAt = endsAt;
    this.#pausedLeft = left;
  }

  /** What the edge says of the shard's clock. */
  clock(reading: ClockReading): void {
    if (reading.held || this.#clock?.held || this.#declared) this.#chapter();
    this.#declared = false;
    this.#clock = reading;
  }

  /**
   * A declared hold (an event of the feed): real time passed that did not count. The old reading is too far ahead then;
   * the next one may put the number up. So may the first one after a snapshot, which stands for events not seen.
   */
  held(): void {
    this.#declared = true;
  }

  /** Another edge measures on its own clock: the old reading means nothing there. The number freezes until a new one. */
  disconnected(): void {
    this.#clock = undefined;
  }

  get isHeld(): boolean {
    return this.#clock?.held ?? false;
  }

  /** Whether a reading is there to count by. */
  get isKnown(): boolean {
    return this.#clock !== undefined;
  }

  get errMs(): number | undefined {
    return this.#clock?.errMs;
  }

  /** The shard's clock at the edge's time `edge`. */
  reading(edge: number): number | undefined {
    const clock = this.#clock;
    if (!clock) return undefined;
    return clock.held ? clock.now : clock.now + (edge - clock.s);
  }

  /** Milliseconds left at the edge's time `edge`; nothing when no deadline runs or none is known yet. */
  left(edge: number | undefined): number | undefined {
    if (this.#phase === 'paused') return this.#pausedLeft;
    if (this.#phase !== 'live' || this.#endsAt === undefined) return undefined;
    const reading = edge === undefined ? undefined : this.reading(edge);
    if (reading === undefined) return Number.isFinite(this.#shown) ? this.#shown : undefined;
    this.#shown = Math.min(this.#shown, Math.max(0, this.#endsAt - reading));
    return this.#shown;
  }

  #chapter(): void {
    this.#shown = Infinity;
  }
}

/** `m:ss`, `h:mm:ss`; under a minute with tenths, for that is where they matter. Rounded up: it reads 0 only at 0. */
export function formatLeft(ms: number): string {
  if (ms < 60_000) {
    const tenths = Math.ceil(ms / 100);
    if (tenths < 600) return `${Math.floor(tenths / 10)}.${tenths % 10}`;
  }
  const seconds = Math.ceil(ms / 1000);
  const two = (n: number) => String(n).padStart(2, '0');
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** The largest second mark that was just passed on the way from `before` to `after`, to be said aloud once. */
export function spokenMark(before: number, after: number): number | undefined {
  return [5, 10, 30, 60, 300].find((s) => before > s * 1000 && after <= s * 1000);
}
