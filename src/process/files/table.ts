/** Tables of descriptors: every open file once, however many descriptors of however many processes refer to it. */
import { AT_EMPTY_PATH, FD_CLOEXEC, O_CLOEXEC } from '../../abi/fcntl.ts';
import { KCMP_FILE } from '../../abi/kcmp.ts';
import type { fdinfo_entry } from '../../image/messages/files.ts';
import type { Value } from '../../image/proto.ts';
import { descriptorLink, listDescriptors, readFdinfo } from '../../sys/fdinfo.ts';
import { attributes, close } from '../../sys/files.ts';
import { kcmp, pidfd_getfd, pidfd_open } from '../../sys/process.ts';
import { ObjectSet } from '../objects.ts';
import type { Saving } from '../saving.ts';
import { externalKey } from './external.ts';
import { type FileType, KEPT_FLAGS, type OpenFile } from './file.ts';
import { kindOf } from './kinds.ts';
import { saveLocks } from './locks.ts';
import { checkPipes, pipe } from './pipe.ts';
import { saveSessions, saveTerminalQueues, tty } from './tty.ts';
import { checkUnix, isAnythingWaiting, saveUnixQueues, unix } from './unix.ts';

export type Descriptor = Value<typeof fdinfo_entry>;

/** Collects the open files of processes, into `saving` and one table for each. */
export class FileTables {
  readonly #saving: Saving;
  /** By what is cheap to compare; what is equal in it is asked of the kernel. */
  readonly #known = new Map<string, ObjectSet<{ id: number; type: FileType }>>();
  /** By descriptor: the last process that had one, as what is inherited has the same number. */
  readonly #last = new Map<number, { pid: number; id: number; type: FileType }>();
  /** Those that are looked at again, with a descriptor of ours. */
  readonly #kept: OpenFile[] = [];

  constructor(saving: Saving) {
    this.#saving = saving;
  }

  /** @throws UnsupportedError for a file that cannot be saved */
  save(pid: number): Descriptor[] {
    const pidfd = pidfd_open({ pid, flags: 0 });
    try {
      return listDescriptors(pid).map((fd) => this.#saveDescriptor(pid, pidfd, fd));
    } finally {
      close({ fd: pidfd });
    }
  }

  /** Saves connections, what waits in sockets, and open files that are only there. Everything must be stopped. @param tree its processes */
  saveQueues(tree: readonly number[]): void {
    this.#saving.tcpStreams.push(...this.#saving.connections.save(tree));
    saveTerminalQueues(this.#saving, this.#kept.filter(tty.matches));
    if (!this.#kept.some(unix.matches)) return;
    const self = pidfd_open({ pid: process.pid, flags: 0 });
    try {
      saveUnixQueues(this.#saving, this.#kept, (fd) => this.#saveDescriptor(process.pid, self, fd).id);
    } finally {
      close({ fd: self });
    }
  }

  /** What can only be said when all files are known. @param pids of the tree */
  finish(pids: ReadonlySet<number>): void {
    saveSessions(this.#saving, this.#kept.filter(tty.matches), pids);
    // What is in flight is not known while they run, and may be the other end of what has none.
    const sockets = this.#kept.filter(unix.matches);
    if (!this.#saving.stopped && isAnythingWaiting(this.#saving, sockets)) return;
    checkPipes(this.#kept);
    checkUnix(this.#saving, sockets);
  }

  [Symbol.dispose](): void {
    for (const { local } of this.#kept.splice(0)) close({ fd: local });
  }

  #saveDescriptor(pid: number, pidfd: number, fd: number): Descriptor {
    const info = readFdinfo(pid, fd);
    const described = (id: number, type: FileType): Descriptor => {
      const { ids, options } = this.#saving;
      for (const lock of saveLocks(pid, fd, info, options.fileLocks)) {
        this.#saving.addLock(id, { ...lock, pid: ids.inside(pid) });
      }
      return { id, flags: (info.flags & O_CLOEXEC) === 0 ? 0 : FD_CLOEXEC, type, fd };
    };
    const last = this.#last.get(fd);
    if (last !== undefined) {
      const args = { pid1: last.pid, pid2: pid, type: KCMP_FILE, idx1: fd, idx2: fd };
      if (kcmp.attempt(args) === 0) return described(last.id, last.type);
    }
    const link = descriptorLink(pid, fd);
    const local = pidfd_getfd({ pidfd, targetfd: fd, flags: 0 });
    let keep = false;
    try {
      const stat = attributes(local, '', AT_EMPTY_PATH);
      const flags = info.flags & KEPT_FLAGS;
      const key = `${link}|${stat.stx_dev_major}|${stat.stx_dev_minor}|${stat.stx_ino}|${flags}|${info.pos}`;
      let same = this.#known.get(key);
      if (same === undefined) {
        same = new ObjectSet(KCMP_FILE);
        this.#known.set(key, same);
      }
      const found = same.find({ pid, index: fd }, () => {
        const { ids } = this.#saving;
        const found: OpenFile = { id: this.#saving.newId(), pid, fd, local, link, stat, info, flags, ids };
        const file = { ...found, external: externalKey(found, this.#saving.options.external ?? []) };
        const kind = kindOf(file);
        kind.check?.(file, this.#saving);
        if (kind === pipe || kind === unix || kind === tty) {
          keep = true;
          this.#kept.push(file);
        }
        this.#saving.files.push({ type: kind.type, id: file.id, ...kind.save(file, this.#saving) });
        return { id: file.id, type: kind.type };
      });
      this.#last.set(fd, { pid, ...found });
      return described(found.id, found.type);
    } finally {
      if (!keep) close({ fd: local });
    }
  }
}
