'use strict';
// What BullMQ's own Job says of every job hash of some queues, whatever the hash holds.
//   node dump.js '{"bullmq": DIR, "port": 6379, "queues": ["a"]}'      prints {"<queue>": {"paused": bool, "jobs": {"<id>": {...}}}}
const path = require('path');
const config = JSON.parse(process.argv[2]);
const modules = path.join(config.bullmq, 'node_modules');
const bullmq = require(path.join(modules, 'bullmq'));
const { Redis } = require(path.join(modules, 'ioredis'));
const connection = { host: '127.0.0.1', port: config.port, maxRetriesPerRequest: null };
const orNull = value => (value === undefined ? null : value);

async function one(client, queue, name, id, fields) {
  const key = `bull:${name}:${id}`;
  const job = await bullmq.Job.fromId(queue, id);
  let state = await job.getState();
  // BullMQ 6 does not know the list in which 4 and 5 keep a paused queue's jobs.
  if (state === 'unknown' && (await client.lpos(`bull:${name}:paused`, id)) !== null) state = 'waiting';
  return { id, name: job.name, data: job.data, progress: job.progress, delay: job.delay, timestamp: job.timestamp,
    attempts_made: job.attemptsMade, finished_on: orNull(job.finishedOn), processed_on: orNull(job.processedOn),
    failed_reason: orNull(job.failedReason), return_value: orNull(job.returnvalue), priority: Number(fields.priority || 0),
    state, locked: (await client.exists(`${key}:lock`)) === 1 };
}

async function main() {
  const all = {};
  const client = new Redis({ host: '127.0.0.1', port: config.port });
  for (const name of config.queues) {
    const queue = new bullmq.Queue(name, { connection, skipMetasUpdate: true });
    const jobs = {};
    let cursor = '0';
    do {
      const [next, keys] = await client.scan(cursor, 'MATCH', `bull:${name}:*`, 'COUNT', 1000, 'TYPE', 'hash');
      cursor = next;
      await Promise.all(keys.map(async key => {
        const fields = await client.hgetall(key);
        if (!('timestamp' in fields) || !('opts' in fields)) return;
        const id = key.slice(`bull:${name}:`.length);
        try { jobs[id] = await one(client, queue, name, id, fields); } catch (e) { // BullMQ's own Job cannot be made of it; where it is can be told all the same
          jobs[id] = { id, error: String(e), state: await queue.getJobState(id), locked: (await client.exists(`bull:${name}:${id}:lock`)) === 1 };
        }
      }));
    } while (cursor !== '0');
    all[name] = { paused: await queue.isPaused(), jobs };
    await queue.close();
  }
  process.stdout.write(JSON.stringify(all) + '\n', () => process.exit(0)); // a pipe takes its time
}
main();
