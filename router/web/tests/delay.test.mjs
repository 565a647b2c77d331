// Delay, whole: what the room's overlay tells of a picture, against the moment at which that picture was drawn. The seller
// goes live with the studio's test picture, which draws a number into each frame; the test writes down when. The viewer
// watches from the other region, so the way leads over two nodes. At the close the page tells how old its picture was.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { hasVideo, startCluster } from './lib/cluster.mjs';
import * as b from './lib/browser.mjs';
import * as act from './lib/people.mjs';

/** One a second. */
const SAMPLES = 40;
/** A frame and a refresh: from the drawing to the capture of what was drawn. */
const NEAR_MS = 40;
const SHARE = 0.95;
let cluster;
let chrome;

before(async () => {
  chrome = await b.launch();
  cluster = await startCluster('delay');
}, { timeout: 90_000 });
after(async () => {
  await chrome?.close();
  await cluster?.stop();
});
afterEach((t) => b.wreckage(t));

/** In the seller's page: when each frame's number was drawn, on the wall clock that pages of one machine share. */
function writeDownDrawings() {
  window.__drawn = {};
  const { fillText } = CanvasRenderingContext2D.prototype;
  CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
    const number = /^#(\d{6})$/.exec(text)?.[1];
    if (number !== undefined) window.__drawn[Number(number) & 0xffff] = performance.timeOrigin + performance.now();
    return fillText.call(this, text, ...rest);
  };
}

/** In the viewer's page: the number in each frame, by its RTP time, and each sample of the overlay. */
function writeDownFrames() {
  const video = document.querySelector('[data-testid=video]');
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [24, 1];
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  const number = () => {
    pen.drawImage(video, 0, 0, video.videoWidth, video.videoWidth / 24, 0, 0, 24, 1);
    const { data } = pen.getImageData(0, 0, 24, 1);
    const bits = Array.from({ length: 24 }, (_, i) => (data[4 * i] + data[4 * i + 1] + data[4 * i + 2] > 382 ? 1 : 0));
    const read = (from, n) => bits.slice(from, from + n).reduce((sum, bit) => sum * 2 + bit, 0);
    const c = read(4, 16);
    return read(0, 4) === 0b1010 && read(20, 4) === (((c >> 12) + (c >> 8) + (c >> 4) + c) & 15) ? c : undefined;
  };
  window.__frames = {};
  window.__samples = [];
  const next = (_, at) => {
    const drawn = number();
    if (drawn !== undefined) window.__frames[at.rtpTimestamp] = { drawn, shown: performance.timeOrigin + at.expectedDisplayTime };
    video.requestVideoFrameCallback(next);
  };
  video.requestVideoFrameCallback(next);
  const look = () => {
    const overlay = document.querySelector('[data-testid=delay]');
    const { rtp, sumMs, wholeMs } = overlay?.dataset ?? {};
    if (rtp === undefined || window.__samples.at(-1)?.rtp === rtp) return;
    const legs = Object.fromEntries([...overlay.querySelectorAll('[data-leg]')].map((leg) => [leg.dataset.leg, leg.textContent]));
    window.__samples.push({ rtp, sum: Number(sumMs), whole: Number(wholeMs), legs });
  };
  new MutationObserver(look).observe(document.querySelector('.video'), { subtree: true, childList: true, attributes: true, characterData: true });
}

test('the delay that is shown is the delay since the picture was drawn', { timeout: 240_000, skip: !hasVideo }, async (t) => {
  const seller = await b.person(chrome, { width: 800, height: 600 });
  const viewer = await b.person(chrome);
  await seller.page.addInitScript(writeDownDrawings);
  const told = [];
  viewer.page.on('websocket', (socket) => socket.on('framesent', ({ payload }) => {
    if (typeof payload === 'string' && payload.includes('"seen"')) told.push(JSON.parse(payload).legs);
  }));
  const auction = await act.create(cluster, seller, { title: 'Moon jar', seconds: 60 });
  await act.onAir(seller);
  await seller.page.click(b.at('start'));
  await act.enter(cluster, viewer, act.node(cluster, 3), auction, 'Dana');
  await b.awaitCounterAbove(viewer.page, 0);
  assert.equal(await viewer.page.$(b.at('delay')), null, 'it is off until asked for');
  await viewer.page.evaluate(writeDownFrames);
  await viewer.page.evaluate(() => document.activeElement?.blur());
  await viewer.page.keyboard.press('d');
  await viewer.page.waitForSelector(`${b.at('delay')}[data-rtp]`);
  await b.shot(viewer.page, 'delay-en-1280');
  await viewer.page.waitForFunction((n) => window.__samples.length >= n, SAMPLES, { timeout: 120_000 });

  const drawings = await seller.page.evaluate(() => window.__drawn);
  const { frames, samples } = await viewer.page.evaluate(() => ({ frames: window.__frames, samples: window.__samples }));
  const errors = samples.flatMap(({ rtp, sum }) => {
    const frame = frames[rtp];
    const drawn = frame && drawings[frame.drawn];
    return drawn === undefined ? [] : [sum - (frame.shown - drawn)];
  });
  const near = errors.filter((error) => Math.abs(error) <= NEAR_MS);
  const sorted = errors.toSorted((x, y) => x - y);
  t.diagnostic(`${errors.length} of ${samples.length} samples matched; error of the sum: ${[0, 0.05, 0.5, 0.95].map((q) => sorted[Math.floor(q * sorted.length)]?.toFixed(1)).join(' / ')} / ${sorted.at(-1)?.toFixed(1)} ms`);
  t.diagnostic(`the last one: ${JSON.stringify(samples.at(-1))}`);
  assert.ok(errors.length >= SAMPLES * SHARE, `${errors.length} samples have a number that was drawn`);
  assert.ok(near.length >= errors.length * SHARE, `${near.length} of ${errors.length} samples are within ${NEAR_MS} ms: ${errors.map(Math.round)}`);
  for (const { sum, whole } of samples) assert.ok(Math.abs(sum - whole) < 0.2, `the parts are the whole: ${sum}, ${whole}`);

  await viewer.page.click(b.at('delay-show'));
  await viewer.page.waitForSelector(b.at('delay'), { state: 'detached' });
  const end = viewer.page.locator(b.at('outcome'));
  await end.waitFor({ timeout: 60_000 });
  assert.equal(await end.getAttribute('data-outcome'), 'unsold');
  const hammer = told.find((legs) => legs.hammer !== undefined)?.hammer;
  t.diagnostic(`when the hammer fell the picture on screen was ${hammer} ms older`);
  assert.ok(hammer > -1_000 && hammer < 5_000, `what was on screen at the hammer: ${hammer}`);
  assert.deepEqual([viewer.errors, seller.errors], [[], []]);
  await Promise.all([seller, viewer].map((p) => p.context.close()));
});
