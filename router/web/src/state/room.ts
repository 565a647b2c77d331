/**
 * A room: the shell around the pure parts. It feeds messages to `feed`, readings to `countdown`, taps to `bids`, and
 * carries out what they ask for. Pages read its signals and call `bid`, `say`.
 */
import { batch, computed, signal } from '@preact/signals';
import * as bids from '../core/bids';
import { Countdown } from '../core/countdown';
import * as feed from '../core/feed';
import { freshId, learnName } from '../core/names';
import type { AuctionEvent, Problem, ServerMessage } from '../core/types';
import { getAuction, listEvents } from '../net/api';
import type { DelayMeter } from '../net/delay';
import { Connection } from '../net/socket';
import { type Hat, session } from '../net/session';

export interface Shown { event: AuctionEvent; key: number; leftBefore: number | undefined; fromLeader: string | undefined }

const TICK_MS = 250;
/** Events of history that a page wants to show. */
const HISTORY = 50;
/** A join that was refused (a draft is not open yet; its shard may be electing) is tried again. */
const REJOIN_MS = 1_500;
/** A reading of the clock says when a bid is first sent for so long. */
const TOLD_MS = 60_000;

export class Room {
  readonly feed = signal<feed.Feed>(feed.newFeed(''));
  readonly bids = signal<bids.Bids>(bids.noBids);
  readonly held = signal(false);
  readonly clockKnown = signal(false);
  readonly clockErr = signal<number | undefined>(undefined);
  /** The newest event that came while we watched: what animations hang on. */
  readonly shown = signal<Shown | undefined>(undefined);
  readonly missing = signal(false);
  readonly notice = signal<Problem | undefined>(undefined);
  readonly auction = computed(() => this.feed.value.auction);
  readonly pending = computed(() => bids.pending(this.bids.value));
  readonly latest = computed(() => bids.latest(this.bids.value));
  readonly countdown = new Countdown();
  /** Told of what the video's delay needs to know, while there is a video. */
  meter: DelayMeter | undefined;
  readonly connection: Connection;
  readonly me = computed(() => session(this.hat).value?.user);
  #timer: number;
  #rejoin = 0;
  #bidder: string | undefined;
  #unwatch: () => void;
  #shownCount = 0;
  #told: { now: number; at: number } | undefined;
  #chatWaiting = new Map<string, string>();

  constructor(readonly id: string, readonly hat: Hat = 'bidder') {
    this.feed.value = feed.newFeed(id);
    this.connection = new Connection(hat, {
      opened: () => this.#opened(),
      closed: () => this.#closed(),
      message: (message) => batch(() => this.#message(message)),
    });
    // A bid's id counts once per bidder: what one identity has open must never go out as another's.
    this.#unwatch = this.me.subscribe((user) => {
      if (user?.id === this.#bidder) return;
      this.#bidder = user?.id;
      this.bids.value = bids.restore(this.#stored(), performance.now());
    });
    this.#timer = window.setInterval(() => this.#tick(), TICK_MS);
  }

  end(): void {
    window.clearInterval(this.#timer);
    window.clearTimeout(this.#rejoin);
    this.#unwatch();
    this.connection.end();
  }

  /** Milliseconds left now, as drawn. */
  left(): number | undefined {
    return this.countdown.left(this.connection.edgeTime());
  }

  bid(amount: number): void {
    if (this.#bidder === undefined) return;
    this.#keep(bids.place(this.bids.value, freshId(), amount, performance.now(), this.#past()));
  }

  /** A moment on the auction's clock that is certainly past: what was told of it lately, while it ran. */
  #past(): number | undefined {
    return this.#told && performance.now() - this.#told.at < TOLD_MS ? this.#told.now : undefined;
  }

  say(text: string): void {
    const id = freshId();
    this.#chatWaiting.set(id, text);
    this.connection.send({ t: 'chat', a: this.id, id, text });
  }

  #opened(): void {
    this.#join();
    this.#keep(bids.reconnected(this.bids.value, performance.now()));
    // A line's id makes it the same line however often it is sent.
    for (const [id, text] of this.#chatWaiting) this.connection.send({ t: 'chat', a: this.id, id, text });
  }

  #join(): void {
    const step = feed.join(this.feed.value);
    this.feed.value = step.feed;
    this.#effects(step.effects);
  }

  /** What can be shown of an auction that can't be joined yet. A snapshot replaces it. */
  async #peek(): Promise<void> {
    try {
      const auction = await getAuction(this.id);
      if (this.feed.value.epoch === undefined) this.feed.value = { ...this.feed.value, auction };
    } catch (error) {
      if ((error as { problem?: Problem }).problem?.code === 'not_found') this.missing.value = true;
    }
  }

  /** An edge that has just begun to follow may have a snapshot but no history yet: it is fetched for the log. */
  async #history(epoch: number, offset: number): Promise<void> {
    try {
      const { items } = await listEvents(this.id, Math.max(0, offset - HISTORY));
      if (this.feed.value.epoch === epoch) this.feed.value = feed.prefill(this.feed.value, items);
    } catch {
      // The log then begins with what comes next.
    }
  }

