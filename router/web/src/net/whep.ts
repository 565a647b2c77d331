/**
 * Watching: one WHEP session, replaced whenever it dies or shows nothing.
 *
 * The judge is what comes, not the state machine (ICE needs many seconds to notice a dead node). Where nothing at all
 * comes any more the session is replaced at once, at another edge if need be; where only frames are missing (a shared
 * screen that stands still) patience is longer.
 */
import { signal } from '@preact/signals';
import { bytesIn, MediaSession } from './mediasession';
import { elsewhere } from './origins';

export type Picture = 'idle' | 'connecting' | 'waiting' | 'playing' | 'stalled';

/** A viewer may connect before the seller's stream is up; then nothing is wrong for this long. */
const LOOK_MS = 250;
const STALL_MS = 1_500;
/** Nothing came at all, after frames had come. */
const DEAD_MS = 1_000;
/** The first frame didn't come, or no frame did on a connection that lives. */
const FIRST_MS = 4_000;
const STILL_MS = 8_000;
const RETRY_MS = [300, 700, 1_500, 3_000];

export interface PictureStats { frames: number; dropped: number; width: number; height: number; delayMs: number | undefined }

export class Watcher {
  readonly picture = signal<Picture>('idle');
  readonly stats = signal<PictureStats>({ frames: 0, dropped: 0, width: 0, height: 0, delayMs: undefined });
  readonly media = new MediaStream();
  #path: string;
  #session: MediaSession | undefined;
  #timer = 0;
  #failures = 0;
  #frames = 0;
  /** Frames that had come when the stream was last announced: only more than these count as seeing it. */
  #before = 0;
  #grewAt = 0;
  #bytes = 0;
  #heardAt = 0;
  #expected = false;
  #ended = false;

  constructor(auction: string) {
    this.#path = `/whep/${encodeURIComponent(auction)}`;
  }

  /** The name of the session that is watched. */
  get session(): string | undefined {
    return this.#session?.name;
  }

  /** Whether the auction says that a stream is up: only then is silence a fault. */
  expect(up: boolean): void {
    if (this.#ended || up === this.#expected) return;
    this.#expected = up;
    if (up) {
      this.#before = this.#frames;
      this.#grewAt = performance.now();
      if (!this.#session) this.#connect();
    }
    if (!up && this.picture.value !== 'idle') this.picture.value = 'waiting';
  }

  end(): void {
    this.#ended = true;
    this.#drop();
    this.picture.value = 'idle';
  }

  #drop(): void {
    window.clearTimeout(this.#timer);
    this.#session?.end();
    this.#session = undefined;
  }

  #connect(): void {
    this.#drop();
    if (this.#ended) return;
    const session = new MediaSession(this.#path, 'bidder');
    const { pc } = session;
    this.#session = session;
    this.#frames = 0;
    this.#before = 0;
    this.#bytes = 0;
    this.#grewAt = performance.now();
    this.#heardAt = this.#grewAt;
    if (this.picture.value !== 'stalled') this.picture.value = 'connecting';
    pc.addTransceiver('video', { direction: 'recvonly' });
    pc.addTransceiver('audio', { direction: 'recvonly' });
    pc.ontrack = ({ track }) => {
      for (const old of this.media.getTracks()) if (old.kind === track.kind) this.media.removeTrack(old);
      this.media.addTrack(track);
    };
    pc.onconnectionstatechange = () => {
      if (!session.isOver && pc.connectionState === 'failed') this.#again();
    };
    session.open().then(
      () => this.#look(session),
      () => {
        if (session.isOver) return;
        if (this.#failures >= 1) elsewhere();
        this.#again();
      },
    );
  }

  #again(): void {
    this.#drop();
    if (this.#ended) return;
    if (!this.#expected) {
      this.picture.value = 'waiting';
      return;
    }
    const pause = RETRY_MS[Math.min(this.#failures, RETRY_MS.length - 1)] ?? 3_000;
    this.#failures += 1;
    this.#timer = window.setTimeout(() => this.#connect(), pause * (0.5 + Math.random() / 2));
  }

  #look(session: MediaSession): void {
    this.#timer = window.setTimeout(async () => {
      if (session.isOver) return;
      const report = await session.pc.getStats();
      if (session.isOver) return;
      this.#judge(report);
      if (!session.isOver) this.#look(session);
    }, LOOK_MS);
  }

  #judge(report: RTCStatsReport): void {
    const now = performance.now();
    const bytes = bytesIn(report);
    if (bytes > this.#bytes) this.#heardAt = now;
    this.#bytes = bytes;
    for (const row of report.values() as Iterable<RTCInboundRtpStreamStats>) {
      if (row.type !== 'inbound-rtp' || row.kind !== 'video') continue;
      const frames = row.framesDecoded ?? 0;
      if (frames > this.#frames) this.#grewAt = now;
      this.#frames = frames;
      const emitted = row.jitterBufferEmittedCount ?? 0;
      this.stats.value = {
        frames,
        dropped: row.framesDropped ?? 0,
        width: row.frameWidth ?? 0,
        height: row.frameHeight ?? 0,
        delayMs: emitted > 0 ? Math.round(((row.jitterBufferDelay ?? 0) / emitted) * 1000) : undefined,
      };
    }
    const seen = this.#frames > this.#before;
    const still = now - this.#grewAt;
    const dead = seen && now - this.#heardAt > DEAD_MS;
    if (seen && still < STALL_MS && !dead) {
      this.#failures = 0;
      this.picture.value = 'playing';
    } else if (!this.#expected) {
      this.picture.value = 'waiting';
    } else {
      if (this.#frames > 0) this.picture.value = 'stalled';
      if (dead || still > (seen ? STILL_MS : FIRST_MS)) this.#again();
    }
  }
}
