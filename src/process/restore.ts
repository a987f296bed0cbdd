/**
 * Makes the processes of an image go on.
 *
 *     open the files -> make the tree -> for each process: memory -> descriptors, threads, ... -> registers -> let go
 *
 * The processes are tracees of this one until all of them are ready, and die with it: nothing half-restored stays.
 */
import { writeSync } from 'node:fs';
import { F_DUPFD } from '../abi/fcntl.ts';
import { UnsupportedError } from '../errors.ts';
import { checkedStore } from '../image/checked.ts';
import { inOwnForm } from '../image/foreign.ts';
import { INFO_FILE } from '../image/info.ts';
import { MemoryImage, sharedIn } from '../image/pages.ts';
import type { ImageStore } from '../image/store.ts';
import { entryOf, type ImageTask, type ImageTree, readTree } from '../image/tree.ts';
import { fileName, images } from '../image/types.ts';
import { useProcessor } from '../sys/crc32.ts';
import { close, fcntl, ftruncate } from '../sys/files.ts';
import { availableMemory } from '../sys/meminfo.ts';
import { pidfd_open } from '../sys/process.ts';
import { acceptImage } from './acceptance.ts';
import { type GroupOptions, movedGroup, removeGroups, restoreCgroups } from './cgroups.ts';
import { enterTime } from './clocks.ts';
import { CompilerPause, WORTH_COMPILING } from './compiling.ts';
import { killMade, makeZombies, reapOrphans } from './ending.ts';
import type { Inherited } from './files/external.ts';
import { makeGroups, makeStray } from './groups.ts';
import { makeCgroupNamespace, prepareGroups } from './groupsettings.ts';
import { type GoingNote, guardOver } from './guard.ts';
import { Haste, LITTLE } from './haste.ts';
import { LazyMemory } from './lazy.ts';
import type { Made } from './made.ts';
import { makeMounts, type RestoreMountOptions } from './mounts/make.ts';
import { NewNamespaces, OURS, ownNamespaces } from './namespaces.ts';
import { connectPeers, type Peers, readNetwork, restoreNetwork } from './network.ts';
import { begin, beginTimers, clear, leave, letGo, rebuild, standIn, whatIsOurs } from './rebuild.ts';
import { Restoring } from './restoring.ts';
import { firstWithMemory } from './sharing.ts';
import { fileOf, Spaces } from './space.ts';
import { setForeground, takeTerminal } from './terminals.ts';
import { findHole, makeChildren, makeRoot } from './tree.ts';

export interface RestoreOptions extends RestoreMountOptions {
  /** They go on stopped, as by SIGSTOP. */
  readonly stopped: boolean;
  readonly shellJob: boolean;
  /** Whether files on disks must be the very ones that they were, and nobody have written to them since. */
  readonly sameFiles?: boolean | undefined;
  /** They stay in the control groups of this process. */
  readonly ignoreCgroups?: boolean | undefined;
  readonly groups?: GroupOptions | undefined;
  /** What becomes of TCP connections; `kept` if it is not said. */
  readonly connections?: 'kept' | 'closed' | undefined;
  /** Where the other ends of veth devices of its network namespace come to be. */
  readonly peers?: Peers | undefined;
  /** Open files of this process that stand for some of the image; see files/external.ts. */
  readonly inherited?: Inherited | undefined;
  /** The root becomes a child of our parent. */
  readonly sibling?: boolean | undefined;
  /** Who brings private memory later, a socket; else all of it is there before they go on. See lazy.ts. */
  readonly lazyPages?: number | undefined;
  /** Called when all of them are ready and still stopped; if it throws, nothing of them stays. @param pid of the root */
  readonly beforeGoing?: ((pid: number) => void) | undefined;
  /** Written when they go on: is there if and only if they do, however this process ends. */
  readonly note?: GoingNote | undefined;
  /** All that is done for a small tree has been done before, and often. */
  readonly practised?: boolean | undefined;
  /** Nobody waits for it. */
  readonly rehearsed?: boolean | undefined;
}

export interface RestoreResult {
  /** Root of the tree, a child of this process. */
  readonly pid: number;
  readonly processes: number;
  readonly threads: number;
}

/**
 * Nothing goes on before all that was read is known to be what was written.
 *
 * @throws FormatError, VerifyError, UnsupportedError, SyscallError; PartialError where processes stay that could not be
 *   taken away
 */
