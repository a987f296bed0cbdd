/** What is made of an image in this process before the restored ones get it: open files and shared memory. */
import { AT_EMPTY_PATH, F_DUPFD_CLOEXEC } from '../abi/fcntl.ts';
import { MAP_HUGE_SHIFT, MAP_HUGETLB } from '../abi/mman.ts';
import { FormatError, UnsupportedError } from '../errors.ts';
import { readBlob, records } from '../image/file.ts';
import type { pipe_data_entry, reg_file_entry } from '../image/messages/descriptors.ts';
import { VMA_ANON_SHARED } from '../image/messages/memory.ts';
import type { tcp_stream_entry } from '../image/messages/sockets.ts';
import { MemoryImage, sharedIn, sharedMemoryOf } from '../image/pages.ts';
import type { Value } from '../image/proto.ts';
import { type ImageStore, withSource } from '../image/store.ts';
import { entriesOf, entryOf, type ImageTree } from '../image/tree.ts';
import { fileName, type ImageType, images } from '../image/types.ts';
import { attributes, close, fcntl } from '../sys/files.ts';
import { acceptPages } from './acceptance.ts';
import { type Inherited, namesOf, notBrought } from './files/external.ts';
import type { FileEntry } from './files/file.ts';
import type { Ring } from './files/io_uring.ts';
import { kindOfType } from './files/kinds.ts';
import type { FileLock } from './files/locks.ts';
import type { TtyInfo } from './files/ttypair.ts';
import type { Packet } from './files/unixqueue.ts';
import { fillFile } from './filling.ts';
import { PROC } from './ids.ts';
import { restoreIpcLimits, restoreQueues } from './ipc.ts';
import { Nameless } from './nameless.ts';
import { OURS, ownNamespaces } from './namespaces.ts';
import { Root } from './root.ts';
import type { Filter } from './seccomp.ts';
import { sharedAnonymous } from './sharedanonymous.ts';
import { fillSegment, restoreSemaphores, type Segment } from './sysv.ts';
import { restoreNames } from './uts.ts';

type Regular = Value<typeof reg_file_entry>;
type PipeData = { entry: Value<typeof pipe_data_entry>; bytes: Uint8Array };

export class Restoring {
  readonly tree: ImageTree;
  /** Where its paths lead. */
  root = Root.ours;
  readonly connections: 'kept' | 'closed';
  /** The terminal of tideover may stand for one from outside of the tree. */
  readonly shellJob: boolean;
  /** Files on disks are to be the very ones that they were, as they were left. */
  readonly sameFiles: boolean;
  readonly terminals: readonly TtyInfo[];
  /** What a process of the image opened as /dev/tty, by the id of the file. */
  readonly controlling = new Map<number, number>();
  readonly memfds: ImageTree['memfds'];
  readonly pipesData: ReadonlyMap<number, PipeData>;
  readonly fifosData: ReadonlyMap<number, PipeData>;
  /** By id of the socket. */
  readonly socketQueues: ReadonlyMap<number, readonly Packet[]>;
  readonly locks: readonly FileLock[];
  readonly #store: ImageStore;
  readonly #inherited: Inherited;
  readonly #open = new Map<number, number>();
  readonly #made = new Map<string, unknown>();
  readonly #ends: (() => void)[] = [];
  readonly #whenReady: (() => void)[] = [];
  readonly #whenMade: (() => void)[] = [];
  readonly #lasts: (() => void)[] = [];
  readonly #failures: (() => void)[] = [];
  readonly #segments: readonly Segment[];
  /** Number of the IPC namespace. */
  readonly #ipc: number;
  /** Processes that were made, by their ids in the image. */
  readonly #here = new Map<number, number>();
  readonly #nameless: Nameless;

