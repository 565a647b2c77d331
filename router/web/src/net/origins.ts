/**
 * Which edge we talk to.
 *
 * Behind one name (production) it is always our own origin: another connection reaches another node. A demo's nodes
 * have an address each, so when the one that served the page dies, the page goes on at the next one, without a reload.
 */

const ours = location.origin;
let list: string[] = [ours];
let current = 0;

/** The base of every address: `http://127.0.0.1:4100`. */
export function origin(): string {
  return list[current] ?? ours;
}

/** Nodes that were heard of. Only plain http(s) origins are taken. */
export function learn(addresses: string[]): void {
  const found = addresses.flatMap((text) => {
    try {
      const url = new URL(text.includes('://') ? text : `http://${text}`);
      return url.protocol === 'http:' || url.protocol === 'https:' ? [url.origin] : [];
    } catch {
      return [];
    }
  });
  const now = origin();
  list = [...new Set([ours, ...found])];
  current = Math.max(0, list.indexOf(now));
}

/** On to the next edge. */
export function elsewhere(): void {
  current = (current + 1) % list.length;
}

export function socketAddress(): string {
  return `${origin().replace(/^http/, 'ws')}/ws`;
}
