/** A damaged image: the place is named, nothing hangs, and no process comes of it. */
import assert from 'node:assert/strict';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import fc from 'fast-check';
import { FormatError, SyscallError, UnsupportedError, VerifyError } from '../../../src/errors.ts';
import { createDirectory, openDirectory } from '../../../src/image/directory.ts';
import { storeFromJson, storeToJson } from '../../../src/image/json.ts';
import { verify } from '../../../src/image/verify.ts';
import { restore } from '../../../src/process/restore.ts';
import { rootTest as test } from '../root.ts';
import { Bench } from './target.ts';

/** The image of a tree that is gone. */
async function imageOf(t: TestContext): Promise<{ target: Bench; pids: number[]; files: Map<string, Buffer> }> {
  const target = Bench.of(t);
  const pid = target.start(target.compile('tree'), ['1', '1']);
  await target.says('ready');
  assert.equal(target.tideover('checkpoint', '-t', `${pid}`, '-D', target.image, '--json').status, 0);
  const shown = JSON.parse(target.tideover('image', 'show', target.image, '--json').stdout);
  const pids = shown.tasks.map((task: { pid: number }) => task.pid);
  for (const each of pids) await target.gone(each);
  const files = new Map(readdirSync(target.image).map((file) => [file, readFileSync(join(target.image, file))]));
  return { target, pids, files };
}

/** Restores here, and expects that it is refused. @returns why */
function refused(image: string, pids: readonly number[], what: string): Error {
  const started = performance.now();
  let found: Error | undefined;
  try {
    const store = openDirectory(image);
    try {
      restore(store, { stopped: false, shellJob: false });
    } finally {
      store.close();
    }
  } catch (error) {
    found = error as Error;
  }
  assert.ok(found !== undefined, `${what}: was restored`);
  const known = [FormatError, VerifyError, UnsupportedError, SyscallError].some((each) => found instanceof each);
  assert.ok(known, `${what}: ${found.stack}`);
  assert.ok(performance.now() - started < 120_000, `${what}: took its time`);
  for (const pid of pids) assert.ok(!existsSync(`/proc/${pid}`), `${what}: left process ${pid}`);
  return found;
}

const STEP = process.env.TIDEOVER_FULL ? 1 : 3;

/** Every field of a header (both magics, the size of the first entry, its first field), and some behind it. */
function* places(file: string, size: number): Generator<number> {
  const few = file.startsWith('pages-') || file === 'tideover.json';
  for (let at = 0; at < size; at += at < 16 ? STEP : few ? 90_001 : 499 * STEP) yield at;
}

test('a flipped bit anywhere is found by verify and by restore, with its file', async (t) => {
  const { target, pids, files } = await imageOf(t);
  // What a restore does not read.
  const unread = /^(stats-dump|tideover\.json)$/;
  let count = 0;
  for (const [file, whole] of files) {
    for (const at of places(file, whole.length)) {
      const flipped = Buffer.from(whole);
      flipped[at]! ^= 1 << (at % 8);
      writeFileSync(join(target.image, file), flipped);
      const what = `${file} byte ${at}`;
      const faults = verify(openDirectory(target.image));
      assert.ok(
        faults.some(({ message }) => message.includes(file) || file === 'tideover.sums'),
        `${what}: ${faults}`,
      );
      if (unread.test(file)) continue;
      const found = refused(target.image, pids, what);
      assert.ok(!(found instanceof SyscallError), `${what}: ${found}`);
      assert.ok(found.message.includes(file) || file === 'tideover.sums', `${what}: ${found}`);
      count++;
    }
    writeFileSync(join(target.image, file), whole);
  }
  assert.ok(count > 100, `${count}`);
  // And the whole one is not refused.
  const { status, stderr } = target.tideover('restore', '-D', target.image, '-d');
  assert.equal(status, 0, stderr);
  process.kill(pids[0]!, 'SIGTERM');
  assert.match(await target.says(/ok\n|faults\n/), /ok\n$/);
});

