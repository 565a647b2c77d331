/**
 * Where a picture's delay comes from, part by part.
 *
 * ```text
 *   capture ─ uplink ─> origin ─ hops ─> edge ─ receive ─> page ─ buffer, decode ─> composed ─ display ─> screen
 *        └───────── the edge's table ─────────┘    └─────────────── the browser's frame callback ───────────┘
 * ```
 *
 * The edge says which RTP time is captured at which moment of its clock; the browser says which RTP time a frame has.
 * Both meet on the edge's clock, as the countdown does. The parts are differences of neighbouring moments, so their sum
 * is the whole by construction, and a wrong moment shows as one part too long and its neighbour too short.
 *
 * The browser's own capture time isn't used: where a node forwards, it is missing or the node's.
 */

/** A picture captured at edge time `s` has the RTP time `rtp`; `legsMs`: from its capture until it is whole at each node. */
export interface Table { rtp: number; rate: number; s: number; legsMs: number[] }

/** What the browser tells of a frame: moments on the page's clock, ms; `decodeMs` as it took. */
export interface FrameTimes { rtp: number; receivedAt: number; decodeMs: number; composedAt: number; shownAt: number }

export const LEGS = ['uplink', 'hops', 'receive', 'buffer', 'decode', 'display'] as const;
export type Leg = (typeof LEGS)[number];
export type Delay = Record<Leg, number> & { whole: number };

/** When a frame was captured, on the edge's clock. RTP times wrap at 2^32; a table is never hours old. */
export function capturedAt(table: Table, rtp: number): number {
  const ticks = (rtp - table.rtp) | 0;
  return table.s + (ticks / table.rate) * 1000;
}

/** The parts of a frame's delay, ms. `offset`: the edge's clock minus the page's. */
export function delay(table: Table, frame: FrameTimes, offset: number): Delay {
  const captured = capturedAt(table, frame.rtp) - offset;
  const origin = table.legsMs[0] ?? 0;
  const edge = table.legsMs.at(-1) ?? 0;
  return {
    uplink: origin,
    hops: edge - origin,
    receive: frame.receivedAt - (captured + edge),
    buffer: frame.composedAt - frame.receivedAt - frame.decodeMs,
    decode: frame.decodeMs,
    display: frame.shownAt - frame.composedAt,
    whole: frame.shownAt - captured,
  };
}

/** A frame's moments, if the browser tells all of them: not every one tells what came by RTP. */
export function frameTimes(at: VideoFrameCallbackMetadata): FrameTimes | undefined {
  const { rtpTimestamp, receiveTime, processingDuration, presentationTime, expectedDisplayTime } = at;
  if (rtpTimestamp === undefined || receiveTime === undefined) return undefined;
  return {
    rtp: rtpTimestamp,
    receivedAt: receiveTime,
    decodeMs: (processingDuration ?? 0) * 1000,
    composedAt: presentationTime,
    shownAt: expectedDisplayTime,
  };
}
