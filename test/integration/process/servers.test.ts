/**
 * Servers with clients that are connected all the time: tideover is killed while it saves them and while it makes them again, they
 * are saved, end, and go on; and no client notices more than a pause.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, chownSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { before } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { requirePackages } from '../../../lab/packages.ts';
import { until } from '../patience.ts';
import { rootTest as test } from '../root.ts';
import { Client } from './client.ts';
import { Bench } from './target.ts';
import { through } from './through.ts';

const FULL = process.env.TIDEOVER_FULL !== undefined;

before(() => requirePackages('programs under test', 'servers'));

/** A port that nobody has, below those that connections get. */
async function freePort(): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(10_000 * Math.random());
    const server = createServer();
    try {
      server.listen(port, '127.0.0.1');
      await once(server, 'listening');
      return port;
    } catch {
      // It is taken.
    } finally {
      server.close();
    }
  }
}

test('redis-server with keys, and a client that counts', async (t) => {
  const target = Bench.of(t);
  const port = await freePort();
  const options = ['--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--enable-debug-command', 'yes'];
  const pid = target.start('redis-server', options);
  await target.says('Ready to accept connections');
  const client = await Client.connect(port, '127.0.0.1');
  t.after(() => client.end());
  const keys = FULL ? 1_000_000 : 200_000;
  assert.equal(await client.ask(`DEBUG POPULATE ${keys} key 1000`), '+OK');
  const digest = () => client.ask('DEBUG DIGEST');
  let counted = 0;
  const count = async () => assert.equal(await client.ask('INCR counter'), `:${++counted}`);
  await count();
  const asLong = await digest();
  await through(target, pid, count);
  assert.equal(await client.ask(`SET counter 1`), '+OK');
  assert.equal(await digest(), asLong);
  assert.equal(await client.ask('DBSIZE'), `:${keys + 1}`);
});

test('memcached with a client', async (t) => {
  const target = Bench.of(t);
  const port = await freePort();
  const pid = target.start('memcached', ['-u', 'root', '-l', '127.0.0.1', '-p', `${port}`, '-U', '0', '-t', '4']);
  const client = await Client.connectTo(port, '127.0.0.1');
  t.after(() => client.end());
  const value = createHash('sha512').update('value').digest('hex');
  for (let i = 0; i < 1000; i++)
    assert.equal(await client.ask(`set key${i} 0 0 ${value.length}\r\n${value}\r`), 'STORED');
  let counted = 0;
  assert.equal(await client.ask('set counter 0 0 1\r\n0\r'), 'STORED');
  await through(target, pid, async () => assert.equal(await client.ask('incr counter 1\r'), `${++counted}`));
  for (let i = 0; i < 1000; i += 111) {
    assert.equal(await client.ask(`get key${i}\r`), `VALUE key${i} 0 ${value.length}`);
    assert.equal(await client.line(), value);
    assert.equal(await client.line(), 'END');
  }
});

test('nginx with workers under load', async (t) => {
  const target = Bench.of(t);
  const port = await freePort();
  const work = join(target.folder, 'work');
  mkdirSync(work);
  const page = Buffer.alloc(300_000, 'a page that is longer than what a socket takes at once\n');
  writeFileSync(join(work, 'page'), page);
  writeFileSync(join(work, 'nginx.conf'), nginxConfiguration(work, port));
  const pid = target.start('nginx', ['-p', work, '-c', join(work, 'nginx.conf')]);
  const load = new Load(port, 8, (body) => body.equals(page));
  t.after(() => load.end());
  await through(target, pid, () => load.more());
});

const nginxConfiguration = (folder: string, port: number) => `
daemon off;
worker_processes 2;
user root;
pid ${folder}/pid;
error_log stderr;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path ${folder}/body;
  proxy_temp_path ${folder}/proxy;
  fastcgi_temp_path ${folder}/fastcgi;
  uwsgi_temp_path ${folder}/uwsgi;
  scgi_temp_path ${folder}/scgi;
  keepalive_requests 1000000;
  server { listen 127.0.0.1:${port}; root ${folder}; }
}`;

