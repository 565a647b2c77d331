/** The room: one auction, live. */
import { useEffect, useMemo } from 'preact/hooks';
import { rushWords } from '../core/terms';
import type { Auction } from '../core/types';
import { reason, t, tn } from '../i18n';
import { users } from '../net/session';
import { Room } from '../state/room';
import { BidPanel } from '../ui/bidpanel';
import { Chat } from '../ui/chat';
import { CountdownView } from '../ui/countdown';
import { Back, Eye } from '../ui/icons';
import { LinkState } from '../ui/link';
import { BidLog, sellerName } from '../ui/log';
import { Video } from '../ui/video';
import Missing from './missing';
import '../styles/room.css';

/** How long a passing remark stays. */
const NOTICE_MS = 5_000;

export default function RoomPage({ id = '' }: { id?: string }) {
  const room = useMemo(() => new Room(id), [id]);
  useEffect(() => () => room.end(), [room]);
  const auction = room.auction.value;
  useEffect(() => {
    document.title = auction ? `${auction.title} · Rushroom` : 'Rushroom';
  }, [auction?.title]);
  const problem = room.notice.value;
  useEffect(() => {
    if (!problem) return undefined;
    const timer = window.setTimeout(() => {
      room.notice.value = undefined;
    }, NOTICE_MS);
    return () => window.clearTimeout(timer);
  }, [problem]);
  if (room.missing.value && !auction) return <Missing />;
  if (!auction) {
    return (
      <div class="loading">
        <h1 tabIndex={-1} class="quiet">{t('room.loading')}</h1>
        <p role="status"><span class="spinner" aria-hidden="true" />{t('room.loading')}…</p>
        <LinkState room={room} />
      </div>
    );
  }
  const { events, viewers } = room.feed.value;
  const own = users.seller.value?.id === auction.seller;
  return (
    <div class="room" data-testid="room" data-phase={auction.phase} data-seq={auction.seq} data-bids={auction.bids}>
      <div class="room-head">
        <a class="back" href="/"><Back />{t('room.back')}</a>
        <LinkState room={room} />
      </div>
      <div class="stage">
        <Video auction={auction} room={room} />
        <div class="title-line">
          <h1 tabIndex={-1}>{auction.title}</h1>
          <p class="sub">
            <span>{t('room.seller')} <strong>{sellerName(auction.seller)}</strong></span>
            <span class="watching"><Eye />{tn('room.viewers', viewers)}</span>
          </p>
        </div>
      </div>
      <aside class="desk" aria-label={t('room.price')}>
        <div class="panel desk-panel">
          <CountdownView room={room} />
          {own && auction.phase !== 'closed' && <p class="banner">{t('room.ownItem')} <a href={`/studio/${auction.id}`}>{t('room.toStudio')}</a></p>}
          <BidPanel room={room} />
        </div>
        {problem && <p class="banner warn" role="status">{reason(problem.code, problem)}</p>}
        <Chat room={room} />
      </aside>
      <div class="below">
        <BidLog auction={auction} events={events} me={room.me.value?.id} />
        <About auction={auction} />
      </div>
    </div>
  );
}

function About({ auction }: { auction: Auction }) {
  return (
    <section class="panel about">
      {auction.description !== '' && (
        <>
          <h2>{t('room.about')}</h2>
          <p class="prose">{auction.description}</p>
        </>
      )}
      <h2>{t('room.rules')}</h2>
      <Rules auction={auction} />
    </section>
  );
}

export function Rules({ auction }: { auction: Auction }) {
  const { rush, soft_close: soft } = auction;
  if (!rush && !soft) return <p class="prose">{t('room.rule.fixed')}</p>;
  const words = rush && rushWords(rush);
  return (
    <ul class="rules">
      {words && <li>{t('room.rule.rush', { per: words.perPercent, most: words.most, floor: words.floorS })}</li>}
      {soft && <li>{t('room.rule.soft', { window: soft.window_ms / 1000, reset: soft.reset_to_ms / 1000, n: soft.extensions_max })}</li>}
    </ul>
  );
}
