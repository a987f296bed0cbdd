import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PTRACE_EVENT_STOP } from '../../../src/abi/ptrace.ts';
import { SIGKILL, SIGSEGV, SIGSTOP, SIGTRAP } from '../../../src/abi/signal.ts';
import { waitStatus } from '../../../src/abi/wait.ts';

test('a status word says what happened, as the macros of wait(2) do', () => {
  assert.deepEqual(waitStatus(0), { kind: 'exited', code: 0 });
  assert.deepEqual(waitStatus(0x2a00), { kind: 'exited', code: 42 });
  assert.deepEqual(waitStatus(SIGKILL), { kind: 'killed', signal: SIGKILL, core: false });
  assert.deepEqual(waitStatus(0x80 | SIGSEGV), { kind: 'killed', signal: SIGSEGV, core: true });
  assert.deepEqual(waitStatus((SIGSTOP << 8) | 0x7f), { kind: 'stopped', signal: SIGSTOP, event: 0 });
  assert.deepEqual(waitStatus((PTRACE_EVENT_STOP << 16) | (SIGTRAP << 8) | 0x7f), {
    kind: 'stopped',
    signal: SIGTRAP,
    event: PTRACE_EVENT_STOP,
  });
  assert.deepEqual(waitStatus(0xffff), { kind: 'continued' });
});
