/** The picture's delay, part by part, over the picture: for whoever asks (the button, or the key D). */
import { useEffect } from 'preact/hooks';
import { LEGS } from '../core/delay';
import { locale, t } from '../i18n';
import type { DelayMeter } from '../net/delay';

const ms = (value: number) => t('delay.ms', { ms: Math.round(value).toLocaleString(locale.value) });

/** D shows and hides it, unless something is being typed. */
export function useDelayKey(meter: DelayMeter): void {
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const typing = event.target instanceof Element && event.target.closest('input, textarea, select, [contenteditable]');
      if (event.key.toLowerCase() !== 'd' || typing || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
      meter.toggle();
    };
    window.addEventListener('keydown', pressed);
    return () => window.removeEventListener('keydown', pressed);
  }, [meter]);
}

export function DelayOverlay({ meter }: { meter: DelayMeter }) {
  if (!meter.isShown.value) return null;
  const sample = meter.sample.value;
  return (
    <section class="delay" aria-label={t('delay.title')} data-testid="delay" data-rtp={sample?.rtp} data-whole-ms={sample?.delay.whole.toFixed(1)}
      data-sum-ms={sample && LEGS.reduce((sum, leg) => sum + sample.delay[leg], 0).toFixed(1)}>
      <h2>{t('delay.title')}</h2>
      {sample ? (
        <dl>
          {LEGS.map((leg) => [<dt key={leg}>{t(`delay.${leg}`)}</dt>, <dd key={`${leg}-ms`} data-leg={leg}>{ms(sample.delay[leg])}</dd>])}
          <dt class="whole">{t('delay.whole')}</dt>
          <dd class="whole">{ms(sample.delay.whole)}</dd>
        </dl>
      ) : <p>{t('delay.measuring')}</p>}
    </section>
  );
}
