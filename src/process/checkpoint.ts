/**
 * Writes a process and all below it into an image.
 *
 *     look -> stop -> ask from outside (/proc, kcmp) -> ask from within -> write -> let go, kill or leave stopped
 *
 * First everything is looked at while it runs: what cannot be saved is said then, and the code is warm when the processes are
 * stopped.
 */
import { readlinkSync } from 'node:fs';
import { SIGKILL, SIGSTOP } from '../abi/signal.ts';
import { UnsupportedError } from '../errors.ts';
import { ImageWriter, writeEntries } from '../image/file.ts';
import type { ImageInfo } from '../image/info.ts';
import { type ImageDraft, MemoryStore } from '../image/store.ts';
import { fileName, type ImageType, images } from '../image/types.ts';
import { kill } from '../sys/process.ts';
import { readStat, readStatus } from '../sys/stat.ts';
import { type Clocks, clocksOf } from './clocks.ts';
import { FileTables, isGone } from './files/table.ts';
import { childrenOf, type Frozen, freezeTree } from './freeze.ts';
import { endIdle, startIdle } from './idle.ts';
import { type Runs, writeFilePages, writePagemap, writePages } from './pages.ts';
import { dataRanges, type SaveOptions, Saving } from './saving.ts';
import { checkSharing, type Member } from './sharing.ts';
import { Guest, NAMESPACES, type SavedTask, SharedObjects, saveOutside, saveTask, saveZombie } from './task.ts';
import { expectEnd } from './tracee.ts';

export interface CheckpointOptions extends SaveOptions {
  /** Root of the tree. */
  readonly pid: number;
  /** What becomes of the processes: `kill`, go on (`run`), or stay stopped as by SIGSTOP (`stop`). */
  readonly outcome: 'kill' | 'run' | 'stop';
  /** The tree may be of a session or process group whose leader is not in it. */
  readonly shellJob: boolean;
  /** For each thread to stop, in milliseconds. */
  readonly timeout: number;
}

/** Times in milliseconds. */
export interface CheckpointResult {
  readonly processes: number;
  readonly threads: number;
  /** Bytes of memory in the image. */
  readonly memory: number;
  /** Until the last thread had stopped. */
  readonly freezing: number;
  /** From the first thread that stopped to the last that was let go. */
  readonly frozen: number;
}

/**
 * @param draft gets the image and is committed; it is aborted when something fails
 * @throws UnsupportedError (something cannot be saved; the processes go on untouched), SyscallError
 */
export function checkpoint(options: CheckpointOptions, draft: ImageDraft): CheckpointResult {
  try {
    lookAt(options);
    rehearse(options);
    return save(options, draft);
  } catch (error) {
    draft.abort();
    throw error;
  }
}

/** Everything but stopping and writing. */
function lookAt(options: CheckpointOptions): void {
  refuseOneself(options.pid);
  const saving = new Saving(options);
  const tables = new FileTables(saving);
  const objects = new SharedObjects();
  const members: Member[] = [];
  try {
    const pids = new Set(treeOf(options.pid));
    for (const pid of pids) {
      try {
        const status = readStatus(pid);
        if (status.State === 'Z') continue;
        refuseForeign(pid, status.Seccomp);
        refuseSession(pid, pids, options);
        const { ids } = saveOutside({ pid, umask: status.Umask }, saving, tables, objects);
        members.push({ pid, ppid: status.PPid, ids, isZombie: false });
      } catch (error) {
        // It ended, or closed something, while it was looked at.
        if (!isGone(error)) throw error;
        if (pid === options.pid) readStat(pid);
      }
    }
    tables.finish();
    checkSharing(members);
  } finally {
    tables[Symbol.dispose]();
    saving[Symbol.dispose]();
  }
}

/**
 * Checkpoints a process of ours that does nothing into memory. Code that runs for the first time takes ten times as long as it
 * does then: 20 ms for a small program, which would be stopped meanwhile.
 */
function rehearse(options: CheckpointOptions): void {
  const pid = startIdle();
  try {
    const draft = new MemoryStore().draft(REHEARSAL);
    save({ ...options, pid, outcome: 'run', ghostLimit: 1 << 20 }, draft);
  } catch {
    // Where it cannot be done it is not needed; what goes wrong with the program itself is said then.
  } finally {
    endIdle(pid);
  }
}

const REHEARSAL: ImageInfo = {
  ...{ format: 0, tideover: '', created: '', machine: '', pageSize: 4096 },
  ...{ kernel: { release: '', version: '' }, cpu: { vendor: '', model: '', features: [] } },
};

function treeOf(pid: number): number[] {
  return [pid, ...(readStat(pid).state === 'Z' ? [] : childrenOf(pid)).flatMap(treeOf)];
}

function refuseOneself(pid: number): void {
  for (let at = process.pid; at > 0; at = readStat(at).ppid) {
    if (at !== pid) continue;
    throw new UnsupportedError({
      what: 'process tree',
      pid,
      why: 'tideover itself runs in it',
      remedy: 'run tideover from outside of the tree',
    });
  }
}

