/** Control groups that processes are in: cgroups(7), of version 2 and of hierarchies of version 1 beside it. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { UnsupportedError } from '../errors.ts';
import { makeFolders, removeEmpty } from '../sys/folder.ts';
import { cgroup2Mount, type Mount, readMountinfo } from '../sys/mountinfo.ts';
import { readTaskText } from '../sys/proc.ts';
import { sleep } from '../sys/process.ts';

/** `0::/user.slice`, `4:memory:/db`: the lines of /proc/PID/cgroup, without the number, which changes from boot to boot. */
export function cgroupsOf(pid: number | string): string[] {
  const lines = readTaskText(`/proc/${pid}/cgroup`).trimEnd().split('\n');
  return lines
    .filter((line) => line !== '')
    .map((line) => line.slice(line.indexOf(':') + 1).replace(/ \(deleted\)$/, ''));
}

/** What becomes of groups at a restore: CRIU's --manage-cgroups and --cgroup-root. */
export interface GroupOptions {
  /** Whether groups that are there get the settings that they had too. */
  readonly settings: 'made' | 'all';
  /** What takes the place of the groups of the root of the tree, by controllers as in a line; `*` for all. */
  readonly roots: ReadonlyMap<string, string>;
}

/**
 * Puts a process that has no threads and children yet into its groups, where it is not in them; those that are gone are made.
 *
 * @param made gets the folders of those
 * @throws UnsupportedError where that is not allowed, or there is no such hierarchy
 */
export function restoreCgroups(pid: number, wanted: readonly string[], made: string[] = []): void {
  const now = new Set(cgroupsOf(pid));
  const missing = wanted.filter((line) => !now.has(line));
  if (missing.length === 0) return;
  const mounts = readMountinfo('self');
  const hierarchies = new Set([...now].map(hierarchyOf));
  for (const line of missing) {
    // Everything is in the root group of a hierarchy that is not there.
    if (line.endsWith(':/') && !hierarchies.has(hierarchyOf(line))) continue;
    const folder = folderOf(mounts, line);
    if (folder === undefined) throw refused(pid, line, 'no mount shows it');
    try {
      made.push(...makeFolders(folder));
      writeFileSync(join(folder, 'cgroup.procs'), `${pid}`);
    } catch (error) {
      throw refused(pid, folder, (error as Error).message);
    }
  }
}

/** Removes groups that were made for nothing, but for those in which others are or that hold others. */
export function removeGroups(made: readonly string[]): void {
  // One within another one has the longer path.
  for (const folder of made.toSorted((a, b) => b.length - a.length)) {
    const until = performance.now() + PATIENCE;
    // It is busy until the last of its processes, which nobody sees any more, has come to its very end.
    for (removeEmpty([folder]); isUnused(folder) && performance.now() < until; removeEmpty([folder])) sleep(PAUSE);
  }
}

/** In ms, and in ns. */
const PATIENCE = 10_000;
const PAUSE = 5_000_000;

/** Whether a group is there and has neither processes nor groups. */
function isUnused(folder: string): boolean {
  try {
    const groups = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory());
    return groups.length === 0 && readFileSync(join(folder, 'cgroup.procs'), 'utf8') === '';
  } catch {
    return false;
  }
}

const hierarchyOf = (line: string) => line.slice(0, line.indexOf(':'));

/** The line of a group where others stand for those of the root of a tree. @param first lines of that root */
export function movedGroup(line: string, first: readonly string[], roots: GroupOptions['roots'] = new Map()): string {
  const colon = line.indexOf(':');
  const controllers = line.slice(0, colon);
  const names = [controllers, ...controllers.split(',').flatMap((name) => [name, name.replace(/^name=/, '')]), '*'];
  const root = names.map((name) => roots.get(name)).find((each) => each !== undefined);
  if (root === undefined) return line;
  const was = first.find((each) => each.startsWith(`${controllers}:`))?.slice(colon + 1) ?? '/';
  return `${controllers}:${join('/', root, below(was, line.slice(colon + 1)) ?? '')}`;
}

/** Where a group is, by a line of cgroupsOf(); undefined if no mount shows it. */
export function folderOf(mounts: readonly Mount[], line: string): string | undefined {
  const hierarchy = hierarchyOf(line);
  const mount = mountOf(mounts, hierarchy);
  const inside = mount === undefined ? undefined : below(mount.root, line.slice(hierarchy.length + 1));
  return mount === undefined || inside === undefined ? undefined : join(mount.mountPoint, inside);
}

/** @param controllers `` for version 2, or what a mount of version 1 has among its options */
function mountOf(mounts: readonly Mount[], controllers: string): Mount | undefined {
  if (controllers === '') return cgroup2Mount(mounts);
  const all = controllers.split(',');
  return mounts.find(({ type, superOptions }) => type === 'cgroup' && all.every((name) => superOptions.includes(name)));
}

/** A path of a hierarchy as its mount shows it. */
function below(root: string, path: string): string | undefined {
  if (root === '/') return path;
  return path === root || path.startsWith(`${root}/`) ? path.slice(root.length) : undefined;
}

function refused(pid: number, what: string, why: string): UnsupportedError {
  return new UnsupportedError({
    what: `control group ${what}`,
    pid,
    why,
    remedy: 'make the group, with what it needs to take a process, and restore again',
  });
}
