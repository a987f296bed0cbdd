/** The runner in this process, with real system calls. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { Errno } from '../../../src/abi/errno.ts';
import { AT_FDCWD, O_CREAT, O_RDONLY, O_WRONLY } from '../../../src/abi/fcntl.ts';
import { MAP_PRIVATE, PROT_READ } from '../../../src/abi/mman.ts';
import { NR } from '../../../src/abi/unistd.ts';
import { assemble, db } from '../../../src/asm/assemble.ts';
import { Batch, batch_record, localRunner } from '../../../src/asm/batch.ts';
import { call, mov, or, pop, push, ret, shl } from '../../../src/asm/instructions.ts';
import { label, r12, r13, rax, rbx } from '../../../src/asm/operands.ts';
import { mapCode, Region } from '../../../src/sys/region.ts';

const SEEK_SET = 0;
const SEEK_END = 2;

const folder = mkdtempSync(join(tmpdir(), 'batch-'));
after(() => rmSync(folder, { recursive: true }));

const memory = new Region(1 << 17);
/** Records in the first half, data in the second. */
const DATA = memory.size / 2;
const runner = mapCode(localRunner(), 2);
const run = (batch: Batch) => runner.call(memory.address, batch.length);

function newBatch(): Batch {
  return new Batch(memory.bytes.subarray(0, DATA));
}

/** Text with its NUL in the data half. @returns its address */
function text(at: number, value: string): number {
  memory.bytes.set(Buffer.from(`${value}\0`), DATA + at);
  return memory.address + DATA + at;
}

test('a new descriptor goes from record to record', () => {
  const path = join(folder, 'file');
  writeFileSync(path, 'what the file says');
  const buffer = memory.address + DATA + 4096;
  const batch = newBatch();
  const opened = batch.addOrStop(NR.openat, AT_FDCWD, text(0, path), O_RDONLY, 0);
  const read = batch.addOrStop(NR.read, 0, buffer, 100);
  const closed = batch.addOrStop(NR.close);
  const again = batch.add(NR.close);
  for (const record of [read, closed, again]) batch.passResult(opened, record, 0);
  assert.equal(run(batch), 0);
  assert.ok(batch.result(opened) > 2);
  assert.equal(batch.result(read), 18);
  assert.equal(Buffer.from(memory.bytes.subarray(DATA + 4096, DATA + 4096 + 18)).toString(), 'what the file says');
  assert.equal(batch.result(closed), 0);
  assert.equal(batch.result(again), -Errno.EBADF);
});

test('results reach every argument', () => {
  const [from, to] = [join(folder, 'from'), join(folder, 'to')];
  writeFileSync(from, `${'x'.repeat(4096)}hello`);
  const [whole, tail] = [memory.address + DATA + 8192, memory.address + DATA + 16384];
  const batch = newBatch();
  const input = batch.addOrStop(NR.openat, AT_FDCWD, text(0, from), O_RDONLY, 0);
  const output = batch.addOrStop(NR.openat, AT_FDCWD, text(1024, to), O_WRONLY | O_CREAT, 0o600);
  const size = batch.addOrStop(NR.lseek, 0, 0, SEEK_END);
  const page = batch.addOrStop(NR.lseek, 0, 4096, SEEK_SET);
  const readWhole = batch.addOrStop(NR.pread64, 0, whole, 0, 0);
  const readTail = batch.addOrStop(NR.pread64, 0, tail, 100, 0);
  const mapped = batch.addOrStop(NR.mmap, 0, 4096, PROT_READ, MAP_PRIVATE, 0, 0);
  const written = batch.addOrStop(NR.write, 0, 0, 5);
  const ends = [NR.close, NR.close, NR.munmap].map((nr) => batch.addOrStop(nr, 0, 4096));
  for (const record of [size, page, readWhole, readTail, ends[0]!]) batch.passResult(input, record, 0);
  for (const record of [written, ends[1]!]) batch.passResult(output, record, 0);
  batch.passResult(mapped, ends[2]!, 0);
  batch.passResult(mapped, written, 1);
  batch.passResult(size, readWhole, 2);
  batch.passResult(page, readTail, 3);
  batch.passResult(input, mapped, 4);
  batch.passResult(page, mapped, 5);
  assert.equal(run(batch), 0);
  assert.equal(batch.result(readWhole), 4101);
  assert.equal(batch.result(readTail), 5);
  assert.equal(Buffer.from(memory.bytes.subarray(DATA + 16384, DATA + 16389)).toString(), 'hello');
  assert.equal(readFileSync(to, 'utf8'), 'hello');
});

