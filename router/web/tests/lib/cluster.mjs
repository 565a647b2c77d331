// A cluster for a test: `rushroom demo` as a process of its own, or (RUSHROOM_MOCK=1) the stand-in of dev/mock.mjs.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, watch, createWriteStream, mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

const ROOT = new URL('../../../..', import.meta.url).pathname;
export const ARTIFACTS = new URL('../../artifacts', import.meta.url).pathname;
const READY_MS = 60_000;

export const isMock = process.env.RUSHROOM_MOCK === '1';
/** The stand-in has pictures only with its hidden browser. */
export const hasVideo = !isMock || process.env.RUSHROOM_MOCK_VIDEO === '1';

function binary() {
  const target = process.env.CARGO_TARGET_DIR ?? join(ROOT, 'target');
  const found = [process.env.RUSHROOM_BIN, join(target, 'release/rushroom'), join(target, 'debug/rushroom')].find((p) => p && existsSync(p));
  if (!found) throw new Error('no rushroom binary: build it (`cargo build -p node`) or set RUSHROOM_BIN');
  return found;
}

/** Waits until `read()` gives something, looking again whenever a file in `dir` changes (and, as a net, now and then). */
async function until(dir, read, child) {
  return new Promise((resolve, reject) => {
    const done = (finish, value) => {
      watcher.close();
      clearInterval(net);
      clearTimeout(limit);
      finish(value);
    };
    const look = () => {
      const value = read();
      if (value !== undefined) done(resolve, value);
    };
    const watcher = watch(dir, look);
    const net = setInterval(look, 200);
    const limit = setTimeout(() => done(reject, new Error('the cluster did not become ready in time')), READY_MS);
    child.once('exit', (code) => done(reject, new Error(`the cluster ended before it was ready (${code})`)));
    look();
  });
}

/** The lines of a node's log that tell of a panic: bad luck never panics, so each is a bug. */
export const panics = (text) => text.split('\n').filter((line) => line.includes('panicked'));

/** `name` is the test's: logs are kept under it. `restarted(id, pid)` awaits another process of a node, and gives its pid. */
export async function startCluster(name) {
  const dir = mkdtempSync(join(tmpdir(), 'rushroom-web-'));
  const ports = join(dir, 'ports.json');
  mkdirSync(ARTIFACTS, { recursive: true });
  const log = createWriteStream(join(ARTIFACTS, `${name}-cluster.log`));
  if (isMock) return startMock(dir, log, name);
  const child = spawn(binary(), ['demo', '--quiet', '--no-bots', '--dir', join(dir, 'data'), '--ports-file', ports], { stdio: ['ignore', 'pipe', 'pipe'] });
  child.stdout.pipe(log, { end: false });
  child.stderr.pipe(log, { end: false });
  const words = lastWords(child);
  const read = () => {
    try {
      const { nodes } = JSON.parse(readFileSync(ports, 'utf8'));
      return nodes?.length === 3 ? nodes : undefined;
    } catch {
      return undefined;
    }
  };
  await until(dirname(ports), read, child).catch(async (error) => {
    child.kill('SIGKILL');
    throw new Error(`${error.message}\n${await words}`);
  });
  const restarted = (id, pid) => until(dirname(ports), () => {
    const now = read()?.find((node) => node.id === id)?.pid;
    return now === pid ? undefined : now;
  }, child);
  return { ...handle(() => read() ?? [], child, dir, name), restarted };
}

/** The end of what `child` says, once it has said all: an error that only a file tells is lost with the machine it ran on. */
async function lastWords(child) {
  let said = '';
  const hear = (chunk) => (said = (said + chunk).slice(-4_000));
  child.stdout.on('data', hear);
  child.stderr.on('data', hear);
  await new Promise((done) => child.once('close', done));
  return said;
}

async function startMock(dir, log, name) {
  const child = spawn(process.execPath, [new URL('../../dev/mock.mjs', import.meta.url).pathname], { stdio: ['ignore', 'pipe', 'pipe'] });
  child.stdout.pipe(log, { end: false });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  const nodes = [1, 2, 3].map((id) => ({ id, http: `http://127.0.0.1:${8786 + id}`, pid: undefined, region: id === 3 ? 'tokyo' : 'seoul' }));
  return handle(() => nodes, child, dir, name);
}

function handle(nodes, child, dir, name) {
  const base = (node) => (String(node.http).includes('://') ? String(node.http).replace(/\/$/, '') : `http://${node.http}`);
  return {
    nodes,
    base,
    /** A call as any client makes it: what is not available right now (an election) is asked again, under the same key. */
    async api(node, path, options = {}) {
      for (let attempt = 1; ; attempt += 1) {
        const response = await fetch(base(node) + path, options);
        if (response.ok) return response.json();
        const text = await response.text();
        if (![503, 504].includes(response.status) || attempt >= 40) throw new Error(`${path}: ${response.status} ${text}`);
        await new Promise((done) => setTimeout(done, 250));
      }
    },
    /** As a crash: nothing is flushed, nothing said. */
    async kill(node) {
      if (isMock) await fetch(`${base(node)}/api/v1/admin/nodes/${node.id}/stop`, { method: 'POST' });
      else process.kill(node.pid, 'SIGKILL');
    },
    async stop() {
      const gone = new Promise((resolve) => child.once('exit', resolve));
      if (child.exitCode === null) child.kill('SIGINT');
      const hard = setTimeout(() => child.kill('SIGKILL'), 10_000);
      if (child.exitCode === null) await gone;
      clearTimeout(hard);
      const logs = nodes().filter(({ log }) => log && existsSync(log));
      const found = logs.flatMap(({ id, log }) => {
        copyFileSync(log, join(ARTIFACTS, `${name}-node${id}.log`));
        return panics(readFileSync(log, 'utf8')).map((line) => `node ${id}: ${line}`);
      });
      rmSync(dir, { recursive: true, force: true });
      if (!isMock) assert.equal(logs.length, 3, 'every node has a log');
      assert.deepEqual(found, [], 'no node panicked');
    },
  };
}
