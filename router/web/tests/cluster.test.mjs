// The cluster page against a real cluster: its button ends a node's process, the page shows it, bidding goes on, and the
// demo brings the node back. Then the node that served the page is stopped from that very page.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, afterEach, before, test } from 'node:test';
import { isMock, startCluster } from './lib/cluster.mjs';
import * as b from './lib/browser.mjs';
import * as act from './lib/people.mjs';

let cluster;
let chrome;

before(async () => {
  cluster = await startCluster('cluster');
  chrome = await b.launch();
}, { timeout: 90_000 });
after(async () => {
  await chrome?.close();
  await cluster?.stop();
});
afterEach((t) => b.wreckage(t));

const node = (id) => act.node(cluster, id);
const card = (id, alive) => `[data-node="${id}"][data-alive=${alive}]`;

/** Whether a process runs. One that has ended and whose parent hasn't asked about it yet (a zombie) doesn't. */
function runs(pid) {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** Taps 'stop this node' and then, asked whether to, yes. */
async function stop(page, id) {
  const own = page.locator(`[data-node="${id}"]`);
  await own.locator('.ghost-danger').click();
  const ask = own.locator('[role=alertdialog]');
  await ask.waitFor();
  await ask.locator('.button.danger').click();
  await ask.waitFor({ state: 'detached' });
}

test('a node is stopped from the cluster page, and bidding goes on', { timeout: 180_000, skip: isMock && 'the stand-in has no processes' }, async (t) => {
  const leader = 2;
  const seller = await b.person(chrome, { width: 800, height: 600 });
  const bidder = await b.person(chrome);
  const operator = await b.person(chrome, { width: 1280, height: 800 });
  const { page } = operator;
  const auction = await act.createLedBy(cluster, seller, leader, { title: 'Tea bowl', seconds: 300 });
  await seller.page.click(b.at('start'));
  await act.enter(cluster, bidder, node(3), auction, 'Mina');
  await act.everyoneSees([bidder, seller], await act.tap(bidder));
  await page.goto(`${cluster.base(node(1))}/cluster`);
  for (const id of [1, 2, 3]) await page.waitForSelector(card(id, true));
  await page.waitForSelector(`[data-shard="${auction.shard}"][data-leader="${leader}"]`);

  // Asked first; 'no' stops nothing.
  const { pid } = node(leader);
  await page.locator(`[data-node="${leader}"] .ghost-danger`).click();
  await b.shot(page, 'cluster-ask-en-1280', { fullPage: true });
  await page.keyboard.press('Escape');
  await page.waitForSelector('[role=alertdialog]', { state: 'detached' });
  assert.ok(runs(pid), 'nothing was stopped by asking');

  await stop(page, leader);
  const stopped = performance.now();
  const since = () => `${(performance.now() - stopped).toFixed(0)} ms`;
  await page.waitForSelector(card(leader, false));
  t.diagnostic(`shown as down after ${since()}`);
  assert.ok(!runs(pid), 'its process is gone');
  await page.waitForSelector(`[data-shard="${auction.shard}"]:not([data-leader="${leader}"]):not([data-leader=""])`);
  t.diagnostic(`another leader shown after ${since()}`);
  await b.shot(page, 'cluster-down-en-1280', { fullPage: true });
  const rival = await b.person(chrome, { lang: 'ko', width: 390, height: 844 });
  await act.enter(cluster, rival, node(1), auction, 'Tom');
  for (const who of [rival, bidder]) await act.everyoneSees([bidder, rival, seller], await act.tap(who));
  t.diagnostic(`two more bids after ${since()}`);

  // The demo starts it again; the page shows it without a reload.
  await page.waitForSelector(card(leader, true), { timeout: 60_000 });
  t.diagnostic(`back after ${since()}`);
  // The page hears of the node from its peers, which may be before the demo has written down the process.
  const again = await cluster.restarted(leader, pid);
  assert.ok(again !== pid && runs(again), 'as another process');

  // The page that stops the node it came from goes on at another.
  const own = node(1).pid;
  await stop(page, 1);
  await page.waitForSelector(card(1, false));
  assert.ok(!runs(own));
  await act.everyoneSees([bidder, rival, seller], await act.tap(rival));
  await page.waitForSelector(card(1, true), { timeout: 60_000 });
  assert.equal(operator.loads(), 1, 'the page was not loaded again');
  for (const p of [seller, bidder, rival, operator]) assert.deepEqual(p.errors, []);
  await Promise.all([seller, bidder, rival, operator].map((p) => p.context.close()));
});
