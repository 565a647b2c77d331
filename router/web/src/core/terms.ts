/**
 * The published rules, worked out on the page, so that a bidder sees what a bid would do before it is made.
 * The same integer arithmetic as the shard's (multiplied before divided, rounded down); the shard's word counts.
 */
import type { Auction, Rush } from './types';

/** The increment at a price: the last row of the ladder that starts at or below it. */
export function increment(ladder: [number, number][], price: number): number {
  let step = 1;
  for (const [from, by] of ladder) if (from <= price) step = by;
  return step;
}

/** The least next bid. The first bid may be the start price itself. */
export function leastNext(auction: Pick<Auction, 'bids' | 'start_price' | 'increments' | 'price'>): number {
  return auction.bids === 0 ? auction.start_price : auction.price + increment(auction.increments, auction.price);
}

/** How much of `left` a raise from `price` to `next` cuts, in ms. */
export function rushCut(rush: Rush, price: number, next: number, left: number): number {
  if (next <= price) return 0;
  const raise = BigInt(next - price);
  const asked = (BigInt(rush.cut_per_raise_ppm) * raise) / BigInt(Math.max(price, 1));
  const most = BigInt(rush.cut_ppm_max);
  const whole = Math.floor(left);
  const cut = Number((BigInt(whole) * (asked < most ? asked : most)) / 1_000_000n);
  return whole - Math.max(whole - cut, Math.min(whole, rush.floor_ms));
}

/** 'A raise of 1 % cuts N % of the time left, at most M %.' */
export function rushWords(rush: Rush): { perPercent: number; most: number; floorS: number } {
  const round = (n: number) => Math.round(n * 100) / 100;
  return { perPercent: round(rush.cut_per_raise_ppm / 1_000_000), most: round(rush.cut_ppm_max / 10_000), floorS: round(rush.floor_ms / 1000) };
}
