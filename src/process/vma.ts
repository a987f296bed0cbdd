/**
 * Mappings of a process: from /proc/PID/smaps to vma_entry, and back by mmap(2), mprotect(2), madvise(2).
 * What is in them is the business of pages.ts; what files they are of, that of files/.
 */

import { O_RDONLY, O_RDWR } from '../abi/fcntl.ts';
import * as mman from '../abi/mman.ts';
import * as prctl from '../abi/prctl.ts';
import { bytesOf } from '../abi/text.ts';
import { NR } from '../abi/unistd.ts';
import { UnsupportedError } from '../errors.ts';
import * as area from '../image/messages/memory.ts';
import type { VmaEntry } from '../image/pages.ts';
import { type FlaggedVma, KEYED } from '../sys/maps.ts';
import { Pagemap, PM_GUARD_REGION } from '../sys/pagemap.ts';
import type { Remote } from './remote.ts';

const PAGE = 4096;

/** How a mapping is joined to what lies behind it: gives the id of a file or of shared memory. */
export interface Backing {
  /** A file that has a path or had one. @param flags O_RDONLY or O_RDWR */
  file(vma: FlaggedVma, flags: number): number;
  /** Shared memory without a file. */
  shared(vma: FlaggedVma): number;
  /** System V shared memory. */
  segment(vma: FlaggedVma): number;
  /** A ring of io_uring_setup(2), or undefined where no descriptor of it is left. */
  ring(vma: FlaggedVma): number | undefined;
  /** A memfd. @param flags O_RDONLY or O_RDWR */
  memfd(vma: FlaggedVma, flags: number): number;
  /** Whether a userfaultfd that watches what is written is ours. */
  isWatched(): boolean;
}

/** VmFlags that are madvise(2)'s doing: proc_pid_smaps(5). */
const ADVICE: Readonly<Record<string, number>> = {
  sr: mman.MADV_SEQUENTIAL,
  rr: mman.MADV_RANDOM,
  dc: mman.MADV_DONTFORK,
  dd: mman.MADV_DONTDUMP,
  mg: mman.MADV_MERGEABLE,
  hg: mman.MADV_HUGEPAGE,
  nh: mman.MADV_NOHUGEPAGE,
  wf: mman.MADV_WIPEONFORK,
};

/** VmFlags that are mmap(2)'s doing. */
const FLAGS: Readonly<Record<string, number>> = {
  gd: mman.MAP_GROWSDOWN,
  lo: mman.MAP_LOCKED,
  nr: mman.MAP_NORESERVE,
  ht: mman.MAP_HUGETLB,
  dp: mman.MAP_DROPPABLE,
};

/** Names of anonymous memory: PR_SET_VMA_ANON_NAME. */
const NAMED = /^\[anon(?:_shmem)?:(.*)\]$/s;

/** What cannot be made again, by the VmFlags that tell: proc_pid_smaps(5). */
const REFUSED: Readonly<Record<string, string>> = {
  ...{ io: 'it is memory of a device', pf: 'it is memory of a device' },
  ...{ um: 'a userfaultfd watches it', uw: 'a userfaultfd watches it', ui: 'a userfaultfd watches it' },
  ...{ ss: 'it is a shadow stack', sf: 'it is mapped with MAP_SYNC', mt: 'its memory is tagged' },
};

/** What other flags say is kept by other means, or the kernel's own business. Bits without a name are `??`. */
const KNOWN = new Set([
  ...['rd', 'wr', 'ex', 'sh', 'mr', 'mw', 'me', 'ms', 'de', 'ac', 'ar', 'sd', 'mm', 'lf', 'sl', 'gu', '??', KEYED],
  ...[...Object.keys(ADVICE), ...Object.keys(FLAGS), ...Object.keys(REFUSED)],
]);

/** The kernel's own, which are mapped anew. */
export const KERNEL_AREAS = area.VMA_AREA_VDSO | area.VMA_AREA_VVAR | area.VMA_AREA_VSYSCALL;

/** What VmFlags tell. */
interface Told {
  /** Of mmap(2). */
  readonly flags: number;
  /** A bit for each advice of madvise(2). */
  readonly madv: bigint;
  /** Flags of what cannot be made again, and such as are not known. */
  readonly strange: readonly string[];
}

/** Most mappings have the flags of some other one, and those have one set: see sys/maps.ts. */
const seen = new WeakMap<ReadonlySet<string>, Told>();

