/** Being a part of a system with systemd: systemctl(1), and files in folders of the system. */
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { UnsupportedError } from '../errors.ts';

/** Whether systemd runs here: sd_booted(3). */
export function runsSystemd(): boolean {
  return existsSync('/run/systemd/system');
}

/** @throws UnsupportedError with what systemctl says where it fails */
export function systemctl(...args: string[]): void {
  const why = attemptSystemctl(...args);
  if (why === undefined) return;
  throw new UnsupportedError({ what: `systemctl ${args.join(' ')}`, why, remedy: 'see the journal' });
}

/** @returns undefined where it succeeds, else what systemctl says */
export function attemptSystemctl(...args: string[]): string | undefined {
  const { status, stderr, error } = spawnSync('systemctl', args, { encoding: 'utf8' });
  return status === 0 ? undefined : (error?.message ?? stderr.trim());
}

/** Whether a unit is being started, or is about to be. */
export function isStarting(unit: string): boolean {
  const show = ['show', '--value', '-p', 'Job,ActiveState', unit];
  const { stdout } = spawnSync('systemctl', show, { encoding: 'utf8' });
  return /^(activating|[1-9]\d*)$/m.test(stdout ?? '');
}

/** Services that run now, as `cron.service`. */
export function runningServices(): string[] {
  const list = ['list-units', '--type=service', '--state=running', '--plain', '--no-legend'];
  const { stdout } = spawnSync('systemctl', list, { encoding: 'utf8' });
  return (stdout ?? '').split('\n').flatMap((line) => line.split(' ')[0] || []);
}

/** A unit, a hook, settings. */
export interface SystemFile {
  readonly text: string;
  readonly mode: number;
}

/**
 * Writes files, with the folders that they lie in.
 *
 * @param files by their paths @param root in place of /
 * @throws the system's errors: EACCES, EROFS
 */
export function installFiles(files: Iterable<readonly [path: string, file: SystemFile]>, root = '/'): void {
  for (const [path, { text, mode }] of files) {
    const at = join(root, path);
    mkdirSync(dirname(at), { recursive: true });
    writeFileSync(at, text, { mode });
    // Also where it was there, and whatever the umask.
    chmodSync(at, mode);
  }
}
