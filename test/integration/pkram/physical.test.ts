/** A medium that was made in huge pages is found again by the place of its superblock: a file stands for the memory. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { FormatError, UnsupportedError } from '../../../src/errors.ts';
import { HugePageMedium, type MediumRange, openPkram, PhysicalMedium, Volume } from '../../../src/pkram/index.ts';
import { asRoot, isRoot } from '../root.ts';

const data = randomBytes(11 << 20);
let folder: string;
let device: string;
let superblock: number;
let ranges: readonly MediumRange[];

/** What the memory of the machine looks like to the next kernel: each range at its physical address. */
before(() => {
  if (!isRoot) return;
  folder = fs.mkdtempSync(join(tmpdir(), 'pkram-physical-'));
  device = join(folder, 'memory');
  const medium = HugePageMedium.allocate(4 << 20);
  Volume.format(medium);
  superblock = medium.ranges[0]!.start;
  const pkram = openPkram(medium);
  const save = pkram.prepareSave('node', { checksums: true });
  const object = save.prepareSaveObject();
  object.write(data);
  object.finishSaveObject();
  save.finishSave();
  ranges = medium.ranges;
  const fd = fs.openSync(device, 'w');
  let at = 0;
  for (const { start, size } of ranges) {
    const bytes = new Uint8Array(size);
    medium.read(at, bytes);
    fs.writeSync(fd, bytes, 0, size, start);
    at += size;
  }
  fs.closeSync(fd);
  pkram.close();
});
after(() => {
  if (isRoot) fs.rmSync(folder, { recursive: true });
});

describe('preserved memory at physical addresses', asRoot, () => {
  it('is found by its superblock, whole', () => {
    const pkram = openPkram(new PhysicalMedium(superblock, { device, readOnly: true }));
    assert.equal(pkram.status().ranges, ranges.length);
    const peek = pkram.peek('node', { verify: true });
    assert.deepEqual(Buffer.from([...peek.objects()][0]!.readAll()), data);
    pkram.close();
  });

  it('is taken and used again', () => {
    const pkram = openPkram(new PhysicalMedium(superblock, { device }));
    assert.throws(() => new PhysicalMedium(superblock, { device }), UnsupportedError);
    const save = pkram.prepareSave('second');
    save.prepareSaveObject().finishSaveObject();
    save.finishSave();
    pkram.remove('second');
    pkram.close();
  });

  it('is refused where there is none', () => {
    const past = ranges.at(-1)!.start + ranges.at(-1)!.size - (128 << 10);
    for (const place of [ranges[0]!.start + 4096, past, superblock + 1, -4096]) {
      assert.throws(() => openPkram(new PhysicalMedium(place, { device })), FormatError);
    }
  });

  it('of which a part is not there any more is refused', () => {
    for (const end of [ranges.at(-1)!.start + (1 << 20), superblock + 4096, superblock]) {
      fs.truncateSync(device, end);
      assert.throws(() => openPkram(new PhysicalMedium(superblock, { device })), FormatError);
    }
  });
});
