/** Names of files: fs/d_path.c. */
import { HoleError } from '../../errors.ts';
import type { Kernel } from './kernel.ts';

/** PATH_MAX: include/uapi/linux/limits.h. No path has more parts. */
const MAX_PARTS = 4096;
const MAX_NAME = 256;

/** A place in the tree of files: a struct path, with the mount that holds its vfsmount. */
export interface Place {
  readonly mount: bigint;
  readonly dentry: bigint;
}

export class Paths {
  readonly #kernel: Kernel;
  /** Paths of places where something is mounted, and of what was asked for: neighbours share most of theirs. */
  readonly #names = new Map<bigint, string>();

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  /** @param path address of a struct path */
  place(path: bigint): Place {
    const { memory, types } = this.#kernel;
    const dentry = memory.u64(path + types.offset('path', 'dentry'));
    return { mount: this.mountOf(memory.u64(path + types.offset('path', 'mnt'))), dentry };
  }

  /** The struct mount of a struct vfsmount. */
  mountOf(vfsmount: bigint): bigint {
    return vfsmount - this.#kernel.types.offset('mount', 'mnt');
  }

  /** As /proc/PID/fd shows it: `/etc/passwd`, `pipe:[4711]`, `/tmp/gone (deleted)`. @throws HoleError */
  text(place: Place): string {
    const special = this.#special(place);
    if (special !== undefined) return special;
    const path = this.#absolute(place);
    return this.#isDeleted(place.dentry) ? `${path} (deleted)` : path;
  }

  /** dentry_operations.d_dname: files that lie in no folder name themselves. */
  #special({ dentry }: Place): string | undefined {
    const { memory, types, symbols } = this.#kernel;
    const operations = memory.u64(dentry + types.offset('dentry', 'd_op'));
    if (operations === 0n) return undefined;
    const namer = memory.u64(operations + types.offset('dentry_operations', 'd_dname'));
    if (namer === 0n) return undefined;
    const inode = memory.u64(dentry + types.offset('dentry', 'd_inode'));
    const number = () => memory.u64(inode + types.offset('inode', 'i_ino'));
    switch (symbols.lookup(namer)?.name) {
      case 'sockfs_dname':
        return `socket:[${number()}]`;
      case 'pipefs_dname':
        return `pipe:[${number()}]`;
      case 'anon_inodefs_dname':
        return `anon_inode:${this.#name(dentry)}`;
      case 'ns_dname': {
        const operations = memory.u64(
          memory.u64(inode + types.offset('inode', 'i_private')) + types.offset('ns_common', 'ops'),
        );
        const kind = memory.u64(operations + types.offset('proc_ns_operations', 'name'));
        return `${memory.string(kind, MAX_NAME)}:[${number()}]`;
      }
      case 'simple_dname':
        return `/${this.#name(dentry)} (deleted)`;
      default:
        return undefined;
    }
  }

  /** prepend_path(), up to the root of the namespace. */
  #absolute({ mount, dentry }: Place): string {
    const { memory, types } = this.#kernel;
    const parts: string[] = [];
    let [where, at] = [mount, dentry];
    let start = '';
    for (;;) {
      if (parts.length > MAX_PARTS) throw new HoleError(dentry, 'damaged', 'the path leads in a circle');
      const root = memory.u64(where + types.offset('mount', 'mnt.mnt_root'));
      const parent = memory.u64(at + types.offset('dentry', 'd_parent'));
      if (at !== root && at !== parent) {
        parts.push(this.#name(at));
        at = parent;
        continue;
      }
      const above = memory.u64(where + types.offset('mount', 'mnt_parent'));
      if (above === where || at !== root) break;
      const known = this.#names.get(where);
      if (known !== undefined) {
        start = known;
        break;
      }
      const mountpoint = memory.u64(where + types.offset('mount', 'mnt_mountpoint'));
      start = this.#mountpoint(where, { mount: above, dentry: mountpoint });
      break;
    }
    const path = parts.toReversed().map((part) => `/${part}`);
    return `${start === '/' ? '' : start}${path.join('')}` || '/';
  }

  #depth = 0;

  /** Of a mount's own place, remembered: all that is mounted there begins with it. */
  #mountpoint(mount: bigint, place: Place): string {
    if (++this.#depth > MAX_PARTS / 16) throw new HoleError(mount, 'damaged', 'the mounts lead in a circle');
    try {
      const text = this.#absolute(place);
      this.#names.set(mount, text);
      return text;
    } finally {
      this.#depth--;
    }
  }

  #name(dentry: bigint): string {
    const { memory, types } = this.#kernel;
    return memory.string(memory.u64(dentry + types.offset('dentry', 'd_name.name')), MAX_NAME);
  }

  /** d_unlinked(): not in the hash of names, and not the root of a tree. */
  #isDeleted(dentry: bigint): boolean {
    const { memory, types } = this.#kernel;
    const hashed = memory.u64(dentry + types.offset('dentry', 'd_hash.pprev')) !== 0n;
    return !hashed && memory.u64(dentry + types.offset('dentry', 'd_parent')) !== dentry;
  }
}
