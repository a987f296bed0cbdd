/** Looking at a workload that runs, and typing into its terminal. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { TIOCSWINSZ, winsize } from '../abi/termios.ts';
import { close, ioctl } from '../sys/files.ts';
import { pidfd_getfd, pidfd_open } from '../sys/process.ts';

/** What is written into a file, from some place on. */
export class Follower {
  readonly #fd: number;
  readonly #buffer = new Uint8Array(1 << 16);
  #position: number;

  /** @param position to begin at, in bytes; negative: so many before the end, from the next line on */
  constructor(file: string, position: number) {
    this.#fd = openSync(file, 'r');
    const { size } = fstatSync(this.#fd);
    this.#position = position < 0 ? Math.max(0, size + position) : position;
    if (position >= 0 || this.#position === 0) return;
    const text = Buffer.from(this.#buffer.subarray(0, this.#readAt(this.#position)));
    this.#position += text.indexOf('\n') + 1;
  }

  /** @returns what there is now; empty where nothing is new. Valid until the next call. */
  next(): Uint8Array {
    const { size } = fstatSync(this.#fd);
    // Somebody made the log shorter.
    if (size < this.#position) this.#position = 0;
    const got = this.#readAt(this.#position);
    this.#position += got;
    return this.#buffer.subarray(0, got);
  }

  #readAt(position: number): number {
    return readSync(this.#fd, this.#buffer, 0, this.#buffer.length, position);
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}

/**
 * Takes the master of a workload's terminal: the same open file that its init has.
 *
 * @param pid of the init @param fd that it has it by
 * @throws SyscallError ESRCH (it has ended), EPERM (not root)
 */
export function takeMaster(pid: number, fd: number): number {
  const pidfd = pidfd_open({ pid, flags: 0 });
  try {
    return pidfd_getfd({ pidfd, targetfd: fd, flags: 0 });
  } finally {
    close({ fd: pidfd });
  }
}

/** Tells the programs in a terminal how large its window is. */
export function setWindow(master: number, rows: number, columns: number): void {
  ioctl({
    fd: master,
    request: TIOCSWINSZ,
    arg: winsize.write({ ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }),
  });
}