function toldBy(vmFlags: ReadonlySet<string>): Told {
  const before = seen.get(vmFlags);
  if (before !== undefined) return before;
  let [flags, madv] = [0, 0n];
  for (const flag of vmFlags) {
    flags |= FLAGS[flag] ?? 0;
    if (ADVICE[flag] !== undefined) madv |= 1n << BigInt(ADVICE[flag]);
  }
  const strange = [...vmFlags].filter((flag) => REFUSED[flag] !== undefined || !KNOWN.has(flag));
  const told = { flags, madv, strange };
  seen.set(vmFlags, told);
  return told;
}

/** @throws UnsupportedError for a mapping of a kind that is not known */
export function saveVma(pid: number, vma: FlaggedVma, backing: Backing): VmaEntry {
  const { madv, strange, ...told } = toldBy(vma.flags);
  let flags = (vma.shared ? mman.MAP_SHARED : mman.MAP_PRIVATE) | told.flags;
  // A kind of its own beside MAP_PRIVATE and MAP_SHARED: mmap(2).
  if ((flags & mman.MAP_DROPPABLE) !== 0) flags &= ~mman.MAP_PRIVATE;
  const entry: VmaEntry = {
    start: vma.start,
    end: vma.end,
    pgoff: vma.offset,
    shmid: 0,
    prot: vma.prot,
    flags,
    status: area.VMA_AREA_REGULAR,
    fd: -1,
  };
  if (madv !== 0n) entry.madv = madv;
  const name = NAMED.exec(vma.path)?.[1];
  if (name !== undefined) entry.name = name;
  if (vma.flags.has('sl')) entry.sealed = true;
  if (vma.flags.has('lf')) entry.onfault = true;
  const anonymous = (status: number): VmaEntry => ({
    ...entry,
    flags: flags | mman.MAP_ANONYMOUS,
    pgoff: 0,
    status: area.VMA_AREA_REGULAR | status,
  });
  const { path } = vma;
  if (path === '[vdso]') return anonymous(area.VMA_AREA_VDSO | area.VMA_ANON_PRIVATE);
  if (path === '[vvar]' || path === '[vvar_vclock]') return anonymous(area.VMA_AREA_VVAR | area.VMA_ANON_PRIVATE);
  if (path === '[vsyscall]')
    return { ...anonymous(area.VMA_ANON_PRIVATE), status: area.VMA_AREA_VSYSCALL | area.VMA_ANON_PRIVATE };
  // The kernel gives one by itself to what can only be executed.
  if (vma.flags.has(KEYED) && vma.prot !== mman.PROT_EXEC) throw refused(pid, vma, 'it has a protection key');
  for (const flag of strange) {
    if (flag === 'uw' && backing.isWatched()) continue;
    throw refused(pid, vma, REFUSED[flag] ?? `VmFlags has "${flag}" for it`);
  }
  // Such files can be mapped, but not written.
  if (vma.flags.has('ht') && (path.startsWith('/SYSV') || (vma.deleted && !/^\/(anon_hugepage|memfd:)/.test(path)))) {
    throw refused(pid, vma, 'it has huge pages of hugetlbfs');
  }
  if (path === '[uprobes]') throw refused(pid, vma, 'a probe is set in it');
  if (path === '[heap]') return anonymous(area.VMA_AREA_HEAP | area.VMA_ANON_PRIVATE);
  if (path === '[stack]') return anonymous(area.VMA_AREA_STACK | area.VMA_ANON_PRIVATE);
  if (vma.inode === 0n && !path.startsWith('/')) return anonymous(area.VMA_ANON_PRIVATE);
  if (path === '/[aio]') throw refused(pid, vma, 'it is a ring of io_setup(2)');
  if (path.startsWith('/SYSV')) {
    const shmid = backing.segment(vma);
    const fdflags = vma.flags.has('mw') ? O_RDWR : O_RDONLY;
    return { ...entry, shmid, fdflags, status: entry.status | area.VMA_AREA_SYSVIPC };
  }
  if (path.startsWith('socket:')) throw refused(pid, vma, 'it is a buffer of a socket');
  if (path === 'anon_inode:[io_uring]') {
    const shmid = backing.ring(vma);
    if (shmid === undefined) throw refused(pid, vma, 'it is of an io_uring whose descriptor is closed');
    return { ...entry, shmid, status: entry.status | area.VMA_FILE_SHARED };
  }
  if (path.startsWith('anon_inode:')) throw refused(pid, vma, `it is of ${path}`);
  if (path === '/anon_hugepage' && vma.deleted) {
    const huge = { ...entry, flags: flags | mman.MAP_ANONYMOUS | (Math.log2(vma.hugePage!) << mman.MAP_HUGE_SHIFT) };
    if (!vma.shared) return { ...huge, pgoff: 0, status: entry.status | area.VMA_ANON_PRIVATE };
    return { ...huge, shmid: backing.shared(vma), status: entry.status | area.VMA_ANON_SHARED };
  }
  if (path.startsWith('[anon_shmem') || (path === '/dev/zero' && vma.shared && vma.deleted)) {
    const shmid = backing.shared(vma);
    return { ...entry, flags: flags | mman.MAP_ANONYMOUS, shmid, status: entry.status | area.VMA_ANON_SHARED };
  }
  if (path === '/dev/zero' && vma.deleted) {
    // Of memory that others share, mapped once more through /proc/PID/map_files.
    const status = entry.status | area.VMA_ANON_SHARED | area.VMA_ANON_PRIVATE;
    return { ...entry, shmid: backing.shared(vma), status };
  }
  // A shared mapping keeps its right to be made writable only of a file that was opened so.
  const fdflags = vma.shared && vma.flags.has('mw') ? O_RDWR : O_RDONLY;
  const kind = vma.shared ? area.VMA_FILE_SHARED : area.VMA_FILE_PRIVATE;
  if (path.startsWith('/memfd:')) {
    const shmid = backing.memfd(vma, fdflags);
    return { ...entry, shmid, fdflags, status: entry.status | kind | area.VMA_AREA_MEMFD };
  }
  if (!path.startsWith('/')) throw refused(pid, vma, `it is of ${path}`);
  return { ...entry, shmid: backing.file(vma, fdflags), fdflags, status: entry.status | kind };
}

