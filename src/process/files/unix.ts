import * as so from '../../abi/socket.ts';
import { TCP_CLOSE, TCP_ESTABLISHED, TCP_LISTEN } from '../../abi/tcp.ts';
import { bytesOf } from '../../abi/text.ts';
import { UnsupportedError } from '../../errors.ts';
import { close, ioctlInt } from '../../sys/files.ts';
import { Messages } from '../../sys/message.ts';
import { type UnixSocket, unixSockets } from '../../sys/sock_diag.ts';
import { accept4, getOption, listen, shutdown, socket, socketpair } from '../../sys/socket.ts';
import type { Restoring } from '../restoring.ts';
import type { Saving } from '../saving.ts';
import { type FileKind, type OpenFile, restoreOwner, saveOwner, setStatusFlags } from './file.ts';
import { restoreOptions, SHUTDOWN, saveOptions } from './socket.ts';
import { addressOf, bindTo, connectTo, nameOf, type UnixEntry } from './unixname.ts';
import { LARGEST_MESSAGE, refillQueue, saveQueue } from './unixqueue.ts';

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
      ...nameOf(file, found.name),
      ...(found.shutdown === 0 ? {} : { shutdown: SHUTDOWN[found.shutdown]! }),
      ...(file.external === undefined ? {} : { external: true }),
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

/** All of this network namespace, by inode. */
function socketsNow(saving: Saving): ReadonlyMap<number, UnixSocket> {
  return saving.once('unix sockets', () => new Map(unixSockets(ALL_STATES).map((each) => [each.inode, each])));
}

/** Of one that connects and is not accepted yet: the listening socket. */
function listenerOf(saving: Saving, ino: number): number {
  for (const each of socketsNow(saving).values()) if (each.pending.includes(ino)) return each.inode;
  return 0;
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
      if (entry === undefined || entry.state === TCP_LISTEN || entry.external) continue;
      saving.socketQueues.push(...saveQueue({ local, id, type: entry.type }, messages, keep));
    }
  } finally {
    messages[Symbol.dispose]();
  }
}

/** Whether something waits in sockets: it may be descriptors. */
export function isAnythingWaiting(saving: Saving, sockets: readonly OpenFile[]): boolean {
  return sockets.some(({ stat }) => (socketsNow(saving).get(Number(stat.stx_ino))?.receiveQueue ?? 0) > 0);
}

/** @throws UnsupportedError for a socket that is connected with one outside the tree */
export function checkUnix(saving: Saving, sockets: readonly OpenFile[]): void {
  if (sockets.length === 0) return;
  const now = socketsNow(saving);
  const known = new Map(saving.files.flatMap(({ usk }) => (usk === undefined ? [] : [[usk.ino, usk] as const])));
  for (const file of sockets) {
    const entry = known.get(Number(file.stat.stx_ino));
    if (entry === undefined || entry.external) continue;
    if (now.get(entry.ino)!.pending.some((client) => !known.has(client))) {
      throw refuse(
        file,
        'a process outside the tree, or one that has gone, waits to be accepted by it',
        'try again in a moment, when the program has accepted it',
      );
    }
    if (entry.peer === 0) continue;
    const peer = known.get(entry.peer) ?? outside(saving, file, entry);
    if (peer === undefined) {
      const other = now.get(entry.peer)?.name;
      const named = other === undefined || other === '' ? '' : ` (${other.replace('\0', '@')})`;
      throw refuse(
        file,
        `its other end${named} is a socket of a process outside the tree`,
        `save a tree that has both ends, or give ${isNamed(now.get(entry.peer)) ? '--ext-unix-sk' : `--external '${file.link}' and bring it to the restore: --inherit-fd`}`,
      );
    }
    known.set(peer.ino, peer);
    if (peer.state === TCP_LISTEN && ioctlInt(file.local, so.SIOCOUTQ) > 0) {
      throw refuse(file, 'what it has sent waits in a connection that is not accepted yet', 'try again in a moment');
    }
    if (entry.type === so.SOCK_DGRAM && peer.peer !== entry.ino && peer.name.length === 0) {
      throw refuse(file, 'it is connected to a socket that has no name', 'have the program bind that one');
    }
  }
}

/** CRIU's USK_EXTERN: a socket that is not made, but that others connect to. */
const USK_EXTERN = 1;

/** One that has no connections, and a name that leads to it from everywhere. */
function isNamed(socket: UnixSocket | undefined): boolean {
  return socket?.type === so.SOCK_DGRAM && /^[\0/]/.test(socket.name ?? '');
}

