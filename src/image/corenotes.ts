/**
 * The notes of a core file: what the kernel's fs/binfmt_elf.c writes of a process, from its image. First the leader's registers,
 * the process, its auxiliary vector and mapped files, then the registers of each other thread.
 */
import { Elf64_Nhdr } from '../abi/elf.ts';
import { NT_PRFPREG, NT_PRSTATUS, NT_X86_XSTATE, user_regs_struct } from '../abi/ptrace.ts';
import { bytes, chars, i8, i16, i32, struct, u8, u32, u64, u64n } from '../abi/struct.ts';
import { bytesOf } from '../abi/text.ts';
import { timeval } from '../abi/time.ts';
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

const elf_prstatus = struct('elf_prstatus', 336, {
  si_signo: i32,
  si_code: i32,
  si_errno: i32,
  pr_cursig: i16,
  pr_sigpend: u64,
  pr_sighold: u64,
  pr_pid: i32,
  pr_ppid: i32,
  pr_pgrp: i32,
  pr_sid: i32,
  pr_utime: timeval,
  pr_stime: timeval,
  pr_cutime: timeval,
  pr_cstime: timeval,
  pr_reg: user_regs_struct,
  pr_fpvalid: i32,
});

const elf_prpsinfo = struct('elf_prpsinfo', 136, {
  pr_state: i8,
  pr_sname: u8,
  pr_zomb: i8,
  pr_nice: i8,
  pr_flag: u64,
  pr_uid: u32,
  pr_gid: u32,
  pr_pid: i32,
  pr_ppid: i32,
  pr_pgrp: i32,
  pr_sid: i32,
  pr_fname: chars(16),
  pr_psargs: bytes(80),
});

const nt_file = struct('NT_FILE', 16, { count: u64n, page_size: u64n });
const nt_file_range = struct('NT_FILE range', 24, { start: u64n, end: u64n, file_ofs: u64n });

/** All notes of a process that has memory, as the PT_NOTE segment holds them. */
export function notesOf(tree: ImageTree, task: ImageTask, memory: MemoryImage): Uint8Array {
  const [leader, ...others] = task.threads;
  return Buffer.concat([
    note('CORE', NT_PRSTATUS, prstatus(task, leader!)),
    note('CORE', NT_PRPSINFO, prpsinfo(task, memory)),
    note('CORE', NT_AUXV, auxv(task)),
    note('CORE', NT_FILE, mappedFiles(tree, task)),
    ...floatingPoint(leader!),
    ...others.flatMap((thread) => [note('CORE', NT_PRSTATUS, prstatus(task, thread)), ...floatingPoint(thread)]),
  ]);
}

function note(name: string, n_type: number, descriptor: Uint8Array): Uint8Array {
  const padded = (size: number) => Math.ceil(size / 4) * 4;
  const header = Elf64_Nhdr.size;
  const into = Buffer.alloc(header + padded(name.length + 1) + padded(descriptor.length));
  Elf64_Nhdr.write({ n_namesz: name.length + 1, n_descsz: descriptor.length, n_type }, into);
  into.write(name, header, 'latin1');
  into.set(descriptor, header + padded(name.length + 1));
  return into;
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
export function registersOf(regs: RegsEntry): ReturnType<typeof user_regs_struct.read> {
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
  const notes = [note('CORE', NT_PRFPREG, area.slice(0, 512))];
  if (used === undefined) return notes;
  // gdb reads XCR0 from the bytes of the fxsave area that are left to software: it tells how far the area goes.
  const components = [...INTEL_LAYOUT.offsets.keys()].reduce((mask, bit) => mask | (1n << BigInt(bit)), 3n);
  new DataView(area.buffer).setBigUint64(464, components, true);
  return [...notes, note('LINUX', NT_X86_XSTATE, area)];
}
