/**
 * Going live: a camera, a screen or the test picture, sent by WHIP, and sent again elsewhere when the way is lost.
 */
import { signal } from '@preact/signals';
import { bytesIn, finalRefusal, MediaSession } from './mediasession';
import { elsewhere } from './origins';
import { testPicture } from './testpicture';

export type Source = 'camera' | 'screen' | 'test';
export type OnAir = 'off' | 'preparing' | 'connecting' | 'live' | 'retrying' | 'denied' | 'refused';

const RETRY_MS = [200, 600, 1_200, 2_500];
/** 'disconnected' often heals by itself; past this it won't. */
const PATIENCE_MS = 2_000;
const LOOK_MS = 500;
/** A node that takes a stream in reports on it several times a second; one that is silent this long is gone. */
const DEAD_MS = 2_500;

/** A source that is open, and what else must end with it. */
interface Taken { media: MediaStream; stop: () => void }

export class Broadcaster {
  readonly onAir = signal<OnAir>('off');
  readonly preview = signal<MediaStream | undefined>(undefined);
  readonly stats = signal<{ kbps: number; fps: number; width: number; height: number } | undefined>(undefined);
  readonly code = signal<string | undefined>(undefined);
  #path: string;
  #taken: Taken | undefined;
  #session: MediaSession | undefined;
  /** Counts starts and stops: a source that opens after its seller changed their mind is let go. */
  #turn = 0;
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
    const turn = this.#turn;
    let taken: Taken;
    try {
      taken = await open(source, title);
    } catch {
      if (turn === this.#turn) this.onAir.value = 'denied';
      return;
    }
    if (turn !== this.#turn) return letGo(taken);
    this.#taken = taken;
    this.preview.value = taken.media;
    // 'Stop sharing' in the browser's own bar ends the track.
    for (const track of taken.media.getVideoTracks()) track.onended = this.stop;
    this.#failures = 0;
    this.#connect();
  }

  stop = (): void => {
    this.#turn += 1;
    this.#drop();
    if (this.#taken) letGo(this.#taken);
    this.#taken = undefined;
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
    this.#session?.end();
    this.#session = undefined;
  }

  #connect(): void {
    const media = this.#taken?.media;
    if (!media) return;
    this.#drop();
    const session = new MediaSession(this.#path, 'seller');
    this.#session = session;
    this.onAir.value = this.#failures === 0 ? 'connecting' : 'retrying';
    for (const track of media.getTracks()) {
      const sender = session.pc.addTransceiver(track, { direction: 'sendonly', streams: [media] });
      if (track.kind === 'video') preferVp8(sender);
    }
    session.pc.onconnectionstatechange = () => this.#state(session);
    session.open().then(
      () => this.#look(session),
      (error: unknown) => {
        if (session.isOver) return;
        const problem = finalRefusal(error);
        if (problem) {
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

  #state(session: MediaSession): void {
    if (session.isOver) return;
    window.clearTimeout(this.#timer);
    if (session.pc.connectionState === 'connected') {
      this.#failures = 0;
      this.#heard = { bytes: 0, at: performance.now() };
      this.onAir.value = 'live';
      this.#look(session);
    } else if (session.pc.connectionState === 'failed') {
      this.#again();
    } else if (session.pc.connectionState === 'disconnected') {
      this.onAir.value = 'retrying';
      this.#timer = window.setTimeout(() => !session.isOver && this.#again(), PATIENCE_MS);
    }
  }

  #again(): void {
    this.#drop();
    if (!this.#taken) return;
    this.onAir.value = 'retrying';
    const pause = RETRY_MS[Math.min(this.#failures, RETRY_MS.length - 1)] ?? 2_500;
    this.#failures += 1;
    this.#timer = window.setTimeout(() => this.#connect(), pause);
  }

  #look(session: MediaSession): void {
    window.clearTimeout(this.#timer);
    this.#timer = window.setTimeout(async () => {
      if (session.isOver || session.pc.connectionState !== 'connected') return;
      const report = await session.pc.getStats();
      if (session.isOver) return;
      const now = performance.now();
      const bytes = bytesIn(report);
      if (bytes > this.#heard.bytes) this.#heard = { bytes, at: now };
      else if (now - this.#heard.at > DEAD_MS) return this.#again();
      for (const row of report.values() as Iterable<RTCOutboundRtpStreamStats>) {
        if (row.type !== 'outbound-rtp' || row.kind !== 'video') continue;
        const sent = row.bytesSent ?? 0;
        const kbps = this.#bytes.at > 0 ? Math.max(0, ((sent - this.#bytes.sent) * 8) / (now - this.#bytes.at)) : 0;
        this.#bytes = { sent, at: now };
        this.stats.value = { kbps: Math.round(kbps), fps: Math.round(row.framesPerSecond ?? 0), width: row.frameWidth ?? 0, height: row.frameHeight ?? 0 };
      }
      this.#look(session);
    }, LOOK_MS);
  }
}

/** VP8 first: every viewer decodes it, and its encoder keeps up on small machines. */
function preferVp8(transceiver: RTCRtpTransceiver): void {
  const codecs = RTCRtpReceiver.getCapabilities('video')?.codecs ?? [];
  const rank = (c: { mimeType: string }) => (c.mimeType === 'video/VP8' ? 0 : 1);
  transceiver.setCodecPreferences([...codecs].sort((a, b) => rank(a) - rank(b)));
}

function letGo({ media, stop }: Taken): void {
  stop();
  for (const track of media.getTracks()) track.stop();
}

async function open(source: Source, title: string): Promise<Taken> {
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
