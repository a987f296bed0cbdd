/**
 * Namespaces that a tree has for itself: namespaces(7). All of its processes are in the same ones; the root of one with a PID namespace
 * is the init of that. What is in those of UTS, IPC and the network is saved and made again from within: this thread enters them.
 */
import { Errno } from '../abi/errno.ts';
import { AT_FDCWD, O_CLOEXEC, O_RDONLY } from '../abi/fcntl.ts';
import * as sched from '../abi/sched.ts';
import { SyscallError, UnsupportedError } from '../errors.ts';
import type { IdsEntry, ImageTree } from '../image/tree.ts';
import { close, openat, readlink } from '../sys/files.ts';
import { setns, unshare } from '../sys/process.ts';
import { readStat, readStatus } from '../sys/stat.ts';

/** By the names of /proc/PID/ns, in the order of their numbers in an image. That of time is made anew for every tree. */
const NAMES = ['pid', 'net', 'ipc', 'uts', 'mnt', 'user', 'cgroup', 'time'] as const;
export type Namespace = (typeof NAMES)[number];
export type NamespaceIds = Readonly<Record<`${Namespace}_ns_id`, number>>;

/** Numbers of those that tideover itself is in. */
export const OURS = idsOf(() => true);
const OWN = 10;

function idsOf(isOurs: (name: Namespace) => boolean): NamespaceIds {
  const ids = NAMES.map((name, i) => [`${name}_ns_id`, i + 1 + (isOurs(name) ? 0 : OWN)]);
  return Object.fromEntries(ids) as NamespaceIds;
}

/** Those that a thread can be in by itself, and be again in what it was in before. */
const ENTERED = { uts: sched.CLONE_NEWUTS, ipc: sched.CLONE_NEWIPC, net: sched.CLONE_NEWNET } as const;
type Entered = keyof typeof ENTERED;
const KEPT: ReadonlySet<Namespace> = new Set(['pid', 'uts', 'ipc', 'time', 'net', 'mnt', 'cgroup']);

/** What a tree that is there has for itself. */
export class Namespaces {
  /** Process id. */
  readonly root: number;
  readonly #links: Readonly<Record<Namespace, string>>;
  readonly ids: NamespaceIds;

