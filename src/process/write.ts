/** What was collected of processes becomes the files of an image. */
import { ImageWriter, writeEntries } from '../image/file.ts';
import type { ImageDraft } from '../image/store.ts';
import { fileName, type ImageType, images } from '../image/types.ts';
import type { Clocks } from './clocks.ts';
import { dataRanges } from './files/holes.ts';
import { mayComeLater } from './lazy.ts';
import { FileMemory, type Memory, ProcessMemory, writePagemap, writePages } from './memory.ts';
import { contentFile } from './mounts/entry.ts';
import { OURS } from './namespaces.ts';
import { DUMPS, encodeDump, type Network } from './network.ts';
import type { Runs } from './runs.ts';
import type { Saving } from './saving.ts';
import type { SavedTask } from './task.ts';

export interface Collected {
  readonly tasks: readonly SavedTask[];
  readonly saving: Saving;
  readonly clocks: Clocks;
  readonly memory: readonly Memory[];
}

/** What tells which memory a process has. */
export type AddressSpace = Pick<SavedTask, 'host' | 'pid' | 'ids' | 'zombie' | 'vmas' | 'pages' | 'unchanged' | 'mm'>;

/** All memory that the image is to have, in its order: what processes share, then what each has alone. */
export function memoryOf(tasks: readonly AddressSpace[], saving: Saving): Memory[] {
  const memory: Memory[] = [...saving.shared.values()].map(
    ({ shmid, fd, size }) => new FileMemory(`shmem-${shmid}`, fd, sharedRuns(fd, size)),
  );
  const spaces = new Set<number>();
  for (const { host, pid, ids, zombie, vmas, pages, unchanged, mm } of tasks) {
    if (zombie || spaces.has(ids.vm_id)) continue;
    spaces.add(ids.vm_id);
    const own = new ProcessMemory({ pid: host, name: pid }, { pages, unchanged }, vmas);
    if (saving.options.lazyPages) own.leaveLater((vma) => mayComeLater(vma, { vmas, lock_future: mm?.lock_future }));
    memory.push(own);
  }
  return memory;
}

/** Small images first, then pages in the order of their numbers. */
export function writeImage(draft: ImageDraft, { tasks, saving, clocks, memory }: Collected): void {
  const write = <E>(type: ImageType<E, never, never>, entries: readonly E[], id: number | string = ''): void => {
    writeEntries(draft.create(fileName(type, id)), type, entries);
  };
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

  for (const [i, each] of memory.entries()) writePagemap(draft, each, i + 1);
  writeInventory(draft, clocks);
  for (const [i, each] of memory.entries()) writePages(draft, each, i + 1);
}

export function writeInventory(draft: ImageDraft, { boottime }: Clocks): void {
  writeEntries(draft.create(fileName(images.INVENTORY)), images.INVENTORY, [
    {
      img_version: 2,
      fdinfo_per_id: true,
      root_ids: { vm_id: 0, files_id: 0, fs_id: 0, sighand_id: 0, ...OURS },
      ns_per_id: true,
      lsmtype: 'NO_LSM',
      dump_uptime: boottime.tv_sec * 1_000_000,
      tcp_close: false,
      network_lock_method: 1,
    },
  ]);
}

/**
 * As CRIU counts them: first the time until the last thread had stopped, then the time from there on.
 *
 * @param times in milliseconds; `frozen` from the first thread that stopped
 */
export function writeStatistics(
  draft: ImageDraft,
  memory: readonly Pick<Memory, 'runs' | 'unchanged' | 'later'>[],
  { freezing, frozen }: { freezing: number; frozen: number },
): void {
  const micros = (milliseconds: number) => Math.round(1000 * milliseconds);
  const pages = memory.reduce((sum, { runs }) => sum + runs.size, 0) / 4096;
  const unchanged = memory.reduce((sum, each) => sum + (each.unchanged?.size ?? 0), 0) / 4096;
  const lazy = memory.reduce((sum, each) => sum + (each.later?.size ?? 0), 0) / 4096;
  const dump = {
    ...{ freezing_time: micros(freezing), frozen_time: micros(frozen - freezing), memdump_time: 0, memwrite_time: 0 },
    ...{
      pages_scanned: pages + unchanged + lazy,
      pages_skipped_parent: unchanged,
      pages_written: pages,
      pages_lazy: lazy,
    },
  };
  writeEntries(draft.create(fileName(images.STATS, 'dump')), images.STATS, [{ dump }]);
}

