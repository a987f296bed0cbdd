/** What an image is to hold, while it is being collected: entries of the files that all processes have in common. */

import { rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Errno } from '../abi/errno.ts';
import { AT_FDCWD, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, O_CLOEXEC, O_PATH, O_RDONLY } from '../abi/fcntl.ts';
import { encodeDevice, internalDevice } from '../abi/kdev_t.ts';
import { S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, type Statx } from '../abi/stat.ts';
import { UnsupportedError } from '../errors.ts';
import type { memfd_inode_entry, pipe_data_entry, reg_file_entry } from '../image/messages/descriptors.ts';
import type { ghost_file_entry, remap_file_path_entry } from '../image/messages/files.ts';
import type { sk_packet_entry } from '../image/messages/sockets.ts';
import type { Value } from '../image/proto.ts';
import { attributes, close, linkat, openat, pread64, readlink } from '../sys/files.ts';
import type { FileEntry } from './files/file.ts';
import { dataRanges } from './files/holes.ts';
import { Disks } from './files/identity.ts';
import type { Ring } from './files/io_uring.ts';
import type { FileLock } from './files/locks.ts';
import { Connections, type TcpStream } from './files/tcp.ts';
import type { TtyData, TtyInfo } from './files/ttypair.ts';
import type { Foresight } from './foresight.ts';
import type { Groups } from './groupsettings.ts';
import { Ids } from './ids.ts';
import type { IpcNamespace } from './ipc.ts';
import { SavedMounts, type SaveMountOptions } from './mounts/save.ts';
import type { Namespaces } from './namespaces.ts';
import type { Network } from './network.ts';
import { place, Root } from './root.ts';
import type { Filter } from './seccomp.ts';
import type { Segment, Semaphores } from './sysv.ts';
import type { Archive } from './tmpfs.ts';
import type { Tracking } from './tracking.ts';
import type { Names } from './uts.ts';
import type { Waits } from './waits.ts';

type Regular = Value<typeof reg_file_entry>;

export interface SaveOptions extends SaveMountOptions {
  /** Largest deleted file that is saved, in bytes. */
  readonly ghostLimit: number;
  readonly fileLocks: boolean;
  /** A file whose name is gone, and that has others, may be given one more, beside where it was. */
  readonly linkRemap?: boolean | undefined;
  /** What becomes of TCP connections: they are `kept`, or `closed` in the image, or `refused`. */
  readonly connections?: 'kept' | 'closed' | 'refused' | undefined;
  /** Connections that wait to be accepted are lost; else they are refused. */
  readonly skipInFlight?: boolean | undefined;
  /** Open files that are not part of the image; see files/external.ts. */
  readonly external?: readonly string[] | undefined;
  /** Inodes of sockets outside of the tree that others are connected to, which are named and without connections; or `all`. */
  readonly externalSockets?: readonly number[] | 'all' | undefined;
  /** The tree may be of a session whose leader is not in it, and of a terminal whose other end somebody else has. */
  readonly shellJob: boolean;
  /** Private memory is not written: whoever restores the image asks for it, as long as they are stopped. */
  readonly lazyPages?: boolean | undefined;
  /** What watches what they write, and takes what they have not written from an earlier image. */
  readonly tracking?: Tracking | undefined;
}

