/** A medium that was made in huge pages is found again by the place of its superblock: a file stands for the memory. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { FormatError, UnsupportedError } from '../../../src/errors.ts';
import { HugePageMedium, KeptMedium, type MediumRange, openPkram, PhysicalMedium } from '../../../src/pkram/index.ts';
import { readSuperblock, writeSuperblock } from '../../../src/pkram/superblock.ts';
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
  const medium = HugePageMedium.open({ folder: join(folder, 'pages'), create: true });
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
  HugePageMedium.open({ folder: join(folder, 'pages') }).giveBack();
});
after(() => {
  if (isRoot) fs.rmSync(folder, { recursive: true });
});

describe('preserved memory at physical addresses', asRoot, () => {
  it('is found by its superblock, whole', () => {
    const pkram = openPkram(new PhysicalMedium(superblock, { device, readOnly: true }));
    assert.deepEqual(pkram.status().ranges, ranges);
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

  it('stays mapped for one user, who keeps readers from nothing while he only reads', () => {
    const reader = openPkram(new PhysicalMedium(superblock, { device, readOnly: true }));
    const kept = new KeptMedium(new PhysicalMedium(superblock, { device, alone: false }));
    const first = kept.open(true, {});
    assert.deepEqual(
      first.nodes().map(({ name }) => name),
      ['node'],
    );
    first.close();
    assert.throws(() => kept.open(false, {}), UnsupportedError);
    reader.close();
    const writer = kept.open(false, {});
    const save = writer.prepareSave('third');
    save.prepareSaveObject().finishSaveObject();
    save.finishSave();
    writer.close();
    const other = openPkram(new PhysicalMedium(superblock, { device }));
    other.remove('third');
    other.close();
    const last = kept.open(true, {});
    assert.equal(last.nodes().length, 1);
    using peek = last.peek('node', { verify: true });
    assert.deepEqual(Buffer.from([...peek.objects()][0]!.readAll()), data);
    last.close();
    kept.close();
  });

  it('that stays mapped is looked at again where its ranges were wrong', () => {
    const both = new Uint8Array(128 << 10);
    const change = (how: (medium: PhysicalMedium) => void) => {
      const medium = new PhysicalMedium(superblock, { device });
      how(medium);
      medium.close();
    };
    change((medium) => {
      medium.read(0, both);
      const block = readSuperblock(medium);
      const behind = { start: fs.statSync(device).size, size: 1 << 20 };
      writeSuperblock(medium, { ...block, ranges: [...ranges, behind], sequence: block.sequence + 1 });
    });
    const kept = new KeptMedium(new PhysicalMedium(superblock, { device, alone: false }));
    for (let i = 0; i < 2; i++) assert.throws(() => kept.open(true, {}), FormatError);
    change((medium) => medium.write(0, both));
    const pkram = kept.open(true, {});
    assert.equal(pkram.nodes().length, 1);
    pkram.close();
    kept.close();
  });

  it('is refused where there is none', () => {
    const past = ranges.at(-1)!.start + ranges.at(-1)!.size - (128 << 10);
    for (const place of [ranges[0]!.start + 4096, past, superblock + 1, -4096]) {
      assert.throws(() => openPkram(new PhysicalMedium(place, { device })), FormatError);
    }
  });

  it('is made of a region, which has to be free memory where it is that of this machine', () => {
    const file = join(folder, 'region');
    fs.writeFileSync(file, '');
    fs.truncateSync(file, 32 << 20);
    const region = { start: 8 << 20, end: 24 << 20 };
    const made = openPkram(PhysicalMedium.make(region, { device: file }));
    const save = made.prepareSave('node');
    save.prepareSaveObject().finishSaveObject();
    save.finishSave();
    assert.equal(made.status().size, 16 << 20);
    const full = made.prepareSave('large').prepareSaveObject();
    assert.throws(() => full.write(new Uint8Array(16 << 20)), /no room: .*load or remove nodes/);
    made.close();
    const found = openPkram(new PhysicalMedium(8 << 20, { device: file, readOnly: true }));
    assert.equal(found.nodes()[0]!.name, 'node');
    found.close();
    assert.throws(() => PhysicalMedium.make({ start: 1, end: 16 << 20 }, { device: file }), UnsupportedError);
    assert.throws(() => PhysicalMedium.make({ start: 0, end: 2 ** 50 }), UnsupportedError);
  });

  it('of which a part is not there any more is refused', () => {
    for (const end of [ranges.at(-1)!.start + (1 << 20), superblock + 4096, superblock]) {
      fs.truncateSync(device, end);
      assert.throws(() => openPkram(new PhysicalMedium(superblock, { device })), FormatError);
    }
  });
});
