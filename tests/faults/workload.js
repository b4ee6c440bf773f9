'use strict';
// A seeded application on a real BullMQ that goes on whatever happens to its Redis, until it is told to rest.
//   node workload.js '{"bullmq": DIR, "port": 6379, "app": "v6", "seed": 1, "jobs_per_s": 15}'
// Reads commands as JSON lines: {"id": 1, "do": "rest"}; answers {"id": 1, "ok": true, ...} or {"id": 1, "error": "..."}.
// Prints {"log": {...}} for each end of a job that it saw. Queues: <app> and <app>-files are worked on, <app>-held is paused
// and nobody's, <app>-stuck is worked on by a process that is killed.
const path = require('path');
const readline = require('readline');
const { fork } = require('child_process');
const config = JSON.parse(process.argv[2]);
const modules = path.join(config.bullmq, 'node_modules');
const bullmq = require(path.join(modules, 'bullmq'));
const major = Number(require(path.join(modules, 'bullmq', 'package.json')).version.split('.')[0]);
const connection = () => ({ host: '127.0.0.1', port: config.port, maxRetriesPerRequest: null, retryStrategy: n => Math.min(50 * n, 500) });
const BEATS = { lockDuration: 3000, stalledInterval: 1000 };

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
const within = (ms, promise) => Promise.race([promise, sleep(ms).then(() => { throw new Error(`not within ${ms} ms`); })]);
// Redis may be gone, set back or another one: what it refuses then an application has to live with.
const attempt = async f => { try { return await within(15000, f()); } catch (e) { return undefined; } };

const open = name => { const q = new bullmq.Queue(name, { connection: connection(), streams: { events: { maxLen: 10000 } } }); q.on('error', () => {}); return q; };

const attempts = new Map(); // by job: how often its processor was entered
async function run(job, token) {
  const life = `${job.queueName}/${job.id}/${job.timestamp}`;
  const n = (attempts.get(life) || 0) + 1;
  attempts.set(life, n);
  const plan = (job.data && job.data.plan) || {};
  for (const p of plan.progress || []) await job.updateProgress(p);
  if (plan.sleep) await sleep(plan.sleep);
  if (plan.moveToDelayed && n === 1) { await job.moveToDelayed(Date.now() + plan.moveToDelayed, token); throw new bullmq.DelayedError(); }
  if (n <= (plan.fails || 0)) {
    if (plan.throws === 'string') throw `a string, attempt ${n}`; // eslint-disable-line no-throw-literal
    if (plan.throws === 'unrecoverable') throw new bullmq.UnrecoverableError(`token revoked for ${job.name}`);
    if (plan.throws === 'long') throw new Error('ä'.repeat(150000));
    if (plan.throws === 'ours') throw new Error('child process failed');
    throw new Error(`attempt ${n} of ${job.name}: Kafka broker unreachable`);
  }
  return plan.returns;
}

function work(name, options, process_ = run) {
  const worker = new bullmq.Worker(name, process_, { connection: connection(), ...BEATS, ...options });
  worker.on('error', () => {});
  const log = (state, job) => job && say({ log: { queue: name, id: job.id, state, timestamp: job.timestamp, attempts_made: job.attemptsMade,
    finished_on: job.finishedOn, failed_reason: (job.failedReason || '').slice(0, 300), n: job.data && job.data.n, name: job.name,
    stays: !job.opts.removeOnFail } });
  worker.on('completed', job => log('completed', job));
  worker.on('failed', job => { if (job && job.finishedOn) log('failed', job); });
  return worker;
}

