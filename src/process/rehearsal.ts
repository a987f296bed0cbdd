/**
 * Restoring a process that does nothing, to practise: code that runs for the first time takes ten times as long as it does then.
 * Where an image is still to come, as from a stream, that is time in which nobody waits.
 */

import { statSync } from 'node:fs';
import { writeEntries } from '../image/file.ts';
import { MemoryStore } from '../image/store.ts';
import { SUMS_FILE } from '../image/sums.ts';
import { entriesOf, entryOf } from '../image/tree.ts';
import { fileName, images } from '../image/types.ts';
import { save } from './checkpoint.ts';
import { endIdle, startIdle } from './idle.ts';
import { HeldMemory } from './memory.ts';
import { restore } from './restore.ts';

/** In ms. */
const PATIENCE = 150;
const ROUNDS = 30;

/** @param wanted whether there is still time for it */
export function rehearseRestore(wanted: () => boolean): void {
  try {
    if (!wanted()) return;
    const image = imageOfIdle();
    const until = performance.now() + PATIENCE;
    for (let round = 0; round < ROUNDS && performance.now() < until && wanted(); round++) {
      endIdle(restore(image, { stopped: false, shellJob: true }).pid);
    }
  } catch {
    // Where it cannot be done it is not needed; what goes wrong with the image itself is said then.
  }
}

function imageOfIdle(): MemoryStore {
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
    return withProgram(image, pid);
  } finally {
    endIdle(pid);
    room[Symbol.dispose]();
  }
}

/** Its program has neither a name nor code of its own, which a restored one must have. Any other one has. */
function withProgram(image: MemoryStore, pid: number): MemoryStore {
  const changed = new MemoryStore();
  const draft = changed.draft();
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
  return changed;
}
