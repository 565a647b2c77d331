/**
 * The frame of every page: header, the page of the address (a chunk of its own, fetched when first needed), footer.
 *
 * Addresses change by `history`, so moving from the list to a room keeps the page; after each move the focus goes to
 * the page's heading, as a new document would do.
 */
import { signal } from '@preact/signals';
import { Component, type ComponentChildren, type ComponentType } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { href, parseRoute, type Route } from './core/routes';
import { lang, setLang, t } from './i18n';
import { Brand } from './ui/icons';
import { Announcer } from './ui/announce';

export const path = signal(location.pathname);
window.addEventListener('popstate', () => {
  path.value = location.pathname;
});

export function go(route: Route): void {
  history.pushState(null, '', href(route));
  path.value = location.pathname;
  window.scrollTo(0, 0);
}

/** Plain clicks on our own addresses stay in the page; everything else is the browser's. */
function onClick(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = (event.target as Element | null)?.closest('a');
  if (!link || link.target || link.hasAttribute('download') || link.origin !== location.origin) return;
  const route = parseRoute(link.pathname);
  if (route.page === 'missing' || link.hash) return;
  event.preventDefault();
  go(route);
}

type Page = ComponentType<{ id?: string }>;
const pages: Record<Route['page'], () => Promise<{ default: Page }>> = {
  list: () => import('./pages/list'),
  room: () => import('./pages/room') as Promise<{ default: Page }>,
  studio: () => import('./pages/studio'),
  cluster: () => import('./pages/cluster'),
  missing: () => import('./pages/missing'),
};
const loaded: Partial<Record<Route['page'], Page>> = {};

function Outlet({ route }: { route: Route }) {
  const [, redraw] = useState(0);
  const [failed, setFailed] = useState(false);
  const known = loaded[route.page];
  useEffect(() => {
    if (known) return;
    setFailed(false);
    pages[route.page]().then(
      (module) => {
        loaded[route.page] = module.default;
        redraw((n) => n + 1);
      },
      () => setFailed(true),
    );
  }, [route.page, known]);
  useEffect(() => {
    if (known) document.querySelector<HTMLElement>('main h1')?.focus({ preventScroll: true });
  }, [href(route), known]);
  if (failed) return <Sorry />;
  if (!known) return <p class="loading" role="status">…</p>;
  const PageView = known;
  const id = 'id' in route ? route.id : undefined;
  return <PageView key={href(route)} {...(id !== undefined && { id })} />;
}

function Sorry() {
  return (
    <section class="sorry">
      <h1 tabIndex={-1}>{t('error.title')}</h1>
      <p>{t('error.text')}</p>
      <button type="button" class="button" onClick={() => location.reload()}>{t('error.reload')}</button>
    </section>
  );
}

class Guard extends Component<{ children: ComponentChildren }, { broken: boolean }> {
  override state = { broken: false };
  static override getDerivedStateFromError() {
    return { broken: true };
  }
  override componentDidCatch(error: unknown) {
    console.error(error);
  }
  override render() {
    return this.state.broken ? <Sorry /> : this.props.children;
  }
}

function Header({ route }: { route: Route }) {
  const here = (page: Route['page'][]) => (page.includes(route.page) ? ('page' as const) : undefined);
  return (
    <header class="top">
      <a class="skip" href="#main">{t('app.skip')}</a>
      <div class="top-in">
        <a class="brand" href="/" aria-label={t('app.name')}><Brand /><span>Rushroom</span></a>
        <nav aria-label={t('nav.main')}>
          <a href="/" aria-current={here(['list', 'room'])}>{t('nav.auctions')}</a>
          <a href="/studio" aria-current={here(['studio'])}>{t('nav.sell')}</a>
          <a href="/cluster" aria-current={here(['cluster'])}>{t('nav.cluster')}</a>
        </nav>
        <div class="langs" role="group" aria-label={t('lang.switch')}>
          <button type="button" lang="ko" aria-pressed={lang.value === 'ko'} onClick={() => setLang('ko')}>한국어</button>
          <button type="button" lang="en" aria-pressed={lang.value === 'en'} onClick={() => setLang('en')}>EN</button>
        </div>
      </div>
    </header>
  );
}

export function App() {
  const route = parseRoute(path.value);
  useEffect(() => {
    document.documentElement.lang = lang.value;
  }, [lang.value]);
  useEffect(() => {
    document.addEventListener('click', onClick);
    return () => document.removeEventListener('click', onClick);
  }, []);
  return (
    <>
      <Header route={route} />
      <main id="main" class={`page page-${route.page}`}>
        <Guard key={href(route)}><Outlet route={route} /></Guard>
      </main>
      <footer class="foot"><span>Rushroom</span><span>{t('app.tagline')}</span></footer>
      <Announcer />
    </>
  );
}
