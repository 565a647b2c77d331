/**
 * One media session with a node, as WHIP and WHEP have it in common.
 *
 * ```text
 *   offer with its candidates ──POST──> node      answer, Location ──> pc connects ──> … ──DELETE Location──> over
 * ```
 *
 * A session ends once and for all: whoever wants to go on makes another. It can be ended at any moment; where the node
 * had already made it (its answer was still on its way) the node is told too.
 */
import { call, Refused } from './api';
import { origin } from './origins';
import type { Hat } from './session';
import type { Problem } from '../core/types';

/** Without STUN, gathering ends in milliseconds; a stuck interface must not hold up the show. */
const GATHER_MS = 800;

export class MediaSession {
  readonly pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  #where: string | undefined;
  #abort = new AbortController();

  constructor(readonly path: string, readonly hat: Hat) {}

  /** The session's name at its node, once it is there. */
  get name(): string | undefined {
    return this.#where?.split('/').at(-1);
  }

  get isOver(): boolean {
    return this.#abort.signal.aborted;
  }

  /** Sends the offer and applies the answer. Throws what the node refused it with; once over, it throws too. */
  async open(): Promise<void> {
    const { signal } = this.#abort;
    const offer = await gathered(this.pc);
    signal.throwIfAborted();
    const response = await call(this.path, { method: 'POST', raw: { type: 'application/sdp', text: offer }, hat: this.hat, signal, once: true });
    const where = response.headers.get('Location');
    // The node that answered, whichever it is by now that we would ask next.
    this.#where = where ? new URL(where, response.url || origin()).href : undefined;
    if (this.isOver) this.#goodbye();
    signal.throwIfAborted();
    const sdp = await response.text();
    signal.throwIfAborted();
    await this.pc.setRemoteDescription({ type: 'answer', sdp });
  }

  end(): void {
    if (this.isOver) return;
    this.#abort.abort();
    this.pc.close();
    this.#goodbye();
  }

  /** Goes out even while the page is being left. */
  #goodbye(): void {
    if (this.#where) void fetch(this.#where, { method: 'DELETE', keepalive: true }).catch(() => undefined);
    this.#where = undefined;
  }
}

async function gathered(pc: RTCPeerConnection): Promise<string> {
  await pc.setLocalDescription();
  if (pc.iceGatheringState !== 'complete') {
    await new Promise<void>((done) => {
      const timer = setTimeout(done, GATHER_MS);
      pc.addEventListener('icegatheringstatechange', () => {
        if (pc.iceGatheringState !== 'complete') return;
        clearTimeout(timer);
        done();
      });
    });
  }
  return pc.localDescription?.sdp ?? '';
}

/** A refusal that asking again won't change, if it is one. 'Not open' passes with the start of the auction. */
export function finalRefusal(error: unknown): Problem | undefined {
  const problem = error instanceof Refused ? error.problem : undefined;
  const final = problem && problem.status >= 400 && problem.status < 500 && problem.status !== 429 && problem.code !== 'not_open';
  return final ? problem : undefined;
}

/** Bytes that came over a connection, of whatever kind: media, or only the reports of a side that listens. */
export function bytesIn(report: RTCStatsReport): number {
  let sum = 0;
  for (const row of report.values() as Iterable<{ type: string; bytesReceived?: number }>) {
    if (row.type === 'transport') sum += row.bytesReceived ?? 0;
  }
  return sum;
}
