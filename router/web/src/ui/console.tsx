/** The seller's console of one auction: the video out, the clock's levers, and what the room does. */
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { formatLeft } from '../core/countdown';
import type { Auction, Problem } from '../core/types';
import { locale, reason, t, when } from '../i18n';
import { command, schedule, type SellerVerb } from '../net/api';
import { Broadcaster, type Source } from '../net/whip';
import Missing from '../pages/missing';
import { Room } from '../state/room';
import { Outcome, PriceView } from './bidpanel';
import { Chat } from './chat';
import { CountdownView } from './countdown';
import { Camera, Card, Eye, Gavel, Screen } from './icons';
import { LinkState } from './link';
import { BidLog } from './log';

const EXTEND_MS = 30_000;

export function Console({ id }: { id: string }) {
  const room = useMemo(() => new Room(id, 'seller'), [id]);
  useEffect(() => () => room.end(), [room]);
  const auction = room.auction.value;
  const me = room.me.value;
  if (room.missing.value && !auction) return <Missing />;
  if (!auction) return <p class="loading" role="status"><span class="spinner" aria-hidden="true" />{t('room.loading')}…</p>;
  if (me?.id !== auction.seller) return <p class="banner warn" role="status">{t('studio.notYours')}</p>;
  return (
    <div class="console" data-testid="console" data-phase={auction.phase} data-stream={auction.stream ? 'up' : 'down'} data-bids={auction.bids}>
      <h1 tabIndex={-1} class="console-title">{auction.title}</h1>
      <div class="console-air"><OnAir auction={auction} /></div>
      <div class="console-log"><BidLog auction={auction} events={room.feed.value.events} me={me.id} /></div>
      <div class="console-side">
        <div class="panel desk-panel">
          <CountdownView room={room} />
          {auction.phase === 'closed' ? <Outcome auction={auction} me={me.id} /> : <PriceView room={room} auction={auction} />}
          <Levers auction={auction} />
        </div>
        <Figures room={room} auction={auction} />
        <Chat room={room} />
      </div>
    </div>
  );
}

function OnAir({ auction }: { auction: Auction }) {
  const air = useMemo(() => new Broadcaster(auction.id), [auction.id]);
  const [source, setSource] = useState<Source>('camera');
  const video = useRef<HTMLVideoElement>(null);
  useEffect(() => () => air.end(), [air]);
  const preview = air.preview.value;
  useEffect(() => {
    if (video.current) video.current.srcObject = preview ?? null;
  }, [preview]);
  const state = air.onAir.value;
  const on = !['off', 'denied', 'refused'].includes(state);
  const over = auction.phase === 'closed';
  const words = state === 'refused' ? t('studio.air.refused', { why: reason(air.code.value) }) : t(`studio.air.${state}`);
  const stats = air.stats.value;
  return (
    <section class="panel air" aria-labelledby="air-title" data-testid="air" data-air={state}>
      <h2 id="air-title">{t('studio.air')}</h2>
      <div class="video preview">
        <video ref={video} autoPlay playsInline muted aria-label={t('studio.air')} />
        {!preview && <div class="veil"><p>{t('studio.air.off')}</p></div>}
        {state === 'live' && <span class="badge live on-video"><span class="live-dot" aria-hidden="true" />{t('studio.air.live')}</span>}
      </div>
      <p class={`air-state air-${state}`} role="status">{words}{state === 'live' && stats && <span class="faint money"> · {t('studio.airStats', { w: stats.width, h: stats.height, fps: stats.fps, kbps: stats.kbps })}</span>}</p>
      <div class="air-tools">
        <div class="segments" role="group" aria-label={t('studio.air')}>
          {([['camera', Camera], ['screen', Screen], ['test', Card]] as const).map(([kind, Icon]) => (
            <button key={kind} type="button" aria-pressed={source === kind} disabled={on} onClick={() => setSource(kind)} data-source={kind}><Icon />{t(`studio.source.${kind}`)}</button>
          ))}
        </div>
        {on ? <button type="button" class="button danger" onClick={air.stop}>{t('studio.offAir')}</button>
          : <button type="button" class="button" disabled={over} onClick={() => void air.start(source, auction.title)} data-testid="go-live">{t('studio.goLive')}</button>}
      </div>
    </section>
  );
}

