/** Loading a kernel, from files and a choice of system call: what `tideover kexec load` and the library's users call. */
import { readFileSync } from 'node:fs';
import { UnsupportedError } from '../errors.ts';
import type { Range } from '../mem/range.ts';
import { crashNotes, kernelMapping, vmcoreinfoNote } from '../sys/dying.ts';
import { kexecFileLoad } from '../sys/probe/kexec.ts';
import { readProcText } from '../sys/proc.ts';
import { loadCapture, planCapture } from './capture.ts';
import type { Environment } from './environment.ts';
import { loadFile } from './fileload.ts';
import { jump, jumpBack, planJump, requireJump } from './jump.ts';
import { readKernel } from './kernelfile.ts';
import { load, requireKexec, requireKexecLoad } from './load.ts';
import { readMachine } from './machine.ts';
import type { Reservation } from './memorymap.ts';
import { joinInitrds, type LoadRequest, type Plan, planLoad } from './plan.ts';

export type SystemCall = 'kexec_load' | 'kexec_file_load';

export interface KernelFiles {
  readonly kernel: string;
  /** Joined in this order. */
  readonly initrds: readonly string[];
  readonly commandLine: string;
  /** What it starts with in place of a system: its initramfs follows the initrds. */
  readonly environment?: Pick<Environment, 'initrd' | 'pram'>;
}

export interface LayoutWishes {
  /** Memory that nothing is loaded to and that the next kernel leaves alone. */
  readonly reserve?: readonly Reservation[];
  /** Lowest and highest address that may be loaded to. */
  readonly memMin?: number;
  readonly memMax?: number;
  readonly resetVga?: boolean;
  readonly resetPic?: boolean;
  /** An archive made in memory, which follows the initrds. */
  readonly appended?: Uint8Array;
}

/** What `loadKernel` is going to do or has done. */
export interface Loading {
  readonly systemCall: SystemCall;
  /** Why this one. */
  readonly reason: string;
  /** Undefined with kexec_file_load, where the kernel lays out by itself. */
  readonly plan: Plan | undefined;
}

/** Plans and does not load. @throws UnsupportedError, FormatError as the parts */
export function planKernel(files: KernelFiles, wishes: LayoutWishes = {}, systemCall?: SystemCall): Loading {
  const choice = choose(wishes, systemCall);
  return { ...choice, plan: choice.systemCall === 'kexec_load' ? plan(files, wishes) : undefined };
}

/** Loads a kernel in place of what was loaded before. @throws UnsupportedError, FormatError, SyscallError as the parts */
export function loadKernel(files: KernelFiles, wishes: LayoutWishes = {}, systemCall?: SystemCall): Loading {
  const loading = planKernel(files, wishes, systemCall);
  if (loading.plan !== undefined) load(loading.plan);
  else loadFile(files.kernel, initrdOf(files, wishes.appended), files.commandLine);
  return loading;
}

/** Plans a capture kernel. @throws UnsupportedError, FormatError as the parts */
export function planCaptureKernel(files: KernelFiles): Loading & { readonly plan: Plan } {
  requireKexecLoad();
  const request = requestOf(files);
  const dying = { notes: [...crashNotes(), vmcoreinfoNote()], mapping: kernelMapping() };
  return { systemCall: 'kexec_load', reason: 'own ELF headers', plan: planCapture(request, readMachine(), dying) };
}

/** Loads a capture kernel for the next panic. @throws UnsupportedError, FormatError, SyscallError as the parts */
export function loadCaptureKernel(files: KernelFiles): Loading {
  const loading = planCaptureKernel(files);
  loadCapture(loading.plan);
  return loading;
}

/**
 * Jumps into a kernel, and comes back when that one jumps back.
 *
 * @param region for it to live in; what crashkernel= has reserved where undefined
 * @param standStill called last of all: what has to stand still meanwhile, until it is disposed of
 * @returns how long it was away
 * @throws UnsupportedError, FormatError, SyscallError as the parts
 */
export function jumpIntoKernel(
  files: KernelFiles,
  region: Range | undefined,
  standStill: () => Disposable,
): { seconds: number } {
  requireJump();
  const machine = readMachine();
  const within = region ?? machine.crashRanges[0];
  if (within === undefined) {
    throw new UnsupportedError({
      what: 'jumping into a kernel',
      why: 'there is no region for it to live in',
      remedy: 'boot with crashkernel=192M, or give --region',
    });
  }
  const plan = planJump({ ...requestOf(files), region: within }, machine);
  // The monotonic clock stands still meanwhile.
  const left = Date.now();
  jump(plan, standStill);
  return { seconds: (Date.now() - left) / 1000 };
}

/** Goes back to the kernel that jumped to this one; does not return. @throws UnsupportedError where there is none */
export function jumpBackHere(): void {
  requireKexecLoad();
  jumpBack(readProcText('/proc/cmdline').trim(), readMachine());
}

function plan(files: KernelFiles, wishes: LayoutWishes): Plan {
  const { appended, ...rest } = wishes;
  return planLoad({ ...requestOf(files, appended), ...rest }, readMachine());
}

function requestOf(files: KernelFiles, appended?: Uint8Array): LoadRequest {
  const { commandLine, environment } = files;
  const request = { image: readKernel(files.kernel), initrd: initrdOf(files, appended), commandLine };
  return environment?.pram === undefined ? request : { ...request, pram: environment.pram };
}

function initrdOf({ initrds, environment }: KernelFiles, appended: Uint8Array | undefined): Uint8Array {
  const archives = initrds.map((path) => readFileSync(path));
  return joinInitrds([...archives, environment?.initrd, appended].filter((each) => each !== undefined));
}

/** kexec_load, for it takes our memory map and purgatory; kexec_file_load where only that is allowed and will do. */
function choose(wishes: LayoutWishes, wanted: SystemCall | undefined): Omit<Loading, 'plan'> {
  requireKexec();
  const own = Object.entries(wishes).find(([key, value]) => key !== 'appended' && isAsked(value));
  if (wanted === 'kexec_file_load') {
    if (own !== undefined) {
      throw new UnsupportedError({
        what: 'kexec_file_load',
        why: `the kernel lays out the memory by itself then, and ${own[0]} was asked for`,
        remedy: 'leave one of them out',
      });
    }
    requireFileLoad();
    return { systemCall: wanted, reason: 'asked for' };
  }
  try {
    requireKexecLoad();
    return { systemCall: 'kexec_load', reason: wanted === undefined ? 'own memory map and purgatory' : 'asked for' };
  } catch (error) {
    const mustBe = wanted !== undefined || own !== undefined || !(error instanceof UnsupportedError);
    if (mustBe || kexecFileLoad().answer === 'no') throw error;
    return { systemCall: 'kexec_file_load', reason: `kexec_load is not to be had: ${error.why}` };
  }
}

/** An empty list of reservations asks for nothing. */
function isAsked(wish: unknown): boolean {
  return Array.isArray(wish) ? wish.length > 0 : wish !== undefined && wish !== false;
}

function requireFileLoad(): void {
  const { answer, reason, remedy = '' } = kexecFileLoad();
  if (answer === 'no') throw new UnsupportedError({ what: 'kexec_file_load', why: reason, remedy });
}
