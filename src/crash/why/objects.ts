/**
 * What the objects of a slab cache are: a sample of them is looked through for addresses of functions and variables that most have at
 * the same place, as a callback or a table of operations. That names who made them, also in a cache that many share.
 */
import { PAGE_SIZE } from '../../mem/address.ts';
import type { Kernel } from '../kernel/kernel.ts';
import type { SlabCache } from '../kernel/slabs.ts';
import { placeText } from '../kernel/symbols.ts';

export interface Resemblance {
  /** Bytes from the start of the object. */
  readonly offset: number;
  /** `name [module]` */
  readonly symbol: string;
  readonly module: string | undefined;
  readonly count: number;
  /** Objects that were looked at. */
  readonly of: number;
  /** Address of the struct slab of one of them. */
  readonly slab: bigint;
}

/** struct pages that are looked at, spread over all memory, to find this many slabs. */
const PROBES = 32768;
const SLABS = 32;
const OBJECTS_OF_SLAB = 4;
/** Of an object, so much is looked at, in bytes. */
const MAX_OBJECT = 1024;

/** What most of the objects have in common, or undefined. @throws HoleError, FormatError */
export function resemblance(kernel: Kernel, cache: SlabCache): Resemblance | undefined {
  const { source, symbols } = kernel;
  const counts = new Map<string, { offset: number; address: bigint; count: number }>();
  const words = new BigUint64Array(Math.min(MAX_OBJECT, cache.objectSize) >> 3);
  const bytes = new Uint8Array(words.buffer);
  const each = Math.min(OBJECTS_OF_SLAB, Math.floor(cache.objects / Math.max(1, cache.slabs)));
  let [of, slab] = [0, 0n];
  for (const found of sampleSlabs(kernel, cache.address)) {
    slab = found.slab;
    for (let i = 0; i < each; i++) {
      if (source.readPhysical(found.pfn * PAGE_SIZE + i * cache.size, bytes) !== undefined) continue;
      of++;
      for (const [at, address] of words.entries()) {
        if (address >> 63n === 0n || symbols.lookup(address)?.offset !== 0) continue;
        const key = `${at} ${address}`;
        const known = counts.get(key) ?? { offset: at * 8, address, count: 0 };
        known.count++;
        counts.set(key, known);
      }
    }
  }
  const best = [...counts.values()].sort((a, b) => b.count - a.count)[0];
  const place = best === undefined ? undefined : symbols.lookup(best.address);
  if (best === undefined || place === undefined || best.count * 2 < of) return undefined;
  const symbol = placeText(place).replace(/\+0x0\/0x[0-9a-f]+/, '');
  return { offset: best.offset, symbol, module: place.module, count: best.count, of, slab };
}

/** Slabs of a cache by their first page: struct slab lies where struct page does, and names its cache. */
function* sampleSlabs(kernel: Kernel, cache: bigint): Generator<{ slab: bigint; pfn: number }> {
  const { memory, types, kallsyms, source } = kernel;
  const base = kallsyms.find('vmemmap_base');
  if (base === undefined || !types.has('slab', 'slab_cache')) return;
  const array = memory.u64(base);
  const [size, member] = [BigInt(types.size('page')), types.offset('slab', 'slab_cache')];
  const pages = source.ranges.reduce((sum, { start, end }) => sum + Math.floor((end - start) / PAGE_SIZE), 0);
  // An odd step comes to the first page of slabs of any order.
  const step = Math.floor(pages / PROBES) | 1;
  let found = 0;
  for (const { start, end } of source.ranges) {
    for (let pfn = Math.ceil(start / PAGE_SIZE); (pfn + 1) * PAGE_SIZE <= end; pfn += step) {
      const slab = array + BigInt(pfn) * size;
      if (memory.space.u64(slab + member) !== cache) continue;
      yield { slab, pfn };
      if (++found >= SLABS) return;
    }
  }
}
