/**
 * Whether an image is whole: sizes and checksums of the files, the structure of each, and that what one file names is
 * there in another. All faults are gathered, each with its place, and nothing is guessed or repaired.
 */
import { FormatError, TideoverError, VerifyError } from '../errors.ts';
import { compareWith, readSums, SummedSource } from './checked.ts';
import { records } from './file.ts';
import { INFO_FILE, parseInfo } from './info.ts';
import { VMA_AREA_GUARD, VMA_FILE_PRIVATE, VMA_FILE_SHARED } from './messages/memory.ts';
import { MemoryImage, PAGE_SIZE, PageRuns, sharedMemoryOf } from './pages.ts';
import { type ImageStore, readWhole, withSource } from './store.ts';
import { isSums, type Sum } from './sums.ts';
import { entriesOf, type ImageTask, type ImageTree, isPreDump, readTree } from './tree.ts';
import { fileName, type ImageType, images, isRaw, pagesFile, typeOfFile } from './types.ts';

/** tideover.json is a screenful. */
const MAX_INFO = 1 << 20;

/** What is wrong with an image, in the order in which it was found; empty where nothing is. Reads a stream to its end. */
export function verify(store: ImageStore): TideoverError[] {
  const faults: TideoverError[] = [];
  const gather = (check: () => void) => {
    try {
      check();
    } catch (error) {
      if (!(error instanceof TideoverError)) throw error;
      faults.push(error);
    }
  };
  const found = new Map<string, Sum>();
  const names = new Set<string>();
  gather(() => {
    for (const file of filesInOrder(store)) {
      names.add(file);
      if (isSums(file)) continue;
      gather(() => withSource(store, file, (source) => found.set(file, verifyFile(file, new SummedSource(source)))));
    }
  });
  gather(() => {
    const sums = readSums(store);
    if (sums === undefined) return;
    for (const [file, sum] of found) gather(() => compareWith(sums, file, sum, `${store.name}: ${file}`));
    for (const file of sums.keys()) {
      if (!names.has(file)) faults.push(new VerifyError(`${store.name}: ${file}`, 'the file', 'none'));
    }
  });
  // What refers to what is only worth a look where everything can be read.
  if (faults.length > 0) return faults;
  gather(() => {
    const all = isPreDump(store) ? pages(store, pagemapsOf(names), found) : references(store, readTree(store), found);
    for (const fault of all) faults.push(fault);
  });
  // Only one that has pages of this one: CRIU links to an earlier image also where nothing is taken from it.
  gather(() => {
    const inParent = pagemapsOf(names).some((id) => runsOf(store, id).hasParent);
    const parent = inParent ? store.parent?.() : undefined;
    if (parent !== undefined) faults.push(...verify(parent));
  });
  return faults;
}

/** All names; those of a stream appear as it is read, pages after what stands before them. */
function* filesInOrder(store: ImageStore): Generator<string> {
  const seen = new Set<string>();
  for (;;) {
    const fresh = store.names().filter((file) => !seen.has(file));
    if (fresh.length === 0) return;
    fresh.sort((a, b) => Number(isRaw(a)) - Number(isRaw(b)));
    for (const file of fresh) {
      seen.add(file);
      yield file;
    }
  }
}

/** Which memory an image has: processes, and shared memory. */
function pagemapsOf(names: ReadonlySet<string>): string[] {
  return [...names].flatMap((file) => /^pagemap-(.+)\.img$/.exec(file)?.[1] ?? []);
}

function runsOf(store: ImageStore, id: number | string): PageRuns {
  return withSource(store, fileName(images.PAGEMAP, id), PageRuns.read);
}

/** Reads a file to its end, by its structure where it has one. */
function verifyFile(file: string, source: SummedSource): Sum {
  const type = typeOfFile(file);
  if (file === INFO_FILE) parseInfo(Buffer.from(readWhole(source, MAX_INFO)).toString('utf8'), source.name);
  else if (type === images.PAGEMAP) PageRuns.read(source);
  else if (!isRaw(file)) for (const _ of records(source, type));
  return source.sum();
}