export function restore(image: ImageStore, options: RestoreOptions): RestoreResult {
  const lazy = options.lazyPages === undefined ? undefined : new LazyMemory(options.lazyPages);
  useProcessor();
  const ours = whatIsOurs();
  using pause = options.practised === true ? new CompilerPause() : undefined;
  // A stream has this when its processes are about to be stopped. Until then processors may sleep.
  image.has(INFO_FILE);
  using haste = options.rehearsed === true ? undefined : new Haste();
  // Not on the processor of whoever writes the rest, if another one is free.
  if (image.forwards) haste?.begin();
  // Pages are checked by whoever reads all of them.
  const store = checkedStore(image, { pages: lazy === undefined });
  const tree = inOwnForm(readTree(store));
  const threads = tree.tasks.reduce((sum, task) => sum + task.threads.length, 0);
  const [memory, shared] = image.forwards ? memoryIn(store, tree) : [0, 0];
  const isMuch = memory + shared > LITTLE;
  if (isMuch) haste?.forLong();
  if (isMuch || threads >= WORTH_COMPILING) pause?.[Symbol.dispose]();
  acceptImage(store, tree, options.shellJob);
  const { connections = 'kept', shellJob, sameFiles = false } = options;
  const how = { connections, shellJob, sameFiles };
  const restoring = new Restoring(store, tree, how, options.inherited);
  const made: Made[] = [];
  const groupsMade: string[] = [];
  const own = ownNamespaces(tree);
  const asBefore = reapOrphans();
  let namespaces: NewNamespaces | undefined;
  const { note } = options;
  let unguard: (() => void) | undefined;
  try {
    namespaces = new NewNamespaces(own);
    const { net_ns_id } = tree.tasks[0]!.ids ?? OURS;
    const network = own.has('net') ? readNetwork(store, net_ns_id!) : undefined;
    if (network !== undefined) {
      const peers = options.peers ?? new Map();
      restoreNetwork(network, peers, namespaces.netBefore);
      namespaces.outside(() => connectPeers(network.devices, peers));
    }
    const keep = reserveNumber(tree);
    try {
      // While ids of those that had them before become free.
      const withMounts = own.has('mnt');
      if (!withMounts) openAll(tree, restoring);
      const linesOf = ({ threads }: ImageTask) => threads[0]!.core.tc!.cgroups;
      const movedHere = (line: string) => movedGroup(line, linesOf(tree.tasks[0]!), options.groups?.roots);
      const groups = store.has(fileName(images.GROUP_SETTINGS)) ? entryOf(store, images.GROUP_SETTINGS) : undefined;
      // Mounts may show them.
      if (options.ignoreCgroups !== true) {
        prepareGroups(
          groups,
          new Set(tree.tasks.flatMap(linesOf)),
          movedHere,
          options.groups?.settings,
          groupsMade,
          ours.groups,
        );
      }
      const hole = findHole(tree);
      let whole = false;
      const takeAll = () => {
        whole ||= takeRest(image, withMounts ? memory + shared : memory, haste);
        return whole;
      };
      const how = { sibling: options.sibling === true, inner: own.has('pid'), takeAll };
      haste?.begin();
      const root = makeRoot(tree, { hole, keep, haste, ...how }, made);
      if (own.has('cgroup'))
        makeCgroupNamespace(groups, root, options.ignoreCgroups === true ? undefined : movedHere, groupsMade);
      if (withMounts) {
        restoring.root = makeMounts(store, tree.tasks[0]!.ids!.mnt_ns_id!, root, keep, options);
        openAll(tree, restoring);
      }
      const began = performance.now();
      enterTime(root.leader, store, keep);
      const spaces = new Spaces(restoring, store, keep, hole, lazy);
      // Parents before children, which is the order of their contents in the image too: a stream is read once.
      for (const task of tree.tasks) {
        const one = made.find((each) => each.task === task) ?? makeStray(task, tree, hole, made);
        spaces.inherit(one);
        const first = !spaces.isInherited(task);
        const inSession = () => takeTerminal(one, restoring, keep);
        if (first) makeChildren(one, tree, { hole, made, inSession });
        if (!task.isZombie) spaces.map(one);
        if (spaces.memory > LITTLE) haste?.[Symbol.dispose]();
        if (first) continue;
        spaces.fill();
        makeChildren(one, tree, { hole, made, inSession });
      }
      spaces.fill();
      lazy?.handOver();
      for (const { task, pid } of made) restoring.noteProcess(task.pid, pid);
      makeGroups(made);
      setForeground(made, restoring, keep);
      makeZombies(made);
      restoring.made();
      const live = made.filter(({ task }) => !task.isZombie);
      // They come from this process, and have its groups until then; but for those of a cgroup namespace.
      const isWhere = (line: string) => !own.has('cgroup') && ours.groups.has(line);
      for (const { task, pid } of options.ignoreCgroups === true ? [] : live) {
        const lines = linesOf(task).map(movedHere);
        if (!lines.every(isWhere)) restoreCgroups(pid, lines, groupsMade);
      }
      // All processes work at the same time: each is given a batch before the first one is waited for.
      for (const one of live) spaces.protect(one);
      for (const one of live) spaces.finish(one);
      for (const one of live) standIn(one, restoring, ours, keep);
      // Those that share a table of descriptors have used it, as it is now, for the last time.
      for (const { leader } of live) leader.finish();
      for (const one of live) begin(one, restoring, keep);
      const processes = live.map((one) => rebuild(one, restoring, ours, keep));
      store.finish();
      for (const process of processes) beginTimers(process);
      for (const process of processes) leave(process, performance.now() - began);
      clear(processes, tree, hole, spaces);
      const pids = live.map(({ pid }) => pid);
      unguard = live.length > 1 || note !== undefined ? guardOver(pids, note?.fd) : undefined;
      namespaces.outside(() => options.beforeGoing?.(made[0]!.pid));
      if (note !== undefined) {
        ftruncate({ fd: note.fd, length: 0 });
        writeSync(note.fd, note.text(made[0]!.pid));
      }
      // From here on connections go on: whoever is ended now tells the other ends.
      restoring.ready();
      restoring[Symbol.dispose]();
      for (const process of processes) letGo(process, options.stopped);
      unguard?.();
      haste?.stepAside();
    } finally {
      close({ fd: keep });
    }
    return { pid: made[0]!.pid, processes: tree.tasks.length, threads };
  } catch (error) {
    restoring.failed();
    try {
      killMade(made, error);
      removeGroups(groupsMade);
    } finally {
      if (unguard !== undefined && note !== undefined) ftruncate({ fd: note.fd, length: 0 });
      unguard?.();
    }
    throw error;
  } finally {
    asBefore();
    lazy?.[Symbol.dispose]();
    restoring[Symbol.dispose]();
    namespaces?.[Symbol.dispose]();
    for (const { scratch } of made) scratch[Symbol.dispose]();
  }
}

