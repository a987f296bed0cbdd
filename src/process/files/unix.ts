/** Sockets of the UNIX domain within a tree: unix(7). What waits in them is in unixqueue.ts. */
import { chmodSync, chownSync, lstatSync, renameSync, unlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { AT_EMPTY_PATH } from '../../abi/fcntl.ts';
import * as so from '../../abi/socket.ts';
import { TCP_CLOSE, TCP_ESTABLISHED, TCP_LISTEN } from '../../abi/tcp.ts';
import { bytesOf, textOf } from '../../abi/text.ts';
import { FormatError, UnsupportedError } from '../../errors.ts';
import type { unix_sk_entry } from '../../image/messages/sockets.ts';
import type { Value } from '../../image/proto.ts';
import { fileName, images } from '../../image/types.ts';
import { attributes, close, ioctl, readlink } from '../../sys/files.ts';
import { Messages } from '../../sys/message.ts';
import { type UnixSocket, unixSockets } from '../../sys/sock_diag.ts';
import { accept4, bind, connect, getOption, listen, shutdown, socket, socketpair } from '../../sys/socket.ts';
import type { Restoring } from '../restoring.ts';
import type { Saving } from '../saving.ts';
import { type FileKind, type OpenFile, restoreOwner, saveOwner, setStatusFlags } from './file.ts';
import { restoreOptions, saveOptions } from './socket.ts';
import { LARGEST_MESSAGE, refillQueue, saveQueue } from './unixqueue.ts';

type UnixEntry = Value<typeof unix_sk_entry>;

const DELETED = ' (deleted)';
const ALL_STATES = (1 << TCP_ESTABLISHED) | (1 << TCP_LISTEN) | (1 << TCP_CLOSE);

export const unix: FileKind = {
  type: 'UNIXSK',

  matches: ({ link, local }) =>
    link.startsWith('socket:') && getOption(local, so.SOL_SOCKET, so.SO_DOMAIN) === so.AF_UNIX,

  save(file, saving) {
    const ino = Number(file.stat.stx_ino);
    const found = socketsNow(saving).get(ino);
    if (found === undefined) throw refuse(file, 'the kernel does not list it', 'load the module unix_diag');
    const usk: UnixEntry = {
      ...{ id: file.id, ino, type: found.type, state: found.state, flags: file.flags, uflags: 0 },
      backlog: found.state === TCP_LISTEN ? found.sendQueue : 0,
      peer: found.peer || listenerOf(saving, ino),
      fown: saveOwner(file),
      opts: saveOptions(file.local),
      ...placeOf(file, found),
      ...(found.shutdown === 0 ? {} : { shutdown: SHUTDOWN[found.shutdown]! }),
    };
    return { usk };
  },

  restore(entry, restoring) {
    const sockets = restoring.once('unix sockets', () => makeSockets(restoring));
    // Descriptors in flight may be such sockets themselves.
    if (restoring.first('unix queues')) completeSockets(restoring, sockets);
    return sockets.made.get(entry.usk!.ino)!;
  },
};

const SHUTDOWN: readonly UnixEntry['shutdown'][] = ['NONE', 'READ', 'WRITE', 'BOTH'];

/** All of this network namespace, by inode. */
function socketsNow(saving: Saving): ReadonlyMap<number, UnixSocket> {
  return saving.once('unix sockets', () => new Map(unixSockets(ALL_STATES).map((each) => [each.inode, each])));
}

/** Of one that connects and is not accepted yet: the listening socket. */
function listenerOf(saving: Saving, ino: number): number {
  for (const each of socketsNow(saving).values()) if (each.pending.includes(ino)) return each.inode;
  return 0;
}

/** The name as the program gave it, and the file behind it. */
function placeOf(
  file: OpenFile,
  { name }: UnixSocket,
): Pick<UnixEntry, 'name' | 'name_dir' | 'deleted' | 'file_perms'> {
  if (name === undefined) return { name: new Uint8Array(0) };
  if (name.startsWith('\0')) return { name: bytesOf(name) };
  const bytes = bytesOf(`${name}\0`);
  // SIOCUNIXFILE of unix(7): the file itself, whatever its path leads to now.
  const fd = ioctl({ fd: file.local, request: so.SIOCUNIXFILE, arg: 0 });
  try {
    const stat = attributes(fd, '', AT_EMPTY_PATH);
    const link = readlink(`/proc/self/fd/${fd}`);
    const deleted = stat.stx_nlink === 0;
    const path = deleted && link.endsWith(DELETED) ? link.slice(0, -DELETED.length) : link;
    return {
      name: bytes,
      file_perms: { mode: stat.stx_mode, uid: stat.stx_uid, gid: stat.stx_gid },
      ...(deleted ? { deleted } : {}),
      ...(name.startsWith('/') ? {} : { name_dir: directoryOf(path, name) }),
    };
  } finally {
    close({ fd });
  }
}

/** The directory from which a relative name leads to a path. */
function directoryOf(path: string, name: string): string {
  return path.endsWith(`/${name}`) ? path.slice(0, -name.length - 1) || '/' : dirname(path);
}

function refuse(
  { pid, fd, link }: Pick<OpenFile, 'pid' | 'fd' | 'link'>,
  why: string,
  remedy: string,
): UnsupportedError {
  return new UnsupportedError({ what: link, pid, fd, why, remedy });
}

/**
 * Saves what waits in sockets. The descriptors among it may be of sockets that are known by nothing else, and so on.
 *
 * @param files all sockets known so far; it grows
 * @param keep saves an open file by a descriptor here @returns its id
 */
export function saveUnixQueues(saving: Saving, files: readonly OpenFile[], keep: (fd: number) => number): void {
  const messages = new Messages(LARGEST_MESSAGE);
  try {
    for (const { local, id } of files) {
      const entry = saving.files.find((each) => each.id === id)!.usk;
      if (entry === undefined || entry.state === TCP_LISTEN) continue;
      saving.socketQueues.push(...saveQueue({ local, id, type: entry.type }, messages, keep));
    }
  } finally {
    messages[Symbol.dispose]();
  }
}

/** @throws UnsupportedError for a socket that is connected with one outside the tree */
export function checkUnix(saving: Saving, files: readonly OpenFile[], stopped: boolean): void {
  const now = socketsNow(saving);
  // While they run it is not looked at what waits in sockets, which may be the other end of one.
  const mayFly = !stopped && files.some(({ stat }) => (now.get(Number(stat.stx_ino))?.receiveQueue ?? 0) > 0);
  const known = new Map(saving.files.flatMap(({ usk }) => (usk === undefined ? [] : [[usk.ino, usk] as const])));
  for (const file of files) {
    const entry = known.get(Number(file.stat.stx_ino));
    if (entry === undefined || entry.peer === 0) continue;
    const peer = known.get(entry.peer);
    if (peer === undefined) {
      if (mayFly) continue;
      const other = now.get(entry.peer)?.name;
      const named = other === undefined || other === '' ? '' : ` (${other.replace('\0', '@')})`;
      throw refuse(
        file,
        `its other end${named} is a socket of a process outside the tree`,
        'save a tree that has both ends, or have the program close it',
      );
    }
    if (peer.state === TCP_LISTEN && outgoing(file.local) > 0) {
      throw refuse(file, 'what it has sent waits in a connection that is not accepted yet', 'try again in a moment');
    }
    if (entry.type === so.SOCK_DGRAM && peer.peer !== entry.ino && peer.name.length === 0) {
      throw refuse(file, 'it is connected to a socket that has no name', 'have the program bind that one');
    }
  }
}

/** Bytes that were sent and not read: SIOCOUTQ of unix(7). */
function outgoing(fd: number): number {
  const arg = new Uint8Array(4);
  ioctl({ fd, request: so.SIOCOUTQ, arg });
  return new DataView(arg.buffer).getInt32(0, true);
}

/** The sockets of an image by inode. */
interface Sockets {
  readonly entries: ReadonlyMap<number, UnixEntry>;
  readonly made: Map<number, number>;
  /** Other ends of those whose other end was closed. */
  readonly ends: Map<number, number>;
}

/** Makes all sockets of the image: those that are bound, among them those that listen, then those that are connected. */
function makeSockets(restoring: Restoring): Sockets {
  const all = [...restoring.tree.files.values()].flatMap(({ usk }) => usk ?? []);
  const sockets: Sockets = {
    entries: new Map(all.map((entry) => [entry.ino, entry])),
    made: new Map(),
    ends: new Map(),
  };
  const { entries, made } = sockets;
  const connected = (entry: UnixEntry) => entry.type !== so.SOCK_DGRAM && entry.state === TCP_ESTABLISHED;
  for (const entry of all) {
    if (connected(entry)) continue;
    const peer = entries.get(entry.peer);
    if (peer !== undefined && peer.peer === entry.ino) {
      // Each is the other's peer, which socketpair(2) makes of sockets without a name.
      if (made.has(entry.ino)) continue;
      const [one, two] = pairOf(entry.type);
      made.set(entry.ino, one).set(peer.ino, two);
      if (peer !== entry) bindTo(restoring, two, peer);
      bindTo(restoring, one, entry);
      continue;
    }
    const fd = newSocket(entry.type);
    made.set(entry.ino, fd);
    bindTo(restoring, fd, entry);
    if (entry.state === TCP_LISTEN) listen({ sockfd: fd, backlog: entry.backlog });
  }
  for (const entry of all) if (connected(entry)) makeConnected(entry, sockets, restoring);
  return sockets;
}

/** A stream with its other end, or with none where that is closed. */
function makeConnected(entry: UnixEntry, sockets: Sockets, restoring: Restoring): void {
  const { entries, made, ends } = sockets;
  if (made.has(entry.ino)) return;
  const peer = entries.get(entry.peer);
  if (peer?.state === TCP_LISTEN) {
    // It waits to be accepted.
    const fd = newSocket(entry.type);
    made.set(entry.ino, fd);
    bindTo(restoring, fd, entry);
    connectTo(fd, peer);
    return;
  }
  const keep = (of: UnixEntry | undefined, fd: number) => (of === undefined ? ends : made).set((of ?? entry).ino, fd);
  if (entry.name.length === 0 && (peer?.name.length ?? 0) === 0) {
    const [one, two] = pairOf(entry.type);
    made.set(entry.ino, one);
    keep(peer, two);
    return;
  }
  // The accepted end has the name of the listening socket; where both have names, the other one was bound before it connected.
  const accepted = entry.name.length > 0 && (peer === undefined || peer.name.length === 0 || listens(entry, sockets));
  const [server, client] = accepted ? [entry, peer] : [peer!, entry];
  const fd = newSocket(entry.type);
  if (client !== undefined) bindTo(restoring, fd, client);
  made.set(server.ino, acceptFor(server, fd, sockets));
  keep(client, fd);
}

function listens(of: UnixEntry, { entries }: Sockets): UnixEntry | undefined {
  for (const each of entries.values()) {
    if (each.state === TCP_LISTEN && each.type === of.type && Buffer.compare(each.name, of.name) === 0) return each;
  }
  return undefined;
}

/** Connects `fd` to the name of `server` and returns the other end. */
function acceptFor(server: UnixEntry, fd: number, sockets: Sockets): number {
  const alive = listens(server, sockets);
  const accept = (listener: number) => accept4({ sockfd: listener, addr: 0, addrlen: 0, flags: so.SOCK_CLOEXEC });
  if (alive !== undefined) {
    connectTo(fd, alive);
    return accept(sockets.made.get(alive.ino)!);
  }
  // Nobody listens any more: for as long as it takes. What stands under the name goes aside meanwhile.
  const listener = newSocket(server.type);
  return within(server, () => {
    const path = pathOf(server);
    const aside = path !== undefined && exists(path) ? `${path}.${process.pid}` : undefined;
    if (aside !== undefined) renameSync(path!, aside);
    try {
      const addr = addressOf(server);
      bind({ sockfd: listener, addr, addrlen: addr.length });
      listen({ sockfd: listener, backlog: 1 });
      connect({ sockfd: fd, addr, addrlen: addr.length });
      return accept(listener);
    } finally {
      close({ fd: listener });
      if (path !== undefined) unlinkSync(path);
      if (aside !== undefined) renameSync(aside, path!);
    }
  });
}

/** Sends again what waited, and makes the rest of what makes the sockets as they were. */
function completeSockets(restoring: Restoring, sockets: Sockets): void {
  const messages = new Messages(LARGEST_MESSAGE);
  try {
    for (const entry of sockets.entries.values()) refill(entry, sockets, restoring, messages);
  } finally {
    messages[Symbol.dispose]();
  }
  for (const fd of sockets.ends.values()) close({ fd });
  for (const entry of sockets.entries.values()) settle(entry, sockets, restoring);
}

function refill(entry: UnixEntry, { entries, made, ends }: Sockets, restoring: Restoring, messages: Messages): void {
  const packets = restoring.socketQueues.get(entry.id);
  if (packets === undefined) return;
  const open = (id: number) => restoring.open(id);
  const end = ends.get(entry.ino) ?? (entries.get(entry.peer)?.peer === entry.ino ? made.get(entry.peer) : undefined);
  if (end !== undefined) {
    refillQueue(end, packets, messages, open);
    return;
  }
  if (entry.name.length === 0) {
    throw new FormatError({
      file: fileName(images.FILES),
      field: `usk ${entry.id}`,
      expected: 'a name or another end, as messages wait in it',
      found: 'neither',
    });
  }
  const from = newSocket(entry.type);
  try {
    within(entry, () => refillQueue(from, packets, messages, open, addressOf(entry)));
  } finally {
    close({ fd: from });
  }
}

function settle(entry: UnixEntry, { entries, made }: Sockets, restoring: Restoring): void {
  const fd = made.get(entry.ino)!;
  const peer = entries.get(entry.peer);
  if (entry.type === so.SOCK_DGRAM && peer !== undefined && peer.peer !== entry.ino) connectTo(fd, peer);
  restoreOptions(fd, entry.opts);
  const how = SHUTDOWN.indexOf(entry.shutdown ?? 'NONE');
  // One whose other end was closed has been shut down by that.
  if (how > 0 && peer !== undefined) shutdown({ sockfd: fd, how: how - 1 });
  setStatusFlags(fd, entry.flags);
  restoreOwner(restoring, fd, entry.fown);
}

function connectTo(fd: number, peer: UnixEntry): void {
  const addr = addressOf(peer);
  within(peer, () => connect({ sockfd: fd, addr, addrlen: addr.length }));
}

function newSocket(type: number): number {
  return socket({ domain: so.AF_UNIX, type: type | so.SOCK_CLOEXEC | so.SOCK_NONBLOCK, protocol: 0 });
}

function pairOf(type: number): [number, number] {
  const sv = new Uint8Array(8);
  socketpair({ domain: so.AF_UNIX, type: type | so.SOCK_CLOEXEC | so.SOCK_NONBLOCK, protocol: 0, sv });
  const view = new DataView(sv.buffer);
  return [view.getInt32(0, true), view.getInt32(4, true)];
}

/** Gives it its name, and the file of that name owner and mode. */
function bindTo(restoring: Restoring, fd: number, entry: UnixEntry): void {
  if (entry.name.length === 0) return;
  within(entry, () => {
    const path = pathOf(entry);
    if (path !== undefined) clearWay(path, entry);
    const addr = addressOf(entry);
    bind({ sockfd: fd, addr, addrlen: addr.length });
    if (path === undefined) return;
    if (entry.file_perms !== undefined) {
      chownSync(path, entry.file_perms.uid, entry.file_perms.gid);
      chmodSync(path, entry.file_perms.mode & 0o7777);
    }
    if (entry.deleted === true) restoring.atEnd(() => within(entry, () => unlinkSync(path)));
  });
}

/** Removes what the program that died has left. @throws UnsupportedError where a socket is alive, or it is none */
function clearWay(path: string, entry: UnixEntry): void {
  if (!exists(path)) return;
  const taken = (why: string) =>
    new UnsupportedError({ what: `socket ${path}`, why, remedy: 'move it away, or end what uses it' });
  if (!lstatSync(path).isSocket()) throw taken('a file that is no socket has its name');
  const fd = newSocket(entry.type);
  try {
    const addr = addressOf(entry);
    if (connect.attempt({ sockfd: fd, addr, addrlen: addr.length }) === 0) throw taken('another process uses it');
  } finally {
    close({ fd });
  }
  unlinkSync(path);
}

function exists(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** A name that is a path, as the program gave it. */
function pathOf({ name }: UnixEntry): string | undefined {
  return name[0] === 0 ? undefined : textOf(name).replace(/\0$/, '');
}

function addressOf({ name }: UnixEntry): Uint8Array {
  const { sun_path } = so.sockaddr_un.offsets;
  const address = new Uint8Array(sun_path + name.length);
  address[0] = so.AF_UNIX;
  address.set(name, sun_path);
  return address;
}

/** Does something in the directory from which a relative name leads on. */
function within<T>({ name_dir }: UnixEntry, action: () => T): T {
  if (name_dir === undefined) return action();
  const before = process.cwd();
  process.chdir(name_dir);
  try {
    return action();
  } finally {
    process.chdir(before);
  }
}
