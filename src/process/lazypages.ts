/**
 * The process that brings the pages of a restore that did not wait for them: those that are touched at once, all others in the
 * order of the image meanwhile, and whatever is to be zero as zeros. It ends when all are there.
 *
 * What is done to memory before its pages are there is told by the userfaultfd, and whoever does it waits until that was read:
 * a fork gives a userfaultfd of its own, pages that are dropped or unmapped are left out, and those that are moved go elsewhere.
 *
 * If this process ends before, whoever waits for a page would find zeros: a guard (guard.ts) has the userfaultfds too, and kills the
 * processes then. If the guard ends, there is a new one at once.
 */
import { Errno } from '../abi/errno.ts';
import { SIGKILL } from '../abi/signal.ts';
import * as uffd from '../abi/userfaultfd.ts';
import { SyscallError, UnsupportedError } from '../errors.ts';
import { type CheckedStore, checkedStore } from '../image/checked.ts';
import { PE_LAZY, PE_PRESENT } from '../image/messages/memory.ts';
import { MemoryImage } from '../image/pages.ts';
import type { RemotePages } from '../image/pagexfer.ts';
import type { ImageStore } from '../image/store.ts';
import { close, read } from '../sys/files.ts';
import { pollReadable } from '../sys/poll.ts';
import { kill, pidfd_getfd, pidfd_open } from '../sys/process.ts';
import { Region } from '../sys/region.ts';
import { uffdio } from '../sys/userfaultfd.ts';
import { childrenOf } from './freeze.ts';
import { guardWaiting } from './guard.ts';
import type { LazyRequest, LazySpace } from './lazy.ts';

const PAGE = 4096;
/** Brought with a page that is touched, if they stand behind it: neighbours are touched next. In bytes. */
const AHEAD = 16 * PAGE;
/** Brought at a time without being touched. */
const CHUNK = 64 * PAGE;
/**
 * In ms. Whoever had to wait for a page touches another one next: nothing else is brought meanwhile. redis with 1 GiB touches 450
 * places before it answers.
 */
const NEXT_WITHIN = 1;
/** In ms: there may be children to be looked for, and pages to be looked at again. */
const UNTIL_TOUCHED = 5;
/** How often it is looked for children whose memory is known and they are not, in ms. */
const LOOK_EVERY = 20;

export interface LazyResult {
  readonly processes: number;
  /** Bytes that were touched before they were there, and all others. */
  readonly demanded: number;
  readonly background: number;
}

/** Memory that is there under its address of the image, or has been moved since. */
interface Place {
  readonly start: number;
  readonly end: number;
  /** Address less address in the image. */
  readonly moved: number;
}

/** Whether pages of a run are in the image, or with whoever has saved them. */
function hasContent(flags: number): boolean {
  return (flags & (PE_PRESENT | PE_LAZY)) !== 0;
}

/** An address space. */
class Space {
  readonly fd: number;
  /** In the image. */
  readonly id: number;
  readonly image: MemoryImage;
  places: Place[];
  /** How far it is filled: a run, and bytes of it. */
  run = 0;
  done = 0;
  isGone = false;

  constructor(fd: number, id: number, image: MemoryImage, places: Place[]) {
    this.fd = fd;
    this.id = id;
    this.image = image;
    this.places = places;
  }

  get isFull(): boolean {
    return this.isGone || this.run >= this.image.runs.length;
  }

  /** Leaves out what is not to be filled any more. */
  remove(start: number, end: number): void {
    this.places = this.places.flatMap((place) => {
      if (place.end <= start || place.start >= end) return [place];
      const left = { ...place, end: start };
      const right = { ...place, start: end };
      return [left, right].filter((each) => each.start < each.end);
    });
  }

  move(from: number, to: number, length: number): void {
    const moved = this.places.flatMap(({ start, end, moved }) => {
      const [first, last] = [Math.max(start, from), Math.min(end, from + length)];
      return first < last ? [{ start: first + to - from, end: last + to - from, moved: moved + to - from }] : [];
    });
    this.remove(from, from + length);
    this.remove(to, to + length);
    this.places.push(...moved);
  }
}

