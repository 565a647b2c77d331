/**
 * The test picture: a moving scene with the time, a frame counter for people and one for programs (`core/blocks.ts`),
 * and a soft chime each second. Good for a rehearsal without a camera, and for measuring what reaches a viewer.
 */
import { BLOCKS, encodeBlocks } from '../core/blocks';

const WIDTH = 960;
const HEIGHT = 540;
const FPS = 24;
const BLOCK = WIDTH / BLOCKS;

export function testPicture(title: string): { media: MediaStream; stop: () => void } {
  const canvas = document.createElement('canvas');
  canvas.width = WIDTH;
  canvas.height = HEIGHT;
  const pen = canvas.getContext('2d', { alpha: false });
  if (!pen) throw new Error('no canvas');
  let frame = 0;
  draw(pen, frame, title);
  const worker = new Worker(new URL('./tick.worker.ts', import.meta.url), { type: 'module' });
  worker.onmessage = () => draw(pen, (frame += 1), title);
  worker.postMessage(FPS);
  const media = canvas.captureStream(FPS);
  const sound = chime();
  if (sound) media.addTrack(sound.track);
  return {
    media,
    stop: () => {
      worker.terminate();
      sound?.stop();
    },
  };
}

function draw(pen: CanvasRenderingContext2D, frame: number, title: string): void {
  const t = frame / FPS;
  const sky = pen.createLinearGradient(0, 0, WIDTH, HEIGHT);
  sky.addColorStop(0, '#f3e7d3');
  sky.addColorStop(1, '#d8c3a5');
  pen.fillStyle = sky;
  pen.fillRect(0, 0, WIDTH, HEIGHT);
  pen.fillStyle = '#b89f7d';
  pen.fillRect(0, HEIGHT - 110, WIDTH, 110);
  vase(pen, WIDTH / 2 + Math.sin(t * 0.8) * 130, HEIGHT - 96, Math.cos(t * 0.8));
  pen.fillStyle = '#2b2a33';
  pen.font = '600 34px system-ui, "Noto Sans KR", sans-serif';
  pen.textAlign = 'left';
  pen.fillText(title.slice(0, 40), 36, BLOCK + 62);
  pen.font = '500 26px ui-monospace, monospace';
  pen.fillText(`#${String(frame).padStart(6, '0')}`, 36, HEIGHT - 36);
  pen.textAlign = 'right';
  pen.fillText(new Date().toLocaleTimeString('sv-SE'), WIDTH - 36, HEIGHT - 36);
  encodeBlocks(frame).forEach((bit, i) => {
    pen.fillStyle = bit ? '#fff' : '#000';
    pen.fillRect(i * BLOCK, 0, BLOCK, BLOCK);
  });
}

/** A vase that turns: the light wanders over it. */
function vase(pen: CanvasRenderingContext2D, x: number, y: number, turn: number): void {
  pen.fillStyle = 'rgb(60 45 25 / 22%)';
  pen.beginPath();
  pen.ellipse(x, y + 4, 120, 18, 0, 0, Math.PI * 2);
  pen.fill();
  const glaze = pen.createLinearGradient(x - 120, 0, x + 120, 0);
  const light = 0.5 + turn * 0.32;
  glaze.addColorStop(0, '#1f5f5b');
  glaze.addColorStop(Math.min(0.95, Math.max(0.05, light)), '#9fd8cb');
  glaze.addColorStop(1, '#174a47');
  pen.fillStyle = glaze;
  pen.beginPath();
  pen.moveTo(x - 52, y);
  pen.bezierCurveTo(x - 150, y - 110, x - 110, y - 210, x - 34, y - 250);
  pen.bezierCurveTo(x - 24, y - 272, x - 44, y - 290, x - 52, y - 300);
  pen.lineTo(x + 52, y - 300);
  pen.bezierCurveTo(x + 44, y - 290, x + 24, y - 272, x + 34, y - 250);
  pen.bezierCurveTo(x + 110, y - 210, x + 150, y - 110, x + 52, y);
  pen.closePath();
  pen.fill();
}

/** A quiet note each second, so that sound can be checked too. Browsers without audio go without. */
function chime(): { track: MediaStreamTrack; stop: () => void } | undefined {
  try {
    const context = new AudioContext();
    const out = context.createMediaStreamDestination();
    const gain = context.createGain();
    const tone = context.createOscillator();
    tone.frequency.value = 660;
    gain.gain.value = 0;
    tone.connect(gain).connect(out);
    tone.start();
    const timer = window.setInterval(() => {
      const now = context.currentTime;
      gain.gain.setValueAtTime(0.08, now);
      gain.gain.exponentialRampToValueAtTime(0.0001, now + 0.25);
    }, 1000);
    const [track] = out.stream.getAudioTracks();
    if (!track) return undefined;
    return {
      track,
      stop: () => {
        window.clearInterval(timer);
        void context.close();
      },
    };
  } catch {
    return undefined;
  }
}
