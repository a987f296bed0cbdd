/**
 * Changes the kernel and keeps process trees.
 *
 *     this kernel   plan -> memory -> load -> freeze (all trees, one in the other)  -> jump
 *                                               written, kernel settled, spilled,
 *                                               recorded; then they are ended
 *     next kernel   hold packets -> network -> restore each tree -> give memory back
 *
 * Each step knows how it is undone. Until the last tree is written all are only stopped, and go on by themselves; those that were
 * ended are restored here.
 */
import { UnsupportedError } from '../errors.ts';
import { start } from '../kexec/load.ts';
import { bootId, readMachine } from '../sys/machine.ts';
import { sync } from '../sys/mount.ts';
import { findMemory, openMedium, returnMemory } from './medium.ts';
import { type KernelRequest, NextKernel, unloadNext } from './nextkernel.ts';
import { demandUnchanged } from './preserved.ts';
import {
  concludeRecord,
  type KeptTree,
  readRecord,
  type UpdateRecord,
  type UpdateState,
  writeRecord,
} from './record.ts';
import { seal, unseal } from './state.ts';
import { perform, type Step, UndoneError } from './steps.ts';
import { dropNodes, examineTree, freezeTrees, isAlive, preservedTrees, restoreTree } from './trees.ts';

export interface UpdateRequest extends KernelRequest {
  readonly trees: readonly KeptTree[];
}

export interface Plan {
  readonly next: NextKernel;
  readonly record: UpdateRecord;
  /** Bytes of memory of all trees, more or less. */
  readonly memory: number;
}

/** What update() needs of the program around it. */
export interface Surroundings {
  /** Called as each step begins. */
  step(name: string): void;
  /** Has file systems stand still and whole on their disks until it is disposed of. */
  standStill(): Disposable;
}

/**
 * Looks whether everything can be done, and changes nothing.
 *
 * @throws UnsupportedError, FormatError what is in the way
 */
export function planUpdate({ trees, ...request }: UpdateRequest): Plan {
  if (trees.length === 0) {
    const what = 'an update that keeps nothing';
    throw new UnsupportedError({
      what,
      why: 'no tree is named',
      remedy: 'name what is to be kept: --keep, --keep-pid',
    });
  }
  const there = preservedTrees();
  const taken = trees.find(({ node }) => there.includes(node)) ?? (there.length > 0 ? { node: there[0]! } : undefined);
  if (taken !== undefined) {
    throw new UnsupportedError({
      what: `node ${taken.node} of preserved memory`,
      why: 'it holds a tree of an earlier update',
      remedy: 'tideover update resume --retry, or tideover update abort',
    });
  }
  const next = new NextKernel(request);
  next.check();
  const measured = trees.map((tree) => ({ ...tree, memory: examineTree(tree) }));
  const from = readMachine().kernel.release;
  const record = { state: 'planned', bootId: '', from, to: next.release, trees: measured, steps: [] } as const;
  return { next, record, memory: measured.reduce((sum, { memory }) => sum + memory, 0) };
}

/** Does what was planned, and does not return. @throws UndoneError's failure where it was undone */
export async function update(plan: Plan, { step, standStill }: Surroundings): Promise<never> {
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
  const steps: Step[] = [
    {
      name: 'memory',
      run() {
        openMedium(findMemory(), { create: true, size: memory + memory / 16 + ROOM }).close();
        write('planned');
      },
      async undo() {
        unseal();
        if (!hadMemory) await returnMemory(findMemory(), true);
        return hadMemory ? undefined : 'preserved memory was given back';
      },
    },
    {
      name: 'load',
      run() {
        next.load();
        write('loaded');
      },
      undo() {
        unloadNext();
        return 'the next kernel was unloaded';
      },
    },
    {
      name: 'freeze',
      run() {
        freezeTrees(record.trees, {
          frozen(tree) {
            const trees = record.trees.map((each) =>
              each.node === tree.node ? { ...each, frozen: Date.now() } : each,
            );
            record = { ...record, trees };
          },
          lastly() {
            begin('settle');
            write('frozen');
            next.settle();
          },
        });
      },
      undo: () => goOn(record.trees),
    },
    {
      name: 'jump',
      run() {
        write('jumping');
        sync({});
        still = standStill();
        next.settle();
        demandUnchanged();
        seal();
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

/** Beside the memory of trees: what else an image has, and the record, in bytes. */
const ROOM = 32 << 20;

/** Has trees that were stopped go on: those that were ended are restored here. */
function goOn(trees: readonly KeptTree[]): string | undefined {
  const there = new Set(preservedTrees());
  const ended = trees.filter((tree) => !isAlive(tree) && there.has(tree.node));
  for (const { node } of ended) restoreTree(node);
  dropNodes(trees.map(({ node }) => node));
  return ended.length === 0 ? undefined : `restored here: ${ended.map(({ name }) => name).join(', ')}`;
}

/**
 * Takes back what an update left that was interrupted in this kernel.
 *
 * @returns what was undone
 * @throws UnsupportedError where it is of an earlier kernel: its trees are to be resumed, or their nodes removed
 */
export async function abort(): Promise<string[]> {
  const record = readRecord();
  if (record === undefined || CONCLUDED.includes(record.state)) return [];
  if (record.bootId !== bootId()) {
    throw new UnsupportedError({
      what: 'taking the update back',
      why: `it has started this kernel: ${record.from} -> ${record.to}`,
      remedy: 'tideover update resume; or give a tree up: tideover pkram rm NODE',
    });
  }
  unseal();
  unloadNext();
  const undone = ['the next kernel was unloaded'];
  const restored = goOn(record.trees);
  if (restored !== undefined) undone.push(restored);
  concludeRecord({ ...record, state: 'failed', error: 'it was interrupted', undone });
  await returnMemory(findMemory(), false);
  return undone;
}

const CONCLUDED: readonly UpdateState[] = ['done', 'failed'];
