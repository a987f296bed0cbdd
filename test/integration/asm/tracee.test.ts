/** The batch runner in another process: `cat`, which must go on as if nothing had been. */
import assert from 'node:assert/strict';
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { AT_FDCWD, O_RDONLY } from '../../../src/abi/fcntl.ts';
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE } from '../../../src/abi/mman.ts';
import { NT_PRSTATUS, user_regs_struct } from '../../../src/abi/ptrace.ts';
import { SIGSTOP, SIGTRAP, SIGURG, SIGWINCH } from '../../../src/abi/signal.ts';
import { bytes, struct, u16, u64 } from '../../../src/abi/struct.ts';
import { NR } from '../../../src/abi/unistd.ts';
import { Batch, endBySignal, endByTrap, remoteRunner } from '../../../src/asm/batch.ts';
import { readMemory, writeMemory } from '../../../src/sys/process_vm.ts';
import {
  cont,
  detach,
  getRegset,
  getSigmask,
  interrupt,
  seize,
  setRegset,
  setSigmask,
  singlestep,
  waitTracee,
} from '../../../src/sys/ptrace.ts';
import { Region } from '../../../src/sys/region.ts';
import { PATIENCE, until } from '../patience.ts';

type Registers = ReturnType<typeof user_regs_struct.read>;

/** struct ucontext of arch/x86/include/uapi/asm/sigcontext.h and include/uapi/asm-generic/ucontext.h */
const ucontext = struct('ucontext', 304, {
  uc_flags: u64,
  uc_link: u64,
  uc_stack: bytes(24),
  ...Object.fromEntries(
    'r8 r9 r10 r11 r12 r13 r14 r15 rdi rsi rbp rbx rdx rax rcx rsp rip eflags'.split(' ').map((name) => [name, u64]),
  ),
  cs: u16,
  gs: u16,
  fs: u16,
  ss: u16,
  err: u64,
  trapno: u64,
  oldmask: u64,
  cr2: u64,
  fpstate: u64,
  reserved1: bytes(64),
  uc_sigmask: u64,
});

/** Scratch memory of the tracee: code, records, the frame, data, and room for a stack below its end. */
const AT = { records: 1024, frame: 8192, data: 12288, stack: 65536 - 256 };
const SIZE = 65536;

const memory = new Region(SIZE);
const registers = memory.bytes.subarray(0, user_regs_struct.size);

const children: ChildProcessWithoutNullStreams[] = [];
after(() => {
  for (const child of children) child.kill('SIGKILL');
});

/** A `cat` that waits in read(2). libuv must not see its stops: from seize to detach nothing here may yield. */
async function startCat() {
  const child = spawn('cat');
  children.push(child);
  assert.equal(await echo(child, 'ready'), 'ready');
  await until(() => readFileSync(`/proc/${child.pid}/syscall`, 'utf8').startsWith('0 0x0 '), 'it does not read');
  return { child, pid: child.pid! };
}

async function echo(child: ChildProcessWithoutNullStreams, text: string): Promise<string> {
  child.stdin.write(text);
  const [answer] = (await once(child.stdout, 'data', { signal: AbortSignal.timeout(PATIENCE) })) as [Buffer];
  return answer.toString();
}

function getRegisters(pid: number): Registers {
  getRegset(pid, NT_PRSTATUS, memory.address, user_regs_struct.size);
  return user_regs_struct.read(registers);
}

function setRegisters(pid: number, value: Registers) {
  user_regs_struct.write(value, registers);
  setRegset(pid, NT_PRSTATUS, memory.address, user_regs_struct.size);
}

/** The signal that a tracee stops with. */
function stopSignal(pid: number): number {
  const status = waitTracee(pid, PATIENCE);
  assert.equal(status?.kind, 'stopped');
  return (status as { signal: number }).signal;
}

const blockedAllBut = (...signals: number[]) =>
  signals.reduce((mask, signal) => mask & ~(1n << BigInt(signal - 1)), 2n ** 64n - 1n);

/** A stopped tracee with scratch memory, made by its own syscall instruction, which rip is just behind. */
function enter(pid: number, code: Uint8Array) {
  seize(pid);
  interrupt(pid);
  stopSignal(pid);
  const mask = getSigmask(pid);
  const before = getRegisters(pid);
  assert.equal(before.rax, BigInt.asUintN(64, -512n), 'a read that is to be restarted');
  setSigmask(pid, blockedAllBut(SIGTRAP, SIGURG, SIGWINCH));
  const call = {
    rdi: 0n,
    rsi: BigInt(SIZE),
    rdx: BigInt(PROT_READ | PROT_WRITE | PROT_EXEC),
    r8: 2n ** 64n - 1n,
    r9: 0n,
  };
  setRegisters(pid, {
    ...before,
    ...call,
    r10: BigInt(MAP_PRIVATE | MAP_ANONYMOUS),
    rax: BigInt(NR.mmap),
    orig_rax: 2n ** 64n - 1n,
    rip: before.rip - 2n,
  });
  singlestep(pid);
  assert.equal(stopSignal(pid), SIGTRAP);
  const scratch = Number(getRegisters(pid).rax);
  assert.ok(scratch > 0);
  memory.bytes.fill(0).set(code);
  // Back to before the system call, which is then made again.
  const restart = { ...before, rax: before.orig_rax, orig_rax: 2n ** 64n - 1n, rip: before.rip - 2n };
  return { scratch, mask, restart };
}

