/**
 * The notes of a core file: what the kernel's fs/binfmt_elf.c writes of a process, from its image. First the leader's registers,
 * the process, its auxiliary vector and mapped files, then the registers of each other thread.
 */
import { elf_prpsinfo, elf_prstatus } from '../abi/elfcore.ts';
import { writeNote } from '../abi/elfnote.ts';
import { NT_PRFPREG, NT_PRSTATUS, NT_X86_XSTATE, type user_regs_struct } from '../abi/ptrace.ts';
import { struct, u64n } from '../abi/struct.ts';
import { bytesOf } from '../abi/text.ts';
import type { user_x86_regs_entry } from './messages/machine.ts';
import { VMA_FILE_PRIVATE, VMA_FILE_SHARED } from './messages/memory.ts';
import { type MemoryImage, PAGE_SIZE } from './pages.ts';
import type { Value } from './proto.ts';
import type { ImageTask, ImageThread, ImageTree } from './tree.ts';
import { areaOf, INTEL_LAYOUT } from './xsave.ts';

const NT_PRPSINFO = 3;
const NT_AUXV = 6;
/** "FILE" */
const NT_FILE = 0x46494c45;

const nt_file = struct('NT_FILE', 16, { count: u64n, page_size: u64n });
const nt_file_range = struct('NT_FILE range', 24, { start: u64n, end: u64n, file_ofs: u64n });

/** All notes of a process that has memory, as the PT_NOTE segment holds them. */
export function notesOf(tree: ImageTree, task: ImageTask, memory: MemoryImage): Uint8Array {
  const [leader, ...others] = task.threads;
  return Buffer.concat([
    writeNote('CORE', NT_PRSTATUS, prstatus(task, leader!)),
    writeNote('CORE', NT_PRPSINFO, prpsinfo(task, memory)),
    writeNote('CORE', NT_AUXV, auxv(task)),
    writeNote('CORE', NT_FILE, mappedFiles(tree, task)),
    ...floatingPoint(leader!),
    ...others.flatMap((thread) => [writeNote('CORE', NT_PRSTATUS, prstatus(task, thread)), ...floatingPoint(thread)]),
  ]);
}

function prstatus(task: ImageTask, { tid, core }: ImageThread): Uint8Array {
  return elf_prstatus.write({
    pr_cursig: task.threads[0]!.core.tc?.stop_signo ?? 0,
    pr_sighold: core.thread_core?.blk_sigset ?? core.tc?.blk_sigset ?? 0n,
    pr_pid: tid,
    pr_ppid: task.ppid,
    pr_pgrp: task.pgid,
    pr_sid: task.sid,
    pr_reg: registersOf(core.thread_info!.gpregs),
    pr_fpvalid: 1,
  });
}

type RegsEntry = Value<typeof user_x86_regs_entry>;

/** The image's registers in the kernel's struct. */
function registersOf(regs: RegsEntry): ReturnType<typeof user_regs_struct.read> {
  const { bp, bx, ax, cx, dx, si, di, orig_ax, ip, flags, sp, mode: _, ...same } = regs;
  return {
    ...same,
    rbp: bp,
    rbx: bx,
    rax: ax,
    rcx: cx,
    rdx: dx,
    rsi: si,
    rdi: di,
    orig_rax: orig_ax,
    rip: ip,
    eflags: flags,
    rsp: sp,
  };
}

function prpsinfo(task: ImageTask, memory: MemoryImage): Uint8Array {
  const { tc, thread_core } = task.threads[0]!.core;
  const { mm_arg_start, mm_arg_end } = task.mm!;
  const size = Math.max(0, Math.min(79, mm_arg_end - mm_arg_start));
  const pr_psargs = new Uint8Array(80);
  pr_psargs.set(memory.read(mm_arg_start, size).map((byte) => (byte === 0 ? 0x20 : byte)));
  return elf_prpsinfo.write({
    pr_sname: 'S'.charCodeAt(0),
    pr_state: 1,
    pr_nice: thread_core?.sched_nice ?? 0,
    pr_flag: BigInt(tc!.flags),
    pr_uid: thread_core?.creds?.uid ?? 0,
    pr_gid: thread_core?.creds?.gid ?? 0,
    pr_pid: task.pid,
    pr_ppid: task.ppid,
    pr_pgrp: task.pgid,
    pr_sid: task.sid,
    pr_fname: tc!.comm.slice(0, 15),
    pr_psargs,
  });
}

function auxv(task: ImageTask): Uint8Array {
  return new Uint8Array(BigUint64Array.from(task.mm!.mm_saved_auxv).buffer);
}

/** Ranges, then the paths of their files, each ended by NUL. */
function mappedFiles(tree: ImageTree, task: ImageTask): Uint8Array {
  const ranges: Uint8Array[] = [];
  const paths: Uint8Array[] = [];
  for (const vma of task.mm!.vmas) {
    if ((vma.status & (VMA_FILE_PRIVATE | VMA_FILE_SHARED)) === 0) continue;
    const path = tree.files.get(vma.shmid)?.reg?.name;
    if (path === undefined) continue;
    ranges.push(nt_file_range.write({ start: vma.start, end: vma.end, file_ofs: vma.pgoff / PAGE_SIZE }));
    paths.push(bytesOf(`${path}\0`));
  }
  return Buffer.concat([nt_file.write({ count: ranges.length, page_size: PAGE_SIZE }), ...ranges, ...paths]);
}

function floatingPoint({ tid, core }: ImageThread): Uint8Array[] {
  const { fpregs } = core.thread_info!;
  const area = areaOf(fpregs, INTEL_LAYOUT, `core-${tid}.img`);
  const used = fpregs.xsave?.xstate_bv;
  const notes = [writeNote('CORE', NT_PRFPREG, area.slice(0, 512))];
  if (used === undefined) return notes;
  // gdb reads XCR0 from the bytes of the fxsave area that are left to software: it tells how far the area goes.
  const components = [...INTEL_LAYOUT.offsets.keys()].reduce((mask, bit) => mask | (1n << BigInt(bit)), 3n);
  new DataView(area.buffer).setBigUint64(464, components, true);
  return [...notes, writeNote('LINUX', NT_X86_XSTATE, area)];
}
