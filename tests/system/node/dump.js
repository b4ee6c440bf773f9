'use strict';
// What BullMQ's own Job says of every job hash of some queues.  node dump.js '{"bullmq": DIR, "port": 6379, "queues": ["a"]}'
// Prints {"<queue>": {"<id>": {...}}}.
const path = require('path');
const config = JSON.parse(process.argv[2]);
const modules = path.join(config.bullmq, 'node_modules');
const bullmq = require(path.join(modules, 'bullmq'));
const { Redis } = require(path.join(modules, 'ioredis'));
const connection = { host: '127.0.0.1', port: config.port, db: config.db || 0, maxRetriesPerRequest: null };

async function main() {
  const all = {};
  for (const name of config.queues) {
    const queue = new bullmq.Queue(name, { connection, skipMetasUpdate: true });
    const client = new Redis({ host: '127.0.0.1', port: config.port, db: config.db || 0 });
    const jobs = (all[name] = {});
    let cursor = '0';
    do {
      const [next, keys] = await client.scan(cursor, 'MATCH', `bull:${name}:*`, 'COUNT', 1000, 'TYPE', 'hash');
      cursor = next;
      for (const key of keys) {
        const fields = await client.hgetall(key);
        if (!('timestamp' in fields) || !('opts' in fields)) continue;
        const id = key.slice(`bull:${name}:`.length);
        const job = await bullmq.Job.fromId(queue, id);
        let state = await job.getState();
        // BullMQ 6 does not know the list in which 4 and 5 keep a paused queue's jobs.
        if (state === 'unknown' && (await client.lpos(`bull:${name}:paused`, id)) !== null) state = 'waiting';
        const orNull = value => (value === undefined ? null : value);
        jobs[id] = { id, name: job.name, data: job.data, progress: job.progress, delay: job.delay, timestamp: job.timestamp,
          attempts_made: job.attemptsMade, finished_on: orNull(job.finishedOn), processed_on: orNull(job.processedOn),
          failed_reason: orNull(job.failedReason), return_value: orNull(job.returnvalue), priority: Number(fields.priority || 0), // BullMQ 4's Job has none of its own
          state, parent: job.parent ? job.parent.id : null, paused: await queue.isPaused() };
      }
    } while (cursor !== '0');
    await queue.close();
  }
  process.stdout.write(JSON.stringify(all) + '\n', () => process.exit(0)); // a pipe takes its time
}
main();
