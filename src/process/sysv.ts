/**
 * System V shared memory that a tree has attached, and semaphores that it was the last to change: sysvipc(7). They belong to the
 * namespace and outlive processes. Where they are still there at the restore, they get the content of the image; where they are not, as
 * after a change of kernel, they are made with the ids that they had (/proc/sys/kernel/shm_next_id).
 */
import { writeFileSync } from 'node:fs';
import { AT_FDCWD, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, O_CLOEXEC, O_RDONLY, O_RDWR } from '../abi/fcntl.ts';
import * as abi from '../abi/ipc.ts';
import { PROT_READ, PROT_WRITE } from '../abi/mman.ts';
import { NR } from '../abi/unistd.ts';
import { UnsupportedError } from '../errors.ts';
import type { ipc_desc_entry, ipc_sem_entry, ipc_shm_entry } from '../image/messages/ipc.ts';
import { VMA_AREA_SYSVIPC } from '../image/messages/memory.ts';
import type { VmaEntry } from '../image/pages.ts';
import type { Value } from '../image/proto.ts';
import { close, fallocate, openat } from '../sys/files.ts';
import type { FlaggedVma } from '../sys/maps.ts';
import { sleep } from '../sys/process.ts';
import { listSysv, type SysvObject, semctl, semget, shmat, shmctl, shmdt, shmget } from '../sys/sysvipc.ts';
import type { Remote } from './remote.ts';
import type { Restoring } from './restoring.ts';
import type { Saving } from './saving.ts';

export type Segment = Value<typeof ipc_shm_entry>;
export type Semaphores = { entry: Value<typeof ipc_sem_entry>; bytes: Uint8Array };

const PAGE = 4096;
const PERMISSIONS = 0o777;

export function describeSysv(object: SysvObject, id: number): Value<typeof ipc_desc_entry> {
  const { key, uid, gid, cuid, cgid, perms } = object;
  return { key: key! >>> 0, uid: uid!, gid: gid!, cuid: cuid!, cgid: cgid!, mode: perms!, id };
}

/** A mapping of a segment: its inode is the id. @param link that leads to it @returns the id */
export function saveSegment(saving: Saving, vma: Pick<FlaggedVma, 'inode'>, link: string): number {
  const id = Number(vma.inode);
  const known = saving.segments.get(id);
  if (known !== undefined) {
    known.mappings++;
    return id;
  }
  const object = listSysv('shm').find(({ shmid }) => shmid === id);
  if (object === undefined) {
    throw new UnsupportedError({
      what: `System V shared memory ${id}`,
      why: 'it is of another ipc namespace',
      remedy: 'run tideover in that one',
    });
  }
  const entry: Segment = {
    desc: describeSysv(object, id),
    size: object.size!,
    in_pagemaps: true,
    changed: BigInt(object.ctime!),
  };
  saving.segments.set(id, { entry, mappings: 1, attached: object.nattch! });
  saving.share(id, link);
  return id;
}

/**
 * What can be said when all mappings are known.
 *
 * @param tree process ids
 * @param whole whether these are all; else nothing tells who else has a segment
 * @throws UnsupportedError where others have a segment too, who would go on with it
 */
export function finishSysv(saving: Saving, tree: ReadonlySet<number>, whole: boolean): void {
  const own = saving.namespaces.has('ipc');
  const foreign = whole ? othersHave(saving) : undefined;
  if (foreign !== undefined) {
    throw new UnsupportedError({
      what: `System V shared memory ${foreign}`,
      why: 'processes outside of the tree have it attached too',
      remedy: 'save a tree that has all of them',
    });
  }
  saving.semaphores = listSysv('sem').flatMap((object) => saveSemaphores(object, own ? undefined : tree) ?? []);
}

/**
 * The id of a segment that is attached more often than the tree has it. A process of the tree that has just ended has it until the
 * kernel has taken its memory apart, and is not seen any more: that is waited for.
 */
