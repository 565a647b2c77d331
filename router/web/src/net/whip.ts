/**
 * Going live: a camera, a screen or the test picture, sent by WHIP, and sent again elsewhere when the way is lost.
 */
import { signal } from '@preact/signals';
import { Refused } from './api';
import { elsewhere } from './origins';
import { bytesIn, endSession, negotiate } from './rtc';
import { testPicture } from './testpicture';

export type Source = 'camera' | 'screen' | 'test';
export type OnAir = 'off' | 'preparing' | 'connecting' | 'live' | 'retrying' | 'denied' | 'refused';

const RETRY_MS = [200, 600, 1_200, 2_500];
/** 'disconnected' often heals by itself; past this it won't. */
const PATIENCE_MS = 2_000;
const LOOK_MS = 500;
/** A node that takes a stream in reports on it several times a second; one that is silent this long is gone. */
const DEAD_MS = 2_500;

export class Broadcaster {
  readonly onAir = signal<OnAir>('off');
  readonly preview = signal<MediaStream | undefined>(undefined);
  readonly stats = signal<{ kbps: number; fps: number; width: number; height: number } | undefined>(undefined);
  readonly code = signal<string | undefined>(undefined);
  #path: string;
  #media: MediaStream | undefined;
  #stopSource: () => void = () => undefined;
  #pc: RTCPeerConnection | undefined;
  #where: string | undefined;
  #abort = new AbortController();
  #timer = 0;
  #failures = 0;
  #bytes = { sent: 0, at: 0 };
  #heard = { bytes: 0, at: 0 };

  constructor(auction: string) {
    this.#path = `/whip/${encodeURIComponent(auction)}`;
    window.addEventListener('pagehide', this.stop);
  }

  async start(source: Source, title: string): Promise<void> {
    this.stop();
    this.onAir.value = 'preparing';
    try {
      const taken = await open(source, title);
      this.#media = taken.media;
      this.#stopSource = taken.stop;
    } catch {
      this.onAir.value = 'denied';
      return;
    }
    this.preview.value = this.#media;
    // 'Stop sharing' in the browser's own bar ends the track.
    for (const track of this.#media.getVideoTracks()) track.onended = this.stop;
    this.#failures = 0;
    this.#connect();
  }

  stop = (): void => {
    this.#drop();
    this.#stopSource();
    for (const track of this.#media?.getTracks() ?? []) track.stop();
    this.#stopSource = () => undefined;
    this.#media = undefined;
    this.preview.value = undefined;
    this.stats.value = undefined;
    if (this.onAir.value !== 'refused') this.onAir.value = 'off';
  };

  end(): void {
    window.removeEventListener('pagehide', this.stop);
    this.stop();
  }

  #drop(): void {
    window.clearTimeout(this.#timer);
    this.#abort.abort();
    this.#pc?.close();
    this.#pc = undefined;
    endSession(this.#where);
    this.#where = undefined;
  }

  #connect(): void {
    const media = this.#media;
    if (!media) return;
    this.#drop();
    const abort = new AbortController();
    this.#abort = abort;
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    this.#pc = pc;
    this.onAir.value = this.#failures === 0 ? 'connecting' : 'retrying';
    for (const track of media.getTracks()) {
      const sender = pc.addTransceiver(track, { direction: 'sendonly', streams: [media] });
      if (track.kind === 'video') preferVp8(sender);
    }
    pc.onconnectionstatechange = () => this.#state(pc);
    negotiate(pc, this.#path, 'seller', abort.signal).then(
      (where) => {
        if (this.#pc !== pc) return endSession(where);
        this.#where = where;
        this.#look(pc);
      },
      (error: unknown) => {
        if (this.#pc !== pc || abort.signal.aborted) return;
        const problem = error instanceof Refused ? error.problem : undefined;
        // 'Not open' passes with the start of the auction; other refusals won't.
        if (problem && problem.status >= 400 && problem.status < 500 && problem.status !== 429 && problem.code !== 'not_open') {
          this.code.value = problem.code;
          this.onAir.value = 'refused';
          this.stop();
          return;
        }
        elsewhere();
        this.#again();
      },
    );
  }

  #state(pc: RTCPeerConnection): void {
    if (this.#pc !== pc) return;
    window.clearTimeout(this.#timer);
    if (pc.connectionState === 'connected') {
      this.#failures = 0;
      this.#heard = { bytes: 0, at: performance.now() };
      this.onAir.value = 'live';
      this.#look(pc);
    } else if (pc.connectionState === 'failed') {
      this.#again();
    } else if (pc.connectionState === 'disconnected') {
      this.onAir.value = 'retrying';
      this.#timer = window.setTimeout(() => this.#pc === pc && this.#again(), PATIENCE_MS);
    }
  }

  #again(): void {
    this.#drop();
    if (!this.#media) return;
    this.onAir.value = 'retrying';
    const pause = RETRY_MS[Math.min(this.#failures, RETRY_MS.length - 1)] ?? 2_500;
    this.#failures += 1;
    this.#timer = window.setTimeout(() => this.#connect(), pause);
  }

  #look(pc: RTCPeerConnection): void {
    window.clearTimeout(this.#timer);
    this.#timer = window.setTimeout(async () => {
      if (this.#pc !== pc || pc.connectionState !== 'connected') return;
      const report = await pc.getStats();
      const now = performance.now();
      const bytes = bytesIn(report);
      if (bytes > this.#heard.bytes) this.#heard = { bytes, at: now };
      else if (this.#pc === pc && now - this.#heard.at > DEAD_MS) return this.#again();
      for (const row of report.values() as Iterable<RTCOutboundRtpStreamStats>) {
        if (row.type !== 'outbound-rtp' || row.kind !== 'video') continue;
        const sent = row.bytesSent ?? 0;
        const kbps = this.#bytes.at > 0 ? Math.max(0, ((sent - this.#bytes.sent) * 8) / (now - this.#bytes.at)) : 0;
        this.#bytes = { sent, at: now };
        this.stats.value = { kbps: Math.round(kbps), fps: Math.round(row.framesPerSecond ?? 0), width: row.frameWidth ?? 0, height: row.frameHeight ?? 0 };
      }
      if (this.#pc === pc) this.#look(pc);
    }, LOOK_MS);
  }
}

/** VP8 first: every viewer decodes it, and its encoder keeps up on small machines. */
function preferVp8(transceiver: RTCRtpTransceiver): void {
  const codecs = RTCRtpReceiver.getCapabilities('video')?.codecs ?? [];
  const rank = (c: { mimeType: string }) => (c.mimeType === 'video/VP8' ? 0 : 1);
  transceiver.setCodecPreferences([...codecs].sort((a, b) => rank(a) - rank(b)));
}

async function open(source: Source, title: string): Promise<{ media: MediaStream; stop: () => void }> {
  const stop = () => undefined;
  switch (source) {
    case 'camera':
      return {
        media: await navigator.mediaDevices.getUserMedia({
          video: { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } },
          audio: { echoCancellation: true },
        }),
        stop,
      };
    case 'screen':
      return { media: await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { ideal: 30 } }, audio: true }), stop };
    case 'test':
      return testPicture(title);
  }
}
