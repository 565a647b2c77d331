// A stand-in for the edge, for working on the pages without a cluster: the protocol of docs/protocol.md over one
// process, with a few auctions that go on by themselves. No Raft, no promises; never part of a release.
//
//   npm run mock            three "nodes" on 8787, 8788, 8789, serving dist/ as well
//   npm run dev             Vite in front of the first of them
import { createServer } from 'node:http';
import { readFileSync, existsSync } from 'node:fs';
import { extname, join } from 'node:path';
import { WebSocketServer } from 'ws';

const FIRST = Number(process.argv[2] ?? 8787);
const DIST = new URL('../dist', import.meta.url).pathname;
const NODES = [{ id: 1, zone: 'a', region: 'seoul' }, { id: 2, zone: 'b', region: 'seoul' }, { id: 3, zone: 'c', region: 'tokyo' }];
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
const now = () => performance.now();
const auctions = new Map();
const rooms = new Map();
const users = new Map();
let ids = 0;
// RUSHROOM_MOCK_VIDEO=1: pictures, by way of a hidden Chromium.
const sfu = process.env.RUSHROOM_MOCK_VIDEO === '1' ? await (await import('./mocksfu.mjs')).mockSfu() : undefined;

function make(over) {
  const id = over.id ?? `lot${(ids += 1)}`;
  const a = {
    id, version: 1, seller: 'guest-sun-a1b2', title: 'Item', description: '', currency: 'KRW', start_price: 10_000, increments: [[0, 1_000], [100_000, 5_000]],
    duration_ms: 120_000, guests: true, pause_without_stream: false, phase: 'draft', seq: 0, price: 0, bids: 0, ct: 0, h: '0'.repeat(64), shard: 1 + (id.length % 15),
    events: [], chat: [], ...over,
  };
  a.price = over.price ?? a.start_price;
  a.least = least(a);
  auctions.set(id, a);
  return a;
}
const step = (a) => a.increments.filter(([from]) => from <= a.price).at(-1)[1];
function least(a) { return a.bids === 0 ? a.start_price : a.price + step(a); }
function view(a) {
  const { events, chat, verdicts, ...rest } = a;
  return { ...rest, least: least(a), now: Math.round(now()) };
}
function emit(a, event) {
  a.seq += 1;
  a.ct = Math.round(now());
  const e = { seq: a.seq, ct: a.ct, ends_at: a.ends_at ?? 0, price: a.price, leader: a.leader ?? null, h: String(a.seq).padStart(64, '0'), ...event };
  a.events.push(e);
  tell(a.id, { t: 'event', a: a.id, event: e });
  return e;
}
function tell(id, message) {
  const text = JSON.stringify(message);
  for (const socket of rooms.get(id) ?? []) socket.send(text);
}
const clock = (a) => ({ t: 'clock', a: a.id, now: Math.round(now()), ends_at: a.ends_at ?? null, s: now(), err_ms: 1, held: a.held ?? false });
function verdict(a, ok, code, dup = false) {
  return { ok, ...(code && { code }), seq: a.seq, price: a.price, least: least(a), leader: a.leader ?? null, phase: a.phase, ct: a.ct, ends_at: a.ends_at ?? null, h: a.h, dup };
}
function bid(a, actor, id, amount) {
  a.verdicts ??= new Map();
  const key = `${actor}/${id}`;
  const before = a.verdicts.get(key);
  if (before) return { ...before, dup: true };
  const code = a.phase === 'closed' ? 'closed' : a.phase === 'paused' ? 'paused' : a.phase !== 'live' ? 'not_open'
    : actor === a.seller ? 'own' : a.leader === actor ? 'leading' : amount < least(a) ? 'low' : amount > 1e15 ? 'too_big' : undefined;
  if (code) return verdict(a, false, code);
  const left = Math.max(0, a.ends_at - now());
  let after = left;
  if (a.rush) {
    const ppm = Math.min(a.rush.cut_ppm_max, Math.floor((a.rush.cut_per_raise_ppm * (amount - a.price)) / Math.max(a.price, 1)));
    after = Math.max(left - (left * ppm) / 1e6, Math.min(left, a.rush.floor_ms));
  }
  const cut = Math.round(left - after);
  let more = 0;
  if (a.soft_close && after < a.soft_close.window_ms) more = Math.round(a.soft_close.reset_to_ms - after);
  a.ends_at = Math.round(a.ends_at - cut + more);
  a.price = amount;
  a.leader = actor;
  a.bids += 1;
  emit(a, { ty: 'bid', actor, id, amount, cut_ms: cut, extended_ms: more });
  tell(a.id, clock(a));
  const v = verdict(a, true);
  a.verdicts.set(key, v);
  return v;
}
function start(a) {
  a.phase = 'live';
  a.ends_at = Math.round(now() + a.duration_ms);
  emit(a, { ty: 'open' });
  tell(a.id, clock(a));
}
setInterval(() => {
  for (const a of auctions.values()) {
    if (a.phase === 'live' && now() >= a.ends_at) {
      a.phase = 'closed';
      a.outcome = a.leader ? 'sold' : 'unsold';
      emit(a, { ty: 'close', outcome: a.outcome });
    }
  }
}, 20);
setInterval(() => {
  for (const a of auctions.values()) {
    tell(a.id, clock(a));
    tell(a.id, { t: 'counts', a: a.id, viewers: (rooms.get(a.id)?.size ?? 0) + (a.crowd ?? 0) });
  }
}, 1000);

