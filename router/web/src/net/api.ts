/**
 * The HTTP calls. Each answers with its object or throws a `Refused` that carries the coded problem; a network failure
 * is the problem `unavailable`, so callers know one kind of error only.
 */
import { freshId } from '../core/names';
import type { Auction, AuctionEvent, Cluster, Problem, Rush, SoftClose } from '../core/types';
import { elsewhere, origin } from './origins';
import { type Hat, type Session, session, signedIn, signOut } from './session';

export class Refused extends Error {
  constructor(readonly problem: Problem) {
    super(problem.title);
  }
}

/** Answers that leave the outcome open; safe to repeat under the same key. */
const REPEATABLE = new Set(['timeout', 'unavailable', 'busy']);
const TRIES = 4;
const CALL_MS = 8_000;

interface Call { method?: string; body?: unknown; hat?: Hat; raw?: { type: string; text: string }; signal?: AbortSignal; once?: boolean }

const nap = (ms: number) => new Promise((done) => setTimeout(done, ms));

export async function call(path: string, options: Call = {}): Promise<Response> {
  const headers = new Headers({ Accept: 'application/json, application/problem+json' });
  const token = options.hat && session(options.hat).value?.token;
  if (token) headers.set('Authorization', `Bearer ${token}`);
  const method = options.method ?? 'GET';
  if (method !== 'GET') headers.set('Idempotency-Key', freshId());
  if (options.raw) headers.set('Content-Type', options.raw.type);
  else if (options.body !== undefined) headers.set('Content-Type', 'application/json');
  const body = options.raw?.text ?? (options.body === undefined ? null : JSON.stringify(options.body));
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await attemptCall(path, { method, headers, body }, options);
    } catch (error) {
      if (options.signal?.aborted) throw error;
      const refused = error instanceof Refused ? error : undefined;
      if (!refused || !REPEATABLE.has(refused.problem.code) || options.once || attempt >= TRIES) throw error;
      if (refused.problem.status === 0) elsewhere();
      await nap(200 * attempt);
    }
  }
}

async function attemptCall(path: string, init: RequestInit, options: Call): Promise<Response> {
  const limit = AbortSignal.timeout(CALL_MS);
  const signal = options.signal ? AbortSignal.any([limit, options.signal]) : limit;
  let response: Response;
  try {
    response = await fetch(origin() + path, { ...init, signal });
  } catch {
    throw new Refused({ code: 'unavailable', title: 'unreachable', status: 0 });
  }
  if (response.ok) return response;
  if (response.status === 401 && options.hat) signOut(options.hat);
  throw new Refused(await problemOf(response));
}

async function problemOf(response: Response): Promise<Problem> {
  try {
    const problem = (await response.json()) as Problem;
    if (typeof problem.code === 'string') return problem;
  } catch {
    // Not one of ours: a proxy's page, perhaps.
  }
  const code = response.status === 404 ? 'not_found' : response.status >= 500 ? 'unavailable' : 'bad_request';
  return { code, title: response.statusText, status: response.status };
}

const json = async <T>(response: Promise<Response>): Promise<T> => (await response).json() as Promise<T>;
const at = (id: string) => `/api/v1/auctions/${encodeURIComponent(id)}`;

export async function signInGuest(hat: Hat, name: string): Promise<void> {
  signedIn(hat, await json<Session>(call('/api/v1/auth/guest', { method: 'POST', body: { name, role: hat } })));
}

export interface Draft {
  title: string;
  description?: string;
  currency: string;
  start_price: number;
  increments?: [number, number][];
  reserve?: number;
  duration_ms: number;
  rush?: Rush;
  soft_close?: SoftClose;
  guests?: boolean;
  pause_without_stream?: boolean;
}

/**
 * Every page of a list, bounded: a page of cards is not an archive. Live comes first, so what is cut off is old. `missing`:
 * some shards didn't answer. Drafts are listed for their seller only.
 */
export async function listAuctions(wish: { states: string; seller?: string; hat?: Hat; signal: AbortSignal }): Promise<{ items: Auction[]; missing: boolean }> {
  const items: Auction[] = [];
  let missing = false;
  let cursor: string | undefined;
  for (let page = 0; page < 4; page += 1) {
    const query = new URLSearchParams({ state: wish.states, limit: '100', ...(wish.seller && { seller: wish.seller }), ...(cursor && { cursor }) });
    const path = `/api/v1/auctions?${query}`;
    const answer = await json<{ items: Auction[]; next?: string | null; missing?: number[] }>(call(path, { signal: wish.signal, ...(wish.hat && { hat: wish.hat }) }));
    items.push(...answer.items);
    missing ||= (answer.missing?.length ?? 0) > 0;
    cursor = answer.next ?? undefined;
    if (!cursor) break;
  }
  return { items, missing };
}

export const getAuction = (id: string) => json<Auction>(call(at(id)));
export const listEvents = (id: string, after: number) =>
  json<{ items: AuctionEvent[] }>(call(`${at(id)}/events?after=${after}&limit=500`));
export const createAuction = (draft: Draft) => json<Auction>(call('/api/v1/auctions', { method: 'POST', body: draft, hat: 'seller' }));
export const schedule = (id: string, start_at_ms: number) =>
  json<Auction>(call(`${at(id)}/schedule`, { method: 'POST', body: { start_at_ms }, hat: 'seller' }));

export type SellerVerb = 'start' | 'pause' | 'resume' | 'extend' | 'cancel';
export const command = (id: string, verb: SellerVerb, body: Record<string, unknown> = {}) =>
  json<Auction>(call(`${at(id)}/${verb}`, { method: 'POST', body, hat: 'seller' }));

export const getCluster = (signal?: AbortSignal) => json<Cluster>(call('/api/v1/cluster', signal ? { signal } : {}));
export const stopNode = (id: number) => call(`/api/v1/admin/nodes/${id}/stop`, { method: 'POST', body: {}, hat: 'seller', once: true });
