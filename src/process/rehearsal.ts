/**
 * Restoring a process that does nothing, to practise: code that runs for the first time takes ten times as long as it does then.
 * Where an image is still to come, as from a stream, that is time in which nobody waits.
 */

import { closeSync, openSync, statSync } from 'node:fs';
import { MFD_CLOEXEC } from '../abi/mman.ts';
import { writeEntries } from '../image/file.ts';
import { type ImageDraft, MemoryStore } from '../image/store.ts';
import { createStream, openStream } from '../image/stream.ts';
import { SUMS_FILE } from '../image/sums.ts';
import { entriesOf, entryOf } from '../image/tree.ts';
import { fileName, images } from '../image/types.ts';
import { close } from '../sys/files.ts';
import { memfd_create } from '../sys/memory.ts';
import { endIdle, startIdle } from './idle.ts';
import { HeldMemory } from './memory.ts';
import { restore } from './restore.ts';
import { save } from './stopped.ts';

/** In ms. */
const PATIENCE = 150;
const ROUNDS = 30;

/** @param wanted whether there is still time for it */
export function rehearseRestore(wanted: () => boolean): void {
  let stream = -1;
  try {
    if (!wanted()) return;
    stream = memfd_create({ name: 'rehearsal', flags: MFD_CLOEXEC });
    writeIdle(createStream(stream, undefined));
    const until = performance.now() + PATIENCE;
    for (let round = 0; round < ROUNDS && performance.now() < until && wanted(); round++) {
      const fd = openSync(`/proc/self/fd/${stream}`, 'r');
      try {
        endIdle(restore(openStream(fd), { stopped: false, shellJob: true }).pid);
      } finally {
        closeSync(fd);
      }
    }
  } catch {
    // Where it cannot be done it is not needed; what goes wrong with the image itself is said then.
  } finally {
    if (stream >= 0) close({ fd: stream });
  }
}

function writeIdle(draft: ImageDraft): void {
  const image = new MemoryStore();
  const pid = startIdle();
  const room = new HeldMemory(1 << 16, 0);
  try {
    const how = {
      shellJob: true,
      fileLocks: false,
      linkRemap: false,
      skipInFlight: false,
      connections: 'refused',
    } as const;
    save({ ...how, pid, outcome: 'run', timeout: 1000, ghostLimit: 1 << 20 }, image.draft(), room);
    writeWithProgram(image, pid, draft);
  } finally {
    endIdle(pid);
    room[Symbol.dispose]();
  }
}

/** Its program has neither a name nor code of its own, which a restored one must have. Any other one has. */
function writeWithProgram(image: MemoryStore, pid: number, draft: ImageDraft): void {
  const mm = entryOf(image, images.MM, pid);
  const files = entriesOf(image, images.FILES).map((entry) =>
    entry.id === mm.exe_file_id
      ? { ...entry, reg: { ...entry.reg!, name: process.execPath, size: statSync(process.execPath).size } }
      : entry,
  );
  writeEntries(draft.create(fileName(images.FILES)), images.FILES, files);
  const { start, end } = mm.vmas[0]!;
  const code = { mm_start_code: start, mm_end_code: end, mm_start_data: start, mm_end_data: end };
  writeEntries(draft.create(fileName(images.MM, pid)), images.MM, [{ ...mm, ...code }]);
  const left = [fileName(images.FILES), fileName(images.MM, pid), fileName(images.REMAP_FPATH), SUMS_FILE];
  for (const [name, bytes] of image.files) {
    if (left.includes(name)) continue;
    const sink = draft.create(name, bytes.length);
    sink.write(bytes);
    sink.close();
  }
  draft.commit();
}
