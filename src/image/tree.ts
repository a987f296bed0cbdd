/** The process tree of an image, with all that is said of each process but its pages, and the open files. */
import { FormatError, UnsupportedError } from '../errors.ts';
import { readEntries, readEntry } from './file.ts';
import { type ImageInfo, INFO_FILE, parseInfo } from './info.ts';
import type { memfd_inode_entry } from './messages/descriptors.ts';
import type { fdinfo_entry, file_entry, fs_entry } from './messages/files.ts';
import type { inventory_entry } from './messages/inventory.ts';
import type { mm_entry } from './messages/memory.ts';
import { type core_entry, TASK_DEAD, TASK_ZOMBIE, type task_kobj_ids_entry } from './messages/task.ts';
import type { Value } from './proto.ts';
import { type ImageStore, readWhole, withSource } from './store.ts';
import { fileName, type ImageType, images, typeOfFile } from './types.ts';

export type InventoryEntry = Value<typeof inventory_entry>;
export type CoreEntry = Value<typeof core_entry>;
export type IdsEntry = Value<typeof task_kobj_ids_entry>;
export type MmEntry = Value<typeof mm_entry>;
export type FsEntry = Value<typeof fs_entry>;
export type FdinfoEntry = Value<typeof fdinfo_entry>;
export type MemfdEntry = Value<typeof memfd_inode_entry>;
export type FileEntry = Value<typeof file_entry>;

export interface ImageThread {
  readonly tid: number;
  readonly core: CoreEntry;
}

export interface ImageTask {
  readonly pid: number;
  /** 0 for the root of the tree. */
  readonly ppid: number;
  readonly pgid: number;
  readonly sid: number;
  /** The leader first. Its core has `tc`. */
  readonly threads: readonly ImageThread[];
  /** It ended and its parent has not waited for it: there is nothing but its core. */
  readonly isZombie: boolean;
  readonly ids: IdsEntry | undefined;
  readonly mm: MmEntry | undefined;
  readonly fs: FsEntry | undefined;
  /** The descriptor table, which processes with one files_id share. */
  readonly descriptors: readonly FdinfoEntry[];
}

export interface ImageTree {
  readonly inventory: InventoryEntry;
  /** undefined for an image that CRIU made. */
  readonly info: ImageInfo | undefined;
  /** Parents before their children. */
  readonly tasks: readonly ImageTask[];
  /** Open file descriptions by id. */
  readonly files: ReadonlyMap<number, FileEntry>;
  /** By inode_id, which memfd_file_entry names. */
  readonly memfds: ReadonlyMap<number, MemfdEntry>;
}

/** CRIU's version 1.1: all that it made since 2014. */
const IMG_VERSION = 2;
const MAX_INFO = 1 << 20;

/** Entries of a file of the store, with its number in the name. */
export function entriesOf<E>(store: ImageStore, type: ImageType<E, never, never>, id: number | string = ''): E[] {
  return withSource(store, fileName(type, id), (source) => readEntries(source, type));
}

/** The one entry of such a file. */
export function entryOf<E>(store: ImageStore, type: ImageType<E, never, never>, id: number | string = ''): E {
  return withSource(store, fileName(type, id), (source) => readEntry(source, type));
}

/** What tideover.json says, or undefined where there is none. */
export function readInfo(store: ImageStore): ImageInfo | undefined {
  if (!store.has(INFO_FILE)) return undefined;
  return withSource(store, INFO_FILE, (source) =>
    parseInfo(Buffer.from(readWhole(source, MAX_INFO)).toString('utf8'), source.name),
  );
}

/** Whether an image has memory alone, for others to build on. Of a stream: whether that can be told already. */
export function isPreDump(store: ImageStore): boolean {
  return !store.has(fileName(images.PSTREE)) && store.names().some((file) => typeOfFile(file) === images.PAGEMAP);
}

/**
 * @throws FormatError where a file is damaged or missing, UnsupportedError for another version of images and for a pre-dump
 */
export function readTree(store: ImageStore): ImageTree {
  const info = readInfo(store);
  const inventory = entryOf(store, images.INVENTORY);
  if (inventory.img_version !== IMG_VERSION) {
    throw new UnsupportedError({
      what: `images in ${store.name}`,
      why: `they are of version ${inventory.img_version}, and this program knows ${IMG_VERSION}`,
      remedy: 'make them with a CRIU of 2014 or later',
    });
  }
  if (isPreDump(store)) {
    throw new UnsupportedError({
      what: `images in ${store.name}`,
      why: 'they are of a pre-dump: memory without processes',
      remedy: 'name the checkpoint that was made with it as --prev-images-dir',
    });
  }
  // CRIU writes no file for a process that has no descriptor.
  const table = (id: number) =>
    info === undefined && !store.has(fileName(images.FDINFO, id)) ? [] : entriesOf(store, images.FDINFO, id);
  const tasks = entriesOf(store, images.PSTREE).map((entry): ImageTask => {
    const leader = { tid: entry.pid, core: entryOf(store, images.CORE, entry.pid) };
    const { tc, ids: coreIds } = leader.core;
    if (tc === undefined) {
      const file = fileName(images.CORE, entry.pid);
      throw new FormatError({ file, field: 'core_entry.tc', expected: 'a value for the leader', found: 'none' });
    }
    const { pid, ppid, pgid, sid } = entry;
    const isZombie = tc.task_state === TASK_ZOMBIE || tc.task_state === TASK_DEAD;
    const common = { pid, ppid, pgid, sid, isZombie };
    // CRIU leaves the number of a zombie's thread as it finds it in its memory.
    if (isZombie) {
      return { ...common, threads: [leader], ids: coreIds, mm: undefined, fs: undefined, descriptors: [] };
    }
    if (entry.threads[0] !== pid) {
      const [expected, found] = [`${pid}`, `${entry.threads[0] ?? 'none'}`];
      throw new FormatError({ file: fileName(images.PSTREE), field: 'pstree_entry.threads', expected, found });
    }
    const others = entry.threads.slice(1).map((tid) => ({ tid, core: entryOf(store, images.CORE, tid) }));
    const ids = coreIds ?? entryOf(store, images.IDS, pid);
    return {
      ...common,
      threads: [leader, ...others],
      ids,
      mm: entryOf(store, images.MM, pid),
      fs: entryOf(store, images.FS, pid),
      descriptors: table(inventory.fdinfo_per_id ? ids.files_id : pid),
    };
  });
  const optional = <E>(type: ImageType<E, never, never>) => (store.has(fileName(type)) ? entriesOf(store, type) : []);
  const files = new Map(optional(images.FILES).map((file) => [file.id, file]));
  const memfds = new Map(optional(images.MEMFD_INODE).map((memfd) => [memfd.inode_id, memfd]));
  return { inventory, info, tasks, files, memfds };
}