/** Namespaces other than ours, and filters on system calls. */
function refuseForeign(pid: number, seccomp: number): void {
  for (const name of ['pid', 'net', 'ipc', 'uts', 'mnt', 'user', 'cgroup'] as const) {
    if (readlinkSync(`/proc/${pid}/ns/${name}`) === readlinkSync(`/proc/self/ns/${name}`)) continue;
    throw new UnsupportedError({
      what: `${name} namespace`,
      pid,
      why: 'it is another one than ours, and namespaces cannot be saved yet',
      remedy: `run tideover within it: nsenter --${name} -t ${pid}`,
    });
  }
  if (seccomp === 0) return;
  throw new UnsupportedError({
    what: 'seccomp',
    pid,
    why: 'filters on system calls cannot be saved yet',
    remedy: 'start the program without them',
  });
}

function refuseSession(pid: number, tree: ReadonlySet<number>, options: CheckpointOptions): void {
  if (options.shellJob) return;
  const { session } = readStat(pid);
  if (tree.has(session)) return;
  throw new UnsupportedError({
    what: `session ${session}`,
    pid,
    why: 'its leader is not in the tree',
    remedy: 'give --shell-job, here and at the restore, or start the program with setsid',
  });
}

function save(options: CheckpointOptions, draft: ImageDraft): CheckpointResult {
  const saving = new Saving(options);
  const tables = new FileTables(saving);
  const objects = new SharedObjects();
  const guests: Guest[] = [];
  const started = performance.now();
  const frozen = freezeTree(options.pid, options.timeout);
  const stopped = performance.now();
  let done = false;
  try {
    const clocks = clocksOf(options.pid);
    // Objects are compared and memory is listed before any of it is ours.
    const outside = frozen.processes.map((process) =>
      process.zombie
        ? undefined
        : saveOutside({ pid: process.pid, umask: process.status.Umask }, saving, tables, objects),
    );
    tables.saveQueues();
    tables.finish();
    const tasks = frozen.processes.map((process, i): SavedTask => {
      if (process.zombie) return saveZombie(process);
      const guest = new Guest(process);
      guests.push(guest);
      return saveTask(guest, outside[i]!, saving);
    });
    const memory = writeImage(draft, { tasks, saving, clocks, freezing: stopped - started, started });
    // A target that goes on need not wait for the disk. One that is to be killed is not before its image lasts.
    if (options.outcome === 'kill') draft.commit();
    done = true;
    finish(options.outcome, frozen, guests);
    const ended = performance.now();
    if (options.outcome !== 'kill') draft.commit();
    return {
      processes: tasks.length,
      threads: frozen.processes.reduce((sum, { threads }) => sum + threads.length, 0),
      memory,
      freezing: stopped - started,
      frozen: ended - started,
    };
  } finally {
    if (!done) undo(frozen, guests);
    for (const guest of guests) guest[Symbol.dispose]();
    tables[Symbol.dispose]();
    saving[Symbol.dispose]();
  }
}

function finish(outcome: CheckpointOptions['outcome'], frozen: Frozen, guests: readonly Guest[]): void {
  if (outcome === 'kill') {
    killAll(frozen);
    return;
  }
  for (const guest of guests) guest.leave();
  if (outcome === 'stop') for (const { pid, zombie } of frozen.processes) if (!zombie) kill({ pid, sig: SIGSTOP });
  frozen.release();
}

/** Lets everything go on as far as it can be reached. */
function undo(frozen: Frozen, guests: readonly Guest[]): void {
  for (const guest of guests) {
    try {
      guest.leave();
    } catch {
      // Its threads go on where they were all the same; some scratch memory stays.
    }
  }
  frozen.release();
}

/** Kills parents after their children, so that nobody sees a child end, and reaps what the kernel leaves to a tracer. */
function killAll({ processes }: Frozen): void {
  for (const { pid, zombie } of processes) if (!zombie) kill({ pid, sig: SIGKILL });
  for (const { threads } of processes) {
    for (const thread of [...threads].reverse()) {
      expectEnd(thread.tid);
      thread.forget();
    }
  }
}

interface Collected {
  readonly tasks: readonly SavedTask[];
  readonly saving: Saving;
  readonly clocks: Clocks;
  readonly freezing: number;
  readonly started: number;
}

