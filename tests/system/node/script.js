'use strict';
// A few lines of JavaScript on a real BullMQ, as an application would write them.
//   node script.js '{"bullmq": DIR, "port": 6379, "lines": "await queue(\"q\").add(\"x\", {})"}'
// They see: bullmq, queue(name, options), worker(name, processor, options), ended(name, n), sleep(ms).
// `ended` resolves once so many jobs of a queue are completed or failed for good, counting those that are removed at once.
const path = require('path');
const config = JSON.parse(process.argv[2]);
const modules = path.join(config.bullmq, 'node_modules');
const bullmq = require(path.join(modules, 'bullmq'));
const connection = () => ({ host: '127.0.0.1', port: config.port, db: config.db || 0, maxRetriesPerRequest: null });
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

const queues = new Map();
const workers = [];
const ends = new Map();
function queue(name, options = {}) {
  if (!queues.has(name)) queues.set(name, new bullmq.Queue(name, { connection: connection(), ...options }));
  return queues.get(name);
}
function worker(name, processor, options = {}) {
  const made = new bullmq.Worker(name, processor, { connection: connection(), ...options });
  made.on('error', () => {});
  const end = job => { if (!job || job.finishedOn) ends.set(name, (ends.get(name) || 0) + 1); };
  made.on('completed', end);
  made.on('failed', end);
  workers.push(made);
  return made;
}
async function ended(name, n) { while ((ends.get(name) || 0) < n) await sleep(20); }

const AsyncFunction = Object.getPrototypeOf(async () => {}).constructor;
async function main() {
  await new AsyncFunction('bullmq', 'queue', 'worker', 'ended', 'sleep', config.lines)(bullmq, queue, worker, ended, sleep);
  for (const each of workers) await each.close();
  for (const each of queues.values()) await each.close();
  process.stdout.write('done\n', () => process.exit(0));
}
main().catch(error => { process.stderr.write(`${error.stack}\n`); process.exit(1); });