function writeShared(draft: ImageDraft, saving: Saving): void {
  const { remaps, ghosts, pipesData, fifosData, socketQueues, tcpStreams, memfds, locks, rings } = saving;
  const { terminals, terminalData } = saving;
  if (terminals.size > 0)
    writeEntries(draft.create(fileName(images.TTY_INFO)), images.TTY_INFO, [...terminals.values()]);
  if (terminalData.length > 0) writeEntries(draft.create(fileName(images.TTY_DATA)), images.TTY_DATA, terminalData);
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
  if (saving.filters.length > 0) {
    writeEntries(draft.create(fileName(images.SECCOMP)), images.SECCOMP, [{ seccomp_filters: saving.filters }]);
  }
  const segments = [...saving.segments.values()].map(({ entry }) => ({ entry, bytes: new Uint8Array(0) }));
  const { ipc_ns_id, uts_ns_id } = saving.namespaces.ids;
  if (saving.uts !== undefined) {
    writeEntries(draft.create(fileName(images.UTSNS, uts_ns_id)), images.UTSNS, [saving.uts]);
  }
  if (saving.mounts !== undefined) {
    const { mnt_ns_id } = saving.namespaces.ids;
    writeEntries(draft.create(fileName(images.MNTS, mnt_ns_id)), images.MNTS, saving.mounts.entries);
    for (const [device, archive] of saving.contents) writeParts(draft, contentFile(device), archive);
  }
  if (saving.groups.controllers.length + saving.groups.sets.length > 0)
    writeEntries(draft.create(fileName(images.GROUP_SETTINGS)), images.GROUP_SETTINGS, [saving.groups]);
  if (saving.network !== undefined) writeNetwork(draft, saving.namespaces.ids.net_ns_id, saving.network);
  if (saving.ipc !== undefined) {
    writeEntries(draft.create(fileName(images.IPC_VAR, ipc_ns_id)), images.IPC_VAR, [saving.ipc.limits]);
    const writer = new ImageWriter(draft.create(fileName(images.IPCNS_MSG, ipc_ns_id)), images.IPCNS_MSG);
    for (const { entry, messages } of saving.ipc.queues) {
      writer.entry(entry);
      for (const message of messages) writer.inner(message.entry, message.bytes);
    }
    writer.close();
  }
  writeWithBytes(draft, images.IPCNS_SHM, segments, ipc_ns_id);
  writeWithBytes(draft, images.IPCNS_SEM, saving.semaphores, ipc_ns_id);
  for (const { ino, ...stream } of tcpStreams) writeWithBytes(draft, images.TCP_STREAM, [stream], ino);
  if (memfds.size > 0) {
    writeEntries(draft.create(fileName(images.MEMFD_INODE)), images.MEMFD_INODE, [...memfds.values()]);
  }
}

function writeNetwork(draft: ImageDraft, id: number, { devices, dumps, settings, rules }: Network): void {
  const conf = { def_conf: [], all_conf: [], def_conf4: [], all_conf4: [], def_conf6: [], all_conf6: [] };
  const entry = { ...conf, nsids: [], unix_conf: [], ipv4_sysctl: [], settings: [...settings] };
  writeEntries(draft.create(fileName(images.NETNS, id)), images.NETNS, [entry]);
  writeEntries(draft.create(fileName(images.NETDEV, id)), images.NETDEV, devices);
  const raw = (name: string, bytes: Uint8Array) => writeParts(draft, `${name}-${id}.img`, [bytes]);
  for (const { name, magic } of DUMPS) raw(name, encodeDump(magic, dumps[name]));
  raw(
    'nf-tables',
    encodeDump(
      0,
      rules.map((rule) => ({ ...rule, flags: 0, seq: 0 })),
    ),
  );
}

function writeParts(draft: ImageDraft, file: string, parts: readonly Uint8Array[]): void {
  const sink = draft.create(file);
  for (const part of parts) sink.write(part);
  sink.close();
}

/** Entries with bytes behind them. */
function writeWithBytes<E>(
  draft: ImageDraft,
  type: ImageType<E, never, never>,
  list: readonly { entry: E; bytes: Uint8Array }[],
  id: number | string = '',
): void {
  if (list.length === 0) return;
  const writer = new ImageWriter(draft.create(fileName(type, id)), type);
  for (const { entry, bytes } of list) writer.entry(entry, bytes);
  writer.close();
}

/** The parts of shared memory that were ever written, in whole pages. */
function sharedRuns(fd: number, size: number): Runs {
  const ranges = dataRanges(fd, size).map(([start, end]) => [start, Math.ceil(end / 4096) * 4096] as const);
  return { bounds: Float64Array.from(ranges.flat()), size: ranges.reduce((sum, [start, end]) => sum + end - start, 0) };
}
