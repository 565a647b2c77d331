/**
 * Where bids are made: price, who leads, the next bid in one tap, an amount of one's own, and what became of it.
 *
 * The button says what a bid does before it is made: the amount, and how much time it would cut. While a bid is on its
 * way the panel says so and for how long; it never calls a bid failed that may yet be accepted.
 */
import { useEffect, useRef, useState } from 'preact/hooks';
import { formatMoney, parseMoney, plainMoney } from '../core/money';
import { increment, rushCut } from '../core/terms';
import type { Auction } from '../core/types';
import { locale, reason, seconds, t, type Key } from '../i18n';
import type { Room } from '../state/room';
import { announce } from './announce';
import { Check, Gavel, Up } from './icons';
import { personName } from './log';
import { SignIn, WhoAmI } from './signin';

export function BidPanel({ room }: { room: Room }) {
  const auction = room.auction.value;
  const me = room.me.value;
  useAnnouncements(room);
  if (!auction) return null;
  if (auction.phase === 'closed') return <Outcome auction={auction} me={me?.id} />;
  const money = (n: number) => formatMoney(n, auction.currency, locale.value);
  return (
    <div class="bid">
      <PriceView room={room} auction={auction} />
      {auction.phase !== 'live' ? null
        : me && me.id === auction.seller ? null
          : me ? <BidForm room={room} auction={auction} /> : <SignIn hat="bidder" label={t('room.signinToBid')} />}
      <p class="bid-status" role="status" data-testid="bid-status"><BidStatus room={room} money={money} /></p>
      <WhoAmI hat="bidder" />
    </div>
  );
}

export function PriceView({ room, auction }: { room: Room; auction: Auction }) {
  const me = room.me.value?.id;
  const leading = auction.leader != null && auction.leader === me;
  const bidBefore = room.bids.value.list.some((b) => b.status === 'accepted');
  const outbid = !leading && bidBefore && auction.leader != null && auction.phase === 'live';
  return (
    <div class="price-box">
      <p class="price-label" id="price-label">{auction.bids > 0 ? t('room.price') : t('room.startPrice')}</p>
      <p class="price money" aria-labelledby="price-label" data-testid="price" data-minor={auction.price} key={auction.price}>
        {formatMoney(auction.bids > 0 ? auction.price : auction.start_price, auction.currency, locale.value)}
      </p>
      <p class={`leader ${leading ? 'you' : outbid ? 'outbid' : ''}`} data-testid="leader">
        {leading ? <><Check />{t('room.leader.you')}</>
          : outbid ? <><Up />{t('room.outbid')} · {personName(auction.leader, me)}</>
            : auction.leader ? t('room.leader.other', { name: personName(auction.leader, me) }) : t('room.leader.none')}
      </p>
      {auction.reserve_met != null && <p class={`reserve ${auction.reserve_met ? 'met' : ''}`}>{auction.reserve_met ? t('room.reserve.met') : t('room.reserve.not')}</p>}
    </div>
  );
}

function BidForm({ room, auction }: { room: Room; auction: Auction }) {
  const [text, setText] = useState('');
  const [error, setError] = useState<{ key: Key; amount?: string } | undefined>(undefined);
  const money = (n: number) => formatMoney(n, auction.currency, locale.value);
  const busy = room.pending.value !== undefined;
  const leading = auction.leader != null && auction.leader === room.me.value?.id;
  const step = increment(auction.increments, auction.price);
  const submit = (event: Event) => {
    event.preventDefault();
    const parsed = parseMoney(text, auction.currency);
    if (!parsed.ok) return setError({ key: `amount.${parsed.why}` });
    if (parsed.minor < auction.least) return setError({ key: 'amount.low', amount: money(auction.least) });
    setError(undefined);
    setText('');
    room.bid(parsed.minor);
  };
  return (
    <div class="bid-form">
      <button type="button" class="button bid-now" disabled={busy || leading} data-testid="bid-now" data-minor={auction.least} onClick={() => room.bid(auction.least)}>
        {busy ? <span class="spinner" aria-hidden="true" /> : <Gavel />}
        <span class="bid-now-text">{leading ? t('room.leader.you') : t('room.bidNow', { amount: money(auction.least) })}</span>
        {!leading && <CutHint room={room} auction={auction} amount={auction.least} />}
      </button>
      <form class="custom" onSubmit={submit} noValidate>
        <label for="amount">{t('room.custom')}</label>
        <div class="row">
          <input id="amount" class="money" inputMode="decimal" autocomplete="off" placeholder={t('room.customHint', { amount: money(auction.least) })}
            value={text} aria-invalid={error !== undefined} aria-describedby={error ? 'amount-error' : undefined}
            onInput={(e) => {
              setText(e.currentTarget.value);
              setError(undefined);
            }} />
          <button type="submit" class="button soft" disabled={busy || leading}>{t('room.customGo')}</button>
        </div>
        <div class="raises">
          {[2, 5, 10].map((times) => {
            const amount = auction.least + step * (times - 1);
            return <button key={times} type="button" class="raise money" disabled={leading} onClick={() => setText(plainMoney(amount, auction.currency))}>{money(amount)}</button>;
          })}
        </div>
        {error && <p class="field-error" id="amount-error" role="alert">{t(error.key, error.amount === undefined ? {} : { amount: error.amount })}</p>}
      </form>
    </div>
  );
}