test('a server of Node with open connections and timers', async (t) => {
  const target = Bench.of(t);
  const port = await freePort();
  const pid = target.start(process.execPath, ['-e', NODE_SERVER, `${port}`]);
  await target.says('listens');
  const events = await Client.connect(port, '127.0.0.1');
  t.after(() => events.end());
  events.write('GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n');
  const load = new Load(port, 4, (body) => /^\d+ x{100000}$/.test(body.toString()));
  t.after(() => load.end());
  let last = -1;
  const tick = async () => {
    for (;;) {
      const ticked = /^data: (\d+)$/.exec(await events.line());
      if (ticked === null) continue;
      const now = Number(ticked[1]);
      assert.ok(last < 0 || now === last + 1, `${now} comes after ${last}`);
      last = now;
      return;
    }
  };
  await through(target, pid, async () => {
    await load.more();
    await tick();
    await tick();
  });
});

const NODE_SERVER = `
let [served, ticks] = [0, 0];
const watchers = new Set();
setInterval(() => {
  for (const each of watchers) each.write('data: ' + ticks + '\\n');
  ticks++;
}, 50);
const server = require('node:http').createServer((request, response) => {
  if (request.url !== '/events') return response.end(++served + ' ' + 'x'.repeat(100000));
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.write('\\n');
  watchers.add(response);
});
server.keepAliveTimeout = 0;
server.listen(Number(process.argv[1]), '127.0.0.1', () => console.log('listens'));
`;

test('PostgreSQL in the middle of pgbench: no row is lost', async (t) => {
  const target = Bench.of(t);
  const port = await freePort();
  // It does not run as root.
  const [uid, gid] = ['-u', '-g'].map((which) => Number(execFileSync('id', [which, 'postgres'], { encoding: 'utf8' })));
  const versions = '/usr/lib/postgresql';
  const programs = join(versions, readdirSync(versions).sort((a, b) => Number(b) - Number(a))[0]!, 'bin');
  const data = join(target.folder, 'work', 'data');
  chmodSync(target.folder, 0o711);
  mkdirSync(join(target.folder, 'work'));
  chownSync(join(target.folder, 'work'), uid!, gid!);
  const options = { cwd: join(target.folder, 'work'), uid: uid!, gid: gid! };
  const run = (program: string, ...args: string[]) =>
    execFileSync(join(programs, program), args, { ...options, encoding: 'utf8', stdio: 'pipe' });
  run('initdb', '-D', data, '-U', 'postgres', '-A', 'trust', '--no-sync', '-E', 'UTF8', '--locale=C');
  const settings = [
    'unix_socket_directories=',
    'listen_addresses=127.0.0.1',
    'max_connections=20',
    'shared_buffers=32MB',
    // It would take those of a test beside it, whose pool grows and shrinks.
    'huge_pages=off',
  ];
  const server = ['-D', data, '-p', `${port}`, ...settings.flatMap((each) => ['-c', each])];
  const pid = target.start(join(programs, 'postgres'), server, options);
  await target.says('ready to accept connections');
  const reach = ['-h', '127.0.0.1', '-p', `${port}`, '-U', 'postgres'];
  const sql = (text: string) => run('psql', ...reach, '-XAtc', text, 'postgres').trim();
  run('pgbench', ...reach, '-i', '-q', '-s', '2', 'postgres');
  // Each of its transactions adds the same to an account, a teller and a branch, and a row to the history.
  const bank = spawn(
    join(programs, 'pgbench'),
    [...reach, '-c', '4', '-j', '2', '-T', '3600', '-n', 'postgres'],
    options,
  );
  t.after(() => bank.kill('SIGKILL'));
  let said = '';
  for (const stream of [bank.stdout, bank.stderr]) stream.setEncoding('utf8').on('data', (text) => (said += text));
  const ended = once(bank, 'exit');
  const rows = () => Number(sql('select count(*) from pgbench_history'));
  // One that is told of each row that it is there for good.
  const clerk = spawn(join(programs, 'psql'), [...reach, '-X', 'postgres'], options);
  t.after(() => clerk.kill('SIGKILL'));
  let told = '';
  clerk.stdout.setEncoding('utf8').on('data', (text) => (told += text));
  clerk.stdin.write('create table kept (row int primary key);\n');
  let kept = 0;
  const keep = async () => {
    clerk.stdin.write(`insert into kept values (${kept});\n`);
    const isKept = () => (told.match(/INSERT 0 1/g) ?? []).length > kept;
    await until(
      () => clerk.exitCode !== null || isKept(),
      () => told,
    );
    assert.ok(isKept(), told);
    kept++;
  };
  await through(target, pid, async () => {
    await keep();
    const wanted = rows() + 20;
    await until(
      () => bank.exitCode !== null || rows() >= wanted,
      () => said,
    );
    assert.equal(bank.exitCode, null, said);
  });
  await keep();
  bank.kill('SIGINT');
  await ended;
  assert.equal(sql('select count(*), max(row) + 1 from kept'), `${kept}|${kept}`);
  const sums = ['accounts', 'tellers', 'branches'].map(
    (table) => `(select sum(${table[0]}balance) from pgbench_${table})`,
  );
  const [delta, ...balances] = sql(`select (select sum(delta) from pgbench_history), ${sums}`).split('|');
  assert.deepEqual(balances, [delta, delta, delta]);
  assert.doesNotMatch(said, /error|FATAL|lost/i);
  run('pg_amcheck', ...reach, '--install-missing', '--heapallindexed', 'postgres');
  assert.doesNotMatch(target.log, /PANIC|FATAL|terminated by signal|corrupt/);
});

