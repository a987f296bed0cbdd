/** A process that does nothing: to compare with, and to practise on. */

import { O_RDWR } from '../abi/fcntl.ts';
import { PR_SET_PDEATHSIG } from '../abi/prctl.ts';
import { CLONE_CLEAR_SIGHAND, CLONE_VM } from '../abi/sched.ts';
import { SIGCHLD, SIGKILL } from '../abi/signal.ts';
import { viewOf } from '../abi/struct.ts';
import { bytesOf } from '../abi/text.ts';
import { NR } from '../abi/unistd.ts';
import { __WALL, WNOHANG, waitStatus } from '../abi/wait.ts';
import { assemble } from '../asm/assemble.ts';
import { cmp, jmp, jne, mov, syscall } from '../asm/instructions.ts';
import { eax, edi, edx, esi, label } from '../asm/operands.ts';
import { clone3 } from '../sys/clone.ts';
import { kill, sleep, wait4 } from '../sys/process.ts';
import { writeMemory } from '../sys/process_vm.ts';
import { Region } from '../sys/region.ts';
import { readStat } from '../sys/stat.ts';
import { makeScratch } from './bare.ts';
import { writeRegisters } from './tracee.ts';

const MEMORY = { address: 0x1000_0000, size: 1 << 16 };

/** A program that does nothing for 68 years, and has mappings, files and memory as most programs have them. */
const SLEEP = ['/bin/sleep', '2147483647'] as const;
/** More than it has in memory, in bytes. */
export const IDLE_MEMORY = 1 << 20;

/** Where in its memory these and their addresses are. */
const NULL_DEVICE = MEMORY.address + 0x400;
const STRINGS = [MEMORY.address + 0x500, MEMORY.address + 0x600] as const;
const ARGV = MEMORY.address + 0x700;

/**
 * Closes all descriptors, which are ours, and waits for ever, as the program or without one; but it ends with us. It asks for that by
 * itself, as it may have been stopped before clone3's own code did, and until it has, PTRACE_O_EXITKILL stands for it.
 */
function code(asProgram: boolean): Uint8Array {
  const [again, end] = [label('again'), label('end')];
  const openNull = [mov(eax, NR.open), mov(edi, NULL_DEVICE), mov(esi, O_RDWR), mov(edx, 0), syscall()];
  const execute = [
    // As most trees that are saved.
    mov(eax, NR.setsid),
    syscall(),
    ...openNull,
    ...openNull,
    // Standard error is standard output.
    mov(eax, NR.dup),
    mov(edi, 1),
    syscall(),
    mov(eax, NR.execve),
    mov(edi, STRINGS[0]),
    mov(esi, ARGV),
    mov(edx, ARGV + 8 * SLEEP.length),
    syscall(),
  ];
  return assemble(
    mov(eax, NR.prctl),
    mov(edi, PR_SET_PDEATHSIG),
    mov(esi, SIGKILL),
    syscall(),
    // We may have ended before.
    mov(eax, NR.getppid),
    syscall(),
    cmp(eax, process.pid),
    jne(end),
    mov(eax, NR.close_range),
    mov(edi, 0),
    mov(esi, 0x7fff_ffff),
    mov(edx, 0),
    syscall(),
    ...(asProgram ? execute : []),
    again,
    mov(eax, NR.pause),
    syscall(),
    jmp(again),
    end,
    mov(eax, NR.exit_group),
    mov(edi, 0),
    syscall(),
  ).bytes;
}

/**
 * @param asProgram whether it is to be a program like others; where there is none it has nothing but a page of code
 * @returns its process id; nobody traces it, it waits, and it ends with us
 */
export function startIdle(asProgram = false): number {
  const clone = () => clone3({ flags: CLONE_VM + CLONE_CLEAR_SIGHAND, exit_signal: SIGCHLD, pdeath_sig: SIGKILL }).pid;
  const tracee = makeScratch(clone, MEMORY);
  const { pid } = tracee;
  const region = new Region(4096);
  try {
    region.bytes.set(code(asProgram));
    const put = (text: string, address: number) => region.bytes.set(bytesOf(text), address - MEMORY.address);
    put('/dev/null', NULL_DEVICE);
    for (const [i, text] of SLEEP.entries()) {
      put(text, STRINGS[i]!);
      region.view.setBigUint64(ARGV + 8 * i - MEMORY.address, BigInt(STRINGS[i]!), true);
    }
    writeMemory(pid, MEMORY.address, region.address, region.size);
    tracee.registers.set('rip', MEMORY.address);
    writeRegisters(pid, tracee.registers);
    tracee.letGo();
    waitUntilIdle(pid);
    return pid;
  } finally {
    region[Symbol.dispose]();
  }
}

/** Until it has closed our descriptors, it may be what nobody can save: one end of a pipe, of which we have the other. */
function waitUntilIdle(pid: number): void {
  for (let left = MOST; left > 0 && readStat(pid).state !== 'S'; left--) sleep(MOMENT);
}

/** In ns; and how many: half a second where it does not get the processor. */
const MOMENT = 20_000;
const MOST = 5000;

/** One that has ended already and was waited for is nobody's, and its number may be another one's by now. */
export function endIdle(pid: number): void {
  const wstatus = new Uint8Array(4);
  const found = wait4.attempt({ pid, wstatus, options: WNOHANG | __WALL, rusage: 0 });
  if (found < 0 || (found > 0 && waitStatus(viewOf(wstatus).getInt32(0, true)).kind !== 'stopped')) return;
  kill({ pid, sig: SIGKILL });
  wait4.attempt({ pid, wstatus: 0, options: __WALL, rusage: 0 });
}
