/** The seller's live picture, with what is going on when there is none. */
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import type { Auction } from '../core/types';
import { t } from '../i18n';
import { Watcher } from '../net/whep';
import { Cover } from './cover';
import { Full, Sound } from './icons';

export function Video({ auction }: { auction: Auction }) {
  const watcher = useMemo(() => new Watcher(auction.id), [auction.id]);
  const video = useRef<HTMLVideoElement>(null);
  const [muted, setMuted] = useState(true);
  const up = auction.stream != null && auction.phase !== 'closed' && auction.phase !== 'draft';
  useEffect(() => {
    if (video.current) video.current.srcObject = watcher.media;
    return () => watcher.end();
  }, [watcher]);
  useEffect(() => watcher.expect(up), [watcher, up]);
  const picture = watcher.picture.value;
  const stats = watcher.stats.value;
  const playing = picture === 'playing';
  const words = auction.phase === 'closed' ? t('video.ended')
    : picture === 'idle' ? t('video.idle')
      : picture === 'connecting' ? t('video.connecting')
        : picture === 'stalled' ? t('video.stalled') : t('video.waiting');
  const veiled = auction.phase === 'closed' || !playing;
  return (
    <div class="video" data-picture={picture} data-frames={stats.frames}>
      {stats.frames === 0 && <Cover id={auction.id} />}
      <video ref={video} autoPlay playsInline muted={muted} aria-label={t('video.label', { title: auction.title })} data-testid="video" />
      {veiled && <div class="veil"><p role="status">{(picture === 'connecting' || picture === 'stalled') && <span class="spinner" aria-hidden="true" />}{words}</p></div>}
      {playing && auction.phase !== 'closed' && <span class="badge live on-video"><span class="live-dot" aria-hidden="true" />{t('video.live')}</span>}
      <div class="video-tools">
        <button type="button" class="round" aria-pressed={!muted} aria-label={muted ? t('video.unmute') : t('video.mute')}
          onClick={() => {
            setMuted(!muted);
            void video.current?.play().catch(() => setMuted(true));
          }}><Sound on={!muted} /></button>
        <button type="button" class="round" aria-label={t('video.full')} onClick={() => void video.current?.requestFullscreen?.().catch(() => undefined)}><Full /></button>
      </div>
    </div>
  );
}
