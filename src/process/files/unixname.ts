/** Names of sockets of the UNIX domain, and the files behind those that are paths: unix(7). */
import { chmodSync, chownSync, lstatSync, renameSync, unlinkSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { AT_EMPTY_PATH, AT_FDCWD, O_CLOEXEC, O_NOFOLLOW, O_PATH } from '../../abi/fcntl.ts';
import { AF_UNIX, SIOCUNIXFILE, SOCK_CLOEXEC, SOCK_NONBLOCK, sockaddr_un } from '../../abi/socket.ts';
import { S_IFMT, S_IFSOCK } from '../../abi/stat.ts';
import { bytesOf, textOf } from '../../abi/text.ts';
import { UnsupportedError } from '../../errors.ts';
import type { unix_sk_entry } from '../../image/messages/sockets.ts';
import type { Value } from '../../image/proto.ts';
import { attributes, close, ioctl, openat, readlink } from '../../sys/files.ts';
import { makeFolders, removeEmpty } from '../../sys/folder.ts';
import { fchdir } from '../../sys/process.ts';
import { bind, connect, socket } from '../../sys/socket.ts';
import type { Restoring } from '../restoring.ts';
import { place, Root } from '../root.ts';
import type { OpenFile } from './file.ts';

export type UnixEntry = Value<typeof unix_sk_entry>;

const DELETED = ' (deleted)';

/**
 * The name as the program gave it, and the file behind it.
 *
 * @param file the socket @param name as the kernel lists it
 */
export function nameOf(
  { local, pid }: Pick<OpenFile, 'local' | 'pid'>,
  name: string | undefined,
): Pick<UnixEntry, 'name' | 'name_dir' | 'deleted' | 'file_perms'> {
  if (name === undefined) return { name: new Uint8Array(0) };
  if (name.startsWith('\0')) return { name: bytesOf(name) };
  // The file itself, whatever its path leads to now.
  const fd = ioctl({ fd: local, request: SIOCUNIXFILE, arg: 0 });
  try {
    const stat = attributes(fd, '', AT_EMPTY_PATH);
    const link = readlink(`/proc/self/fd/${fd}`);
    const deleted = stat.stx_nlink === 0;
    const path = deleted && link.endsWith(DELETED) ? link.slice(0, -DELETED.length) : link;
    const directory = name.startsWith('/') ? undefined : directoryOf(pid, path, name);
    return {
      // From where it led to its file is not known any more, if not from where the program is: one that does is as good.
      name: bytesOf(`${directory === undefined && !name.startsWith('/') ? path : name}\0`),
      file_perms: { mode: stat.stx_mode, uid: stat.stx_uid, gid: stat.stx_gid },
      ...(deleted ? { deleted } : {}),
      ...(directory === undefined ? {} : { name_dir: directory }),
    };
  } finally {
    close({ fd });
  }
}

/** The directory from which a relative name leads to a path. */
function directoryOf(pid: number, path: string, name: string): string | undefined {
  const cwd = readlink(`/proc/${pid}/cwd`);
  if (resolve(cwd, name) === path) return cwd;
  return path.endsWith(`/${name}`) ? path.slice(0, -name.length - 1) || '/' : undefined;
}

/**
 * Gives a socket its name, and the file of that name owner and mode.
 *
 * @throws UnsupportedError where another process uses the name
 */
export function bindTo(restoring: Restoring, fd: number, entry: UnixEntry): void {
  const path = pathOf(entry);
  if (entry.name.length === 0) return;
  if (path === undefined) {
    bindHere(fd, entry.name);
    return;
  }
  restoring.root.within(() => bindPath(restoring, fd, entry, path));
  if (entry.file_perms === undefined) return;
  // By its name it might lead elsewhere by now, in a directory of another user.
  const file = `/proc/self/fd/${fileOf(restoring, entry)}`;
  chownSync(file, entry.file_perms.uid, entry.file_perms.gid);
  chmodSync(file, entry.file_perms.mode & 0o7777);
}

function bindPath(restoring: Restoring, fd: number, entry: UnixEntry, path: string): void {
  const deleted = entry.deleted === true;
  if (deleted) makeDirectories(restoring, resolve(entry.name_dir ?? '/', path));
  inDirectory(entry.name_dir, () => {
    const aside = clearWay(path, entry.type, deleted);
    bindHere(fd, entry.name);
    // It is found by this one from now on, also when its path leads elsewhere or is too long.
    restoring.once(fileKey(entry), () => {
      const file = openat({ dirfd: AT_FDCWD, pathname: path, flags: O_PATH | O_NOFOLLOW | O_CLOEXEC, mode: 0 });
      restoring.atEnd(() => close({ fd: file }));
      if ((attributes(file, '', AT_EMPTY_PATH).stx_mode & S_IFMT) !== S_IFSOCK) {
        throw taken(path, 'a file that is no socket came to have its name');
      }
      return file;
    });
    if (deleted) unlinkSync(path);
    if (aside !== undefined) renameSync(aside, path);
  });
}

/** The address of a socket that was bound here, or is another program's. */
export function addressOf(restoring: Restoring, entry: UnixEntry): Uint8Array {
  if (pathOf(entry) === undefined || !restoring.has(fileKey(entry))) return addressFor(entry.name);
  return addressFor(bytesOf(`/proc/self/fd/${fileOf(restoring, entry)}\0`));
}

/** A descriptor of the file of a socket that was bound here. */
function fileOf(restoring: Restoring, entry: UnixEntry): number {
  return restoring.once<number>(fileKey(entry), () => {
    throw new Error(`socket ${entry.id} has not been bound`);
  });
}

export function connectTo(restoring: Restoring, fd: number, entry: UnixEntry): void {
  const addr = addressOf(restoring, entry);
  const root = restoring.has(fileKey(entry)) ? Root.ours : restoring.root;
  root.within(() => connect({ sockfd: fd, addr, addrlen: addr.length }));
}

function fileKey({ ino }: UnixEntry): string {
  return `unix file ${ino}`;
}

function bindHere(fd: number, name: Uint8Array): void {
  const addr = addressFor(name);
  bind({ sockfd: fd, addr, addrlen: addr.length });
}

function addressFor(name: Uint8Array): Uint8Array {
  const { sun_path } = sockaddr_un.offsets;
  const address = new Uint8Array(sun_path + name.length);
  address[0] = AF_UNIX;
  address.set(name, sun_path);
  return address;
}

/** A name that is a path, as the program gave it. */
function pathOf({ name }: UnixEntry): string | undefined {
  if (name.length === 0 || name[0] === 0) return undefined;
  return textOf(name).replace(/\0$/, '');
}

/** The directories of a deleted file may be deleted as well. */
function makeDirectories(restoring: Restoring, path: string): void {
  const parents = makeFolders(dirname(path));
  restoring.atEnd(() => restoring.root.within(() => removeEmpty(parents)));
}

/**
 * Removes what the program that died has left.
 *
 * @param back what is there is to come back @returns where it is meanwhile
 * @throws UnsupportedError where a socket is alive, or what is there is none
 */
function clearWay(path: string, type: number, back: boolean): string | undefined {
  const there = lstatSync(path, { throwIfNoEntry: false });
  if (there === undefined) return undefined;
  if (back) {
    const aside = `${path}.${process.pid}`;
    renameSync(path, aside);
    return aside;
  }
  if (!there.isSocket()) throw taken(path, 'a file that is no socket has its name');
  const sockfd = socket({ domain: AF_UNIX, type: type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol: 0 });
  try {
    const addr = addressFor(bytesOf(`${path}\0`));
    if (connect.attempt({ sockfd, addr, addrlen: addr.length }) === 0) throw taken(path, 'another process uses it');
  } finally {
    close({ fd: sockfd });
  }
  unlinkSync(path);
  return undefined;
}

function taken(path: string, why: string): UnsupportedError {
  return new UnsupportedError({ what: `socket ${path}`, why, remedy: 'move it away, or end what uses it' });
}

/** Does something in the directory from which a relative name leads on. */
function inDirectory<T>(directory: string | undefined, action: () => T): T {
  if (directory === undefined) return action();
  const [before, there] = [place('.'), place(directory)];
  try {
    fchdir({ fd: there });
    return action();
  } finally {
    fchdir({ fd: before });
    close({ fd: before });
    close({ fd: there });
  }
}
