/** A kernel with 1024 pages, of each kind some. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { excludePages } from '../../../src/crash/filter/pages.ts';
import { openDump } from '../../../src/crash/open.ts';
import { Vmcoreinfo } from '../../../src/crash/vmcoreinfo.ts';
import { UnsupportedError } from '../../../src/errors.ts';
import { memoryReader } from './dumps.ts';

const PAGES = 1024;
const DIRECT_MAP = 0xffff_8880_0000_0000n;

/** Numbers as 6.12 has them; compound pages as since 6.9. */
const facts: Record<string, string> = {
  OSRELEASE: '6.99.0',
  'SYMBOL(swapper_pg_dir)': 'ffffffff80001000',
  'NUMBER(phys_base)': '0',
  'SYMBOL(mem_section)': (DIRECT_MAP + 0x3000n).toString(16),
  'SIZE(mem_section)': '32',
  'OFFSET(mem_section.section_mem_map)': '0',
  'NUMBER(SECTION_SIZE_BITS)': '27',
  'SIZE(page)': '64',
  'OFFSET(page.flags)': '0',
  'OFFSET(page.compound_head)': '8',
  'OFFSET(page.mapping)': '24',
  'OFFSET(page.private)': '40',
  'OFFSET(page._mapcount)': '48',
  'LENGTH(zone.free_area)': '11',
  'NUMBER(PG_lru)': '5',
  'NUMBER(PG_private)': '14',
  'NUMBER(PG_swapcache)': '10',
  'NUMBER(PG_swapbacked)': '18',
  'NUMBER(PG_head_mask)': '64',
  'NUMBER(PG_hwpoison)': '22',
  'NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)': '-268435456',
  'NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)': '-251658240',
  'NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)': '-184549376',
  'NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)': '-201326592',
  'NUMBER(PAGE_UNACCEPTED_MAPCOUNT_VALUE)': '-134217728',
};
const [LRU, PRIVATE, SWAPCACHE, HEAD, SWAPBACKED, HWPOISON] = [5, 14, 10, 6, 18, 22].map((bit) => 2 ** bit) as [
  number,
  number,
  number,
  number,
  number,
  number,
];
const [BUDDY, OFFLINE, SLAB, HUGETLB] = [-268435456, -251658240, -184549376, -201326592] as const;

interface Page {
  readonly flags?: number;
  readonly mapping?: number;
  readonly private?: number;
  readonly mapcount?: number;
  readonly head?: number;
}

/** Memory with page tables, the section table and struct pages. */
function kernelMemory(pages: Readonly<Record<number, Page>>): Buffer {
  const memory = Buffer.alloc(PAGES * 4096);
  const put = (at: number, value: bigint) => memory.writeBigUInt64LE(value, at);
  // The direct map: one entry of 1 GiB.
  put(0x1000 + Number((DIRECT_MAP >> 39n) & 511n) * 8, 0x2003n);
  put(0x2000, 0x83n);
  put(0x3000, DIRECT_MAP + 0x4000n);
  put(0x4000, (DIRECT_MAP + 0x10000n) | 3n);
  for (let pfn = 0; pfn < PAGES; pfn++) {
    const at = 0x10000 + pfn * 64;
    const { flags = 0, mapping = 0, private: order = 0, mapcount = -1, head = 0 } = pages[pfn] ?? {};
    put(at, BigInt(flags));
    put(at + 8, BigInt(head));
    put(at + 24, BigInt(mapping));
    put(at + 40, BigInt(order));
    memory.writeInt32LE(mapcount, at + 48);
  }
  return memory;
}

function infoOf(changes: Record<string, string | undefined> = {}): Vmcoreinfo {
  const lines = Object.entries({ ...facts, ...changes }).filter(([, value]) => value !== undefined);
  return new Vmcoreinfo(lines.map(([name, value]) => `${name}=${value}\n`).join(''));
}

/** @returns the pages that are left out */
function excluded(memory: Buffer, level: number, info = infoOf()): number[] {
  const source = openDump([memoryReader(memory)], { ram: [{ start: 0, end: memory.length }] });
  const bits = new Uint8Array(PAGES / 8).fill(0xff);
  const counts = excludePages(source, info, level, bits);
  const gone = Array.from({ length: PAGES }, (_, pfn) => pfn).filter(
    (pfn) => ((bits[pfn >> 3]! >> (pfn & 7)) & 1) === 0,
  );
  assert.equal(
    Object.values(counts).reduce((sum, count) => sum + count, 0),
    gone.length,
  );
  return gone;
}

const span = (start: number, count: number) => Array.from({ length: count }, (_, i) => start + i);

