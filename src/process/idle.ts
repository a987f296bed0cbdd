/** A process that does nothing, to practise on. */

import { CLONE_CLEAR_SIGHAND, CLONE_VM } from '../abi/sched.ts';
import { SIGCHLD, SIGKILL } from '../abi/signal.ts';
import { NR } from '../abi/unistd.ts';
import { __WALL } from '../abi/wait.ts';
import { assemble } from '../asm/assemble.ts';
import { jmp, mov, syscall } from '../asm/instructions.ts';
import { eax, edi, edx, esi, label } from '../asm/operands.ts';
import { clone3 } from '../sys/clone.ts';
import { kill, wait4 } from '../sys/process.ts';
import { writeMemory } from '../sys/process_vm.ts';
import { Region } from '../sys/region.ts';
import { writeRegisters } from './tracee.ts';
import { makeScratch } from './tree.ts';

const MEMORY = { address: 0x1000_0000, size: 1 << 16 };

/** Closes all descriptors, which are ours, and waits for ever. */
function code(): Uint8Array {
  const again = label('again');
  return assemble(
    mov(eax, NR.close_range),
    mov(edi, 0),
    mov(esi, 0x7fff_ffff),
    mov(edx, 0),
    syscall(),
    again,
    mov(eax, NR.pause),
    syscall(),
    jmp(again),
  ).bytes;
}

/** @returns its process id; nobody traces it */
export function startIdle(): number {
  const clone = () => clone3({ flags: CLONE_VM | CLONE_CLEAR_SIGHAND, exit_signal: SIGCHLD }).pid;
  const tracee = makeScratch(clone, MEMORY);
  const { pid } = tracee;
  const region = new Region(4096);
  try {
    region.bytes.set(code());
    writeMemory(pid, MEMORY.address, region.address, region.size);
    tracee.registers.set('rip', MEMORY.address);
    writeRegisters(pid, tracee.registers);
    tracee.letGo();
    return pid;
  } finally {
    region[Symbol.dispose]();
  }
}

export function endIdle(pid: number): void {
  kill({ pid, sig: SIGKILL });
  wait4.attempt({ pid, wstatus: 0, options: __WALL, rusage: 0 });
}
