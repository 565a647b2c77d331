// Each page in both languages and both widths: it renders without an error, nothing runs off the side, a bid can be made
// by keyboard alone, and a picture of it is kept in artifacts/.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { hasVideo, startCluster } from './lib/cluster.mjs';
import * as b from './lib/browser.mjs';

let cluster;
let chrome;
let seller;
let session;
const ids = {};
const base = () => cluster.base(cluster.nodes()[0]);
const api = (path, options) => cluster.api(cluster.nodes()[0], path, options);

before(async () => {
  cluster = await startCluster('pages');
  chrome = await b.launch();
  await seed();
}, { timeout: 120_000 });
after(async () => {
  await chrome?.close();
  await cluster?.stop();
});

afterEach((t) => b.wreckage(t));

const post = (path, body, token) => api(path, {
  method: 'POST', body: JSON.stringify(body), headers: { 'Content-Type': 'application/json', 'Idempotency-Key': `k${Math.random().toString(36).slice(2)}`, ...(token && { Authorization: `Bearer ${token}` }) },
});

/** The page is the seller's from its first load. */
const signedIn = (page) => page.addInitScript((kept) => localStorage.setItem('rushroom.session.seller', kept), session);

/** A seller with one auction of each phase, and the first of them on air from a browser. */
async function seed() {
  const { token, ...rest } = await post('/api/v1/auth/guest', { name: 'Sora', role: 'seller' });
  const rush = { cut_ppm_max: 200_000, cut_per_raise_ppm: 300_000, floor_ms: 10_000 };
  const make = (over) => post('/api/v1/auctions', { currency: 'KRW', start_price: 10_000, increments: [[0, 1_000]], duration_ms: 900_000, guests: true, rush, ...over }, token);
  const vase = await make({ title: '청자 상감 매병 · Celadon vase', description: 'Hand-thrown in Icheon. Height 32 cm, no chips.\n이천에서 빚은 청자입니다. 높이 32 cm, 상태 좋음.' });
  const lens = await make({ title: 'Summicron 50 mm f/2, 1969', currency: 'USD', start_price: 25_000, increments: [[0, 500]] });
  const tea = await make({ title: '백자 다기 세트 5인용' });
  const book = await make({ title: '초판본 시집, 1948' });
  for (const a of [vase, lens, book]) await post(`/api/v1/auctions/${a.id}/start`, {}, token);
  await post(`/api/v1/auctions/${tea.id}/schedule`, { start_at_ms: Date.now() + 3_600_000 }, token);
  await post(`/api/v1/auctions/${book.id}/cancel`, { reason: 'Found a torn page' }, token);
  Object.assign(ids, { vase: vase.id, lens: lens.id, book: book.id, tea: tea.id });
  session = JSON.stringify({ token, ...rest });
  seller = await b.person(chrome);
  await signedIn(seller.page);
  await seller.page.goto(`${base()}/studio/${vase.id}`);
  await seller.page.click('[data-source=test]');
  await seller.page.click(b.at('go-live'));
  if (hasVideo) await seller.page.waitForSelector(`${b.at('air')}[data-air=live]`);
}

async function noOverflow(page, what) {
  const [wide, view] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  assert.ok(wide <= view, `${what} is ${wide} px wide in a window of ${view}`);
}

for (const lang of ['ko', 'en']) {
  for (const [width, height] of [[1280, 800], [390, 844]]) {
    test(`pages, ${lang}, ${width} px`, { timeout: 120_000 }, async () => {
      const who = await b.person(chrome, { lang, width, height });
      const { page } = who;
      const look = async (name, options) => {
        await noOverflow(page, name);
        await b.shot(page, `${name}-${lang}-${width}`, options);
      };
      await page.goto(`${base()}/`);
      await page.waitForSelector(`a[href="/a/${ids.vase}"]`);
      assert.equal(await page.getAttribute('html', 'lang'), lang);
      await look('list', { fullPage: true });

      await page.click(`a[href="/a/${ids.vase}"]`);
      await page.waitForSelector(`${b.at('room')}[data-phase=live]`);
      if (hasVideo) await b.awaitCounterAbove(page, 0);
      await look('room-guest');
      await b.signIn(page, 'bidder', lang === 'ko' ? 'Haneul' : 'Jonas');
      await page.waitForSelector(`${b.at('bid-now')}:not([disabled])`);
      const amount = Number(await page.getAttribute(b.at('bid-now'), 'data-minor'));
      await page.focus(b.at('bid-now'));
      await page.keyboard.press('Enter');
      await b.awaitPrice(page, amount);
      await page.waitForSelector('.leader.you');
      await page.fill('#chat-text', lang === 'ko' ? '색이 정말 곱네요!' : 'What a lovely glaze!');
      await page.keyboard.press('Enter');
      await page.waitForSelector(`${b.at('chat')} li.mine`);
      await look('room', { fullPage: true });

      await page.goto(`${base()}/a/${ids.book}`);
      await page.waitForSelector(b.at('outcome'));
      await look('room-closed');
      await page.goto(`${base()}/studio`);
      await b.signIn(page, 'seller', 'Narae');
      await page.waitForSelector('#f-title');
      await page.click('form.form button[type=submit]');
      await page.waitForSelector('#e-title');
      await look('studio', { fullPage: true });
      await page.goto(`${base()}/cluster`);
      await page.waitForSelector('[data-node]');
      await look('cluster', { fullPage: true });
      await page.goto(`${base()}/a/no-such-auction`);
      await page.waitForSelector('.sorry');
      await look('missing');
      await signedIn(page);
      await page.goto(`${base()}/studio/${ids.tea}`);
      await page.waitForSelector(b.at('start'));
      await look('console-before', { fullPage: true });
      await page.goto(`${base()}/studio/${ids.book}`);
      await page.waitForSelector(`${b.at('console')} ${b.at('outcome')}`);
      await look('console-closed', { fullPage: true });
      assert.deepEqual(who.errors, []);
      await who.context.close();

      await seller.page.setViewportSize({ width, height });
      await seller.page.click(`.langs button[lang=${lang}]`);
      await noOverflow(seller.page, 'console');
      await b.shot(seller.page, `console-${lang}-${width}`, { fullPage: true });
    });
  }
}

