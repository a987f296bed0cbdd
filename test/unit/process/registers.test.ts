/** Where a thread goes on that was stopped within a system call: signal(7), restart of system calls. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NR } from '../../../src/abi/unistd.ts';
import { interrupted, resumable } from '../../../src/process/registers.ts';
import { Registers } from '../../../src/process/tracee.ts';

function stopped(
  values: Partial<Record<'rax' | 'orig_rax' | 'rip' | 'rdi' | 'rsi' | 'rdx' | 'r10', number>>,
): Registers {
  const registers = new Registers();
  for (const [name, value] of Object.entries(values)) registers.set(name as 'rax', value);
  return registers;
}

test('an interrupted call is made again', () => {
  for (const rax of [-512, -513, -514, -516]) {
    const next = resumable(stopped({ rax, orig_rax: NR.read, rip: 0x1002, rdi: 3 }));
    assert.deepEqual([next.number('rax'), next.number('rip'), next.number('rdi')], [NR.read, 0x1000, 3]);
    assert.equal(next.number('orig_rax'), NR.read);
  }
});

test('a sleep goes on with what was left of it', () => {
  const nanosleep = { rax: -516, orig_rax: NR.nanosleep, rip: 0x1002, rdi: 0x5000, rsi: 0x6000 };
  assert.equal(resumable(stopped(nanosleep)).number('rdi'), 0x6000);
  assert.equal(resumable(stopped({ ...nanosleep, rsi: 0 })).number('rdi'), 0x5000);
  const clock = { rax: -516, orig_rax: NR.clock_nanosleep, rip: 0x1002, rdx: 0x5000, r10: 0x6000 };
  assert.equal(resumable(stopped(clock)).number('rdx'), 0x6000);
});

test('a call that is done, and code that makes none, are left alone', () => {
  const done = resumable(stopped({ rax: 5, orig_rax: NR.read, rip: 0x1002 }));
  assert.deepEqual([done.number('rax'), done.number('rip')], [5, 0x1002]);
  const failed = resumable(stopped({ rax: -4, orig_rax: NR.poll, rip: 0x1002 }));
  assert.deepEqual([failed.number('rax'), failed.number('rip')], [-4, 0x1002]);
  const computing = resumable(stopped({ rax: -512, orig_rax: -1, rip: 0x1002 }));
  assert.deepEqual([computing.number('rax'), computing.number('rip')], [-512, 0x1002]);
});

test('a call that is to be made again is as if it had been interrupted just now', () => {
  const SYSCALL = Uint8Array.of(0x0f, 0x05);
  const made = (call: number, more = {}, code = SYSCALL) => {
    const registers = stopped({ rax: call, orig_rax: call, rip: 0x1000, ...more });
    interrupted(registers, code);
    return [registers.number('rax'), registers.number('orig_rax'), registers.number('rip')];
  };
  assert.deepEqual(made(NR.pause), [-514, NR.pause, 0x1002]);
  assert.deepEqual(made(NR.read), [-512, NR.read, 0x1002]);
  assert.deepEqual(made(NR.futex, { rsi: 0x189 }), [-512, NR.futex, 0x1002]);
  // FUTEX_LOCK_PI
  assert.deepEqual(made(NR.futex, { rsi: 0x86 }), [NR.futex, -1, 0x1000]);
  assert.deepEqual(made(NR.clone), [NR.clone, -1, 0x1000]);
  // A call that is over, and code that only looks alike.
  assert.deepEqual(made(NR.read, { rax: 5 }), [5, -1, 0x1000]);
  assert.deepEqual(made(NR.read, {}, Uint8Array.of(0x90, 0x90)), [NR.read, -1, 0x1000]);
  assert.deepEqual(made(NR.read, {}, new Uint8Array(0)), [NR.read, -1, 0x1000]);
});

test('registers hold all 64 bits', () => {
  const registers = new Registers();
  registers.set('r15', 0xffff_8000_1234_5678n);
  assert.equal(registers.get('r15'), 0xffff_8000_1234_5678n);
  registers.set('rax', -4095);
  assert.equal(registers.number('rax'), -4095);
  assert.equal(registers.get('rax'), 0xffff_ffff_ffff_f001n);
});
