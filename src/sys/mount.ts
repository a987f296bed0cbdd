/**
 * File systems as a whole: mount(2), umount(2), sync(2), pivot_root(2), mount_setattr(2), and the calls that make mounts of
 * descriptors: open_tree(2), move_mount(2), fsopen(2) and its family.
 */
import { AT_EMPTY_PATH } from '../abi/fcntl.ts';
import * as abi from '../abi/mount.ts';
import { close } from './files.ts';
import { cstring, dirfd, flags, hex, input, int, syscall } from './syscall.ts';

/**
 * @param data bytes with a NUL at the end, or 0
 * @throws SyscallError EBUSY (a file is open for writing, on MS_RDONLY), EPERM, EINVAL
 */
export const mount = syscall('mount', 165, {
  source: cstring,
  target: cstring,
  filesystemtype: cstring,
  mountflags: flags(abi, /^MS_/),
  data: input,
});

/** @returns a descriptor of the mount that a path leads to, or of a copy of it @throws SyscallError EINVAL (of another namespace) */
export const open_tree = syscall('open_tree', 428, { dfd: dirfd, filename: cstring, flags: hex });
/** @throws SyscallError EINVAL (not a mount, or one whose parent is shared), ENOTDIR (a file and a directory) */
export const move_mount = syscall('move_mount', 429, {
  from_dfd: dirfd,
  from_pathname: cstring,
  to_dfd: dirfd,
  to_pathname: cstring,
  flags: flags(abi, /^MOVE_MOUNT_/),
});
/** @returns a descriptor of a file system that is to be configured @throws SyscallError ENODEV (this kernel has none such) */
export const fsopen = syscall('fsopen', 430, { fsname: cstring, flags: hex });
export const fsconfig = syscall('fsconfig', 431, { fd: int, cmd: int, key: input, value: input, aux: int });
/** @returns a descriptor of a mount that is nowhere yet */
export const fsmount = syscall('fsmount', 432, { fsfd: int, flags: hex, attr_flags: flags(abi, /^MOUNT_ATTR_/) });

/**
 * A new mount of a file system without a device, for those who have its descriptor; it is nowhere in the tree of files.
 *
 * @returns its descriptor
 * @throws SyscallError ENODEV (the kernel does not have it), EPERM
 */
export function mountNew(fsname: string): number {
  const fsfd = fsopen({ fsname, flags: abi.FSOPEN_CLOEXEC });
  try {
    fsconfig({ fd: fsfd, cmd: abi.FSCONFIG_CMD_CREATE, key: 0, value: 0, aux: 0 });
    return fsmount({ fsfd, flags: abi.FSMOUNT_CLOEXEC, attr_flags: 0 });
  } finally {
    close({ fd: fsfd });
  }
}
/** @param uattr a mount_attr */
export const mount_setattr = syscall('mount_setattr', 442, {
  dfd: dirfd,
  path: cstring,
  flags: hex,
  uattr: input,
  usize: int,
});
/** @throws SyscallError EINVAL (the new root is no mount, or something is shared), EBUSY */
export const pivot_root = syscall('pivot_root', 155, { new_root: cstring, put_old: cstring });

/** @throws SyscallError EBUSY (a file is open), EINVAL (nothing is mounted there), EPERM */
export const umount2 = syscall('umount2', 166, { target: cstring, flags: hex });

/** Writes out all file systems and waits for it. */
export const sync = syscall('sync', 162, {});

/** Sets and takes away attributes of the mount that a descriptor is of. @param attr fields of a mount_attr */
export function setAttributes(fd: number, attr: { attr_set?: number; attr_clr?: number; propagation?: number }): void {
  const uattr = abi.mount_attr.write(attr);
  mount_setattr({ dfd: fd, path: '', flags: AT_EMPTY_PATH, uattr, usize: uattr.length });
}
