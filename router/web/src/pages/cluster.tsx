/** The cluster as one node sees it, once a second; in a demo also a way to break it. */
import { signal } from '@preact/signals';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Cluster, ClusterNode, Problem } from '../core/types';
import { reason, seconds, t, locale } from '../i18n';
import { getCluster, stopNode } from '../net/api';
import { elsewhere, learn } from '../net/origins';
import '../styles/cluster.css';

const POLL_MS = 1_000;
/** Without an answer for this long the page says that it is old. */
const STALE_MS = 3_000;

const cluster = signal<Cluster | undefined>(undefined);
const problem = signal<Problem | undefined>(undefined);
const stale = signal(false);

export default function ClusterPage() {
  useEffect(() => {
    document.title = `${t('cluster.title')} · Rushroom`;
  });
  usePoll();
  const now = cluster.value;
  return (
    <div class="cluster" data-testid="cluster">
      <section class="hero">
        <h1 tabIndex={-1}>{t('cluster.title')}</h1>
        <p>{t('cluster.intro')}</p>
        {now && <p class="faint">{t('cluster.epoch', { epoch: now.epoch, me: now.me })}</p>}
      </section>
      {stale.value && now && <p class="banner warn" role="status">{t('cluster.stale')}</p>}
      {!now && problem.value && <p class="banner warn" role="status">{problem.value.status === 401 || problem.value.status === 403 ? t('cluster.forbidden') : reason(problem.value.code, problem.value)}</p>}
      {!now && !problem.value && <p class="loading" role="status"><span class="spinner" aria-hidden="true" /></p>}
      {now && <Nodes cluster={now} />}
      {now && <Shards cluster={now} />}
      {now && <Streams cluster={now} />}
    </div>
  );
}

function usePoll(): void {
  useEffect(() => {
    const abort = new AbortController();
    let timer = 0;
    let answered = performance.now();
    const loop = async () => {
      try {
        const next = await getCluster(abort.signal);
        if (next.demo) learn(next.nodes.map((n) => n.http));
        cluster.value = next;
        problem.value = undefined;
        answered = performance.now();
      } catch (error) {
        problem.value = (error as { problem?: Problem }).problem;
        if (problem.value?.status === 0) elsewhere();
      }
      stale.value = performance.now() - answered > STALE_MS;
      if (!abort.signal.aborted) timer = window.setTimeout(loop, POLL_MS);
    };
    void loop();
    return () => {
      abort.abort();
      window.clearTimeout(timer);
    };
  }, []);
}

function Nodes({ cluster }: { cluster: Cluster }) {
  const leads = (id: number) => cluster.shards.filter((s) => s.leader === id).length;
  const holds = (id: number) => cluster.shards.filter((s) => s.replicas.includes(id)).length;
  return (
    <section aria-labelledby="nodes-title">
      <h2 id="nodes-title">{t('cluster.nodes')}</h2>
      <ul class="nodes">
        {[...cluster.nodes].sort((a, b) => a.id - b.id).map((node) => (
          <li key={node.id} class={`panel node ${node.alive ? 'alive' : 'down'}`} data-node={node.id} data-alive={node.alive}>
            <div class="node-head">
              <h3>{t('cluster.node', { id: node.id })}</h3>
              <span class={`badge ${node.alive ? 'good' : 'bad'}`}>{node.alive ? t('cluster.alive') : t('cluster.down')}</span>
            </div>
            <dl class="facts">
              <div><dt>{t('cluster.region')}</dt><dd>{node.region}</dd></div>
              <div><dt>{t('cluster.zone')}</dt><dd>{node.zone}</dd></div>
              <div><dt>{t('cluster.leads')}</dt><dd class="money">{leads(node.id)}</dd></div>
              <div><dt>{t('cluster.replicas')}</dt><dd class="money">{holds(node.id)}</dd></div>
            </dl>
            <p class="faint address">{node.http}</p>
            {cluster.demo && <StopNode node={node} />}
          </li>
        ))}
      </ul>
    </section>
  );
}