test('a file that is cut or missing is found by verify and by restore', async (t) => {
  const { target, pids, files } = await imageOf(t);
  for (const [file, whole] of files) {
    const path = join(target.image, file);
    for (const size of new Set([3, whole.length - 1])) {
      truncateSync(path, size);
      assert.notDeepEqual(verify(openDirectory(target.image)), [], file);
      if (file !== 'stats-dump' && file !== 'tideover.json') refused(target.image, pids, `${file} with ${size} bytes`);
      writeFileSync(path, whole);
    }
    rmSync(path);
    assert.notDeepEqual(verify(openDirectory(target.image)), [], file);
    if (file !== 'stats-dump' && file !== 'tideover.json') refused(target.image, pids, `without ${file}`);
    writeFileSync(path, whole);
  }
  for (const file of ['inventory.img', `core-${pids[0]}.img`]) {
    truncateSync(join(target.image, file), 10);
    const { status, stderr } = target.tideover('restore', '-D', target.image, '-d');
    assert.equal(status, 5, stderr);
    assert.match(stderr, new RegExp(`${file}`));
    writeFileSync(join(target.image, file), files.get(file)!);
  }
});

/** Sizes and places that no process has; what is said of each. */
const hostile: readonly [file: RegExp, from: RegExp, to: string, says: RegExp][] = [
  [/^pagemap-\d/, /"nr_pages":\d+/, '"nr_pages":1099511627776', /pagemap-\d+\.img: .* pages in mappings/],
  // Where scratch memory lies.
  [/^pagemap-\d/, /"vaddr":\d+/, '"vaddr":268439552', /pages in mappings of the process, found some at 0x10001000/],
  [/^mm-\d/, /"end":\d+/, '"end":9007199254740991', /mmap.*: ENOMEM/],
  [/^pstree/, /"threads":\[(\d+)/, '"threads":[$1,4194304', /core-4194304\.img: expected the file/],
  [/^fdinfo/, /"fd":0/, '"fd":2147483647', /dup3.*: EBADF/],
  [/^fdinfo/, /"id":\d+/, '"id":4000000000', /file 4000000000/],
];

test('hostile sizes take no memory and no time, and nothing of it is left', async (t) => {
  const { target, pids } = await imageOf(t);
  const [json, changed] = [join(target.folder, 'json'), join(target.folder, 'changed')];
  const convert = (how: typeof storeToJson, from: string, to: string) => {
    const draft = createDirectory(to, undefined);
    how(openDirectory(from), draft);
    draft.commit();
  };
  convert(storeToJson, target.image, json);
  for (const [name, from, to, says] of hostile) {
    const file = join(json, readdirSync(json).find((each) => name.test(each))!);
    const before = readFileSync(file, 'utf8');
    assert.match(before, from, file);
    writeFileSync(file, before.replace(from, to));
    convert(storeFromJson, json, changed);
    const memory = process.memoryUsage.rss();
    assert.match(refused(changed, pids, `${file} with ${to}`).message, says);
    assert.ok(process.memoryUsage.rss() - memory < 512 << 20, `${to} took memory`);
    writeFileSync(file, before);
    rmSync(changed, { recursive: true });
  }
});

test('any damage to an image that has no checksums is refused, or leaves the structure what it was', async (t) => {
  const { target, files } = await imageOf(t);
  const plain = join(target.folder, 'plain');
  mkdirSync(plain);
  const names = [...files.keys()].filter((file) => !file.startsWith('tideover.'));
  for (const file of names) copyFileSync(join(target.image, file), join(plain, file));
  const damage = fc.record({
    file: fc.constantFrom(...names.filter((file) => !file.startsWith('pages-'))),
    place: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
    bytes: fc.uint8Array({ minLength: 1, maxLength: 12 }),
  });
  fc.assert(
    fc.property(fc.array(damage, { minLength: 1, maxLength: 3 }), (list) => {
      const changed = new Set<string>();
      for (const { file, place, bytes } of list) {
        const path = join(plain, file);
        const now = readFileSync(path);
        now.set(bytes.subarray(0, now.length), Math.floor(place * Math.max(1, now.length - bytes.length)));
        writeFileSync(path, now);
        changed.add(file);
      }
      try {
        const before = process.memoryUsage.rss();
        // Faults are gathered; anything else that is thrown is a bug.
        verify(openDirectory(plain));
        assert.ok(process.memoryUsage.rss() - before < 512 << 20, 'a hostile size took memory');
      } finally {
        for (const file of changed) writeFileSync(join(plain, file), files.get(file)!);
      }
    }),
    { numRuns: process.env.TIDEOVER_FULL ? 20_000 : 150 },
  );
});
