/** The libraries' own functions give what Node's do. */
import assert from 'node:assert/strict';
import { randomFillSync } from 'node:crypto';
import { test } from 'node:test';
import { portableTools } from '../../../src/crash/codec/page.ts';
import { DUMP_DH_COMPRESSED_ZSTD } from '../../../src/crash/kdump/format.ts';
import { nativeTools } from '../../../src/hibernate/tools.ts';

const PAGE = 4096;
const tools = nativeTools();
const pages = tools.allocate(7 * PAGE);
randomFillSync(pages.subarray(PAGE, 2 * PAGE));
for (let at = 2 * PAGE; at < pages.length; at++) pages[at] = at % 251;

test('the checksums of pages are those of zlib', () => {
  const [ours, theirs] = [new Uint32Array(7), new Uint32Array(7)];
  tools.checksums(pages, ours);
  portableTools.checksums(pages, theirs);
  assert.deepEqual(ours, theirs);
  tools.checksums(pages.subarray(3 * PAGE, 4 * PAGE), ours.subarray(6));
  assert.equal(ours[6], theirs[3]);
});

test('what one packs with zstd the other unpacks', () => {
  const [native, portable] = [tools, portableTools].map((each) => each.compressor('zstd'));
  const back = new Uint8Array(PAGE);
  for (let at = 0; at < pages.length; at += PAGE) {
    const page = pages.subarray(at, at + PAGE);
    // A page of random bytes does not become smaller.
    assert.equal(native!(page) === page, at === PAGE);
    if (at === PAGE) continue;
    assert.equal(portableTools.decompress(DUMP_DH_COMPRESSED_ZSTD, native!(page), back), undefined);
    assert.deepEqual(back, page);
    back.fill(1);
    assert.equal(tools.decompress(DUMP_DH_COMPRESSED_ZSTD, portable!(page), back), undefined);
    assert.deepEqual(back, page);
  }
  assert.match(tools.decompress(DUMP_DH_COMPRESSED_ZSTD, pages.subarray(0, 10), back)!, /zstd/);
});
