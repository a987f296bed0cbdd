/**
 * The kernel's own code and data in a process, by which it asks for the time without a system call: vdso(7). Programs keep the
 * addresses of its functions, and another kernel has others.
 *
 *     image        [vvar][vdso]                 where they were
 *
 *     same entries [vvar][vdso]                 this kernel's, in their place
 *
 *     others             [old vdso]  ...  [vvar][vdso]
 *                         entry: jmp -----------> entry      a copy of the old one, whose functions
 *                         entry: mov eax; syscall; ret       lead to those of this kernel
 *
 * The copy is memory of the process like any other: the next checkpoint keeps it, and a third kernel is led to over both.
 */

import { SHT_DYNSYM } from '../abi/elf.ts';
import { Errno } from '../abi/errno.ts';
import {
  MAP_ANONYMOUS,
  MAP_FIXED_NOREPLACE,
  MAP_GROWSDOWN,
  MAP_PRIVATE,
  PROT_EXEC,
  PROT_READ,
  PROT_WRITE,
} from '../abi/mman.ts';
import { ARCH_MAP_VDSO_64 } from '../abi/prctl.ts';
import { NR } from '../abi/unistd.ts';
import { assemble } from '../asm/assemble.ts';
import { farJump } from '../asm/farjump.ts';
import { cmp, je, mov, ret, syscall } from '../asm/instructions.ts';
import { eax, label, r8, rax } from '../asm/operands.ts';
import { UnsupportedError } from '../errors.ts';
import { VMA_AREA_STACK, VMA_AREA_VDSO, VMA_AREA_VVAR } from '../image/messages/memory.ts';
import type { VmaEntry } from '../image/pages.ts';
import type { ImageTask } from '../image/tree.ts';
import { readElf, symbols } from '../mem/elf.ts';
import { readMaps } from '../sys/maps.ts';
import { Region } from '../sys/region.ts';
import { viewMemory } from '../sys/syscall.ts';
import { fillMemory } from './filling.ts';
import type { Remote } from './remote.ts';
import type { Tracee } from './tracee.ts';

const PAGE = 4096;
const KERNELS = VMA_AREA_VDSO | VMA_AREA_VVAR;
export type Range = { readonly start: number; readonly end: number };

/** What this kernel maps into every process. */
interface Here {
  /** Of data and code together, in bytes. */
  readonly size: number;
  /** Where in it the code begins. */
  readonly code: number;
  readonly bytes: Uint8Array;
  readonly entries: ReadonlyMap<string, number>;
}

let known: Here | undefined;

function here(): Here {
  if (known !== undefined) return known;
  const parts = readMaps('self').filter(({ path }) => /^\[(vdso|vvar|vvar_vclock)\]$/.test(path));
  const vdso = parts.find(({ path }) => path === '[vdso]')!;
  const start = Math.min(...parts.map((part) => part.start));
  const bytes = viewMemory(vdso.start, vdso.end - vdso.start);
  const size = Math.max(...parts.map(({ end }) => end)) - start;
  known = { size, code: vdso.start - start, bytes, entries: entriesOf(bytes, 'vdso of this kernel') };
  return known;
}

/** Offsets of the functions that programs call, by name. @throws FormatError */
export function entriesOf(vdso: Uint8Array, file: string): Map<string, number> {
  const elf = readElf(vdso, file);
  const tables = elf.sections.filter(({ type }) => type === SHT_DYNSYM);
  const found = tables.flatMap((table) => [...symbols(elf, table)]);
  return new Map(
    found.filter(({ name }) => name.startsWith('__vdso_')).map(({ name, value }) => [name, Number(value)]),
  );
}

/**
 * A thread that is stopped within a function of the vdso would have to finish it in that of another kernel. It is let go on for
 * a moment, again and again, until it is outside, which these functions take less than a microsecond for; or until it makes a
 * system call, behind which they have nothing to do but return. One that job control stopped there stays.
 *
 * @param vdso of its process
 * @throws what Tracee.stopped() does
 */
