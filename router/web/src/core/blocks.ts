/**
 * The counter in the test picture, as blocks that a program can read back from decoded video.
 *
 * A row of 24 equal squares along the top edge, white for 1 and black for 0, most significant first:
 *
 * ```text
 *   1 0 1 0 | c15 c14 … c1 c0 | k3 k2 k1 k0
 *   sync      frame counter     sum of the counter's four nibbles, mod 16
 * ```
 *
 * Each block is read at its centre, far from the edges that a codec smears; the sum refuses what was read wrong.
 */

export const BLOCKS = 24;
const SYNC = [1, 0, 1, 0];

/** The 24 bits of a counter (its low 16 bits). */
export function encodeBlocks(counter: number): number[] {
  const c = counter & 0xffff;
  const bits = (value: number, n: number) => Array.from({ length: n }, (_, i) => (value >> (n - 1 - i)) & 1);
  return [...SYNC, ...bits(c, 16), ...bits(checksum(c), 4)];
}

/** The counter from the brightness (0–255) of each block, or nothing if it can't be trusted. */
export function decodeBlocks(brightness: number[]): number | undefined {
  if (brightness.length !== BLOCKS) return undefined;
  const bits = brightness.map((b) => (b > 127 ? 1 : 0));
  if (SYNC.some((bit, i) => bits[i] !== bit)) return undefined;
  const read = (from: number, n: number) => bits.slice(from, from + n).reduce<number>((sum, bit) => sum * 2 + bit, 0);
  const c = read(4, 16);
  return read(20, 4) === checksum(c) ? c : undefined;
}

/** The centre of block `i` in a picture of `width`: also the row's y, since blocks are squares. */
export function blockCentre(i: number, width: number): { x: number; y: number } {
  const size = width / BLOCKS;
  return { x: Math.floor((i + 0.5) * size), y: Math.floor(size / 2) };
}

function checksum(c: number): number {
  return ((c >> 12) + (c >> 8) + (c >> 4) + c) & 0xf;
}