/** Small images first, then pages in the order of their numbers. @returns bytes of memory */
function writeImage(draft: ImageDraft, { tasks, saving, clocks, freezing, started }: Collected): number {
  const write = <E>(type: ImageType<E, never, never>, entries: readonly E[], id: number | string = ''): void => {
    writeEntries(draft.create(fileName(type, id)), type, entries);
  };
  const live = tasks.filter(({ zombie }) => !zombie);
  write(
    images.PSTREE,
    tasks.map(({ pid, ppid, pgid, sid, threads }) => ({
      pid,
      ppid,
      pgid,
      sid,
      threads: threads.map(({ tid }) => tid),
    })),
  );
  const tablesWritten = new Set<number>();
  for (const task of tasks) {
    for (const { tid, core } of task.threads) write(images.CORE, [core], tid);
    if (task.zombie) continue;
    write(images.IDS, [task.ids], task.pid);
    write(images.MM, [task.mm!], task.pid);
    write(images.FS, [task.fs!], task.pid);
    if (tablesWritten.has(task.ids.files_id)) continue;
    tablesWritten.add(task.ids.files_id);
    write(images.FDINFO, task.descriptors!, task.ids.files_id);
  }
  write(images.FILES, saving.files);
  writeShared(draft, saving);
  write(images.TIMENS, [clocks], 0);

  let memory = 0;
  let lastPages = 0;
  const contents: (() => void)[] = [];
  const pages = (name: number | string, runs: Runs, copy: (pagesId: number) => void): void => {
    const id = ++lastPages;
    writePagemap(draft, name, id, runs);
    contents.push(() => copy(id));
    memory += runs.size;
  };
  for (const { shmid, fd, size } of saving.shared.values()) {
    const runs = sharedRuns(fd, size);
    pages(`shmem-${shmid}`, runs, (id) => writeFilePages(draft, id, fd, runs));
  }
  const spaces = new Set<number>();
  for (const { pid, ids, vmas, pages: runs } of live) {
    if (spaces.has(ids.vm_id)) continue;
    spaces.add(ids.vm_id);
    pages(pid, runs, (id) => writePages(draft, id, pid, runs, vmas));
  }
  const { tv_sec } = clocks.boottime;
  write(images.INVENTORY, [
    {
      img_version: 2,
      fdinfo_per_id: true,
      root_ids: { vm_id: 0, files_id: 0, fs_id: 0, sighand_id: 0, ...NAMESPACES },
      ns_per_id: true,
      lsmtype: 'NO_LSM',
      dump_uptime: tv_sec * 1_000_000,
      tcp_close: false,
      network_lock_method: 1,
    },
  ]);
  const copying = performance.now();
  const micros = (milliseconds: number) => Math.round(1000 * milliseconds);
  write(
    images.STATS,
    [
      {
        dump: {
          freezing_time: micros(freezing),
          frozen_time: micros(copying - started),
          ...{ memdump_time: 0, memwrite_time: 0, pages_scanned: memory / 4096, pages_skipped_parent: 0 },
          ...{ pages_written: memory / 4096, pages_lazy: 0 },
        },
      },
    ],
    'dump',
  );
  for (const copy of contents) copy();
  return memory;
}

function writeShared(draft: ImageDraft, saving: Saving): void {
  const { remaps, ghosts, pipesData, fifosData, socketQueues, memfds, locks, rings } = saving;
  if (rings.size > 0) writeEntries(draft.create(fileName(images.IO_URING)), images.IO_URING, [...rings.values()]);
  if (locks.size > 0) writeEntries(draft.create(fileName(images.FILE_LOCKS)), images.FILE_LOCKS, [...locks.values()]);
  if (remaps.length > 0) writeEntries(draft.create(fileName(images.REMAP_FPATH)), images.REMAP_FPATH, remaps);
  for (const { id, entry, pieces } of ghosts.values()) {
    const writer = new ImageWriter(draft.create(fileName(images.GHOST_FILE, id)), images.GHOST_FILE);
    writer.head(entry);
    for (const { offset, bytes } of pieces) writer.entry({ off: offset, len: bytes.length }, bytes);
    writer.close();
  }
  for (const [type, list] of [
    [images.PIPES_DATA, pipesData],
    [images.FIFO_DATA, fifosData],
  ] as const) {
    writeWithBytes(draft, type, list);
  }
  writeWithBytes(draft, images.SK_QUEUES, socketQueues);
  if (memfds.size > 0) {
    writeEntries(draft.create(fileName(images.MEMFD_INODE)), images.MEMFD_INODE, [...memfds.values()]);
  }
}

/** Entries with bytes behind them. */
function writeWithBytes<E>(
  draft: ImageDraft,
  type: ImageType<E, never, never>,
  list: readonly { entry: E; bytes: Uint8Array }[],
): void {
  if (list.length === 0) return;
  const writer = new ImageWriter(draft.create(fileName(type)), type);
  for (const { entry, bytes } of list) writer.entry(entry, bytes);
  writer.close();
}

/** The parts of shared memory that were ever written, in whole pages. */
function sharedRuns(fd: number, size: number): Runs {
  const ranges = dataRanges(fd, size).map(([start, end]) => [start, Math.ceil(end / 4096) * 4096] as const);
  return { bounds: Float64Array.from(ranges.flat()), size: ranges.reduce((sum, [start, end]) => sum + end - start, 0) };
}
