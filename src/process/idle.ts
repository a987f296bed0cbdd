/** A process that does nothing, to practise on. */

import { PR_SET_PDEATHSIG } from '../abi/prctl.ts';
import { CLONE_CLEAR_SIGHAND, CLONE_VM } from '../abi/sched.ts';
import { SIGCHLD, SIGKILL } from '../abi/signal.ts';
import { NR } from '../abi/unistd.ts';
import { __WALL } from '../abi/wait.ts';
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

/**
 * Closes all descriptors, which are ours, and waits for ever; but it ends with us. It asks for that by itself, as it may have
 * been stopped before clone3's own code did, and until it has, PTRACE_O_EXITKILL stands for it.
 */
function code(): Uint8Array {
  const [again, end] = [label('again'), label('end')];
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

/** @returns its process id; nobody traces it, it waits, and it ends with us */
export function startIdle(): number {
  const clone = () => clone3({ flags: CLONE_VM + CLONE_CLEAR_SIGHAND, exit_signal: SIGCHLD, pdeath_sig: SIGKILL }).pid;
  const tracee = makeScratch(clone, MEMORY);
  const { pid } = tracee;
  const region = new Region(4096);
  try {
    region.bytes.set(code());
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

export function endIdle(pid: number): void {
  kill({ pid, sig: SIGKILL });
  wait4.attempt({ pid, wstatus: 0, options: __WALL, rusage: 0 });
}
