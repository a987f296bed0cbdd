import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, beforeEach, test } from 'node:test';
import { cacheDirectory, exclusively, requireRoom } from '../../../lab/cache.ts';
import { UnsupportedError } from '../../../src/errors.ts';

const top = mkdtempSync(join(tmpdir(), 'tideover-cache-'));
const environment = { ...process.env };
const children: ChildProcess[] = [];

beforeEach(() => {
  process.env.TIDEOVER_LAB_CACHE = mkdtempSync(join(top, 'cache-'));
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  process.env = { ...environment };
});
after(() => rmSync(top, { recursive: true }));

test("the cache directory: its own variable, XDG's, the home; closed to others", () => {
  process.env.TIDEOVER_LAB_CACHE = join(top, 'own', 'place');
  assert.equal(cacheDirectory(), join(top, 'own', 'place'));
  assert.equal(statSync(cacheDirectory()).mode & 0o777, 0o700);
  delete process.env.TIDEOVER_LAB_CACHE;
  process.env.XDG_CACHE_HOME = join(top, 'xdg');
  assert.equal(cacheDirectory(), join(top, 'xdg', 'tideover-lab'));
  delete process.env.XDG_CACHE_HOME;
  process.env.HOME = join(top, 'home');
  assert.equal(cacheDirectory(), join(top, 'home', '.cache', 'tideover-lab'));
});

test('room: enough, and what is missing where', () => {
  requireRoom(1, 'a byte');
  assert.throws(
    () => requireRoom(1e18, 'everything'),
    (error: Error) =>
      error instanceof UnsupportedError &&
      error.message.startsWith('everything: needs 1000000000.0 GB in ') &&
      error.message.includes(cacheDirectory()),
  );
});

test('works of one name happen one after the other, each in an empty scratch directory', async () => {
  let inside = 0;
  const work = async (scratch: string) => {
    inside++;
    assert.equal(inside, 1);
    assert.deepEqual(readdirSync(scratch), []);
    writeFileSync(join(scratch, 'x'), 'x');
    await new Promise((resolve) => setTimeout(resolve, 10));
    inside--;
    return scratch;
  };
  const scratches = await Promise.all([1, 2, 3, 4].map(() => exclusively('one', work)));
  for (const scratch of scratches) assert.equal(existsSync(scratch), false);
});

test('works of different names happen at once', async () => {
  await exclusively('one', () => exclusively('other', async () => {}));
});

test('a work that throws lets the next one in', async () => {
  await assert.rejects(
    exclusively('one', async () => {
      throw new Error('on purpose');
    }),
    /on purpose/,
  );
  assert.equal(await exclusively('one', async () => 'in'), 'in');
});

test('a holder in another process is waited for; when it is killed its lock and its scratch are gone', async () => {
  const holder = hold();
  const [scratch] = await once(holder.stdout!, 'data');
  const left = String(scratch).trim();
  assert.ok(existsSync(join(left, 'half')));
  mkdirSync(join(cacheDirectory(), 'scratch', 'other~kept'));

  let held = false;
  const next = exclusively('one', async () => {
    held = true;
  });
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.equal(held, false);
  holder.kill('SIGKILL');
  await next;
  assert.equal(existsSync(left), false);
  assert.deepEqual(readdirSync(join(cacheDirectory(), 'scratch')), ['other~kept']);
});

/** A process that does a work named `one` for ever, and prints its scratch directory. */
function hold(): ChildProcess {
  const script = `
    import { writeFileSync } from 'node:fs';
    import { exclusively } from ${JSON.stringify(import.meta.resolve('../../../lab/cache.ts'))};
    await exclusively('one', async (scratch) => {
      writeFileSync(scratch + '/half', 'x');
      console.log(scratch);
      await new Promise((resolve) => setTimeout(resolve, 1e9));
    });`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  return child;
}
