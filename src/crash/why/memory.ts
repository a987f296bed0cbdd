/** Who used memory: processes, caches of the kernel, files in memory; and caches that look as if objects of them were lost. */
import type { Kernel } from '../kernel/kernel.ts';
import { readSlabs, type SlabCache } from '../kernel/slabs.ts';
import type { Task } from '../kernel/tasks.ts';
import { type MemoryUsage, readUsage } from '../kernel/usage.ts';
import { resemblance } from './objects.ts';
import { addressEvidence, type Scene, taskEvidence, taskText } from './scene.ts';
import type { Finding } from './verdict.ts';

export interface User {
  readonly task: Task;
  /** Resident, in pages: mapped files, anonymous memory and shared memory. */
  readonly pages: number;
}

const PAGE = 4096;
/** Of the largest users, so many are told. */
const LARGEST = 5;
/** A cache that cannot shrink and has this part of all memory is worth a look; those of a kernel that works have a hundredth. */
const SUSPICIOUS = 0.08;
/** Objects that are in use, of those that there are: a cache that once was large and is empty now is no leak. */
const FULL = 0.9;
/** MM_FILEPAGES, MM_ANONPAGES and MM_SHMEMPAGES: include/linux/mm_types_task.h */
const RESIDENT: readonly number[] = [0, 1, 3];
/** SLAB_RECLAIM_ACCOUNT was a bit of its own before it got a number in enum _slab_flag_bits (6.9, cc61eb851154). */
const RECLAIM_ACCOUNT = 0x20000;

/** Processes by what they had in memory, the largest first. */
function largestUsers(scene: Scene): User[] {
  const { kernel, tasks } = scene;
  const leaders = tasks.filter(({ pid, tgid, mm }) => pid === tgid && mm !== 0n);
  const users = leaders.flatMap((task) => {
    const pages = kernel.gaps.try(`memory of task ${task.pid}`, () => residentPages(kernel, task.mm));
    return pages === undefined || pages <= 0 ? [] : [{ task, pages }];
  });
  return users.sort((a, b) => b.pages - a.pages);
}

/** Counters that each CPU has a part of since 6.2 (f1a7941243c1), and plain ones before. */
function residentPages({ memory, types, perCpu }: Kernel, mm: bigint): number {
  const isPlain = types.has('mm_struct', 'rss_stat.count') && types.has('mm_rss_stat');
  const base = mm + types.offset('mm_struct', isPlain ? 'rss_stat.count' : 'rss_stat');
  if (isPlain) return RESIDENT.reduce((sum, index) => sum + memory.long(base + BigInt(index * 8)), 0);
  const size = types.size('percpu_counter');
  const read = (index: number): number => {
    const counter = base + BigInt(index * size);
    const parts = memory.u64(counter + types.offset('percpu_counter', 'counters'));
    const own = memory.long(counter + types.offset('percpu_counter', 'count'));
    return perCpu.online.reduce((sum, cpu) => sum + memory.i32(perCpu.address(parts, cpu)), own);
  };
  return RESIDENT.reduce((sum, index) => sum + read(index), 0);
}

interface Largest {
  /** The same on every boot. */
  readonly name: string;
  readonly text: string;
}

/** What a lack of memory looks like: how it was used, with the largest users. */
export function memoryDetails(scene: Scene): Pick<Finding, 'details' | 'evidence'> & { largest: Largest | undefined } {
  const { kernel } = scene;
  const usage = kernel.gaps.try('use of memory', () => readUsage(kernel));
  const users = largestUsers(scene).slice(0, LARGEST);
  return {
    largest: largestOf(users[0], usage),
    details: [
      ...(usage === undefined ? [] : [usageText(usage)]),
      ...users.map(({ task, pages }) => `${taskText(task)} had ${megabytes(pages)} in memory`),
    ],
    evidence: users.map(({ task }) => taskEvidence(task, 'one of the largest users of memory')),
  };
}