function refused(pid: number, vma: FlaggedVma, why: string): UnsupportedError {
  const range = `${vma.start.toString(16)}-${vma.end.toString(16)}`;
  return new UnsupportedError({
    what: `mapping ${range}${vma.path === '' ? '' : ` (${vma.path})`}`,
    pid,
    why: `${why}, which cannot be saved yet`,
    remedy: 'let the program give it back, or leave this process out',
  });
}

/** Whether the image has pages of a mapping: of private ones that belong to the process. */
export function hasPages(vma: VmaEntry): boolean {
  if ((vma.status & (area.VMA_AREA_VVAR | area.VMA_AREA_VSYSCALL)) !== 0) return false;
  // Programs keep there what they can do without.
  if ((vma.flags & mman.MAP_DROPPABLE) !== 0) return false;
  return (vma.status & (area.VMA_ANON_PRIVATE | area.VMA_FILE_PRIVATE)) !== 0;
}

/**
 * Whether a fork does not copy it, or empties it; or takes it back, as huge pages from a child when there is none left for
 * the parent to write to.
 */
export function leftByFork({ madv = 0n, flags }: VmaEntry): boolean {
  if ((flags & mman.MAP_HUGETLB) !== 0) return true;
  return madv !== 0n && (madv & ((1n << BigInt(mman.MADV_DONTFORK)) | (1n << BigInt(mman.MADV_WIPEONFORK)))) !== 0n;
}

/** Pages that MADV_GUARD_INSTALL guards, run by run; VmFlags tells in which mappings to look. */
export function saveGuards(pid: number, vmas: readonly FlaggedVma[]): VmaEntry[] {
  const guarded = vmas.filter(({ flags }) => flags.has('gu'));
  if (guarded.length === 0) return [];
  const found: VmaEntry[] = [];
  const pagemap = new Pagemap(pid);
  try {
    for (const { start, end } of guarded) {
      const entries = pagemap.read(start, end);
      for (let at = start, i = 1; at < end; at += PAGE, i += 2) {
        if ((entries[i]! & PM_GUARD_REGION) === 0) continue;
        const last = found.at(-1);
        if (last?.end === at) last.end += PAGE;
        else {
          const status = area.VMA_AREA_GUARD;
          found.push({ start: at, end: at + PAGE, pgoff: 0, shmid: 0, prot: 0, flags: 0, status, fd: -1 });
        }
      }
    }
    return found;
  } finally {
    pagemap[Symbol.dispose]();
  }
}

/** Adds the call that guards pages again. */
export function restoreGuard(remote: Remote, { start, end }: VmaEntry): void {
  remote.call(NR.madvise, start, end - start, mman.MADV_GUARD_INSTALL);
}

/** The part of flags that mmap(2) takes; the rest is done afterwards. */
const HUGE = mman.MAP_HUGETLB | (0x3f << mman.MAP_HUGE_SHIFT);
const MMAP_FLAGS =
  mman.MAP_SHARED |
  mman.MAP_PRIVATE |
  mman.MAP_DROPPABLE |
  mman.MAP_ANONYMOUS |
  mman.MAP_GROWSDOWN |
  mman.MAP_NORESERVE |
  mman.MAP_HUGETLB;