const problem = (code, status) => ({ type: `/problems/${code}`, title: code, status, code, ko: code });
function sign(name, role) {
  const user = { id: `guest-${name.replace(/[^A-Za-z0-9]/g, '').toLowerCase() || 'anon'}-${Math.random().toString(36).slice(2, 10)}`, name, roles: [role] };
  const token = `mock-${Math.random().toString(36).slice(2)}`;
  users.set(token, user);
  return { token, user, expires_at_ms: Date.now() + 3_600_000 };
}
const cluster = (me) => ({
  me, demo: true, epoch: 3,
  nodes: NODES.map((n, i) => ({ ...n, http: `http://127.0.0.1:${FIRST + i}`, alive: servers.get(n.id).server.listening, weight: 1 })),
  shards: Array.from({ length: 16 }, (_, id) => ({ id, leader: (id % 3) + 1, term: 2, replicas: [1, 2, 3], auctions_live: [...auctions.values()].filter((a) => a.phase === 'live' && a.shard === id).length, held_total_ms: id === 4 ? 312 : 0, applied: 120 + id * 31 })),
  streams: [],
});

async function handle(me, request, response) {
  const url = new URL(request.url, 'http://x');
  const send = (status, body, type = 'application/json') => response.writeHead(status, { 'Content-Type': type, 'Access-Control-Allow-Origin': '*', 'Access-Control-Allow-Headers': '*', 'Access-Control-Allow-Methods': '*', 'Access-Control-Expose-Headers': 'Location' }).end(typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body));
  const refuse = (code, status) => send(status, problem(code, status), 'application/problem+json');
  if (request.method === 'OPTIONS') return send(204, '');
  let text = '';
  for await (const chunk of request) text += chunk;
  const body = text && request.headers['content-type']?.includes('json') ? JSON.parse(text) : {};
  const user = users.get((request.headers.authorization ?? '').replace('Bearer ', ''));
  const parts = url.pathname.split('/').filter(Boolean);
  if (url.pathname === '/api/v1/auth/guest') return send(200, sign(body.name ?? 'guest', body.role ?? 'bidder'));
  if (url.pathname === '/api/v1/cluster') return send(200, cluster(me));
  if (url.pathname.startsWith('/api/v1/admin/nodes/')) {
    setTimeout(() => stop(Number(parts[4])), 20);
    return send(202, {});
  }
  if (url.pathname === '/api/v1/auctions' && request.method === 'GET') {
    const states = (url.searchParams.get('state') ?? '').split(',');
    if (states.some((s) => !['live', 'scheduled', 'draft', 'closed'].includes(s))) return refuse('bad_request', 400);
    const seller = url.searchParams.get('seller');
    const shown = (a) => states.includes(a.phase === 'paused' ? 'live' : a.phase) && (a.phase !== 'draft' || a.seller === user?.id) && (!seller || a.seller === seller);
    return send(200, { items: [...auctions.values()].filter(shown).map(view), next: null, missing: [] });
  }
  if (url.pathname === '/api/v1/auctions') {
    if (!user) return refuse('auth', 401);
    return send(201, view(make({ ...body, seller: user.id })));
  }
  if (parts[2] === 'auctions' && parts[3]) {
    const a = auctions.get(parts[3]);
    if (!a) return refuse('not_found', 404);
    const verb = parts[4];
    if (!verb) return send(200, view(a));
    if (verb === 'export') return send(200, [{ format: 'rushroom-export/1', auction: view(a) }, ...a.events].map((x) => JSON.stringify(x)).join('\n'));
    if (a.seller !== user?.id) return refuse('auth', 403);
    if (verb === 'start') start(a);
    if (verb === 'pause') { a.left_ms = Math.round(a.ends_at - now()); a.phase = 'paused'; emit(a, { ty: 'pause', left_ms: a.left_ms }); }
    if (verb === 'resume') { a.ends_at = Math.round(now() + a.left_ms); a.phase = 'live'; a.left_ms = null; emit(a, { ty: 'resume', dms: 0 }); tell(a.id, clock(a)); }
    if (verb === 'extend') { a.ends_at += body.ms; emit(a, { ty: 'extend', dms: body.ms }); tell(a.id, clock(a)); }
    if (verb === 'cancel') { a.phase = 'closed'; a.outcome = 'cancelled'; emit(a, { ty: 'close', outcome: 'cancelled' }); }
    if (verb === 'schedule') { a.phase = 'scheduled'; a.start_at_ms = body.start_at_ms; tell(a.id, { t: 'changed', a: a.id, auction: view(a) }); }
    return send(200, view(a));
  }
  if (parts[0] === 'media') return send(204, '');
  if (parts[0] === 'whip' || parts[0] === 'whep') {
    if (!sfu) return refuse('unavailable', 503);
    const a = auctions.get(parts[1]);
    const answer = await sfu[parts[0]](parts[1], text);
    if (parts[0] === 'whip') {
      a.stream = { node: me, id: `s${(ids += 1)}` };
      if (a.phase === 'live') emit(a, { ty: 'stream', node: me, stream: a.stream.id });
      else tell(a.id, { t: 'changed', a: a.id, auction: view(a) });
    }
    response.setHeader('Location', `/media/m${(ids += 1)}`);
    return send(201, answer, 'application/sdp');
  }
  const file = join(DIST, extname(url.pathname) ? url.pathname : 'index.html');
  if (!file.startsWith(DIST) || !existsSync(file)) return refuse('not_found', 404);
  send(200, readFileSync(file), TYPES[extname(file)] ?? 'application/octet-stream');
}

