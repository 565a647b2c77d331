/**
 * Measures the delay of the picture that is on screen: now and then for the operator's histograms, each second for the
 * overlay, and once when the hammer falls.
 *
 * ```text
 *   frame callback ──> newest frame     look: capture {media} ──socket──> table ──> delay ──> overlay, seen {legs}
 * ```
 *
 * Asked only of an edge that says it understands (`hello.hears`), and only while frames come. A table is good for one
 * session: another session, or another edge, has other RTP times and another clock.
 */
import { signal } from '@preact/signals';
import { capturedAt, delay, type Delay, type FrameTimes, frameTimes, type Table } from '../core/delay';
import type { ServerMessage } from '../core/types';
import type { Connection } from './socket';

/** Between two looks with the overlay, and without. */
const SHOWN_MS = 1_000;
const QUIET_MS = 10_000;
/** A table this old says little: clocks drift, and the way changes. */
const STALE_MS = 30_000;

export interface Sample { rtp: number; delay: Delay; hops: number }

export class DelayMeter {
  readonly sample = signal<Sample | undefined>(undefined);
  readonly isShown = signal(false);
  #table: { media: string; at: number; table: Table } | undefined;
  #frame: { media: string; at: FrameTimes } | undefined;
  #video: HTMLVideoElement | undefined;
  #callback = 0;
  #timer = 0;
  #media: () => string | undefined;
  #isEnded = false;

  /** `media` names the session that is watched now. */
  constructor(readonly connection: Connection, media: () => string | undefined) {
    this.#media = media;
    this.#look();
  }

  /** Follows the frames of an element, where the browser tells of them. */
  follow(video: HTMLVideoElement): void {
    this.#video = video;
    if (!('requestVideoFrameCallback' in video)) return;
    const next = () => {
      this.#callback = video.requestVideoFrameCallback((_, at) => {
        const media = this.#media();
        const times = frameTimes(at);
        this.#frame = media !== undefined && times ? { media, at: times } : undefined;
        next();
      });
    };
    next();
  }

  toggle(): void {
    this.isShown.value = !this.isShown.value;
    this.sample.value = undefined;
    this.#look();
  }

  message(message: ServerMessage): void {
    if (message.t !== 'capture' || message.media !== this.#media()) return;
    const { line } = message;
    if (!line) return;
    this.#table = { media: message.media, at: performance.now(), table: { rtp: line.rtp, rate: line.rate, s: line.s, legsMs: line.legs_ms } };
    this.#measure();
  }

  /** The hammer fell at edge time `s`: how old was what the viewer saw of the seller just then? */
  hammer(s: number): void {
    const known = this.#known();
    if (known) this.#tell({ hammer: s - capturedAt(known.table, known.frame.rtp) });
  }

  end(): void {
    this.#isEnded = true;
    window.clearTimeout(this.#timer);
    if (this.#callback) this.#video?.cancelVideoFrameCallback(this.#callback);
  }

  #look(): void {
    window.clearTimeout(this.#timer);
    if (this.#isEnded) return;
    const media = this.#media();
    if (media && this.#frame && this.connection.hears('capture')) this.connection.send({ t: 'capture', media });
    this.#timer = window.setTimeout(() => this.#look(), this.isShown.value ? SHOWN_MS : QUIET_MS);
  }

  #known(): { table: Table; frame: FrameTimes; offset: number } | undefined {
    const now = performance.now();
    const media = this.#media();
    const held = this.#table;
    const frame = this.#frame;
    const best = this.connection.clock.best(now);
    if (!held || !frame || !best || !this.connection.isOpen) return undefined;
    if (held.media !== media || frame.media !== media || now - held.at > STALE_MS) return undefined;
    return { table: held.table, frame: frame.at, offset: best.offset };
  }

  #measure(): void {
    const known = this.#known();
    if (!known) return;
    const { table, frame, offset } = known;
    const told = delay(table, frame, offset);
    this.sample.value = { rtp: frame.rtp, delay: told, hops: Math.max(0, table.legsMs.length - 1) };
    this.#tell({ ...told });
  }

  #tell(legs: Record<string, number>): void {
    const rounded = Object.fromEntries(Object.entries(legs).map(([leg, ms]) => [leg, Math.round(ms * 10) / 10]));
    if (this.connection.hears('seen')) this.connection.send({ t: 'seen', legs: rounded });
  }
}
