/** Where a thread goes on that was stopped within a system call: signal(7), restart of system calls. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NR } from '../../../src/abi/unistd.ts';
import { resumable } from '../../../src/process/registers.ts';
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
    assert.equal(next.number('orig_rax'), -1);
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

test('registers hold all 64 bits', () => {
  const registers = new Registers();
  registers.set('r15', 0xffff_8000_1234_5678n);
  assert.equal(registers.get('r15'), 0xffff_8000_1234_5678n);
  registers.set('rax', -4095);
  assert.equal(registers.number('rax'), -4095);
  assert.equal(registers.get('rax'), 0xffff_ffff_ffff_f001n);
});
