/** The tables of docs/spec/pkram.md are what the program reads and writes. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import * as format from '../../../src/pkram/format.ts';
import { openPkram } from '../../../src/pkram/index.ts';
import { MemoryMedium, saveNode } from './medium.ts';

const spec = readFileSync(new URL('../../../docs/spec/pkram.md', import.meta.url), 'utf8');

interface Field {
  readonly offset: number;
  readonly size: number;
  readonly field: string;
}

/** Tables with offsets, in the order of the document. */
const tables: Field[][] = spec
  .split('| offset | size | field | |\n|---|---|---|---|\n')
  .slice(1)
  .map((text) =>
    text
      .split('\n')
      .slice(
        0,
        text.split('\n').findIndex((line) => !line.startsWith('|')),
      )
      .map((line) => line.split('|').map((cell) => cell.trim()))
      .map(([, offset, size, field]) => ({ offset: Number(offset), size: Number(size), field: field! })),
  );

const structs = [
  format.superblock,
  format.range_entry,
  format.page_header,
  format.node_entry,
  format.node_page,
  format.object_entry,
  format.page_extent,
  format.byte_extent,
];

describe('the specification', () => {
  assert.equal(tables.length, structs.length);
  for (const [i, { name, size, offsets }] of structs.entries()) {
    it(`has the fields of ${name} where the program has them`, () => {
      const table = tables[i]!.filter(({ field }) => !['reserved', 'crc32'].includes(field) || field in offsets);
      const documented = table.filter(({ offset, field }) => offset < size && field !== 'reserved');
      const fields = Object.entries(offsets).filter(([field]) => field !== 'reserved');
      assert.deepEqual(
        documented.map(({ field, offset }) => [field, offset]),
        fields,
      );
      let end = 0;
      for (const each of documented) {
        assert.ok(each.offset >= end, `${each.field} begins behind the one before`);
        end = each.offset + each.size;
      }
      assert.ok(end <= size);
    });
  }

  it('has the magic numbers and places that are on a medium', () => {
    const medium = MemoryMedium.formatted(1 << 20);
    saveNode(openPkram(medium), 'name', [{ pages: [{ index: 5n, flags: 9, fill: [1] }], bytes: Buffer.from('bytes') }]);
    const bytes = Buffer.from(medium.bytes.buffer);
    // Three commits: two of format(), one of the node. Written out by hand from the tables.
    const slot = (3 % 2) * 65536;
    assert.equal(bytes.toString('latin1', slot, slot + 8), 'TIDEPKRM');
    assert.deepEqual([bytes.readUInt16LE(slot + 8), bytes.readUInt32LE(slot + 12)], [1, 4096]);
    assert.equal(bytes.readBigUInt64LE(slot + 16), 3n);
    assert.deepEqual([bytes.readUInt32LE(slot + 40), bytes.readBigUInt64LE(slot + 4096)], [1, 0n]);
    assert.equal(bytes.readUInt32LE(slot + 4096 + 8), (1 << 20) / 4096);
    const list = Number(bytes.readBigUInt64LE(slot + 48));
    assert.equal(bytes.toString('latin1', list, list + 4), 'PKRP');
    assert.deepEqual([bytes.readUInt16LE(list + 4), bytes.readUInt32LE(list + 8)], [1, 1]);
    assert.deepEqual([bytes.readBigUInt64LE(list + 16), Number(bytes.readBigUInt64LE(list + 24))], [3n, list]);
    const node = Number(bytes.readBigUInt64LE(list + 64));
    assert.equal(bytes.readUInt16LE(node + 4), 2);
    assert.equal(bytes.toString('latin1', node + 192, node + 192 + bytes.readUInt16LE(node + 184)), 'name');
    const objects = Number(bytes.readBigUInt64LE(node + 72));
    assert.equal(bytes.readUInt16LE(objects + 4), 3);
    const extents = Number(bytes.readBigUInt64LE(objects + 64));
    assert.deepEqual([bytes.readBigUInt64LE(extents + 64), bytes.readUInt16LE(extents + 64 + 24)], [5n, 9]);
    const page = Number(bytes.readBigUInt64LE(extents + 72));
    assert.ok(bytes.subarray(page, page + 4096).every((byte) => byte === 1));
    const stream = Number(bytes.readBigUInt64LE(objects + 64 + 24));
    const at = Number(bytes.readBigUInt64LE(stream + 64));
    assert.equal(bytes.toString('latin1', at, at + bytes.readUInt32LE(stream + 72)), 'bytes');
  });
});
