// A page on a bad wire, in a real Chromium: what gets lost comes again in the stream that is for that (RFC 4588), once.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { hasVideo, startCluster } from './lib/cluster.mjs';
import * as b from './lib/browser.mjs';
import * as act from './lib/people.mjs';
import { through } from './lib/wire.mjs';

let cluster;
let chrome;

before(async () => { [chrome, cluster] = await Promise.all([b.launch(), startCluster('loss')]); }, { timeout: 90_000 });
afterEach((t) => b.wreckage(t));
after(async () => { await cluster?.stop(); await chrome?.close(); });

const LOST = 40;
/** Sendings of a packet beyond its first (sfu/forward/src/resend.rs). */
const TIMES_MAX = 4;

/** Of the page's own count: what came again, and how often it had to ask for a whole picture. */
const received = (page) => page.evaluate(async () => {
  for (const pc of window.__connections) {
    for (const row of (await pc.getStats()).values()) {
      if (row.type === 'inbound-rtp' && row.kind === 'video') {
        return { again: row.retransmittedPacketsReceived, whole: row.pliCount, asked: row.nackCount, frames: row.framesDecoded };
      }
    }
  }
  return null;
});

test('what a page loses comes again, in a stream of its own', { timeout: 120_000, skip: !hasVideo }, async (t) => {
  const seller = await b.person(chrome, { width: 800, height: 600 });
  const viewer = await b.person(chrome);
  await viewer.page.addInitScript(() => {
    window.__connections = [];
    window.RTCPeerConnection = class extends window.RTCPeerConnection {
      constructor(...given) {
        super(...given);
        window.__connections.push(this);
      }
    };
  });
  let count = 0;
  // Each tenth packet that goes out for the first time.
  const wire = await through(viewer, ({ ssrc }, { pairs }) => {
    if (ssrc !== pairs[0]?.first) return false;
    count += 1;
    return count % 10 === 0;
  });
  const auction = await act.create(cluster, seller, { title: 'Paper lamp', seconds: 120 });
  await act.onAir(seller);
  await seller.page.click(b.at('start'));
  await seller.page.waitForSelector(`${b.at('console')}[data-phase=live]`);
  await act.enter(cluster, viewer, act.node(cluster, 1), auction, 'Lea');
  await act.pictureMoves(viewer, 'over a bad wire');
  const [{ first, again }] = wire.pairs;
  while (wire.lost < LOST) await b.awaitCounterAbove(viewer.page, await b.counter(viewer.page) ?? 0);
  const counted = await received(viewer.page);
  t.diagnostic(`${wire.lost} of ${count} packets lost; the page got again ${counted.again}, asked ${counted.asked} times, for a whole picture ${counted.whole} times, decoded ${counted.frames} frames`);
  const numbers = wire.carried.get(first);
  assert.equal(new Set(numbers).size, numbers.length, 'no packet goes twice in the stream of first sendings');
  const resent = wire.carried.get(again) ?? [];
  assert.ok(resent.length >= LOST * 0.9, `${resent.length} sent again of ${wire.lost} lost`);
  assert.ok(resent.length <= wire.lost * TIMES_MAX, `${resent.length} sent again of ${wire.lost} lost: no packet for ever`);
  assert.ok(counted.again >= LOST * 0.8, `the page knows ${counted.again} as sent again`);
  assert.deepEqual(viewer.errors, []);
  wire.end();
  await Promise.all([seller, viewer].map((p) => p.context.close()));
});