export function outsideVdso(stopped: Tracee, vdso: () => Range | undefined, timeout: number): Tracee {
  let tracee = stopped;
  let moment = 10_000;
  const deadline = performance.now() + PATIENCE;
  while (tracee.stopSignal === 0 && isInside(tracee, vdso) && performance.now() < deadline) {
    const before = tracee.registers.bytes;
    tracee = tracee.aMomentLater(moment, timeout);
    // Asked to stop before a processor was free for it, it stops where it was.
    if (Buffer.compare(before, tracee.registers.bytes) === 0) moment = Math.min(2 * moment, 50_000_000);
  }
  return tracee;
}

/**
 * In milliseconds, where processors are scarce or emulated. Else it takes some tenths: a loop that asks for the time is outside for
 * a fifth. Steps (PTRACE_SINGLESTEP) would always lead out, but a thread dies of their SIGTRAP when its tracer is killed.
 */
const PATIENCE = 5000;

function isInside({ registers }: Tracee, vdso: () => Range | undefined): boolean {
  // In a system call: its process need not be looked at.
  if (registers.number('orig_rax') >= 0) return false;
  const { start, end } = vdso() ?? { start: 0, end: 0 };
  const at = registers.number('rip');
  return at >= start && at < end;
}

/** The vdso of a process, looked for when it is asked for first. */
export function vdsoOf(pid: number): () => Range | undefined {
  let found: Range | undefined | null = null;
  return () => {
    if (found === null) found = readMaps(pid).find(({ path }) => path === '[vdso]');
    return found;
  };
}

/** The vdso of a process that is being restored, as its image has it. */
export class OldVdso {
  readonly #task: ImageTask;
  readonly #vma: VmaEntry | undefined;
  readonly #content: Region | undefined;
  #filled = 0;

