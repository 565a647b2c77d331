// What a seller shows: the camera, a shared screen, and what happens when the browser doesn't allow it. Chromium's camera
// is its fake device (a moving picture with a sound); what it shares is real: the seller's own tab, without its dialog.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { hasVideo, startCluster } from './lib/cluster.mjs';
import * as b from './lib/browser.mjs';
import * as act from './lib/people.mjs';
import { withRoute } from './lib/route.mjs';

const FRAMES = 30;
const YES = '--use-fake-ui-for-media-stream';
const CAMERA = [YES, '--use-fake-device-for-media-stream'];
const SCREEN = [YES, '--use-fake-device-for-media-stream=display-media-type=browser'];
/** There is a camera, and the answer is no. */
const NO_CAMERA = ['--use-fake-device-for-media-stream', '--deny-permission-prompts'];
/** The answer is yes, and there is no screen to share: without a window there is none. */
const NO_SCREEN = [YES];
let cluster;

before(async () => { cluster = await startCluster('sources'); }, { timeout: 90_000 });
after(() => cluster?.stop());
afterEach((t) => b.wreckage(t));

const node = (id) => act.node(cluster, id);

/** Waits for so many more decoded frames, and for one in which not every pixel is the same. */
async function sees(viewer, frames) {
  const from = await b.frames(viewer.page);
  await viewer.page.waitForFunction((least) => document.querySelector('[data-testid=video]').getVideoPlaybackQuality().totalVideoFrames >= least, from + frames);
  await viewer.page.waitForFunction(() => {
    const video = document.querySelector('[data-testid=video]');
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [64, 36];
    const pen = canvas.getContext('2d', { willReadFrequently: true });
    pen.drawImage(video, 0, 0, 64, 36);
    const { data } = pen.getImageData(0, 0, 64, 36);
    const light = Array.from({ length: 64 * 36 }, (_, i) => data[4 * i] + data[4 * i + 1] + data[4 * i + 2]);
    return Math.max(...light) - Math.min(...light) > 60;
  });
  return viewer.page.evaluate(() => {
    const { videoWidth: width, videoHeight: height } = document.querySelector('[data-testid=video]');
    return { width, height };
  });
}

/** A seller goes live with a source, and a viewer in the other region decodes it. */
async function shows(t, source, media) {
  const chrome = await b.launch(media);
  try {
    const seller = await b.person(chrome, { width: 800, height: 600 });
    const viewer = await b.person(chrome);
    const auction = await act.create(cluster, seller, { title: `By ${source}`, seconds: 300 });
    await act.onAir(seller, source);
    const shared = await seller.page.evaluate(() => {
      const [track] = document.querySelector('.preview video').srcObject.getVideoTracks();
      return { label: track.label, surface: track.getSettings().displaySurface, state: track.readyState };
    });
    assert.equal(shared.state, 'live');
    assert.equal(shared.surface !== undefined, source === 'screen', 'a screen is a screen, a camera is none');
    await seller.page.click(b.at('start'));
    await viewer.page.goto(`${cluster.base(node(3))}/a/${auction.id}`);
    await viewer.page.waitForSelector(`${b.at('room')}[data-phase=live]`);
    const picture = await sees(viewer, FRAMES);
    t.diagnostic(`${source}: ${shared.label} (${shared.surface ?? 'camera'}), seen at ${picture.width}x${picture.height}`);
    await b.shot(viewer.page, `source-${source}-en-1280`);
    await b.shot(seller.page, `source-${source}-console-en-800`);
    // Off air is a choice of the seller's: the source is let go, and viewers are told.
    await seller.page.click('.air-tools .button.danger');
    await seller.page.waitForSelector(`${b.at('air')}[data-air=off]`);
    await seller.page.waitForSelector(`${b.at('console')}[data-stream=down]`);
    await viewer.page.waitForFunction(() => document.querySelector('.log-stream:not(:last-child)') !== null);
    for (const p of [seller, viewer]) assert.deepEqual(p.errors, []);
  } catch (error) {
    await b.wreckage(t);
    throw error;
  } finally {
    await chrome.close();
  }
}

const skip = !hasVideo && 'the stand-in has no pictures';

test('the camera', { timeout: 90_000, skip }, (t) => shows(t, 'camera', CAMERA));

test('a shared screen', { timeout: 90_000, skip }, (t) => shows(t, 'screen', SCREEN));

for (const [source, media] of [['camera', NO_CAMERA], ['screen', NO_SCREEN]]) {
  test(`without the ${source} the seller is told, and can take another source`, { timeout: 90_000, skip }, (t) => withRoute(async () => {
    const chrome = await b.launch(media);
    try {
      const seller = await b.person(chrome, { lang: 'ko', width: 390, height: 844 });
      await act.create(cluster, seller, { title: 'Denied', seconds: 60 });
      await seller.page.click(`[data-source=${source}]`);
      await seller.page.click(b.at('go-live'));
      await seller.page.waitForSelector(`${b.at('air')}[data-air=denied]`);
      assert.match(await seller.page.textContent('.air-state'), /권한/);
      await b.shot(seller.page, `source-no-${source}-ko-390`, { fullPage: true });
      await act.onAir(seller, 'test');
      assert.deepEqual(seller.errors, []);
    } catch (error) {
      await b.wreckage(t);
      throw error;
    } finally {
      await chrome.close();
    }
  }));
}

test('a viewer whose browser allows nothing sees the show', { timeout: 90_000, skip }, (t) => withRoute(async () => {
  const [asked, plain] = await Promise.all([b.launch(), b.launch([])]);
  try {
    const seller = await b.person(asked, { width: 800, height: 600 });
    const viewer = await b.person(plain);
    const auction = await act.create(cluster, seller, { title: 'For everybody', seconds: 300 });
    await act.onAir(seller);
    await seller.page.click(b.at('start'));
    await viewer.page.goto(`${cluster.base(node(3))}/a/${auction.id}`);
    await viewer.page.waitForSelector(`${b.at('room')}[data-phase=live]`);
    await sees(viewer, FRAMES);
    await act.pictureMoves(viewer, 'plain');
  } catch (error) {
    await b.wreckage(t);
    throw error;
  } finally {
    await Promise.all([asked.close(), plain.close()]);
  }
}));

test('a seller who changes their mind while the browser asks is not on air when it has asked', { timeout: 90_000, skip }, async (t) => {
  const chrome = await b.launch(SCREEN);
  try {
    const seller = await b.person(chrome, { width: 800, height: 600 });
    // The browser's question stays open until the test answers it.
    await seller.page.addInitScript(() => {
      const ask = navigator.mediaDevices.getDisplayMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getDisplayMedia = async (wish) => {
        await new Promise((answer) => { window.answer = answer; });
        window.shared = await ask(wish);
        return window.shared;
      };
    });
    await act.create(cluster, seller, { title: 'Second thoughts', seconds: 60 });
    await seller.page.click('[data-source=screen]');
    await seller.page.click(b.at('go-live'));
    await seller.page.waitForSelector(`${b.at('air')}[data-air=preparing]`);
    await seller.page.click('.air-tools .button.danger');
    await seller.page.waitForSelector(`${b.at('air')}[data-air=off]`);
    await seller.page.evaluate(() => window.answer());
    await seller.page.waitForFunction(() => window.shared?.getTracks().every((track) => track.readyState === 'ended'));
    assert.equal(await seller.page.getAttribute(b.at('air'), 'data-air'), 'off');
    await act.onAir(seller, 'test');
    assert.deepEqual(seller.errors, []);
  } catch (error) {
    await b.wreckage(t);
    throw error;
  } finally {
    await chrome.close();
  }
});