/** A piece of a file that is not a hole. */
export interface Piece {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** A file that has no path any more. */
export interface Ghost {
  readonly id: number;
  readonly entry: Value<typeof ghost_file_entry>;
  readonly pieces: readonly Piece[];
}

/** Memory that several processes share, and a descriptor here that reads it. */
export interface SharedMemory {
  readonly shmid: number;
  readonly fd: number;
  /** In bytes. */
  readonly size: number;
}

const DELETED = ' (deleted)';
/** CRIU's id of no mount of the image. */
const NOWHERE = -1;

export class Saving {
  readonly options: SaveOptions;
  readonly stopped: boolean;
  readonly namespaces: Namespaces;
  readonly ids: Ids;
  readonly files: FileEntry[] = [];
  readonly remaps: Value<typeof remap_file_path_entry>[] = [];
  readonly ghosts = new Map<string, Ghost>();
  readonly pipesData: { entry: Value<typeof pipe_data_entry>; bytes: Uint8Array }[] = [];
  readonly fifosData: { entry: Value<typeof pipe_data_entry>; bytes: Uint8Array }[] = [];
  readonly connections = new Connections();
  readonly tcpStreams: TcpStream[] = [];
  readonly socketQueues: { entry: Value<typeof sk_packet_entry>; bytes: Uint8Array }[] = [];
  /** By tty_info_id. */
  readonly terminals = new Map<number, TtyInfo>();
  readonly terminalData: TtyData[] = [];
  readonly memfds = new Map<bigint, Value<typeof memfd_inode_entry>>();
  readonly shared = new Map<number, SharedMemory>();
  /** By inode. */
  readonly rings = new Map<bigint, Ring>();
  readonly locks = new Map<string, FileLock>();
  /** Threads that waited for a time shortly before they were stopped, and when that was: CLOCK_MONOTONIC of the system. */
  waits: Waits = new Map();
  /** Where the processes go on before their memory is written. */
  foresight: Foresight | undefined;
  stoppedAt = 0;
  /** On system calls: each names the one before it. */
  readonly filters: Filter[] = [];
  /** Descriptors of processes, and of which. */
  readonly pidfds: { readonly pid: number; readonly fd: number; readonly of: number }[] = [];
  /** System V shared memory by id, with how many mappings of it were seen, and how many there are at all. */
  readonly segments = new Map<number, { readonly entry: Segment; mappings: number; readonly attached: number }>();
  semaphores: readonly Semaphores[] = [];
  /** Of namespaces that the tree has for itself. */
  ipc: IpcNamespace | undefined;
  uts: Names | undefined;
  network: Network | undefined;
  groups: Groups = { sets: [], controllers: [] };
  /** Of tmpfs, by their device as entries of mounts have it. */
  contents: ReadonlyMap<number, Archive> = new Map();
  /** Ids of files by how /proc/PID/maps shows them. */
  readonly mapped = new Map<string, number>();
  /** Names that were made for files without one. */
  readonly #links: string[] = [];
  readonly #made = new Map<string, unknown>();
  readonly #paths = new Map<string, number>();
  readonly #disks = new Disks();
  #lastId = 0;
  #mounts: SavedMounts | undefined;

  /** @param stopped what is saved is stopped; else it is only looked at */
  constructor(options: SaveOptions, namespaces: Namespaces, stopped: boolean) {
    this.options = options;
    this.namespaces = namespaces;
    this.ids = new Ids(namespaces.has('pid'));
    this.stopped = stopped;
  }

  /** Those of the mount namespace, as they are when they are asked for first; undefined where the tree has that of tideover. */
  get mounts(): SavedMounts | undefined {
    if (!this.namespaces.has('mnt')) return undefined;
    this.#mounts ??= new SavedMounts(this.namespaces.root, this.namespaces.own, this.options);
    return this.#mounts;
  }

  /** Where the paths of the tree lead. */
  get root(): Root {
    return this.mounts?.root ?? Root.ours;
  }

  /** What was made for a key when it was asked for first. */
  once<T>(key: string, make: () => T): T {
    if (!this.#made.has(key)) this.#made.set(key, make());
    return this.#made.get(key) as T;
  }

  /** A number for one more open file. */
  newId(): number {
    return ++this.#lastId;
  }

  /**
   * A file that is not open under a descriptor: of a mapping, the program, a working directory. The same file with the same
   * flags stands once.
   *
   * @param at link of /proc that leads to it, also when it is deleted
   * @returns its id
   */
  path(pid: number, at: string, flags: number): number {
    const stat = attributes(AT_FDCWD, at);
    const link = readlink(at);
    const key = `${stat.stx_dev_major}:${stat.stx_dev_minor}:${stat.stx_ino}:${flags}:${link}`;
    const known = this.#paths.get(key);
    if (known !== undefined) return known;
    const id = this.newId();
    this.#paths.set(key, id);
    const fown = { uid: 0, euid: 0, signum: 0, pid_type: 0, pid: 0 };
    const reg = this.regular({ pid, id, at, link, stat }, { id, flags, pos: 0, fown });
    this.files.push({ type: 'REG', id, reg });
    return id;
  }

  /** The entry of a file with a path; one that was deleted becomes a ghost. */
  regular(
    file: { pid: number; fd?: number; id: number; at: string; link: string; stat: Statx },
    entry: Pick<Regular, 'id' | 'flags' | 'pos' | 'fown'>,
  ): Regular {
    const { stat, link } = file;
    // A /proc of its own names them so already.
    let name = this.root.hasOwnProc ? link : this.ids.insideProc(link);
    const mount = this.root.within(() => whereLeads(link, stat)) ?? this.#outside(link, stat);
    if (mount === undefined) {
      name = link.endsWith(DELETED) ? link.slice(0, -DELETED.length) : link;
      this.#addGhost(file, name);
    }
    const mode = stat.stx_mode & S_IFMT;
    const mnt_id = this.mounts === undefined ? NOWHERE : (mount ?? Number(stat.stx_mnt_id));
    const reg: Regular = { ...entry, name, mnt_id, mode: stat.stx_mode, build_id: [] };
    if (mode !== S_IFREG) return reg;
    const identity = mount === undefined ? undefined : this.#disks.identityOf(file.at, stat);
    return { ...reg, size: stat.stx_size, ...(identity !== undefined && { identity }) };
  }

  /** A tree in its own mount namespace may have been given files of outside: they are in none of its mounts. */
  #outside(link: string, stat: Statx): number | undefined {
    return this.mounts !== undefined && whereLeads(link, stat) !== undefined ? NOWHERE : undefined;
  }

