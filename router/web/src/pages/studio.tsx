/** The seller's side: a form for a new auction and the list of one's own (`/studio`), or the console of one (`/studio/ID`). */
import { useEffect, useState } from 'preact/hooks';
import { go } from '../app';
import { checkForm, type Form, presets, type Preset, type Wrong } from '../core/draft';
import { formatMoney } from '../core/money';
import { href } from '../core/routes';
import type { Auction, Problem } from '../core/types';
import { lang, locale, reason, t, tn, type Key } from '../i18n';
import { createAuction, listAuctions } from '../net/api';
import { users } from '../net/session';
import { SignIn, WhoAmI } from '../ui/signin';
import { Console } from '../ui/console';
import { Back } from '../ui/icons';
import '../styles/room.css';
import '../styles/studio.css';

const MINE_MS = 4_000;

export default function Studio({ id }: { id?: string }) {
  const user = users.seller.value;
  useEffect(() => {
    document.title = `${t('studio.title')} · Rushroom`;
  });
  return (
    <div class="studio">
      {id !== undefined ? <div class="studio-head"><a class="back" href="/studio"><Back />{t('studio.back')}</a><WhoAmI hat="seller" /></div> : (
        <div class="hero">
          <h1 tabIndex={-1}>{t('studio.title')}</h1>
          <p>{t('studio.intro')}</p>
          <WhoAmI hat="seller" />
        </div>
      )}
      {!user ? <div class="panel narrow"><SignIn hat="seller" label={t('studio.signin')} /></div>
        : id !== undefined ? <Console key={`${id}/${user.id}`} id={id} />
          : <div class="studio-grid"><NewAuction /><Mine me={user.id} /></div>}
    </div>
  );
}

const DURATIONS = [30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000];
const durationWords = (ms: number) => (ms < 60_000 ? t('studio.sec', { n: ms / 1000 }) : t('studio.min', { n: ms / 60_000 }));

function NewAuction() {
  const korean = lang.peek() === 'ko';
  const [form, setForm] = useState<Form>({
    title: '', description: '', currency: korean ? 'KRW' : 'USD', start: korean ? '10000' : '10.00', step: korean ? '1000' : '1.00',
    reserve: '', durationMs: 120_000, preset: 'rush', guests: true, pauseWithoutStream: false,
  });
  const [wrong, setWrong] = useState<Wrong>({});
  const [problem, setProblem] = useState<Problem | undefined>(undefined);
  const [busy, setBusy] = useState(false);
  const set = (change: Partial<Form>) => setForm((now) => ({ ...now, ...change }));
  const submit = async (event: Event) => {
    event.preventDefault();
    const checked = checkForm(form);
    setWrong(checked.ok ? {} : checked.wrong);
    setProblem(undefined);
    if (!checked.ok) {
      const [first] = Object.keys(checked.wrong);
      document.getElementById(`f-${first}`)?.focus();
      return;
    }
    setBusy(true);
    try {
      const auction = await createAuction(checked.body);
      go({ page: 'studio', id: auction.id });
    } catch (caught) {
      setProblem((caught as { problem?: Problem }).problem ?? { code: 'other', title: '', status: 0 });
      setBusy(false);
    }
  };
  return (
    <form class="panel form" onSubmit={submit} noValidate aria-labelledby="new-title">
      <h2 id="new-title">{t('studio.new')}</h2>
      <Field id="title" label="studio.field.title" hint="studio.field.titleHint" error={wrong.title && 'studio.err.title'}>
        {(aria) => <input id="f-title" name="title" maxLength={120} value={form.title} onInput={(e) => set({ title: e.currentTarget.value })} {...aria} />}
      </Field>
      <Field id="description" label="studio.field.description" hint="studio.field.descriptionHint">
        {(aria) => <textarea id="f-description" name="description" rows={3} maxLength={4000} value={form.description} onInput={(e) => set({ description: e.currentTarget.value })} {...aria} />}
      </Field>
      <div class="pair">
        <Field id="currency" label="studio.field.currency">
          {(aria) => (
            <select id="f-currency" name="currency" value={form.currency} onChange={(e) => set({ currency: e.currentTarget.value })} {...aria}>
              <option value="KRW">KRW ₩</option>
              <option value="USD">USD $</option>
            </select>
          )}
        </Field>
        <Field id="duration" label="studio.field.duration" error={wrong.duration && 'studio.err.duration'}>
          {(aria) => (
            <select id="f-duration" name="duration" value={String(form.durationMs)} onChange={(e) => set({ durationMs: Number(e.currentTarget.value) })} {...aria}>
              {DURATIONS.map((ms) => <option key={ms} value={String(ms)}>{durationWords(ms)}</option>)}
            </select>
          )}
        </Field>
      </div>
      <div class="triple">
        <Field id="start" label="studio.field.start" error={wrong.start && 'studio.err.price'}>
          {(aria) => <input id="f-start" name="start" class="money" inputMode="decimal" value={form.start} onInput={(e) => set({ start: e.currentTarget.value })} {...aria} />}
        </Field>
        <Field id="step" label="studio.field.step" error={wrong.step && 'studio.err.step'}>
          {(aria) => <input id="f-step" name="step" class="money" inputMode="decimal" value={form.step} onInput={(e) => set({ step: e.currentTarget.value })} {...aria} />}
        </Field>
        <Field id="reserve" label="studio.field.reserve" error={wrong.reserve && 'studio.err.reserve'}>
          {(aria) => <input id="f-reserve" name="reserve" class="money" inputMode="decimal" value={form.reserve} onInput={(e) => set({ reserve: e.currentTarget.value })} {...aria} />}
        </Field>
      </div>
      <fieldset class="presets">
        <legend>{t('studio.field.preset')}</legend>
        {(Object.keys(presets) as Preset[]).map((preset) => (
          <label key={preset} class="preset">
            <input type="radio" name="preset" value={preset} checked={form.preset === preset} onChange={() => set({ preset })} />
            <span><strong>{t(`studio.preset.${preset}`)}</strong><small>{t(`studio.preset.${preset}Text`)}</small></span>
          </label>
        ))}
      </fieldset>
      <label class="check"><input type="checkbox" name="guests" checked={form.guests} onChange={(e) => set({ guests: e.currentTarget.checked })} />{t('studio.field.guests')}</label>
      <label class="check"><input type="checkbox" name="pause" checked={form.pauseWithoutStream} onChange={(e) => set({ pauseWithoutStream: e.currentTarget.checked })} />{t('studio.field.pauseStream')}</label>
      {problem && <p class="banner warn" role="alert">{reason(problem.code, problem)}</p>}
      <button type="submit" class="button big" disabled={busy}>{t('studio.create')}</button>
    </form>
  );
}