/** References that lead nowhere. */
function* references(store: ImageStore, tree: ImageTree, found: ReadonlyMap<string, Sum>): Generator<FormatError> {
  const fault = (file: string, field: string, expected: string, found: string | number) =>
    new FormatError({ file, field, expected, found: `${found}` });
  const optional = <E>(type: ImageType<E, never, never>) => (store.has(fileName(type)) ? entriesOf(store, type) : []);
  const pids = new Set(tree.tasks.map(({ pid }) => pid));
  const tids = new Set<number>();
  const pagemaps: (number | string)[] = [];

  for (const { pid, ppid, threads } of tree.tasks) {
    const file = fileName(images.PSTREE);
    if (ppid !== 0 && !pids.has(ppid)) yield fault(file, `pstree_entry.ppid of ${pid}`, 'a process of the image', ppid);
    for (const { tid } of threads) {
      if (tids.has(tid)) yield fault(file, `pstree_entry.threads of ${pid}`, 'a number of its own', tid);
      tids.add(tid);
    }
  }

  const filters = optional(images.SECCOMP)[0]?.seccomp_filters.length ?? 0;
  for (const { threads } of tree.tasks) {
    for (const { tid, core } of threads) {
      const filter = core.thread_core?.seccomp_filter;
      if (filter === undefined || filter < filters) continue;
      yield fault(fileName(images.CORE, tid), 'thread_core_entry.seccomp_filter', `less than ${filters}`, filter);
    }
  }

  for (const task of tree.tasks) {
    if (task.mm === undefined) continue;
    pagemaps.push(task.pid);
    yield* referencesOf(task, tree);
    for (const vma of task.mm.vmas) {
      const shared = sharedMemoryOf(tree, vma);
      if (shared !== undefined && !pagemaps.includes(`shmem-${shared}`)) pagemaps.push(`shmem-${shared}`);
    }
  }
  for (const { shmid } of tree.memfds.values()) {
    if (!pagemaps.includes(`shmem-${shmid}`)) pagemaps.push(`shmem-${shmid}`);
  }
  yield* pages(store, pagemaps, found);

  for (const { orig_id, remap_id, remap_type } of optional(images.REMAP_FPATH)) {
    const file = fileName(images.REMAP_FPATH);
    if (!tree.files.has(orig_id)) yield fault(file, 'remap_file_path_entry.orig_id', 'an id of files.img', orig_id);
    const ghost = fileName(images.GHOST_FILE, remap_id);
    if (remap_type === 'GHOST' && !store.has(ghost))
      yield fault(file, 'remap_file_path_entry.remap_id', ghost, 'no file');
    if (remap_type === 'LINKED' && !tree.files.has(remap_id)) {
      yield fault(file, 'remap_file_path_entry.remap_id', 'an id of files.img', remap_id);
    }
  }

  const terminals = new Set(optional(images.TTY_INFO).map(({ id }) => id));
  for (const { id, memfd, tty } of tree.files.values()) {
    const place = (message: string) => `${message} of file ${id}`;
    if (memfd && !tree.memfds.has(memfd.inode_id)) {
      yield fault(fileName(images.FILES), place('memfd_file_entry.inode_id'), 'an entry of memfd.img', memfd.inode_id);
    }
    if (tty && !terminals.has(tty.tty_info_id)) {
      yield fault(
        fileName(images.FILES),
        place('tty_file_entry.tty_info_id'),
        'an entry of tty-info.img',
        tty.tty_info_id,
      );
    }
  }
}

