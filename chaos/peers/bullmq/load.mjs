// Load on the queue: closed-loop clients that add a bid as a job and wait until it is completed before the next.
//
//   load.mjs --port REDIS_PORT --clients N --seconds S --payload BYTES
//
// Prints "from" and "until" around the measured time, so that the harness can read the servers' CPU over exactly it, then
// one line of JSON. Why not `job.waitUntilFinished`: it asks Redis once more for each job. One listener on the queue's own
// events, with ids that the clients choose, costs Redis nothing per job: as kind as a client can be.
import { parseArgs } from 'node:util'
import { Queue, QueueEvents } from 'bullmq'
import bullmq from 'bullmq/package.json' with { type: 'json' }

const WARM_MS = 2_000
/** A job without completion for this long has failed, and so has the run. */
const PATIENCE_MS = 30_000

const { values } = parseArgs({
  options: {
    port: { type: 'string' },
    clients: { type: 'string', default: '64' },
    seconds: { type: 'string', default: '8' },
    payload: { type: 'string', default: '128' },
  },
})
const [port, clients, seconds, payload] = ['port', 'clients', 'seconds', 'payload'].map((name) => Number(values[name]))
if (![port, clients, seconds, payload].every((n) => Number.isInteger(n) && n > 0)) {
  fail('--port is needed, and all numbers must be whole and at least 1')
}

const connection = { host: '127.0.0.1', port, maxRetriesPerRequest: null }
const queue = new Queue('bids', { connection, defaultJobOptions: { removeOnComplete: true, removeOnFail: true } })
// From the first event on: by default it would miss those before its first read, and their jobs' clients would wait forever.
const events = new QueueEvents('bids', { connection, lastEventId: '0-0' })
/** Job id → who waits for it. */
const waiting = new Map()
events.on('completed', ({ jobId }) => {
  waiting.get(jobId)?.()
  waiting.delete(jobId)
})
events.on('failed', ({ failedReason }) => fail(`a job failed: ${failedReason}`))
for (const emitter of [queue, events]) emitter.on('error', fail)
await Promise.all([queue.waitUntilReady(), events.waitUntilReady()])

const from = performance.now() + WARM_MS
const until = from + seconds * 1000
const done = Promise.all(Array.from({ length: clients }, (_, n) => one(n)))
await sleep(from - performance.now())
console.log('from')
const before = process.cpuUsage()
await sleep(until - performance.now())
console.log('until')
const spent = process.cpuUsage(before)
const times = Float64Array.from((await done).flat()).sort()
if (times.length === 0) fail('no job was completed')

const at = (q) => Math.round(times[Math.floor(q * (times.length - 1))] * 1000) / 1000
console.log(
  JSON.stringify({
    jobs_per_s: times.length / seconds, p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1), ops: times.length,
    client_cpu_us_per_op: (spent.user + spent.system) / times.length,
    clients, seconds, payload, bullmq: bullmq.version, node: process.version,
  }),
)
process.exit(0)

/** One client: the times of its jobs that lie within the measured time, ms. */
async function one(n) {
  const bid = 'b'.repeat(payload)
  const mine = []
  for (let i = 0; ; i++) {
    const called = performance.now()
    if (called >= until) return mine
    const jobId = `${n}-${i}`
    const completed = new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`job ${jobId} isn't completed`)), PATIENCE_MS)
      waiting.set(jobId, () => (clearTimeout(timer), resolve()))
    })
    await Promise.all([queue.add('bid', { auction: `a${n}`, bid }, { jobId }), completed]).catch(fail)
    const now = performance.now()
    if (called >= from && now <= until) mine.push(now - called)
  }
}

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)))
}

function fail(error) {
  console.error(`load: ${error.stack ?? error}`)
  process.exit(1)
}
