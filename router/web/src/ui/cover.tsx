/** A quiet picture for an item without one: shapes and a colour that its id decides, the same on every visit. */
import { hue } from '../core/names';

export function Cover({ id }: { id: string }) {
  const h = hue(id);
  const kind = hue(`${id}/shape`) % 3;
  const back = `hsl(${h} 34% 88%)`;
  const mid = `hsl(${(h + 22) % 360} 30% 74%)`;
  const deep = `hsl(${(h + 200) % 360} 32% 36%)`;
  return (
    <svg class="cover" viewBox="0 0 320 180" preserveAspectRatio="xMidYMid slice" aria-hidden="true">
      <rect width="320" height="180" fill={back} />
      <rect y="132" width="320" height="48" fill={mid} opacity="0.55" />
      <ellipse cx="160" cy="142" rx="58" ry="8" fill={deep} opacity="0.18" />
      {kind === 0 && <path d="M136 142c-34-36-22-70 10-84l-4-18h36l-4 18c32 14 44 48 10 84z" fill={deep} opacity="0.9" />}
      {kind === 1 && <path d="M112 142V84c0-8 6-14 14-14h68c8 0 14 6 14 14v58zM138 70c0-30 44-30 44 0" fill={deep} stroke={deep} stroke-width="6" fill-opacity="0.9" />}
      {kind === 2 && <g fill={deep} opacity="0.9"><circle cx="160" cy="92" r="46" /><circle cx="160" cy="92" r="34" fill={back} /><path d="M158 66h5v28l18 10-3 4-20-12z" /><rect x="146" y="36" width="28" height="12" rx="4" /></g>}
    </svg>
  );
}