test('bad amounts are refused before they are sent, and a language is remembered', { timeout: 60_000 }, async () => {
  const { page, context } = await b.person(chrome, { lang: 'ko' });
  await page.goto(`${base()}/a/${ids.lens}`);
  await page.waitForSelector(`${b.at('room')}[data-phase=live]`);
  await b.signIn(page, 'bidder', 'Bora');
  for (const bad of ['', 'abc', '-5', '1.234', '1', '99999999999999999999']) {
    await page.fill('#amount', bad);
    await page.press('#amount', 'Enter');
    await page.waitForSelector('#amount-error');
  }
  assert.equal(await b.price(page), 25_000);
  await page.click('.langs button[lang=en]');
  await page.reload();
  await page.waitForSelector('html[lang=en]');
  await context.close();
});

test('a held clock freezes the number and says why; a lost line comes back without a reload', { timeout: 60_000 }, async () => {
  const { page, context, loads, errors } = await b.person(chrome);
  let hold = false;
  let server;
  let line;
  let held;
  let onHeld;
  // Between the page and the edge: everything passes, but while `hold` is set the clock stands.
  await page.routeWebSocket(/\/ws$/, (ws) => {
    line = ws;
    server = ws.connectToServer();
    server.onMessage((text) => {
      const message = JSON.parse(String(text));
      if (message.t === 'clock' && hold) {
        held ??= message;
        ws.send(JSON.stringify({ ...held, held: true }));
        onHeld();
      } else ws.send(text);
    });
  });
  await page.goto(`${base()}/a/${ids.vase}`);
  await page.waitForSelector(`${b.at('room')}[data-phase=live]`);
  await page.waitForFunction(() => document.querySelector('[data-testid=countdown] span')?.dataset.leftMs !== undefined);
  const frames = (n) => page.evaluate((count) => new Promise((done) => { let i = 0; const step = () => ((i += 1) > count ? done() : requestAnimationFrame(step)); step(); }), n);
  // The real clock may be held by itself on a busy machine: what counts begins with our own message.
  const passed = new Promise((resolve) => { onHeld = resolve; });
  hold = true;
  await passed;
  await page.waitForSelector('.held-note');
  await frames(5);
  const frozen = await b.drawn(page);
  await frames(20);
  assert.equal(await b.drawn(page), frozen);
  await b.shot(page, 'room-held-en-1280');
  hold = false;
  await page.waitForSelector('.held-note', { state: 'detached' });
  assert.notEqual(await b.drawn(page), frozen);

  const seq = Number(await page.getAttribute(b.at('room'), 'data-seq'));
  await server.close();
  await line.close({ code: 4503 });
  await page.waitForSelector(`${b.at('link')}[data-link=retrying]`);
  await page.waitForSelector(`${b.at('link')}[data-link=open]`);
  await b.signIn(page, 'bidder', 'Resume');
  const button = page.locator(`${b.at('bid-now')}:not([disabled])`);
  const amount = Number(await button.getAttribute('data-minor'));
  await button.click();
  await page.waitForSelector('.leader.you');
  await b.awaitPrice(page, amount);
  assert.ok(Number(await page.getAttribute(b.at('room'), 'data-seq')) > seq);
  assert.equal(loads(), 1);
  assert.deepEqual(errors, []);
  await context.close();
});

test('a bid whose answer is lost is asked about again under its own id, and counts once', { timeout: 60_000 }, async () => {
  const { page, context, errors } = await b.person(chrome);
  const sent = [];
  let swallow = true;
  await page.routeWebSocket(/\/ws$/, (ws) => {
    const server = ws.connectToServer();
    ws.onMessage((text) => {
      const message = JSON.parse(String(text));
      if (message.t === 'bid') sent.push(message);
      server.send(text);
    });
    server.onMessage((text) => {
      const message = JSON.parse(String(text));
      // The first verdict never arrives: the line breaks instead.
      if (message.t === 'verdict' && swallow) {
        swallow = false;
        void server.close().then(() => ws.close({ code: 4503 }));
      } else ws.send(text);
    });
  });
  await page.goto(`${base()}/a/${ids.lens}`);
  await page.waitForSelector(`${b.at('room')}[data-phase=live]`);
  await b.signIn(page, 'bidder', 'Once');
  const seen = [];
  await page.exposeFunction('noteStatus', (text) => seen.push(text));
  await page.evaluate(() => new MutationObserver(() => {
    const line = document.querySelector('[data-testid=bid-status] span');
    if (line) window.noteStatus(line.className);
  }).observe(document.querySelector('.desk'), { subtree: true, childList: true, characterData: true, attributes: true }));
  const button = page.locator(`${b.at('bid-now')}:not([disabled])`);
  const amount = Number(await button.getAttribute('data-minor'));
  await button.click();
  await page.waitForSelector('.bid-status .accepted');
  await b.awaitPrice(page, amount);
  assert.ok(sent.length >= 2, 'it was sent again');
  assert.deepEqual(new Set(sent.map((m) => m.id)).size, 1);
  assert.deepEqual(seen.filter((c) => c === 'refused'), []);
  const mine = page.locator(`${b.at('log')} li.mine`);
  assert.equal(await mine.count(), 1);
  assert.deepEqual(errors, []);
  await context.close();
});
