/**
 * Whether the next kernel will find the disk of the system and the network cards, and call them as this one does: else it would not
 * start, or its network would not be that of the kept connections.
 */
import { readFileSync } from 'node:fs';
import { UnsupportedError } from '../errors.ts';
import { parameters } from '../kexec/commandline.ts';
import { initramfsNames } from '../kexec/cpio.ts';
import {
  blockDevice,
  blockDevices,
  type DeviceChain,
  deviceChain,
  hasCarrier,
  interfaceKind,
  lowerDevices,
  networkDevice,
  networkInterfaces,
  numberOf,
} from '../sys/devices.ts';
import { aliased, type KernelModules, moduleName, readKernelModules } from '../sys/modules.ts';
import { readMountinfo } from '../sys/mountinfo.ts';

export interface Next {
  readonly release: string;
  readonly initrds: readonly string[];
  readonly commandLine: string;
}

/** @returns what may be otherwise, for people @throws UnsupportedError where a driver is missing */
export function checkDrivers(next: Next): string[] {
  const cards = networkInterfaces()
    .map(({ name }) => name)
    .filter((name) => interfaceKind(name) === 'card' && hasCarrier(name));
  const warnings = nameFaults(next.commandLine, cards, blockDevices());
  const modules = readKernelModules(next.release);
  const root = rootDisk();
  if (modules === undefined) {
    if (root === undefined) return warnings;
    return [
      ...warnings,
      `whether kernel ${next.release} has the drivers of this machine is not known: it has no modules here`,
    ];
  }
  const drives = new Map(cards.map((name) => [`network card ${name}`, deviceChain(networkDevice(name))]));
  if (root !== undefined) drives.set('the disk of /', root.chain);
  for (const [device, chain] of drives) {
    const [missing] = missingDrivers(chain, modules);
    if (missing !== undefined) {
      refuse(next, `it has no driver ${missing}, which ${device} needs`, 'choose a kernel that has it');
    }
  }
  if (root === undefined) return warnings;
  const there = modulesIn(next.initrds);
  const wanted = [...root.chain.modules, root.type].map(moduleName);
  const left = there === undefined ? undefined : wanted.find((name) => isFile(name, modules) && !there.has(name));
  if (left !== undefined) {
    refuse(
      next,
      `its initramfs lacks ${left}, which the disk of / needs`,
      'make it anew: update-initramfs -u, dracut -f',
    );
  }
  return warnings;
}

/** Drivers on the way to a device that a kernel has neither by their name nor by the device's. */
export function missingDrivers({ modules: bound, aliases }: DeviceChain, modules: KernelModules): string[] {
  const missing = bound.map(moduleName).filter((name) => !isFile(name, modules) && !modules.builtin.has(name));
  // Drivers are renamed at times.
  const others = missing.length === 0 ? [] : aliases.flatMap((alias) => aliased(alias, modules));
  return others.length >= missing.length ? [] : missing;
}

function isFile(name: string, { dependencies }: KernelModules): boolean {
  return [...dependencies.keys()].some((path) => moduleName(path) === name);
}

/** Names that depend on the order in which the kernel finds devices. @param cards names of network cards @param disks as in /dev */
export function nameFaults(commandLine: string, cards: readonly string[], disks: readonly string[]): string[] {
  const byOrder = cards.filter((name) => /^eth\d+$/.test(name));
  const faults: string[] = [];
  if (cards.length > 1 && byOrder.length > 0) {
    faults.push(
      `network cards have names by the order in which they are found (${byOrder.join(', ')}), which may change`,
    );
  }
  const root = parameters(commandLine).findLast((word) => word.startsWith('root='));
  const [, kind] = /^root=\/dev\/(sd|vd|hd|xvd)[a-z]+\d*$/.exec(root ?? '') ?? [];
  if (kind !== undefined && disks.filter((name) => new RegExp(`^${kind}[a-z]+$`).test(name)).length > 1) {
    faults.push(`${root} is a name by the order in which disks are found, which may change: use root=UUID=...`);
  }
  return faults;
}

/** Names of modules in initramfs files; undefined where one cannot be read. */
function modulesIn(initrds: readonly string[]): Set<string> | undefined {
  const all = initrds.map((file) => initramfsNames(readFileSync(file)));
  if (all.some((names) => names === undefined)) return undefined;
  return new Set(all.flatMap((names) => names!.filter((name) => /\.ko(\.\w+)?$/.test(name)).map(moduleName)));
}

interface RootDisk {
  /** Of the file system. */
  readonly type: string;
  readonly chain: DeviceChain;
}

/** undefined where / is on no disk. */
function rootDisk(): RootDisk | undefined {
  const mount = readMountinfo('self').findLast(({ mountPoint }) => mountPoint === '/');
  if (mount === undefined) return undefined;
  const number = mount.major === 0 ? numberOf(mount.source) : `${mount.major}:${mount.minor}`;
  if (number === undefined) return undefined;
  const chains = disksBelow(blockDevice(number)).map(deviceChain);
  const all = (of: (chain: DeviceChain) => readonly string[]) => [...new Set(chains.flatMap(of))];
  const chain = { modules: all(({ modules }) => modules), aliases: all(({ aliases }) => aliases) };
  return { type: mount.type, chain };
}

function disksBelow(folder: string): string[] {
  const lower = lowerDevices(folder);
  return lower.length === 0 ? [folder] : [folder, ...lower.flatMap(disksBelow)];
}

function refuse({ release }: Next, why: string, remedy: string): never {
  throw new UnsupportedError({ what: `kernel ${release}`, why, remedy });
}
