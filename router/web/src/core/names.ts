/**
 * Names of people. Ids of guests carry a readable one in plain letters (`guest-mina-x7k2…`, `guest-anon-…` for a name of
 * other letters); the name as its owner writes it comes with chat lines and sessions, and is remembered here.
 */

const KNOWN_MAX = 2_000;
const known = new Map<string, string>();

/** Remembers how someone writes their name; the oldest is forgotten first. */
export function learnName(id: string, name: string): void {
  known.delete(id);
  known.set(id, name);
  if (known.size > KNOWN_MAX) {
    for (const oldest of known.keys()) {
      known.delete(oldest);
      break;
    }
  }
}

/** What to call someone, or nothing if all that is known is that they are a guest. */
export function displayName(id: string): string | undefined {
  const told = known.get(id);
  if (told !== undefined) return told;
  const name = /^guest-(.+)-[A-Za-z0-9]+$/.exec(id)?.[1];
  if (name === 'anon') return undefined;
  return name ? name[0]?.toUpperCase() + name.slice(1) : id;
}

/** The tail that tells two guests of one name apart. */
export function nameTail(id: string): string {
  return /^guest-.+-([A-Za-z0-9]+)$/.exec(id)?.[1]?.slice(-2) ?? '';
}

/** A stable number from an id, for colours (FNV-1a). */
export function hue(id: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < id.length; i += 1) h = Math.imul(h ^ id.charCodeAt(i), 0x01000193) >>> 0;
  return h % 360;
}

/** A fresh id for a command: 20 characters of base32 (100 bits), within the protocol's alphabet. */
export function freshId(random: (n: number) => Uint8Array = (n) => crypto.getRandomValues(new Uint8Array(n))): string {
  return Array.from(random(20), (byte) => 'abcdefghijklmnopqrstuvwxyz234567'[byte & 31]).join('');
}
