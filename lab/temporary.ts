/**
 * Folders for the life of a virtual machine. A folder's name has its owner's process in it, so that what a killed
 * run left can be told from what a running one uses, and is removed by the next.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const prefix = 'tideover-lab-';
const mine = new Set<string>();
let swept = false;

/** A new empty folder. Removed by removeTemporary, else when this process ends, else by the next run. */
export function temporaryFolder(): string {
  if (!swept) sweep();
  const folder = mkdtempSync(join(tmpdir(), `${prefix}${process.pid}-${startTime(process.pid)}-`));
  mine.add(folder);
  return folder;
}

export function removeTemporary(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
  mine.delete(folder);
}

function sweep(): void {
  swept = true;
  process.on('exit', () => [...mine].forEach(removeTemporary));
  for (const name of readdirSync(tmpdir())) {
    const owner = /^tideover-lab-(\d+)-(\d+)-/.exec(name);
    if (owner === null || startTime(Number(owner[1])) === owner[2]) continue;
    rmSync(join(tmpdir(), name), { recursive: true, force: true });
  }
}

/** starttime of proc(5) stat, which tells a process from a later one with its PID. Empty when none runs. */
function startTime(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The command in parentheses may hold spaces. State is field 3, starttime field 22. A zombie uses nothing any more.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? '' : fields[19]!;
  } catch {
    return '';
  }
}
