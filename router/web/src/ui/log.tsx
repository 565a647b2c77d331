/** The bid history: every event of the auction in words, newest first. */
import { formatLeft } from '../core/countdown';
import { logRows } from '../core/feed';
import { formatMoney } from '../core/money';
import { displayName, nameTail } from '../core/names';
import type { Auction, AuctionEvent } from '../core/types';
import { locale, seconds, t } from '../i18n';

const SHOWN = 60;

export function BidLog({ auction, events, me }: { auction: Auction; events: readonly AuctionEvent[]; me: string | undefined }) {
  const rows = logRows(events, me).slice(-SHOWN).reverse();
  return (
    <section class="panel log-panel" aria-labelledby="log-title">
      <h2 id="log-title">{t('room.log')}</h2>
      {rows.length === 0 && <p class="empty small">{t('room.logEmpty')}</p>}
      <div class="log" role="log" aria-live="off" aria-labelledby="log-title" tabIndex={0} data-testid="log">
        <ol>{rows.map((event) => <Row key={event.seq} auction={auction} event={event} me={me} />)}</ol>
      </div>
    </section>
  );
}

function Row({ auction, event, me }: { auction: Auction; event: AuctionEvent; me: string | undefined }) {
  const mine = event.ty === 'bid' && event.actor != null && event.actor === me;
  const change = (event.extended_ms ?? 0) - (event.cut_ms ?? 0);
  return (
    <li class={`log-${event.ty} ${mine ? 'mine' : ''}`} data-seq={event.seq}>
      <span class="log-text">{words(auction, event, me)}</span>
      {event.ty === 'bid' && change !== 0 && (
        <span class={`log-cut ${change < 0 ? 'cut' : 'more'}`}>
          {change < 0 ? t('room.cutChip', { s: seconds(-change) }) : t('room.extendChip', { s: seconds(change) })}
        </span>
      )}
    </li>
  );
}

export function personName(id: string | null | undefined, me: string | undefined): string {
  if (!id) return '–';
  if (id === me) return t('log.you');
  const [name, tail] = [sellerName(id), nameTail(id)];
  return tail ? `${name}·${tail}` : name;
}

/** A seller's name stands alone: there is only one in a room. */
export function sellerName(id: string): string {
  return displayName(id) ?? t('person.guest');
}

function words(auction: Auction, event: AuctionEvent, me: string | undefined): string {
  const money = (n: number) => formatMoney(n, auction.currency, locale.value);
  switch (event.ty) {
    case 'open':
      return t('log.open', { amount: money(event.price) });
    case 'bid':
      if (event.actor != null && event.actor === me) return t('log.bidYou', { amount: money(event.price) });
      return t('log.bid', { name: personName(event.actor, me), amount: money(event.price) });
    case 'raise':
      return t('log.raise', { name: personName(event.actor, me) });
    case 'pause':
      return t('log.pause', { left: formatLeft(event.left_ms ?? 0) });
    case 'resume':
      return t('log.resume');
    case 'extend':
      return t('log.extend', { s: seconds(event.dms ?? 0) });
    case 'held':
      return t('log.held', { s: seconds(event.dms ?? 0) });
    case 'stream':
      return event.node == null ? t('log.streamDown') : t('log.streamUp');
    case 'close':
      if (event.outcome === 'sold' && event.leader != null && event.leader === me) return t('log.soldYou', { amount: money(event.price) });
      if (event.outcome === 'sold') return t('log.sold', { name: personName(event.leader, me), amount: money(event.price) });
      return event.outcome === 'cancelled' ? t('log.cancelled') : t('log.unsold');
  }
}