function serveSocket(me, socket) {
  const node = NODES[me - 1];
  const say = (message) => socket.send(JSON.stringify(message));
  let user;
  say({ t: 'hello', node: me, region: node.region, s: now() });
  socket.on('message', (data) => {
    const m = JSON.parse(String(data));
    const a = auctions.get(m.a);
    if (m.t === 'ping') return say({ t: 'pong', c: m.c, s: now() });
    if (m.t === 'hello') {
      user = users.get(m.token);
      if (!user) return socket.close(4401);
      return say({ t: 'hello', node: me, region: node.region, user, s: now() });
    }
    if (!a) return say({ t: 'problem', problem: problem('not_found', 404), a: m.a, ...(m.id && { id: m.id }) });
    if (m.t === 'join') {
      if (!rooms.has(a.id)) rooms.set(a.id, new Set());
      rooms.get(a.id).add(socket);
      if (m.epoch === 1 && m.offset <= a.seq) {
        say({ t: 'resumed', a: a.id, epoch: 1, offset: m.offset });
        for (const event of a.events.filter((e) => e.seq > m.offset)) say({ t: 'event', a: a.id, event });
      } else {
        say({ t: 'snap', a: a.id, epoch: 1, offset: a.seq, auction: view(a), recent: a.events.slice(-50) });
      }
      say(clock(a));
      for (const chat of a.chat) say({ t: 'chat', a: a.id, chat });
      say({ t: 'counts', a: a.id, viewers: rooms.get(a.id).size + (a.crowd ?? 0) });
    } else if (m.t === 'bid') {
      if (!user) return say({ t: 'verdict', a: a.id, id: m.id, problem: problem('auth', 401) });
      const v = bid(a, user.id, m.id, m.amount);
      say(v.ok ? { t: 'verdict', a: a.id, id: m.id, verdict: v } : { t: 'verdict', a: a.id, id: m.id, problem: { ...problem(v.code, 409), verdict: v } });
    } else if (m.t === 'chat') {
      if (!user) return say({ t: 'problem', problem: problem('auth', 401), a: a.id, id: m.id });
      talk(a, user.id, user.name, m.text, m.id);
    }
  });
  socket.on('close', () => { for (const room of rooms.values()) room.delete(socket); });
}
function talk(a, from, name, text, id = `c${Math.random()}`) {
  const chat = { chat_epoch: 1, cseq: a.chat.length + 1, from, name, id, text };
  a.chat.push(chat);
  tell(a.id, { t: 'chat', a: a.id, chat });
}

