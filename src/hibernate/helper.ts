/** The kernel that saves a machine or puts it back, with all that it needs to run tideover. */
import { readFileSync } from 'node:fs';
import { hardwareParameters, OWN_MEMORY_ONLY } from '../kexec/commandline.ts';
import { environment } from '../kexec/environment.ts';
import { readKernel } from '../kexec/kernelfile.ts';
import type { LoadRequest } from '../kexec/plan.ts';
import { joinInitrds } from '../kexec/plan.ts';
import { HIBERNATE_BUNDLE, systemImage } from '../kexec/system.ts';
import { blockDevice, deviceChain, lowerDevices, numberOf } from '../sys/devices.ts';
import { fiveLevelPaging } from '../sys/firmware.ts';
import { readMachine } from '../sys/machine.ts';
import { readProcText } from '../sys/proc.ts';
import { mapFile } from '../sys/region.ts';
import type { Needs } from '../target/place.ts';
import { type Order, orderArchive } from './order.ts';

export interface HelperFiles {
  /** A bzImage; the running kernel's where undefined. */
  readonly kernel: string | undefined;
  /** Its initramfs, that runs tideover hibernate stage; where there is none, one is made. */
  readonly initrds: readonly string[];
  /** A squashfs with Node and tideover, which the initramfs finds as /dev/pmem0. */
  readonly system: string | undefined;
  /** The command line; where undefined, consoles of this kernel, what its hardware needs, and that a panic starts the machine again. */
  readonly append: string | undefined;
}

export type HelperRequest = Pick<LoadRequest, 'image' | 'initrd' | 'commandLine' | 'pram'>;

/**
 * @param at what it reads or writes: a disk, by a path in /dev, or a server
 * @throws UnsupportedError where a part is missing; the system's errors
 */
export function helperRequest(files: HelperFiles, at: string | Needs, order: Order): HelperRequest {
  const image = readKernel(files.kernel ?? `/boot/vmlinuz-${readMachine().kernel.release}`);
  const [release] = image.version.split(' ');
  const made = files.initrds.length === 0 ? helperEnvironment(release!, at, files.system) : undefined;
  const pram = made === undefined ? files.system && mapFile(files.system) : made.pram;
  const archives = made === undefined ? files.initrds.map((path) => readFileSync(path)) : [made.initrd];
  return {
    image,
    initrd: joinInitrds([...archives, orderArchive(order)]),
    commandLine: commandLine(files.append),
    ...(pram && { pram }),
  };
}

/** Page tables must be as deep as in the machine that is saved: entered with others, its kernel dies without a word. */
function commandLine(given: string | undefined): string {
  const words = given === undefined ? [...hardwareParameters(readProcText('/proc/cmdline')), 'panic=10'] : [given];
  return [...words, OWN_MEMORY_ONLY, ...(fiveLevelPaging() ? [] : ['no5lvl'])].join(' ');
}

/** @param release of the kernel @param system see HelperFiles */
export function helperEnvironment(release: string, at: string | Needs, system?: string) {
  const { modules, aliases, programs, files } = typeof at === 'string' ? diskNeeds(at) : at;
  return environment({
    release,
    system: system ?? systemImage({ programs }),
    modules,
    aliases,
    program: HIBERNATE_BUNDLE,
    args: ['hibernate', 'stage'],
    files,
  });
}

function diskNeeds(disk: string): Needs {
  const number = numberOf(disk);
  const folders = number === undefined ? [] : withLower(blockDevice(number));
  const chains = folders.map(deviceChain);
  // By alias, for the kernel may have other drivers than the one that runs; what it has built in is no module.
  const aliases = chains.flatMap((chain) => [...chain.modules, ...chain.aliases]);
  return { modules: [], aliases, programs: [], files: [] };
}

function withLower(folder: string): string[] {
  return [folder, ...lowerDevices(folder).flatMap(withLower)];
}
