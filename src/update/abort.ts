/** Takes back what an update left that was interrupted, or gives up what waits. */
import { PartialError, UnsupportedError } from '../errors.ts';
import { bootId } from '../sys/machine.ts';
import { takeAlone } from './alone.ts';
import { disarmGuard, dropGuard } from './guard.ts';
import { findMemory, returnUnused } from './medium.ts';
import { unloadNext } from './nextkernel.ts';
import { startServices } from './others.ts';
import { concludeRecord, dropRecord, readRecord, type UpdateRecord, type UpdateState } from './record.ts';
import { dropStrayRounds } from './rounds.ts';
import { unseal } from './state.ts';
import { drop, letConnectionsGo, releaseWorkloads, waitingTrees } from './trees.ts';
import { putBack } from './undo.ts';
import { nodeOfWorkload } from './workload.ts';

/**
 * Takes back what an update left that was interrupted in this kernel.
 *
 * @param giveUp drop trees that wait, in memory and on the disk; they are lost
 * @returns what was undone
 * @throws PartialError naming what could not be put back, and stays where it is; UnsupportedError where it is of an earlier kernel: its trees are to be resumed, or given up
 */
export async function abort(giveUp: boolean): Promise<string[]> {
  using _ = await takeAlone('taking the update back');
  const record = readRecord();
  const interrupted = isInterrupted(record) ? record : undefined;
  const isOpen = record !== undefined && !CONCLUDED.includes(record.state);
  if (!giveUp && isOpen && interrupted === undefined) {
    throw new UnsupportedError({
      what: 'taking the update back',
      why: `it has started this kernel: ${record.from} -> ${record.to}`,
      remedy: 'tideover update resume; or give up what waits: --drop',
    });
  }
  if (!giveUp && interrupted === undefined) return [];
  const undone: string[] = [];
  // What cannot be put back keeps nothing else from it.
  const left: string[] = [];
  const attempt = (...all: readonly (() => string | undefined)[]) => {
    for (const each of all) {
      try {
        const done = each();
        if (done !== undefined) undone.push(done);
      } catch (error) {
        left.push((error as Error).message);
      }
    }
  };
  if (interrupted !== undefined) attempt(unloadInterrupted);
  if (giveUp) undone.push(...giveUpTrees());
  if (interrupted !== undefined) {
    attempt(
      () => putBack(interrupted),
      () => startServices(interrupted.stopped ?? []),
    );
  }
  dropStrayRounds();
  // Until the very end it is found interrupted, so that the next one does what is left if this one is killed.
  if (isOpen) dropRecord();
  const { why } = await returnUnused(findMemory());
  if (isOpen) {
    const error = giveUp ? 'it was given up' : 'it was interrupted';
    concludeRecord({ ...record, state: 'failed', error, undone: [...undone, ...left] });
  }
  if (left.length > 0) throw new PartialError('taking the update back', left.join('; '));
  return why === undefined ? undone : [...undone, why];
}

function unloadInterrupted(): string {
  unseal();
  dropGuard();
  try {
    unloadNext();
  } catch (error) {
    throw new Error(`the next kernel stays loaded (${(error as Error).message}): tideover kexec unload`);
  }
  return 'the next kernel was unloaded';
}

/** @returns whose checkpoints were removed */
function giveUpTrees(): string[] {
  const waiting = waitingTrees();
  for (const tree of waiting) letConnectionsGo(tree);
  drop(waiting);
  releaseWorkloads(waiting.map(({ name }) => ({ name, node: nodeOfWorkload(name) })));
  disarmGuard();
  return waiting.map(({ name }) => `${name} was given up`);
}

/**
 * To be asked before another way into the next kernel is taken: what an interrupted update wrote of its trees is of a moment from which they
 * have gone on, and they would do so once more.
 *
 * @throws UnsupportedError
 */
export function demandNoneInterrupted(): void {
  if (!isInterrupted(readRecord())) return;
  throw new UnsupportedError({
    what: 'starting the next kernel',
    why: 'an update is under way, or was interrupted, and what it has written of its trees would go on in the next kernel',
    remedy: 'take it back first: tideover update abort',
  });
}

/** Whether an update has begun in this kernel and neither ended nor left it. */
function isInterrupted(record: UpdateRecord | undefined): boolean {
  return record !== undefined && record.bootId === bootId() && BEFORE_JUMP.includes(record.state);
}

const BEFORE_JUMP: readonly UpdateState[] = ['planned', 'loaded', 'frozen', 'jumping'];
const CONCLUDED: readonly UpdateState[] = ['done', 'back', 'failed'];
