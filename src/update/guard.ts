/**
 * The way back. As long as trees wait in the next kernel, a panic there starts the old kernel again, and they go on under that:
 *
 *     old kernel     prepareGuard()   an environment for the old kernel, written to the disk, before anything is frozen
 *     next kernel    armGuard()       loads it into what crashkernel= has reserved: the restore's first act
 *                    panic
 *     old kernel     goBack()         (goback.ts) in the reserved memory: writes down why into the record in preserved memory, and
 *                                     starts itself with the machine's own memory map
 *     old kernel     cameBack()       says why; the trees go on. Nothing guards this one
 *
 * A tree that went on in the next kernel is lost with it as by any other panic: it must not go on twice from one checkpoint.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { captureCommandLine, installedInitrd, installedKernel, requireRoom } from '../capture/arm.ts';
import { findNext, type NextKernel } from '../capture/next.ts';
import { readSettings } from '../capture/settings.ts';
import { TideoverError } from '../errors.ts';
import { parameters } from '../kexec/commandline.ts';
import { environment } from '../kexec/environment.ts';
import { readKernel } from '../kexec/kernelfile.ts';
import { loadCaptureKernel } from '../kexec/kexec.ts';
import { status, unload } from '../kexec/load.ts';
import { CAPTURE_BUNDLE, systemImage } from '../kexec/system.ts';
import { readProcText } from '../sys/proc.ts';
import { findMemory } from './medium.ts';
import { locationForCapture } from './preserved.ts';
import type { UpdateRecord } from './record.ts';
import { type Returned, returnedMemory } from './state.ts';

const FOLDER = '/var/lib/tideover/guard';
/** Of the kernel before the next one. */
const INITRD = join(FOLDER, 'initrd');
const GUARD = join(FOLDER, 'guard.json');
/** Log of a next kernel that panicked. */
const LOG = join(FOLDER, 'vmcore-dmesg.txt');
/** There while this kernel is guarded. */
const ARMED = '/run/tideover/guard';
/** In the environment. */
export const ORDERS = '/etc/tideover/back.json';
/** On the command line of the old kernel when it comes back, with the release of the one that panicked. */
export const BACK = 'tideover.back';

interface Guard {
  readonly kernel: string;
  /** The squashfs, where it is mounted in place. */
  readonly pram: string | undefined;
  readonly append: string;
}

export interface Orders {
  readonly old: NextKernel;
  /** Preserved memory that the old kernel had taken in: it is to have it again. */
  readonly returned: Returned | undefined;
}

/**
 * Why there will be no way back from the next kernel; undefined where there will. Nothing is written.
 *
 * @param commandLine of the next kernel
 */
export function whyNoGuard(commandLine: string): string | undefined {
  if (!parameters(commandLine).some((word) => word.startsWith('crashkernel='))) {
    return 'the next kernel sets no memory aside for it: --append crashkernel=320M';
  }
  try {
    findOld();
    return undefined;
  } catch (error) {
    if (!(error instanceof TideoverError)) throw error;
    return error.message;
  }
}

function findOld() {
  const settings = readSettings();
  const kernel = settings.kernel ?? installedKernel();
  const release = readKernel(kernel).version.split(' ')[0]!;
  return { settings, kernel, release, ...findNext(kernel, settings.nextInitrd ?? installedInitrd(release)) };
}

/** To be called in the old kernel. @throws UnsupportedError as arm(); the system's errors where it cannot be written */
export function prepareGuard(): void {
  const { settings, kernel, release, next: old, found } = findOld();
  const orders: Orders = { old, returned: returnedMemory() };
  const system = systemImage();
  const { initrd, pram } = environment({
    release,
    system,
    modules: [...new Set([...found.flatMap(({ modules }) => modules), ...settings.extraModules])],
    aliases: [...new Set(found.flatMap(({ aliases }) => aliases))],
    program: CAPTURE_BUNDLE,
    args: ['update', 'back'],
    files: [
      { name: dirname(ORDERS).slice(1), mode: 0o40700 },
      { name: ORDERS.slice(1), mode: 0o600, data: JSON.stringify(orders) },
    ],
  });
  const guard: Guard = { kernel, pram: pram && system, append: settings.append };
  mkdirSync(FOLDER, { recursive: true, mode: 0o700 });
  writeFileSync(INITRD, initrd, { mode: 0o600, flush: true });
  writeFileSync(GUARD, JSON.stringify(guard), { mode: 0o600, flush: true });
}

/** Removes what prepareGuard() made. */
export function dropGuard(): void {
  rmSync(GUARD, { force: true });
  rmSync(INITRD, { force: true });
}

/**
 * To be called in the next kernel before anything is restored. Does nothing where none was prepared, nothing waits in preserved memory,
 * or this kernel is the one that a guard went back to.
 *
 * @returns why this kernel is not guarded although it should be
 */
export function armGuard(): string | undefined {
  if (!existsSync(GUARD) || existsSync(ARMED) || findMemory()?.kind !== 'physical' || diedBefore() !== undefined) {
    return undefined;
  }
  try {
    const { kernel, pram: system, append } = JSON.parse(readFileSync(GUARD, 'utf8')) as Guard;
    const made = { initrd: readFileSync(INITRD), pram: system === undefined ? undefined : readFileSync(system) };
    requireRoom(status().crashSize, readKernel(kernel).size + 2 * made.initrd.length + (made.pram?.length ?? 0));
    const words = [...locationForCapture(), ...parameters(append)];
    const commandLine = captureCommandLine(readProcText('/proc/cmdline').trim(), words);
    loadCaptureKernel({ kernel, initrds: [], commandLine, environment: made });
    mkdirSync(dirname(ARMED), { recursive: true, mode: 0o700 });
    writeFileSync(ARMED, '');
    return undefined;
  } catch (error) {
    // What waits is restored all the same.
    return (error as Error).message;
  }
}

/** To be called when nothing waits any more. */
export function disarmGuard(): void {
  if (existsSync(ARMED)) {
    unload('crash');
    rmSync(ARMED);
  }
  dropGuard();
}

/** Release of the kernel that panicked, where this one is the one before it, come back. */
function diedBefore(): string | undefined {
  const words = parameters(readProcText('/proc/cmdline').trim());
  return words.find((word) => word.startsWith(`${BACK}=`))?.slice(BACK.length + 1);
}

/** Whether this kernel took over from one that panicked; then the record says so, and the log lies on the disk. */
export function cameBack(record: UpdateRecord): UpdateRecord {
  const died = diedBefore();
  if (died === undefined || record.to !== died || record.back?.file !== undefined) return record;
  dropGuard();
  const { why = 'it is not known why', log } = record.back ?? {};
  if (log === undefined) return { ...record, back: { why } };
  mkdirSync(FOLDER, { recursive: true, mode: 0o700 });
  writeFileSync(LOG, log, { mode: 0o600 });
  return { ...record, back: { why, file: LOG } };
}
