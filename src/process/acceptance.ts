/**
 * Whether an image can be restored here, before anything is made: what it was made on, and what it says that no restore here
 * would make again. Nothing of an image is passed over in silence.
 */
import { FormatError, UnsupportedError } from '../errors.ts';
import { incompatibilities } from '../image/info.ts';
import * as area from '../image/messages/memory.ts';
import type { PageRuns } from '../image/pages.ts';
import type { ImageStore } from '../image/store.ts';
import type { ImageTask, ImageTree } from '../image/tree.ts';
import { DEDUPED, fileName, images } from '../image/types.ts';
import { readMachine } from '../sys/machine.ts';
import { refuseNamespaces } from './namespaces.ts';

/** @throws UnsupportedError, or FormatError for an image of no process */
export function acceptImage(store: ImageStore, tree: ImageTree, shellJob: boolean): void {
  if (tree.tasks.length === 0) {
    throw new FormatError({ file: fileName(images.PSTREE), field: 'entries', expected: 'a process', found: 'none' });
  }
  if (store.has(DEDUPED)) {
    throw new UnsupportedError({
      what: `images in ${store.name}`,
      why: 'some of their pages are in a later image alone (tideover image dedup)',
      remedy: 'restore the last one',
    });
  }
  const reasons = tree.info === undefined ? [] : incompatibilities(tree.info, readMachine());
  if (reasons.length > 0) {
    const remedy = 'restore it on a machine like that on which it was made';
    throw new UnsupportedError({ what: `images in ${store.name}`, why: reasons.join('; '), remedy });
  }
  const pids = new Set(tree.tasks.map(({ pid }) => pid));
  for (const task of tree.tasks) {
    const { pid, sid, threads } = task;
    if (!shellJob && !pids.has(sid) && !threads[0]!.core.tc!.session_left) {
      throw new UnsupportedError({
        what: `session ${sid}`,
        pid,
        why: 'its leader is not in the image',
        remedy: 'give --shell-job: it will be of the session and group of tideover',
      });
    }
    if (task.isZombie) continue;
    acceptTask(tree, task);
  }
}

function acceptTask(tree: ImageTree, { pid, ids, mm, threads }: ImageTask): void {
  refuseNamespaces(tree, pid, ids);
  if (mm!.aios.length > 0) throw unknown(pid, 'asynchronous I/O', 'the process had rings of io_setup(2)');
  for (const { status, start, end } of mm!.vmas) {
    const kind = [...UNKNOWN_AREAS].find(([bit]) => (status & bit) !== 0)?.[1];
    if (kind !== undefined) throw unknown(pid, `mapping ${start.toString(16)}-${end.toString(16)}`, `it is of ${kind}`);
  }
  for (const { tid, core } of threads) {
    const { creds, seccomp_mode, seccomp_filter } = core.thread_core ?? {};
    if (seccomp_mode === 'filter' && seccomp_filter === undefined) {
      throw unknown(
        pid,
        `thread ${tid}`,
        'filters on system calls (seccomp) were on, and the image does not say which',
      );
    }
    if (core.mtype !== 'X86_64' || core.thread_info === undefined) {
      throw unknown(pid, `thread ${tid}`, `its registers are of ${core.mtype}, this machine's of X86_64`);
    }
    const profile = creds?.lsm_profile;
    if (tree.inventory.lsmtype !== 'NO_LSM' && profile !== undefined && !profile.startsWith('unconfined')) {
      throw unknown(pid, `thread ${tid}`, `it had the profile ${profile} of ${tree.inventory.lsmtype}`);
    }
  }
}

/** @param runs of which all must be there, here or in an earlier image @param pid of the process; none of shared memory */
export function acceptPages(runs: PageRuns, pid?: number): void {
  const absent = runs.flags.subarray(0, runs.length).findIndex((flags) => (flags & area.PE_PRESENT) === 0);
  if (absent < 0) return;
  throw new UnsupportedError({
    what: `pages at 0x${runs.vaddr[absent]!.toString(16)}`,
    ...(pid === undefined ? {} : { pid }),
    why: 'a page server has them',
    remedy: 'restore it with --lazy-pages, with tideover lazy-pages --page-server beside it',
  });
}

/** @throws FormatError where pages belong to no mapping: what is there is not the process's */
export function acceptPlaces(runs: PageRuns, { pid, mm }: ImageTask): void {
  const vmas = mm!.vmas.toSorted((a, b) => a.start - b.start);
  for (let i = 0, at = 0, vma = 0; i < runs.length; i++) {
    const end = runs.vaddr[i]! + runs.size[i]!;
    for (at = runs.vaddr[i]!; at < end; at = vmas[vma]!.end) {
      while (vma < vmas.length && vmas[vma]!.end <= at) vma++;
      if (vma < vmas.length && vmas[vma]!.start <= at) continue;
      throw new FormatError({
        file: fileName(images.PAGEMAP, pid),
        field: 'pagemap_entry',
        expected: 'pages in mappings of the process',
        found: `some at 0x${at.toString(16)}`,
      });
    }
  }
}

const UNKNOWN_AREAS: ReadonlyMap<number, string> = new Map([
  [area.VMA_AREA_SOCKET, 'a packet socket'],
  [area.VMA_AREA_AIORING, 'a ring of io_setup(2)'],
  [area.VMA_AREA_SHSTK, 'a shadow stack'],
  [area.VMA_AREA_UPROBES, 'probes of perf(1)'],
]);

function unknown(pid: number, what: string, why: string): UnsupportedError {
  return new UnsupportedError({
    pid,
    what,
    why: `${why}, which cannot be restored yet`,
    remedy: 'restore it with CRIU',
  });
}
