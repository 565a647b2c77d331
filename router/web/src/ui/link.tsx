/** How the connection is: state, where to, and how exactly the clock is known. */
import { t } from '../i18n';
import type { Room } from '../state/room';

export function LinkState({ room }: { room: Room }) {
  const link = room.connection.link.value;
  const node = room.connection.node.value;
  const err = room.clockErr.value;
  return (
    <p class={`link-state link-${link}`} data-testid="link" data-link={link} data-node={node?.node}>
      <span class="lamp" aria-hidden="true" />
      <span role="status">{t(`link.${link}`)}</span>
      {link === 'open' && node && <span class="faint">{t('link.via', { region: node.region, node: node.node })}</span>}
      {link === 'open' && <span class="faint">{room.clockKnown.value && err !== undefined ? t('room.clockErr', { ms: Math.max(1, Math.ceil(err)) }) : t('room.syncing')}</span>}
    </p>
  );
}