test('an error ends the batch where that was asked for, and later records say that they were not run', () => {
  const batch = newBatch();
  const first = batch.add(NR.close, -1);
  const second = batch.addOrStop(NR.getpid);
  const third = batch.addOrStop(NR.close, -1);
  const fourth = batch.add(NR.getpid);
  assert.equal(run(batch), 2, 'the failed one and the one behind it are left');
  assert.equal(batch.result(first), -Errno.EBADF);
  assert.equal(batch.result(second), process.pid);
  assert.equal(batch.result(third), -Errno.EBADF);
  assert.ok(batch.done(third));
  assert.ok(!batch.done(fourth));
});

test('the registers that belong to the caller come back', () => {
  const code = label('runner');
  const saved = [rbx, r12, r13] as const;
  const { bytes } = assemble(
    saved.map((register) => push(register)),
    saved.map((register, i) => mov(register, i + 1)),
    call(code),
    mov(rax, rbx),
    [r12, r13].map((register) => [shl(rax, 8), or(rax, register)]),
    saved.toReversed().map((register) => pop(register)),
    ret(),
    code,
    db(localRunner()),
  );
  const batch = newBatch();
  batch.add(NR.getpid);
  assert.equal(mapCode(bytes, 2).call(memory.address, 1), 0x010203);
  assert.equal(batch.result(0), process.pid);
});

test('a thousand calls in one go', () => {
  const batch = newBatch();
  for (let n = 0; n < 1000; n++) batch.addOrStop(n % 2 ? NR.getpid : NR.getppid);
  assert.equal(run(batch), 0);
  for (let n = 0; n < 1000; n++) assert.equal(batch.result(n), n % 2 ? process.pid : process.ppid);
  batch.clear();
  assert.equal(batch.length, 0);
  assert.equal(run(batch), 0);
});

test('what is written is what the struct reads, for any argument', () => {
  const argument = fc.oneof(fc.maxSafeInteger(), fc.integer({ min: -5000, max: 5000 }));
  fc.assert(
    fc.property(fc.nat(500), fc.tuple(argument, argument, argument, argument, argument, argument), (nr, args) => {
      const batch = new Batch(new Uint8Array(batch_record.size).fill(0xff));
      batch.add(nr, ...args);
      const view = new DataView(batch.bytes.buffer);
      const written = args.map((_, n) => view.getBigInt64(batch_record.offsets.arg + 8 * n, true));
      assert.deepEqual(written, args.map(BigInt));
      assert.equal(view.getUint32(0, true), nr);
      assert.equal(view.getUint32(4, true), 0);
      assert.ok(!batch.done(0));
      view.setBigInt64(batch_record.offsets.ret, BigInt(args[0]), true);
      assert.equal(batch.result(0), args[0]);
      assert.ok(batch.done(0));
    }),
  );
});

test('records that cannot be are refused', () => {
  const batch = new Batch(new Uint8Array(2 * batch_record.size));
  batch.add(NR.getpid);
  assert.throws(() => batch.add(NR.close, 2 ** 53), /9007199254740992 is not a whole number/);
  assert.equal(batch.length, 1);
  batch.add(NR.close);
  assert.throws(() => batch.add(NR.getpid), /a batch of 2 calls is full/);
  assert.throws(() => batch.passResult(1, 1, 0), /record 1 of 2 cannot take result 1 as argument 0/);
  assert.throws(() => batch.passResult(0, 2, 0), RangeError);
  assert.throws(() => batch.passResult(0, 1, 6), RangeError);
  assert.throws(() => batch.result(2), /no record 2 in a batch of 2/);
});
