import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as elf from '../../../src/abi/elf.ts';
import { UnsupportedError } from '../../../src/errors.ts';
import { type CoreOutput, writeCore } from '../../../src/image/elfcore.ts';
import { writeEntries } from '../../../src/image/file.ts';
import { describe, render } from '../../../src/image/show.ts';
import { images } from '../../../src/image/types.ts';
import { areaOf, fpregsOf, INTEL_LAYOUT, type XsaveLayout } from '../../../src/image/xsave.ts';
import { ARGS, CODE, core, page, SHARED, STACK, sample } from './sample.ts';

function output(): CoreOutput & { bytes: Buffer } {
  return {
    bytes: Buffer.alloc(1 << 20),
    write(bytes, position) {
      this.bytes.set(bytes, position);
    },
    finish(size) {
      this.bytes = this.bytes.subarray(0, size);
    },
  };
}

function headersOf(bytes: Buffer) {
  const header = elf.Elf64_Ehdr.read(bytes);
  return Array.from({ length: header.e_phnum }, (_, i) =>
    elf.Elf64_Phdr.read(bytes, Number(header.e_phoff) + i * header.e_phentsize),
  );
}

function notesOf(bytes: Buffer): { name: string; type: number; data: Buffer }[] {
  const { p_offset, p_filesz } = headersOf(bytes)[0]!;
  const notes = [];
  const padded = (size: number) => Math.ceil(size / 4) * 4;
  for (let at = Number(p_offset); at < Number(p_offset + p_filesz); ) {
    const { n_namesz, n_descsz, n_type } = elf.Elf64_Nhdr.read(bytes, at);
    const name = bytes.toString('latin1', at + 12, at + 12 + n_namesz - 1);
    const data = bytes.subarray(at + 12 + padded(n_namesz), at + 12 + padded(n_namesz) + n_descsz);
    notes.push({ name, type: n_type, data });
    at += 12 + padded(n_namesz) + padded(n_descsz);
  }
  return notes;
}

test('the core file has the memory: pages of the image, zeros, and what stands in a file left to it', () => {
  const file = output();
  writeCore(sample(), file);
  const segments = headersOf(file.bytes).slice(1);
  assert.deepEqual(
    segments.map(({ p_vaddr, p_filesz, p_memsz }) => [Number(p_vaddr), Number(p_filesz), Number(p_memsz)]),
    [
      [CODE, 0, 4096],
      [CODE + 4096, 4096, 4096],
      [CODE + 8192, 0, 8192],
      [SHARED, 8 * 4096, 8 * 4096],
      [STACK, 16 * 4096, 16 * 4096],
    ],
  );
  const at = (index: number, offset = 0) => {
    const start = Number(segments[index]!.p_offset) + offset;
    return file.bytes.subarray(start, start + 4096);
  };
  assert.deepEqual(Uint8Array.from(at(1)), page(200));
  assert.deepEqual(Uint8Array.from(at(3)), page(7));
  assert.deepEqual(Uint8Array.from(at(3, 4096)), page(0));
  assert.equal(at(4, 0x200).toString('latin1', 0, ARGS.length), ARGS);
});

test('the notes have registers of each thread, the process and its files', () => {
  const file = output();
  writeCore(sample(), file);
  const notes = notesOf(file.bytes);
  assert.deepEqual(
    notes.map(({ name, type, data }) => [name, type, data.length]),
    [
      ['CORE', 1, 336],
      ['CORE', 3, 136],
      ['CORE', 6, 32],
      ['CORE', 0x46494c45, 16 + 24 + '/usr/bin/sample\0'.length],
      ['CORE', 2, 512],
      ['LINUX', 0x202, 2696],
      ['CORE', 1, 336],
      ['CORE', 2, 512],
      ['LINUX', 0x202, 2696],
    ],
  );
  const [status, info] = [notes[0]!.data, notes[1]!.data];
  assert.equal(status.readInt32LE(32), 100, 'pr_pid');
  assert.equal(status.readBigUInt64LE(112 + 16 * 8), BigInt(CODE), 'rip');
  assert.equal(notes[6]!.data.readInt32LE(32), 101, 'pr_pid of the second thread');
  assert.equal(info.toString('latin1', 40, 46), 'sample');
  assert.equal(info.toString('latin1', 56, 56 + ARGS.length), ARGS.replaceAll('\0', ' '));
  assert.equal(notes[5]!.data.readUInt32LE(576 + 4), 101, 'upper half of ymm0');
});