  constructor(task: ImageTask) {
    this.#task = task;
    this.#vma = task.mm!.vmas.find(({ status }) => (status & VMA_AREA_VDSO) !== 0);
    if (this.#vma !== undefined) this.#content = new Region(this.#vma.end - this.#vma.start);
  }

  /**
   * Takes what is of the vdso out of a part of the contents.
   *
   * @param to where the part belongs @param from where it lies here
   * @param rest gets what is left of it
   */
  take(to: number, from: number, length: number, rest: (to: number, from: number, length: number) => void): void {
    const { start, end } = this.#vma ?? { start: 0, end: 0 };
    const [first, last] = [Math.max(to, start), Math.min(to + length, end)];
    if (first >= last) {
      rest(to, from, length);
      return;
    }
    this.#content!.bytes.set(viewMemory(from + first - to, last - first), first - start);
    this.#filled += last - first;
    if (first > to) rest(to, from, first - to);
    if (last < to + length) rest(last, from + last - to, to + length - last);
  }

  /**
   * Maps the kernel's pages, when all other mappings are there.
   *
   * @param hole the scratch memory
   * @returns where the vdso of this kernel is then; undefined for a process without one
   * @throws UnsupportedError where calls cannot be led over
   */
  place(leader: Remote, hole: Range): Range | undefined {
    const vma = this.#vma;
    if (vma === undefined) return undefined;
    const others = this.#task.mm!.vmas.filter(({ status }) => (status & KERNELS) === 0);
    const taken = [...others, hole];
    const { size, code, bytes } = here();
    const old = this.#content!.bytes;
    if (this.#filled !== old.length) throw this.#refused('the image does not have the old one');
    const same = Buffer.compare(old, bytes) === 0;
    const start = vma.start - code;
    const inside = this.#threadsInside(vma);
    if (isFree(taken, start, start + size) && (same || (inside.length === 0 && hasEntries(old)))) {
      mapKernels(leader, start);
      return { start: vma.start, end: start + size };
    }
    for (const { tid, offset } of inside) {
      if (isAtSyscall(old, offset)) continue;
      throw this.#refused(`that of this kernel is another one, and thread ${tid} stands within it`);
    }
    const at = findRoom([...taken, vma], vma.start, size);
    if (at === undefined) throw this.#refused('there is no room for that of this kernel');
    mapKernels(leader, at);
    this.#lead(old, at + code, inside);
    const [prot, flags] = [PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE];
    leader.call(NR.mmap, vma.start, old.length, prot, flags, -1, 0);
    leader.run();
    fillMemory(leader.scratch.pid, vma.start, this.#content!.address, old.length);
    leader.call(NR.mprotect, vma.start, old.length, PROT_READ | PROT_EXEC);
    leader.run();
    return { start: at + code, end: at + size };
  }

  [Symbol.dispose](): void {
    this.#content?.[Symbol.dispose]();
  }

  /** Lets the functions of the old one go on in the new one, which begins at `to`. */
  #lead(old: Uint8Array, to: number, inside: readonly { readonly tid: number; readonly offset: number }[]): void {
    const { entries } = here();
    const offsets = [...entriesOf(old, `vdso of process ${this.#task.pid}`)].sort(([, a], [, b]) => a - b);
    for (const [i, [name, offset]] of offsets.entries()) {
      const room = (offsets[i + 1]?.[1] ?? old.length) - offset;
      const target = entries.get(name);
      const patch = target === undefined ? CALLS[name]?.() : assemble(...farJump(BigInt(to + target))).bytes;
      if (patch === undefined) throw this.#refused(`this kernel has no ${name}`);
      if (patch.length > room) throw this.#refused(`${name} has ${room} bytes, too few to lead it over`);
      const under = inside.find((each) => each.offset > offset && each.offset < offset + patch.length);
      if (under !== undefined) throw this.#refused(`thread ${under.tid} stands at the beginning of ${name}`);
      old.set(patch, offset);
    }
  }

  /** Threads that are within the old one, and where. */
  #threadsInside({ start, end }: Range): { readonly tid: number; readonly offset: number }[] {
    return this.#task.threads
      .map(({ tid, core }) => ({ tid, at: core.thread_info!.gpregs.ip }))
      .filter(({ at }) => at >= start && at < end)
      .map(({ tid, at }) => ({ tid, offset: Number(at) - start }));
  }

  #refused(why: string): UnsupportedError {
    const remedy = 'make the image again, or restore it on the kernel on which it was made';
    return new UnsupportedError({ what: 'vdso', pid: this.#task.pid, why, remedy });
  }
}

/** Whether an instruction of the vdso is a system call, or that behind it: from there on it needs no data of the kernel. */
function isAtSyscall(vdso: Uint8Array, offset: number): boolean {
  return [offset, offset - 2].some((at) => vdso[at] === 0x0f && vdso[at + 1] === 0x05);
}

/** Whether this kernel has all functions of an old vdso in the same places. */
function hasEntries(old: Uint8Array): boolean {
  const { entries } = here();
  return [...entriesOf(old, 'vdso of the image')].every(([name, offset]) => entries.get(name) === offset);
}

function isFree(taken: readonly Range[], start: number, end: number): boolean {
  return taken.every((range) => range.end <= start || range.start >= end);
}

/** Maps data and code of this kernel, which go elsewhere when the place is not free. */
function mapKernels(leader: Remote, start: number): void {
  leader.reserve(1, 0);
  leader.call(NR.arch_prctl, ARCH_MAP_VDSO_64, start);
  leader.start();
}

/** The highest room below an address that is not below a stack, which grows. */
function findRoom(taken: readonly (Range & Partial<VmaEntry>)[], below: number, size: number): number | undefined {
  const sorted = [...taken].sort((a, b) => b.start - a.start).filter(({ start }) => start <= below);
  for (const [i, { start, status = 0, flags = 0 }] of sorted.entries()) {
    const grows = (status & VMA_AREA_STACK) !== 0 || (flags & MAP_GROWSDOWN) !== 0;
    const free = start - (sorted[i + 1]?.end ?? 16 * PAGE);
    if (!grows && free >= size) return start - size;
  }
  return undefined;
}

/** The system calls that the functions stand for, for a kernel that lacks one; getrandom(2) has three of its five arguments. */
const CALLS: Readonly<Record<string, (() => Uint8Array) | undefined>> = {
  __vdso_clock_gettime: () => call(NR.clock_gettime),
  __vdso_gettimeofday: () => call(NR.gettimeofday),
  __vdso_time: () => call(NR.time),
  __vdso_clock_getres: () => call(NR.clock_getres),
  __vdso_getcpu: () => call(NR.getcpu),
  __vdso_getrandom() {
    const ask = label('ask');
    // opaque_len ~0 asks for the size of its state, of which there is none.
    return assemble(cmp(r8, -1), je(ask), mov(eax, NR.getrandom), syscall(), ret(), ask, mov(rax, -Errno.ENOSYS), ret())
      .bytes;
  },
};

function call(nr: number): Uint8Array {
  return assemble(mov(eax, nr), syscall(), ret()).bytes;
}
