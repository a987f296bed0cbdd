/** Settings of a network namespace: /proc/sys/net, of which each namespace has its own. This thread is in it. */
import { readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { UnsupportedError } from '../errors.ts';
import { readProcText } from '../sys/proc.ts';

const FOLDER = '/proc/sys/net';

/** `ipv4/ip_forward=1`: all that can be read and written. */
export function saveSettings(): string[] {
  return filesBelow('').flatMap((name) => {
    const value = read(name);
    return value === undefined ? [] : [`${name}=${value}`];
  });
}

/** Writes what is different here. Those for all devices come before those of each, which they change. */
export function restoreSettings(settings: readonly string[]): void {
  for (const line of settings) {
    const [name, value] = [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)];
    const now = read(name);
    if (now === undefined || now === value) continue;
    try {
      writeFileSync(join(FOLDER, name), value);
    } catch (error) {
      const why = `it was ${value} and is ${now} here, and writing it fails: ${(error as Error).message}`;
      throw new UnsupportedError({ what: `setting net/${name}`, why, remedy: 'use a kernel that has it' });
    }
  }
}

function filesBelow(folder: string): string[] {
  return readdirSync(join(FOLDER, folder), { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const name = join(folder, entry.name);
      if (entry.isDirectory()) return filesBelow(name);
      return (statSync(join(FOLDER, name)).mode & 0o600) === 0o600 ? [name] : [];
    });
}

/** Some cannot be read before they were written. */
function read(name: string): string | undefined {
  try {
    return readProcText(join(FOLDER, name)).trim();
  } catch {
    return undefined;
  }
}