  /** @param root process id @throws UnsupportedError for one that cannot be saved */
  constructor(root: number) {
    this.root = root;
    this.#links = linksOf(root);
    const ours = linksOf('self');
    this.ids = idsOf((name) => name === 'time' || this.#links[name] === ours[name]);
    for (const name of NAMES) {
      if (this.has(name) && !KEPT.has(name)) throw refused(root, name);
    }
    if (!this.has('pid') || readStatus(root).NSpid.at(-1) === 1) return;
    throw new UnsupportedError({
      what: 'pid namespace',
      pid: root,
      why: 'it is not the init of its own',
      remedy: 'save the whole tree, from the process that has id 1 there',
    });
  }

  has(name: Namespace): boolean {
    return (this.ids[`${name}_ns_id`] ?? 0) > OWN;
  }

  /** Those that it has for itself. */
  get own(): ReadonlySet<Namespace> {
    return new Set(NAMES.filter((name) => this.has(name)));
  }

  /**
   * @throws UnsupportedError for a process of the tree that is in others than its root, or has its children in others; SyscallError
   * ENOENT for one that is just ending, and has lost them
   */
  check(pid: number | string): void {
    const links = linksOf(pid);
    for (const name of NAMES) {
      const forChildren = name === 'pid' || name === 'time' ? link(pid, `${name}_for_children`) : links[name];
      const same = links[name] === this.#links[name];
      if (same && forChildren === links[name]) continue;
      if (link(pid, 'uts') === '' && this.#links.uts !== '') throw ending(pid);
      throw new UnsupportedError({
        what: `${name} namespace`,
        pid: Number.parseInt(`${pid}`, 10),
        why: same
          ? 'its children would be in another one than it itself (unshare(2))'
          : `it is in another one than process ${this.root}, the root of the tree`,
        remedy: 'save a tree that is all in the same namespaces',
      });
    }
  }

  /** Does something in the namespaces of UTS, IPC and the network that the tree has. */
  within<T>(action: () => T): T {
    const names = entered(this.own);
    if (names.length === 0) return action();
    const back = new Place(names);
    try {
      for (const name of names) enter(`/proc/${this.root}/ns/${name}`, ENTERED[name]);
      return action();
    } finally {
      back.enter();
      back[Symbol.dispose]();
    }
  }
}

/** Of an image: those that its tree had for itself. */
export function ownNamespaces({ tasks, inventory }: ImageTree): ReadonlySet<Namespace> {
  const ids = tasks[0]!.ids;
  const of = (entry: IdsEntry | undefined, name: Namespace) => entry?.[`${name}_ns_id`] ?? 0;
  return new Set(
    NAMES.filter((name) => name !== 'time' && of(ids, name) !== 0 && of(ids, name) !== of(inventory.root_ids, name)),
  );
}

/** @throws UnsupportedError where a process of an image had namespaces that its tree had not, or that are not made again yet */
export function refuseNamespaces(tree: ImageTree, pid: number, ids: IdsEntry | undefined): void {
  const root = tree.tasks[0]!.ids;
  const own = ownNamespaces(tree);
  const of = (entry: IdsEntry | undefined, name: Namespace) => entry?.[`${name}_ns_id`] ?? 0;
  const differs = (name: Namespace) => name !== 'time' && of(ids, name) !== of(root, name);
  const other = NAMES.find((name) => differs(name) || (own.has(name) && !KEPT.has(name)));
  if (other === undefined) return;
  const why = 'the process had one of its own, which cannot be made again yet';
  throw new UnsupportedError({ what: `${other} namespace`, pid, why, remedy: 'restore it with CRIU' });
}

/** New namespaces of UTS, IPC and the network that this thread is in, and all that is made meanwhile. */
export class NewNamespaces {
  readonly #before: Place;
  readonly #now: Place;

  constructor(own: ReadonlySet<Namespace>) {
    const names = entered(own);
    this.#before = new Place(names);
    if (names.length > 0) unshare({ flags: names.reduce((flags, name) => flags | ENTERED[name], 0) });
    this.#now = new Place(names);
  }

  /** A descriptor of the network namespace that it was in before. */
  get netBefore(): number {
    return this.#before.descriptorOf('net');
  }

  /** Does something in those that it was in before. */
  outside<T>(action: () => T): T {
    this.#before.enter();
    try {
      return action();
    } finally {
      this.#now.enter();
    }
  }

  [Symbol.dispose](): void {
    this.#before.enter();
    this.#before[Symbol.dispose]();
    this.#now[Symbol.dispose]();
  }
}

/** Does something in the control group namespace of a process, which sees groups by their paths there. */
export function inCgroupNamespace<T>(pid: number, action: () => T): T {
  const before = open('/proc/thread-self/ns/cgroup');
  try {
    enter(`/proc/${pid}/ns/cgroup`, sched.CLONE_NEWCGROUP);
    return action();
  } finally {
    setns({ fd: before, nstype: sched.CLONE_NEWCGROUP });
    close({ fd: before });
  }
}

/** Does something whose children are in the PID namespace of a process. */
export function withChildrenIn<T>(pid: number, action: () => T): T {
  try {
    enter(`/proc/${pid}/ns/pid`, sched.CLONE_NEWPID);
    return action();
  } finally {
    enter('/proc/self/ns/pid', sched.CLONE_NEWPID);
  }
}

/** Namespaces that this thread is in. */
class Place {
  readonly #fds: { readonly fd: number; readonly nstype: number }[];

  constructor(names: readonly Entered[]) {
    this.#fds = names.map((name) => ({ fd: open(`/proc/thread-self/ns/${name}`), nstype: ENTERED[name] }));
  }

  descriptorOf(name: Entered): number {
    return this.#fds.find(({ nstype }) => nstype === ENTERED[name])!.fd;
  }

  enter(): void {
    for (const { fd, nstype } of this.#fds) setns({ fd, nstype });
  }

  [Symbol.dispose](): void {
    for (const { fd } of this.#fds.splice(0)) close({ fd });
  }
}

function entered(own: ReadonlySet<Namespace>): Entered[] {
  return (Object.keys(ENTERED) as Entered[]).filter((name) => own.has(name));
}

function enter(path: string, nstype: number): void {
  const fd = open(path);
  try {
    setns({ fd, nstype });
  } finally {
    close({ fd });
  }
}

function open(pathname: string): number {
  return openat({ dirfd: AT_FDCWD, pathname, flags: O_RDONLY | O_CLOEXEC, mode: 0 });
}

function linksOf(pid: number | string): Record<Namespace, string> {
  return Object.fromEntries(NAMES.map((name) => [name, link(pid, name)])) as Record<Namespace, string>;
}

/** A kernel may lack some, and one for children that are still to come has no name. @throws SyscallError where the process is gone */
function link(pid: number | string, name: string): string {
  try {
    return readlink(`/proc/${pid}/ns/${name}`);
  } catch (error) {
    readStat(pid);
    if (error instanceof SyscallError && error.errno === Errno.ENOENT) return '';
    throw error;
  }
}

/** A process that exits has no namespaces any more before it is a zombie. */
function ending(pid: number | string): SyscallError {
  return new SyscallError('readlink', `readlink(/proc/${pid}/ns/uts)`, Errno.ENOENT);
}

function refused(pid: number, name: Namespace): UnsupportedError {
  return new UnsupportedError({
    what: `${name} namespace`,
    pid,
    why: 'it is another one than that of tideover, and such cannot be saved yet',
    remedy: `run tideover within it: nsenter --${name} -t ${pid}`,
  });
}
