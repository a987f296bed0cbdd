/**
 * Blocks of memory, the units in which the kernel takes memory in: /sys/devices/system/memory,
 * Documentation/admin-guide/mm/memory-hotplug.rst.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { readProcText } from './proc.ts';

const FOLDER = '/sys/devices/system/memory';

/** In bytes, or undefined where the kernel is built without memory hotplug. */
export function memoryBlockSize(): number | undefined {
  try {
    return Number.parseInt(readFileSync(`${FOLDER}/block_size_bytes`, 'latin1'), 16);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** `online`, `offline`, `going-offline`; or undefined where the kernel has no such block. @param start physical address */
export function memoryBlockState(start: number, size: number): string | undefined {
  try {
    return readProcText(`${FOLDER}/memory${start / size}/state`).trim();
  } catch (error) {
    if ((error as { errnoName?: string }).errnoName === 'ENOENT') return undefined;
    throw error;
  }
}

/** Gives an offline block to the kernel to use. @throws EINVAL (it cannot) */
export function onlineMemoryBlock(start: number, size: number): void {
  writeFileSync(`${FOLDER}/memory${start / size}/state`, 'online');
}