const fill = () => { // 1 B to 1 MB, mostly small
  const p = random();
  return 'x'.repeat(p < 0.8 ? 1 + below(500) : p < 0.97 ? below(5000) : p < 0.997 ? below(100000) : below(900000));
};
function plan() {
  const progress = Array.from({ length: below(3) }, () => pick([10, 50, 100, { step: below(5), of: 5 }, 'half way', true]));
  return { progress, sleep: chance(0.5) ? below(60) : 0, fails: chance(0.3) ? 1 + below(3) : 0, throws: chance(0.3) ? pick(['string', 'unrecoverable', 'ours', chance(0.1) ? 'long' : 'string']) : null,
    returns: pick([undefined, null, 7, 'text', { records: 12 }, [1, 2]]), moveToDelayed: chance(0.05) ? 20 + below(500) : 0 };
}
function options() {
  const o = { attempts: 1 + below(3), removeOnComplete: pick([true, 10, 30, { age: 3600, count: 20 }]) };
  if (chance(0.3)) o.delay = below(1500);
  if (chance(0.3)) o.priority = 1 + below(10);
  if (chance(0.5)) o.backoff = pick([50, { type: 'exponential', delay: 20 }, { type: 'fixed', delay: 300 }]);
  if (chance(0.4)) o.removeOnFail = pick([true, 10]);
  if (chance(0.1)) o.lifo = true;
  return o;
}
let named = config.first || 0;
function data() {
  const planned = plan();
  return { connector: 'drive', n: named++, fill: planned.throws === 'long' ? 'x' : fill(), plan: planned }; // both would be too much for Kafka
}

const names = { main: config.app, files: `${config.app}-files`, held: `${config.app}-held`, stuck: `${config.app}-stuck` };
const queues = {};
const workers = [];
let flows;
let producing = false;
let busy = Promise.resolve();
const ids = [];

async function produce() {
  for (;;) {
    await sleep(1000 / config.jobs_per_s * (0.5 + random()));
    if (!producing) continue;
    busy = attempt(act);
    await busy;
  }
}

async function act() {
  const dice = below(100);
  const job = dice < 20 && ids.length ? await queues.main.getJob(pick(ids)) : null;
  if (job && dice < 5) await job.remove();
  else if (job && dice < 8) await job.promote();
  else if (job && dice < 11) await job.changeDelay(below(1000));
  else if (job && dice < 19) await job.retry(pick(['failed', 'completed']));
  else if (dice < 21) await queues.main.pause();
  else if (dice < 26) await queues.main.resume();
  else if (dice < 31) await flow();
  else if (dice < 38) { // the same custom id, again and again
    const jobId = `crawl-drive-${below(4)}`;
    if (chance(0.6)) { const old = await queues.main.getJob(jobId); if (old) await old.remove(); }
    await queues.main.add('crawl-drive', data(), { ...options(), jobId });
  } else if (dice < 40 && major > 4) {
    const id = `scheduler-${below(4)}`; // over a pending job: that one is removed without a word
    await queues.main.upsertJobScheduler(id, { every: 200 + below(1000), limit: 2 + below(4) }, { name: 'crawl-hourly', data: data(), opts: { attempts: 2, removeOnComplete: 20 } });
  } else if (dice < 42 && major > 4) await queues.main.add('crawl-dedup', data(), { removeOnComplete: 20, deduplication: { id: `d${below(3)}` } });
  else {
    const added = await queues.main.add(`crawl-${pick(['drive', 'gmail', 'notion'])}`, data(), options());
    ids.push(added.id);
    if (ids.length > 300) ids.shift();
  }
}

async function flow() {
  const child = () => ({ name: 'child', queueName: names.files, data: { n: named++, plan: { sleep: below(30), fails: chance(0.1) ? 9 : 0 } },
    opts: { removeOnComplete: 30, ...(chance(0.3) ? { delay: below(500) } : {}), ...pick([{}, {}, { failParentOnFailure: true }, { ignoreDependencyOnFailure: true }, { removeDependencyOnFailure: true }]) } });
  await flows.add({ name: 'parent', queueName: names.main, data: data(), opts: { attempts: 1 + below(2), removeOnComplete: 30 },
    children: Array.from({ length: 1 + below(3) }, child) });
}

