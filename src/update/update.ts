/**
 * Changes the kernel and keeps process trees.
 *
 *     this kernel   plan -> memory -> load -> precopy -> freeze (all trees, one in the other)  -> jump
 *                                             they run   the rest written, kernel settled,
 *                                                        spilled, recorded; then they are ended
 *     next kernel   hold packets -> network -> restore each tree -> give memory back
 *
 * Each step knows how it is undone. Until the last tree is written all are only stopped, and go on by themselves; those that were
 * ended are restored here.
 */
import { join } from 'node:path';
import { start } from '../kexec/load.ts';
import { sync } from '../sys/mount.ts';
import { demandNoneInterrupted } from './abort.ts';
import { takeAlone } from './alone.ts';
import { dropGuard, prepareGuard } from './guard.ts';
import { findMemory, keepMapped, openMedium, returnMemory } from './medium.ts';
import { startServices, stopServices } from './others.ts';
import { needs, type Plan } from './plan.ts';
import { precopy } from './precopy.ts';
import { concludeRecord, type UpdateState, writeRecord } from './record.ts';
import type { Rounds } from './rounds.ts';
import { revealSpilled, spill } from './spill.ts';
import { sealInPlace } from './standstill.ts';
import { unseal } from './state.ts';
import { perform, type Step, UndoneError } from './steps.ts';
import { freezeTrees, holdWorkloads, openPreserved, waitingTrees } from './trees.ts';
import { dropCopies, putBack } from './undo.ts';
import { saveVolatile } from './volatile.ts';

/** What update() needs of the program around it. */
export interface Surroundings {
  /** Called as each step begins. */
  step(name: string): void;
  /** Has file systems stand still and whole on their disks until it is disposed of. */
  standStill(): Disposable;
}

/** Does what was planned, and does not return. @throws UndoneError's failure where it was undone */
export async function update(plan: Plan, { step, standStill }: Surroundings): Promise<never> {
  using _ = await takeAlone('changing the kernel');
  demandNoneInterrupted();
  keepMapped();
  const { next, memory } = plan;
  let { record } = plan;
  const write = (state: UpdateState) => {
    record = writeRecord({ ...record, state });
  };
  const begin = (name: string) => {
    record = { ...record, steps: [...record.steps, { name, at: Date.now() }] };
    step(name);
  };
  const hadMemory = findMemory() !== undefined;
  let still: Disposable | undefined;
  let rounds: Rounds = new Map();
  /** Waits for what was killed: only where it is to go on here. */
  const ends: (() => void)[] = [];
  const steps: Step[] = [
    {
      name: 'memory',
      run() {
        openMedium(findMemory(), { create: true, size: needs(memory) }).close();
        write('planned');
      },
      async undo() {
        unseal();
        // What could not be put back stays for a person to look at.
        if (hadMemory || waitingTrees().length > 0) return undefined;
        await returnMemory(findMemory(), true);
        return 'preserved memory was given back';
      },
    },
    {
      name: 'load',
      run() {
        if (plan.guarded) prepareGuard();
        else dropGuard();
        next.load();
        write('loaded');
      },
      undo() {
        dropGuard();
        return next.unload() ? 'the next kernel was unloaded' : undefined;
      },
    },
    ...(record.stopped === undefined
      ? []
      : [
          {
            name: 'stop',
            run: () => stopServices(plan.record.stopped!),
            undo: () => startServices(plan.record.stopped!),
          },
        ]),
    {
      name: 'precopy',
      run() {
        rounds = precopy(record.trees, record.spill);
        // Now, so that as little as can be is left to do while they stand still.
        next.settle();
        sync({});
      },
      undo() {
        dropCopies(record);
        return undefined;
      },
    },
    {
      name: 'freeze',
      run() {
        holdWorkloads(record.trees);
        freezeTrees(record.trees, {
          rounds,
          frozen(tree, frozen, rest, ended) {
            ends.push(ended);
            const trees = record.trees.map((each) => (each.node === tree.node ? { ...each, frozen, rest } : each));
            record = { ...record, trees };
          },
          lastly() {
            if (record.spill !== undefined) begin('spill');
            for (const tree of record.trees) {
              if (record.spill !== undefined) {
                using image = openPreserved(tree);
                spill(image, record.spill, tree.name, rounds.get(tree.node));
              }
              saveVolatile(tree.pid, tree.node, record.spill && join(record.spill, tree.name));
            }
            begin('settle');
            write('frozen');
            next.settle();
          },
        });
      },
      undo: () => putBack(record, ends),
    },
    {
      name: 'jump',
      run() {
        if (record.spill !== undefined) for (const { name } of record.trees) revealSpilled(record.spill, name);
        write('jumping');
        next.settle();
        sync({});
        still = standStill();
        sealInPlace(false);
        start();
      },
      undo() {
        still?.[Symbol.dispose]();
        unseal();
        return undefined;
      },
    },
  ];
  try {
    await perform(steps, ({ name }) => begin(name));
  } catch (error) {
    if (!(error instanceof UndoneError)) throw error;
    const { undone, left } = error;
    concludeRecord({
      ...record,
      state: 'failed',
      error: `${error.step}: ${error.message}`,
      undone: [...undone, ...left],
    });
    throw error.failure;
  }
  throw new Error('the next kernel was started and did not come');
}
