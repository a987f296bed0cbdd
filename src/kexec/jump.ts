/**
 * The kexec jump: into a second kernel with the first one's context kept, and back (KEXEC_PRESERVE_CONTEXT, Huang Ying,
 * 2007). The second kernel lives in a region of its own:
 *
 *     0x1000 .. 640K   swapped: kernel B starts its processors there
 *     [S, E)           kernel B, its initrd, boot params, purgatory: all of B's RAM
 *     the rest         kernel A's, which B sees as persistent memory (type 7) and does not touch
 *
 * Kernel A swaps what it owns of these with B's contents when it jumps, and swaps it back when B returns. Memory reserved at
 * A's boot (crashkernel=) A does not own, which is the quick way; in any other region every page is swapped.
 */
import { E820_TYPE_PMEM, E820_TYPE_RAM } from '../abi/e820.ts';
import { KEXEC_PRESERVE_CONTEXT } from '../abi/kexec.ts';
import { jumpBackHelper, jumpBackHelperSize } from '../asm/jumpback.ts';
import { UnsupportedError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { alignIn, findHole, intersect, type Range, subtract } from '../mem/range.ts';
import { sync } from '../sys/mount.ts';
import { kexecJump } from '../sys/probe/kexec.ts';
import { load, requireKexecLoad, start, unload } from './load.ts';
import type { Machine } from './machine.ts';
import { ramOf, regionMap, roomIn } from './memorymap.ts';
import { build, checkMemory, checkPlan, type LoadRequest, type Plan } from './plan.ts';

/** The purgatory writes the address over the digits. kexec-tools' name for it. */
const PARAMETER = 'kexec_jump_back_entry=0x';
const DIGITS = '0'.repeat(16);
/** Stands beside it where the first kernel uses 5-level page tables. */
const FIVE_LEVEL = 'tideover.la57=1';

const LOW = { start: PAGE_SIZE, end: 0xa0000 };

/** What a jump is planned from; the region stands for the bounds of a plain load. */
export type JumpRequest = Omit<LoadRequest, 'reserve' | 'memMin' | 'memMax'> & { readonly region: Range };

/** @throws UnsupportedError where the kernel does not fit the region, as `planLoad` */
export function planJump({ region, ...request }: JumpRequest, machine: Machine): Plan {
  const depth = machine.fiveLevel ? ` ${FIVE_LEVEL}` : '';
  const before = `${request.commandLine}${depth} ${PARAMETER}`.trimStart();
  const commandLine = `${before}${DIGITS}`;
  const e820 = regionMap(machine.firmware, region);
  const low = intersect(ramOf(e820), [LOW]).map((range) => alignIn(range, PAGE_SIZE));
  const owned = subtract([region], machine.crashRanges).length > 0 ? [region] : [];
  const plan = build({ ...request, commandLine }, machine, {
    e820,
    room: roomIn(e820, machine.systemRam, region),
    fill: [...low.filter((range) => range !== undefined), ...owned],
    bytesOnly: true,
    parameters: (commandLineAt) => ({ jump_back_text: commandLineAt + Buffer.byteLength(before) }),
  });
  checkPlan(plan, []);
  checkMemory(plan, machine);
  return plan;
}

/**
 * Plans a kernel that lives in a region and leaves all other memory alone, as one that was jumped into does; but what is there is
 * not kept, and there is no way back.
 *
 * @throws UnsupportedError where the kernel does not fit the region, as `planLoad`
 */
export function planInRegion({ region, ...request }: JumpRequest, machine: Machine): Plan {
  const e820 = regionMap(machine.firmware, region);
  const plan = build(request, machine, { e820, room: roomIn(e820, machine.systemRam, region) });
  checkPlan(plan, []);
  checkMemory(plan, machine);
  return plan;
}

/**
 * Refuses before anything is touched.
 *
 * @throws UnsupportedError with the option that the kernel lacks
 */
export function requireJump(): void {
  requireKexecLoad();
  const { answer, reason, remedy = '' } = kexecJump();
  if (answer !== 'no') return;
  throw new UnsupportedError({ what: 'jumping into a kernel and back', why: reason, remedy });
}

/**
 * Loads the plan, jumps, and comes back when the second kernel jumps back. All programs stand still meanwhile. What was
 * loaded is dropped then: it has been run, and starting it again would hang.
 *
 * @param standStill what else has to stand still, until it is disposed of
 * @throws SyscallError as kexec_load(2) and reboot(2)
 */
export function jump(plan: Plan, standStill: () => Disposable): void {
  // Before: if this program is killed while it waits for the disks, nothing is loaded.
  sync({});
  load(plan, KEXEC_PRESERVE_CONTEXT);
  try {
    using _ = standStill();
    start();
  } finally {
    unload();
  }
}

/** The way back that this kernel was given on its command line, or undefined where it was not jumped into. */
export function jumpBackEntry(
  commandLine: string,
): { readonly entry: number; readonly fiveLevel: boolean } | undefined {
  const entry = Number.parseInt(new RegExp(`(?:^|\\s)${PARAMETER}([0-9a-f]{16})\\b`).exec(commandLine)?.[1] ?? '', 16);
  if (!Number.isSafeInteger(entry) || entry === 0) return undefined;
  return { entry, fiveLevel: commandLine.split(/\s+/).includes(FIVE_LEVEL) };
}

/**
 * Ends this kernel and goes on in the one that jumped here. Disks are synced; does not return.
 *
 * @param commandLine of this kernel
 * @throws UnsupportedError where there is no way back
 */
export function jumpBack(commandLine: string, machine: Machine): void {
  const back = jumpBackEntry(commandLine);
  if (back === undefined) {
    throw new UnsupportedError({
      what: 'jumping back',
      why: 'this kernel was not jumped into: kexec_jump_back_entry= is not on its command line',
      remedy: 'jump into it with: tideover kexec jump',
    });
  }
  if (back.fiveLevel !== machine.fiveLevel) {
    throw new UnsupportedError({
      what: 'jumping back',
      why: `page tables have ${machine.fiveLevel ? 5 : 4} levels here and ${back.fiveLevel ? 5 : 4} in the other kernel`,
      remedy: 'start both kernels with no5lvl or neither',
    });
  }
  load(planBack(back.entry, machine));
  sync({});
  start();
}

/** The helper as the only segment, in memory of this kernel, which the other one takes back. */
export function planBack(entry: number, machine: Machine): Pick<Plan, 'segments' | 'entry'> {
  // The other kernel's memory is RAM, or what regionMap() has made of it.
  const memory = machine.firmware.filter(({ type }) => type === E820_TYPE_RAM || type === E820_TYPE_PMEM);
  const limit = Math.max(...memory.map(({ end }) => end));
  const size = jumpBackHelperSize(limit);
  const hole = findHole(roomIn(machine.firmware, machine.systemRam, { start: 0, end: limit }), {
    size,
    align: PAGE_SIZE,
    prefer: 'lowest',
  });
  if (hole === undefined) {
    throw new UnsupportedError({
      what: 'jumping back',
      why: `no ${size} bytes are free`,
      remedy: 'give the kernel more memory',
    });
  }
  const bytes = jumpBackHelper(hole.start, entry, limit);
  return { segments: [{ name: 'jump back', start: hole.start, size, bytes }], entry: hole.start };
}
