// The whole show in a real Chromium, against a real cluster of three processes in two regions: a seller goes live from
// the studio, two people watch and bid against each other from different regions, the node that leads the auction's
// shard is killed while they do, and one wins. Then the node that served a watching page is killed as well.
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { hasVideo, startCluster } from './lib/cluster.mjs';
import * as b from './lib/browser.mjs';
import { biggestJump, sameCountdown } from './lib/countdown.mjs';
import * as act from './lib/people.mjs';

let cluster;
let chrome;

before(async () => { chrome = await b.launch(); });
after(() => chrome?.close());
// Each test kills a node, so each has a cluster of its own.
beforeEach(async (t) => { cluster = await startCluster(t.name.startsWith('a show') ? 'show' : 'outlive'); }, { timeout: 90_000 });
afterEach(async (t) => {
  await b.wreckage(t);
  await cluster?.stop();
});

const node = (id) => act.node(cluster, id);
const { custom, everyoneSees, onAir, pictureMoves, tap } = act;
const enter = (viewer, where, auction, name) => act.enter(cluster, viewer, where, auction, name);

test('a show from the first frame to the winner, through the death of the leader', { timeout: 240_000 }, async (t) => {
  // Small windows: what software paints here is time that the cluster beside it doesn't have.
  const seller = await b.person(chrome, { width: 800, height: 600 });
  const mina = await b.person(chrome, { lang: 'ko' });
  const tom = await b.person(chrome, { lang: 'en', width: 390, height: 844 });
  const all = [seller, mina, tom];
  const auction = await act.createLedBy(cluster, seller, 2, { title: 'Celadon vase', seconds: 120 });
  const leader = 2;

  await onAir(seller);
  await seller.page.click(b.at('start'));
  await seller.page.waitForSelector(`${b.at('console')}[data-phase=live]`);
  await enter(mina, node(1), auction, 'Mina');
  await enter(tom, node(3), auction, 'Tom');
  t.diagnostic(`auction ${auction.id}, shard ${auction.shard}, leader ${leader}; viewers at 1 (${node(1).region}) and 3 (${node(3).region})`);

  if (hasVideo) {
    for (const [who, viewer] of [['near', mina], ['far', tom]]) {
      const seen = await pictureMoves(viewer, who);
      t.diagnostic(`${who}: ${seen.frames} frames decoded, counter ${seen.first} then ${seen.next}`);
    }
  }

  await Promise.all([b.recordCountdown(mina.page), b.recordCountdown(tom.page)]);
  const first = await tap(mina);
  assert.equal(first, 10_000);
  await Promise.all(all.map((p) => p.page.waitForSelector('[data-bids="1"]')));
  await everyoneSees(all, first);
  // The chip stays for seconds only, so it is awaited from before the bid.
  const chip = (p) => p.page.waitForSelector(`${b.at('cut-chip')}.cut`);
  const chips = Promise.all([chip(tom), chip(mina).then(() => b.shot(mina.page, 'show-room-cut-ko-1280'))]);
  const second = await custom(tom, 13_000);
  await everyoneSees(all, second);
  await chips;
  assert.equal(await b.price(mina.page), await b.price(tom.page));
  // A raise of 30 % cuts 30 % of about two minutes.
  for (const viewer of [mina, tom]) {
    const jump = biggestJump(await b.recorded(viewer.page));
    assert.ok(jump > 15_000, `the number jumps by the cut (${jump.toFixed(0)} ms)`);
  }
  const before = await sameCountdown(mina, tom);
  t.diagnostic(`countdowns at most ${before.worst.toFixed(1)} ms apart at ${before.instants} instants`);

  await cluster.kill(node(leader));
  const killed = performance.now();
  const third = await tap(mina);
  await everyoneSees([mina, tom], third);
  t.diagnostic(`bid tapped right after the kill was seen by both after ${(performance.now() - killed).toFixed(0)} ms`);
  const fourth = await tap(tom);
  await everyoneSees(all, fourth);
  const again = await sameCountdown(mina, tom);
  t.diagnostic(`after the kill: countdowns at most ${again.worst.toFixed(1)} ms apart at ${again.instants} instants`);
  if (hasVideo) {
    const at = await b.counter(mina.page);
    await Promise.all([mina, tom].map((p) => b.awaitCounterAbove(p.page, at ?? 0)));
  }

  // Big raises cut the rest down to the floor of 10 s, so that the end is near.
  let amount = fourth;
  for (const viewer of [mina, tom, mina]) {
    amount = await custom(viewer, amount * 2);
    await everyoneSees(all, amount);
  }
  // The winner is shown to all: the one who won, the one who didn't, and the seller.
  const ends = await act.outcomes(all);
  for (const { outcome, winner, price } of ends) {
    assert.deepEqual({ outcome, price }, { outcome: 'sold', price: amount });
    assert.match(winner, /^guest-mina-/);
    assert.equal(winner, ends[0].winner);
  }
  const [sold, won, lost] = ends.map((end) => end.headline);
  assert.match(sold, /Mina/);
  assert.match(won, /낙찰/);
  assert.match(lost, /Mina/);
  await seller.page.waitForSelector(`${b.at('console')}[data-phase=closed]`);
  const record = await cluster.api(node(1), `/api/v1/auctions/${auction.id}`);
  assert.deepEqual([record.leader, record.price], [ends[0].winner, amount], 'as the shard has it');
  await b.shot(seller.page, 'show-sold-seller-en-800');
  await b.shot(mina.page, 'show-won-ko-1280');
  await b.shot(tom.page, 'show-sold-en-390');
  for (const p of all) assert.deepEqual(p.errors, []);
  assert.deepEqual([mina.loads(), tom.loads()], [1, 1], 'no page was loaded again');
  await Promise.all(all.map((p) => p.context.close()));
});

test('a page outlives the node that served it', { timeout: 180_000 }, async (t) => {
  const victim = 3;
  const seller = await b.person(chrome);
  const far = await b.person(chrome, { lang: 'en', width: 390, height: 844 });
  const auction = await act.create(cluster, seller, { title: 'Moon jar', seconds: 120 });
  await onAir(seller);
  await seller.page.click(b.at('start'));
  await enter(far, node(victim), auction, 'Faye');
  if (hasVideo) await pictureMoves(far, 'before');
  await cluster.kill(node(victim));
  const killed = performance.now();
  await far.page.waitForFunction((dead) => {
    const link = document.querySelector('[data-testid=link]');
    return link?.dataset.link === 'open' && link.dataset.node !== String(dead);
  }, victim);
  t.diagnostic(`the page was back at another node after ${(performance.now() - killed).toFixed(0)} ms`);
  const amount = await tap(far);
  await everyoneSees([far, seller], amount);
  if (hasVideo) {
    const seen = await b.counter(far.page);
    await b.awaitCounterAbove(far.page, seen ?? 0);
    t.diagnostic(`pictures moved again after ${(performance.now() - killed).toFixed(0)} ms`);
  }
  assert.equal(far.loads(), 1);
  assert.deepEqual(far.errors, []);
  await Promise.all([seller, far].map((p) => p.context.close()));
});
