/**
 * What the next kernel does is done by one process where systemd starts it, as each start of this program takes its time while all
 * stand still:
 *
 *     tideover-hold.service       update resume --hold --stay: packets are held -> READY=1 ... waits ... trees go on, result
 *     network, and the rest                                                           |                       |
 *     tideover-resume.service     ExecStartPre: it is time ---------------------------+   waits until it ends v
 *                                 update resume --follow: the result is its own; where there is none it does all by itself
 */
import { existsSync, mkdirSync, readFileSync, rmSync, watch, writeFileSync } from 'node:fs';
import { isGone } from '../process/gone.ts';
import { writeWhole } from '../sys/folder.ts';
import type { Resumed } from './resume.ts';

const FOLDER = '/run/tideover';
/** There from when packets are held back. */
const HELD = `${FOLDER}/held`;
/** There from when the rest of the system is so far that trees may go on. */
const TIME = `${FOLDER}/resume-now`;
/** What became of the trees. */
const RESULT = `${FOLDER}/resumed.json`;

/** For sh(1): says that it is time, and waits until the process that has stayed is done. @param lock file that it has locked */
export const sayTime = (lock: string) => `mkdir -p -m 700 ${FOLDER} && : >${TIME} && exec flock ${lock} true`;

/** To be called when packets are held back. */
export function sayHeld(): void {
  mkdirSync(FOLDER, { recursive: true, mode: 0o700 });
  writeFileSync(HELD, '');
}

export async function untilTime(): Promise<void> {
  mkdirSync(FOLDER, { recursive: true, mode: 0o700 });
  await new Promise<void>((resolve) => {
    const watcher = watch(FOLDER, look);
    function look() {
      if (!existsSync(TIME)) return;
      watcher.close();
      resolve();
    }
    look();
  });
}

/** Leaves to the process that follows what became of the trees. */
export function leaveResult(result: Resumed): void {
  writeWhole(RESULT, JSON.stringify(result));
}

/** What the process before has left, which then counts no more; undefined where it left nothing. */
export function takeResult(): Resumed | undefined {
  try {
    const result = JSON.parse(readFileSync(RESULT, 'utf8')) as Resumed;
    rmSync(RESULT);
    return result;
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}
