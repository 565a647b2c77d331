// Video for the stand-in: a hidden Chromium takes the seller's tracks by WHIP and hands them to viewers by WHEP. Enough
// to see pictures while working on the pages; what it does to them (it decodes and encodes again) is of no matter here.
import { chromium } from 'playwright-core';

export async function mockSfu() {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--allow-loopback-in-peer-connection', '--disable-features=WebRtcHideLocalIpsWithMdns'] });
  const page = await browser.newPage();
  await page.goto('about:blank');
  await page.evaluate(() => {
    const streams = new Map();
    const gathered = async (pc) => {
      await pc.setLocalDescription();
      if (pc.iceGatheringState !== 'complete') await new Promise((done) => { pc.onicegatheringstatechange = () => pc.iceGatheringState === 'complete' && done(); setTimeout(done, 800); });
      return pc.localDescription.sdp;
    };
    window.sfu = {
      async whip(auction, sdp) {
        const pc = new RTCPeerConnection();
        const tracks = new Map();
        pc.ontrack = ({ track }) => tracks.set(track.kind, track);
        await pc.setRemoteDescription({ type: 'offer', sdp });
        streams.set(auction, tracks);
        return gathered(pc);
      },
      async whep(auction, sdp) {
        const pc = new RTCPeerConnection();
        await pc.setRemoteDescription({ type: 'offer', sdp });
        for (const transceiver of pc.getTransceivers()) {
          const track = streams.get(auction)?.get(transceiver.receiver.track.kind);
          transceiver.direction = track ? 'sendonly' : 'inactive';
          if (track) await transceiver.sender.replaceTrack(track);
        }
        return gathered(pc);
      },
    };
  });
  return {
    whip: (auction, sdp) => page.evaluate(([a, s]) => window.sfu.whip(a, s), [auction, sdp]),
    whep: (auction, sdp) => page.evaluate(([a, s]) => window.sfu.whep(a, s), [auction, sdp]),
  };
}