function Levers({ auction }: { auction: Auction }) {
  const [problem, setProblem] = useState<Problem | undefined>(undefined);
  const [busy, setBusy] = useState(false);
  const [asking, setAsking] = useState(false);
  const run = async (work: () => Promise<unknown>) => {
    setBusy(true);
    setProblem(undefined);
    try {
      await work();
    } catch (caught) {
      setProblem((caught as { problem?: Problem }).problem);
    }
    setBusy(false);
  };
  const verb = (name: SellerVerb, body: Record<string, unknown> = {}) => run(() => command(auction.id, name, body));
  const { phase } = auction;
  const before = phase === 'draft' || phase === 'scheduled';
  return (
    <section class="levers" aria-label={t('studio.clock')}>
      {before && (
        <>
          <button type="button" class="button big" disabled={busy} onClick={() => void verb('start')} data-testid="start"><Gavel />{t('studio.start')}</button>
          <p class="hint">{t('studio.startHint', { left: formatLeft(auction.duration_ms) })}</p>
          <Schedule auction={auction} busy={busy} onGo={(at) => void run(() => schedule(auction.id, at))} />
        </>
      )}
      <div class="lever-row">
        {phase === 'live' && <button type="button" class="button soft" disabled={busy} onClick={() => void verb('pause')}>{t('studio.pause')}</button>}
        {phase === 'paused' && <button type="button" class="button" disabled={busy} onClick={() => void verb('resume')}>{t('studio.resume')}</button>}
        {phase === 'live' && <button type="button" class="button soft" disabled={busy} onClick={() => void verb('extend', { ms: EXTEND_MS })}>{t('studio.extend')}</button>}
        {phase !== 'closed' && !asking && <button type="button" class="button ghost-danger" disabled={busy} onClick={() => setAsking(true)}>{t('studio.cancel')}</button>}
      </div>
      {asking && phase !== 'closed' && <AskCancel onNo={() => setAsking(false)} onYes={(why) => {
        setAsking(false);
        void verb('cancel', { reason: why });
      }} />}
      {problem && <p class="banner warn" role="alert">{reason(problem.code, problem)}</p>}
      <p class="share"><span>{t('studio.share')}</span> <a href={`/a/${auction.id}`} target="_blank" rel="noopener">{`${location.origin}/a/${auction.id}`}</a></p>
    </section>
  );
}

function AskCancel({ onYes, onNo }: { onYes: (why: string) => void; onNo: () => void }) {
  const [why, setWhy] = useState('');
  const no = useRef<HTMLButtonElement>(null);
  useEffect(() => no.current?.focus(), []);
  return (
    <div class="ask" role="alertdialog" aria-labelledby="ask-text" onKeyDown={(e) => e.key === 'Escape' && onNo()}>
      <p id="ask-text">{t('studio.cancelAsk')}</p>
      <label for="why">{t('studio.cancelReason')}</label>
      <input id="why" maxLength={200} value={why} onInput={(e) => setWhy(e.currentTarget.value)} />
      <div class="lever-row">
        <button type="button" class="button soft" ref={no} onClick={onNo}>{t('studio.cancelNo')}</button>
        <button type="button" class="button danger" onClick={() => onYes(why.trim() || '-')}>{t('studio.cancelYes')}</button>
      </div>
    </div>
  );
}

function Schedule({ auction, busy, onGo }: { auction: Auction; busy: boolean; onGo: (at: number) => void }) {
  const [value, setValue] = useState('');
  const at = new Date(value).getTime();
  return (
    <form class="schedule" onSubmit={(e) => {
      e.preventDefault();
      if (at > Date.now()) onGo(at);
    }}>
      <label for="start-at">{t('studio.schedule')}</label>
      <div class="row">
        <input id="start-at" type="datetime-local" value={value} onInput={(e) => setValue(e.currentTarget.value)} />
        <button type="submit" class="button soft" disabled={busy || !(at > Date.now())}>{t('studio.scheduleGo')}</button>
      </div>
      {auction.start_at_ms != null && <p class="hint">{t('room.startsAt', { when: when(auction.start_at_ms) })}</p>}
    </form>
  );
}

function Figures({ room, auction }: { room: Room; auction: Auction }) {
  const { viewers, events } = room.feed.value;
  // Stamps compare with each other: a bid's rate is read off the shard's own clock.
  const newest = events.at(-1)?.ct ?? 0;
  const perMinute = events.filter((e) => e.ty === 'bid' && newest - e.ct < 60_000).length;
  const number = (n: number) => n.toLocaleString(locale.value);
  return (
    <section class="panel" aria-labelledby="figures-title">
      <div class="panel-head"><h2 id="figures-title">{t('studio.console')}</h2><LinkState room={room} /></div>
      <dl class="figures">
        <div><dt><Eye />{t('studio.viewers')}</dt><dd class="money" data-testid="viewers">{number(viewers)}</dd></div>
        <div><dt>{t('studio.bids')}</dt><dd class="money">{number(auction.bids)}</dd></div>
        <div><dt>{t('studio.bidsPerMin')}</dt><dd class="money">{number(perMinute)}</dd></div>
      </dl>
    </section>
  );
}
