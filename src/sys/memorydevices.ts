/**
 * Ranges of physical memory that are devices of their own, for kernels that keep /dev/mem shut: what the memory map calls persistent
 * memory of the older kind (PRAM) as a block device, by nd_e820 and nd_pmem; what it calls soft reserved as a DAX device, by dax_hmem
 * and device_dax. Documentation/driver-api/nvdimm/nvdimm.rst; Documentation/ABI/testing/sysfs-bus-nvdimm, sysfs-bus-dax.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { readProcText } from './proc.ts';

export interface MemoryDevice {
  /** Physical address. */
  readonly start: number;
  /** Behind the last byte. */
  readonly end: number;
  readonly path: string;
  /** Where mappings of it begin and end: multiples of so many bytes. */
  readonly grain: number;
}

/** A device on the DAX bus, and the driver that has it. */
export interface DaxDevice {
  readonly name: string;
  readonly driver: string | undefined;
  readonly start: number;
  readonly end: number;
}

const ND = '/sys/bus/nd';
const DAX = '/sys/bus/dax';
/** Devices come some time after their module. */
const PATIENCE_MS = 20_000;
const STEP_MS = 20;

type Enough = (devices: readonly MemoryDevice[]) => boolean;

/** Block devices of PRAM, when there are enough of them, or after some time. */
export function pmemDevices(enough: Enough): MemoryDevice[] {
  for (const module of ['nd_e820', 'nd_pmem']) loadModule(module);
  return existsSync(`${ND}/drivers/nd_pmem`) ? whenThere(namespaces, enough) : [];
}

/** DAX devices of soft-reserved memory, as pmemDevices(). @param isOurs whether a device may be bound to the driver */
export function daxDevices(isOurs: (device: DaxDevice) => boolean, enough: Enough): MemoryDevice[] {
  // kmem would take them in, with what is in them.
  if (existsSync(`${DAX}/drivers/kmem`)) return [];
  for (const module of ['device_dax', 'dax_hmem']) loadModule(module);
  if (!existsSync(`${DAX}/drivers/device_dax`)) return [];
  const bound = () =>
    daxBus()
      .filter(isOurs)
      .flatMap(({ name, driver, start, end }) => {
        // Before Linux 6.3 the driver takes them by itself.
        if (driver === undefined) writeFileSync(`${DAX}/drivers/device_dax/new_id`, name);
        return driver === 'device_dax'
          ? [{ start, end, path: `/dev/${name}`, grain: Number(readProcText(`${DAX}/devices/${name}/align`)) }]
          : [];
      });
  return whenThere(bound, enough);
}

export function daxBus(): DaxDevice[] {
  return inFolder(`${DAX}/devices`).map((name) => {
    const folder = `${DAX}/devices/${name}`;
    const start = Number(readProcText(`${folder}/resource`));
    const driver = existsSync(`${folder}/driver`) ? basename(readlinkSync(`${folder}/driver`)) : undefined;
    return { name, driver, start, end: start + Number(readProcText(`${folder}/size`)) };
  });
}

/** @returns what went wrong, or undefined */
export function loadModule(name: string): string | undefined {
  const { status, error, stderr } = spawnSync('modprobe', [name], { encoding: 'utf8' });
  return status === 0 ? undefined : (error?.message ?? stderr.trim());
}

function namespaces(): MemoryDevice[] {
  return inFolder(`${ND}/devices`).flatMap((name) => {
    const folder = `${ND}/devices/${name}`;
    const [block] = inFolder(`${folder}/block`);
    if (block === undefined) return [];
    const start = Number(readProcText(`${folder}/resource`));
    return [{ start, end: start + Number(readProcText(`${folder}/size`)), path: `/dev/${block}`, grain: 4096 }];
  });
}

function whenThere(list: () => MemoryDevice[], enough: Enough): MemoryDevice[] {
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let waited = 0; ; waited += STEP_MS) {
    const devices = list().filter(({ path }) => existsSync(path));
    if (enough(devices) || waited >= PATIENCE_MS) return devices;
    Atomics.wait(pause, 0, 0, STEP_MS);
  }
}

function inFolder(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : [];
}
