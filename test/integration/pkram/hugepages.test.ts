/** Preserved memory in huge pages of this machine: where they lie, who holds them, and what is given back. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { UnsupportedError } from '../../../src/errors.ts';
import { overlaps } from '../../../src/mem/range.ts';
import { HugePageMedium, KeptMedium, NoRoomError, openPkram, type Pkram } from '../../../src/pkram/index.ts';
import { PageFiles } from '../../../src/pkram/pagefiles.ts';
import { isHugePageMount, readHugePagePool, withSurplusHugePages } from '../../../src/sys/hugepages.ts';
import { mount } from '../../../src/sys/mount.ts';
import { asRoot } from '../root.ts';

const HUGE = 2 << 20;
/** Documentation/admin-guide/mm/pagemap.rst */
const KPF_HUGE = 17n;
let folder: string;

beforeEach(() => {
  folder = fs.mkdtempSync(join(tmpdir(), 'pkram-pages-'));
});
afterEach(() => {
  if (isHugePageMount(folder)) HugePageMedium.open({ folder, create: true }).giveBack();
  fs.rmSync(folder, { recursive: true, force: true });
});

/** Flags of the page at a physical address. */
function pageFlags(physical: number): bigint {
  const fd = fs.openSync('/proc/kpageflags', 'r');
  const entry = Buffer.alloc(8);
  fs.readSync(fd, entry, 0, 8, (physical / 4096) * 8);
  fs.closeSync(fd);
  return entry.readBigUInt64LE();
}

/** What is allowed while nobody is taking pages. */
function overcommit(): number {
  return withSurplusHugePages(0, () => readHugePagePool().overcommit);
}

function save(pkram: Pkram, name: string, data: Uint8Array): void {
  const node = pkram.prepareSave(name, { checksums: true });
  const object = node.prepareSaveObject();
  object.write(data);
  for (let at = 0; at + 4096 <= Math.min(data.length, HUGE); at += 4096) {
    object.savePage(data.subarray(at, at + 4096), at / 4096);
  }
  object.finishSaveObject();
  node.finishSave();
}

