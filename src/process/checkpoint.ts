/**
 * Writes a process and all below it into an image.
 *
 *     look (look.ts) -> rehearse (practice.ts) -> make room -> rehearse for the last time -> stop, save, let go (stopped.ts)
 */
import { SIGKILL, SIGSTOP } from '../abi/signal.ts';
import { PartialError, SyscallError } from '../errors.ts';
import type { ImageDraft } from '../image/store.ts';
import { fileName, images, pagesFile } from '../image/types.ts';
import { useProcessor } from '../sys/crc32.ts';
import { widenTable } from '../sys/files.ts';
import { availableMemory } from '../sys/meminfo.ts';
import { keepTaskFiles } from '../sys/proc.ts';
import { descriptorLimit } from '../sys/process.ts';
import { readStatus } from '../sys/stat.ts';
import { AllOrNone } from './allornone.ts';
import { clocksOf } from './clocks.ts';
import { CompilerPause, WORTH_COMPILING } from './compiling.ts';
import { Foresight } from './foresight.ts';
import { threadsOf, treeOf } from './freeze.ts';
import { Freezer } from './freezer.ts';
import { isGone } from './gone.ts';
import { GroupsSeen } from './groupsettings.ts';
import { LITTLE } from './haste.ts';
import { lookAt } from './look.ts';
import { HeldMemory } from './memory.ts';
import { practiseReading, Rehearsal } from './practice.ts';
import { forgetMirrors, prepareMirrors, saveLayout } from './scratch.ts';
import { type CheckpointOptions, type CheckpointResult, HELD, save, Unforeseen } from './stopped.ts';
import { readTaskFiles } from './task.ts';
import { Tracking } from './tracking.ts';

/**
 * @param draft gets the image and is committed; it is aborted when something fails
 * @throws UnsupportedError (something cannot be saved; the processes go on untouched), SyscallError
 */
export function checkpoint(given: CheckpointOptions, draft: ImageDraft): CheckpointResult {
  const { parent, outcome, trackMemory, inHaste = false } = given;
  useProcessor();
  widenTable(Math.min(MOST_DESCRIPTORS, descriptorLimit()));
  using _files = keepTaskFiles();
  let tracking: Tracking | undefined;
  let freezer: Freezer | undefined;
  let foresight: Foresight | undefined;
  let ending: AllOrNone | undefined;
  try {
    tracking = new Tracking(treeOf(given.pid), { parent, goOn: trackMemory === true && outcome !== 'kill' });
    const options = { ...given, tracking, groups: new GroupsSeen() };
    const until = performance.now() + LOOKING;
    const goesOn = outcome === 'run' && given.beforeEnd === undefined;
    const watched = trackMemory === true && outcome !== 'kill';
    // What another thread says of large ones is there when the image is written, which is written once more if need be.
    if (goesOn) foresight = parent === undefined && !watched ? Foresight.bySnapshots() : undefined;
    else if (!watched)
      foresight = draft.clear === undefined ? Foresight.byAsking('small') : Foresight.byAsking('small', 'large');
    let memory = lookAt(options, foresight);
    const rounds = inHaste ? 1 : ROUNDS;
    for (let round = 1; round < rounds && performance.now() < until; round++) memory = lookAt(options, foresight);
    if (parent !== undefined && !inHaste) {
      memory = lookAt(options, foresight);
      practiseReading(memory);
    }
    const sizes = memory.map(({ runs }) => runs.size);
    const expected = sizes.reduce((sum, size) => sum + size, 0);
    const room = new HeldMemory(HELD, options.outcome === 'run' && expected <= HELD ? expected : 0);
    try {
      using rehearsal = inHaste ? undefined : new Rehearsal(options, draft, threadsIn(membersOf(given.pid)));
      reserve(draft, sizes, !goesOn && !inHaste);
      foresight?.prepare();
      const seen = membersOf(given.pid);
      if (!goesOn && draft.reserve !== undefined && !inHaste)
        for (const file of smallFiles(seen)) draft.reserve(file, 0, true);
      freezer = Freezer.of(given.pid, given.freezeGroup);
      if (outcome !== 'run') ending = new AllOrNone(given.pid, outcome === 'kill' ? SIGKILL : SIGSTOP);
      const saved = { ...options, freezer, ending };
      const large = expected > LITTLE || threadsIn(seen) >= WORTH_COMPILING;
      using _pause = inHaste || large || options.serve !== undefined ? undefined : new CompilerPause();
      rehearsal?.last();
      // Not before: practice would take them.
      prepareMirrors(
        seen.map(({ tids }) => tids.length),
        saveLayout,
      );
      draft.announce?.();
      try {
        return save(saved, draft, room, foresight);
      } catch (error) {
        if (!(error instanceof Unforeseen)) throw error;
        room.clear();
        draft.clear?.();
        return save(saved, draft, room);
      }
    } finally {
      room[Symbol.dispose]();
    }
  } catch (error) {
    if (!(error instanceof PartialError)) draft.abort();
    throw error;
  } finally {
    forgetMirrors();
    foresight?.[Symbol.dispose]();
    ending?.[Symbol.dispose]();
    freezer?.[Symbol.dispose]();
    tracking?.[Symbol.dispose]();
  }
}

