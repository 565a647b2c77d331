/**
 * Whether and when to come back after a WebSocket closed, by its close code (docs/protocol.md).
 * Full jitter: a room's viewers must not return in one wave. Pure: the random number is an argument.
 */

export type Return =
  | { go: true; afterMs: number; elsewhere: boolean; signOut: boolean }
  | { go: false };

const CAP_MS = 8_000;

/** `tries`: failures in a row so far; `random`: [0, 1). */
export function comeBack(code: number, tries: number, random: number): Return {
  const grown = Math.min(CAP_MS, 250 * 2 ** Math.min(tries, 6)) * random;
  switch (code) {
    case 4400:
      return { go: false };
    case 4401:
      return { go: true, afterMs: grown, elsewhere: false, signOut: true };
    case 4408:
      return { go: true, afterMs: 2_000 * random, elsewhere: false, signOut: false };
    case 4429:
      return { go: true, afterMs: 3_000 + 7_000 * random, elsewhere: false, signOut: false };
    case 4503:
      return { go: true, afterMs: tries === 0 ? 100 * random : grown, elsewhere: true, signOut: false };
    default:
      // A crash closes with 1006: try once here at once (a hiccup), then elsewhere.
      return { go: true, afterMs: tries === 0 ? 50 : grown, elsewhere: tries > 0, signOut: false };
  }
}