/** Puts the records into the tracee and rip onto the runner. */
function start(pid: number, scratch: number, batch: Batch, restart: Registers, signal: number) {
  assert.equal(writeMemory(pid, scratch, memory.address, SIZE), SIZE);
  setRegisters(pid, {
    ...restart,
    rip: BigInt(scratch),
    rbx: BigInt(scratch + AT.records),
    r12: BigInt(batch.length),
    r14: BigInt(signal),
    r15: BigInt(scratch + AT.frame),
    rsp: BigInt(scratch + AT.stack),
  });
}

function fetch(pid: number, scratch: number) {
  assert.equal(readMemory(pid, scratch, memory.address, SIZE), SIZE);
}

function newBatch(): Batch {
  return new Batch(memory.bytes.subarray(AT.records, AT.frame));
}

/** The way back for a thread that loses its tracer. */
function writeFrame(restart: Registers, mask: bigint) {
  const frame = { ...restart, uc_flags: 6n, cs: 0x33, ss: 0x2b, gs: 0, fs: 0, uc_sigmask: mask };
  ucontext.write(frame, memory.bytes, AT.frame);
}

const text = (pathname: string) => memory.bytes.set(Buffer.from(`${pathname}\0`), AT.data);

test('batches in a tracee that end by a trap', async () => {
  const { child, pid } = await startCat();
  const { scratch, mask, restart } = enter(pid, remoteRunner(endByTrap()));
  const batch = newBatch();
  text('/proc/self/comm');
  const opened = batch.addOrStop(NR.openat, AT_FDCWD, scratch + AT.data, O_RDONLY, 0);
  const read = batch.addOrStop(NR.read, 0, scratch + AT.data + 64, 16);
  const closed = batch.addOrStop(NR.close);
  const id = batch.add(NR.getpid);
  const refused = batch.addOrStop(NR.close, -1);
  const never = batch.add(NR.getpid);
  batch.passResult(opened, read, 0);
  batch.passResult(opened, closed, 0);
  for (let round = 0; round < 3; round++) {
    start(pid, scratch, batch, restart, 0);
    cont(pid);
    assert.equal(stopSignal(pid), SIGTRAP);
    assert.equal(getRegisters(pid).r12, 2n);
    fetch(pid, scratch);
    assert.equal(batch.result(read), 4);
    assert.equal(Buffer.from(memory.bytes.subarray(AT.data + 64, AT.data + 68)).toString(), 'cat\n');
    assert.equal(batch.result(closed), 0);
    assert.equal(batch.result(id), pid);
    assert.equal(batch.result(refused), -9);
    assert.ok(!batch.done(never));
  }
  setRegisters(pid, restart);
  setSigmask(pid, mask);
  detach(pid);
  assert.equal(await echo(child, 'still here'), 'still here');
});

for (const [name, signal] of [
  ['SIGURG', SIGURG],
  ['SIGWINCH', SIGWINCH],
  ['SIGSTOP', SIGSTOP],
] as const) {
  test(`a batch that ends by ${name}, and a tracer that lets go there: the tracee goes back where it was`, async () => {
    const { child, pid } = await startCat();
    const { scratch, mask, restart } = enter(pid, remoteRunner(endBySignal()));
    const batch = newBatch();
    const id = batch.add(NR.getpid);
    writeFrame(restart, mask);
    start(pid, scratch, batch, restart, signal);
    cont(pid);
    assert.equal(stopSignal(pid), signal);
    fetch(pid, scratch);
    assert.equal(batch.result(id), pid);
    detach(pid);
    assert.equal(await echo(child, 'still here'), 'still here');
    assert.equal(blocked(pid), mask);
  });
}

test('a tracee that loses its tracer in the middle of a batch finishes it and goes back where it was', async () => {
  const { child, pid } = await startCat();
  const { scratch, mask, restart } = enter(pid, remoteRunner(endBySignal()));
  const batch = newBatch();
  text('cat of a batch\n');
  // Sleeps while nobody traces it, then shows that it came to its end.
  memory.view.setBigUint64(AT.data + 64 + 8, 50_000_000n, true);
  batch.add(NR.nanosleep, scratch + AT.data + 64, 0);
  batch.add(NR.write, 1, scratch + AT.data, 15);
  writeFrame(restart, mask);
  start(pid, scratch, batch, restart, SIGURG);
  detach(pid);
  const [written] = (await once(child.stdout, 'data', { signal: AbortSignal.timeout(PATIENCE) })) as [Buffer];
  assert.equal(written.toString(), 'cat of a batch\n');
  assert.equal(await echo(child, 'still here'), 'still here');
  assert.equal(blocked(pid), mask);
});

function blocked(pid: number): bigint {
  return BigInt(`0x${/^SigBlk:\s*(\w+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]!}`);
}