/**
 * Shared memory, and all files that some process has, maps or stands in, so that what is missing is known before anything is made of
 * the processes.
 */
function openAll(tree: ImageTree, restoring: Restoring): void {
  restoring.prepareShared();
  for (const { mm, fs, descriptors, isZombie } of tree.tasks) {
    if (isZombie) continue;
    const ids = [
      ...descriptors.map(({ id }) => id),
      ...mm!.vmas.map(fileOf).filter((id) => id !== undefined),
      ...[mm!.exe_file_id, fs!.cwd_id, fs!.root_id],
    ];
    // Files about the processes themselves come with these.
    for (const id of ids) {
      const { type, reg, tty } = restoring.entry(id);
      const controlling = tty !== undefined && restoring.terminal(tty.tty_info_id).type === 'CTTY';
      if (type !== 'PIDFD' && !controlling && !reg?.name.startsWith('/proc/')) restoring.open(id);
    }
  }
}

/**
 * Takes all of an image that is being written on the same machine, where its processes end when that is done.
 *
 * @param size how much that is, in bytes @returns whether it is such an image
 * @throws UnsupportedError where it would not leave room for the processes
 */
function takeRest(image: ImageStore, size: number, haste: Haste | undefined): boolean {
  if (image.takeAll === undefined) return false;
  if (size > availableMemory() / 2) {
    throw new UnsupportedError({
      what: `image of ${Math.ceil(size / 2 ** 20)} MiB`,
      why: 'its processes are still there, and have their ids until all of it is read: there is not enough memory for that',
      remedy: 'checkpoint into a directory and restore from there',
    });
  }
  if (size > LITTLE) haste?.forLong();
  image.takeAll();
  return true;
}

/** Of all processes, in bytes: what each has for itself, which is read last, and what they share. */
function memoryIn(store: ImageStore, { tasks }: ImageTree): readonly [own: number, shared: number] {
  const sizeOf = (id: number | string): number => {
    const image = new MemoryImage(store, id);
    image.close();
    return image.runs.pagesSize;
  };
  const sum = (sizes: readonly number[]) => sizes.reduce((all, size) => all + size, 0);
  const own = tasks.filter((task) => !task.isZombie && firstWithMemory(tasks, task) === task);
  return [sum(own.map(({ pid }) => sizeOf(pid))), sum(sharedIn(store).map((shmid) => sizeOf(`shmem-${shmid}`)))];
}

/**
 * A descriptor of this process that all restored ones have while they are made, under a number that none of them will use: by
 * it they take what else they need. It is the only one that is not closed on exec.
 */
function reserveNumber(tree: ImageTree): number {
  const used = new Set(tree.tasks.flatMap(({ descriptors }) => descriptors.map(({ fd }) => fd)));
  const self = pidfd_open({ pid: process.pid, flags: 0 });
  try {
    for (let from = 3; ; ) {
      const fd = fcntl({ fd: self, cmd: F_DUPFD, arg: from });
      if (!used.has(fd)) return fd;
      close({ fd });
      from = fd + 1;
    }
  } finally {
    close({ fd: self });
  }
}
