/** Where a dump is written to: files of Node, and streams. */
import { closeSync, fchmodSync, fsyncSync, ftruncateSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { syncFolder } from '../../fsync.ts';
import { pause } from './file.ts';

export interface Output {
  /** All of `bytes`, at a position of the dump. */
  write(position: number, bytes: Uint8Array): void;
}

/** A file under a temporary name, which gets its own when it is whole and on the disk. Mode 0600: a dump holds secrets. */
export class OutputFile implements Output {
  readonly path: string;
  readonly partial: string;
  readonly fd: number;
  #isOpen = true;

  /** @throws the system's error */
  constructor(path: string) {
    this.path = path;
    this.partial = `${path}.partial-${process.pid}`;
    this.fd = openSync(this.partial, 'wx+', 0o600);
    // Whatever the umask.
    fchmodSync(this.fd, 0o600);
  }

  write(position: number, bytes: Uint8Array): void {
    writeAt(this.fd, position, bytes);
  }

  truncate(size: number): void {
    ftruncateSync(this.fd, size);
  }

  commit(): void {
    fsyncSync(this.fd);
    this.#close();
    renameSync(this.partial, this.path);
    syncFolder(dirname(this.path));
  }

  /** Also after a commit that failed, of which the error is to be known. */
  abort(): void {
    if (this.#isOpen) this.#close();
    rmSync(this.partial, { force: true });
  }

  #close(): void {
    this.#isOpen = false;
    closeSync(this.fd);
  }
}

/** Descriptors are of the process, so another thread may write to one too. */
export function writeAt(fd: number, position: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(fd, bytes, done, bytes.length - done, position + done);
  }
}

/** To the end of what was written before: a pipe, or a file. A pipe that is full for now is waited for. */
export function append(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) {
    try {
      done += writeSync(fd, bytes, done, bytes.length - done, null);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      pause();
    }
  }
}
