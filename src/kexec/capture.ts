/**
 * The capture kernel: loaded into memory that crashkernel= reserved, started by a panic, it reads the memory of the kernel
 * that died through /proc/vmcore.
 *
 *     crashkernel=  [S                                                              E)
 *                    kernel ... initrd, boot params, purgatory | ELF headers | backup
 *                    RAM of the capture kernel                 | reserved in its map
 *
 * The first 640K, in which the capture kernel starts its processors, are copied to the backup by the purgatory; the ELF
 * headers say that they are there.
 */
import { KEXEC_ON_CRASH } from '../abi/kexec.ts';
import { UnsupportedError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { alignUp, type Range, sizeOf, subtract } from '../mem/range.ts';
import type { KernelMapping, PhysicalNote } from '../sys/dying.ts';
import { elfCoreHeaders } from './elfcorehdr.ts';
import { load } from './load.ts';
import type { Machine } from './machine.ts';
import { regionMap, roomIn } from './memorymap.ts';
import { build, checkPlan, type LoadRequest, type Plan, segment } from './plan.ts';

const BACKUP_SIZE = 0xa0000;
const FIRST_MB = { start: 0, end: 2 ** 20 };

export type CaptureRequest = Omit<LoadRequest, 'reserve' | 'memMin' | 'memMax'>;

/** Where the running kernel will have left what describes it. */
export interface Dying {
  readonly notes: readonly PhysicalNote[];
  readonly mapping: KernelMapping;
}

/** @throws UnsupportedError without crashkernel= memory, or with too little, as `planLoad` */
export function planCapture(request: CaptureRequest, machine: Machine, { notes, mapping }: Dying): Plan {
  const region = largest(machine.crashRanges);
  const backupAt = region.end - BACKUP_SIZE;
  const virtual = (start: number) => mapping.directMap + BigInt(start);
  const memory = [
    mapping.text,
    { start: 0, end: BACKUP_SIZE, virtual: virtual(0), copiedTo: backupAt },
    ...subtract(machine.systemRam, [FIRST_MB, ...machine.crashRanges]).map((range) => ({
      ...range,
      virtual: virtual(range.start),
    })),
  ];
  const headers = elfCoreHeaders({ notes, memory });
  const headersAt = backupAt - alignUp(headers.length, PAGE_SIZE);
  const own = { start: headersAt, end: region.end };
  const e820 = regionMap(machine.firmware, region, [own]);
  const commandLine = `${request.commandLine} elfcorehdr=0x${headersAt.toString(16)}`.trimStart();
  const plan = build({ ...request, commandLine }, machine, {
    e820,
    room: roomIn(e820, machine.systemRam, region),
    fixed: [
      { ...segment('ELF headers', headersAt, headers), checked: true },
      { ...segment('backup', backupAt, new Uint8Array(0), BACKUP_SIZE), checked: false },
    ],
    parameters: () => ({ backup_from: 0, backup_to: backupAt, backup_size: BACKUP_SIZE }),
  });
  checkPlan(plan, [], [own]);
  return plan;
}

/**
 * Loads a plan for the next panic, in place of what was loaded for it before. KEXEC_UPDATE_ELFCOREHDR is not set: the kernel
 * would write the headers anew when processors or memory come and go, without the backup. Who wants those in them loads again.
 *
 * @throws SyscallError as kexec_load(2)
 */
export function loadCapture(plan: Plan): void {
  load(plan, KEXEC_ON_CRASH);
}

function largest(ranges: readonly Range[]): Range {
  const [first] = ranges.toSorted((a, b) => sizeOf(b) - sizeOf(a));
  if (first !== undefined && sizeOf(first) > BACKUP_SIZE + PAGE_SIZE) return first;
  throw new UnsupportedError({
    what: 'loading a capture kernel',
    why: 'no memory is reserved for one',
    remedy: 'boot with crashkernel=256M',
  });
}
