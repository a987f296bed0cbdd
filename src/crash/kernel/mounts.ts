/** Mounted file systems: fs/mount.h */
import type { Kernel } from './kernel.ts';
import { list } from './lists.ts';
import type { Paths } from './paths.ts';

export interface Mount {
  /** Of its struct mount and of its super_block. */
  readonly address: bigint;
  readonly superblock: bigint;
  readonly device: string;
  readonly folder: string;
  readonly type: string;
}

/** Mounts below each other: more than anyone has. */
const MAX_MOUNTS = 2 ** 17;
const MAX_NAME = 4096;

/**
 * What is mounted in a task's namespace: each mount before those on it, in the order in which they were made.
 * @param task address of the task_struct. @throws HoleError
 */
export function readMounts(kernel: Kernel, paths: Paths, task: bigint): Mount[] {
  const { memory, types, gaps } = kernel;
  const namespaces = memory.u64(task + types.offset('task_struct', 'nsproxy'));
  const namespace = memory.u64(namespaces + types.offset('nsproxy', 'mnt_ns'));
  const root = memory.u64(namespace + types.offset('mnt_namespace', 'root'));
  const found: Mount[] = [];
  const pending = [root];
  for (let count = 0; pending.length > 0 && count < MAX_MOUNTS; count++) {
    const address = pending.pop()!;
    const children = list(memory, address + types.offset('mount', 'mnt_mounts'), types.offset('mount', 'mnt_child'));
    pending.push(...[...gaps.each('mounts', children)].reverse());
    const mount = gaps.try('mounts', () => readMount(kernel, paths, address));
    if (mount !== undefined) found.push(mount);
  }
  return found;
}

function readMount({ memory, types }: Kernel, paths: Paths, address: bigint): Mount {
  const at = (path: string) => memory.u64(address + types.offset('mount', path));
  const superblock = at('mnt.mnt_sb');
  const kind = memory.u64(superblock + types.offset('super_block', 's_type'));
  const type = memory.string(memory.u64(kind + types.offset('file_system_type', 'name')), MAX_NAME);
  const subtype = memory.u64(superblock + types.offset('super_block', 's_subtype'));
  const device = at('mnt_devname');
  return {
    address,
    superblock,
    device: device === 0n ? 'none' : memory.string(device, MAX_NAME),
    folder: paths.text({ mount: address, dentry: at('mnt.mnt_root') }),
    type: subtype === 0n ? type : `${type}.${memory.string(subtype, MAX_NAME)}`,
  };
}
