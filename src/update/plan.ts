/** What an update will do, and whether it can: everything is looked at, and nothing is touched. */
import { freemem } from 'node:os';
import { UnsupportedError } from '../errors.ts';
import { readMachine } from '../sys/machine.ts';
import { runsSystemd } from '../sys/systemd.ts';
import { demandNoneInterrupted } from './abort.ts';
import { cautionsOf } from './cautions.ts';
import { checkDrivers } from './drivers.ts';
import { whyNoGuard } from './guard.ts';
import { type KernelRequest, NextKernel } from './nextkernel.ts';
import { checkStop, othersRunning } from './others.ts';
import { roomForRounds, whyNoRounds } from './precopy.ts';
import type { KeptTree, UpdateRecord } from './record.ts';
import { spillFolder } from './spill.ts';
import { demandApart, examineTree, waitingTrees } from './trees.ts';
import { whyNoUnits } from './units.ts';
import { sizeOfFiles, volatileFiles } from './volatile.ts';

export interface UpdateRequest extends KernelRequest {
  readonly trees: readonly KeptTree[];
  /** Units of systemd that are stopped first, and started again if it fails. */
  readonly stop?: readonly string[];
  /** See spillFolder(). */
  readonly spill?: string | undefined;
}

export interface Plan {
  readonly next: NextKernel;
  readonly record: UpdateRecord;
  /** Bytes of memory of all trees, more or less. */
  readonly memory: number;
  /** Bytes of memory that it takes until the next kernel starts, and that there are. */
  readonly room: { readonly needed: number; readonly free: number };
  /** What is good to know beforehand. */
  readonly warnings: readonly string[];
  /** Whether a panic of the next kernel before everything is restored leads back to this one. */
  readonly guarded: boolean;
}

/**
 * Looks whether everything can be done, and changes nothing.
 *
 * @throws UnsupportedError, FormatError what is in the way
 */
export function planUpdate({ trees, stop = [], spill: wanted, ...request }: UpdateRequest): Plan {
  if (trees.length === 0) {
    const what = 'an update that keeps nothing';
    throw new UnsupportedError({
      what,
      why: 'no tree is named',
      remedy: 'name what is to be kept: --keep, --keep-pid',
    });
  }
  demandApart(trees);
  demandNoneInterrupted();
  const [waiting] = waitingTrees();
  if (waiting !== undefined) {
    throw new UnsupportedError({
      what: `the checkpoint of ${waiting.name}`,
      why: 'it waits to be restored',
      remedy: 'tideover update resume, or give it up: tideover update abort --drop',
    });
  }
  const noUnits = runsSystemd() ? whyNoUnits() : undefined;
  if (noUnits !== undefined) {
    const why = `the next system would not restore anything: ${noUnits}`;
    throw new UnsupportedError({ what: 'update', why, remedy: 'install them: tideover update setup' });
  }
  const names = trees.map(({ name }) => name);
  checkStop(stop, names);
  const next = new NextKernel(request);
  const loaded = next.check();
  const drivers = checkDrivers(next);
  const measured = trees.map((tree) => ({ ...tree, memory: examineTree(tree) }));
  const files = sizeOfFiles(trees.flatMap(({ pid }) => volatileFiles(pid)));
  const memory = measured.reduce((sum, { memory }) => sum + memory, files);
  const room = { needed: needs(memory) + loaded, free: freemem() };
  demandRoom(room);
  const folder = spillFolder(wanted, needs(memory));
  const from = readMachine().kernel.release;
  const noGuard = whyNoGuard(next.commandLine);
  const unguarded =
    noGuard === undefined ? [] : [`if the next kernel panics, nothing leads back to this one: ${noGuard}`];
  const plan = { next, memory, room, guarded: noGuard === undefined };
  const stopped = stop.length === 0 ? {} : { stopped: stop };
  const common = {
    state: 'planned',
    bootId: '',
    from,
    to: next.release,
    trees: measured,
    steps: [],
    ...stopped,
  } as const;
  const slow = whyNoRounds();
  const others = othersRunning(names, stop);
  const cut = 'not kept, and ended as by a power cut, with file systems that are whole';
  const ended = others.length === 0 ? [] : [`${cut}: ${others.join(', ')}; what minds that is stopped first by --stop`];
  const cautions = trees.flatMap(cautionsOf);
  const warnings = [...drivers, ...cautions, ...(slow === undefined ? [] : [slow]), ...ended, ...unguarded];
  if (folder !== undefined) return { ...plan, record: { ...common, spill: folder }, warnings };
  const lost = 'there is no copy on a disk: if the next kernel dies before it can do anything, the trees are lost';
  return { ...plan, record: common, warnings: [lost, ...warnings] };
}

/** @throws UnsupportedError where the trees do not fit into memory once more, beside the next kernel */
function demandRoom({ needed, free }: Plan['room']): void {
  if (needed <= free) return;
  const mib = (bytes: number) => `${Math.ceil(bytes / (1 << 20))} MiB`;
  throw new UnsupportedError({
    what: 'room for the trees in preserved memory, and for the next kernel',
    why: `${mib(needed)} are needed, and ${mib(free)} are free`,
    remedy: 'end something, or keep less',
  });
}

/** Bytes of preserved memory, or of a disk, for trees with so much. */
export function needs(memory: number): number {
  return memory + memory / 16 + roomForRounds(memory) + ROOM;
}

/** Beside the memory of trees: what else an image has, and the record, in bytes. */
const ROOM = 32 << 20;