const kinds = kernelMemory({
  100: { flags: LRU, mapping: 0x1000 },
  101: { flags: LRU | PRIVATE, mapping: 0x1000 },
  102: { flags: LRU | SWAPBACKED, mapping: 0x1001 },
  103: { flags: SWAPCACHE | SWAPBACKED, mapping: 0x1000 },
  104: { flags: SWAPCACHE, mapping: 0x1000 },
  // A slab whose word at `mapping` is odd.
  105: { mapping: 0x1001, mapcount: SLAB },
  106: { flags: HWPOISON },
  107: { mapcount: OFFLINE },
  112: { mapcount: BUDDY, private: 3 },
  // An order that no block has.
  120: { mapcount: BUDDY, private: 11 },
  // A huge page of the page cache: 16 pages, and one of hugetlbfs that nobody uses: 4.
  128: { flags: LRU | HEAD, mapping: 0x1000 },
  129: { flags: 4, head: 1 },
  144: { flags: HEAD, mapcount: HUGETLB },
  145: { flags: 2, head: 1 },
  // A slab of two pages, whose tail looks like memory of a process.
  160: { flags: HEAD, mapcount: SLAB },
  161: { flags: 1, mapping: 1, head: 1 },
  // An order that does not fit its place.
  170: { flags: LRU | HEAD, mapping: 0x1000 },
  171: { flags: 3 },
});

test('each level leaves out its kinds of pages, and every level those that cannot be read', () => {
  const unreadable = [106, 107];
  const cache = [100, 103, ...span(128, 16), 170];
  assert.deepEqual(excluded(kinds, 0), unreadable);
  assert.deepEqual(excluded(kinds, 1), unreadable);
  assert.deepEqual(excluded(kinds, 2), [100, 103, 106, 107, ...span(128, 16), 170]);
  assert.deepEqual(excluded(kinds, 4), [100, 101, 103, 106, 107, ...span(128, 16), 170]);
  assert.deepEqual(excluded(kinds, 8), [102, 106, 107, ...span(144, 4)]);
  assert.deepEqual(excluded(kinds, 16), [106, 107, ...span(112, 8)]);
  const all = [...cache, 101, 102, 106, 107, ...span(112, 8), ...span(144, 4)].sort((a, b) => a - b);
  assert.deepEqual(excluded(kinds, 31), all);
});

test('tails are tails too where the kernel calls the word compound_info', () => {
  const info = infoOf({ 'OFFSET(page.compound_head)': undefined, 'OFFSET(page.compound_info)': '8' });
  assert.deepEqual(excluded(kinds, 31, info), excluded(kinds, 31));
});

test('a block that reaches over what is read at a time is left out whole', () => {
  const memory = kernelMemory({ 512: { mapcount: BUDDY, private: 9 } });
  assert.deepEqual(excluded(memory, 16), span(512, 512));
});

test('what a kernel does not say is refused by its name, and so is what cannot be', () => {
  for (const name of ['SIZE(page)', 'NUMBER(PG_lru)', 'OFFSET(page._mapcount)', 'SYMBOL(mem_section)']) {
    assert.throws(() => excluded(kinds, 31, infoOf({ [name]: undefined })), { name: 'UnsupportedError' }, name);
  }
  const refused = (name: string, value: string) =>
    assert.throws(() => excluded(kinds, 31, infoOf({ [name]: value })), UnsupportedError, name);
  refused('SIZE(page)', '1000000000');
  refused('OFFSET(page.mapping)', '64');
  refused('NUMBER(SECTION_SIZE_BITS)', '12');
  refused('SIZE(mem_section)', '0');
});

test('whatever numbers the kernel says, and whatever is in its tables, there is an end', () => {
  const name = fc.constantFrom(...Object.keys(facts).filter((key) => key !== 'OSRELEASE'));
  const value = fc.oneof(
    fc.integer().map(String),
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((n) => n.toString(16)),
  );
  const damage = fc.record({ at: fc.nat(0x14000), bytes: fc.uint8Array({ minLength: 1, maxLength: 16 }) });
  fc.assert(
    fc.property(
      fc.array(fc.tuple(name, value), { maxLength: 2 }),
      fc.array(damage, { maxLength: 8 }),
      (changes, damages) => {
        const memory = Buffer.from(kinds);
        for (const { at, bytes } of damages) memory.set(bytes, at);
        try {
          excluded(memory, 31, infoOf(Object.fromEntries(changes)));
        } catch (error) {
          assert.match((error as Error).name, /^(UnsupportedError|FormatError)$/, (error as Error).stack);
        }
      },
    ),
    { numRuns: 200 },
  );
});
