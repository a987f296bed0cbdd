/** Running a workload: from its checkpoint where there is one, else from the beginning. */
import { accessSync, closeSync, constants, mkdirSync, openSync, statSync } from 'node:fs';
import { delimiter, dirname, join, resolve } from 'node:path';
import { INIT_MASTER } from '../asm/init.ts';
import { UnsupportedError } from '../errors.ts';
import type { ImageStore } from '../image/store.ts';
import { type Program, restoreInTurn } from './later.ts';
import { launch, placeInit } from './launch.ts';
import type { Place } from './medium.ts';
import { dropSpilled } from './spill.ts';
import type { Turn } from './turn.ts';
import {
  type Checkpoint,
  checkpointName,
  demandWorkloadName,
  dropPreserved,
  findWorkload,
  groupOf,
  isHeld,
  logOf,
  openCheckpoint,
  preservedCheckpoint,
  rememberState,
  rememberWorkload,
  type Workload,
  type WorkloadState,
} from './workload.ts';

export interface RunOptions {
  readonly name: string;
  /** Empty for one that is only restored. */
  readonly command: readonly string[];
  readonly log: string | undefined;
  readonly terminal: boolean;
  /** Start it where it cannot be restored. */
  readonly startAnyway: boolean;
  /** Its processes become children of our parent. */
  readonly sibling: boolean;
  /** It tells systemd itself when it is ready. */
  readonly notify: boolean;
  /** The unit of systemd that runs us; its control group is the workload's. */
  readonly unit: string | undefined;
  /** Where preserved memory is; undefined where there is none that can be read. */
  readonly place: Place | undefined;
  /** Why what there is of it cannot be read. */
  readonly damage?: string | undefined;
  /** That of this workload. */
  readonly turn: Turn;
  /** Has memory of a large one come later. */
  readonly program: Program | undefined;
  /** Around the store of an image that is restored: tells of progress. */
  readonly watch?: (store: ImageStore) => ImageStore;
  warn(text: string): void;
}

export interface Run {
  readonly pid: number;
  readonly log: string;
  /** Bytes that were in the log before. */
  readonly logFrom: number;
  /** The checkpoint that it goes on from; undefined where it was started. */
  readonly restored: string | undefined;
  /** Its memory comes later, and who brings it removes the checkpoint. */
  readonly later: boolean;
}

/**
 * Makes a workload run.
 *
 * @throws UnsupportedError where it runs already, has no command and no checkpoint, or cannot be restored
 */
export function runWorkload(of: RunOptions): Run {
  const { name } = of;
  demandWorkloadName(name);
  const known = findWorkload(name);
  if (known?.pid !== undefined) refuse(name, `it runs already, as process ${known.pid}`, 'end it first');
  if (isHeld(name)) refuse(name, 'it is being taken to the next kernel', 'wait for it: tideover update status');
  const checkpoint = preservedCheckpoint(of.place, name);
  if (of.damage !== undefined) of.warn(`preserved memory cannot be read: ${of.damage}`);
  if (checkpoint === undefined) return of.damage === undefined ? start(of) : startUnread(of, known, of.damage);
  const at = checkpointName(checkpoint);
  const { killed } = of.turn;
  const setAside =
    known?.state.setAside ?? (killed === undefined ? undefined : { why: killed, when: new Date().toISOString() });
  if (setAside !== undefined && of.startAnyway) {
    of.warn(`the checkpoint ${at} is left alone, as it could not be restored: ${setAside.why}`);
    return start(of, setAside);
  }
  let run: Run;
  try {
    run = goOn(of, known?.state, checkpoint);
  } catch (error) {
    const { message } = error as Error;
    if (!of.startAnyway || of.command.length === 0) throw error;
    of.warn(`${name} CANNOT GO ON from ${at}: ${message}`);
    of.warn(`${name} is started anew; ${at} is kept`);
    return start(of, { why: message, when: new Date().toISOString() });
  }
  if (run.later) return run;
  try {
    // First what would still be there in the next kernel: restored once more, it would do everything again.
    dropSpilled(name);
    dropPreserved(of.place, name);
  } catch (error) {
    // It goes on, and must not do so a second time from the same place.
    const why = `it goes on already, and the checkpoint could not be removed: ${(error as Error).message}`;
    rememberState(name, { ...findWorkload(name)!.state, setAside: { why, when: new Date().toISOString() } });
    of.warn(`${at}: ${why}`);
  }
  return run;
}

