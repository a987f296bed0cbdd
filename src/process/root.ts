/**
 * Where the paths of a tree lead: a mount namespace has a root of its own. This thread goes there for a moment, so that symbolic
 * links that begin with / are followed there too and lead nowhere else.
 */
import { AT_FDCWD, O_CLOEXEC, O_DIRECTORY, O_PATH, O_RDONLY } from '../abi/fcntl.ts';
import { CLONE_FS, CLONE_NEWNS } from '../abi/sched.ts';
import { close, openat } from '../sys/files.ts';
import { chroot, fchdir, setns, unshare } from '../sys/process.ts';

export class Root {
  /** That of tideover. */
  static readonly ours = new Root(-1);
  readonly #fd: number;
  /** Whether /proc names processes there as the tree does, in a PID namespace of its own. */
  readonly hasOwnProc: boolean;

  /** @param fd of a directory, or -1 */
  constructor(fd: number, hasOwnProc = false) {
    this.#fd = fd;
    this.hasOwnProc = hasOwnProc;
  }

  /** Does something whose paths lead to the files of the tree. What is below /proc is another one there, or nothing. */
  within<T>(action: () => T): T {
    if (this.#fd < 0) return action();
    return andBack(() => {
      fchdir({ fd: this.#fd });
      chroot({ path: '.' });
      return action();
    });
  }

  [Symbol.dispose](): void {
    if (this.#fd >= 0) close({ fd: this.#fd });
  }
}

/** Does something in a mount namespace, whose root this thread has meanwhile. @param ns a descriptor of it */
export function inMounts<T>(ns: number, action: () => T): T {
  return aside(() => {
    setns({ fd: ns, nstype: CLONE_NEWNS });
    return action();
  });
}

/** Does something in a new mount namespace, which is a copy of ours. */
export function inNewMounts<T>(action: () => T): T {
  return aside(() => {
    unshare({ flags: CLONE_NEWNS });
    return action();
  });
}

/** A directory, as a place alone. */
export function place(pathname: string): number {
  return openat({ dirfd: AT_FDCWD, pathname, flags: O_PATH | O_DIRECTORY | O_CLOEXEC, mode: 0 });
}

function aside<T>(action: () => T): T {
  return andBack(() => {
    const before = openat({
      dirfd: AT_FDCWD,
      pathname: '/proc/thread-self/ns/mnt',
      flags: O_RDONLY | O_CLOEXEC,
      mode: 0,
    });
    try {
      return action();
    } finally {
      setns({ fd: before, nstype: CLONE_NEWNS });
      close({ fd: before });
    }
  });
}

let alone = false;

/**
 * Does something after which this thread has the root and working directory that it had. It has them for itself from then on: one that
 * it shares with others cannot go to another mount namespace.
 */
function andBack<T>(action: () => T): T {
  if (!alone) unshare({ flags: CLONE_FS });
  alone = true;
  const [root, directory] = [place('/'), place('.')];
  try {
    return action();
  } finally {
    fchdir({ fd: root });
    chroot({ path: '.' });
    fchdir({ fd: directory });
    close({ fd: root });
    close({ fd: directory });
  }
}
