import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from '../../../src/abi/mman.ts';
import * as abi from '../../../src/abi/ptrace.ts';
import { CLONE_CLEAR_SIGHAND, CLONE_VM } from '../../../src/abi/sched.ts';
import { SI_TKILL, SIGKILL, SIGTRAP, SIGURG, siginfo, siginfo_sigchld } from '../../../src/abi/signal.ts';
import { NR } from '../../../src/abi/unistd.ts';
import { __WALL } from '../../../src/abi/wait.ts';
import { clone3, pausedAt } from '../../../src/sys/clone.ts';
import { readMaps } from '../../../src/sys/maps.ts';
import { getpid, kill, tgkill, wait4 } from '../../../src/sys/process.ts';
import { readMemory } from '../../../src/sys/process_vm.ts';
import * as ptrace from '../../../src/sys/ptrace.ts';
import { Region } from '../../../src/sys/region.ts';
import { readStat, readStatus } from '../../../src/sys/stat.ts';
import { PATIENCE, until } from '../patience.ts';
import { startTarget, type Target } from './target.ts';

const { offsets, size: REGS } = abi.user_regs_struct;

function stop(tid: number): void {
  ptrace.seize(tid);
  ptrace.interrupt(tid);
  assert.deepEqual(ptrace.waitTracee(tid, PATIENCE), {
    kind: 'stopped',
    signal: SIGTRAP,
    event: abi.PTRACE_EVENT_STOP,
  });
}

/** It goes on when its counter does. */
async function assertRuns(target: Target): Promise<void> {
  using region = new Region(4096);
  const count = () => {
    readMemory(target.pid, target.counter, region.address, 4);
    return region.view.getUint32(0, true);
  };
  const before = count();
  await until(() => count() > before, 'the target stands still');
}

test('seize, read the registers, detach: the target goes on', async (t) => {
  const target = await startTarget(t);
  using region = new Region(65536);
  for (let round = 0; round < 20; round++) {
    stop(target.pid);
    assert.equal(readStat(target.pid).state, 't');
    assert.equal(readStatus(target.pid).TracerPid, process.pid);
    const length = ptrace.getRegset(target.pid, abi.NT_PRSTATUS, region.address, region.size);
    assert.equal(length, REGS);
    const regs = abi.user_regs_struct.read(region.bytes);
    assert.equal(regs.cs, 0x33n);
    const rip = Number(regs.rip);
    const code = readMaps(target.pid).find(({ start, end }) => start <= rip && rip < end);
    assert.ok(code && (code.prot & 4) !== 0, `rip 0x${rip.toString(16)} lies in no code`);
    // What was read is what is written, also with the extended state.
    assert.equal(ptrace.setRegset(target.pid, abi.NT_PRSTATUS, region.address, REGS), REGS);
    const xstate = ptrace.getRegset(target.pid, abi.NT_X86_XSTATE, region.address, region.size);
    assert.ok(xstate >= 576, `${xstate} bytes of xstate`);
    assert.equal(ptrace.setRegset(target.pid, abi.NT_X86_XSTATE, region.address, xstate), xstate);
    ptrace.detach(target.pid);
  }
  assert.equal(readStatus(target.pid).TracerPid, 0);
  await assertRuns(target);
});

test('the signal mask is read and set, and pending signals are seen', async (t) => {
  const target = await startTarget(t);
  stop(target.pid);
  assert.equal(ptrace.getSigmask(target.pid), readStatus(target.pid).SigBlk);
  const mask = 1n << BigInt(SIGURG - 1);
  ptrace.setSigmask(target.pid, mask);
  assert.equal(ptrace.getSigmask(target.pid), mask);
  assert.equal(readStatus(target.pid).SigBlk, mask);

  // To the thread: another one of the process would take it, and drop it.
  tgkill({ tgid: target.pid, tid: target.pid, sig: SIGURG });
  const infos = new Uint8Array(4 * siginfo.size);
  const from = { off: 0, flags: 0, nr: 4 };
  assert.equal(ptrace.peekSiginfo(target.pid, from, infos), 1);
  const info = siginfo_sigchld.read(infos);
  assert.deepEqual(
    [info.si_signo, info.si_code, info.si_pid, info.si_uid],
    [SIGURG, SI_TKILL, process.pid, process.getuid!()],
  );
  assert.equal(ptrace.peekSiginfo(target.pid, { ...from, flags: abi.PTRACE_PEEKSIGINFO_SHARED }, infos), 0);
  assert.equal(readStatus(target.pid).SigPnd, mask);

  ptrace.setSigmask(target.pid, 0n);
  ptrace.detach(target.pid);
  await assertRuns(target);
});

