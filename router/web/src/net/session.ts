/**
 * Who we are: guest tokens, one for bidding and one for selling (nobody may bid on an own item, so the two hats are
 * two people). Kept in localStorage so that a reload or a second tab stays signed in; an expired one is dropped.
 */
import { computed, signal } from '@preact/signals';
import { learnName } from '../core/names';
import type { User } from '../core/types';

export type Hat = 'bidder' | 'seller';
export interface Session { token: string; user: User; expires_at_ms: number }

const key = (hat: Hat) => `rushroom.session.${hat}`;
/** A token that is about to expire is no use: signing in again is one field. */
const MARGIN_MS = 30_000;

function read(hat: Hat): Session | undefined {
  try {
    const session = JSON.parse(localStorage.getItem(key(hat)) ?? 'null') as Session | null;
    if (session && typeof session.token === 'string' && session.expires_at_ms - Date.now() > MARGIN_MS) return session;
    localStorage.removeItem(key(hat));
  } catch {
    // Storage may be forbidden or hold something else; then nobody is signed in.
  }
  return undefined;
}

const sessions = { bidder: signal(read('bidder')), seller: signal(read('seller')) };
const timers: Partial<Record<Hat, number>> = {};

function watch(hat: Hat): void {
  window.clearTimeout(timers[hat]);
  const session = sessions[hat].value;
  if (!session) return;
  learnName(session.user.id, session.user.name);
  const left = session.expires_at_ms - Date.now() - MARGIN_MS;
  // Timers take 31 bits; a longer life is looked at again then.
  timers[hat] = window.setTimeout(() => (left > 2 ** 31 - 1 ? watch(hat) : signOut(hat)), Math.min(Math.max(0, left), 2 ** 31 - 1));
}
watch('bidder');
watch('seller');
window.addEventListener('storage', (event) => {
  for (const hat of ['bidder', 'seller'] as const) {
    if (event.key === key(hat)) {
      sessions[hat].value = read(hat);
      watch(hat);
    }
  }
});

export const session = (hat: Hat) => sessions[hat];
export const users = {
  bidder: computed(() => sessions.bidder.value?.user),
  seller: computed(() => sessions.seller.value?.user),
};

export function signedIn(hat: Hat, next: Session): void {
  sessions[hat].value = next;
  try {
    localStorage.setItem(key(hat), JSON.stringify(next));
  } catch {
    // Without storage the session lives as long as the page.
  }
  watch(hat);
}

export function signOut(hat: Hat): void {
  sessions[hat].value = undefined;
  try {
    localStorage.removeItem(key(hat));
  } catch {
    // As above.
  }
  window.clearTimeout(timers[hat]);
}
