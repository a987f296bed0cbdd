/**
 * Settings of control groups: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of the kernel. They are put into groups that a restore makes.
 * They stand in a file of our own, in CRIU's form: CRIU takes those of cgroup.img for groups of sets that it has made.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { CLONE_NEWCGROUP } from '../abi/sched.ts';
import { NR } from '../abi/unistd.ts';
import { UnsupportedError } from '../errors.ts';
import type { cgroup_entry, cgroup_prop_entry } from '../image/messages/namespaces.ts';
import type { Value } from '../image/proto.ts';
import { makeFolders } from '../sys/folder.ts';
import { type Mount, readMountinfo } from '../sys/mountinfo.ts';
import { cgroupsOf, folderOf, type GroupOptions, restoreCgroups } from './cgroups.ts';
import type { Made } from './made.ts';
import { inCgroupNamespace } from './namespaces.ts';

export type Groups = Value<typeof cgroup_entry>;
type Setting = Value<typeof cgroup_prop_entry>;

/** In the order in which they can be set. What is missing in a group is none of its controllers. */
const SETTINGS: readonly string[] = [
  ...['cpu.max', 'cpu.weight', 'cpu.idle', 'memory.max', 'memory.high', 'memory.low', 'memory.min', 'memory.swap.max'],
  ...['memory.oom.group', 'pids.max', 'io.weight', 'io.max', 'cpuset.cpus', 'cpuset.mems', 'cgroup.max.descendants'],
  ...['hugetlb.2MB.max', 'hugetlb.1GB.max'],
  ...['cgroup.max.depth', 'cpu.shares', 'cpu.cfs_period_us', 'cpu.cfs_quota_us', 'cpuset.memory_migrate'],
  ...['memory.limit_in_bytes', 'memory.memsw.limit_in_bytes', 'memory.soft_limit_in_bytes', 'memory.swappiness'],
  ...['blkio.weight', 'net_cls.classid', 'notify_on_release'],
];

const DEVICES = 'devices.list';

/**
 * Groups as they were when they were met first. Whoever changes their settings does not stop with the processes in them, so that
 * what is read before is as true, and nobody stands still for it: half a millisecond for a group.
 */
export class GroupsSeen {
  readonly #seen = new Map<string, Groups['controllers']>();