// At rest with something in every place: delayed for long, held, waiting for a child that waits for nobody.
async function park() {
  if ((await queues.main.getDelayedCount()) < 20) for (let i = 0; i < 3; i++) await queues.main.add('crawl-later', data(), { delay: 3600000 + i, attempts: 2 });
  if ((await queues.held.getJobCountByTypes('wait', 'paused', 'prioritized')) < 20) {
    for (let i = 0; i < 4; i++) await queues.held.add('crawl-held', data(), i % 2 ? { priority: i } : {});
    await queues.held.pause();
    await queues.held.add('crawl-held', data(), {});
    await flows.add({ name: 'parent', queueName: names.main, data: data(), children: [{ name: 'child', queueName: names.held, data: data() }] });
  }
}

async function atRest(queue) {
  const counts = await queue.getJobCounts('wait', 'active', 'paused', 'prioritized');
  if (counts.wait || counts.active || counts.paused || counts.prioritized) return false;
  return (await queue.getDelayed(0, 100)).every(job => !job || job.delay >= 3000000);
}

const commands = {
  async go() { producing = true; },
  async rest() { // until nothing moves; called again where this takes too long
    producing = false;
    await busy;
    await within(15000, queues.main.resume());
    for (let quiet = 0; quiet < 5; await sleep(100)) quiet = (await within(15000, atRest(queues.main))) && (await within(15000, atRest(queues.files))) ? quiet + 1 : 0;
    await within(15000, park());
    return { jobs: named };
  },
  async drain(c) { await queues[c.queue].drain(c.delayed === true); },
  async clean(c) { const found = await queues[c.queue].clean(0, 10000, c.state); return { cleaned: found.length }; },
  async obliterate(c) { await queues[c.queue].obliterate({ force: true }); await new bullmq.Queue(names[c.queue], { connection: connection() }).close(); },
  async many(c) { // a burst that its queue forgets by itself
    for (let i = 0; i < c.jobs; i += 100) await queues.main.addBulk(Array.from({ length: Math.min(100, c.jobs - i) }, () => ({ name: 'crawl-burst', data: { n: named++ }, opts: { removeOnComplete: true } })));
  },
  async strand() { // a worker takes two jobs and dies with them
    for (let i = 0; i < 2; i++) await queues.stuck.add('crawl-endless', data(), { attempts: 2 });
    const before = await queues.stuck.getActiveCount();
    const victim = fork(__filename, [JSON.stringify({ ...config, victim: true })], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    try {
      for (let i = 0; (await queues.stuck.getActiveCount()) < before + 2; i++) { if (i > 200) throw new Error('the victim takes no job'); await sleep(50); }
    } finally { victim.kill('SIGKILL'); }
  },
  async rescue() { // another worker finds them, with all that waits there
    const worker = work(names.stuck, { concurrency: 4, lockDuration: 1000, stalledInterval: 300 });
    try {
      for (let i = 0; !(await atRest(queues.stuck)); i++) { if (i > 150) throw new Error('not rescued'); await sleep(100); }
    } finally { await worker.close(); }
  },
};

async function main() {
  for (const [key, name] of Object.entries(names)) queues[key] = open(name);
  flows = new bullmq.FlowProducer({ connection: connection() });
  flows.on('error', () => {});
  workers.push(work(names.main, { concurrency: 5 }), work(names.files, { concurrency: 3 }));
  await queues.held.pause();
  readline.createInterface({ input: process.stdin }).on('line', async line => {
    const command = JSON.parse(line);
    try { say({ id: command.id, ok: true, ...(await within(command.ms || 60000, commands[command.do](command))) }); } catch (e) { say({ id: command.id, error: String((e && e.stack) || e) }); }
  }).on('close', () => process.exit(0));
  say({ ready: true });
  await produce();
}

process.on('unhandledRejection', e => process.stderr.write(`unhandled: ${e && e.stack}\n`));
if (config.victim) work(names.stuck, { concurrency: 2, lockDuration: 1500 }, () => new Promise(() => {}));
else main();
