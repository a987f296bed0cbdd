import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  boot_params,
  E820_MAX_ENTRIES_ZEROPAGE,
  SETUP_E820_EXT,
  SETUP_RNG_SEED,
  setup_data,
} from '../../../src/abi/bootparam.ts';
import { E820_TYPE_ACPI, E820_TYPE_PRAM, E820_TYPE_RAM, E820_TYPE_RESERVED } from '../../../src/abi/e820.ts';
import { ENTRY_32, PARAMETERS_OFFSET, purgatory_parameters, RESET_VGA } from '../../../src/asm/parameters.ts';
import { UnsupportedError } from '../../../src/errors.ts';
import { readBzImage } from '../../../src/kexec/bootimage.ts';
import { keepEfiTables } from '../../../src/kexec/machine.ts';
import { joinInitrds, type LoadRequest, type Plan, planLoad } from '../../../src/kexec/plan.ts';
import { type E820Entry, readE820 } from '../../../src/mem/e820.ts';
import { bzImage, machine, q35 } from './images.ts';

const MB = 2 ** 20;
const GB = 2 ** 30;

const request = (change: Partial<LoadRequest> = {}): LoadRequest => ({
  image: readBzImage(bzImage({ init_size: 0x3000000 }), 'vmlinuz'),
  initrd: new Uint8Array(5 * MB).fill(7),
  commandLine: 'console=ttyS0 quiet',
  ...change,
});

function segment(plan: Plan, name: string) {
  const found = plan.segments.find((each) => each.name === name);
  assert.ok(found, `there is a segment ${name}`);
  return found;
}

/** What the next kernel is told of memory: as it reads it, out of the zero page and the list behind it. */
function told(plan: Plan): E820Entry[] {
  const { bytes, start } = segment(plan, 'boot params');
  const params = boot_params.read(bytes);
  const entries = params.e820_table
    .slice(0, params.e820_entries)
    .map(({ addr, size, type }) => ({ start: addr, end: addr + size, type }));
  for (let at = Number(params.hdr.setup_data); at !== 0; ) {
    const node = setup_data.read(bytes, at - start);
    const data = bytes.subarray(at - start + setup_data.size, at - start + setup_data.size + node.len);
    if (node.type === SETUP_E820_EXT) entries.push(...readE820(data, 'SETUP_E820_EXT'));
    else assert.equal(node.type, SETUP_RNG_SEED);
    at = node.next;
  }
  return entries;
}

test('a plain kexec: each piece is where the zero page and the purgatory say', () => {
  const plan = planLoad(request(), q35);
  assert.deepEqual(
    plan.segments.map(({ name }) => name),
    ['kernel', 'initrd', 'boot params', 'purgatory'],
  );
  const [kernel, initrd, params] = plan.segments;
  assert.equal(kernel!.start, 0x1000000);
  assert.equal(kernel!.size, 0x3000000);
  const zero = boot_params.read(params!.bytes);
  assert.equal(zero.hdr.ramdisk_image, initrd!.start);
  assert.equal(zero.hdr.ramdisk_size, 5 * MB);
  assert.equal(zero.hdr.type_of_loader, 0xff);
  assert.equal(zero.sentinel, 0);
  const line = zero.hdr.cmd_line_ptr - params!.start;
  assert.equal(Buffer.from(params!.bytes.subarray(line, line + 20)).toString(), 'console=ttyS0 quiet\0');

  assert.equal(plan.entry, segment(plan, 'purgatory').start);
  const block = purgatory_parameters.read(segment(plan, 'purgatory').bytes, PARAMETERS_OFFSET);
  assert.equal(block.entry, kernel!.start + 0x200);
  assert.equal(block.boot_params, params!.start);
  assert.equal(block.region_count, 3);
  for (const [i, { start, bytes }] of [kernel!, initrd!, params!].entries()) {
    const { sha256, ...place } = block.regions[i]!;
    assert.deepEqual(place, { start, size: bytes.length });
    assert.deepEqual(Buffer.from(sha256), createHash('sha256').update(bytes).digest());
  }
  assert.deepEqual(told(plan), q35.firmware);
});

test('what is asked of the purgatory reaches it', () => {
  const block = purgatory_parameters.read(
    segment(planLoad(request({ resetVga: true }), q35), 'purgatory').bytes,
    PARAMETERS_OFFSET,
  );
  assert.equal(block.flags, RESET_VGA);
});

test('reserved memory has its type in the map, and the kernel moves out of its way', () => {
  const reserve = [{ start: 0x1800000, end: 0x1a00000, type: E820_TYPE_PRAM }];
  const plan = planLoad(request({ reserve }), q35);
  assert.equal(segment(plan, 'kernel').start, 0x1a00000);
  assert.deepEqual(
    told(plan).filter(({ type }) => type === E820_TYPE_PRAM),
    reserve,
  );
});

