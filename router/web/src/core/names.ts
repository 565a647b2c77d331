/** Names of people. Ids of guests carry a readable one: `guest-NAME-XXXX`. */

export function displayName(id: string): string {
  const match = /^guest-(.+)-([A-Za-z0-9]+)$/.exec(id);
  return match?.[1] ? match[1] : id;
}

/** The tail that tells two guests of one name apart. */
export function nameTail(id: string): string {
  return /^guest-.+-([A-Za-z0-9]+)$/.exec(id)?.[1] ?? '';
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
