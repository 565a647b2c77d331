/** What WHIP and WHEP share: an offer with its candidates in it, the POST, and the end of a session. */
import { call } from './api';
import { origin } from './origins';
import type { Hat } from './session';

/** Without STUN, gathering ends in milliseconds; a stuck interface must not hold up the show. */
const GATHER_MS = 800;

export async function gathered(pc: RTCPeerConnection): Promise<string> {
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

/** Sends the offer, applies the answer, gives back the address of the session. */
export async function negotiate(pc: RTCPeerConnection, path: string, hat: Hat, signal: AbortSignal): Promise<string | undefined> {
  const offer = await gathered(pc);
  signal.throwIfAborted();
  const response = await call(path, { method: 'POST', raw: { type: 'application/sdp', text: offer }, hat, signal, once: true });
  const where = response.headers.get('Location');
  const base = origin();
  const sdp = await response.text();
  signal.throwIfAborted();
  await pc.setRemoteDescription({ type: 'answer', sdp });
  return where ? new URL(where, base).href : undefined;
}

/** Bytes that came over a connection, of whatever kind: media, or only the reports of a side that listens. */
export function bytesIn(report: RTCStatsReport): number {
  let sum = 0;
  for (const row of report.values() as Iterable<{ type: string; bytesReceived?: number }>) {
    if (row.type === 'transport') sum += row.bytesReceived ?? 0;
  }
  return sum;
}

/** Says goodbye even while the page is being left. */
export function endSession(where: string | undefined): void {
  if (where) void fetch(where, { method: 'DELETE', keepalive: true }).catch(() => undefined);
}