/** Whether there is a checkpoint of it nobody knows. One that is found later is of a time before this. */
function startUnread(of: RunOptions, known: Workload | undefined, damage: string): Run {
  const { name } = of;
  const remedy = 'see tideover pkram ls; --on-failure start begins anew';
  if (!of.startAnyway) refuse(name, `preserved memory, which may have it, cannot be read: ${damage}`, remedy);
  if (known === undefined) return start(of);
  of.warn(`${name} is started anew; whether that memory HAS A CHECKPOINT of it is not known`);
  return start(of, { why: `preserved memory could not be read: ${damage}`, when: new Date().toISOString() });
}

function goOn(of: RunOptions, known: WorkloadState | undefined, checkpoint: Checkpoint): Run {
  const { name, place } = of;
  const { setAside: _, ...state } = known ?? stateOf(of);
  placeInit();
  const logFrom = sizeOf(state.log);
  const store = openCheckpoint(place, checkpoint);
  try {
    const options = {
      stopped: false,
      shellJob: false,
      sibling: of.sibling,
      beforeGoing: (root: number) => rememberWorkload(name, root, state),
    };
    const how = {
      name,
      place: of.place,
      where: checkpoint,
      turn: of.turn,
      program: of.program,
      warn: (text: string) => of.warn(text),
    };
    const { pid, later } = restoreInTurn(of.watch?.(store) ?? store, options, how);
    return { pid, log: state.log, logFrom, restored: checkpointName(checkpoint), later };
  } finally {
    store.close();
  }
}

function start(of: RunOptions, setAside?: WorkloadState['setAside']): Run {
  const { name, command } = of;
  if (command.length === 0) refuse(name, 'nothing of it is preserved', 'give its command: -- COMMAND');
  const program = programOf(command[0]!);
  const state = { ...stateOf(of), ...(setAside !== undefined && { setAside }) };
  mkdirSync(dirname(state.log), { recursive: true, mode: 0o700 });
  const logFrom = sizeOf(state.log);
  const output = openSync(state.log, 'a', 0o600);
  try {
    const { NOTIFY_SOCKET: _, ...others } = process.env;
    const environment = of.notify ? process.env : others;
    const cgroup = of.unit === undefined ? groupOf(name) : undefined;
    const { terminal, sibling } = of;
    // Known before it runs, so that it is found also where this program is killed now.
    rememberState(name, { ...state, starttime: 0 });
    const pid = launch({ program, command, environment, output, terminal, sibling, cgroup });
    rememberWorkload(name, pid, state);
    return { pid, log: state.log, logFrom, restored: undefined, later: false };
  } finally {
    closeSync(output);
  }
}

function stateOf({ name, command, log, terminal, unit }: RunOptions): Omit<WorkloadState, 'starttime'> {
  return {
    command,
    log: resolve(log ?? logOf(name)),
    ...(terminal && { terminal: INIT_MASTER }),
    ...(unit !== undefined && { unit }),
  };
}

/** Bytes of a file, which need not be there. */
const sizeOf = (file: string) => statSync(file, { throwIfNoEntry: false })?.size ?? 0;

/** As execvp(3) finds it. */
function programOf(name: string): string {
  const folders = name.includes('/') ? [''] : (process.env.PATH ?? '/usr/bin:/bin').split(delimiter);
  for (const folder of folders) {
    const path = resolve(join(folder, name));
    try {
      accessSync(path, constants.X_OK);
      if (statSync(path).isFile()) return path;
    } catch {
      // In another one.
    }
  }
  throw new UnsupportedError({
    what: `command ${name}`,
    why: 'there is no such program, or it may not be executed',
    remedy: 'give its whole path',
  });
}

function refuse(name: string, why: string, remedy: string): never {
  throw new UnsupportedError({ what: `workload ${name}`, why, remedy });
}
