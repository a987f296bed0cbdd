/**
 * Workloads: trees of processes that are started so that they can be kept (tideover run), under a name.
 *
 *     /run/tideover/workloads/NAME/pid          the init of its PID namespace, as this system numbers it
 *     /run/tideover/turns/NAME                 see turn.ts
 *     /var/lib/tideover/workloads/NAME.json     what it takes to restore it and to look after it; outlives the kernel
 *     /var/lib/tideover/init-DIGEST             that init's program; see src/asm/init.ts
 *     /var/log/tideover/NAME.log                what it writes
 *     workload/NAME                             node of preserved memory with its checkpoint
 *     /var/lib/tideover/spill/NAME              directory with its checkpoint, where it was written to disk
 */
import { existsSync, readdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { UnsupportedError } from '../errors.ts';
import { openDirectory } from '../image/directory.ts';
import type { ImageStore } from '../image/store.ts';
import { fileName, images } from '../image/types.ts';
import { writers } from '../process/disk.ts';
import { isGone } from '../process/gone.ts';
import { writeWhole } from '../sys/folder.ts';
import { cgroup2Mount, readMountinfo } from '../sys/mountinfo.ts';
import { readStat } from '../sys/stat.ts';
import { isAbsent, openMedium, openNode, type Place } from './medium.ts';
import { removeWithRounds } from './rounds.ts';

const RUNNING = '/run/tideover/workloads';
const KNOWN = '/var/lib/tideover/workloads';
const SPILL = '/var/lib/tideover/spill';
const LOGS = '/var/log/tideover';

/** How a workload was started. */
export interface WorkloadState {
  readonly command: readonly string[];
  /** Its file of output. */
  readonly log: string;
  /** Descriptor by which its init has the master of its terminal; undefined without a terminal. */
  readonly terminal?: number;
  /** Its unit of systemd; undefined where it was started otherwise. */
  readonly unit?: string;
  /** Of the init, as in /proc/PID/stat: tells it from another process of its number. */
  readonly starttime: number;
  /** A checkpoint that could not be restored and is left where it is: not restored by itself any more. */
  readonly setAside?: SetAside;
}

export interface SetAside {
  readonly why: string;
  /** When it was tried, as ISO 8601. */
  readonly when: string;
}

export interface Workload {
  readonly name: string;
  /** Of its init; undefined where it does not run. */
  readonly pid: number | undefined;
  readonly state: WorkloadState;
}

/** Where the checkpoint of a workload lies. */
export type Checkpoint =
  | { readonly kind: 'node'; readonly node: string }
  | { readonly kind: 'directory'; readonly path: string };

/** @throws UnsupportedError for what cannot be the name of a workload */
export function demandName(name: string): void {
  if (/^[A-Za-z0-9_.@-]{1,64}$/.test(name) && !/^\.{1,2}$/.test(name)) return;
  throw new UnsupportedError({
    what: `a workload called ${JSON.stringify(name)}`,
    why: 'it is a file name too',
    remedy: 'use up to 64 letters, digits and _ . @ -',
  });
}

/** What trees are called that are no workloads: by the process id of their root. */
export const isTreeName = (name: string) => /^pid-\d+$/.test(name);

/** @throws UnsupportedError for what a workload that is started cannot be called */
export function demandWorkloadName(name: string): void {
  demandName(name);
  if (!isTreeName(name)) return;
  const why = 'an update calls trees so that have no name';
  throw new UnsupportedError({ what: `a workload called ${name}`, why, remedy: 'choose another name' });
}

/** Where its checkpoint goes. */
export const nodeOfWorkload = (name: string) => `workload/${name}`;
/** Where a copy of its checkpoint goes that is to outlive the memory. */
export const spillOf = (name: string) => join(SPILL, name);
export const logOf = (name: string) => join(LOGS, `${name}.log`);
/** What only lasts as long as it runs. */
const runningFolder = (name: string) => join(RUNNING, name);
const pidFileOf = (name: string) => join(RUNNING, name, 'pid');
const heldFile = (name: string) => join(RUNNING, name, 'held');
const stateFile = (name: string) => join(KNOWN, `${name}.json`);

/** Those that run, and those that ran and were not forgotten: what a kept one was is known until it goes on. */
export function listWorkloads(): Workload[] {
  const names = existing(KNOWN).filter((file) => file.endsWith('.json'));
  return names.flatMap((file) => findWorkload(basename(file, '.json')) ?? []);
}

/** @returns undefined for one that was never started, or was forgotten */
export function findWorkload(name: string): Workload | undefined {
  demandName(name);
  const text = read(stateFile(name));
  if (text === undefined) return undefined;
  const state = JSON.parse(text) as WorkloadState;
  return { name, pid: runningPid(name, state.starttime), state };
}

function runningPid(name: string, starttime: number): number | undefined {
  const pid = Number(read(pidFileOf(name))?.trim());
  if (!Number.isSafeInteger(pid) || pid <= 0) return undefined;
  try {
    const stat = readStat(pid);
    return stat.starttime === starttime && !'ZX'.includes(stat.state) ? pid : undefined;
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

/** Writes down that a workload runs. @param pid of its init */
export function rememberWorkload(name: string, pid: number, state: Omit<WorkloadState, 'starttime'>): void {
  demandName(name);
  rememberState(name, { ...state, starttime: readStat(pid).starttime });
  writeWhole(pidFileOf(name), `${pid}\n`);
}

/** Writes down what is known of a workload that runs already, or does not run yet. */
export function rememberState(name: string, state: WorkloadState): void {
  writeWhole(stateFile(name), `${JSON.stringify(state, undefined, 2)}\n`);
}

/** Its control group, where it is not one of systemd, below the mount of version 2. */
export const groupOf = (name: string) => `tideover/${name}`;

/** To be called when a workload has ended for good. Its log stays. */
export function forgetWorkload(name: string): void {
  const groups = cgroup2Mount(readMountinfo('self'))?.mountPoint;
  try {
    if (groups !== undefined) rmdirSync(join(groups, groupOf(name)));
  } catch {
    // It has none, or something of it still ends. An empty group costs nothing.
  }
  rmSync(runningFolder(name), { recursive: true, force: true });
  rmSync(stateFile(name), { force: true });
}

/** From now on `tideover run NAME` refuses: whoever keeps it decides when and where it goes on. Lasts until release or the next boot. */
export function holdWorkload(name: string): void {
  const known = findWorkload(name)?.state;
  if (known?.setAside !== undefined) {
    // That is another checkpoint than the one which is made now.
    const { setAside: _, ...state } = known;
    rememberState(name, state);
  }
  writeWhole(heldFile(name), '');
}

export function releaseWorkload(name: string): void {
  rmSync(heldFile(name), { force: true });
}

export function isHeld(name: string): boolean {
  return existsSync(heldFile(name));
}

/**
 * The checkpoint of a workload: in preserved memory, else on disk.
 *
 * @param place of preserved memory; undefined where there is none
 */
export function preservedCheckpoint(place: Place | undefined, name: string): Checkpoint | undefined {
  const node = nodeOfWorkload(name);
  if (hasNode(place, node)) return { kind: 'node', node };
  const path = spillOf(name);
  return existsSync(join(path, fileName(images.INVENTORY))) ? { kind: 'directory', path } : undefined;
}

/** For people. */
export function checkpointName(checkpoint: Checkpoint): string {
  return checkpoint.kind === 'node' ? `pkram:${checkpoint.node}` : checkpoint.path;
}

/** @throws NoSuchNodeError, FormatError */
export function openCheckpoint(place: Place | undefined, checkpoint: Checkpoint): ImageStore {
  return checkpoint.kind === 'node' ? openNode(place, checkpoint.node) : openDirectory(checkpoint.path, writers);
}

/** Removes the checkpoint of a workload out of memory. That on a disk: dropSpilled(). */
export function dropPreserved(place: Place | undefined, name: string): void {
  const node = nodeOfWorkload(name);
  if (hasNode(place, node)) {
    const pkram = openMedium(place, {});
    try {
      removeWithRounds(pkram, node);
    } finally {
      pkram.close();
    }
  }
}

function hasNode(place: Place | undefined, node: string): boolean {
  if (place === undefined) return false;
  try {
    const pkram = openMedium(place, { readOnly: true });
    try {
      return pkram.nodes().some(({ name }) => name === node);
    } finally {
      pkram.close();
    }
  } catch (error) {
    if (isAbsent(error)) return false;
    throw error;
  }
}

function existing(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch (error) {
    if (isGone(error)) return [];
    throw error;
  }
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}