/** A process, or what the kernel cannot give back and no process has. */
function largestOf(user: User | undefined, usage: MemoryUsage | undefined): Largest | undefined {
  const kinds = [
    ...(user === undefined ? [] : [{ name: user.task.comm, text: taskText(user.task), pages: user.pages }]),
    ...(usage === undefined
      ? []
      : [
          { name: 'tmpfs', text: 'files in memory (tmpfs, shared memory)', pages: usage.shmem },
          { name: 'slab', text: 'slab caches of the kernel that cannot shrink', pages: usage.slabUnreclaimable },
        ]),
  ].sort((a, b) => b.pages - a.pages);
  const [first] = kinds;
  return first && { name: first.name, text: `${first.text}: ${megabytes(first.pages)}` };
}

function usageText(usage: MemoryUsage): string {
  const kinds: readonly (readonly [string, number])[] = [
    ['free', usage.free],
    ['of processes', usage.anon],
    ['files in memory (tmpfs, shared memory)', usage.shmem],
    ['other cached files', usage.file - usage.shmem],
    ['of the kernel that cannot shrink', usage.slabUnreclaimable],
    ['of the kernel that can shrink', usage.slabReclaimable],
    ['page tables', usage.pageTables],
    ['kernel stacks', usage.kernelStack],
  ];
  const parts = kinds.filter(([, pages]) => pages > 0).map(([name, pages]) => `${megabytes(pages)} ${name}`);
  return `of ${megabytes(usage.total)}: ${parts.join(', ')}`;
}

/** Caches of the kernel that have much of its memory and cannot give it back. */
export function findLeaks({ kernel }: Scene): Finding[] {
  const usage = kernel.gaps.try('use of memory', () => readUsage(kernel));
  const caches = kernel.gaps.try('slab caches', () => readSlabs(kernel)) ?? [];
  if (usage === undefined || usage.total === 0) return [];
  const pagesOf = ({ slabs, pages }: SlabCache) => slabs * pages;
  return caches
    .filter((cache) => pagesOf(cache) / usage.total >= SUSPICIOUS && cache.inUse >= FULL * cache.objects)
    .filter(({ address }) => kernel.gaps.try('slab caches', () => canShrink(kernel, address)) === false)
    .sort((a, b) => pagesOf(b) - pagesOf(a))
    .map((cache): Finding => {
      const part = Math.round((pagesOf(cache) / usage.total) * 100);
      const alike = kernel.gaps.try(`objects of ${cache.name}`, () => resemblance(kernel, cache));
      const others = kernel.gaps.try('slab caches', () => sharedBy(kernel, cache.address)) ?? 1;
      return {
        kind: 'leak',
        weight: 'related',
        text:
          `the slab cache ${cache.name} has ${megabytes(pagesOf(cache))}, ${part}% of memory, in ${cache.inUse} objects that are ` +
          'in use: they may have been lost',
        details: [
          `of its ${cache.objects} objects of ${cache.objectSize} bytes ${cache.objects - cache.inUse} are free`,
          ...(alike === undefined
            ? []
            : [
                `of ${alike.of} that were looked at, ${alike.count} have at 0x${alike.offset.toString(16)} the address of ${alike.symbol}`,
              ]),
          ...(others > 1 ? [`${others} caches of objects of this size share it, under the name of the first`] : []),
        ],
        evidence: [
          addressEvidence(cache.address, `kmem_cache ${cache.name}`),
          ...(alike === undefined ? [] : [addressEvidence(alike.slab, 'struct slab of some of them')]),
        ],
      };
    });
}

function canShrink({ memory, types }: Kernel, cache: bigint): boolean {
  const bit = types.enumerator('_slab_flag_bits', '_SLAB_RECLAIM_ACCOUNT');
  const flag = bit === undefined ? RECLAIM_ACCOUNT : 2 ** bit;
  return (memory.u32(cache + types.offset('kmem_cache', 'flags')) & flag) !== 0;
}

function sharedBy({ memory, types }: Kernel, cache: bigint): number {
  return memory.i32(cache + types.offset('kmem_cache', 'refcount'));
}

function megabytes(pages: number): string {
  return `${((pages * PAGE) / 2 ** 20).toFixed(pages * PAGE < 10 * 2 ** 20 ? 1 : 0)} MB`;
}
