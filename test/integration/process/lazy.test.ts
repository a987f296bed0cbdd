/** Restoring without waiting for memory: programs that write, move, drop and map it all the time, fork, and check themselves. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { until } from '../patience.ts';
import { rootTest as test } from '../root.ts';
import { Bench, field, free, idsBelow, noneAbandoned, zombie } from './target.ts';

const LOG = 'lazy-pages.log';
const KILLS = process.env.TIDEOVER_FULL ? 60 : 5;

/** An image of a program, whose original is gone. */
async function imageOf(t: TestContext, name: string, ...args: string[]): Promise<{ target: Bench; pid: number }> {
  const target = Bench.of(t);
  const pid = target.start(target.compile(name), args);
  await target.says('ready');
  const ids = idsBelow(pid);
  const { status, stderr } = target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image);
  assert.equal(status, 0, stderr);
  await free(ids);
  return { target, pid };
}

function restore(target: Bench): void {
  const { status, stderr } = target.tideover('restore', '--lazy-pages', '-D', target.image, '-d');
  assert.equal(status, 0, stderr);
}

/** What has been said of it since. */
function logOf(target: Bench): string {
  const file = join(target.image, LOG);
  return existsSync(file) ? readFileSync(file, 'utf8') : '';
}

/** Processes of tideover that bring pages of an image. */
function helpers(target: Bench): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0');
        return line.includes('lazy-pages') && line.includes(target.image) && !zombie(pid);
      } catch {
        return false;
      }
    });
}

function isGone(pid: number): boolean {
  try {
    return zombie(pid);
  } catch {
    return true;
  }
}

test('a program goes on at once, forks, moves and drops what is not there yet, and has it all', async (t) => {
  const { target, pid } = await imageOf(t, 'written');
  restore(target);
  // While pages are still brought, as a rule.
  for (let i = 0; i < 3; i++) {
    process.kill(pid, 'SIGUSR1');
    await setTimeout(20);
  }
  await until(() => helpers(target).length === 0, 'pages are still brought');
  assert.match(logOf(target), /^lazy-pages: \d process(es)?, .* on demand, .* without\n$/);
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('a tree with threads, sessions and a zombie; the process that brings pages was there before', async (t) => {
  const { target, pid } = await imageOf(t, 'tree', '5', '4');
  const server = target.begin('lazy-pages', '-D', target.image);
  await until(() => existsSync(join(target.image, 'lazy-pages.socket')), 'there is no socket');
  const ended = once(server, 'exit');
  restore(target);
  assert.deepEqual(await ended, [0, null]);
  assert.equal(logOf(target), '');
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test(`kill -9 of what brings the pages, at ${KILLS} moments: all go on, or all are killed and it is said`, async (t) => {
  const { target, pid } = await imageOf(t, 'written');
  let [survived, killed] = [0, 0];
  for (let round = 0; round < KILLS; round++) {
    const before = logOf(target).length;
    restore(target);
    await setTimeout(round * 4);
    for (const helper of helpers(target)) process.kill(helper, 'SIGKILL');
    await until(() => helpers(target).length === 0, 'what brings pages does not end');
    // The guard has killed them then, or none.
    await noneAbandoned();
    const said = logOf(target).slice(before);
    if (said.includes('killed before all pages')) {
      killed++;
      assert.match(said, new RegExp(`the processes ${pid}.* were killed; restore them again`));
    } else {
      survived++;
      assert.equal(field(pid, 'TracerPid'), '0');
      process.kill(pid, 'SIGKILL');
    }
    await until(() => isGone(pid), 'it goes on');
    await free([pid]);
  }
  t.diagnostic(`${killed} times killed, ${survived} times all was there before`);
  restore(target);
  await until(() => helpers(target).length === 0, 'pages are still brought');
  process.kill(pid, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('pages that are damaged, and images that cannot be read in any order', async (t) => {
  const { target, pid } = await imageOf(t, 'written');
  for (const images of ['-', 'pkram:x']) {
    const { status, stderr } = target.tideover('restore', '--lazy-pages', '-D', images, '-d');
    assert.match(stderr, /--lazy-pages needs files that can be read in any order/);
    assert.equal(status, 3);
  }
  const file = join(target.image, 'pages-1.img');
  const fd = openSync(file, 'r+');
  const byte = Buffer.alloc(1);
  const at = statSync(file).size - 100;
  readSync(fd, byte, 0, 1, at);
  byte[0]! ^= 1;
  writeSync(fd, byte, 0, 1, at);
  closeSync(fd);
  // The damage may be found before the last step of the restore, which says of some process then that it has ended.
  const { status } = target.tideover('restore', '-D', target.image, '-d', '--lazy-pages');
  assert.ok(status === 0 || status === 1);
  await until(() => isGone(pid), 'it goes on');
  await until(() => logOf(target).includes('CRC-32'), 'nothing is said of the damage');
  assert.match(logOf(target), /CRC-32 of pages-1\.img: expected/);
});