function othersHave({ segments }: Saving): number | undefined {
  let left = [...segments.values()].filter(({ mappings, attached }) => attached > mappings);
  for (const until = performance.now() + ENDING; left.length > 0; sleep(MOMENT)) {
    const now = new Map(listSysv('shm').map(({ shmid, nattch }) => [shmid!, nattch!]));
    left = left.filter(({ entry, mappings }) => now.get(entry.desc.id)! > mappings);
    if (performance.now() > until) break;
  }
  return left[0]?.entry.desc.id;
}

/** In ms; and in ns. */
const [ENDING, MOMENT] = [500, 1_000_000];

/** A set of semaphores, if one of the tree was the last to change one of them. @param tree all sets are saved if it is not given */
function saveSemaphores(object: SysvObject, tree?: ReadonlySet<number>): Semaphores | undefined {
  const [semid, nsems] = [object.semid!, object.nsems!];
  const last = Array.from({ length: nsems }, (_, semnum) => semctl.attempt({ semid, semnum, cmd: abi.GETPID, arg: 0 }));
  if (tree !== undefined && !last.some((pid) => tree.has(pid))) return undefined;
  const bytes = new Uint8Array(2 * nsems);
  semctl({ semid, semnum: 0, cmd: abi.GETALL, arg: bytes });
  return { entry: { desc: describeSysv(object, semid), nsems }, bytes };
}

/** Finds or makes a segment. @returns a descriptor by which it can be filled */
function restoreSegment(restoring: Restoring, { desc, size, changed }: Segment): number {
  const { id, mode } = desc;
  const there = listSysv('shm').find(({ shmid }) => shmid === id);
  const what = `System V shared memory ${id}`;
  if (there === undefined) {
    const key = (mode & abi.SHM_DEST) === 0 ? desc.key | 0 : abi.IPC_PRIVATE;
    writeFileSync('/proc/sys/kernel/shm_next_id', `${id}`);
    const made = shmget({ key, size, shmflg: abi.IPC_CREAT | abi.IPC_EXCL | (mode & PERMISSIONS) });
    const remove = () => shmctl.attempt({ shmid: made, cmd: abi.IPC_RMID, buf: 0 });
    if (made !== id) {
      remove();
      throw taken(what, `ipcrm -m ${id}`);
    }
    shmctl({ shmid: id, cmd: abi.IPC_SET, buf: owner(desc) });
    // One that was removed while it was attached is there until it is detached.
    if ((mode & abi.SHM_DEST) === 0) restoring.onFailure(remove);
    else restoring.atEnd(remove);
  } else if (
    there.size !== size ||
    there.key! >>> 0 !== desc.key ||
    (changed !== undefined && Number(changed) !== there.ctime)
  ) {
    throw taken(what, `ipcrm -m ${id}`);
  } else if (there.nattch! > 0) {
    throw new UnsupportedError({
      what,
      why: 'other processes have it attached',
      remedy: `end them: see ipcs -p, and lsof | grep SYSV`,
    });
  }
  const shmaddr = shmat({ shmid: id, shmaddr: 0, shmflg: 0 });
  try {
    const end = shmaddr + Math.ceil(size / PAGE) * PAGE;
    const pathname = `/proc/self/map_files/${shmaddr.toString(16)}-${end.toString(16)}`;
    const fd = openat({ dirfd: AT_FDCWD, pathname, flags: O_RDWR | O_CLOEXEC, mode: 0 });
    if (there !== undefined) fallocate({ fd, mode: FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, offset: 0, len: size });
    return fd;
  } finally {
    shmdt({ shmaddr });
  }
}

/** Fills a segment and detaches from it. */
export function fillSegment(restoring: Restoring, segment: Segment): void {
  const fd = restoreSegment(restoring, segment);
  restoring.fillShared(segment.desc.id, fd);
  close({ fd });
}

