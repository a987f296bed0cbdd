/** Kernels that live in a region beside another one: jumps and capture kernels. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { boot_params } from '../../../src/abi/bootparam.ts';
import { E820_TYPE_PMEM, E820_TYPE_PRAM, E820_TYPE_RAM, E820_TYPE_RESERVED } from '../../../src/abi/e820.ts';
import { PT_LOAD, PT_NOTE } from '../../../src/abi/elf.ts';
import { PARAMETERS_OFFSET, purgatory_parameters } from '../../../src/asm/parameters.ts';
import { UnsupportedError } from '../../../src/errors.ts';
import { readBzImage } from '../../../src/kexec/bootimage.ts';
import { planCapture } from '../../../src/kexec/capture.ts';
import { jumpBackEntry, planBack, planJump } from '../../../src/kexec/jump.ts';
import type { Plan } from '../../../src/kexec/plan.ts';
import { rangesOfType } from '../../../src/mem/e820.ts';
import { readElf } from '../../../src/mem/elf.ts';
import { bzImage, machine, q35 } from './images.ts';

const region = { start: 0x20000000, end: 0x2a000000 };
const reserving = machine(q35.firmware, { crashRanges: [region] });
const request = {
  image: readBzImage(bzImage(), 'vmlinuz'),
  initrd: new Uint8Array(2 ** 20),
  commandLine: 'console=ttyS0',
};

function parameters({ segments }: Plan) {
  return purgatory_parameters.read(segments.find(({ name }) => name === 'purgatory')!.bytes, PARAMETERS_OFFSET);
}

test('a jump: the second kernel has the first 640K and its region, the rest is persistent memory', () => {
  const { e820, segments } = planJump({ ...request, region }, reserving);
  const ram = e820.filter(({ type }) => type === E820_TYPE_RAM).map(({ start, end }) => [start, end]);
  assert.deepEqual(ram, [
    [0, 0x9fc00],
    [region.start, region.end],
  ]);
  assert.ok(e820.some(({ start, type }) => start === 0x100000 && type === E820_TYPE_PMEM));
  const filler = segments.filter(({ name }) => name === 'filler').map(({ start, size }) => [start, start + size]);
  assert.deepEqual(filler, [[0x1000, 0x9f000]], 'what crashkernel= has reserved needs no swapping');
});

test('a jump into memory that the first kernel owns swaps all of it', () => {
  const { segments } = planJump({ ...request, region }, q35);
  const inside = segments.filter(({ start }) => start >= region.start);
  assert.equal(
    inside.reduce((sum, { size }) => sum + size, 0),
    region.end - region.start,
  );
});

test('the way back is written over 16 digits at the end of the command line, and read from there', () => {
  const plan = planJump({ ...request, region }, reserving);
  const params = plan.segments.find(({ name }) => name === 'boot params')!;
  const { jump_back_text: at } = parameters(plan);
  params.bytes.set(Buffer.from('00000001234ab12d'), at - params.start);
  const line = boot_params.read(params.bytes).hdr.cmd_line_ptr - params.start;
  const text = Buffer.from(params.bytes.subarray(line, params.bytes.indexOf(0, line))).toString();
  assert.equal(text, 'console=ttyS0 kexec_jump_back_entry=0x00000001234ab12d');
  assert.deepEqual(jumpBackEntry(text), { entry: 0x1234ab12d, fiveLevel: false });
  assert.equal(jumpBackEntry('console=ttyS0'), undefined);
  assert.equal(jumpBackEntry('kexec_jump_back_entry=0x0000000000000000'), undefined);
});

test('how deep paging is in the first kernel is told to the second', () => {
  const plan = planJump({ ...request, region }, { ...reserving, fiveLevel: true });
  const entry = plan.commandLine.replace(/0{16}$/, '0000000000001000');
  assert.deepEqual(jumpBackEntry(entry), { entry: 0x1000, fiveLevel: true });
});

test('the helper for the way back lies in memory of the second kernel', () => {
  const { e820 } = planJump({ ...request, region }, reserving);
  const { segments, entry } = planBack(0x1000, machine(e820));
  const [{ start, size }] = segments as [(typeof segments)[0]];
  assert.equal(entry, start);
  assert.ok(start >= region.start && start + size <= region.end);
});

test('a capture kernel finds headers that tell of all memory but its own', () => {
  const dying = {
    notes: [
      { address: 0x7000, size: 496 },
      { address: 0x8000, size: 4096 },
    ],
    mapping: {
      directMap: 0xffff888000000000n,
      text: { start: 0x1000000, end: 0x3000000, virtual: 0xffffffff81000000n },
    },
  };
  const plan = planCapture(request, reserving, dying);
  const headers = plan.segments.find(({ name }) => name === 'ELF headers')!;
  assert.ok(plan.commandLine.endsWith(` elfcorehdr=0x${headers.start.toString(16)}`));
  const { segments } = readElf(headers.bytes, 'elfcorehdr');
  assert.deepEqual(
    segments.filter(({ type }) => type === PT_NOTE).map(({ paddr, filesz }) => [paddr, filesz]),
    [
      [0x7000n, 496],
      [0x8000n, 4096],
    ],
  );
  const backup = plan.segments.find(({ name }) => name === 'backup')!;
  const { backup_from, backup_to, backup_size } = parameters(plan);
  assert.deepEqual([backup_from, backup_to, backup_size], [0, backup.start, 0xa0000]);
  assert.deepEqual(
    segments
      .filter(({ type }) => type === PT_LOAD)
      .map(({ paddr, offset, vaddr, memsz }) => [paddr, offset, vaddr, memsz]),
    [
      [0x1000000n, 0x1000000, 0xffffffff81000000n, 0x2000000],
      [0n, backup.start, 0xffff888000000000n, 0xa0000],
      [0x100000n, 0x100000, 0xffff888000100000n, region.start - 0x100000],
      [BigInt(region.end), region.end, 0xffff888000000000n + BigInt(region.end), 0x7ffe0000 - region.end],
    ],
  );
  // The kernel reads headers and backup and must not use them as its memory.
  const own = plan.e820.find(({ start }) => start === headers.start)!;
  assert.deepEqual(own, { start: headers.start, end: region.end, type: E820_TYPE_RESERVED });
  for (const { start, size } of plan.segments) assert.ok(start >= region.start && start + size <= region.end);
});

test('what is mounted in place is a pmem device of whole subsections in the region, and checked', () => {
  const bytes = new Uint8Array(3_000_000).fill(7);
  const mapping = { directMap: 0n, text: { start: 0x1000000, end: 0x3000000, virtual: 0n } };
  for (const plan of [
    planCapture({ ...request, pram: bytes }, reserving, { notes: [], mapping }),
    planJump({ ...request, pram: bytes, region }, reserving),
  ]) {
    const { start, size } = plan.segments.find(({ name }) => name === 'PRAM')!;
    assert.deepEqual([start % 2 ** 21, size], [0, 2 ** 22]);
    assert.ok(start >= region.start && start + size <= region.end);
    assert.deepEqual(rangesOfType(plan.e820, E820_TYPE_PRAM), [{ start, end: start + size }]);
    assert.ok(parameters(plan).regions.some((each) => each.start === start && each.size === bytes.length));
  }
});

test('without crashkernel= there is no capture kernel', () => {
  const mapping = { directMap: 0n, text: { start: 0, end: 1, virtual: 0n } };
  assert.throws(() => planCapture(request, q35, { notes: [], mapping }), UnsupportedError);
});
