/** What an image must not overwrite. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { heldOn } from '../../../src/hibernate/disks.ts';
import { beginImage, clearImage, writeState } from '../../../src/hibernate/image.ts';

const folder = mkdtempSync(join(tmpdir(), 'tideover-disks-'));
after(() => rmSync(folder, { recursive: true }));
const path = join(folder, 'disk');

/** What a disk holds that begins so. */
function held(...parts: readonly (readonly [at: number, bytes: string | Uint8Array])[]): string | undefined {
  const disk = Buffer.alloc(1 << 17);
  for (const [at, bytes] of parts) disk.set(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes, at);
  writeFileSync(path, disk);
  return heldOn(path);
}

test('file systems, volumes and partition tables are seen', () => {
  assert.equal(held([1024 + 56, '\x53\xef']), 'a file system (ext)');
  assert.equal(held([0, 'XFSB']), 'a file system (xfs)');
  assert.equal(held([0x10040, '_BHRfS_M']), 'a file system (btrfs)');
  assert.equal(held([0, 'LUKS\xba\xbe']), 'an encrypted volume (LUKS)');
  assert.equal(held([512, 'LABELONE']), 'a physical volume (LVM)');
  assert.equal(held([450, '\xee'], [510, '\x55\xaa']), 'a partition table');
});

test('what is empty, swap, or an image of ours may be written to', () => {
  assert.equal(held(), undefined);
  assert.equal(held([4086, 'SWAPSPACE2']), undefined);
  const written = (write: (output: Parameters<typeof clearImage>[0]) => void) => {
    const block = Buffer.alloc(4096);
    write({ write: (at, bytes) => void block.set(bytes, at) });
    return held([0, block]);
  };
  assert.equal(
    written((output) => clearImage(output, 'f'.repeat(32))),
    undefined,
  );
  assert.equal(written(beginImage), undefined);
  assert.equal(
    written((output) => {
      // Among the pages of an image there may be anything.
      output.write(512, Buffer.from('TIDEOVER HIBERN\0'));
      writeState(output, 'used');
      output.write(1024 + 56, Buffer.from([0x53, 0xef]));
    }),
    undefined,
  );
  writeFileSync(path, 'short');
  assert.equal(heldOn(path), undefined);
});
