/** Ids of processes and threads in the PID namespace of a tree, which are those of an image: pid_namespaces(7). */
import { UnsupportedError } from '../errors.ts';
import { readStat, readStatus, type Status } from '../sys/stat.ts';

export const PROC = /^\/proc\/(\d+)(?=\/|$)/;

export class Ids {
  readonly #own: boolean;
  readonly #known = new Map<number, number>();

  /** @param own whether that namespace is another one than that of tideover */
  constructor(own: boolean) {
    this.#own = own;
  }

  /** @param id of a process or thread here @param status of it, if it is known @throws UnsupportedError for one that is not seen there */
  inside(id: number, status?: Pick<Status, 'NSpid'>): number {
    if (!this.#own || id === 0) return id;
    const known = this.#known.get(id);
    if (known !== undefined) return known;
    const { NSpid } = status ?? readStatus(id);
    if (NSpid.length < 2) throw outside(id);
    this.#known.set(id, NSpid.at(-1)!);
    return NSpid.at(-1)!;
  }

  /** A path below /proc/PID by the id that the tree knows: with that it is found again. */
  insideProc(path: string): string {
    if (!this.#own) return path;
    return path.replace(PROC, (_, id: string) => {
      try {
        return `/proc/${this.inside(Number(id))}`;
      } catch {
        // It is of another process, or of one that is gone.
        return `/proc/${id}`;
      }
    });
  }

  /** Process group and session of a process; 0 where the leader is not seen there. */
  groupOf(pid: number): { pgid: number; sid: number } {
    if (!this.#own) {
      const { pgrp: pgid, session: sid } = readStat(pid);
      return { pgid, sid };
    }
    const { NSpgid, NSsid } = readStatus(pid);
    return { pgid: NSpgid.at(-1)!, sid: NSsid.at(-1)! };
  }
}

function outside(id: number): UnsupportedError {
  return new UnsupportedError({
    what: `process ${id}`,
    why: 'one of the tree refers to it, and it is not in its pid namespace',
    remedy: 'end it, or save a tree that has both',
  });
}
