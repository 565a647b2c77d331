/** The chat of a room. Follows the newest line unless the reader has scrolled up. */
import { Fragment } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { t } from '../i18n';
import type { Room } from '../state/room';
import { hue } from '../core/names';
import { SignIn } from './signin';

const MAX = 300;

export function Chat({ room }: { room: Room }) {
  const { chat, chatBreaks, auction } = room.feed.value;
  const [text, setText] = useState('');
  const box = useRef<HTMLDivElement>(null);
  const pinned = useRef(true);
  const me = room.me.value;
  useEffect(() => {
    if (box.current && pinned.current) box.current.scrollTop = box.current.scrollHeight;
  }, [chat]);
  const send = (event: Event) => {
    event.preventDefault();
    const line = text.trim();
    if (line === '') return;
    room.say(line);
    setText('');
    pinned.current = true;
  };
  return (
    <section class="panel chat-panel" aria-labelledby="chat-title">
      <h2 id="chat-title">{t('room.chat')}</h2>
      <div class="chat" role="log" aria-live="off" aria-labelledby="chat-title" tabIndex={0} ref={box} data-testid="chat"
        onScroll={(e) => {
          const el = e.currentTarget;
          pinned.current = el.scrollHeight - el.scrollTop - el.clientHeight < 40;
        }}>
        <ol>
        {chat.length === 0 && <li class="empty small">{t('room.chatEmpty')}</li>}
        {chat.map((line) => {
          const key = `${line.chat_epoch}/${line.cseq}`;
          return (
            <Fragment key={key}>
              {chatBreaks.includes(key) && <li class="chat-break">{t('room.chatBreak')}</li>}
              <li class={line.from === me?.id ? 'mine' : ''}>
                <span class={`who tint-${Math.floor(hue(line.from) / 60)}`}>{line.name}{line.from === auction?.seller && <span class="badge plain tiny">{t('room.seller')}</span>}</span>
                <span class="said">{line.text}</span>
              </li>
            </Fragment>
          );
        })}
        </ol>
      </div>
      {me ? (
        <form class="row" onSubmit={send}>
          <label class="quiet" for="chat-text">{t('room.chatPlaceholder')}</label>
          <input id="chat-text" maxLength={MAX} autocomplete="off" placeholder={t('room.chatPlaceholder')} value={text} onInput={(e) => setText(e.currentTarget.value)} />
          <button type="submit" class="button soft">{t('room.chatSend')}</button>
        </form>
      ) : room.hat === 'seller' ? <SignIn hat="seller" label={t('room.chatSignin')} /> : <p class="hint">{t('room.chatSignin')}</p>}
    </section>
  );
}
