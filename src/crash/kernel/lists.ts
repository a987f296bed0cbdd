/** Linked lists of the kernel: include/linux/list.h. A list in a dump may be cut, or lead in a circle. */
import { HoleError } from '../../errors.ts';
import type { VirtualMemory } from './memory.ts';

/** More than any list that is walked here has in a kernel that works. */
const MAX_ENTRIES = 2 ** 22;

/**
 * Addresses of the structs on a circular list.
 *
 * @param head address of the list_head that belongs to no struct
 * @param offset of the list_head in each struct
 * @param link of the pointer in a list_head: 0 for `next`, 8 for `prev`
 * @throws HoleError where it does not lead back to the head, after what came before that
 */
export function* list(memory: VirtualMemory, head: bigint, offset: bigint, link = 0n): Generator<bigint> {
  const seen = new Set<bigint>();
  for (let at = memory.u64(head + link); at !== head; at = memory.u64(at + link)) {
    if (seen.has(at) || seen.size >= MAX_ENTRIES) {
      throw new HoleError(at, 'damaged', `the list at 0x${head.toString(16)} leads in a circle`);
    }
    seen.add(at);
    yield at - offset;
  }
}

/** The same for a list that begins with a struct: until it leads there again, or to NULL. @param first address of the struct */
export function* ring(memory: VirtualMemory, first: bigint, offset: bigint, link = 0n): Generator<bigint> {
  const seen = new Set<bigint>();
  for (let at = first + offset; at !== 0n; at = memory.u64(at + link)) {
    if (seen.has(at)) {
      if (at === first + offset) return;
      throw new HoleError(at, 'damaged', 'the list leads in a circle that the first is not in');
    }
    if (seen.size >= MAX_ENTRIES) throw new HoleError(at, 'damaged', 'the list has no end');
    seen.add(at);
    yield at - offset;
  }
}

/** The same for one that ends with NULL: hlist and what is like it. */
export function* chain(memory: VirtualMemory, first: bigint, offset: bigint): Generator<bigint> {
  const seen = new Set<bigint>();
  for (let at = first; at !== 0n; at = memory.u64(at)) {
    if (seen.has(at) || seen.size >= MAX_ENTRIES) {
      throw new HoleError(at, 'damaged', 'the list leads in a circle');
    }
    seen.add(at);
    yield at - offset;
  }
}
