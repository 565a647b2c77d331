/**
 * The one WebSocket of a page: signed in, joined, pinged, and brought back when it falls.
 *
 * ```text
 *   open ──> hello ──> join each room (resume) ──> re-send open bids ──> messages …
 *     ^                                                                    │ closed, or silent too long
 *     └──────────── comeBack(code): when, and whether elsewhere ───────────┘
 * ```
 *
 * Rooms subscribe; the socket knows nothing of auctions. Everything sent is either repeatable (bids by id) or worthless
 * later (pings), so there is no queue of outgoing frames: what can't be sent now is sent by its owner after `opened`.
 */
import { signal } from '@preact/signals';
import { comeBack } from '../core/backoff';
import { OffsetEstimator } from '../core/clock';
import type { ServerMessage } from '../core/types';
import { getCluster } from './api';
import { elsewhere, learn, socketAddress } from './origins';
import { type Hat, session, signOut } from './session';

export type Link = 'connecting' | 'open' | 'retrying' | 'stopped';

export interface Subscriber {
  /** The socket is (again) open and signed in as far as it will be: join, re-send. */
  opened(): void;
  closed(): void;
  message(message: ServerMessage): void;
}

/** A burst on opening finds a good sample quickly; then a slow pulse keeps it fresh and proves the line alive. */
const PING_BURST = 6;
const PING_BURST_MS = 120;
const PING_MS = 2_500;
/** No frame at all for this long: the line is dead even if nobody said so. */
const SILENT_MS = 8_000;
const OPEN_MS = 4_000;

export class Connection {
  readonly link = signal<Link>('connecting');
  readonly node = signal<{ node: number; region: string } | undefined>(undefined);
  readonly rtt = signal<number | undefined>(undefined);
  readonly clock = new OffsetEstimator();
  #hears = new Set<string>();
  #socket: WebSocket | undefined;
  #subscriber: Subscriber;
  #hat: Hat;
  #tries = 0;
  #heard = 0;
  #pings = 0;
  #pingTimer = 0;
  #retryTimer = 0;
  #ended = false;
  #unwatch: () => void;

  constructor(hat: Hat, subscriber: Subscriber) {
    this.#hat = hat;
    this.#subscriber = subscriber;
    let token = session(hat).value?.token;
    this.#unwatch = session(hat).subscribe((next) => {
      if (next?.token === token) return;
      token = next?.token;
      // Signing in needs only a hello; signing out needs a socket that never knew us.
      if (token && this.isOpen) this.#hello(token);
      else if (!token) this.#socket?.close(1000);
    });
    void getCluster().then((cluster) => cluster.demo && learn(cluster.nodes.map((n) => n.http))).catch(() => undefined);
    window.addEventListener('online', this.#wake);
    document.addEventListener('visibilitychange', this.#wake);
    this.#open();
  }

  get isOpen(): boolean {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** The edge's time now. */
  edgeTime(): number | undefined {
    return this.isOpen ? this.clock.edgeTime(performance.now()) : undefined;
  }

  /** Whether this edge understands a message that not every edge does. */
  hears(t: string): boolean {
    return this.isOpen && this.#hears.has(t);
  }

  send(frame: Record<string, unknown>): boolean {
    if (!this.isOpen) return false;
    this.#socket?.send(JSON.stringify(frame));
    return true;
  }

  end(): void {
    this.#ended = true;
    this.#unwatch();
    window.removeEventListener('online', this.#wake);
    document.removeEventListener('visibilitychange', this.#wake);
    window.clearTimeout(this.#pingTimer);
    window.clearTimeout(this.#retryTimer);
    this.#socket?.close(1000);
  }

  #open(): void {
    const socket = new WebSocket(socketAddress());
    this.#socket = socket;
    const giveUp = window.setTimeout(() => socket.close(), OPEN_MS);
    socket.onopen = () => {
      window.clearTimeout(giveUp);
      this.clock.reset();
      this.#hears.clear();
      this.#heard = performance.now();
      const token = session(this.#hat).value?.token;
      if (token) this.#hello(token);
      this.link.value = 'open';
      this.#pings = 0;
      this.#ping();
      this.#subscriber.opened();
    };
    socket.onmessage = (event) => this.#message(event.data);
    socket.onclose = (event) => {
      window.clearTimeout(giveUp);
      if (this.#socket === socket) this.#closed(event.code);
    };
  }

  #hello(token: string): void {
    this.send({ t: 'hello', token });
  }

  #message(data: unknown): void {
    this.#heard = performance.now();
    if (typeof data !== 'string') return;
    let message: ServerMessage;
    try {
      message = JSON.parse(data) as ServerMessage;
    } catch {
      return;
    }
    if (message.t === 'pong') {
      this.#tries = 0;
      this.clock.sample(message.c, this.#heard, message.s);
      this.rtt.value = this.clock.best(this.#heard)?.rttMs;
    } else if (message.t === 'hello') {
      this.node.value = { node: message.node, region: message.region };
      this.#hears = new Set(message.hears ?? []);
    }
    this.#subscriber.message(message);
  }

  #ping = (): void => {
    window.clearTimeout(this.#pingTimer);
    if (this.#ended || !this.isOpen) return;
    if (performance.now() - this.#heard > SILENT_MS) {
      // close() would wait for a peer that isn't there; go on without it.
      this.#abandon();
      return;
    }
    this.send({ t: 'ping', c: performance.now() });
    this.#pings += 1;
    this.#pingTimer = window.setTimeout(this.#ping, this.#pings < PING_BURST ? PING_BURST_MS : PING_MS);
  };

  #abandon(): void {
    const socket = this.#socket;
    this.#closed(1006);
    socket?.close();
  }

  #closed(code: number): void {
    this.#socket = undefined;
    window.clearTimeout(this.#pingTimer);
    if (this.#ended) return;
    this.#subscriber.closed();
    const next = comeBack(code, this.#tries, Math.random());
    this.#tries += 1;
    if (!next.go) {
      this.link.value = 'stopped';
      return;
    }
    if (next.signOut) signOut(this.#hat);
    if (next.elsewhere) elsewhere();
    this.link.value = 'retrying';
    window.clearTimeout(this.#retryTimer);
    this.#retryTimer = window.setTimeout(() => this.#open(), next.afterMs);
  }

  /** The network or the tab came back: look at once instead of waiting out a pause. */
  #wake = (): void => {
    if (document.hidden || this.#ended) return;
    if (this.isOpen) this.#ping();
    else if (this.link.value === 'retrying' && !this.#socket) {
      window.clearTimeout(this.#retryTimer);
      this.#tries = 0;
      this.#open();
    }
  };
}