export interface LazyWatch {
  /** Is called when everything is taken over. */
  ready(): void;
  /** Is called when all pages are there, before they are compared with their checksums. */
  filled(result: LazyResult): void;
  /** Descriptor for what is said when this process is killed. */
  readonly log: number;
  /** One that can be read from when they go on: what is not touched is not brought before, while others still restore them. */
  readonly going?: number;
}

/** The pages of an image, listed before anybody needs them. */
export class LazyImage {
  readonly store: CheckedStore;
  readonly remote: RemotePages | undefined;
  readonly #spaces = new Map<number, MemoryImage>();

  /**
   * @param image opened for this alone, and read in any order
   * @param remote where pages are that are not in it
   * @throws FormatError, VerifyError
   */
  constructor(image: ImageStore, remote?: RemotePages) {
    this.store = checkedStore(image);
    this.remote = remote;
    for (const name of image.names()) {
      const id = PROCESS.exec(name)?.[1];
      if (id !== undefined) this.#spaces.set(Number(id), new MemoryImage(this.store, Number(id)));
    }
  }

  /** Those of one address space. @param id of its process in the image */
  of(id: number): MemoryImage {
    return this.#spaces.get(id) ?? new MemoryImage(this.store, id);
  }
}

/** The pagemap of a process. */
const PROCESS = /^pagemap-(\d+)\.img$/;

/**
 * @param request what whoever restores has said
 * @throws VerifyError, FormatError, SyscallError: the processes are killed then
 */
export function bringPages(image: LazyImage, request: LazyRequest, watch: LazyWatch): LazyResult {
  const server = new Server(image, request, watch.log);
  try {
    watch.ready();
    return server.run(watch);
  } catch (error) {
    server.killAll();
    throw error;
  } finally {
    server[Symbol.dispose]();
  }
}

class Server {
  readonly #image: LazyImage;
  readonly #log: number;
  readonly #buffer = new Region(CHUNK);
  readonly #messages = new Region(PAGE);
  readonly #spaces: Space[] = [];
  /** Of the tree that was restored, and what it made since. */
  readonly #pids: Set<number>;
  /** Faults to be looked at again, as memory was being changed. */
  #again: { space: Space; address: number }[] = [];
  #guard: ReturnType<typeof guardWaiting> & { readonly pidfd: number };
  /** Forks whose child was not seen yet. */
  #unseen = 0;
  #looked = 0;
  #demanded = 0;
  #background = 0;

  constructor(image: LazyImage, { pid, spaces }: LazyRequest, log: number) {
    this.#image = image;
    this.#log = log;
    this.#pids = new Set(spaces.map((each) => each.pid));
    const pidfd = pidfd_open({ pid, flags: 0 });
    try {
      for (const space of spaces) this.#spaces.push(this.#take(pidfd, space));
    } finally {
      close({ fd: pidfd });
    }
    this.#guard = this.#newGuard();
  }