  #addLink(file: { id: number; at: string; stat: Statx }, name: string): void {
    if (!this.stopped) return;
    const { stx_dev_major, stx_dev_minor, stx_ino, stx_mode } = file.stat;
    const remap_id = this.once(`link ${stx_dev_major}:${stx_dev_minor}:${stx_ino}`, () => {
      const id = this.newId();
      const newpath = join(dirname(name), this.#freeName(file.at, dirname(name), id));
      this.#links.push(newpath);
      const fown = { uid: 0, euid: 0, signum: 0, pid_type: 0, pid: 0 };
      const mnt_id = this.mounts === undefined ? NOWHERE : Number(file.stat.stx_mnt_id);
      const reg: Regular = { id, flags: 0, pos: 0, fown, name: newpath, mnt_id, mode: stx_mode, build_id: [] };
      this.files.push({ type: 'REG', id, reg });
      return id;
    });
    this.remaps.push({ orig_id: file.id, remap_id, remap_type: 'LINKED' });
  }

  /** Gives a file a name beside others; one that is taken is of another image. @returns the name */
  #freeName(oldpath: string, folder: string, first: number): string {
    const newdirfd = this.root.within(() => place(folder));
    try {
      for (let number = first; ; number++) {
        const newpath = `link_remap.${number}`;
        const args = { olddirfd: AT_FDCWD, oldpath, newdirfd, newpath, flags: AT_SYMLINK_FOLLOW };
        const result = linkat.attempt(args);
        if (result >= 0) return newpath;
        if (result !== -Errno.EEXIST) throw linkat.error(args, result);
      }
    } finally {
      close({ fd: newdirfd });
    }
  }

