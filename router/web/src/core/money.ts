/**
 * Money: whole minor units in, words for people out.
 *
 * Amounts never meet a float: what is typed is read digit by digit, and what is shown is cut from the integer's digits
 * and only dressed by `Intl` (symbol, grouping).
 */

/** The most the service handles (docs/protocol.md): 10¹⁵ minor units, well inside what a JS number holds exactly. */
export const MAX_MINOR = 1_000_000_000_000_000;

/** Digits after the point, as ISO 4217 (and `Intl`) has them: 0 for KRW, 2 for USD. */
export function minorDigits(currency: string): number {
  try {
    return new Intl.NumberFormat('en', { style: 'currency', currency }).resolvedOptions().maximumFractionDigits ?? 2;
  } catch {
    return 2;
  }
}

function decimal(minor: number, digits: number): string {
  const text = String(Math.trunc(minor)).padStart(digits + 1, '0');
  return digits === 0 ? text : `${text.slice(0, -digits)}.${text.slice(-digits)}`;
}

const formats = new Map<string, Intl.NumberFormat>();

/** `₩12,000`, `$12.50`. */
export function formatMoney(minor: number, currency: string, locale: string): string {
  const key = `${locale} ${currency}`;
  let format = formats.get(key);
  if (!format) {
    try {
      format = new Intl.NumberFormat(locale, { style: 'currency', currency, currencyDisplay: 'narrowSymbol' });
    } catch {
      format = new Intl.NumberFormat(locale);
    }
    formats.set(key, format);
  }
  // A decimal string keeps every digit; engines since 2023 take it as it is.
  return format.format(decimal(minor, minorDigits(currency)) as unknown as number);
}

/** The plain digits for an input field: `12000`, `12.50`. */
export function plainMoney(minor: number, currency: string): string {
  return decimal(minor, minorDigits(currency));
}

export type ParsedMoney = { ok: true; minor: number } | { ok: false; why: 'empty' | 'format' | 'precision' | 'too_big' };

/** Reads what a person typed: `12,000`, `₩12,000`, `12000원`, `$12.50`, `12.5`. */
export function parseMoney(text: string, currency: string): ParsedMoney {
  const bare = text.normalize('NFKC').replace(/[\s,_'₩\\$€¥£원]|KRW|USD/giu, '');
  if (bare === '') return { ok: false, why: 'empty' };
  const match = /^(\d+)(?:\.(\d*))?$/.exec(bare);
  if (!match) return { ok: false, why: 'format' };
  const digits = minorDigits(currency);
  const fraction = (match[2] ?? '').replace(/0+$/, '');
  if (fraction.length > digits) return { ok: false, why: 'precision' };
  const whole = (match[1] ?? '').replace(/^0+(?=\d)/, '');
  const minor = Number(whole + fraction.padEnd(digits, '0'));
  if (whole.length > 16 || minor > MAX_MINOR) return { ok: false, why: 'too_big' };
  return { ok: true, minor };
}
