/** Preserved memory in huge pages of this machine: where they lie, and what is given back. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { describe, it } from 'node:test';
import { UnsupportedError } from '../../../src/errors.ts';
import { overlaps } from '../../../src/mem/range.ts';
import { HugePageMedium, openPkram, Volume } from '../../../src/pkram/index.ts';
import { readHugePagePool, withSurplusHugePages } from '../../../src/sys/hugepages.ts';
import { asRoot } from '../root.ts';

const HUGE = 2 << 20;
/** Documentation/admin-guide/mm/pagemap.rst */
const KPF_HUGE = 17n;

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

/** Bytes of huge pages that this process has mapped. */
function held(): number {
  return 1024 * Number(/HugetlbPages:\s*(\d+) kB/.exec(fs.readFileSync('/proc/self/status', 'latin1'))![1]);
}

describe('huge pages', asRoot, () => {
  it('are taken with their physical addresses, and given back', () => {
    const before = overcommit();
    const medium = HugePageMedium.allocate(9 * HUGE - 1);
    try {
      assert.equal(medium.size, 9 * HUGE);
      const { ranges } = medium;
      assert.equal(
        ranges.reduce((sum, { size }) => sum + size, 0),
        medium.size,
      );
      for (const [i, { start, size }] of ranges.entries()) {
        assert.equal(start % HUGE, 0);
        if (i > 0) assert.ok(start > ranges[i - 1]!.start + ranges[i - 1]!.size, 'sorted, and neighbours merged');
        for (let at = start; at < start + size; at += HUGE) assert.ok((pageFlags(at) & (1n << KPF_HUGE)) !== 0n);
      }
      assert.equal(medium.hasMoved(), false);
      assert.equal(held(), 9 * HUGE);
    } finally {
      medium.close();
    }
    assert.equal(held(), 0);
    assert.equal(overcommit(), before);
  });

  it('hold nodes, and grow', () => {
    const medium = HugePageMedium.allocate(2 * HUGE);
    Volume.format(medium);
    const pkram = openPkram(medium);
    const data = randomBytes(7 * HUGE + 5000);
    const save = pkram.prepareSave('node', { checksums: true });
    const object = save.prepareSaveObject();
    object.write(data);
    for (let i = 0; i < 600; i++) object.savePage(data.subarray(i * 4096, (i + 1) * 4096), i);
    object.finishSaveObject();
    save.finishSave();
    assert.ok(medium.size >= 9 * HUGE);
    const load = pkram.prepareLoad('node', { verify: true });
    const loaded = load.prepareLoadObject()!;
    assert.deepEqual(Buffer.from(loaded.readAll()), data);
    for (let page = loaded.loadPage(); page !== undefined; page = loaded.loadPage()) {
      const at = Number(page.index) * 4096;
      assert.ok(data.subarray(at, at + 4096).equals(page.page));
    }
    load[Symbol.dispose]();
    pkram.close();
  });

  it('are not taken where the next kernel will be', () => {
    const first = HugePageMedium.allocate(4 * HUGE);
    const avoid = first.ranges.map(({ start, size }) => ({ start, end: start + size }));
    first.close();
    const medium = HugePageMedium.allocate(4 * HUGE, { avoid });
    const taken = medium.ranges.map(({ start, size }) => ({ start, end: start + size }));
    medium.close();
    for (const range of taken) assert.ok(!avoid.some((each) => overlaps(each, range)));
  });

  it('of which there are too few are refused, with how many are missing', () => {
    const before = overcommit();
    assert.throws(
      () => HugePageMedium.allocate(2 ** 50),
      (error) => {
        assert.ok(error instanceof UnsupportedError);
        assert.match(error.why, /^\d{9} huge pages of 2 MiB are missing/);
        return true;
      },
    );
    assert.equal(overcommit(), before);
  });
});
