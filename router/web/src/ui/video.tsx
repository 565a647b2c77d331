/** The seller's live picture, with what is going on when there is none. */
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import type { Auction } from '../core/types';
import type { Room } from '../state/room';
import { DelayMeter } from '../net/delay';
import { t } from '../i18n';
import { Watcher } from '../net/whep';
import { Cover } from './cover';
import { DelayOverlay, useDelayKey } from './delay';
import { Full, Gauge, Sound } from './icons';

export function Video({ auction, room }: { auction: Auction; room: Room }) {
  const watcher = useMemo(() => new Watcher(auction.id), [auction.id]);
  const meter = useMemo(() => new DelayMeter(room.connection, () => watcher.session), [room, watcher]);
  useDelayKey(meter);
  const video = useRef<HTMLVideoElement>(null);
  const [muted, setMuted] = useState(true);
  const up = auction.stream != null && auction.phase !== 'closed' && auction.phase !== 'draft';
  useEffect(() => {
    if (video.current) video.current.srcObject = watcher.media;
    return () => watcher.end();
  }, [watcher]);
  useEffect(() => watcher.expect(up), [watcher, up]);
  useEffect(() => {
    if (video.current) meter.follow(video.current);
    room.meter = meter;
    return () => {
      room.meter = undefined;
      meter.end();
    };
  }, [room, meter]);
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
      <DelayOverlay meter={meter} />
      <div class="video-tools">
        <button type="button" class="round" aria-pressed={meter.isShown.value} aria-label={t('delay.show')} aria-keyshortcuts="d" data-testid="delay-show" onClick={() => meter.toggle()}><Gauge /></button>
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
