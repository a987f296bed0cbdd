/**
 * Settings of control groups: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of the kernel. They stand in cgroup.img, in the form
 * that CRIU has for them, and are put into groups that a restore makes.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { UnsupportedError } from '../errors.ts';
import type { cgroup_entry, cgroup_prop_entry } from '../image/messages/namespaces.ts';
import type { Value } from '../image/proto.ts';
import { readMountinfo } from '../sys/mountinfo.ts';
import { folderOf, type GroupOptions } from './cgroups.ts';

export type Groups = Value<typeof cgroup_entry>;
type Setting = Value<typeof cgroup_prop_entry>;

/** In the order in which they can be set. What is missing in a group is none of its controllers. */
const SETTINGS: readonly string[] = [
  ...['cpu.max', 'cpu.weight', 'cpu.idle', 'memory.max', 'memory.high', 'memory.low', 'memory.min', 'memory.swap.max'],
  ...['memory.oom.group', 'pids.max', 'io.weight', 'io.max', 'cpuset.cpus', 'cpuset.mems', 'cgroup.max.descendants'],
  ...['cgroup.max.depth', 'cpu.shares', 'cpu.cfs_period_us', 'cpu.cfs_quota_us', 'cpuset.memory_migrate'],
  ...['memory.limit_in_bytes', 'memory.memsw.limit_in_bytes', 'memory.soft_limit_in_bytes', 'memory.swappiness'],
  ...['blkio.weight', 'net_cls.classid', 'notify_on_release'],
];

const DEVICES = 'devices.list';

/** @param lines of all processes, as cgroupsOf() has them */
export function saveGroups(lines: ReadonlySet<string>): Groups {
  const mounts = readMountinfo('self');
  const controllers = [...lines].flatMap((line) => {
    const colon = line.indexOf(':');
    const [name, path] = [line.slice(0, colon), line.slice(colon + 1)];
    const folder = path === '/' ? undefined : folderOf(mounts, line);
    if (folder === undefined) return [];
    const properties = [...SETTINGS, DEVICES].flatMap((each): Setting[] => {
      const value = read(join(folder, each));
      return value === undefined ? [] : [{ name: each, value }];
    });
    return [{ cnames: name.split(','), dirs: [{ dir_name: path, children: [], properties }] }];
  });
  return { sets: [], controllers };
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
 * @throws UnsupportedError where the kernel refuses a setting
 */
export function prepareGroups(
  saved: Groups | undefined,
  lines: ReadonlySet<string>,
  moved: (line: string) => string,
  how: GroupOptions['settings'] = 'made',
): void {
  const mounts = readMountinfo('self');
  for (const line of lines) {
    const folder = folderOf(mounts, moved(line));
    // What cannot be made is said when a process is to come in.
    if (folder === undefined || (existsSync(folder) && how === 'made')) continue;
    try {
      mkdirSync(folder, { recursive: true });
    } catch {
      continue;
    }
    applySettings(folder, saved === undefined ? [] : settingsOf(saved, line));
  }
}

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
