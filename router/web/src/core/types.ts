/** The objects of the edge's protocol (docs/protocol.md), as they come over HTTP and the WebSocket. */

export type Phase = 'draft' | 'scheduled' | 'live' | 'paused' | 'closed';
export type Outcome = 'sold' | 'unsold' | 'cancelled';

export interface Rush { cut_ppm_max: number; cut_per_raise_ppm: number; floor_ms: number }
export interface SoftClose { window_ms: number; reset_to_ms: number; extensions_max: number }

export interface Auction {
  id: string;
  version: number;
  seller: string;
  title: string;
  description: string;
  currency: string;
  start_price: number;
  increments: [number, number][];
  duration_ms: number;
  rush?: Rush | null;
  soft_close?: SoftClose | null;
  guests: boolean;
  pause_without_stream: boolean;
  phase: Phase;
  outcome?: Outcome | null;
  seq: number;
  price: number;
  least: number;
  leader?: string | null;
  bids: number;
  reserve_met?: boolean | null;
  ends_at?: number | null;
  left_ms?: number | null;
  start_at_ms?: number | null;
  ct: number;
  h: string;
  stream?: { node: number; id: string } | null;
  shard: number;
  now?: number | null;
}

export interface AuctionEvent {
  seq: number;
  ty: 'open' | 'bid' | 'raise' | 'pause' | 'resume' | 'extend' | 'held' | 'close' | 'stream';
  ct: number;
  ends_at: number;
  actor?: string | null;
  id?: string | null;
  price: number;
  leader?: string | null;
  h: string;
  amount?: number | null;
  cut_ms?: number | null;
  extended_ms?: number | null;
  left_ms?: number | null;
  until?: number | null;
  dms?: number | null;
  outcome?: Outcome | null;
  node?: number | null;
  stream?: string | null;
}

export interface Verdict {
  ok: boolean;
  code?: string | null;
  seq: number;
  price: number;
  least: number;
  leader?: string | null;
  phase: Phase;
  ct: number;
  ends_at?: number | null;
  h: string;
  dup: boolean;
}

export interface Problem {
  type?: string;
  title: string;
  status: number;
  detail?: string;
  code: string;
  ko?: string;
  verdict?: Verdict | null;
}

export interface ChatLine { chat_epoch: number; cseq: number; from: string; name: string; id: string; text: string }

export interface User { id: string; name: string; roles: string[] }

export interface ClusterNode { id: number; zone: string; region: string; http: string; alive: boolean; weight: number }
export interface ClusterShard {
  id: number;
  leader?: number | null;
  term?: number | null;
  replicas: number[];
  auctions_live: number;
  now?: number | null;
  held_total_ms?: number | null;
  role?: string | null;
  applied?: number | null;
}
export interface Cluster {
  me: number;
  demo: boolean;
  epoch: number;
  nodes: ClusterNode[];
  shards: ClusterShard[];
  streams: { auction: string; node: number; viewers: number }[];
}

/** What the server sends over the WebSocket. */
export type ServerMessage =
  | { t: 'hello'; node: number; region: string; user?: User | null; s: number; hears?: string[] }
  | { t: 'snap'; a: string; epoch: number; offset: number; auction: Auction; recent?: AuctionEvent[] }
  | { t: 'resumed'; a: string; epoch: number; offset: number }
  | { t: 'event'; a: string; event: AuctionEvent }
  | { t: 'changed'; a: string; auction: Auction }
  | { t: 'state'; a: string; price: number; least: number; leader?: string | null; ends_at: number; seq: number }
  | { t: 'clock'; a: string; now: number; ends_at?: number | null; s: number; err_ms: number; held: boolean }
  | { t: 'verdict'; a: string; id: string; verdict?: Verdict; problem?: Problem }
  | { t: 'chat'; a: string; chat: ChatLine }
  | { t: 'counts'; a: string; viewers: number }
  | { t: 'pong'; c: number; s: number }
  | { t: 'capture'; media: string; line?: { rtp: number; rate: number; s: number; legs_ms: number[] } }
  | { t: 'problem'; problem: Problem; a?: string; id?: string };

export type ClockMessage = Extract<ServerMessage, { t: 'clock' }>;