/** The entry of a socket outside of the tree that one is connected to, if that is wanted. */
function outside(saving: Saving, file: OpenFile, { peer: ino, fown }: UnixEntry): UnixEntry | undefined {
  const { externalSockets = [] } = saving.options;
  const found = socketsNow(saving).get(ino);
  const wanted = externalSockets === 'all' || externalSockets.includes(ino);
  if (found === undefined || !wanted || !isNamed(found)) return undefined;
  const name = bytesOf(found.name!.startsWith('/') ? `${found.name}\0` : found.name!);
  const usk: UnixEntry = {
    ...{ id: saving.newId(), ino, type: found.type, state: found.state, flags: 0, uflags: USK_EXTERN, backlog: 0 },
    ...{ peer: 0, fown, opts: saveOptions(file.local), name },
  };
  saving.files.push({ type: 'UNIXSK', id: usk.id, usk });
  return usk;
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
  const all = [...restoring.tree.files.values()].flatMap(({ usk }) =>
    usk === undefined || restoring.isBrought(usk.id) ? [] : usk,
  );
  const sockets: Sockets = {
    entries: new Map(all.map((entry) => [entry.ino, entry])),
    made: new Map(),
    ends: new Map(),
  };
  const { entries, made } = sockets;
  const connected = (entry: UnixEntry) => entry.type !== so.SOCK_DGRAM && entry.state === TCP_ESTABLISHED;
  for (const entry of all) {
    if (connected(entry) || isExternal(entry)) continue;
    const peer = entries.get(entry.peer);
    if (peer !== undefined && areEachOthers(entry, peer)) {
      // Each is the other's peer, which socketpair(2) makes of sockets without a name.
      if (made.has(entry.ino)) continue;
      const [one, two] = pairOf(entry.type);
      made.set(entry.ino, one).set(peer.ino, two);
      if (peer !== entry) bindTo(restoring, two, peer);
      bindTo(restoring, one, entry);
      continue;
    }
    const fd = addSocket(entry, sockets, restoring);
    bindTo(restoring, fd, entry);
    if (entry.state === TCP_LISTEN) listen({ sockfd: fd, backlog: entry.backlog });
  }
  // Those that wait to be accepted come last: accept(2) takes the first.
  const waits = (entry: UnixEntry) => entries.get(entry.peer)?.state === TCP_LISTEN;
  for (const entry of all) if (connected(entry) && !waits(entry)) makeConnected(entry, sockets, restoring);
  for (const entry of all) if (connected(entry) && waits(entry)) makeConnected(entry, sockets, restoring);
  return sockets;
}

/** One that is not connected. What waits in it came from a socket that is closed, if it has no name to send to. */
function addSocket(entry: UnixEntry, { made, ends }: Sockets, restoring: Restoring): number {
  if (entry.name.length > 0 || !restoring.socketQueues.has(entry.id)) {
    const fd = newSocket(entry.type);
    made.set(entry.ino, fd);
    return fd;
  }
  const [one, two] = pairOf(entry.type);
  made.set(entry.ino, one);
  ends.set(entry.ino, two);
  return one;
}

function isExternal({ uflags }: UnixEntry): boolean {
  return (uflags & USK_EXTERN) !== 0;
}

/** Whether two sockets are connected with each other, and not one with itself. */
function areEachOthers(a: UnixEntry, b: UnixEntry): boolean {
  return a !== b && a.peer === b.ino && b.peer === a.ino;
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
    connectTo(restoring, fd, peer);
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
  made.set(server.ino, acceptFor(server, fd, sockets, restoring));
  keep(client, fd);
}

function listens(of: UnixEntry, { entries }: Sockets): UnixEntry | undefined {
  for (const each of entries.values()) {
    if (each.state === TCP_LISTEN && each.type === of.type && Buffer.compare(each.name, of.name) === 0) return each;
  }
  return undefined;
}

/** Connects `fd` to the name of `server` and returns the other end. */
function acceptFor(server: UnixEntry, fd: number, sockets: Sockets, restoring: Restoring): number {
  const alive = listens(server, sockets);
  const accept = (listener: number) => accept4({ sockfd: listener, addr: 0, addrlen: 0, flags: so.SOCK_CLOEXEC });
  if (alive !== undefined) {
    connectTo(restoring, fd, alive);
    return accept(sockets.made.get(alive.ino)!);
  }
  // Nobody listens any more: for as long as it takes.
  const listener = newSocket(server.type);
  try {
    bindTo(restoring, listener, { ...server, deleted: true });
    listen({ sockfd: listener, backlog: 1 });
    connectTo(restoring, fd, server);
    return accept(listener);
  } finally {
    close({ fd: listener });
  }
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
  for (const entry of sockets.entries.values()) if (!isExternal(entry)) settle(entry, sockets, restoring);
}

function refill(entry: UnixEntry, { entries, made, ends }: Sockets, restoring: Restoring, messages: Messages): void {
  const packets = restoring.socketQueues.get(entry.id);
  if (packets === undefined) return;
  const open = (id: number) => restoring.open(id);
  const peer = entries.get(entry.peer);
  const end =
    ends.get(entry.ino) ?? (peer !== undefined && areEachOthers(entry, peer) ? made.get(peer.ino) : undefined);
  if (end !== undefined) {
    refillQueue(end, packets, messages, open);
    return;
  }
  const from = newSocket(entry.type);
  try {
    refillQueue(from, packets, messages, open, addressOf(restoring, entry));
  } finally {
    close({ fd: from });
  }
}

function settle(entry: UnixEntry, { entries, made }: Sockets, restoring: Restoring): void {
  const fd = made.get(entry.ino)!;
  const peer = entries.get(entry.peer);
  if (entry.type === so.SOCK_DGRAM && peer !== undefined && !areEachOthers(entry, peer)) connectTo(restoring, fd, peer);
  restoreOptions(fd, entry.opts);
  const how = SHUTDOWN.indexOf(entry.shutdown ?? 'NONE');
  // One whose other end was closed has been shut down by that.
  if (how > 0 && peer !== undefined) shutdown({ sockfd: fd, how: how - 1 });
  setStatusFlags(fd, entry.flags);
  restoreOwner(restoring, fd, entry.fown);
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
