// What people do in a show: a seller makes an auction and goes on air, bidders come in and bid, all of them look.
import assert from 'node:assert/strict';
import { hasVideo, isMock } from './cluster.mjs';
import * as b from './browser.mjs';

export const node = (cluster, id) => cluster.nodes().find((n) => n.id === id);
const shardOf = async (cluster, id) => (await cluster.api(node(cluster, 1), '/api/v1/cluster')).shards.find((s) => s.id === id);

/** Fills in the studio's form and creates the auction; gives it as the API has it. */
export async function create(cluster, seller, { title, seconds }) {
  await seller.page.goto(`${cluster.base(node(cluster, 1))}/studio`);
  await seller.page.waitForSelector('#f-title, #signin-seller');
  if (await seller.page.$('#signin-seller')) await b.signIn(seller.page, 'seller', 'Sora');
  await seller.page.fill('#f-title', title);
  await seller.page.selectOption('#f-currency', 'KRW');
  await seller.page.selectOption('#f-duration', String(seconds * 1000));
  await seller.page.fill('#f-start', '10,000');
  await seller.page.fill('#f-step', '1000');
  await seller.page.check('input[name=preset][value=rush]');
  await seller.page.click('form.form button[type=submit]');
  await seller.page.waitForSelector(b.at('console'));
  const id = new URL(seller.page.url()).pathname.split('/').at(-1);
  return cluster.api(node(cluster, 1), `/api/v1/auctions/${id}`);
}

/** An auction whose shard is led by `leader`, and prefers to be (else it would soon be led from there, and elsewhere
 *  after a while): the id decides, so new ones are made until one falls there. */
export async function createLedBy(cluster, seller, leader, options) {
  for (let i = 0; i < 24; i += 1) {
    const auction = await create(cluster, seller, options);
    if (isMock) return auction;
    const shard = await shardOf(cluster, auction.shard);
    if (shard?.leader === leader && shard.replicas[0] === leader) return auction;
  }
  throw new Error(`24 auctions and none led by node ${leader}`);
}

/** On air with a source of the studio: `test`, `camera` or `screen`. */
export async function onAir(seller, source = 'test') {
  await seller.page.click(`[data-source=${source}]`);
  await seller.page.click(b.at('go-live'));
  if (hasVideo) await seller.page.waitForSelector(`${b.at('air')}[data-air=live]`);
}

/** Into a room at the node `where`, signed in as a bidder. */
export async function enter(cluster, viewer, where, auction, name) {
  await viewer.page.goto(`${cluster.base(where)}/a/${auction.id}`);
  await viewer.page.waitForSelector(`${b.at('room')}[data-phase=live]`);
  await b.signIn(viewer.page, 'bidder', name);
  await viewer.page.waitForSelector(b.at('bid-now'));
  await viewer.page.waitForSelector(`${b.at('link')}[data-link=open]`);
}

/** One tap on 'bid the next amount'; gives the amount. */
export async function tap(viewer) {
  const button = viewer.page.locator(`${b.at('bid-now')}:not([disabled])`);
  await button.waitFor();
  const amount = Number(await button.getAttribute('data-minor'));
  await button.click();
  return amount;
}

/** An amount of one's own, typed. */
export async function custom(viewer, amount) {
  await viewer.page.locator(`${b.at('bid-now')}:not([disabled])`).waitFor();
  await viewer.page.fill('#amount', String(amount));
  await viewer.page.press('#amount', 'Enter');
  return amount;
}

export const everyoneSees = (people, amount) => Promise.all(people.map((p) => b.awaitPrice(p.page, amount)));

/** The end as each page tells it: outcome, winner, price, and its headline. */
export async function outcomes(people) {
  return Promise.all(people.map(async ({ page }) => {
    const told = page.locator(b.at('outcome'));
    await told.waitFor({ timeout: 60_000 });
    return {
      outcome: await told.getAttribute('data-outcome'),
      winner: await told.getAttribute('data-winner'),
      price: Number(await told.locator(b.at('price')).getAttribute('data-minor')),
      headline: await told.locator('h2').textContent(),
    };
  }));
}

/** Frames are decoded and the counter that is drawn in them goes up. */
export async function pictureMoves(viewer, what) {
  const before = await b.frames(viewer.page);
  const first = await b.awaitCounterAbove(viewer.page, 0);
  const next = await b.awaitCounterAbove(viewer.page, first);
  const now = await b.frames(viewer.page);
  assert.ok(now > before, `${what}: decoded frames grow (${before} to ${now})`);
  return { first, next, frames: now };
}
