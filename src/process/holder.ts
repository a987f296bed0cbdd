/**
 * A process that holds descriptors of ours open when we are gone, until the next kernel starts. systemd stops the processes of all
 * units and sessions before that and kills what is left at the end, but none that belongs to no unit and whose argv[0] begins with
 * `@`: https://systemd.io/ROOT_STORAGE_DAEMONS. This one has no file system that would have to stay mounted for it either: its program
 * is not in a file.
 */
import { CLONE_CLEAR_SIGHAND, CLONE_VM } from '../abi/sched.ts';
import { SIGCHLD } from '../abi/signal.ts';
import { bytesOf } from '../abi/text.ts';
import { NR } from '../abi/unistd.ts';
import { assemble } from '../asm/assemble.ts';
import { mov, syscall } from '../asm/instructions.ts';
import { eax, edi, edx, esi } from '../asm/operands.ts';
import { clone3 } from '../sys/clone.ts';
import { writeMemory } from '../sys/process_vm.ts';
import { Region } from '../sys/region.ts';
import { makeScratch } from './bare.ts';
import { cgroupsOf, restoreCgroups } from './cgroups.ts';
import { writeRegisters } from './tracee.ts';

const NAME = '@tideover';
const MEMORY = { address: 0x1000_0000, size: 1 << 16 };
const PAGE = 4096;
/** Behind the code: `/`, then room for what is read. */
const [ROOT, BUFFER] = [MEMORY.address + PAGE, MEMORY.address + PAGE + 8];

/**
 * Starts it.
 *
 * @param fds what it holds: descriptors that programs inherit
 * @param end a descriptor that programs inherit: when there is something to read from it, the process ends
 * @returns its process id
 * @throws UnsupportedError where it cannot leave our control group, SyscallError
 */
export function holdOpen(fds: readonly number[], end: number): number {
  // It ends with this process only as long as it is traced.
  const clone = () => clone3({ flags: CLONE_VM + CLONE_CLEAR_SIGHAND, exit_signal: SIGCHLD }).pid;
  const tracee = makeScratch(clone, MEMORY, NAME);
  const { pid } = tracee;
  const region = new Region(2 * PAGE);
  try {
    restoreCgroups(pid, rootGroups(pid));
    region.bytes.set(code(fds, end));
    region.bytes.set(bytesOf('/'), PAGE);
    writeMemory(pid, MEMORY.address, region.address, region.size);
    tracee.registers.set('rip', MEMORY.address);
    writeRegisters(pid, tracee.registers);
    tracee.letGo();
    return pid;
  } catch (error) {
    process.kill(pid, 'SIGKILL');
    throw error;
  } finally {
    region[Symbol.dispose]();
  }
}

/** Units of systemd are groups of the hierarchy of version 2, or of a nameless one beside those of version 1. */
function rootGroups(pid: number): string[] {
  const hierarchies = cgroupsOf(pid).map((line) => line.slice(0, line.indexOf(':')));
  return hierarchies.filter((name) => ['', 'name=systemd'].includes(name)).map((name) => `${name}:/`);
}

/** Leaves the session and the directory, closes what it does not hold, and reads: that waits for the end. */
function code(fds: readonly number[], end: number): Uint8Array {
  const call = (number: number, ...args: number[]) => [
    mov(eax, number),
    ...args.map((arg, i) => mov([edi, esi, edx][i]!, arg)),
    syscall(),
  ];
  const held = [...fds, end].sort((a, b) => a - b);
  const gaps = [...held, 0x7fff_ffff].map((fd, i) => [i === 0 ? 0 : held[i - 1]! + 1, fd - 1] as const);
  return assemble(
    ...call(NR.setsid),
    ...call(NR.chdir, ROOT),
    ...gaps.filter(([first, last]) => first <= last).flatMap(([first, last]) => call(NR.close_range, first, last, 0)),
    ...call(NR.read, end, BUFFER, PAGE - 8),
    ...call(NR.exit_group, 0),
  ).bytes;
}
