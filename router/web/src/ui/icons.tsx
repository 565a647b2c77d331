/** Small drawings, decorative all of them: what they mean is always said in words beside them. */

const box = { viewBox: '0 0 24 24', fill: 'none', stroke: 'currentColor', 'stroke-width': 2, 'stroke-linecap': 'round', 'stroke-linejoin': 'round', 'aria-hidden': true, class: 'icon' } as const;

export const Brand = () => (
  <svg viewBox="0 0 32 32" class="brand-mark" aria-hidden="true">
    <rect width="32" height="32" rx="9" fill="#14524b" />
    <path d="M16 7a10 10 0 1 1-9.4 6.6" fill="none" stroke="#fff" stroke-width="3" stroke-linecap="round" />
    <path d="M16 11v6l4 3" fill="none" stroke="#f2b27a" stroke-width="3" stroke-linecap="round" stroke-linejoin="round" />
  </svg>
);
export const Sound = ({ on }: { on: boolean }) => (
  <svg {...box}>
    <path d="M4 9v6h4l5 4V5L8 9z" />
    {on ? <path d="M16.5 8.5a5 5 0 0 1 0 7M19 6a8.5 8.5 0 0 1 0 12" /> : <path d="m17 9 5 6m0-6-5 6" />}
  </svg>
);
export const Full = () => <svg {...box}><path d="M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5" /></svg>;
export const Gauge = () => <svg {...box}><path d="M4 18a9 9 0 1 1 16 0M12 14l4-5" /></svg>;
export const Eye = () => <svg {...box}><path d="M2 12s4-7 10-7 10 7 10 7-4 7-10 7S2 12 2 12z" /><circle cx="12" cy="12" r="3" /></svg>;
export const Camera = () => <svg {...box}><rect x="2" y="6" width="13" height="12" rx="2" /><path d="m15 11 7-4v10l-7-4z" /></svg>;
export const Screen = () => <svg {...box}><rect x="2" y="4" width="20" height="13" rx="2" /><path d="M8 21h8m-4-4v4" /></svg>;
export const Card = () => <svg {...box}><rect x="3" y="3" width="18" height="18" rx="2" /><path d="M3 9h18M9 3v6M15 3v6M8 15h8" /></svg>;
export const Check = () => <svg {...box}><path d="m4 12 5 6L20 6" /></svg>;
export const Up = () => <svg {...box}><path d="M12 19V5m-6 6 6-6 6 6" /></svg>;
export const Hold = () => <svg {...box}><path d="M12 3v18M5 7l14 10M19 7 5 17" /></svg>;
export const Back = () => <svg {...box}><path d="M15 5l-7 7 7 7" /></svg>;
export const Clock = () => <svg {...box}><circle cx="12" cy="12" r="9" /><path d="M12 7v5l3 2" /></svg>;
export const Gavel = () => <svg {...box}><path d="m14 4 6 6M11 7l6 6M12.5 5.5l6 6M13 10l-8 8 2 2 8-8M13 21h8" /></svg>;