// The show.
const rush = { cut_ppm_max: 500_000, cut_per_raise_ppm: 1_000_000, floor_ms: 10_000 };
const seeds = [
  { id: 'celadon', title: '청자 상감 매병 · Celadon vase, 1970s', description: 'Hand-thrown in Icheon. Height 32 cm, no chips or cracks.\n이천에서 빚은 청자입니다. 높이 32 cm, 상태 좋음.', duration_ms: 900_000, rush, crowd: 128 },
  { id: 'lens50', title: 'Leica Summicron 50 mm f/2, 1969', currency: 'USD', start_price: 25_000, increments: [[0, 500]], duration_ms: 540_000, rush, seller: 'guest-jonas-k2p9', crowd: 43, reserve_met: false },
  { id: 'sneaker', title: '한정판 스니커즈 270 mm 미착용', start_price: 120_000, increments: [[0, 2_000]], duration_ms: 240_000, soft_close: { window_ms: 10_000, reset_to_ms: 15_000, extensions_max: 50 }, seller: 'guest-haneul-77ab', crowd: 12 },
];
for (const seed of seeds) start(make(seed));
make({ id: 'teaset', title: '백자 다기 세트 5인용', phase: 'scheduled', start_at_ms: Date.now() + 1_500_000, start_price: 45_000 });
Object.assign(make({ id: 'watch', title: 'Seiko 5 Sports, 1983', currency: 'USD', start_price: 8_000 }), { phase: 'closed', outcome: 'sold', bids: 17, price: 21_500, leader: 'guest-ivo-1a2b', seq: 19 });
Object.assign(make({ id: 'book', title: '초판본 시집, 1948', start_price: 30_000 }), { phase: 'closed', outcome: 'unsold' });
const bots = ['guest-minji-q1w2', 'guest-ivo-1a2b', 'guest-dohyun-z9x8', 'guest-ana-m3n4'];
const lines = ['와 색이 정말 곱네요', 'Is the base signed?', '배송은 언제 되나요?', 'going fast!', '바닥도 보여 주세요', 'Lovely glaze.'];
setInterval(() => {
  for (const { id } of seeds) {
    const a = auctions.get(id);
    if (a.phase !== 'live') continue;
    if (Math.random() < 0.25) bid(a, bots[Math.floor(Math.random() * bots.length)], `b${Math.random()}`, least(a) + step(a) * Math.floor(Math.random() * 2));
    if (Math.random() < 0.3) {
      const from = bots[Math.floor(Math.random() * bots.length)];
      talk(a, from, from.split('-')[1].replace(/^./, (c) => c.toUpperCase()), lines[Math.floor(Math.random() * lines.length)]);
    }
  }
}, 2_000);

const servers = new Map();
for (const [i, node] of NODES.entries()) {
  const server = createServer((request, response) => handle(node.id, request, response).catch((error) => response.writeHead(500).end(String(error))));
  const sockets = new WebSocketServer({ server, path: '/ws', maxPayload: 4096 });
  sockets.on('connection', (socket) => serveSocket(node.id, socket));
  const open = new Set();
  server.on('connection', (socket) => open.add(socket.once('close', () => open.delete(socket))));
  server.listen(FIRST + i, '127.0.0.1');
  servers.set(node.id, { server, open });
}
/** As a crash: every connection of that node is gone at once, and for good. */
function stop(id) {
  const { server, open } = servers.get(id);
  server.close();
  for (const socket of open) socket.destroy();
}
console.log(`mock on http://127.0.0.1:${FIRST}`);