  /** Takes away what was made in file systems, when the image comes to nothing. */
  undo(): void {
    for (const path of this.#links.splice(0)) this.root.within(() => rmSync(path, { force: true }));
  }

  #addGhost(file: { pid: number; fd?: number; id: number; at: string; stat: Statx }, name: string): void {
    const { stat, pid } = file;
    const refuse = (why: string, remedy: string): never => {
      const place = file.fd === undefined ? { pid } : { pid, fd: file.fd };
      throw new UnsupportedError({ ...place, what: `file ${name}`, why, remedy });
    };
    const kind = stat.stx_mode & S_IFMT;
    if (name.startsWith('/proc/')) refuse('it tells of a process that is gone', 'leave it, or close it');
    if (stat.stx_nlink > 0 && kind !== S_IFDIR) {
      if (this.options.linkRemap === true) {
        this.#addLink(file, name);
        return;
      }
      refuse('its path does not lead to it now, and it has other names', 'give --link-remap, or give it its name back');
    }
    if (![S_IFREG, S_IFDIR, S_IFIFO, S_IFCHR, S_IFLNK].includes(kind)) {
      refuse('it was deleted, and files of this kind cannot be made again yet', 'close it');
    }
    // Holes are not saved.
    const size = 512 * Number(stat.stx_blocks);
    if (kind === S_IFREG && size > this.options.ghostLimit) {
      refuse(
        `it was deleted and has ${size} bytes on the disk, more than the limit of ${this.options.ghostLimit}`,
        `raise the limit: --ghost-limit ${size}`,
      );
    }
    const key = `${stat.stx_dev_major}:${stat.stx_dev_minor}:${stat.stx_ino}`;
    let ghost = this.ghosts.get(key);
    if (ghost === undefined) {
      const dev = internalDevice(stat.stx_dev_major, stat.stx_dev_minor);
      ghost = {
        id: this.ghosts.size + 1,
        entry: {
          ...{ uid: stat.stx_uid, gid: stat.stx_gid, mode: stat.stx_mode, dev, ino: stat.stx_ino },
          atim: { tv_sec: BigInt(stat.stx_atime.tv_sec), tv_usec: Math.floor(stat.stx_atime.tv_nsec / 1000) },
          mtim: { tv_sec: BigInt(stat.stx_mtime.tv_sec), tv_usec: Math.floor(stat.stx_mtime.tv_nsec / 1000) },
          ...(kind === S_IFREG ? { chunks: true, size: stat.stx_size } : {}),
          ...(kind === S_IFLNK ? { symlnk_target: targetOf(file.at) } : {}),
          ...(kind === S_IFCHR ? { rdev: encodeDevice(stat.stx_rdev_major, stat.stx_rdev_minor) } : {}),
        },
        pieces: kind === S_IFREG ? readPieces(file.at, stat.stx_size) : [],
      };
      this.ghosts.set(key, ghost);
    }
    this.remaps.push({ orig_id: file.id, remap_id: ghost.id, remap_type: 'GHOST' });
  }

  /** Notes a lock; every descriptor of an open file shows its locks. @param id of the file */
  addLock(id: number, lock: FileLock): void {
    const key = `${lock.flag} ${lock.start} ${lock.len} ${lock.flag === 1 ? `${lock.pid} ${id}` : id}`;
    if (!this.locks.has(key)) this.locks.set(key, lock);
  }

  /** Notes shared memory. @param at a path by which it can be opened to be read */
  share(shmid: number, at: string): void {
    if (this.shared.has(shmid)) return;
    const fd = openat({ dirfd: AT_FDCWD, pathname: at, flags: O_RDONLY | O_CLOEXEC, mode: 0 });
    this.shared.set(shmid, { shmid, fd, size: attributes(fd, '', 0x1000).stx_size });
  }

  /** Closes what was opened for the sake of saving. */
  [Symbol.dispose](): void {
    this.connections[Symbol.dispose]();
    this.#mounts?.[Symbol.dispose]();
    for (const { fd } of this.shared.values()) close({ fd });
    this.shared.clear();
  }
}

/** The id of the mount in which a path leads to the very file, or undefined where it does not. */
function whereLeads(path: string, stat: Statx): number | undefined {
  try {
    const there = attributes(AT_FDCWD, path, (stat.stx_mode & S_IFMT) === S_IFLNK ? AT_SYMLINK_NOFOLLOW : 0);
    const isSame =
      there.stx_ino === stat.stx_ino &&
      there.stx_dev_major === stat.stx_dev_major &&
      there.stx_dev_minor === stat.stx_dev_minor;
    return isSame ? Number(there.stx_mnt_id) : undefined;
  } catch {
    return undefined;
  }
}

/** Where a symbolic link points to which a link of /proc leads. */
function targetOf(at: string): string {
  const fd = openat({ dirfd: AT_FDCWD, pathname: at, flags: O_PATH | O_CLOEXEC, mode: 0 });
  try {
    return readlink('', fd);
  } finally {
    close({ fd });
  }
}

/** The parts of a file that are not holes, of at most a mebibyte each. */
function readPieces(at: string, size: number): Piece[] {
  const fd = openat({ dirfd: AT_FDCWD, pathname: at, flags: O_RDONLY | O_CLOEXEC, mode: 0 });
  try {
    return dataRanges(fd, size).map(([offset, end]) => {
      const bytes = new Uint8Array(end - offset);
      for (let done = 0; done < bytes.length; ) {
        const buf = new Uint8Array(Math.min(bytes.length - done, 1 << 19));
        const got = pread64({ fd, buf, count: buf.length, offset: offset + done });
        if (got === 0) break;
        bytes.set(buf.subarray(0, got), done);
        done += got;
      }
      return { offset, bytes };
    });
  } finally {
    close({ fd });
  }
}
