'use strict';
// A seeded random application on a real BullMQ: many jobs of every kind, until all is at rest.
//   node workload.js '{"bullmq": DIR, "port": 6379, "queue": "a", "seed": 1, "jobs": 300, "shared": false}'
// Prints JSON lines: {"log": {...}} for each finished attempt the application saw, {"done": true} at the end.
// Left out: what BullMQ does without an entry (drain, clean, obliterate, updateData, changePriority, upsert over a pending job).
const path = require('path');
const config = JSON.parse(process.argv[2]);
const modules = path.join(config.bullmq, 'node_modules');
const bullmq = require(path.join(modules, 'bullmq'));
const major = Number(require(path.join(modules, 'bullmq', 'package.json')).version.split('.')[0]);
const connection = () => ({ host: '127.0.0.1', port: config.port, db: config.db || 0, maxRetriesPerRequest: null });

let seed = config.seed >>> 0;
const random = () => { // mulberry32
  seed = (seed + 0x6d2b79f5) >>> 0;
  let t = seed;
  t = Math.imul(t ^ (t >>> 15), t | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
};
const below = n => Math.floor(random() * n);
const chance = p => random() < p;
const pick = list => list[below(list.length)];
const sleep = ms => new Promise(r => setTimeout(r, ms));
const say = line => process.stdout.write(JSON.stringify(line) + '\n');

const queues = [];
const workers = [];
const open = name => { const q = new bullmq.Queue(name, { connection: connection(), streams: { events: { maxLen: 1000000 } } }); q.on('error', () => {}); queues.push(q); return q; };

const attempts = new Map(); // by job id: how often its processor was entered
async function process_(job, token) {
  const n = (attempts.get(job.id) || 0) + 1;
  attempts.set(job.id, n);
  const plan = job.data.plan || {};
  for (const p of plan.progress || []) await job.updateProgress(p);
  if (plan.sleep) await sleep(plan.sleep);
  if (plan.moveToDelayed && n === 1) { await job.moveToDelayed(Date.now() + plan.moveToDelayed, token); throw new bullmq.DelayedError(); }
  if (n <= (plan.fails || 0)) {
    if (plan.unrecoverable) throw new bullmq.UnrecoverableError(`token revoked for ${job.name}`);
    throw new Error(`attempt ${n} of ${job.name}: Kafka broker unreachable`);
  }
  return plan.returns === undefined ? undefined : plan.returns;
}

function work(name, concurrency) {
  const worker = new bullmq.Worker(name, process_, { connection: connection(), concurrency });
  worker.on('error', () => {});
  const log = (state, job) => job && say({ log: { queue: name, id: job.id, state, timestamp: job.timestamp, attemptsMade: job.attemptsMade,
    finishedOn: job.finishedOn, failedReason: job.failedReason, returnvalue: job.returnvalue === undefined ? null : job.returnvalue, data: job.data, name: job.name } });
  worker.on('completed', job => log('completed', job));
  worker.on('failed', job => { if (job && job.finishedOn) log('failed', job); });
  workers.push(worker);
  return worker;
}

function plan() {
  const progress = Array.from({ length: below(3) }, () => pick([10, 50, 100, { step: below(5), of: 5 }, 'half way', true]));
  return { progress, sleep: chance(0.5) ? below(15) : 0, fails: chance(0.3) ? 1 + below(3) : 0, unrecoverable: chance(0.1),
    returns: pick([undefined, null, 7, 'text', { records: 12 }, [1, 2]]), moveToDelayed: chance(0.05) ? 20 + below(200) : 0 };
}
function options() {
  const o = { attempts: 1 + below(3) };
  if (chance(0.3)) o.delay = below(600);
  if (chance(0.3)) o.priority = 1 + below(10);
  if (chance(0.5)) o.backoff = pick([50, { type: 'exponential', delay: 20 }, { type: 'fixed', delay: 100 }]);
  if (chance(0.3)) o.removeOnComplete = pick([true, 10, { age: 3600, count: 20 }]);
  if (chance(0.2)) o.removeOnFail = pick([true, 10]);
  if (chance(0.1)) o.lifo = true;
  return o;
}
let named = 0;
const add = (q, o = options()) => q.add(`crawl-${pick(['drive', 'gmail', 'notion'])}`, { connector: 'drive', n: named++, plan: plan() }, o);

async function main() {
  const queue = open(config.queue);
  const files = open(`${config.queue}-files`);
  const held = open(`${config.queue}-held`);
  work(config.queue, 5);
  work(`${config.queue}-files`, 3);
  const flows = new bullmq.FlowProducer({ connection: connection() });
  const ids = [];
  const reusable = [];
  for (let i = 0; i < config.jobs; i++) {
    const job = await add(queue);
    ids.push(job.id);
    await act(queue, flows, ids, reusable, i);
  }
  await queue.resume();
  // At rest with something in every place: delayed for long, paused, waiting for a child that waits for nobody.
  for (let i = 0; i < 5; i++) await add(queue, { delay: 3600000 + i, attempts: 2 });
  for (let i = 0; i < 5; i++) await add(held, i % 2 ? { priority: i } : {});
  if (!config.shared) await held.pause();
  for (let i = 0; i < 3; i++) await add(held, i % 2 ? { priority: i } : {});
  await flows.add({ name: 'parent', queueName: config.queue, data: {}, children: [{ name: 'child', queueName: `${config.queue}-held`, data: {} }] });
  await rest(queue);
  await rest(files);
  for (const worker of workers) await worker.close();
  say({ done: true });
  setTimeout(() => process.exit(0), 50);
}

async function act(queue, flows, ids, reusable, i) {
  const dice = below(100);
  const job = dice < 30 ? await queue.getJob(pick(ids)) : null;
  const attempt = async f => { try { await f(); } catch (e) { /* refused in that state: as an application sees it */ } };
  if (job && dice < 6) await attempt(() => job.remove());
  else if (job && dice < 10) await attempt(() => job.promote());
  else if (job && dice < 14) await attempt(() => job.changeDelay(below(300)));
  else if (job && dice < 22) await attempt(() => job.retry(pick(['failed', 'completed'])));
  // Not in a queue shared by 5 and 6: a job added by 6 while paused waits in `wait`, and the next pause of 5 renames
  // that list over `paused`: BullMQ loses the jobs there (getState says unknown).
  else if (dice >= 30 && dice < 33 && !config.shared) await queue.pause();
  else if (dice >= 33 && dice < 40) await queue.resume();
  else if (dice >= 40 && dice < 44) {
    await flows.add({ name: 'parent', queueName: queue.name, data: { plan: plan() }, opts: { attempts: 1 + below(2) }, children:
      Array.from({ length: 1 + below(3) }, (_, c) => ({ name: 'child', queueName: `${config.queue}-files`, data: { path: `${i}-${c}`, plan: { sleep: below(10) } }, opts: chance(0.3) ? { delay: below(200) } : {} })) });
  } else if (dice >= 44 && dice < 50) { // the same custom id, again and again
    const jobId = `crawl-drive-${below(4)}-${config.queue}`;
    if (chance(0.6)) { const old = await queue.getJob(jobId); if (old) await attempt(() => old.remove()); }
    await queue.add('crawl-drive', { connector: 'drive', n: named++, plan: plan() }, { jobId, attempts: 2 });
  } else if (dice >= 50 && dice < 53 && major > 4 && !config.shared) {
    const id = `scheduler-${named++}`;
    await queue.upsertJobScheduler(id, { every: 100 + below(200), limit: 2 + below(2) }, { name: 'crawl-hourly', data: { plan: plan() }, opts: { attempts: 2 } });
  } else if (dice >= 53 && dice < 56 && major > 4) {
    await queue.add('crawl-dedup', { n: named++ }, { deduplication: { id: `d${below(3)}` } });
  } else if (dice < 90) await sleep(below(8));
}

async function rest(queue) {
  for (let quiet = 0; quiet < 5;) {
    const counts = await queue.getJobCounts('wait', 'active', 'paused', 'prioritized', 'delayed');
    const soon = (await queue.getDelayed()).filter(j => j && j.delay < 3000000).length;
    quiet = counts.wait || counts.active || counts.paused || counts.prioritized || soon ? 0 : quiet + 1;
    await sleep(50);
  }
}
process.on('unhandledRejection', e => { say({ error: String(e && e.stack) }); process.exit(1); });
main();
