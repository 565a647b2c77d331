/**
 * What a screen reader is told, politely and seldom: one line at a time, the newest wins, at most one in two seconds.
 * The visible timer and logs are quiet themselves; a room with a bid a second would otherwise never stop talking.
 */
import { signal } from '@preact/signals';

const EVERY_MS = 2_000;
const line = signal('');
let waiting: string | undefined;
let timer: number | undefined;

export function announce(text: string): void {
  waiting = text;
  if (timer === undefined) flush();
}

function flush(): void {
  if (waiting === undefined) {
    timer = undefined;
    return;
  }
  line.value = waiting;
  waiting = undefined;
  timer = window.setTimeout(flush, EVERY_MS);
}

export const Announcer = () => <div class="quiet" role="status" aria-live="polite">{line.value}</div>;
