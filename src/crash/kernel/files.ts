/** Open files of a task: include/linux/fdtable.h */
import { HoleError } from '../../errors.ts';
import type { Kernel } from './kernel.ts';
import type { Paths } from './paths.ts';
import type { Task } from './tasks.ts';

export interface OpenFile {
  readonly fd: number;
  /** Addresses of the struct file, its dentry and its inode. */
  readonly file: bigint;
  readonly dentry: bigint;
  readonly inode: bigint;
  /** In bytes from its start. */
  readonly position: number;
  readonly flags: number;
  readonly path: string;
}

/** The largest number of files that a process may be allowed: NR_OPEN_MAX is less than this in practice (fs.nr_open). */
const MAX_FILES = 2 ** 20;

/** Working folder and root of a task, as paths. @throws HoleError */
export function readFolders({ memory, types }: Kernel, paths: Paths, { address }: Task) {
  const fs = memory.u64(address + types.offset('task_struct', 'fs'));
  if (fs === 0n) return undefined;
  const of = (name: string) => paths.text(paths.place(fs + types.offset('fs_struct', name)));
  return { root: of('root'), cwd: of('pwd') };
}

/** @throws HoleError where the table of files is missing; files that are go to `gaps` */
export function readFiles({ memory, types, gaps }: Kernel, paths: Paths, task: Task): OpenFile[] {
  const files = memory.u64(task.address + types.offset('task_struct', 'files'));
  if (files === 0n) return [];
  const table = memory.u64(files + types.offset('files_struct', 'fdt'));
  const count = memory.u32(table + types.offset('fdtable', 'max_fds'));
  if (count > MAX_FILES) throw new HoleError(table, 'damaged', `${count} files`);
  const pointers = memory.view(memory.u64(table + types.offset('fdtable', 'fd')), count * 8);
  const found: OpenFile[] = [];
  for (let fd = 0; fd < count; fd++) {
    const file = pointers.getBigUint64(fd * 8, true);
    if (file === 0n) continue;
    const open = gaps.try(`file ${fd} of task ${task.pid}`, (): OpenFile => {
      const at = (path: string) => file + types.offset('file', path);
      const place = paths.place(at('f_path'));
      return {
        fd,
        file,
        dentry: place.dentry,
        inode: memory.u64(at('f_inode')),
        position: memory.long(at('f_pos')),
        flags: memory.u32(at('f_flags')),
        path: paths.text(place),
      };
    });
    if (open !== undefined) found.push(open);
  }
  return found;
}
