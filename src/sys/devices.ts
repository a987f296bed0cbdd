/** What devices hang on, and which modules drive them: /sys/dev/block, /sys/class/net. */
import { existsSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

/** A device with all that leads to it. */
export interface DeviceChain {
  /** Modules of the drivers that are bound now, built in or not. */
  readonly modules: readonly string[];
  /** Modaliases of the devices on the way, for a kernel whose drivers have other names. */
  readonly aliases: readonly string[];
}

/** The folder in /sys/devices of a block device or a partition. @param number `MAJOR:MINOR` */
export function blockDevice(number: string): string {
  return realpathSync(`/sys/dev/block/${number}`);
}

/** The folder in /sys/devices of a network interface. */
export function networkDevice(name: string): string {
  return realpathSync(`/sys/class/net/${name}`);
}

/** `card`, or what the kernel calls another one: `vlan`, `bond`, `bridge`, `wlan`; `virtual` where it does not say. */
export function interfaceKind(name: string): string {
  const kind = /^DEVTYPE=(.*)$/m.exec(readFileSync(`/sys/class/net/${name}/uevent`, 'latin1'))?.[1];
  return kind ?? (networkDevice(name).startsWith('/sys/devices/virtual/') ? 'virtual' : 'card');
}

/** @param folder in /sys/devices */
export function deviceChain(folder: string): DeviceChain {
  const modules = new Set<string>();
  const aliases = new Set<string>();
  for (let at = folder; at.startsWith('/sys/devices/'); at = dirname(at)) {
    const module = join(at, 'driver/module');
    if (existsSync(module)) modules.add(basename(realpathSync(module)));
    const alias = join(at, 'modalias');
    if (existsSync(alias)) aliases.add(readFileSync(alias, 'latin1').trim());
  }
  return { modules: [...modules].reverse(), aliases: [...aliases].reverse() };
}

/** The block devices that a device mapper or RAID device is made of. @returns folders in /sys/devices */
export function lowerDevices(folder: string): string[] {
  const slaves = join(folder, 'slaves');
  return existsSync(slaves) ? readdirSync(slaves).map((name) => realpathSync(join(slaves, name))) : [];
}

/** Names of all block devices and partitions of this kernel, as in /dev. */
export function blockDevices(): string[] {
  return readdirSync('/sys/class/block');
}

/** Interfaces of devices: name and hardware address, `52:54:00:12:34:56`. */
export function networkInterfaces(): { readonly name: string; readonly address: string }[] {
  return readdirSync('/sys/class/net').map((name) => ({
    name,
    address: readFileSync(`/sys/class/net/${name}/address`, 'latin1').trim(),
  }));
}

/** Whether a network interface has its link. One that is down cannot tell, and has none. */
export function hasCarrier(name: string): boolean {
  try {
    return readFileSync(`/sys/class/net/${name}/carrier`, 'latin1').trim() === '1';
  } catch {
    return false;
  }
}

/** The device of a path in /dev, `MAJOR:MINOR`: where it leads, if it is a link. @returns undefined where there is none */
export function numberOf(path: string): string | undefined {
  if (!existsSync(path)) return undefined;
  const file = `/sys/class/block/${basename(realpathSync(path))}/dev`;
  return existsSync(file) ? readFileSync(file, 'latin1').trim() : undefined;
}

/** In bytes. @param path of a block device, or of a link to one */
export function diskSize(path: string): number {
  return Number(readFileSync(`/sys/class/block/${basename(realpathSync(path))}/size`, 'latin1')) * 512;
}
