import { describe, expect, it } from 'vitest';
import { chooseLang, fill } from '..';
import { en } from '../en';
import { ko } from '../ko';

const blanks = (text: string) => [...text.matchAll(/\{(\w+)\}/g)].map((m) => m[1]).sort();

describe('the two languages', () => {
  it('have the same keys', () => {
    expect(Object.keys(ko).sort()).toEqual(Object.keys(en).sort());
  });
  it.each(Object.keys(en) as (keyof typeof en)[])('%s has words and the same blanks', (key) => {
    expect(ko[key].trim()).not.toBe('');
    expect(en[key].trim()).not.toBe('');
    expect(blanks(ko[key])).toEqual(blanks(en[key]));
  });
});

it('fills blanks and leaves unknown ones', () => {
  expect(fill('{a} and {b} and {a}', { a: 1 })).toBe('1 and {b} and 1');
});

it.each([
  [null, ['ko-KR', 'en'], 'ko'], [null, ['en-GB'], 'en'], [null, ['fr', 'ko'], 'ko'], [null, ['fr'], 'en'], ['en', ['ko'], 'en'], ['xx', ['ko'], 'ko'], [null, [], 'en'],
] as const)('stored %s, browser %o: %s', (stored, languages, lang) => expect(chooseLang(stored, languages)).toBe(lang));
