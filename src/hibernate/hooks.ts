/** Programs that want to know of it when the machine sleeps: systemd-sleep(8). */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, readdirSync } from 'node:fs';
import { join } from 'node:path';

const FOLDERS = ['/etc/systemd/system-sleep', '/usr/lib/systemd/system-sleep'];
const LIMIT_MS = 90_000;

/**
 * Runs them one after the other, each for 90 seconds at most; as with systemd, one that fails stops nothing.
 *
 * @returns what failed, for people
 */
export function runSleepHooks(when: 'pre' | 'post', folders: readonly string[] = FOLDERS): string[] {
  const failed: string[] = [];
  for (const path of folders.flatMap(programsIn)) {
    const { status, signal, error } = spawnSync(path, [when, 'hibernate'], {
      stdio: 'ignore',
      timeout: LIMIT_MS,
      env: { ...process.env, SYSTEMD_SLEEP_ACTION: 'hibernate' },
    });
    if (status !== 0) failed.push(`${path} ${when} hibernate: ${error?.message ?? signal ?? `exit status ${status}`}`);
  }
  return failed;
}

function programsIn(folder: string): string[] {
  try {
    return readdirSync(folder)
      .sort()
      .map((name) => join(folder, name))
      .filter(isExecutable);
  } catch {
    return [];
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