function StopNode({ node }: { node: ClusterNode }) {
  const [asking, setAsking] = useState(false);
  const [told, setTold] = useState('');
  const no = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (asking) no.current?.focus();
  }, [asking]);
  const stop = async () => {
    setAsking(false);
    try {
      await stopNode(node.id);
      setTold(t('cluster.stopped', { id: node.id }));
    } catch (caught) {
      // A node that stops at once may take its answer with it.
      const refused = (caught as { problem?: Problem }).problem;
      setTold(refused?.status === 0 ? t('cluster.stopped', { id: node.id }) : reason(refused?.code, refused));
    }
  };
  return (
    <div class="stop">
      {asking ? (
        <div class="ask" role="alertdialog" aria-labelledby={`ask-${node.id}`} onKeyDown={(e) => e.key === 'Escape' && setAsking(false)}>
          <p id={`ask-${node.id}`}>{t('cluster.stopAsk', { id: node.id })}</p>
          <div class="lever-row">
            <button type="button" class="button soft" ref={no} onClick={() => setAsking(false)}>{t('cluster.stopNo')}</button>
            <button type="button" class="button danger" onClick={() => void stop()}>{t('cluster.stopYes')}</button>
          </div>
        </div>
      ) : <button type="button" class="button ghost-danger" disabled={!node.alive} onClick={() => setAsking(true)}>{t('cluster.stop')}</button>}
      <p class="hint" role="status">{told}</p>
    </div>
  );
}

function Shards({ cluster }: { cluster: Cluster }) {
  const nodes = [...cluster.nodes].sort((a, b) => a.id - b.id);
  return (
    <section>
      <h2 id="shards-title">{t('cluster.shards')}</h2>
      <div class="panel table-box" tabIndex={0} role="region" aria-labelledby="shards-title">
        <table>
          <thead>
            <tr>
              <th scope="col">{t('cluster.shard')}</th>
              <th scope="col">{t('cluster.leader')}</th>
              {nodes.map((n) => <th key={n.id} scope="col" class="cell">{n.id}</th>)}
              <th scope="col" class="num">{t('cluster.live')}</th>
              <th scope="col" class="num">{t('cluster.term')}</th>
              <th scope="col" class="num">{t('cluster.applied')}</th>
              <th scope="col" class="num">{t('cluster.held')}</th>
            </tr>
          </thead>
          <tbody>
            {[...cluster.shards].sort((a, b) => a.id - b.id).map((shard) => (
              <tr key={shard.id} data-shard={shard.id} data-leader={shard.leader ?? ''}>
                <th scope="row">{shard.id}{shard.id === 0 && <span class="faint"> {t('cluster.meta')}</span>}</th>
                <td>{shard.leader == null ? <em>{t('cluster.noLeader')}</em> : t('cluster.node', { id: shard.leader })}</td>
                {nodes.map((n) => (
                  <td key={n.id} class="cell">
                    {shard.leader === n.id ? <span class={`mark lead tone-${n.id % 4}`}><span class="quiet">{t('cluster.leader')}</span>★</span>
                      : shard.replicas.includes(n.id) ? <span class={`mark tone-${n.id % 4}`}><span class="quiet">{t('cluster.replicas')}</span>●</span> : null}
                  </td>
                ))}
                <td class="num money">{shard.auctions_live}</td>
                <td class="num money">{shard.term ?? '–'}</td>
                <td class="num money">{shard.applied?.toLocaleString(locale.value) ?? '–'}</td>
                <td class="num money">{shard.held_total_ms == null ? '–' : `${seconds(shard.held_total_ms)} s`}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function Streams({ cluster }: { cluster: Cluster }) {
  return (
    <section aria-labelledby="streams-title">
      <h2 id="streams-title">{t('cluster.streams')}</h2>
      {cluster.streams.length === 0 ? <p class="empty small">{t('cluster.stream.none')}</p> : (
        <div class="panel table-box">
          <table>
            <thead><tr><th scope="col">{t('cluster.stream.auction')}</th><th scope="col">{t('cluster.node', { id: '' })}</th><th scope="col" class="num">{t('cluster.stream.viewers')}</th></tr></thead>
            <tbody>
              {cluster.streams.map((s) => (
                <tr key={`${s.auction}/${s.node}`}><td><a href={`/a/${s.auction}`}>{s.auction}</a></td><td>{s.node}</td><td class="num money">{s.viewers}</td></tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}