/** What the memory, descriptors and directories of one process name. */
function* referencesOf(task: ImageTask, tree: ImageTree): Generator<FormatError> {
  const hex = (address: number) => `0x${address.toString(16)}`;
  const mm = fileName(images.MM, task.pid);
  const file = (name: string, field: string, id: number): FormatError[] =>
    tree.files.has(id) ? [] : [new FormatError({ file: name, field, expected: 'an id of files.img', found: `${id}` })];
  yield* file(mm, 'mm_entry.exe_file_id', task.mm!.exe_file_id);
  yield* file(fileName(images.FS, task.pid), 'fs_entry.cwd_id', task.fs!.cwd_id);
  yield* file(fileName(images.FS, task.pid), 'fs_entry.root_id', task.fs!.root_id);

  let end = 0;
  for (const vma of task.mm!.vmas) {
    if (vma.status & VMA_AREA_GUARD) continue;
    const field = `vma_entry ${hex(vma.start)}-${hex(vma.end)}`;
    if (vma.start < end || vma.end <= vma.start || vma.start % PAGE_SIZE !== 0 || vma.end % PAGE_SIZE !== 0) {
      yield new FormatError({ file: mm, field, expected: `whole pages from ${hex(end)} on`, found: 'others' });
    }
    end = vma.end;
    if (vma.status & (VMA_FILE_PRIVATE | VMA_FILE_SHARED)) yield* file(mm, `${field}: shmid`, vma.shmid);
  }

  const descriptors = fileName(images.FDINFO, tree.inventory.fdinfo_per_id ? task.ids!.files_id : task.pid);
  const seen = new Set<number>();
  for (const { fd, id, type } of task.descriptors) {
    yield* file(descriptors, `fdinfo_entry.id of descriptor ${fd}`, id);
    const described = tree.files.get(id)?.type ?? type;
    if (described !== type) {
      const field = `fdinfo_entry.type of descriptor ${fd}`;
      yield new FormatError({ file: descriptors, field, expected: `${described}`, found: `${type}` });
    }
    if (seen.has(fd)) {
      yield new FormatError({
        file: descriptors,
        field: 'fdinfo_entry.fd',
        expected: 'each once',
        found: `${fd} twice`,
      });
    }
    seen.add(fd);
  }
}

/** Pagemaps and the sizes of the page files they name. */
function* pages(
  store: ImageStore,
  pagemaps: readonly (number | string)[],
  found: ReadonlyMap<string, Sum>,
): Generator<FormatError> {
  const owners = new Map<number, string>();
  for (const id of pagemaps) {
    const file = fileName(images.PAGEMAP, id);
    if (!store.has(file)) {
      yield new FormatError({ file: store.name, field: file, expected: 'the file', found: 'none' });
      continue;
    }
    const runs = runsOf(store, id);
    let end = 0;
    for (let i = 0; i < runs.length; i++) {
      const [vaddr, size] = [runs.vaddr[i]!, runs.size[i]!];
      if (vaddr < end || vaddr % PAGE_SIZE !== 0 || size === 0) {
        const expected = `whole pages from 0x${end.toString(16)} on`;
        yield new FormatError({ file, field: 'pagemap_entry.vaddr', expected, found: `0x${vaddr.toString(16)}` });
      }
      end = vaddr + size;
    }
    if (runs.hasParent) {
      try {
        new MemoryImage(store, id).close();
      } catch (error) {
        if (!(error instanceof FormatError)) throw error;
        yield error;
      }
    }
    const owner = owners.get(runs.pagesId);
    owners.set(runs.pagesId, file);
    const name = pagesFile(runs.pagesId);
    const size = found.get(name)?.size;
    if (owner !== undefined) {
      yield new FormatError({
        file,
        field: 'pagemap_head.pages_id',
        expected: 'a file of its own',
        found: `that of ${owner}`,
      });
    } else if (size === undefined) {
      if (runs.pagesSize > 0)
        yield new FormatError({ file, field: 'pagemap_head.pages_id', expected: name, found: 'no file' });
    } else if (size !== runs.pagesSize) {
      yield new FormatError({ file: name, field: 'size', expected: `${runs.pagesSize}, by ${file}`, found: `${size}` });
    }
  }
}