test('processes that cannot become a core file are refused', () => {
  assert.throws(() => writeCore(sample(), output(), 5), /process 5: the image has no such process/);
  const store = sample();
  const parts: Uint8Array[] = [];
  const sink = { write: (bytes: Uint8Array) => parts.push(bytes.slice()), close() {} };
  const leader = core(102, true);
  writeEntries(sink, images.CORE, [{ ...leader, tc: { ...leader.tc!, task_state: 6 } }]);
  store.files.set('core-102.img', Buffer.concat(parts));
  assert.throws(() => writeCore(store, output(), 102), /it ended, so that it has no memory/);
});

/** AMD's places of the same components. */
const AMD: XsaveLayout = {
  size: 2440,
  offsets: new Map([
    [2, 576],
    [5, 832],
    [6, 896],
    [7, 1408],
    [9, 2432],
  ]),
};

test('registers go from one layout of the xsave area to the other and back', () => {
  const area = new Uint8Array(AMD.size).map((_, i) => (i * 7) & 0xff);
  // Reserved parts, which no image has: the end of the fxsave area and the header behind XSTATE_BV.
  area.fill(0, 416, 576);
  new DataView(area.buffer).setBigUint64(512, 0x2e7n, true);
  const fpregs = fpregsOf(area, AMD);
  assert.deepEqual(fpregs.xsave!.bndreg_state, []);
  const intel = areaOf({ ...fpregs }, INTEL_LAYOUT, 'core-1.img');
  assert.deepEqual(intel.subarray(1088, 1088 + 64), area.subarray(832, 832 + 64));
  assert.deepEqual(areaOf(fpregsOf(intel, INTEL_LAYOUT), AMD, 'core-1.img'), area);
});

test('registers that a CPU or the image has no place for are refused, never cut', () => {
  const area = new Uint8Array(INTEL_LAYOUT.size);
  const view = new DataView(area.buffer);
  view.setBigUint64(512, 1n << 18n, true);
  assert.throws(() => fpregsOf(area, INTEL_LAYOUT), /XCR0 bits 0x40000/);
  view.setBigUint64(512, 1n << 3n, true);
  assert.throws(() => areaOf(fpregsOf(area, INTEL_LAYOUT), AMD, 'core-1.img'), UnsupportedError);
  const { fpregs } = core(1, true).thread_info!;
  assert.throws(() => areaOf({ ...fpregs, st_space: [1] }, AMD, 'core-1.img'), {
    name: 'FormatError',
    message: /core-1\.img: st_space: expected 32 elements, found 1/,
  });
});

test('the image is shown to people: processes, memory, files', () => {
  const text = render(describe(sample()), { memory: true, files: true });
  const [head, tree, memory, , files] = text.split('\n\n');
  assert.equal(
    head,
    `made by tideover 0.1.0, 2026-11-21T04:00:00.000Z
on Linux 6.18.0, x86_64, a CPU
2 processes, 3 threads, 28 KiB of memory`,
  );
  assert.equal(
    tree,
    `100 sample  running, 2 threads, 12 KiB: sample --with arguments
  102 sample  running, 1 thread, 12 KiB: sample --with arguments`,
  );
  assert.equal(
    memory,
    `memory of 100
  000000400000-000000404000 rw-p     16 KiB      4 KiB  /usr/bin/sample
  7f0000000000-7f0000008000 rw-s     32 KiB      4 KiB  shared memory 77
  7ffd00000000-7ffd00010000 rw-p     64 KiB      8 KiB  [stack]
  ffffffffff600000-ffffffffff601000 rw-p      4 KiB      0 KiB  [vsyscall]`,
  );
  assert.equal(
    files,
    `files of 100
  exe  /usr/bin/sample
  cwd  /
    0  /tmp/not UTF-8: \\xff
    3  pipe 9 read end
    4  pipe 9 write end
    5  /tmp/gone`,
  );
});
