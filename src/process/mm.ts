/** The address space of a process as a whole: its mappings, where its parts begin and end, its program. */

import { O_RDONLY } from '../abi/fcntl.ts';
import { MAP_LOCKED, MCL_FUTURE, MCL_ONFAULT } from '../abi/mman.ts';
import {
  PR_GET_DUMPABLE,
  PR_GET_MEMORY_MERGE,
  PR_GET_THP_DISABLE,
  PR_SET_DUMPABLE,
  PR_SET_MEMORY_MERGE,
  PR_SET_MM,
  PR_SET_MM_MAP,
  PR_SET_THP_DISABLE,
  prctl_mm_map,
} from '../abi/prctl.ts';
import { NR } from '../abi/unistd.ts';
import { VMA_AREA_VVAR } from '../image/messages/memory.ts';
import type { VmaEntry } from '../image/pages.ts';
import type { MmEntry } from '../image/tree.ts';
import { type FlaggedVma, readFlaggedMaps } from '../sys/maps.ts';
import { readProc } from '../sys/proc.ts';
import { readStat } from '../sys/stat.ts';
import { saveMappedMemfd } from './files/memfd.ts';
import type { Remote } from './remote.ts';
import type { Saving } from './saving.ts';
import { saveSegment } from './sysv.ts';
import { saveGuards, saveVma } from './vma.ts';

/**
 * @param withFiles false where no descriptors are saved, and which one a ring of io_uring has is not known
 * @throws UnsupportedError for a mapping that cannot be saved
 */
export function saveVmas(pid: number, saving: Saving, withFiles = true): VmaEntry[] {
  const link = (vma: FlaggedVma) => `/proc/${pid}/map_files/${vma.start.toString(16)}-${vma.end.toString(16)}`;
  const backing = {
    isWatched: () => saving.options.tracking?.watches(pid) === true,
    // Libraries are mapped by every process of a tree, in parts: their links are followed once.
    file: (vma: FlaggedVma, flags: number) => {
      const { major, minor, inode, path, deleted } = vma;
      const key = `${major}:${minor}:${inode}:${flags}:${deleted}:${path}`;
      const known = saving.mapped.get(key) ?? saving.path(pid, link(vma), flags);
      saving.mapped.set(key, known);
      return known;
    },
    shared(vma: FlaggedVma) {
      const shmid = Number(vma.inode);
      saving.share(shmid, link(vma));
      return shmid;
    },
    segment: (vma: FlaggedVma) => saveSegment(saving, vma, link(vma)),
    ring: (vma: FlaggedVma) => (withFiles ? saving.rings.get(vma.inode)?.id : 0),
    memfd: (vma: FlaggedVma, flags: number) => saveMappedMemfd(saving, link(vma), flags),
  };
  const { foresight, stopped } = saving;
  const vmas = (stopped ? foresight?.mappings(pid) : undefined) ?? readFlaggedMaps(pid);
  if (!stopped) foresight?.note(pid, vmas);
  return [...joinVvar(vmas.map((vma) => saveVma(pid, vma, backing))), ...saveGuards(pid, vmas)];
}

/** Since Linux 6.13 /proc shows the kernel's data behind the vdso in two parts, [vvar] and [vvar_vclock]; images have one. */
function joinVvar(entries: readonly VmaEntry[]): VmaEntry[] {
  const joined: VmaEntry[] = [];
  for (const entry of entries) {
    const before = joined.at(-1);
    if (before !== undefined && (before.status & entry.status & VMA_AREA_VVAR) !== 0 && before.end === entry.start) {
      before.end = entry.end;
    } else joined.push(entry);
  }
  return joined;
}

