// The one worker of the queue, as the first version of this service had it: concurrency 1, so bids are judged in order.
//
//   worker.mjs --port REDIS_PORT
//
// A job is one bid; judging it is one SET of the auction's newest bid. That is less than judging a bid takes (a read, a
// comparison, a list of bids), so it flatters the queue. Prints "ready" when it takes jobs; SIGTERM ends it.
import { parseArgs } from 'node:util'
import { Redis } from 'ioredis'
import { Worker } from 'bullmq'

const { values } = parseArgs({ options: { port: { type: 'string' } } })
const connection = { host: '127.0.0.1', port: Number(values.port), maxRetriesPerRequest: null }
const store = new Redis(connection)

const worker = new Worker(
  'bids',
  async (job) => {
    await store.set(`auction:${job.data.auction}`, job.data.bid)
  },
  { connection, concurrency: 1, removeOnComplete: { count: 0 }, removeOnFail: { count: 0 } },
)
worker.on('failed', (_job, error) => fail(error))
worker.on('error', fail)

function fail(error) {
  console.error(`worker: ${error.stack ?? error}`)
  process.exit(1)
}

process.on('SIGTERM', () => process.exit(0))
await worker.waitUntilReady()
console.log('ready')
