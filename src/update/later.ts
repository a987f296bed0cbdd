/**
 * Large trees go on before their memory is there: another process brings it (lazypages.ts), and removes the checkpoint when all of it
 * has come.
 *
 *     who restores                                    tideover update bring
 *     mappings, userfaultfds  ---------------------->  takes them, has a guard
 *     waits                   <--- ready ------------
 *     the tree goes on, "gone on" ------------------>  brings what is touched, and all else; compares the checksums;
 *                                                      writes `brought` into the note of turn.ts; removes the checkpoint
 *
 * The lock of the turn goes over to that process and its guard. Preserved memory itself stays free for others: the tree's own
 * nodes are not removed as long as the turn is taken.
 */
import { spawn } from 'node:child_process';
import { closeSync, readFileSync, readSync, writeSync } from 'node:fs';
import { AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM } from '../abi/socket.ts';
import { viewOf } from '../abi/struct.ts';
import { UnsupportedError } from '../errors.ts';
import type { ImageStore } from '../image/store.ts';
import { READY } from '../process/lazy.ts';
import { bringPages, LazyImage, type LazyResult } from '../process/lazypages.ts';
import { type RestoreOptions, restore } from '../process/restore.ts';
import { socketpair } from '../sys/socket.ts';
import { openNode, type Place } from './medium.ts';
import { dropSpilled } from './spill.ts';
import { BROUGHT, type Turn } from './turn.ts';
import { restoreVolatile } from './volatile.ts';
import { type Checkpoint, openCheckpoint } from './workload.ts';

/** Bytes of memory from which on it comes later: less is read in the time that the other process takes to start, some 70 ms. */
const LARGE = 128 << 20;
/** Descriptors of the process that brings pages. */
const [SOCKET, NOTE] = [3, 4];
const GONE_ON = 'gone on\n';

/** How tideover is started, to bring pages: its program and arguments. */
export type Program = readonly [string, ...string[]];

/** A turn for which the process that is to bring memory has been started already: it takes as long to start as the rest. */
export interface BegunTurn extends Turn {
  /** A socket to it; undefined where none was started, or it is in use already. */
  bringing: number | undefined;
}

/** Starts what will bring the memory of a tree, where that is to come later. @param turn goes over to what is returned */
export function beginTurn(image: ImageStore, turn: Turn, name: string, where: Checkpoint, program: Program): BegunTurn {
  const begun: BegunTurn = {
    ...turn,
    bringing: undefined,
    [Symbol.dispose]() {
      if (begun.bringing !== undefined) closeSync(begun.bringing);
      begun.bringing = undefined;
      turn[Symbol.dispose]();
    },
  };
  if (memoryIn(image) >= LARGE) begun.bringing = startBringing(program, { name, where, turn });
  return begun;
}

export interface Restored {
  readonly pid: number;
  /** Its memory comes later, and who brings it removes the checkpoint. */
  readonly later: boolean;
}

/**
 * Restores a tree whose turn it is.
 *
 * @param program undefined to have all memory there before it goes on
 * @throws what restore() does
 */
export function restoreInTurn(
  image: ImageStore,
  options: Omit<RestoreOptions, 'note' | 'lazyPages' | 'sameFiles'>,
  how: {
    readonly turn: Turn | BegunTurn;
    readonly name: string;
    /** Of preserved memory. */
    readonly place: Place | undefined;
    readonly where: Checkpoint;
    readonly program: Program | undefined;
    /** Is told why it was not done so. */
    warn(text: string): void;
  },
): Restored {
  const { turn, program } = how;
  restoreVolatile(how.place, how.where);
  if (program !== undefined && memoryIn(image) >= LARGE) {
    const socket = ('bringing' in turn ? turn.bringing : undefined) ?? startBringing(program, how);
    if ('bringing' in turn) turn.bringing = undefined;
    try {
      const { pid } = restore(image, { ...options, sameFiles: true, note: turn.noteOfLater, lazyPages: socket });
      tell(socket, GONE_ON);
      // It outlives this kernel, and would have the tree go on once more. The node is needed until all is there.
      if (how.where.kind === 'node') dropSpilled(how.name);
      return { pid, later: true };
    } catch (error) {
      if (!(error instanceof UnsupportedError)) throw error;
      how.warn(`${how.name} goes on when all of its memory is there: ${error.message}`);
    } finally {
      closeSync(socket);
    }
  }
  return { pid: restore(image, { ...options, sameFiles: true, note: turn.note }).pid, later: false };
}

/** Bytes of memory in an image and those on which it builds. */
function memoryIn(image: ImageStore): number {
  const pages = image.names().filter((file) => /^pages-\d+\.img$/.test(file));
  const parent = image.parent?.();
  const own = pages.reduce((sum, file) => {
    const source = image.open(file);
    source.close();
    return sum + source.size;
  }, 0);
  return own + (parent === undefined ? 0 : memoryIn(parent));
}

/** @returns a socket to it */
function startBringing(
  [file, ...args]: Program,
  { name, where, turn }: { readonly name: string; readonly where: Checkpoint; readonly turn: Turn },
): number {
  const sv = new Uint8Array(8);
  socketpair({ domain: AF_UNIX, type: SOCK_STREAM | SOCK_CLOEXEC, protocol: 0, sv });
  const [ours, theirs] = [viewOf(sv).getInt32(0, true), viewOf(sv).getInt32(4, true)];
  const of = where.kind === 'node' ? ['--node', where.node] : ['--images-dir', where.path];
  const child = spawn(file, [...args, 'update', 'bring', name, ...of], {
    detached: true,
    stdio: ['ignore', 'ignore', 'ignore', theirs, turn.note.fd],
  });
  // Where it does not start nobody answers.
  child.on('error', () => {});
  child.unref();
  closeSync(theirs);
  return ours;
}

/** Who restored has told so, or has ended; it does not hear that everything is there already. */
function tell(socket: number, text: string): void {
  try {
    writeSync(socket, text);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
  }
}

/**
 * What that process does.
 *
 * @param place of preserved memory @param remove the checkpoint, when all memory is there
 * @returns undefined where the tree did not go on @throws what bringPages() does; the tree has been killed then
 */
export function bring(place: Place | undefined, where: Checkpoint, remove: () => void): LazyResult | undefined {
  const store = where.kind === 'node' ? openNode(place, where.node, { unlocked: true }) : openCheckpoint(place, where);
  try {
    // Before it is needed.
    const image = new LazyImage(store);
    const request = readLine();
    // Who was to restore has given up.
    if (request === undefined) return undefined;
    let result: LazyResult;
    try {
      result = bringPages(image, JSON.parse(request), {
        log: NOTE,
        going: SOCKET,
        ready: () => void writeSync(SOCKET, READY),
        filled() {},
      });
    } catch (error) {
      if (hasGoneOn()) writeSync(NOTE, `${(error as Error).message.replaceAll('\n', ' ')}\n`);
      throw error;
    }
    if (!hasGoneOn()) return undefined;
    writeSync(NOTE, BROUGHT);
    store.close();
    remove();
    return result;
  } finally {
    store.close();
  }
}

/** What who restores sends first; undefined where it ends before. */
function readLine(): string | undefined {
  const buffer = Buffer.alloc(65_536);
  for (let text = ''; ; ) {
    const got = readSync(SOCKET, buffer);
    if (got === 0) return undefined;
    text += buffer.toString('utf8', 0, got);
    if (text.endsWith('\n')) return text;
  }
}

/** To be asked once. Waits until who restores is done. */
function hasGoneOn(): boolean {
  return readFileSync(SOCKET, 'utf8') === GONE_ON;
}
