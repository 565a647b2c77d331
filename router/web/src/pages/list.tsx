/** The front page: what is live, what comes next, what is over. Prices by a short poll, countdowns by our own clock. */
import { signal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { formatLeft } from '../core/countdown';
import { formatMoney } from '../core/money';
import { href } from '../core/routes';
import type { Auction } from '../core/types';
import { locale, t, tn, when } from '../i18n';
import { listAuctions } from '../net/api';
import { Cover } from '../ui/cover';
import { useFrames } from '../ui/frame';
import { Camera } from '../ui/icons';
import { sellerName } from '../ui/log';
import '../styles/list.css';

/** Viewers of the list don't join rooms (they would count as watching), so they ask now and then. */
const POLL_MS = 2_000;
const ENDED_SHOWN = 12;

interface Seen { auction: Auction; at: number }
const seen = signal<Seen[] | undefined>(undefined);
const failed = signal(false);
const missing = signal(false);

async function refresh(signal: AbortSignal): Promise<void> {
  try {
    const { items, missing: some } = await listAuctions({ states: 'live,scheduled,closed', signal });
    const at = performance.now();
    missing.value = some;
    seen.value = items.map((auction) => ({ auction, at }));
    failed.value = false;
  } catch {
    if (!signal.aborted) failed.value = true;
  }
}

export default function List() {
  useEffect(() => {
    document.title = `${t('list.title')} · Rushroom`;
  });
  useEffect(() => {
    const abort = new AbortController();
    let timer = 0;
    const loop = async () => {
      if (!document.hidden) await refresh(abort.signal);
      if (!abort.signal.aborted) timer = window.setTimeout(loop, POLL_MS);
    };
    void loop();
    return () => {
      abort.abort();
      window.clearTimeout(timer);
    };
  }, []);
  const all = seen.value ?? [];
  const of = (phases: Auction['phase'][]) => all.filter(({ auction }) => phases.includes(auction.phase));
  const left = (s: Seen) => (s.auction.ends_at ?? 0) - (s.auction.now ?? 0);
  const live = of(['live', 'paused']).sort((a, b) => left(a) - left(b));
  const soon = of(['scheduled']).sort((a, b) => (a.auction.start_at_ms ?? 0) - (b.auction.start_at_ms ?? 0));
  const ended = of(['closed']).sort((a, b) => b.auction.ct - a.auction.ct).slice(0, ENDED_SHOWN);
  return (
    <>
      <section class="hero">
        <h1 tabIndex={-1}>{t('list.title')}</h1>
        <p>{t('list.intro')}</p>
      </section>
      {failed.value && <p class="banner warn" role="status">{t('list.error')}</p>}
      {missing.value && !failed.value && <p class="banner warn" role="status">{t('list.missing')}</p>}
      {seen.value === undefined && !failed.value && <p class="loading" role="status">{t('list.loading')}…</p>}
      {seen.value !== undefined && (
        <>
          <Group title={t('list.live')} items={live} live />
          {live.length === 0 && (
            <p class="empty">{all.length === 0 ? t('list.empty.all') : t('list.empty.live')} <a href="/studio">{t('list.sellCta')}</a></p>
          )}
          <Group title={t('list.soon')} items={soon} />
          <Group title={t('list.ended')} items={ended} />
        </>
      )}
    </>
  );
}

function Group({ title, items, live = false }: { title: string; items: Seen[]; live?: boolean }) {
  if (items.length === 0) return null;
  return (
    <section class="group">
      <h2>{live && <span class="live-dot" aria-hidden="true" />}{title} <span class="count">{items.length}</span></h2>
      <ul class="cards">
        {items.map((item) => <li key={item.auction.id}><Card {...item} /></li>)}
      </ul>
    </section>
  );
}

function Card({ auction, at }: Seen) {
  const money = (n: number) => formatMoney(n, auction.currency, locale.value);
  const sold = auction.outcome === 'sold';
  const label = auction.phase === 'closed' ? (sold ? t('card.final') : t(`outcome.${auction.outcome ?? 'unsold'}`))
    : auction.bids > 0 ? t('card.price') : t('card.startPrice');
  return (
    <article class={`card card-${auction.phase}`}>
      <div class="card-picture">
        <Cover id={auction.id} />
        <div class="badges">
          <Phase auction={auction} />
          {auction.stream && auction.phase !== 'closed' && <span class="badge dark"><Camera />{t('card.video')}</span>}
        </div>
        {auction.phase === 'live' && <Left auction={auction} at={at} />}
      </div>
      <div class="card-body">
        <h3><a href={href({ page: 'room', id: auction.id })} aria-label={t('card.enter', { title: auction.title })}>{auction.title}</a></h3>
        <p class="card-seller">{sellerName(auction.seller)}</p>
        <dl class="card-price">
          <dt>{label}</dt>
          <dd class="money">{money(auction.bids > 0 ? auction.price : auction.start_price)}</dd>
          <dd class="card-bids">{auction.phase === 'scheduled' && auction.start_at_ms ? t('card.startsAt', { when: when(auction.start_at_ms) }) : tn('card.bids', auction.bids)}</dd>
        </dl>
      </div>
    </article>
  );
}

function Phase({ auction }: { auction: Auction }) {
  if (auction.phase === 'live') return <span class="badge live"><span class="live-dot" aria-hidden="true" />{t('video.live')}</span>;
  const tone = auction.outcome === 'sold' ? 'good' : 'plain';
  return <span class={`badge ${tone}`}>{auction.phase === 'closed' ? t(`outcome.${auction.outcome ?? 'unsold'}`) : t(`phase.${auction.phase}`)}</span>;
}

function Left({ auction, at }: Seen) {
  const ref = useRef<HTMLSpanElement>(null);
  useFrames(() => {
    const span = ref.current;
    if (!span) return;
    if (auction.ends_at == null || auction.now == null) {
      span.textContent = '';
      return;
    }
    const left = Math.max(0, auction.ends_at - auction.now - (performance.now() - at));
    const text = left === 0 ? t('phase.closing') : formatLeft(left);
    if (span.textContent !== text) span.textContent = text;
    span.classList.toggle('urgent', left < 10_000);
  }, true, [auction, at]);
  return <span class="card-left" role="timer" aria-live="off" aria-label={t('card.left')} ref={ref} />;
}