  run({ filled, going }: LazyWatch): LazyResult {
    let [demanded, waits] = [false, going !== undefined];
    while (this.#spaces.some((space) => !space.isFull) || this.#again.length > 0) {
      const open = this.#spaces.filter(({ isGone }) => !isGone);
      const fds = [this.#guard.pidfd, ...(waits ? [going!] : []), ...open.map(({ fd }) => fd)];
      const timeout = waits ? UNTIL_TOUCHED : demanded ? NEXT_WITHIN : 0;
      const waiting: ReadonlySet<number> = new Set(pollReadable(fds, timeout));
      if (waits && waiting.has(going!)) waits = false;
      if (waiting.has(this.#guard.pidfd)) this.#guardAgain();
      demanded = open.filter((space) => waiting.has(space.fd) && this.#answer(space)).length > 0;
      for (const { space, address } of this.#again.splice(0)) this.#demand(space, address);
      if (this.#unseen > 0) this.#look();
      const next = demanded || waits ? undefined : open.find((space) => !space.isFull);
      if (next !== undefined) this.#fillOn(next);
    }
    this.#image.remote?.close();
    const result = { processes: this.#spaces.length, demanded: this.#demanded, background: this.#background };
    filled(result);
    // Nothing is missing any more: what is not there is zero for the kernel too.
    this.#endGuard();
    for (const { fd } of this.#spaces.splice(0)) close({ fd });
    this.#image.store.finish();
    return result;
  }

  killAll(): void {
    for (const pid of this.#tree()) kill.attempt({ pid, sig: SIGKILL });
  }

  [Symbol.dispose](): void {
    this.#endGuard();
    for (const { fd } of this.#spaces.splice(0)) close({ fd });
    this.#buffer[Symbol.dispose]();
    this.#messages[Symbol.dispose]();
  }

  #take(pidfd: number, { id, fd, ranges }: LazySpace): Space {
    const places = ranges.map(([start, end]) => ({ start, end, moved: 0 }));
    return new Space(pidfd_getfd({ pidfd, targetfd: fd, flags: 0 }), id, this.#image.of(id), places);
  }

  #newGuard() {
    const fds = this.#spaces.filter(({ isGone }) => !isGone).map(({ fd }) => fd);
    const text = `${new Date().toISOString()} lazy-pages: it was killed before all pages were there, so the processes ${[...this.#pids].join(', ')} were killed; restore them again\n`;
    const guard = guardWaiting([...this.#pids], fds, { fd: this.#log, text });
    return { ...guard, pidfd: pidfd_open({ pid: guard.pid, flags: 0 }) };
  }

  #endGuard(): void {
    if (this.#guard.pidfd < 0) return;
    this.#guard.end();
    close({ fd: this.#guard.pidfd });
    this.#guard = { ...this.#guard, pidfd: -1 };
  }

  #guardAgain(): void {
    const next = this.#newGuard();
    this.#endGuard();
    this.#guard = next;
  }

  /** The processes that may wait for pages. */
  #tree(): Set<number> {
    const found = new Set<number>();
    const visit = (pid: number): void => {
      if (found.has(pid)) return;
      try {
        const children = childrenOf(pid);
        found.add(pid);
        for (const child of children) visit(child);
      } catch {
        // It has ended.
      }
    };
    for (const pid of this.#pids) visit(pid);
    return found;
  }

  /** Looks for children that were made. */
  #look(): void {
    if (performance.now() - this.#looked < LOOK_EVERY) return;
    this.#looked = performance.now();
    const fresh = [...this.#tree()].filter((pid) => !this.#pids.has(pid));
    this.#unseen = Math.max(0, this.#unseen - fresh.length);
    if (fresh.length === 0) return;
    for (const pid of fresh) this.#pids.add(pid);
    this.#guardAgain();
  }

  /** Reads what a userfaultfd has to tell, and does it. @returns whether there was anything */
  #answer(space: Space): boolean {
    const { bytes, address } = this.#messages;
    const size = uffd.uffd_msg_pagefault.size;
    const got = read.attempt({ fd: space.fd, buf: address, count: 32 * size });
    if (got === -Errno.EAGAIN) return false;
    if (got < 0) throw new SyscallError('read', `read(userfaultfd of ${[...this.#pids].join(', ')})`, -got);
    if (got === 0) space.isGone = true;
    for (let at = 0; at < got; at += size) {
      switch (bytes[at]) {
        case uffd.UFFD_EVENT_PAGEFAULT:
          this.#demand(space, uffd.uffd_msg_pagefault.read(bytes, at).address);
          break;
        case uffd.UFFD_EVENT_FORK: {
          const child = new Space(uffd.uffd_msg_fork.read(bytes, at).ufd, space.id, space.image, [...space.places]);
          child.run = space.run;
          child.done = space.done;
          this.#spaces.push(child);
          this.#unseen++;
          this.#guardAgain();
          break;
        }
        case uffd.UFFD_EVENT_REMAP: {
          const { from, to, len } = uffd.uffd_msg_remap.read(bytes, at);
          space.move(from, to, len);
          break;
        }
        default: {
          const { from, to } = uffd.uffd_msg_remap.read(bytes, at);
          space.remove(from, to);
        }
      }
    }
    return got > 0;
  }

  /** Brings the page that somebody waits for. */
  #demand(space: Space, fault: number): void {
    const address = fault - (fault % PAGE);
    const { runs } = space.image;
    const place = space.places.find(({ start, end }) => address >= start && address < end);
    const from = place === undefined ? 0 : address - place.moved;
    const run = place === undefined ? runs.length : runs.first(from);
    const isThere = run < runs.length && runs.vaddr[run]! <= from && hasContent(runs.flags[run]!);
    if (!isThere) {
      const arg = uffd.uffdio_zeropage.write({ range: { start: address, len: PAGE }, mode: 0 });
      this.#settle(space, address, uffdio.attempt({ fd: space.fd, request: uffd.UFFDIO_ZEROPAGE, arg }));
      return;
    }
    const into = from - runs.vaddr[run]!;
    const length = Math.min(AHEAD, runs.size[run]! - into, place!.end - address);
    this.#read(space, run, into, length);
    const [copied, result] = this.#copy(space, address, length);
    this.#demanded += copied;
    if (copied === 0) this.#settle(space, address, result);
  }

  /** After a page could not be brought: somebody else has, or its mapping is changing or gone. */
  #settle(space: Space, address: number, result: number): void {
    if (result >= 0) return;
    if (result === -Errno.ESRCH) space.isGone = true;
    else if (result === -Errno.EAGAIN) this.#again.push({ space, address });
    else if (result === -Errno.EEXIST || result === -Errno.ENOENT) {
      const arg = uffd.uffdio_range.write({ start: address, len: PAGE });
      uffdio.attempt({ fd: space.fd, request: uffd.UFFDIO_WAKE, arg });
    } else throw new SyscallError('ioctl', `ioctl(UFFDIO_COPY, 0x${address.toString(16)})`, -result);
  }

  /** Brings a part of what nobody waits for. */
  #fillOn(space: Space): void {
    const { runs } = space.image;
    const { run } = space;
    if (!hasContent(runs.flags[run]!) || space.done >= runs.size[run]!) {
      space.run++;
      space.done = 0;
      return;
    }
    const from = runs.vaddr[run]! + space.done;
    const length = Math.min(CHUNK, runs.size[run]! - space.done);
    const wanted = space.places.filter(({ start, end, moved }) => start - moved < from + length && end - moved > from);
    if (wanted.length > 0) this.#read(space, run, space.done, length);
    for (const { start, end, moved } of wanted) {
      const [first, last] = [Math.max(start, from + moved), Math.min(end, from + length + moved)];
      for (let at = first; at < last && !space.isGone; ) {
        const [copied, result] = this.#copy(space, at, last - at, at - moved - from);
        this.#background += copied;
        at += copied;
        // What changes the mapping is told next, and it is seen anew then what is where.
        if (result === -Errno.EAGAIN) return;
        if (result === -Errno.ESRCH) space.isGone = true;
        else if (result === -Errno.EEXIST || result === -Errno.ENOENT) at += PAGE;
        else if (result < 0) this.#settle(space, at, result);
      }
    }
    space.done += length;
  }

  /** Reads a part of a run into the buffer. */
  #read({ id, image }: Space, run: number, from: number, length: number): void {
    const bytes = this.#buffer.bytes.subarray(0, length);
    const { flags, offset, vaddr } = image.runs;
    if ((flags[run]! & PE_PRESENT) !== 0) image.readPages(bytes, offset[run]! + from);
    else this.#remote(id).read(bytes, id, vaddr[run]! + from);
  }

  /** @throws UnsupportedError where nobody has said where these pages are */
  #remote(pid: number): RemotePages {
    if (this.#image.remote !== undefined) return this.#image.remote;
    throw new UnsupportedError({
      what: 'lazy-pages',
      pid,
      why: 'whoever saved the process has its pages still',
      remedy: 'start tideover lazy-pages --page-server with --address and --port before the restore',
    });
  }

  /** @param at where it lies in the buffer @returns how much was copied, and why no more */
  #copy(space: Space, dst: number, len: number, at = 0): readonly [copied: number, result: number] {
    const arg = uffd.uffdio_copy.write({ dst, src: this.#buffer.address + at, len, mode: 0, copy: 0 });
    const result = uffdio.attempt({ fd: space.fd, request: uffd.UFFDIO_COPY, arg });
    if (result >= 0) return [len, 0];
    const { copy } = uffd.uffdio_copy.read(arg);
    return copy > 0 ? [copy, 0] : [0, result];
  }
}
