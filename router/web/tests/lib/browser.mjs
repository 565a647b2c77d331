// Chromium for the tests, and what a test wants to know of a page: the price it shows, the countdown it draws, the
// counter in the picture that it decodes.
import { chromium } from 'playwright-core';
import { join } from 'node:path';
import { ARTIFACTS } from './cluster.mjs';

/** `media`: how the browser answers when a page asks for a camera or a screen. */
export async function launch(media = ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream']) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
      '--disable-background-timer-throttling', '--disable-renderer-backgrounding', '--disable-backgrounding-occluded-windows',
      '--allow-loopback-in-peer-connection', '--autoplay-policy=no-user-gesture-required', ...media],
  });
}

const people = new Set();

/** After a test that failed: what everybody's page showed, as pictures and words. */
export async function wreckage(test) {
  if (test.passed) return;
  const slug = test.name.replace(/[^a-z0-9]+/gi, '-').slice(0, 40);
  for (const [i, page] of [...people].entries()) {
    if (page.isClosed()) continue;
    await page.screenshot({ path: join(ARTIFACTS, `failed-${slug}-${i}.png`) }).catch(() => undefined);
    const words = await page.evaluate(() => ({ at: location.pathname, room: { ...document.querySelector('[data-testid=room],[data-testid=console]')?.dataset }, link: { ...document.querySelector('[data-testid=link]')?.dataset },
      status: document.querySelector('[data-testid=bid-status]')?.textContent, log: document.querySelector('[data-testid=log]')?.innerText })).catch(() => undefined);
    console.error(`page ${i}:`, JSON.stringify(words));
  }
}

/** A person: a context of their own (storage, language), one page; its errors are collected. */
export async function person(browser, { lang = 'en', width = 1280, height = 800 } = {}) {
  const context = await browser.newContext({ locale: lang === 'ko' ? 'ko-KR' : 'en-US', viewport: { width, height } });
  const page = await context.newPage();
  people.add(page);
  page.on('close', () => people.delete(page));
  const errors = [];
  page.on('pageerror', (error) => errors.push(error.message));
  let loads = 0;
  page.on('load', () => { loads += 1; });
  page.setDefaultTimeout(20_000);
  return { context, page, errors, loads: () => loads };
}

export async function signIn(page, hat, name) {
  await page.fill(`#signin-${hat}`, name);
  await page.click('.signin button[type=submit]');
}

export const at = (id) => `[data-testid=${id}]`;

export async function price(page) {
  return Number(await page.getAttribute(at('price'), 'data-minor'));
}

export async function awaitPrice(page, minor) {
  await page.waitForSelector(`${at('price')}[data-minor="${minor}"]`);
}

/**
 * Writes down every number that the countdown draws from now on: `[wall time, left, held]`, taken right after the page
 * wrote it (pages on one machine share the wall time). A number that is drawn again unchanged is written down as well.
 */
export async function recordCountdown(page) {
  await page.evaluate(() => {
    window.__drawn = [];
    window.__recorder?.disconnect();
    window.__recorder = new MutationObserver((changes) => {
      const span = changes.at(-1).target;
      if (!span.closest('[data-testid=countdown]') || span.dataset.leftMs === undefined) return;
      window.__drawn.push([performance.timeOrigin + performance.now(), Number(span.dataset.leftMs), span.dataset.held === 'true']);
    });
    window.__recorder.observe(document.body, { subtree: true, attributes: true, attributeFilter: ['data-left-ms'] });
  });
}
export const recorded = (page) => page.evaluate(() => window.__drawn);

/** The number as drawn last. */
export async function drawn(page) {
  return page.evaluate(() => new Promise((resolve) => {
    requestAnimationFrame(() => queueMicrotask(() => resolve(Number(document.querySelector('[data-testid=countdown] span')?.dataset.leftMs))));
  }));
}

/** Decoded frames of the page's video, counted by the browser. */
export async function frames(page) {
  return page.evaluate(() => document.querySelector('[data-testid=video]').getVideoPlaybackQuality().totalVideoFrames);
}

/** The counter drawn in the newest decoded frame (src/core/blocks.ts tells the form), or null if it can't be read. */
export async function counter(page) {
  return page.evaluate(() => {
    const video = document.querySelector('[data-testid=video]');
    if (!video.videoWidth) return null;
    const canvas = document.createElement('canvas');
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    const pen = canvas.getContext('2d', { willReadFrequently: true });
    pen.drawImage(video, 0, 0);
    const size = canvas.width / 24;
    const bits = Array.from({ length: 24 }, (_, i) => {
      const [r, g, b] = pen.getImageData(Math.floor((i + 0.5) * size), Math.floor(size / 2), 1, 1).data;
      return (r + g + b) / 3 > 127 ? 1 : 0;
    });
    const read = (from, n) => bits.slice(from, from + n).reduce((sum, bit) => sum * 2 + bit, 0);
    const c = read(4, 16);
    return read(0, 4) === 0b1010 && read(20, 4) === (((c >> 12) + (c >> 8) + (c >> 4) + c) & 15) ? c : null;
  });
}

export async function awaitCounterAbove(page, least) {
  const started = Date.now();
  for (;;) {
    const c = await counter(page);
    if (c !== null && c > least) return c;
    if (Date.now() - started > 30_000) throw new Error(`no counter above ${least} was read (last: ${c})`);
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(done)));
  }
}

export async function shot(page, name, options = {}) {
  await page.evaluate(() => window.scrollTo(0, 0));
  await page.screenshot({ path: join(ARTIFACTS, `${name}.png`), ...options });
}