test('what an earlier kexec reserved stays reserved, and is RAM again when that is asked for', () => {
  const [kept, back] = [
    { start: GB, end: GB + MB, type: E820_TYPE_RESERVED },
    { start: GB + MB, end: GB + 2 * MB, type: E820_TYPE_RESERVED },
  ];
  const after = machine([
    { start: 0, end: GB, type: E820_TYPE_RAM },
    ...[kept!, back!],
    { start: GB + 2 * MB, end: 2 * GB, type: E820_TYPE_RAM },
  ]);
  assert.deepEqual(planLoad(request(), after).e820, [
    { start: 0, end: GB, type: E820_TYPE_RAM },
    { start: GB, end: GB + 2 * MB, type: E820_TYPE_RESERVED },
    { start: GB + 2 * MB, end: 2 * GB, type: E820_TYPE_RAM },
  ]);
  const plan = planLoad(request({ reserve: [{ ...back!, type: E820_TYPE_RAM }] }), after);
  assert.deepEqual(plan.e820, [
    { start: 0, end: GB, type: E820_TYPE_RAM },
    kept,
    { start: GB + MB, end: 2 * GB, type: E820_TYPE_RAM },
  ]);
});

test('a kernel is never loaded below its preferred address, where it would move itself', () => {
  const image = readBzImage(bzImage({ pref_address: 0x40000000n }), 'k');
  assert.equal(segment(planLoad(request({ image }), q35), 'kernel').start, 0x40000000);
});

test('a kernel that cannot be moved goes to its address or is refused', () => {
  const image = readBzImage(bzImage({ relocatable_kernel: 0 }), 'k');
  assert.equal(segment(planLoad(request({ image }), q35), 'kernel').start, 0x1000000);
  const reserve = [{ start: 0x1000000, end: 0x1001000 }];
  assert.throws(() => planLoad(request({ image, reserve }), q35), /must lie at 0x1000000/);
});

test('a kernel limited to 32 bits has all its pieces below 4 GB, or is refused with the field', () => {
  const image = readBzImage(bzImage({ xloadflags: 1 }), 'k');
  const high = machine([{ start: 4 * GB, end: 6 * GB, type: E820_TYPE_RAM }]);
  assert.throws(() => planLoad(request({ image }), high), /XLF_CAN_BE_LOADED_ABOVE_4G is not set in xloadflags/);
  assert.equal(segment(planLoad(request(), high), 'kernel').start, 4 * GB);
});

test('mem-min and mem-max bound all pieces', () => {
  const plan = planLoad(request({ memMin: 0x20000000, memMax: 0x27ffffff }), q35);
  for (const { start, size } of plan.segments) assert.ok(start >= 0x20000000 && start + size <= 0x28000000);
});

test('too little room is refused and says how much is missing', () => {
  assert.throws(
    () => planLoad(request({ memMin: 0x20000000, memMax: 0x20ffffff }), q35),
    (error) =>
      error instanceof UnsupportedError && /too little room for the kernel.*32768 KiB are missing/.test(error.message),
  );
});

test('more than half of memory is refused, as the kernel lends no more', () => {
  const small = machine([{ start: 0, end: 100 * MB, type: E820_TYPE_RAM }]);
  assert.throws(() => planLoad(request(), small), /too little memory to load vmlinuz.*MiB are missing/);
});

test('a kernel that cannot start in 5-level paging is entered in 32 bits, with all its pieces below 4 GB', () => {
  const image = readBzImage(bzImage({ xloadflags: 3 }), 'k');
  const large = machine([{ start: 0, end: 8 * GB, type: E820_TYPE_RAM }], { fiveLevel: true });
  const plan = planLoad(request({ image }), large);
  const block = purgatory_parameters.read(segment(plan, 'purgatory').bytes, PARAMETERS_OFFSET);
  assert.equal(block.flags, ENTRY_32);
  assert.equal(block.entry, segment(plan, 'kernel').start);
  for (const { start, size } of plan.segments) assert.ok(start + size <= 4 * GB);
  const none = purgatory_parameters.read(
    segment(planLoad(request({ image }), q35), 'purgatory').bytes,
    PARAMETERS_OFFSET,
  );
  assert.equal(none.flags, 0);
  assert.throws(() => planLoad(request({ image: { ...image, entry32: undefined } }), large), /xloadflags: XLF_5LEVEL/);
});

test('a command line that the kernel would cut is refused', () => {
  assert.throws(() => planLoad(request({ commandLine: 'x'.repeat(2048) }), q35), /cmdline_size/);
  planLoad(request({ commandLine: 'x'.repeat(2047) }), q35);
});

test('reserving what firmware keeps for itself is refused', () => {
  const acpi = machine([...q35.firmware, { start: 0x80000000, end: 0x80001000, type: E820_TYPE_ACPI }]);
  assert.throws(() => planLoad(request({ reserve: [{ start: 0x80000000, end: 0x80001000 }] }), acpi), UnsupportedError);
});

test('more entries than the zero page holds go into SETUP_E820_EXT', () => {
  const reserve = Array.from({ length: 300 }, (_, i) => ({ start: GB + i * 2 * MB, end: GB + i * 2 * MB + MB }));
  const plan = planLoad(request({ reserve }), machine([{ start: 0, end: 4 * GB, type: E820_TYPE_RAM }]));
  assert.ok(plan.e820.length > 600);
  assert.equal(boot_params.read(segment(plan, 'boot params').bytes).e820_entries, E820_MAX_ENTRIES_ZEROPAGE);
  assert.deepEqual(told(plan), plan.e820);
});