/** Finds or makes a set of semaphores, and gives them their values. */
export function restoreSemaphores(restoring: Restoring, { entry, bytes }: Semaphores): void {
  const { desc, nsems } = entry;
  const { id, mode } = desc;
  const there = listSysv('sem').find(({ semid }) => semid === id);
  if (there === undefined) {
    writeFileSync('/proc/sys/kernel/sem_next_id', `${id}`);
    const made = semget({ key: desc.key | 0, nsems, semflg: abi.IPC_CREAT | abi.IPC_EXCL | (mode & PERMISSIONS) });
    const remove = () => semctl.attempt({ semid: made, semnum: 0, cmd: abi.IPC_RMID, arg: 0 });
    if (made !== id) {
      remove();
      throw taken(`System V semaphores ${id}`, `ipcrm -s ${id}`);
    }
    restoring.onFailure(remove);
    semctl({ semid: id, semnum: 0, cmd: abi.IPC_SET, arg: owner(desc) });
  } else if (there.nsems !== nsems || there.key! >>> 0 !== desc.key) {
    throw taken(`System V semaphores ${id}`, `ipcrm -s ${id}`);
  }
  const now = new Uint8Array(2 * nsems);
  semctl({ semid: id, semnum: 0, cmd: abi.GETALL, arg: now });
  const values = bytes.slice(0, 2 * nsems);
  if (Buffer.compare(now, values) !== 0) semctl({ semid: id, semnum: 0, cmd: abi.SETALL, arg: values });
}

/** What IPC_SET reads: a struct shmid64_ds or semid64_ds, of at most 112 bytes, of which it takes user, group and mode. */
export function owner({ uid, gid, mode }: Value<typeof ipc_desc_entry>): Uint8Array {
  const set = new Uint8Array(112);
  set.set(abi.ipc64_perm.write({ uid, gid, mode: mode & PERMISSIONS }));
  return set;
}

function taken(what: string, command: string): UnsupportedError {
  return new UnsupportedError({ what, why: 'another one has this id', remedy: `remove that one: ${command}` });
}

/** Where whole segments are for a moment while they are attached. */
export function segmentRanges(vmas: readonly VmaEntry[], restoring: Restoring): { start: number; end: number }[] {
  return vmas
    .filter(({ status }) => (status & VMA_AREA_SYSVIPC) !== 0)
    .map(({ shmid, start, pgoff }) => ({ start: start - pgoff, end: start - pgoff + wholePages(restoring, shmid) }));
}

function wholePages(restoring: Restoring, id: number): number {
  return Math.ceil(restoring.segment(id).size / PAGE) * PAGE;
}

/** Adds the calls that attach segments, and take away what the process had detached of them. Nothing else is there yet. */
export function attachSegments(remote: Remote, vmas: readonly VmaEntry[], restoring: Restoring): void {
  const done = new Set<string>();
  const ours = vmas.filter(({ status }) => (status & VMA_AREA_SYSVIPC) !== 0);
  for (const { shmid, start, pgoff } of ours) {
    const base = start - pgoff;
    if (done.has(`${shmid} ${base}`)) continue;
    done.add(`${shmid} ${base}`);
    const parts = ours.filter((vma) => vma.shmid === shmid && vma.start - vma.pgoff === base);
    const readable = parts.every(({ fdflags }) => fdflags === O_RDONLY);
    remote.reserve(2 + 2 * parts.length, 0);
    remote.call(NR.shmat, shmid, base, readable ? abi.SHM_RDONLY : 0);
    let at = base;
    for (const part of parts) {
      if (part.start > at) remote.call(NR.munmap, at, part.start - at);
      if (part.prot !== (readable ? PROT_READ : PROT_READ | PROT_WRITE)) {
        remote.call(NR.mprotect, part.start, part.end - part.start, part.prot);
      }
      at = part.end;
    }
    const end = base + wholePages(restoring, shmid);
    if (end > at) remote.call(NR.munmap, at, end - at);
  }
}