/** Asks for what only the process itself is told. */
export function saveMm(remote: Remote, vmas: VmaEntry[], saving: Saving): () => MmEntry {
  const locked = vmas.some(({ flags }) => (flags & MAP_LOCKED) !== 0);
  const { pid } = remote.scratch;
  const brk = remote.call(NR.brk, 0);
  const dumpable = remote.call(NR.prctl, PR_GET_DUMPABLE, 0, 0, 0, 0);
  const thp = remote.call(NR.prctl, PR_GET_THP_DISABLE, 0, 0, 0, 0);
  const merge = remote.attempt(NR.prctl, PR_GET_MEMORY_MERGE, 0, 0, 0, 0);
  const stat = readStat(pid);
  const auxv = readProc(`/proc/${pid}/auxv`);
  const view = new DataView(auxv.buffer, auxv.byteOffset, auxv.length);
  // Without the AT_NULL at its end, which the kernel puts there in any case: CRIU has room for 44 words.
  const words = Math.floor(auxv.length / 8) - 2;
  const exe_file_id = saving.path(pid, `/proc/${pid}/exe`, O_RDONLY);
  return () => {
    const mm: MmEntry = {
      mm_start_code: stat.startcode,
      mm_end_code: stat.endcode,
      mm_start_data: stat.start_data,
      mm_end_data: stat.end_data,
      mm_start_stack: stat.startstack,
      mm_start_brk: stat.start_brk,
      mm_brk: remote.result(brk),
      mm_arg_start: stat.arg_start,
      mm_arg_end: stat.arg_end,
      mm_env_start: stat.env_start,
      mm_env_end: stat.env_end,
      exe_file_id,
      mm_saved_auxv: Array.from({ length: words }, (_, i) => view.getBigUint64(8 * i, true)),
      vmas,
      dumpable: remote.result(dumpable),
      aios: [],
    };
    // The lowest bit says that they are disabled, the others with which flags.
    const disabled = remote.result(thp);
    if (disabled !== 0) mm.thp_disabled = true;
    if (disabled > 1) mm.thp_flags = disabled & ~1;
    if (remote.result(merge) === 1) mm.memory_merge = true;
    const future = locked ? lockFuture(pid, remote.scratch.address) : 0;
    if (future !== 0) mm.lock_future = future;
    return mm;
  };
}

/**
 * Nothing tells whether a process has asked for all its mappings to come to be locked (mlockall(2) MCL_FUTURE), but our scratch
 * memory is one that came.
 */
function lockFuture(pid: number, address: number): number {
  const scratch = readFlaggedMaps(pid).find(({ start, end }) => address >= start && address < end);
  if (!scratch?.flags.has('lo')) return 0;
  return MCL_FUTURE | (scratch.flags.has('lf') ? MCL_ONFAULT : 0);
}

/** Adds the call that sets where the parts are. @param exeFd the program, in the process */
export function restoreMm(remote: Remote, mm: MmEntry, exeFd: number): void {
  const auxv = new Uint8Array(8 * mm.mm_saved_auxv.length);
  const view = new DataView(auxv.buffer);
  for (const [i, word] of mm.mm_saved_auxv.entries()) view.setBigUint64(8 * i, word, true);
  const map = prctl_mm_map.write({
    start_code: mm.mm_start_code,
    end_code: mm.mm_end_code,
    start_data: mm.mm_start_data,
    end_data: mm.mm_end_data,
    start_brk: mm.mm_start_brk,
    brk: mm.mm_brk,
    start_stack: mm.mm_start_stack,
    arg_start: mm.mm_arg_start,
    arg_end: mm.mm_arg_end,
    env_start: mm.mm_env_start,
    env_end: mm.mm_env_end,
    auxv: remote.put(auxv),
    auxv_size: auxv.length,
    exe_fd: exeFd,
  });
  remote.call(NR.prctl, PR_SET_MM, PR_SET_MM_MAP, remote.put(map), map.length, 0);
  if (mm.thp_disabled) remote.call(NR.prctl, PR_SET_THP_DISABLE, 1, mm.thp_flags ?? 0, 0, 0);
  if (mm.memory_merge) remote.call(NR.prctl, PR_SET_MEMORY_MERGE, 1, 0, 0, 0);
  if (mm.lock_future) remote.call(NR.mlockall, mm.lock_future);
}

/** Adds the call for core dumps and ptrace(2) access; a change of credentials before it would undo it. */
export function restoreDumpable(remote: Remote, mm: MmEntry): void {
  // 2 (only root may read a dump) is a system's setting and cannot be asked for; it comes with a change of credentials.
  if (mm.dumpable === 0 || mm.dumpable === 1) remote.call(NR.prctl, PR_SET_DUMPABLE, mm.dumpable, 0, 0, 0);
}
