/**
 * The countdown as drawn: digits and a bar, moved before each paint, straight in the DOM.
 *
 * A cut is shown three ways at once, so that nobody misses why the number jumped: the digits pulse, the lost part of
 * the bar stays for a moment in another colour, and a chip says how much ('−3.2 s'). With reduced motion the chip alone.
 */
import { useEffect, useRef, useState } from 'preact/hooks';
import { formatLeft, spokenMark } from '../core/countdown';
import { seconds, t, when } from '../i18n';
import type { Room } from '../state/room';
import { announce } from './announce';
import { useFrames } from './frame';
import { Clock, Hold } from './icons';

const CHIP_MS = 2_600;
const URGENT_MS = 10_000;
const BAR_STEPS = 800;

interface Jump { key: number; ms: number; from: number; to: number }

export function CountdownView({ room }: { room: Room }) {
  const digits = useRef<HTMLSpanElement>(null);
  const bar = useRef<HTMLDivElement>(null);
  const box = useRef<HTMLDivElement>(null);
  const last = useRef(Infinity);
  const drawn = useRef(-1);
  const [closing, setClosing] = useState(false);
  const auction = room.auction.value;
  const running = auction?.phase === 'live';
  const total = useRef(1);
  if (auction) total.current = Math.max(1, auction.duration_ms);

  useFrames(() => {
    const left = room.left();
    const span = digits.current;
    if (!span) return;
    const text = left === undefined ? '–:––' : formatLeft(left);
    if (span.textContent !== text) span.textContent = text;
    if (left === undefined) delete span.dataset.leftMs;
    else {
      span.dataset.held = String(room.countdown.isHeld);
      span.dataset.leftMs = left.toFixed(1);
    }
    // Half a pixel at a time: as smooth to the eye as every frame, and a hundred times less to paint.
    const share = Math.round(Math.min(1, (left ?? 0) / total.current) * BAR_STEPS) / BAR_STEPS;
    if (bar.current && share !== drawn.current) bar.current.style.transform = `scaleX(${(drawn.current = share)})`;
    box.current?.classList.toggle('urgent', left !== undefined && left < URGENT_MS && running);
    if (left !== undefined && running) {
      const mark = spokenMark(last.current, left);
      if (mark !== undefined && Number.isFinite(last.current)) announce(t('say.left', { n: mark }));
      last.current = left;
      if ((left === 0) !== closing) setClosing(left === 0);
    }
  }, running === true, [room, auction?.phase, auction?.left_ms, closing]);

  const jump = useJump(room, total.current);
  if (!auction || auction.phase === 'closed') return null;
  return (
    <div class={`clock ${room.held.value ? 'held' : ''}`} ref={box}>
      <p class="clock-label" id="clock-label"><Clock />{label(auction.phase, closing, auction.start_at_ms ?? undefined)}</p>
      <div class="clock-line">
        <div role="timer" aria-live="off" aria-labelledby="clock-label" class="digits" data-testid="countdown">
          {running || auction.phase === 'paused'
            ? <span key="run" ref={digits} class={jump ? 'pulse' : ''} data-jump={jump?.key} />
            : <span key="rest">{formatLeft(auction.duration_ms)}</span>}
        </div>
        {jump && (
          <span key={jump.key} class={`chip ${jump.ms < 0 ? 'cut' : 'more'}`} data-testid="cut-chip">
            {jump.ms < 0 ? t('room.cutChip', { s: seconds(-jump.ms) }) : t('room.extendChip', { s: seconds(jump.ms) })}
          </span>
        )}
      </div>
      <div class="bar" aria-hidden="true">
        <div class="bar-left" ref={bar} />
        {jump && jump.from > jump.to && <Ghost key={jump.key} from={jump.from} to={jump.to} />}
      </div>
      {room.held.value && running && <p class="held-note" role="status"><Hold /><strong>{t('room.held')}</strong> {t('room.heldWhy')}</p>}
    </div>
  );
}

/** The part of the bar that a cut took, fading. */
function Ghost({ from, to }: { from: number; to: number }) {
  const ref = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!ref.current) return;
    ref.current.style.left = `${to * 100}%`;
    ref.current.style.width = `${(from - to) * 100}%`;
  }, [from, to]);
  return <div class="bar-ghost" ref={ref} />;
}

function label(phase: string, closing: boolean, startAt: number | undefined): string {
  switch (phase) {
    case 'live':
      return closing ? t('room.closing') : t('room.timeLeft');
    case 'paused':
      return t('room.paused');
    default:
      return startAt === undefined ? t('room.notStarted') : t('room.startsAt', { when: when(startAt) });
  }
}

/** The newest jump of the deadline, for as long as its chip is shown. */
function useJump(room: Room, total: number): Jump | undefined {
  const [jump, setJump] = useState<Jump | undefined>(undefined);
  const shown = room.shown.value;
  useEffect(() => {
    if (!shown) return undefined;
    const { event, key, leftBefore } = shown;
    const ms = event.ty === 'bid' ? (event.extended_ms ?? 0) - (event.cut_ms ?? 0) : event.ty === 'extend' ? (event.dms ?? 0) : 0;
    if (ms === 0) return undefined;
    const share = (left: number) => Math.min(1, Math.max(0, left / total));
    const before = leftBefore ?? 0;
    setJump({ key, ms, from: share(before), to: share(before + ms) });
    const timer = window.setTimeout(() => setJump((now) => (now?.key === key ? undefined : now)), CHIP_MS);
    return () => window.clearTimeout(timer);
  }, [shown?.key]);
  return jump;
}