test('initrds are joined at multiples of 4', () => {
  const joined = joinInitrds([Uint8Array.of(1, 2, 3, 4, 5), Uint8Array.of(6)]);
  assert.deepEqual([...joined.subarray(0, 9)], [1, 2, 3, 4, 5, 0, 0, 0, 6]);
});

/** Memory maps of up to 40 pieces with holes between them, in units of pages but for some ragged edges. */
const anyMap = fc
  .array(
    fc.record({
      gap: fc.nat({ max: 64 * MB }),
      size: fc.integer({ min: 1, max: 512 * MB }),
      type: fc.constantFrom(E820_TYPE_RAM, E820_TYPE_RAM, E820_TYPE_RAM, E820_TYPE_RESERVED, E820_TYPE_ACPI),
      ragged: fc.boolean(),
    }),
    { minLength: 1, maxLength: 40 },
  )
  .map((pieces) => {
    let at = 0;
    return pieces.map(({ gap, size, type, ragged }) => {
      const round = (value: number) => (ragged ? value : Math.ceil(value / 4096) * 4096);
      const start = at + round(gap);
      at = start + round(size);
      return { start, end: at, type };
    });
  });

/** Ranges as parts of a map's pieces: which piece, from and to in thousandths of it. */
const anyReserve = fc.array(
  fc.record({ piece: fc.nat(), from: fc.nat({ max: 999 }), parts: fc.integer({ min: 1, max: 300 }) }),
  {
    maxLength: 60,
  },
);

test('whatever the memory map, no piece touches reserved memory, another piece or what is not RAM', () => {
  let planned = 0;
  fc.assert(
    fc.property(anyMap, anyReserve, fc.nat({ max: 100 * MB }), (firmware, parts, initrdSize) => {
      const reserve: { start: number; end: number }[] = [];
      for (const { piece, from, parts: count } of parts) {
        const { start, end, type } = firmware[piece % firmware.length]!;
        if (type !== E820_TYPE_RAM) continue;
        const unit = (end - start) / 1000;
        const range = {
          start: Math.ceil((start + from * unit) / 4096) * 4096,
          end: Math.floor(Math.min(end, start + (from + count) * unit) / 4096) * 4096,
        };
        const apart = reserve.every((other) => range.end <= other.start || other.end <= range.start);
        if (range.start < range.end && apart) reserve.push(range);
      }
      let plan: Plan;
      try {
        plan = planLoad(request({ initrd: new Uint8Array(initrdSize), reserve }), machine(firmware));
      } catch (error) {
        assert.ok(error instanceof UnsupportedError && /too little (room|memory)/.test(error.message), String(error));
        return;
      }
      planned += 1;
      const ram = firmware.filter(({ type }) => type === E820_TYPE_RAM);
      for (const { start, size, name } of plan.segments) {
        const end = start + size;
        assert.ok(start % 4096 === 0 && size % 4096 === 0 && start >= MB, name);
        // Pieces of the map may touch, so each page is looked for by itself.
        for (let page = start; page < end; page += 4096) {
          assert.ok(covered(ram, page), `${name} in RAM`);
        }
        for (const range of reserve) assert.ok(end <= range.start || range.end <= start, `${name} apart from reserved`);
        for (const other of plan.segments) {
          assert.ok(other.start === start || end <= other.start || other.start + other.size <= start, `${name} alone`);
        }
      }
      const entries = told(plan);
      for (const range of reserve) {
        assert.ok(
          entries.some(
            ({ start, end, type }) => type === E820_TYPE_RESERVED && start <= range.start && range.end <= end,
          ),
          'a reserved range is reserved in the map',
        );
      }
    }),
    { numRuns: 60 },
  );
  assert.ok(planned > 10, `${planned} plans`);
});

/** Whether a page lies in ranges that may touch. */
function covered(ranges: readonly E820Entry[], page: number): boolean {
  const holds = (address: number) => ranges.some(({ start, end }) => start <= address && address < end);
  return holds(page) && holds(page + 4095);
}

test("EFI's tables in free RAM stay reserved, and the first megabyte as it is", () => {
  const reserved = [
    { start: 0, end: 0x1000 },
    { start: 0x3de0e000, end: 0x3de0f000 },
    { start: 0x7ffe0000, end: 0x80000000 },
  ];
  assert.deepEqual(
    keepEfiTables(q35.firmware, reserved).filter(({ start }) => start >= MB),
    [
      { start: 0x100000, end: 0x3de0e000, type: E820_TYPE_RAM },
      { start: 0x3de0e000, end: 0x3de0f000, type: E820_TYPE_RESERVED },
      { start: 0x3de0f000, end: 0x7ffe0000, type: E820_TYPE_RAM },
      { start: 0x7ffe0000, end: 0x80000000, type: E820_TYPE_RESERVED },
    ],
  );
  assert.deepEqual(keepEfiTables(q35.firmware, reserved)[0], { start: 0, end: 0x9fc00, type: E820_TYPE_RAM });
});