describe('huge pages', asRoot, () => {
  it('are taken with their physical addresses, and given back', () => {
    const before = overcommit();
    const medium = HugePageMedium.open({ folder, create: true, size: 9 * HUGE - 1 });
    const { ranges, size } = medium;
    assert.ok(size >= 9 * HUGE && size % HUGE === 0);
    assert.equal(
      ranges.reduce((sum, range) => sum + range.size, 0),
      size,
    );
    for (const [i, { start, size: length }] of ranges.entries()) {
      assert.equal(start % HUGE, 0);
      if (i > 0) assert.ok(start > ranges[i - 1]!.start + ranges[i - 1]!.size, 'sorted, and neighbours merged');
      for (let at = start; at < start + length; at += HUGE) assert.ok((pageFlags(at) & (1n << KPF_HUGE)) !== 0n);
    }
    assert.equal(medium.hasMoved(), false);
    const files = fs.readdirSync(folder).sort();
    assert.deepEqual(files.slice(-1), ['lock'], 'nothing is left of what was looked at');
    assert.equal(files.length, size / HUGE + 1);
    medium.giveBack();
    assert.equal(isHugePageMount(folder), false);
    assert.equal(fs.existsSync(folder), false);
    assert.equal(overcommit(), before);
  });

  it('hold nodes when the process that saved is gone, and grow', () => {
    const first = openPkram(HugePageMedium.open({ folder, create: true }));
    const { ranges, size } = first.status();
    const data = randomBytes(size + 7 * HUGE + 5000);
    save(first, 'large', data);
    save(first, 'small', data.subarray(0, 10));
    assert.ok(first.status().size > size);
    assert.equal(first.status().ranges[0]!.start, ranges[0]!.start, 'the superblock stays where it is');
    first.close();

    const second = openPkram(HugePageMedium.open({ folder }));
    assert.equal(second.status().moved, false);
    const load = second.prepareLoad('large', { verify: true });
    const loaded = load.prepareLoadObject()!;
    assert.deepEqual(Buffer.from(loaded.readAll()), data);
    for (let page = loaded.loadPage(); page !== undefined; page = loaded.loadPage()) {
      const at = Number(page.index) * 4096;
      assert.ok(data.subarray(at, at + 4096).equals(page.page));
    }
    load[Symbol.dispose]();
    assert.throws(() => HugePageMedium.open({ folder }), /another process has it open/);
    assert.throws(() => HugePageMedium.open({ folder, readOnly: true }), UnsupportedError);
    second.close();

    const reader = openPkram(HugePageMedium.open({ folder, readOnly: true }));
    const other = openPkram(HugePageMedium.open({ folder, readOnly: true }));
    assert.equal(other.nodes().length, 2);
    assert.throws(() => reader.prepareSave('more'), UnsupportedError);
    reader.close();
    other.close();
  });

  it('stay mapped for one user, who sees what others have written meanwhile', () => {
    openPkram(HugePageMedium.open({ folder, create: true })).close();
    const kept = new KeptMedium(HugePageMedium.open({ folder }));
    const data = randomBytes(9 * HUGE);
    const writer = kept.open(false, {});
    save(writer, 'one', data.subarray(0, 5000));
    assert.throws(() => HugePageMedium.open({ folder, readOnly: true }), /another process has it open/);
    assert.deepEqual([kept.isFree(true), kept.isFree(false)], [false, false]);
    writer.close();

    const other = openPkram(HugePageMedium.open({ folder }));
    assert.throws(() => kept.open(true, {}), /another process has it open/);
    assert.deepEqual([kept.isFree(true), kept.isFree(false)], [true, true]);
    save(other, 'two', data);
    other.close();

    const reader = kept.open(true, {});
    assert.deepEqual(
      reader.nodes().map(({ name }) => name),
      ['one', 'two'],
    );
    assert.throws(() => reader.prepareSave('more'), UnsupportedError);
    using peek = reader.peek('two', { verify: true });
    const [object] = peek.objects();
    assert.deepEqual([kept.isFree(true), kept.isFree(false)], [true, false]);
    const beside = kept.open(true, {});
    reader.unlock();
    assert.throws(() => HugePageMedium.open({ folder }), /another process has it open/);
    assert.equal(beside.nodes().length, 2);
    beside.close();

    const again = kept.open(false, {});
    again.remove('one');
    save(again, 'three', data.subarray(0, 10));
    assert.deepEqual(Buffer.from(object!.readAll()), data, 'who gave its lock up may go on to read');
    const { used, free, sequence } = again.status();
    again.close();
    reader.close();
    kept.close();

    const last = openPkram(HugePageMedium.open({ folder }));
    assert.deepEqual(
      last.nodes().map(({ name }) => name),
      ['two', 'three'],
    );
    const found = last.status();
    assert.deepEqual([found.used, found.free, found.sequence], [used, free, sequence]);
    last.close();
  });

  it('that a process had taken when it died are given back by the next one', () => {
    openPkram(HugePageMedium.open({ folder, create: true })).close();
    const before = fs.readdirSync(folder);
    const index = new URL('../../../src/pkram/index.ts', import.meta.url).pathname;
    const script = `
      import { HugePageMedium, openPkram } from ${JSON.stringify(index)};
      const pkram = openPkram(HugePageMedium.open({ folder: ${JSON.stringify(folder)} }));
      const object = pkram.prepareSave('unfinished').prepareSaveObject();
      const { size } = pkram.status();
      for (let done = 0; done <= size; done += 1 << 20) object.write(new Uint8Array(1 << 20));
      process.kill(process.pid, 'SIGKILL');`;
    const { signal, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script]);
    assert.equal(signal, 'SIGKILL', stderr.toString());
    fs.writeFileSync(join(folder, 'new-0'), '');
    assert.ok(fs.readdirSync(folder).length > before.length + 1);
    const pkram = openPkram(HugePageMedium.open({ folder }));
    assert.deepEqual(pkram.nodes(), []);
    assert.deepEqual(fs.readdirSync(folder), before);
    pkram.close();
  });

  it('are none where the one that made the medium died before it was one', () => {
    HugePageMedium.open({ folder, create: true }).close();
    fs.rmSync(join(folder, '00000000'));
    assert.throws(() => HugePageMedium.open({ folder }), { code: 'ENOENT' });
    assert.deepEqual(fs.readdirSync(folder), ['lock']);
  });

  it('that were moved are found, and the table is put right', () => {
    const pkram = openPkram(HugePageMedium.open({ folder, create: true }));
    save(pkram, 'node', randomBytes(5 * HUGE));
    const { ranges } = pkram.status();
    pkram.close();
    // Another page in the place of the last one, as after a migration.
    const last = join(folder, fs.readdirSync(folder).sort().at(-2)!);
    const [another] = withSurplusHugePages(1, () => new PageFiles(folder).take(1));
    fs.renameSync(last, join(folder, 'moved'));
    fs.renameSync(join(folder, another!), last);
    const reader = openPkram(HugePageMedium.open({ folder, readOnly: true }));
    assert.equal(reader.status().moved, true);
    reader.close();
    const { sequence } = withMedium((each) => each.status());
    const after = withMedium((each) => each.status());
    assert.equal(after.moved, false);
    assert.equal(after.sequence, sequence, 'it is written once');
    assert.notDeepEqual(after.ranges, ranges);
    assert.equal(
      withMedium((each) => each.nodes()[0]!.fault),
      undefined,
    );
  });

  it('are not taken where the next kernel will be, and the rest is in few pieces', () => {
    const first = HugePageMedium.open({ folder, create: true });
    const avoid = first.ranges.map(({ start, size }) => ({ start, end: start + size }));
    first.giveBack();
    const medium = HugePageMedium.open({ folder, create: true, avoid });
    const taken = medium.ranges.map(({ start, size }) => ({ start, end: start + size }));
    for (const range of taken) assert.ok(!avoid.some((each) => overlaps(each, range)));
    medium.giveBack();
  });

  it('of which there are too few are refused, with how many are missing', () => {
    const before = overcommit();
    assert.throws(
      () => HugePageMedium.open({ folder, create: true, size: 2 ** 50 }),
      (error) => {
        assert.ok(error instanceof UnsupportedError);
        assert.match(error.why, /^\d{9} huge pages of 2 MiB are missing/);
        return true;
      },
    );
    assert.equal(overcommit(), before);
    assert.deepEqual(fs.readdirSync(folder), ['lock']);
    const medium = HugePageMedium.open({ folder, create: true });
    assert.equal(medium.grow(2 ** 50), false);
    assert.match(medium.whyFull!.why, /^\d{9} huge pages of 2 MiB are missing/);
    medium.close();
  });

  it('that run out while it grows are said to be missing, and what is saved stays', () => {
    const data = Buffer.from('pagesize=2M,size=16M\0');
    mount({ source: 'test', target: folder, filesystemtype: 'hugetlbfs', mountflags: 0, data });
    const pkram = openPkram(HugePageMedium.open({ folder, create: true }));
    const kept = randomBytes(2 * HUGE);
    save(pkram, 'kept', kept);
    assert.throws(
      () => save(pkram, 'large', new Uint8Array(16 << 20)),
      (error) => {
        assert.ok(error instanceof NoRoomError && error.cause instanceof UnsupportedError);
        assert.match(error.message, /\d huge pages of 2 MiB are missing.*reserve them/);
        return true;
      },
    );
    assert.deepEqual(
      pkram.nodes().map(({ name, fault }) => [name, fault]),
      [['kept', undefined]],
    );
    pkram.close();
    const again = openPkram(HugePageMedium.open({ folder }));
    const load = again.prepareLoad('kept', { verify: true });
    assert.deepEqual(Buffer.from(load.prepareLoadObject()!.readAll()), kept);
    again.close();
  });

  it('that the kernel does not have at all are a refusal', () => {
    const program = new URL('../../../src/cli/main.ts', import.meta.url).pathname;
    const hide = 'mount -t tmpfs none /sys/kernel/mm/hugepages && exec "$@"';
    const args = ['-m', 'sh', '-c', hide, 'sh', process.execPath, program, 'pkram', 'init', '-m', 'memory'];
    const { status, stderr } = spawnSync('unshare', args, { encoding: 'utf8' });
    assert.equal(status, 3, stderr);
    assert.match(stderr, /this kernel has none of 2 MiB.*CONFIG_HUGETLBFS/);
  });

  function withMedium<T>(use: (pkram: Pkram) => T): T {
    const pkram = openPkram(HugePageMedium.open({ folder }));
    try {
      return use(pkram);
    } finally {
      pkram.close();
    }
  }
});
