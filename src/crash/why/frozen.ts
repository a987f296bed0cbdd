/** File systems that were frozen, as fsfreeze(8) does: include/linux/fs.h, struct sb_writers. */
import type { Kernel } from '../kernel/kernel.ts';
import { list } from '../kernel/lists.ts';

/** SB_UNFROZEN, SB_FREEZE_*: what has been stopped so far. */
const states = ['not frozen', 'being frozen', 'being frozen', 'being frozen', 'frozen'] as const;

/** The file system that has a semaphore among those that keep writers out of it, with its device and how far it is frozen. */
export function frozenFileSystem(kernel: Kernel, semaphore: bigint): { name: string; state: string } | undefined {
  const { memory, types, kallsyms } = kernel;
  const head = kallsyms.find('super_blocks');
  if (head === undefined || !types.has('super_block', 's_writers')) return undefined;
  const writers = types.offset('super_block', 's_writers');
  const size = BigInt(types.size('sb_writers'));
  for (const block of list(memory, head, types.offset('super_block', 's_list'))) {
    if (semaphore < block + writers || semaphore >= block + writers + size) continue;
    const frozen = types.member('super_block', 's_writers.frozen');
    const at = block + BigInt(frozen.bitOffset >> 3);
    const level = types.btf.size(frozen.type) === 4 ? memory.u32(at) : memory.u16(at);
    return { name: memory.string(block + types.offset('super_block', 's_id'), 32), state: states[level] ?? 'frozen' };
  }
  return undefined;
}
