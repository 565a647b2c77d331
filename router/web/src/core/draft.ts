/** What a seller types into the form, checked and turned into the call's body. Pure, so every rule is a table row. */
import { parseMoney } from './money';
import type { Rush, SoftClose } from './types';

export type Preset = 'rush' | 'gentle' | 'soft' | 'fixed';

export interface Form {
  title: string;
  description: string;
  currency: string;
  start: string;
  step: string;
  reserve: string;
  durationMs: number;
  preset: Preset;
  guests: boolean;
  pauseWithoutStream: boolean;
}

export interface Body {
  title: string;
  description: string;
  currency: string;
  start_price: number;
  increments: [number, number][];
  reserve?: number;
  duration_ms: number;
  rush?: Rush;
  soft_close?: SoftClose;
  guests: boolean;
  pause_without_stream: boolean;
}

export type Wrong = Partial<Record<'title' | 'start' | 'step' | 'reserve' | 'duration', true>>;

export const DURATION_MIN_MS = 10_000;
export const DURATION_MAX_MS = 86_400_000;

export const presets: Record<Preset, { rush?: Rush; soft_close?: SoftClose }> = {
  rush: { rush: { cut_ppm_max: 500_000, cut_per_raise_ppm: 1_000_000, floor_ms: 10_000 } },
  gentle: {
    rush: { cut_ppm_max: 200_000, cut_per_raise_ppm: 300_000, floor_ms: 15_000 },
    soft_close: { window_ms: 10_000, reset_to_ms: 15_000, extensions_max: 20 },
  },
  soft: { soft_close: { window_ms: 10_000, reset_to_ms: 15_000, extensions_max: 100 } },
  fixed: {},
};

export function checkForm(form: Form): { ok: true; body: Body } | { ok: false; wrong: Wrong } {
  const wrong: Wrong = {};
  const title = form.title.trim();
  const start = parseMoney(form.start, form.currency);
  const step = parseMoney(form.step, form.currency);
  const reserve = form.reserve.trim() === '' ? undefined : parseMoney(form.reserve, form.currency);
  if ([...title].length < 1 || [...title].length > 120) wrong.title = true;
  if (!start.ok) wrong.start = true;
  if (!step.ok || step.minor < 1) wrong.step = true;
  if (reserve && (!reserve.ok || (start.ok && reserve.minor < start.minor))) wrong.reserve = true;
  if (!(form.durationMs >= DURATION_MIN_MS && form.durationMs <= DURATION_MAX_MS)) wrong.duration = true;
  if (Object.keys(wrong).length > 0 || !start.ok || !step.ok) return { ok: false, wrong };
  return {
    ok: true,
    body: {
      title,
      description: [...form.description.trim()].slice(0, 4000).join(''),
      currency: form.currency,
      start_price: start.minor,
      increments: [[0, step.minor]],
      ...(reserve?.ok && { reserve: reserve.minor }),
      duration_ms: form.durationMs,
      ...presets[form.preset],
      guests: form.guests,
      pause_without_stream: form.pauseWithoutStream,
    },
  };
}