  constructor(
    store: ImageStore,
    tree: ImageTree,
    { connections, shellJob, sameFiles }: Pick<Restoring, 'connections' | 'shellJob' | 'sameFiles'>,
    inherited: Inherited = new Map(),
  ) {
    this.#inherited = inherited;
    this.connections = connections;
    this.shellJob = shellJob;
    this.sameFiles = sameFiles;
    this.#store = store;
    this.tree = tree;
    this.memfds = tree.memfds;
    this.terminals = store.has(fileName(images.TTY_INFO)) ? entriesOf(store, images.TTY_INFO) : [];
    this.#ipc = tree.tasks[0]!.ids?.ipc_ns_id ?? OURS.ipc_ns_id;
    this.#segments = this.#withBytes(images.IPCNS_SHM, this.#ipc).map(({ entry }) => entry);
    const byPipe = (list: PipeData[]) => new Map(list.map((each) => [each.entry.pipe_id, each]));
    this.pipesData = byPipe(this.#withBytes(images.PIPES_DATA));
    this.fifosData = byPipe(this.#withBytes(images.FIFO_DATA));
    this.socketQueues = Map.groupBy(this.#withBytes(images.SK_QUEUES), ({ entry }) => entry.id_for);
    this.locks = store.has(fileName(images.FILE_LOCKS)) ? entriesOf(store, images.FILE_LOCKS) : [];
    this.#nameless = new Nameless(store, this);
  }

  /** @throws FormatError where there is no such file */
  entry(id: number): FileEntry {
    const entry = this.tree.files.get(id);
    if (entry !== undefined) return entry;
    throw new FormatError({ file: fileName(images.FILES), field: 'id', expected: `file ${id}`, found: 'none' });
  }

  /** @throws FormatError where the image has no such ring */
  ring(id: number): Ring {
    const name = fileName(images.IO_URING);
    const rings = this.once(name, () => (this.#store.has(name) ? entriesOf(this.#store, images.IO_URING) : []));
    const found = rings.find((each) => each.id === id);
    if (found !== undefined) return found;
    throw new FormatError({ file: name, field: 'id', expected: `ring ${id}`, found: 'none' });
  }

  /** @throws FormatError where the image has no such terminal */
  terminal(id: number): TtyInfo {
    const found = this.terminals.find((each) => each.id === id);
    if (found !== undefined) return found;
    const file = fileName(images.TTY_INFO);
    throw new FormatError({ file, field: 'id', expected: `terminal ${id}`, found: 'none' });
  }

  /** What was written to a terminal and not read. */
  terminalData(id: number): Uint8Array[] {
    const name = fileName(images.TTY_DATA);
    const all = this.once(name, () => (this.#store.has(name) ? entriesOf(this.#store, images.TTY_DATA) : []));
    return all.filter(({ tty_id }) => tty_id === id).map(({ data }) => data);
  }

  /** Opens a file of the image. @returns a descriptor of this process, always the same one */
  open(id: number): number {
    const known = this.#open.get(id);
    if (known !== undefined) return known;
    const entry = this.entry(id);
    const brought = this.#broughtFor(entry);
    if (brought !== undefined) {
      const copy = fcntl({ fd: brought, cmd: F_DUPFD_CLOEXEC, arg: 0 });
      this.#open.set(id, copy);
      return copy;
    }
    const kind = kindOfType(entry.type);
    if (kind === undefined) {
      throw new UnsupportedError({
        what: `file ${id} of the image`,
        why: `files of type ${entry.type} cannot be restored yet`,
        remedy: 'restore it with CRIU',
      });
    }
    const fd = kind.restore(entry, this);
    this.#open.set(id, fd);
    return fd;
  }

  /** Notes a process that was made. @param inside its id in the image */
  noteProcess(inside: number, here: number): void {
    this.#here.set(inside, here);
  }

  /** The id that a process or group of the image has here; one that is not in the image has it as well. */
  here(inside: number): number {
    return this.#here.get(inside) ?? inside;
  }

  /** Whether a file is one that this process was started with. */
  isBrought(id: number): boolean {
    return this.#broughtFor(this.entry(id)) !== undefined;
  }

  /** @throws UnsupportedError for one that is not part of the image and that nobody brings */
  #broughtFor(entry: FileEntry): number | undefined {
    const { names, external } = namesOf(entry);
    const name = names.find((each) => this.#inherited.has(each));
    if (name === undefined && external) throw notBrought(names[0]!);
    return name === undefined ? undefined : this.#inherited.get(name);
  }

  /** What was made for a key when it was asked for first. */
  once<T>(key: string, make: () => T): T {
    if (!this.#made.has(key)) this.#made.set(key, make());
    return this.#made.get(key) as T;
  }

  /** Whether something was made for a key. */
  has(key: string): boolean {
    return this.#made.has(key);
  }

  /** Whether this is the first time that a key is asked for. */
  first(key: string): boolean {
    if (this.#made.has(key)) return false;
    this.#made.set(key, true);
    return true;
  }

  /** Has something done when all processes are there, which are still empty. */
  onceMade(action: () => void): void {
    this.#whenMade.push(action);
  }

  made(): void {
    for (const action of this.#whenMade.splice(0)) action();
  }

  /** Has something done when all are ready to go on, in this order, while what was opened is still open here. */
  onceReady(action: () => void): void {
    this.#whenReady.push(action);
  }

  ready(): void {
    for (const action of this.#whenReady.splice(0)) action();
  }

  /** The state of a connection, by its inode. */
  tcpStream(ino: number): { entry: Value<typeof tcp_stream_entry>; bytes: Uint8Array } | undefined {
    return this.#withBytes(images.TCP_STREAM, ino)[0];
  }

  /** Has something done when all processes have what they need, or when it all fails. */
  atEnd(action: () => void): void {
    this.#ends.push(action);
  }

  /** Has something done after that, if nothing fails. */
  atLast(action: () => void): void {
    this.#lasts.push(action);
  }

  /** Has something done when it all fails: what was made would outlive this process. */
  onFailure(action: () => void): void {
    this.#failures.push(action);
  }

  failed(): void {
    this.#lasts.length = 0;
    for (const action of this.#failures.splice(0).reverse()) action();
  }

  /** Filters on system calls. */
  get filters(): readonly Filter[] {
    const file = fileName(images.SECCOMP);
    return this.once(file, () => (this.#store.has(file) ? entryOf(this.#store, images.SECCOMP).seccomp_filters : []));
  }

  /** System V shared memory. @throws FormatError where the image has no such segment */
  segment(id: number): Segment {
    const found = this.#segments.find(({ desc }) => desc.id === id);
    if (found !== undefined) return found;
    const file = fileName(images.IPCNS_SHM, this.#ipc);
    throw new FormatError({ file, field: 'id', expected: `segment ${id}`, found: 'none' });
  }

  /** Where that path leads: what is in no mount of the image is of outside. */
  rootOf({ mnt_id }: Regular): Root {
    return mnt_id === -1 ? Root.ours : this.root;
  }

  /** The path by which a file can be opened; a deleted one is made again for as long. */
  pathOf(reg: Regular): string {
    const made = this.#nameless.pathOf(reg);
    if (made !== undefined || this.root.hasOwnProc) return made ?? reg.name;
    return reg.name.replace(PROC, (_, id: string) => `/proc/${this.here(Number(id))}`);
  }

  /** Shared anonymous memory, as a file that can be mapped. */
  shared(shmid: number): number {
    return this.once(`shared ${shmid}`, () => {
      const size = this.#sizeOfShared(shmid);
      const fd = sharedAnonymous(size, this.#hugeFlags(shmid));
      this.fillShared(shmid, fd);
      this.atEnd(() => close({ fd }));
      return fd;
    });
  }

  /** Puts the content of shared memory into a file. */
  fillShared(shmid: number, fd: number): void {
    if (!this.#store.has(fileName(images.PAGEMAP, `shmem-${shmid}`))) return;
    const image = new MemoryImage(this.#store, `shmem-${shmid}`);
    try {
      fillFile(image, fd, attributes(fd, '', AT_EMPTY_PATH).stx_size);
    } finally {
      image.close();
    }
  }

  /** All shared memory of the image, in the order of its contents there: a stream is read once. */
  prepareShared(): void {
    this.#fillNamespaces();
    for (const set of this.#withBytes(images.IPCNS_SEM, this.#ipc)) restoreSemaphores(this, set);
    const order = sharedIn(this.#store)
      .map((shmid) => {
        const image = new MemoryImage(this.#store, `shmem-${shmid}`);
        acceptPages(image.runs);
        return { shmid, pages: image.runs.pagesId };
      })
      .sort((a, b) => a.pages - b.pages);
    for (const { shmid } of order) {
      const segment = this.#segments.find(({ desc }) => desc.id === shmid);
      if (segment !== undefined) fillSegment(this, segment);
      const memfd = [...this.memfds.values()].find((each) => each.shmid === shmid);
      if (segment !== undefined) continue;
      if (memfd === undefined) this.shared(shmid);
      else this.open([...this.tree.files.values()].find((each) => each.memfd?.inode_id === memfd.inode_id)!.id);
    }
  }

  /** Puts what they had into the new namespaces that this thread is in. */
  #fillNamespaces(): void {
    const own = ownNamespaces(this.tree);
    const { uts_ns_id } = this.tree.tasks[0]!.ids ?? OURS;
    if (own.has('uts')) restoreNames(entryOf(this.#store, images.UTSNS, uts_ns_id!));
    if (!own.has('ipc')) return;
    restoreIpcLimits(entryOf(this.#store, images.IPC_VAR, this.#ipc));
    const queues = fileName(images.IPCNS_MSG, this.#ipc);
    if (this.#store.has(queues)) withSource(this.#store, queues, restoreQueues);
  }

  /** Closes and removes what was only made for the sake of restoring. */
  [Symbol.dispose](): void {
    for (const action of this.#ends.splice(0).reverse()) action();
    for (const action of this.#lasts.splice(0)) action();
    for (const fd of this.#open.values()) close({ fd });
    this.#open.clear();
    this.root[Symbol.dispose]();
    this.root = Root.ours;
  }

  /** Entries of a file, if it is there, with the bytes behind each. */
  #withBytes<E>(type: ImageType<E, never, never>, id: number | string = ''): { entry: E; bytes: Uint8Array }[] {
    const file = fileName(type, id);
    if (!this.#store.has(file)) return [];
    return withSource(this.#store, file, (source) =>
      [...records(source)].map((record) => ({ entry: record.value as E, bytes: readBlob(source, record) })),
    );
  }

  /** MAP_HUGETLB and the size of its pages, where shared memory has such. */
  #hugeFlags(shmid: number): number {
    const vmas = this.tree.tasks.flatMap(({ mm }) => mm?.vmas ?? []);
    const huge = vmas.find((vma) => (vma.flags & MAP_HUGETLB) !== 0 && sharedMemoryOf(this.tree, vma) === shmid);
    return huge === undefined ? 0 : huge.flags & (MAP_HUGETLB | (0x3f << MAP_HUGE_SHIFT));
  }

  #sizeOfShared(shmid: number): number {
    const vmas = this.tree.tasks.flatMap(({ mm }) => mm?.vmas ?? []);
    const ends = vmas
      .filter((vma) => (vma.status & VMA_ANON_SHARED) !== 0 && sharedMemoryOf(this.tree, vma) === shmid)
      .map((vma) => vma.pgoff + vma.end - vma.start);
    return Math.max(4096, ...ends);
  }
}
