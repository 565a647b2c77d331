/** One field between a guest and the room. */
import { useState } from 'preact/hooks';
import type { Problem } from '../core/types';
import { reason, t } from '../i18n';
import { signInGuest } from '../net/api';
import { type Hat, signOut, users } from '../net/session';

export function SignIn({ hat, label, onDone }: { hat: Hat; label: string; onDone?: () => void }) {
  const [name, setName] = useState('');
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState('');
  const field = `signin-${hat}`;
  const submit = async (event: Event) => {
    event.preventDefault();
    const trimmed = name.trim();
    if (!/^[\p{L}\p{N}](?:[\p{L}\p{N}_ .-]{0,22}[\p{L}\p{N}])?$/u.test(trimmed)) {
      setError(t('signin.invalid'));
      return;
    }
    setBusy(true);
    setError('');
    try {
      await signInGuest(hat, trimmed);
      onDone?.();
    } catch (caught) {
      const problem = (caught as { problem?: Problem }).problem;
      setError(reason(problem?.code, problem));
    }
    setBusy(false);
  };
  return (
    <form class="signin" onSubmit={submit} noValidate>
      <label for={field}>{label}</label>
      <div class="row">
        <input id={field} name="name" autocomplete="nickname" maxLength={24} placeholder={t('signin.namePlaceholder')} value={name}
          aria-invalid={error !== ''} aria-describedby={error ? `${field}-error` : undefined}
          onInput={(e) => setName(e.currentTarget.value)} />
        <button type="submit" class="button" disabled={busy}>{t('signin.go')}</button>
      </div>
      {error && <p class="field-error" id={`${field}-error`} role="alert">{error}</p>}
    </form>
  );
}

export function WhoAmI({ hat }: { hat: Hat }) {
  const user = users[hat].value;
  if (!user) return null;
  return (
    <p class="whoami">
      <span>{t('signin.as', { name: user.name })}</span>
      <button type="button" class="link" onClick={() => signOut(hat)}>{t('signin.out')}</button>
    </p>
  );
}
