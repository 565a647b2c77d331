/** An address that leads nowhere. */
import { t } from '../i18n';

export default function Missing() {
  return (
    <section class="sorry">
      <p class="sorry-code" aria-hidden="true">404</p>
      <h1 tabIndex={-1}>{t('missing.title')}</h1>
      <p>{t('missing.text')}</p>
      <a class="button" href="/">{t('missing.home')}</a>
    </section>
  );
}
