/** What memory is used for, in pages: makedumpfile --mem-usage. */
import { UnsupportedError } from '../../errors.ts';
import { PAGE_SIZE } from '../../mem/address.ts';
import { isZero } from '../bytes.ts';
import { openDumpFiles } from '../open.ts';
import { vmcoreinfoOf } from '../vmcoreinfo.ts';
import { DL_ALL, excludePages } from './pages.ts';
import type { DumpFiles } from './threads.ts';

/** Kinds in the order in which a page is asked for them. */
export interface MemoryUsage {
  readonly zero: number;
  readonly cache: number;
  readonly cachePrivate: number;
  readonly user: number;
  readonly free: number;
  /** All else: what no dump level leaves out. */
  readonly kernel: number;
  readonly total: number;
}

/** @throws UnsupportedError where the kernel does not say where it keeps what it knows of pages */
export function memoryUsage(files: DumpFiles): MemoryUsage {
  const source = openDumpFiles(files.paths, files.ram === undefined ? {} : { ram: files.ram });
  try {
    const info = vmcoreinfoOf(source.notes);
    if (info === undefined) {
      const why = 'there is no VMCOREINFO in it';
      throw new UnsupportedError({ what: source.file, why, remedy: 'use a dump of a kernel that describes itself' });
    }
    const bits = new Uint8Array(Math.ceil((source.ranges.at(-1)?.end ?? 0) / PAGE_SIZE / 8));
    source.storedPages(0, bits);
    let total = 0;
    const eachPage = (visit: (pfn: number) => void) => {
      for (let pfn = 0; pfn < bits.length * 8; pfn++) if (((bits[pfn >>> 3]! >> (pfn & 7)) & 1) === 1) visit(pfn);
    };
    eachPage(() => total++);
    const { cache, cachePrivate, user, free } = excludePages(source, info, DL_ALL, bits);
    let zero = 0;
    let kernel = 0;
    const page = new Uint8Array(PAGE_SIZE);
    eachPage((pfn) => {
      if (source.readPhysical(pfn * PAGE_SIZE, page) === undefined && isZero(page)) zero++;
      else kernel++;
    });
    return { zero, cache, cachePrivate, user, free, kernel, total };
  } finally {
    source.close();
  }
}
