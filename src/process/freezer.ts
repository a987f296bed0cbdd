/**
 * A control group of version 2 that stops all of its processes at once: cgroup.freeze, Documentation/admin-guide/cgroup-v2.rst of the
 * kernel. Processes that make others faster than they can be stopped one by one are all there then. They are let go of as soon as
 * each of them is stopped by itself, since code of ours is to run in them.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { UnsupportedError } from '../errors.ts';
import { readMountinfo } from '../sys/mountinfo.ts';
import { sleep } from '../sys/process.ts';
import { readStat } from '../sys/stat.ts';
import { cgroupsOf, folderOf } from './cgroups.ts';
import { isGone } from './gone.ts';
import { guardFreezer } from './guard.ts';

export class Freezer {
  readonly #folder: string;
  readonly #unguard: () => void;

  private constructor(folder: string) {
    this.#folder = folder;
    this.#unguard = guardFreezer(join(folder, FREEZE));
  }

  /**
   * @param root of the tree @param asked folder of a group to be taken; else one that the tree has for itself
   * @returns undefined where there is none
   * @throws UnsupportedError where the one that is asked for cannot be taken, or the tree is frozen already
   */
  static of(root: number, asked?: string): Freezer | undefined {
    const folder = asked === undefined ? ownFolder(root) : resolve(asked);
    const refuse = (why: string, remedy: string) =>
      new UnsupportedError({ what: `control group ${folder}`, pid: root, why, remedy });
    if (folder === undefined || !existsSync(join(folder, FREEZE))) {
      if (asked === undefined) return undefined;
      throw refuse('it has no cgroup.freeze', 'give the folder of a group of version 2, which is not the root of all');
    }
    if (isFrozen(folder)) throw refuse('it is frozen', `thaw it: echo 0 > ${join(folder, FREEZE)}`);
    const other = processesIn(folder).find((pid) => !isBelow(pid, root));
    if (other === undefined) return new Freezer(folder);
    if (asked === undefined) return undefined;
    throw refuse(`process ${other} is in it too, and not in the tree`, 'give a group of the tree alone');
  }

  /** Freezes them; if this process ends, they are let go of. @param timeout for all of them to stop, in milliseconds */
  freeze(timeout: number): void {
    writeFileSync(join(this.#folder, FREEZE), '1');
    // One that waits in the kernel for good is named when it is to be stopped by itself.
    for (const until = performance.now() + timeout; !isFrozen(this.#folder) && performance.now() < until; )
      sleep(PAUSE);
  }

  thaw(): void {
    writeFileSync(join(this.#folder, FREEZE), '0');
  }

  [Symbol.dispose](): void {
    this.#unguard();
  }
}

const FREEZE = 'cgroup.freeze';
/** In nanoseconds. */
const PAUSE = 50_000;

/** Whether a process is of a tree, or gone: the tree may change all the time. */
function isBelow(pid: number, root: number): boolean {
  try {
    return pid === root || (pid > 1 && isBelow(readStat(pid).ppid, root));
  } catch (error) {
    if (isGone(error)) return true;
    throw error;
  }
}

function ownFolder(pid: number): string | undefined {
  const line = cgroupsOf(pid).find((each) => each.startsWith(':'));
  return line === undefined ? undefined : folderOf(readMountinfo('self'), line);
}

/** Also by a group that it is in. */
function isFrozen(folder: string): boolean {
  return /^frozen 1$/m.test(readFileSync(join(folder, 'cgroup.events'), 'utf8'));
}

function processesIn(folder: string): number[] {
  const here = (readFileSync(join(folder, 'cgroup.procs'), 'utf8').match(/\d+/g) ?? []).map(Number);
  const below = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return [...here, ...below.flatMap(({ name }) => processesIn(join(folder, name)))];
}
