/**
 * Maple trees, which hold the mappings of a process since 6.1 (include/linux/maple_tree.h, lib/maple_tree.c).
 *
 * A pointer to a node has its type in bits 3 to 6. A leaf's slots hold entries, an inner node's slots hold nodes; slot i is for
 * indices up to pivot[i], and where pivots end, up to the node's last. Nodes are 256 bytes, aligned to that.
 */
import { HoleError } from '../../errors.ts';
import type { VirtualMemory } from './memory.ts';
import type { Types } from './types.ts';

/** enum maple_type */
const MAPLE_LEAF_64 = 1;
const MAPLE_RANGE_64 = 2;
const MAPLE_ARANGE_64 = 3;
/** maple_tree.h: MAPLE_HEIGHT_MAX is 31. */
const MAX_HEIGHT = 31;
const MAX_ENTRIES = 2 ** 20;
/** What is no pointer to a struct: entries of the tree's own, as in an xarray (xa_is_internal). */
const INTERNAL = 2n;

const kinds: Readonly<Record<number, string>> = {
  [MAPLE_LEAF_64]: 'maple_range_64',
  [MAPLE_RANGE_64]: 'maple_range_64',
  [MAPLE_ARANGE_64]: 'maple_arange_64',
};

/** The entries in order. @param tree address of a struct maple_tree. @throws HoleError */
export function* mapleEntries(memory: VirtualMemory, types: Types, tree: bigint): Generator<bigint> {
  const root = memory.u64(tree + types.offset('maple_tree', 'ma_root'));
  if (root === 0n) return;
  // A tree of one entry has no node.
  if ((root & 3n) !== INTERNAL) yield root;
  else yield* walk(memory, types, root, 2n ** 64n - 1n, 0, { entries: 0 });
}

function* walk(
  memory: VirtualMemory,
  types: Types,
  pointer: bigint,
  last: bigint,
  depth: number,
  seen: { entries: number },
): Generator<bigint> {
  const type = Number((pointer >> 3n) & 0xfn);
  const kind = kinds[type];
  const node = pointer & ~0xffn;
  if (kind === undefined || depth > MAX_HEIGHT) throw new HoleError(node, 'damaged', 'no node of a maple tree');
  const size = types.size(kind);
  const view = memory.view(node, size);
  const pivots = Number(types.offset(kind, 'pivot'));
  const slots = Number(types.offset(kind, 'slot'));
  const count = types.btf.length(types.btf.resolve(types.member(kind, 'slot').type));
  for (let i = 0; i < count; i++) {
    let end = i < count - 1 ? view.getBigUint64(pivots + i * 8, true) : last;
    // Unused pivots are zero.
    if (end === 0n && i > 0) end = last;
    const entry = view.getBigUint64(slots + i * 8, true);
    if (entry !== 0n) {
      if (++seen.entries > MAX_ENTRIES) throw new HoleError(node, 'damaged', 'the tree has no end');
      if (type !== MAPLE_LEAF_64) yield* walk(memory, types, entry, end, depth + 1, seen);
      else if ((entry & 3n) !== INTERNAL) yield entry;
    }
    if (end >= last) return;
  }
}