/** As many as are kept open at a time: see MOST_FILES and keepTaskFiles(). */
const MOST_DESCRIPTORS = 8192;

/** A process of the tree as it is now. */
interface Member {
  readonly pid: number;
  readonly tids: readonly number[];
  /** Whether its ids in the image are those here. */
  readonly hasOurIds: boolean;
}

/** What will be asked of each thread is asked once more, so that it is at hand: see keepTaskFiles(). Some may end meanwhile. */
function membersOf(root: number): Member[] {
  return treeOf(root).flatMap((pid) => {
    try {
      const tids = threadsOf(pid);
      for (const tid of tids) readStatus(`${pid}/task/${tid}`);
      const { NSpid, State } = readStatus(pid);
      if (State !== 'Z') readTaskFiles(pid);
      if (pid === root) clocksOf(pid);
      return { pid, tids, hasOurIds: NSpid.length === 1 };
    } catch (error) {
      if (isGone(error)) return [];
      throw error;
    }
  });
}

function threadsIn(members: readonly Member[]): number {
  return members.reduce((sum, { tids }) => sum + tids.length, 0);
}

/** Images that processes are likely to have, beside their pages. Making a file takes longer than writing one. */
function smallFiles(members: readonly Member[]): string[] {
  const all = [images.PSTREE, images.FILES, images.INVENTORY].map((type) => fileName(type));
  all.push(fileName(images.TIMENS, 0), fileName(images.STATS, 'dump'));
  for (const { pid, tids } of members.filter(({ hasOurIds }) => hasOurIds)) {
    all.push(...[images.IDS, images.MM, images.FS, images.PAGEMAP].map((type) => fileName(type, pid)));
    all.push(...tids.map((tid) => fileName(images.CORE, tid)));
  }
  return all.slice(0, openAtOnce());
}

function openAtOnce(): number {
  return Math.min(MOST_FILES, descriptorLimit() / 4);
}

/** They are open all the time. */
const MOST_FILES = 4096;

/**
 * Has pages get their room before anything is stopped: what there is none for is said then, and giving it takes longer than
 * filling it. 1 GiB of a tmpfs: 0.35 s of 0.5.
 *
 * @param stopped whether the processes are while they are written, and none is while this is done
 */
function reserve(draft: ImageDraft, sizes: readonly number[], stopped: boolean): void {
  const hurried = stopped && sizes.reduce((sum, size) => sum + size, 0) <= availableMemory() * OCCUPIED;
  const most = stopped ? openAtOnce() / SMALL : 0;
  for (const [i, size] of sizes.entries()) {
    if (size > WORTH_ROOM) draft.reserve?.(pagesFile(i + 1), size, hurried);
    else if (i < most) reserveSmall(draft, pagesFile(i + 1), size + GROWN);
  }
}

/** For the sake of time alone, 40 us each: where there is too little room, there may be enough for what is written. */
function reserveSmall(draft: ImageDraft, file: string, size: number): void {
  try {
    draft.reserve?.(file, size, false);
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
  }
}

/** A process has as many small files as this. */
const SMALL = 8;

/** The kernel lets less than this part be written to memory before it begins to write to the disk: vm.dirty_background_ratio. */
const OCCUPIED = 0.09;

/** In bytes. */
const WORTH_ROOM = 1 << 20;
/** By so much a small program is larger when it stops than when it was looked at, or by less: in bytes. */
const GROWN = 16 << 10;

/** How often processes are looked at, and for how long, in ms: what is looked at before is warm as well. */
const [ROUNDS, LOOKING] = [50, 40];
