/** pgbench on this machine with PostgreSQL in a guest: transactions that are under way all the time, and what they have to leave. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { requirePackages } from '../../lab/packages.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';

const ACCOUNTS = 10_000;
/** That of TPC-B as pgbench has it, but most of the time a transaction is open and does nothing. */
const TRANSACTION = `\\set aid random(1, ${ACCOUNTS})
\\set tid random(1, 10)
\\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
\\sleep 200 ms
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = 1;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, 1, :aid, :delta, CURRENT_TIMESTAMP);
END;
`;
const CLIENTS = 4;
/** Fewer accounts than pgbench makes. */
const FILL = `insert into pgbench_branches values (1, 0);
insert into pgbench_tellers select i, 1, 0 from generate_series(1, 10) i;
insert into pgbench_accounts select i, 1, 0, '' from generate_series(1, ${ACCOUNTS}) i`;

/** Programs of PostgreSQL on this machine, as clients of a server. */
class Programs {
  readonly #folder: string;
  readonly #reach: readonly string[];

  /** @param port of this machine that leads to the server */
  constructor(port: number) {
    const versions = '/usr/lib/postgresql';
    const version = readdirSync(versions).sort((a, b) => Number(b) - Number(a))[0]!;
    this.#folder = join(versions, version, 'bin');
    this.#reach = ['-h', '127.0.0.1', '-p', `${port}`, '-U', 'postgres'];
  }

  start(program: string, ...args: string[]): ChildProcess {
    return spawn(join(this.#folder, program), [...this.#reach, ...args], { stdio: 'pipe' });
  }

  async run(program: string, ...args: string[]): Promise<string> {
    const options = { timeout: 600_000 };
    return (await promisify(execFile)(join(this.#folder, program), [...this.#reach, ...args], options)).stdout;
  }

  async ask(query: string): Promise<string> {
    return (await this.run('psql', '-XAtc', query, 'postgres')).trim();
  }
}

const ROWS = 'select count(*) from pgbench_history';

/** How many transactions a database has of all that there were. */
export async function transactions(port: number): Promise<number> {
  return Number(await new Programs(port).ask(ROWS));
}

export class Bank {
  readonly #programs: Programs;
  readonly #bench: ChildProcess;
  readonly #folder = temporaryFolder();
  #said = '';

  private constructor(programs: Programs) {
    this.#programs = programs;
    const script = join(this.#folder, 'script');
    writeFileSync(script, TRANSACTION);
    this.#bench = programs.start('pgbench', '-n', '-f', script, '-c', `${CLIENTS}`, '-T', '36000', 'postgres');
    for (const stream of [this.#bench.stdout!, this.#bench.stderr!])
      stream.setEncoding('utf8').on('data', (text) => (this.#said += text));
  }

  /** Fills the database and begins. @param port of this machine that leads to the server */
  static async open(port: number): Promise<Bank> {
    await requirePackages('servers');
    const programs = new Programs(port);
    await programs.run('pgbench', '-i', '-q', '-I', 'dtp', 'postgres');
    await programs.ask(FILL);
    return new Bank(programs);
  }

  /** Waits for further transactions that are seen by others. */
  async more(count: number): Promise<void> {
    const rows = async () => Number(await this.#programs.ask(ROWS));
    const wanted = (await rows()) + count;
    for (const until = performance.now() + 600_000; (await rows()) < wanted; ) {
      assert.ok(performance.now() < until && this.#bench.exitCode === null, `no more transactions: ${this.#said}`);
      await setTimeout(100);
    }
  }

  /** Has the clients finish, and compares what they were told with what is there. @returns how many transactions there were */
  async settle(): Promise<number> {
    const ended = once(this.#bench, 'exit');
    // As the alarm of -T does: transactions that were begun are finished, no others begun.
    this.#bench.kill('SIGALRM');
    await ended;
    assert.doesNotMatch(this.#said, /error|fatal|abort|lost/i);
    const committed = Number(/transactions actually processed: (\d+)/.exec(this.#said)?.[1]);
    const sums = ['accounts', 'tellers', 'branches'].map(
      (name) => `(select sum(${name[0]}balance) from pgbench_${name})`,
    );
    const found = await this.#programs.ask(`select (${ROWS}), (select sum(delta) from pgbench_history), ${sums}`);
    const [rows, delta, ...balances] = found.split('|');
    assert.equal(Number(rows), committed, this.#said);
    assert.deepEqual(balances, [delta, delta, delta]);
    await this.#programs.run('pg_amcheck', '--install-missing', '--heapallindexed', 'postgres');
    return committed;
  }

  end(): void {
    this.#bench.kill('SIGKILL');
    removeTemporary(this.#folder);
  }
}