  /** @param lines of processes, as cgroupsOf() has them */
  of(lines: ReadonlySet<string>): Groups['controllers'] {
    const fresh = [...lines].filter((line) => !this.#seen.has(line));
    const mounts = fresh.length === 0 ? [] : readMountinfo('self');
    for (const line of fresh) this.#seen.set(line, settingsIn(mounts, line));
    return [...lines].flatMap((line) => this.#seen.get(line)!);
  }
}

function settingsIn(mounts: readonly Mount[], line: string): Groups['controllers'] {
  const colon = line.indexOf(':');
  const [name, path] = [line.slice(0, colon), line.slice(colon + 1)];
  const folder = path === '/' ? undefined : folderOf(mounts, line);
  if (folder === undefined) return [];
  const properties = [...SETTINGS, DEVICES].flatMap((each): Setting[] => {
    const value = read(join(folder, each));
    return value === undefined ? [] : [{ name: each, value }];
  });
  return [{ cnames: name.split(','), dirs: [{ dir_name: path, children: [], properties }] }];
}

/**
 * @param lines of all processes, as cgroupsOf() has them
 * @param root a process whose control group namespace the tree has for itself
 */
export function saveGroups(lines: ReadonlySet<string>, seen: GroupsSeen, root?: number): Groups {
  return { sets: root === undefined ? [] : [{ id: 1, ctls: prefixes(root) }], controllers: seen.of(lines) };
}

/** The groups of a process, and how much of their paths leads to the root of its namespace. */
function prefixes(pid: number): Groups['sets'][number]['ctls'] {
  const inside = inCgroupNamespace(pid, () => cgroupsOf(pid));
  return cgroupsOf(pid).map((line, i) => {
    const colon = line.indexOf(':');
    const [name, path, rest] = [line.slice(0, colon), line.slice(colon + 1), inside[i]!.slice(colon + 1)];
    if (rest !== '/' && !path.endsWith(rest)) {
      throw new UnsupportedError({
        what: `control group ${path}`,
        pid,
        why: 'it is not below the root of its control group namespace',
        remedy: 'move the process into a group below it',
      });
    }
    const cgns_prefix = path === '/' || path === rest ? 0 : path.length - (rest === '/' ? 0 : rest.length);
    return { name, path, ...(cgns_prefix === 0 ? {} : { cgns_prefix }) };
  });
}

/**
 * Gives a process that is alone a new control group namespace: its roots are the groups that it is in then.
 *
 * @param moved where a group is to be, by its line; undefined if the process is to stay where it is
 * @param made see restoreCgroups()
 */
export function makeCgroupNamespace(
  saved: Groups | undefined,
  { leader, pid }: Made,
  moved: ((line: string) => string) | undefined,
  made: string[],
): void {
  if (saved === undefined) {
    throw new UnsupportedError({
      what: 'cgroup namespace',
      pid,
      why: 'the image does not tell its roots in the way of tideover',
      remedy: 'restore it with CRIU',
    });
  }
  const ctls = saved.sets[0]?.ctls ?? [];
  const roots = ctls.map(({ name, path, cgns_prefix }) => `${name}:${path.slice(0, cgns_prefix ?? 0) || '/'}`);
  if (moved !== undefined) restoreCgroups(pid, roots.map(moved), made);
  leader.call(NR.unshare, CLONE_NEWCGROUP);
  leader.run();
}

/** What a group had, by its line. */
function settingsOf({ controllers }: Groups, line: string): readonly Setting[] {
  const found = controllers.find(({ cnames, dirs }) => `${cnames.join()}:${dirs[0]?.dir_name}` === line);
  return found?.dirs[0]?.properties ?? [];
}

/**
 * Makes the groups that are missing, with their settings.
 *
 * @param saved of the image @param lines of all processes @param moved where a group is to be, by its line
 * @param made see restoreCgroups() @param ours lines of this process
 * @throws UnsupportedError where the kernel refuses a setting
 */
export function prepareGroups(
  saved: Groups | undefined,
  lines: ReadonlySet<string>,
  moved: (line: string) => string,
  how: GroupOptions['settings'] | undefined,
  made: string[],
  ours: ReadonlySet<string>,
): void {
  let mounts: ReturnType<typeof readMountinfo> | undefined;
  for (const line of lines) {
    const there = moved(line);
    // The root of a hierarchy, and where we are ourselves.
    if (how !== 'all' && (there.endsWith(':/') || ours.has(there))) continue;
    mounts ??= readMountinfo('self');
    const folder = folderOf(mounts, there);
    // What cannot be made is said when a process is to come in.
    if (folder === undefined || (existsSync(folder) && how !== 'all')) continue;
    try {
      made.push(...makeFolders(folder));
    } catch {
      continue;
    }
    const settings = saved === undefined ? [] : settingsOf(saved, line);
    enableControllers(folder, settings);
    applySettings(folder, settings);
  }
}

/** Has the groups above one of version 2 hand out the controllers that it had: those that were made just now hand out none. */
function enableControllers(folder: string, settings: readonly Setting[]): void {
  const above = dirname(folder);
  if (!existsSync(join(above, SUBTREE))) return;
  enableControllers(above, settings);
  const enabled = read(join(above, SUBTREE))?.split(' ') ?? [];
  const there = read(join(above, 'cgroup.controllers'))?.split(' ') ?? [];
  const wanted = new Set(settings.map(({ name }) => name.slice(0, name.indexOf('.'))));
  for (const name of there) {
    if (wanted.has(name) && !enabled.includes(name)) put(above, SUBTREE, `+${name}`);
  }
}

const SUBTREE = 'cgroup.subtree_control';

/**
 * Gives a group its settings; one of a cpuset without any takes no processes, and has those of the group above then.
 *
 * @throws UnsupportedError where the kernel refuses one
 */
function applySettings(folder: string, settings: readonly Setting[]): void {
  for (const name of ['cpuset.cpus', 'cpuset.mems']) {
    // Of version 1 alone: in version 2 nothing said is all.
    if (existsSync(join(folder, 'cgroup.controllers')) || read(join(folder, name)) !== '') continue;
    put(folder, name, read(join(dirname(folder), name)) ?? '');
  }
  for (const { name, value } of settings) {
    if (name === DEVICES) putDevices(folder, value);
    else if (read(join(folder, name)) !== value) put(folder, name, value);
  }
}

/** `a *:* rwm` is all; else nothing but what is listed. */
function putDevices(folder: string, value: string): void {
  if (read(join(folder, DEVICES)) === value || value === 'a *:* rwm') return;
  put(folder, 'devices.deny', 'a');
  for (const line of value.split('\n').filter((each) => each !== '')) put(folder, 'devices.allow', line);
}

function put(folder: string, name: string, value: string): void {
  try {
    // Some take a line at a time.
    for (const line of value.split('\n')) writeFileSync(join(folder, name), line);
  } catch (error) {
    throw new UnsupportedError({
      what: `setting ${name} of control group ${folder}`,
      why: `${JSON.stringify(value)} is refused: ${(error as Error).message}`,
      remedy: 'make the group with settings that are possible here, and restore again',
    });
  }
}

/** A file of a group without the end of its last line; undefined where it is not there or says nothing. */
function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trimEnd();
  } catch {
    return undefined;
  }
}