/** Node looks after a second whether the other side is there, and takes it for gone after ten more. */
const KEPT = { keepAlive: true, keepAliveMsecs: 3600_000, maxSockets: 1 };

/** Clients that ask for one page after the other, each over one connection that it never opens again. */
class Load {
  readonly #agents: readonly Agent[];
  readonly #faults: string[] = [];
  #served = 0;
  #ended = false;

  /** @param right whether an answer is what it is to be */
  constructor(port: number, clients: number, right: (body: Buffer) => boolean) {
    this.#agents = Array.from({ length: clients }, () => new Agent(KEPT));
    for (const agent of this.#agents) void this.#ask(port, agent, right);
  }

  async #ask(port: number, agent: Agent, right: (body: Buffer) => boolean): Promise<void> {
    for (let first = true; !this.#ended; ) {
      try {
        const { body, reused } = await fetchPage(port, agent);
        if (!right(body)) this.#faults.push(`${body.length} bytes: ${body.subarray(0, 80)}`);
        if (!first && !reused) this.#faults.push('a connection was lost');
        first = false;
        this.#served++;
      } catch (error) {
        // The server may not listen yet.
        if (!first && !this.#ended) this.#faults.push((error as Error).message);
        await setTimeout(10);
      }
    }
  }

  /** Waits until each client has got some more answers. */
  async more(): Promise<void> {
    const wanted = this.#served + 10 * this.#agents.length;
    await until(() => this.#served >= wanted || this.#faults.length > 0, 'nothing is served any more');
    assert.deepEqual(this.#faults, []);
  }

  end(): void {
    this.#ended = true;
    for (const agent of this.#agents) agent.destroy();
  }
}

function fetchPage(port: number, agent: Agent): Promise<{ body: Buffer; reused: boolean }> {
  return new Promise((resolve, reject) => {
    const request = get({ host: '127.0.0.1', port, path: '/page', agent }, (response) => {
      const parts: Buffer[] = [];
      response.on('data', (part: Buffer) => parts.push(part));
      response.on('end', () => resolve({ body: Buffer.concat(parts), reused: request.reusedSocket }));
      response.on('error', reject);
    });
    request.on('error', reject);
  });
}