interface Aria { 'aria-invalid': boolean; 'aria-describedby': string | undefined }

function Field({ id, label, hint, error, children }: { id: string; label: Key; hint?: Key; error?: Key | undefined; children: (aria: Aria) => preact.JSX.Element }) {
  const described = [hint && `h-${id}`, error && `e-${id}`].filter(Boolean).join(' ') || undefined;
  return (
    <div class="field">
      <label for={`f-${id}`}>{t(label)}</label>
      {children({ 'aria-invalid': error !== undefined, 'aria-describedby': described })}
      {hint && <p class="hint" id={`h-${id}`}>{t(hint)}</p>}
      {error && <p class="field-error" id={`e-${id}`}>{t(error)}</p>}
    </div>
  );
}

/** One's own, drafts too: those no one else can list. */
function Mine({ me }: { me: string }) {
  const [items, setItems] = useState<Auction[] | undefined>(undefined);
  useEffect(() => {
    const abort = new AbortController();
    let timer = 0;
    const loop = async () => {
      try {
        const { items: own } = await listAuctions({ states: 'draft,scheduled,live,closed', seller: me, hat: 'seller', signal: abort.signal });
        setItems(own);
      } catch {
        // The next round tries again; the form beside it works without the list.
      }
      if (!abort.signal.aborted) timer = window.setTimeout(loop, MINE_MS);
    };
    void loop();
    return () => {
      abort.abort();
      window.clearTimeout(timer);
    };
  }, [me]);
  return (
    <section class="panel" aria-labelledby="mine-title">
      <h2 id="mine-title">{t('studio.mine')}</h2>
      {(items?.length ?? 0) === 0 && <p class="empty small">{t('studio.mineEmpty')}</p>}
      <ul class="mine-list">
        {(items ?? []).map((a) => (
          <li key={a.id}>
            <a href={href({ page: 'studio', id: a.id })}>{a.title}</a>
            <span class={`badge ${a.phase === 'live' ? 'live' : 'plain'}`}>{t(`phase.${a.phase}`)}</span>
            <span class="money">{formatMoney(a.price, a.currency, locale.value)}</span>
            <span class="faint">{tn('card.bids', a.bids)}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}
