/** Which language, and words with their blanks filled in. */
import { computed, signal } from '@preact/signals';
import type { Problem } from '../core/types';
import { en, type Key } from './en';
import { ko } from './ko';

export type Lang = 'ko' | 'en';
export type { Key };

/** A choice made here is remembered; else the browser's first language of ours decides. */
export function chooseLang(stored: string | null, languages: readonly string[]): Lang {
  if (stored === 'ko' || stored === 'en') return stored;
  for (const language of languages) {
    if (/^ko\b/i.test(language)) return 'ko';
    if (/^en\b/i.test(language)) return 'en';
  }
  return 'en';
}

const STORE = 'rushroom.lang';
const stored = (): string | null => {
  try {
    return localStorage.getItem(STORE);
  } catch {
    return null;
  }
};

export const lang = signal<Lang>(typeof navigator === 'undefined' ? 'en' : chooseLang(stored(), navigator.languages));
export const locale = computed(() => (lang.value === 'ko' ? 'ko-KR' : 'en-US'));

export function setLang(next: Lang): void {
  lang.value = next;
  try {
    localStorage.setItem(STORE, next);
  } catch {
    // Not remembered then.
  }
}

export function fill(text: string, values: Record<string, string | number>): string {
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => (name in values ? String(values[name]) : whole));
}

export function t(key: Key, values: Record<string, string | number> = {}): string {
  return fill((lang.value === 'ko' ? ko : en)[key], values);
}

/** Keys that come in `.one` and `.other`. */
type Counted = Key extends infer K ? (K extends `${infer Base}.one` ? Base : never) : never;
export function tn(base: Counted, n: number): string {
  const form = new Intl.PluralRules(locale.value).select(n) === 'one' ? 'one' : 'other';
  return t(`${base}.${form}` as Key, { n: n.toLocaleString(locale.value) });
}

/** The line of a coded refusal, in the reader's language. */
export function reason(code: string | undefined, problem?: Problem): string {
  const key = `reason.${code}`;
  if (key in en) return t(key as Key);
  if (lang.value === 'ko' && problem?.ko) return problem.ko;
  return problem?.title || t('reason.other');
}

export function seconds(ms: number): string {
  return (Math.round(ms / 100) / 10).toLocaleString(locale.value, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
}

/** A moment people read: today by time, else with the date. */
export function when(unixMs: number): string {
  const date = new Date(unixMs);
  const today = date.toDateString() === new Date().toDateString();
  return new Intl.DateTimeFormat(locale.value, today ? { hour: 'numeric', minute: '2-digit' } : { month: 'short', day: 'numeric', hour: 'numeric', minute: '2-digit' }).format(date);
}
