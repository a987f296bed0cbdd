/** Mappings of a process: include/linux/mm_types.h, fs/proc/task_mmu.c */
import type { Kernel } from './kernel.ts';
import { chain } from './lists.ts';
import { mapleEntries } from './maple.ts';
import type { Paths } from './paths.ts';
import type { Task } from './tasks.ts';

export interface Mapping {
  /** Of its vm_area_struct. */
  readonly address: bigint;
  readonly start: bigint;
  readonly end: bigint;
  /** `rwxp`, as in /proc/PID/maps. */
  readonly permissions: string;
  /** In the file, in bytes. */
  readonly offset: number;
  /** Of the file, or `[heap]`, `[stack]`, `[vdso]`, ...; empty for anonymous memory. */
  readonly name: string;
}

/** VM_*: include/linux/mm.h */
const [VM_READ, VM_WRITE, VM_EXEC, VM_MAYSHARE] = [1n, 2n, 4n, 0x80n];

/** The mappings in the order of their addresses, for a task with an mm. What is missing goes to `gaps`. */
export function readMappings(kernel: Kernel, paths: Paths, { pid, mm }: Task): Mapping[] {
  const { memory, types, gaps } = kernel;
  const what = `mappings of task ${pid}`;
  const found: Mapping[] = [];
  const areas = types.has('mm_struct', 'mm_mt')
    ? mapleEntries(memory, types, mm + types.offset('mm_struct', 'mm_mt'))
    : linked(kernel, mm);
  for (const area of gaps.each(what, areas)) {
    const mapping = gaps.try(what, () => readMapping(kernel, paths, mm, area));
    if (mapping !== undefined) found.push(mapping);
  }
  return found;
}

/** The list of mappings of 6.0, which 6.1 replaced by a tree (763ecb035029). */
function linked({ memory, types }: Kernel, mm: bigint): Iterable<bigint> {
  const next = types.offset('vm_area_struct', 'vm_next');
  const first = memory.u64(mm + types.offset('mm_struct', 'mmap'));
  return chain(memory, first === 0n ? 0n : first + next, next);
}

function readMapping(kernel: Kernel, paths: Paths, mm: bigint, address: bigint): Mapping {
  const { memory, types } = kernel;
  const at = (path: string) => address + types.offset('vm_area_struct', path);
  const [start, end] = [memory.u64(at('vm_start')), memory.u64(at('vm_end'))];
  const flags = memory.u64(at('vm_flags'));
  const has = (flag: bigint, letter: string) => ((flags & flag) !== 0n ? letter : '-');
  const permissions =
    has(VM_READ, 'r') + has(VM_WRITE, 'w') + has(VM_EXEC, 'x') + ((flags & VM_MAYSHARE) !== 0n ? 's' : 'p');
  const file = memory.u64(at('vm_file'));
  return {
    address,
    start,
    end,
    permissions,
    offset: file === 0n ? 0 : memory.long(at('vm_pgoff')) * 4096,
    name:
      file === 0n
        ? anonymousName(kernel, mm, address, start, end)
        : paths.text(paths.place(file + types.offset('file', 'f_path'))),
  };
}

/** get_vma_name() */
function anonymousName(
  { memory, types, symbols }: Kernel,
  mm: bigint,
  vma: bigint,
  start: bigint,
  end: bigint,
): string {
  const of = (path: string) => memory.u64(mm + types.offset('mm_struct', path));
  const operations = memory.u64(vma + types.offset('vm_area_struct', 'vm_ops'));
  if (operations !== 0n && symbols.lookup(operations)?.name === 'special_mapping_vmops') {
    const special = memory.u64(vma + types.offset('vm_area_struct', 'vm_private_data'));
    return memory.string(memory.u64(special + types.offset('vm_special_mapping', 'name')), 64);
  }
  if (start <= of('brk') && end >= of('start_brk')) return '[heap]';
  if (start <= of('start_stack') && end >= of('start_stack')) return '[stack]';
  if (!types.has('vm_area_struct', 'anon_name')) return '';
  const name = memory.u64(vma + types.offset('vm_area_struct', 'anon_name'));
  return name === 0n ? '' : `[anon:${memory.string(name + types.offset('anon_vma_name', 'name'), 80)}]`;
}
