/** Slab caches as /proc/slabinfo counts them: mm/slab.h, mm/slub.c. What CPUs keep for themselves counts as in use. */
import { HoleError } from '../../errors.ts';
import type { Kernel } from './kernel.ts';
import { list } from './lists.ts';

export interface SlabCache {
  /** Of its kmem_cache. */
  readonly address: bigint;
  readonly name: string;
  /** Bytes of an object, and with what lies between two. */
  readonly objectSize: number;
  readonly size: number;
  readonly objects: number;
  readonly inUse: number;
  readonly slabs: number;
  /** Pages of a slab. */
  readonly pages: number;
}

/** MAX_NUMNODES of the largest configuration. */
const MAX_NODES = 1024;
/** Objects of a slab in the low bits of kmem_cache_order_objects, its order above them: mm/slub.c, OO_SHIFT. */
const ORDER_SHIFT = 16;
const MAX_ORDER = 20;

/** In the kernel's order; what is missing goes to `gaps`. */
export function readSlabs(kernel: Kernel): SlabCache[] {
  const { memory, types, kallsyms, gaps } = kernel;
  const head = kallsyms.find('slab_caches');
  if (head === undefined) return [];
  const found: SlabCache[] = [];
  for (const address of gaps.each('slab caches', list(memory, head, types.offset('kmem_cache', 'list')))) {
    const cache = gaps.try(`slab cache at 0x${address.toString(16)}`, () => readCache(kernel, address));
    if (cache !== undefined) found.push(cache);
  }
  return found;
}

function readCache(kernel: Kernel, address: bigint): SlabCache {
  const { memory, types, gaps } = kernel;
  const at = (path: string) => address + types.offset('kmem_cache', path);
  const name = memory.string(memory.u64(at('name')), 256);
  const order = memory.u32(at('oo.x')) >>> ORDER_SHIFT;
  if (order > MAX_ORDER) throw new HoleError(address, 'damaged', `slabs of order ${order}`);
  let [objects, free, slabs] = [0, 0, 0];
  for (const node of nodes(kernel, address)) {
    const of = (path: string) => node + types.offset('kmem_cache_node', path);
    // Without CONFIG_SLUB_DEBUG nobody counts.
    if (types.has('kmem_cache_node', 'total_objects')) {
      objects += memory.long(of('total_objects'));
      slabs += memory.long(of('nr_slabs'));
    }
    const partial = list(memory, of('partial'), types.offset('slab', 'slab_list'));
    for (const slab of gaps.each(`slabs of ${name}`, partial)) {
      const bits = memory.u32(slab + types.offset('slab', 'inuse'));
      // unsigned inuse:16, objects:15, frozen:1
      free += ((bits >>> 16) & 0x7fff) - (bits & 0xffff);
    }
  }
  return {
    address,
    name,
    objectSize: memory.u32(at('object_size')),
    size: memory.u32(at('size')),
    objects,
    inUse: objects - free,
    slabs,
    pages: 2 ** order,
  };
}

/** The kmem_cache_node of each NUMA node: in an array of pointers, since 7.x in one with what else a node has. */
function* nodes({ memory, types, kallsyms }: Kernel, cache: bigint): Generator<bigint> {
  const limit = kallsyms.find('nr_node_ids');
  const count = limit === undefined ? 1 : Math.min(memory.u32(limit), MAX_NODES);
  const isPerNode = types.has('kmem_cache', 'per_node');
  const first = isPerNode
    ? types.offset('kmem_cache', 'per_node') + types.offset('kmem_cache_per_node_ptrs', 'node')
    : types.offset('kmem_cache', 'node');
  const step = isPerNode ? types.size('kmem_cache_per_node_ptrs') : 8;
  for (let i = 0; i < count; i++) {
    const node = memory.u64(cache + first + BigInt(i * step));
    if (node !== 0n) yield node;
  }
}