/**
 * Adds the call that makes a mapping, writable for as long as it is being filled.
 *
 * @param fd of what lies behind it, in the process, or -1
 * @param filled whether pages will be written into it
 */
export function restoreVma(remote: Remote, vma: VmaEntry, fd: number, filled: boolean): number {
  const prot = filled ? vma.prot | mman.PROT_WRITE : vma.prot;
  let flags = (vma.flags & MMAP_FLAGS) | mman.MAP_FIXED_NOREPLACE;
  if (fd >= 0) flags &= ~(mman.MAP_ANONYMOUS | HUGE);
  return remote.call(NR.mmap, vma.start, vma.end - vma.start, prot, flags, fd, fd < 0 ? 0 : vma.pgoff);
}

/** Adds the calls that give a filled mapping its protection, its advice and its lock. */
export function finishVma(remote: Remote, vma: VmaEntry, filled: boolean): void {
  const length = vma.end - vma.start;
  if (filled && (vma.prot & mman.PROT_WRITE) === 0) remote.call(NR.mprotect, vma.start, length, vma.prot);
  for (let bits = vma.madv ?? 0n, advice = 0; bits !== 0n; bits >>= 1n, advice++) {
    if ((bits & 1n) !== 0n) remote.call(NR.madvise, vma.start, length, advice);
  }
  if ((vma.flags & mman.MAP_LOCKED) !== 0) {
    remote.call(NR.mlock2, vma.start, length, mman.MLOCK_ONFAULT);
    // Brings all of it into memory, which says no where that cannot be, as with PROT_NONE, and locks it all the same.
    if (!vma.onfault) remote.attempt(NR.mlock2, vma.start, length, 0);
  }
  if (vma.name !== undefined) {
    const name = remote.text(bytesOf(vma.name));
    remote.call(NR.prctl, prctl.PR_SET_VMA, prctl.PR_SET_VMA_ANON_NAME, vma.start, length, name);
  }
}

/** Adds the call after which a mapping cannot be changed any more. */
export function sealVma(remote: Remote, vma: VmaEntry): void {
  if (vma.sealed) remote.call(NR.mseal, vma.start, vma.end - vma.start, 0);
}

/** Adds the call that maps a file that is still to be given, as one of its arguments, and may refuse. @returns its index */
export function restorePlaced(remote: Remote, { start, end, prot, pgoff }: VmaEntry): number {
  const flags = mman.MAP_SHARED | mman.MAP_FIXED_NOREPLACE;
  return remote.attempt(NR.mmap, start, end - start, prot, flags, 0, pgoff);
}

/**
 * Adds the calls that map what the kernel places itself (an io_uring refuses any address that is asked for): everywhere
 * else something is in the way for the moment.
 *
 * @param occupied where something is already
 * @returns the index of the call of mmap(2), whose file is still to be given
 */
export function restoreUnplaced(
  remote: Remote,
  vma: VmaEntry,
  occupied: readonly { start: number; end: number }[],
): number {
  const taken = [...occupied, vma].sort((a, b) => a.start - b.start);
  const gaps: { start: number; end: number }[] = [];
  let at = MMAP_MIN_ADDR;
  for (const { start, end } of [...taken, { start: HIGHEST, end: HIGHEST }]) {
    if (start > at) gaps.push({ start: at, end: start });
    at = Math.max(at, end);
  }
  const flags = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS | mman.MAP_NORESERVE | mman.MAP_FIXED_NOREPLACE;
  // Only the privileged may map below, and have to: there, too, is room for a ring then.
  remote.attempt(NR.mmap, LOWEST, MMAP_MIN_ADDR - LOWEST, mman.PROT_NONE, flags, -1, 0);
  for (const { start, end } of gaps) remote.call(NR.mmap, start, end - start, mman.PROT_NONE, flags, -1, 0);
  const index = remote.call(NR.mmap, 0, vma.end - vma.start, vma.prot, mman.MAP_SHARED, 0, vma.pgoff);
  remote.call(NR.munmap, LOWEST, MMAP_MIN_ADDR - LOWEST);
  for (const { start, end } of gaps) remote.call(NR.munmap, start, end - start);
  return index;
}

/** Linux 6.1 (io_uring/io_uring.c) places rings from here on, and may go below vm.mmap_min_addr, here as kernels are built. */
const LOWEST = 0x1000;
const MMAP_MIN_ADDR = 0x1_0000;
/** The end of what programs can have. */
const HIGHEST = 0x7fff_ffff_f000;