  #closed(): void {
    window.clearTimeout(this.#rejoin);
    this.countdown.disconnected();
    this.clockKnown.value = false;
  }

  #tick(): void {
    const next = bids.due(this.bids.value, performance.now());
    if (next.send.length > 0) this.#keep(next);
  }

  #keep(next: { bids: bids.Bids; send: bids.Send[] }): void {
    if (next.bids !== this.bids.value) {
      this.bids.value = next.bids;
      try {
        sessionStorage.setItem(this.#place(), bids.save(next.bids));
      } catch {
        // Without storage a reload forgets what was on its way; the shard does not.
      }
    }
    for (const bid of next.send) this.connection.send({ t: 'bid', a: this.id, ...bid });
  }

  #place(): string {
    return `rushroom.bids.${this.id}.${this.#bidder}`;
  }

  #stored(): string | null {
    try {
      return this.#bidder === undefined ? null : sessionStorage.getItem(this.#place());
    } catch {
      return null;
    }
  }

  #effects(effects: feed.Effect[]): void {
    for (const effect of effects) {
      if (effect.do === 'join') {
        const { do: _, ...from } = effect;
        this.connection.send({ t: 'join', a: this.id, ...from });
      } else {
        this.#shownCount += 1;
        const leftBefore = this.left();
        if (effect.event.ty === 'held') this.countdown.held();
        if (effect.event.ty === 'close') this.#hammer(effect.event.ct);
        this.shown.value = {
          event: effect.event,
          key: this.#shownCount,
          leftBefore,
          fromLeader: effect.before.leader ?? undefined,
        };
      }
    }
  }

  /** The hammer fell at `ct` on the auction's clock: the meter is told when that was on the edge's. */
  #hammer(ct: number): void {
    const now = this.connection.edgeTime();
    const reading = now === undefined ? undefined : this.countdown.reading(now);
    if (now !== undefined && reading !== undefined && !this.countdown.isHeld) this.meter?.hammer(now - (reading - ct));
  }

  #message(message: ServerMessage): void {
    this.meter?.message(message);
    const step = feed.reduce(this.feed.value, message);
    this.#effects(step.effects);
    if (step.feed !== this.feed.value) {
      this.feed.value = step.feed;
      const auction = step.feed.auction;
      if (auction) {
        this.missing.value = false;
        this.countdown.rule(auction.phase, auction.ends_at ?? undefined, auction.left_ms ?? undefined);
      }
    }
    if (message.t === 'snap' && message.a === this.id) {
      this.countdown.held();
      if (message.offset > 0 && (message.recent ?? []).length === 0) void this.#history(message.epoch, message.offset);
    }
    if (message.t === 'clock' && message.a === this.id) {
      this.countdown.clock({ now: message.now, s: message.s, held: message.held, errMs: message.err_ms });
      this.held.value = message.held;
      // Of a clock that stands nobody knows how old its number is.
      if (!message.held) this.#told = { now: message.now, at: performance.now() };
      this.clockKnown.value = true;
    } else if (message.t === 'verdict' && message.a === this.id) {
      const { verdict, problem } = message;
      const next = bids.answer(this.bids.value, message.id, { ...(verdict && { verdict }), ...(problem && { problem }) }, performance.now());
      this.#keep({ bids: next, send: [] });
    } else if (message.t === 'chat') {
      learnName(message.chat.from, message.chat.name);
      this.#chatWaiting.delete(message.chat.id);
    } else if (message.t === 'problem') {
      this.#problem(message);
    } else if (message.t === 'pong') {
      const best = this.connection.clock.best(performance.now());
      const edge = this.countdown.errMs;
      this.clockErr.value = best && edge !== undefined ? best.errMs + edge : undefined;
    }
  }

  #problem({ problem, a, id }: Extract<ServerMessage, { t: 'problem' }>): void {
    if (id !== undefined && this.bids.value.list.some((b) => b.id === id)) {
      this.#keep({ bids: bids.answer(this.bids.value, id, { problem }, performance.now()), send: [] });
      return;
    }
    if (id !== undefined) this.#chatWaiting.delete(id);
    if (id !== undefined || a !== this.id) {
      this.notice.value = problem;
      return;
    }
    // Without an id of a command it is about the join.
    if (problem.code === 'not_found') this.missing.value = true;
    else if (this.feed.value.epoch === undefined) void this.#peek();
    window.clearTimeout(this.#rejoin);
    this.#rejoin = window.setTimeout(() => this.connection.isOpen && this.#join(), REJOIN_MS * (0.75 + Math.random() / 2));
  }
}
