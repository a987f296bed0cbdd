/** How pages that were written are found, and how faults are served. Tried on memory of this process. */
import { errnoName } from '../../abi/errno.ts';
import { O_CLOEXEC } from '../../abi/fcntl.ts';
import { PAGE_IS_PRESENT, PAGEMAP_SCAN, pm_scan_arg } from '../../abi/fs.ts';
import * as uffd from '../../abi/userfaultfd.ts';
import { SyscallError } from '../../errors.ts';
import { close, ioctl } from '../files.ts';
import { Pagemap, PM_SOFT_DIRTY } from '../pagemap.ts';
import { Region } from '../region.ts';
import { openUserfaultfd } from '../userfaultfd.ts';
import { type Answer, no, partly, yes } from './answer.ts';
import { read } from './files.ts';

/** Scans one page of our own, just written, for its categories. */
export function pagemapScan(): Answer {
  const page = writtenPage();
  const region = new Region(4096);
  const arg = pm_scan_arg.write({
    size: pm_scan_arg.size,
    start: page.address,
    end: page.address + page.size,
    vec: region.address,
    vec_len: 1,
    category_anyof_mask: PAGE_IS_PRESENT,
    return_mask: PAGE_IS_PRESENT,
  });
  const { fd } = page.pagemap;
  const found = ioctl.attempt({ fd, request: PAGEMAP_SCAN, arg });
  region[Symbol.dispose]();
  page.dispose();
  if (found === 1) return yes('the ioctl found a page that was written');
  const tried =
    found < 0 ? `the ioctl on /proc/self/pagemap: ${errnoName(-found)}` : `the ioctl found ${found} pages, not 1`;
  return no(tried, 'a kernel with PAGEMAP_SCAN (mainline has it since 6.7); without it pagemap is read entry by entry');
}

/** A new mapping counts as written since the last time that somebody asked. */
export function softDirty(): Answer {
  const page = writtenPage();
  const [, high] = page.pagemap.read(page.address, page.address + page.size);
  page.dispose();
  if ((high! & PM_SOFT_DIRTY) !== 0) return yes('the pagemap entry of a page just written has bit 55 set');
  return no(
    'the pagemap entry of a page just written has bit 55 clear',
    'a kernel with CONFIG_MEM_SOFT_DIRTY=y (not needed where PAGEMAP_SCAN and userfaultfd work)',
  );
}

function writtenPage(): { address: number; size: number; pagemap: Pagemap; dispose(): void } {
  const pagemap = new Pagemap('self');
  const region = new Region(4096);
  region.bytes[0] = 1;
  const dispose = () => {
    region[Symbol.dispose]();
    pagemap[Symbol.dispose]();
  };
  return { address: region.address, size: region.size, pagemap, dispose };
}

const WANTED = {
  'write protection': uffd.UFFD_FEATURE_PAGEFAULT_FLAG_WP,
  'asynchronous write protection': uffd.UFFD_FEATURE_WP_ASYNC,
  'unpopulated pages': uffd.UFFD_FEATURE_WP_UNPOPULATED,
  'shared memory': uffd.UFFD_FEATURE_MISSING_SHMEM,
  'huge pages': uffd.UFFD_FEATURE_MISSING_HUGETLBFS,
  'remove events': uffd.UFFD_FEATURE_EVENT_REMOVE,
};

export function userfault(): Answer {
  const setting = `vm.unprivileged_userfaultfd is ${read('/proc/sys/vm/unprivileged_userfaultfd').text ?? 'not there'}`;
  let all: number;
  let mode = 'userfaultfd';
  try {
    all = featuresOf(0);
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    if (error.errnoName !== 'EPERM') {
      return no(
        `userfaultfd: ${error.errnoName}`,
        'a kernel with CONFIG_USERFAULTFD=y, not hidden by a seccomp filter',
      );
    }
    try {
      all = featuresOf(uffd.UFFD_USER_MODE_ONLY);
      mode = 'userfaultfd for faults of user mode only (EPERM for all)';
    } catch (second) {
      if (!(second instanceof SyscallError)) throw second;
      return no(`userfaultfd: ${second.errnoName}; ${setting}`, 'run with CAP_SYS_PTRACE (as root)');
    }
  }
  const missing = Object.entries(WANTED)
    .filter(([, bit]) => (all & bit) === 0)
    .map(([what]) => what);
  if (missing.length > 0) {
    return partly(`${mode}, without ${missing.join(', ')}`, 'a newer kernel; the other ways of tracking are slower');
  }
  if (mode !== 'userfaultfd') return partly(`${mode}; ${setting}`, 'run with CAP_SYS_PTRACE (as root)');
  return yes(`userfaultfd with ${Object.keys(WANTED).join(', ')}; ${setting}`);
}

function featuresOf(flags: number): number {
  const { fd, features } = openUserfaultfd(flags + O_CLOEXEC);
  close({ fd });
  return features;
}
