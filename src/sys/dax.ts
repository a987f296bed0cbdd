/**
 * Soft-reserved memory becomes ordinary memory: dax_hmem makes a DAX device of each range, and kmem takes in the whole blocks of
 * memory in it. Documentation/ABI/testing/sysfs-bus-dax; CONFIG_DEV_DAX_HMEM, CONFIG_DEV_DAX_KMEM.
 */
import { writeFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { UnsupportedError } from '../errors.ts';
import { memoryBlockState, onlineMemoryBlock } from './memoryblocks.ts';
import { daxBus, loadModule } from './memorydevices.ts';

const BUS = '/sys/bus/dax';
/** A device and its blocks come some time after the module. */
const PATIENCE_MS = 20_000;
const STEP_MS = 50;

/**
 * Gives soft-reserved blocks of memory to the kernel. What is in them is lost.
 *
 * @param blocks physical addresses of blocks of `size` bytes
 * @param isOurs whether a device that begins at a physical address may be taken in
 * @returns how many of the blocks are ordinary memory now
 * @throws UnsupportedError where a driver is missing
 */
export async function takeInBlocks(
  blocks: readonly number[],
  size: number,
  isOurs: (start: number) => boolean,
): Promise<number> {
  if (blocks.length === 0) return 0;
  for (const module of ['dax_hmem', 'kmem']) load(module);
  const missing = new Set(blocks);
  for (let waited = 0; waited < PATIENCE_MS && missing.size > 0; waited += STEP_MS) {
    bindDevices(isOurs);
    for (const block of missing) {
      const state = memoryBlockState(block, size);
      // Whether blocks come online by themselves is a setting of the kernel: auto_online_blocks.
      if (state === 'offline') onlineMemoryBlock(block, size);
      else if (state === 'online') missing.delete(block);
    }
    if (missing.size > 0) await setTimeout(STEP_MS);
  }
  return blocks.length - missing.size;
}

/** Has kmem take the devices that lie in ranges. Which driver takes them by itself differs: device_dax does so before Linux 6.3. */
function bindDevices(isOurs: (start: number) => boolean): void {
  for (const { name, driver, start } of daxBus()) {
    if (!isOurs(start) || driver === 'kmem') continue;
    if (driver !== undefined) writeFileSync(`${BUS}/drivers/${driver}/unbind`, name);
    try {
      writeFileSync(`${BUS}/drivers/kmem/new_id`, name);
    } catch (error) {
      // A range without a whole block: kmem_probe() of drivers/dax/kmem.c says so.
      if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
    }
  }
}

function load(module: string): void {
  const why = loadModule(module);
  if (why === undefined) return;
  throw new UnsupportedError({
    what: `module ${module}, which gives preserved memory back to the kernel`,
    why,
    remedy:
      'use a kernel that has it (CONFIG_DEV_DAX_HMEM, CONFIG_DEV_DAX_KMEM), or leave the memory until the next boot',
  });
}
