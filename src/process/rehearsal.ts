/**
 * Restoring a process that does nothing, to practise: code that runs for the first time takes ten times as long as it does then.
 * Where an image is still to come, as from a stream, that is time in which nobody waits.
 */

import { closeSync, openSync } from 'node:fs';
import { MFD_CLOEXEC } from '../abi/mman.ts';
import { checkedStore } from '../image/checked.ts';
import type { ImageDraft, ImageStore } from '../image/store.ts';
import { createStream, openStream } from '../image/stream.ts';
import { readTree } from '../image/tree.ts';
import { close, widenTable } from '../sys/files.ts';
import { memfd_create } from '../sys/memory.ts';
import { letCompile } from './compiling.ts';
import { endIdle, IDLE_MEMORY, startIdle } from './idle.ts';
import { infoHere } from './info.ts';
import { HeldMemory } from './memory.ts';
import { BREAK } from './practice.ts';
import { restore } from './restore.ts';
import { save } from './stopped.ts';
import { watchStore } from './watch.ts';

/** In ms. */
const PATIENCE = 260;
const [ROUNDS, ENOUGH] = [30, 10];
/** An image is read more often: that takes a tenth of the time, and is JavaScript alone. */
const READS = 3;

/** Of a small tree and its files. */
const DESCRIPTORS = 1024;

/** @param wanted whether there is still time for it @returns whether it was done often enough to be as fast as it gets, or nearly */
export function rehearseRestore(wanted: () => boolean): boolean {
  let stream = -1;
  let round = 0;
  try {
    if (!wanted()) return false;
    widenTable(DESCRIPTORS);
    stream = memfd_create({ name: 'rehearsal', flags: MFD_CLOEXEC });
    writeIdle(createStream(stream, infoHere()));
    const image = (use: (store: ImageStore) => void): void => {
      const fd = openSync(`/proc/self/fd/${stream}`, 'r');
      try {
        use(watchStore(openStream(fd), () => {}));
      } finally {
        closeSync(fd);
      }
    };
    const until = performance.now() + PATIENCE;
    for (; round < ROUNDS && performance.now() < until && wanted(); round++) {
      image((store) => endIdle(restore(store, { stopped: false, shellJob: true, rehearsed: true }).pid));
      for (let i = 0; i < READS; i++) image((store) => readTree(checkedStore(store)));
      if (round % BREAK === 0) letCompile();
    }
  } catch {
    // Where it cannot be done it is not needed; what goes wrong with the image itself is said then.
  } finally {
    if (stream >= 0) close({ fd: stream });
  }
  return round >= ENOUGH;
}

/** Writes the image of a program that does nothing. */
function writeIdle(draft: ImageDraft): void {
  const pid = startIdle(true);
  const room = new HeldMemory(IDLE_MEMORY, 0);
  try {
    const how = {
      shellJob: true,
      fileLocks: false,
      linkRemap: false,
      skipInFlight: false,
      connections: 'refused',
      // For others nothing stands still here: they are not to wait for this.
      rehearsed: true,
    } as const;
    save({ ...how, pid, outcome: 'run', timeout: 1000, ghostLimit: 1 << 20 }, draft, room);
  } finally {
    endIdle(pid);
    room[Symbol.dispose]();
  }
}