test("where a thread's rseq area is", async (t) => {
  const target = await startTarget(t);
  stop(target.pid);
  const { rseq_abi_pointer, rseq_abi_size, signature } = ptrace.getRseqConfiguration(target.pid);
  ptrace.detach(target.pid);
  // glibc has registered one since 2.35; RSEQ_SIG of x86.
  if (rseq_abi_pointer !== 0) {
    assert.ok(rseq_abi_size >= 28);
    assert.equal(signature, 0x5305_3053);
    assert.ok(readMaps(target.pid).some(({ start, end }) => start <= rseq_abi_pointer && rseq_abi_pointer < end));
  }
  await assertRuns(target);
});

test('a wait with a time limit ends, and a tracee that is killed is told', async (t) => {
  const target = await startTarget(t);
  ptrace.seize(target.pid);
  assert.equal(ptrace.waitTracee(target.pid, 20), undefined);
  kill({ pid: target.pid, sig: SIGKILL });
  assert.deepEqual(ptrace.waitTracee(target.pid, PATIENCE), { kind: 'killed', signal: SIGKILL, core: false });
  assert.throws(
    () => ptrace.interrupt(target.pid),
    /^SyscallError: ptrace\(request=PTRACE_INTERRUPT, pid=\d+, .*ESRCH/,
  );
});

test('a child of clone3 pauses without a stack and performs what its tracer says', () => {
  const { pid } = clone3({ flags: CLONE_VM + CLONE_CLEAR_SIGHAND, exit_signal: 0 });
  using region = new Region(4096);
  try {
    stop(pid);
    const regs = () => ptrace.getRegset(pid, abi.NT_PRSTATUS, region.address, region.size);
    const get = (field: keyof typeof offsets) => Number(region.view.getBigInt64(offsets[field], true));
    const set = (field: keyof typeof offsets, value: number) =>
      region.view.setBigInt64(offsets[field], BigInt(value), true);
    regs();
    // On its way to pause(2) or in it, and nowhere else.
    assert.ok(get('rip') >= pausedAt() - 48 && get('rip') <= pausedAt() + 2);
    const remote = (nr: number, ...args: number[]) => {
      regs();
      set('rax', nr);
      // Else the kernel takes it for an interrupted call and restarts that one.
      set('orig_rax', -1);
      set('rip', pausedAt());
      for (const [i, field] of (['rdi', 'rsi', 'rdx', 'r10', 'r8', 'r9'] as const).entries()) set(field, args[i] ?? 0);
      ptrace.setRegset(pid, abi.NT_PRSTATUS, region.address, REGS);
      ptrace.singlestep(pid);
      assert.deepEqual(ptrace.waitTracee(pid, PATIENCE), { kind: 'stopped', signal: SIGTRAP, event: 0 });
      regs();
      return get('rax');
    };
    assert.equal(remote(NR.getpid), pid);
    assert.equal(remote(NR.getppid), getpid({}));
    // It shares this process's memory: what it maps, this one can use.
    const mapped = remote(NR.mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert.ok(readMaps('self').some(({ start, end }) => start <= mapped && mapped < end));
    assert.equal(remote(NR.munmap, mapped, 4096), 0);
  } finally {
    kill({ pid, sig: SIGKILL });
    assert.equal(wait4({ pid, wstatus: 0, options: __WALL, rusage: 0 }), pid);
  }
});