/** How much time this bid would cut, kept fresh twice a second: it shrinks with the time left. */
function CutHint({ room, auction, amount }: { room: Room; auction: Auction; amount: number }) {
  const ref = useRef<HTMLSpanElement>(null);
  useEffect(() => {
    const show = () => {
      if (!ref.current) return;
      const left = room.left();
      const cut = auction.rush && left !== undefined ? rushCut(auction.rush, auction.bids > 0 ? auction.price : auction.start_price, amount, left) : 0;
      ref.current.textContent = cut >= 50 ? t('room.bidCut', { s: seconds(cut) }) : t('room.bidCutNone');
    };
    show();
    const timer = window.setInterval(show, 500);
    return () => window.clearInterval(timer);
  });
  return <span class="bid-now-cut" ref={ref} />;
}

function BidStatus({ room, money }: { room: Room; money: (n: number) => string }) {
  const bid = room.latest.value;
  if (!bid) return null;
  const amount = money(bid.amount);
  switch (bid.status) {
    case 'sending':
      return <span class="sending">{bid.tries > 1 || room.connection.link.value !== 'open' ? t('room.resending', { amount }) : t('room.sending', { amount })}</span>;
    case 'accepted':
      return <span class="accepted"><Check />{t('room.accepted', { amount })}</span>;
    case 'refused':
      return <span class="refused">{t('room.refused', { why: reason(bid.problem?.code ?? bid.verdict?.code ?? undefined, bid.problem) })}</span>;
  }
}

/** How it ended, for whom and at what price: the same words for bidders, onlookers and the seller. */
export function Outcome({ auction, me }: { auction: Auction; me: string | undefined }) {
  const money = formatMoney(auction.price, auction.currency, locale.value);
  const won = auction.outcome === 'sold' && auction.leader != null && auction.leader === me;
  const [title, text, tone] = won ? [t('room.won'), t('room.wonText', { amount: money }), 'won']
    : auction.outcome === 'sold' ? [t('room.soldTo', { name: personName(auction.leader, me) }), t('room.soldText', { amount: money }), 'sold']
      : auction.outcome === 'cancelled' ? [t('room.cancelled'), t('room.cancelledText'), 'cancelled']
        : [t('room.unsold'), t('room.unsoldText'), 'unsold'];
  return (
    <div class={`outcome ${tone}`} role="status" data-testid="outcome" data-outcome={auction.outcome} data-winner={auction.leader ?? ''}>
      <Gavel />
      <h2>{title}</h2>
      {auction.outcome === 'sold' && <p class="price money" data-testid="price" data-minor={auction.price}>{money}</p>}
      <p>{text}</p>
      <a class="link" href={`/api/v1/auctions/${auction.id}/export`} download={`${auction.id}.jsonl`}>{t('room.proof')}</a>
    </div>
  );
}

function useAnnouncements(room: Room): void {
  const shown = room.shown.value;
  useEffect(() => {
    const auction = room.auction.peek();
    const me = room.me.peek()?.id;
    if (!shown || !auction || shown.event.ty !== 'bid') return;
    const amount = formatMoney(shown.event.price, auction.currency, locale.peek());
    const cut = shown.event.cut_ms ?? 0;
    if (me && shown.fromLeader === me && shown.event.leader !== me) announce(t('say.outbid', { amount }));
    else announce(cut > 0 ? t('say.cut', { amount, s: seconds(cut) }) : t('say.bid', { amount }));
  }, [shown?.key]);
}
