/**
 * Huge pages that the kernel is not to move: a pipe that holds a page has a reference to it, and what has references that the kernel
 * cannot account for it leaves where it is (folio_migrate_mapping() and hugetlbfs_migrate_folio() of its mm/migrate.c and
 * fs/hugetlbfs/inode.c). A pipe belongs to whoever has its descriptor, needs no mapping, and no setting forbids it, as one may
 * forbid io_uring.
 */
import { F_SETPIPE_SZ, O_NONBLOCK } from '../abi/fcntl.ts';
import { iovec } from '../abi/uio.ts';
import { PMD_SIZE } from '../mem/address.ts';
import { close, fcntl, makePipe, vmsplice } from '../sys/files.ts';

/** Pages of one pipe. */
const PAGES = 4096;
/** UIO_MAXIOV of include/uapi/linux/uio.h: pages of one call. */
const AT_ONCE = 1024;

/** @param mapped runs of huge pages @returns descriptors of pipes; the pages stay until all are closed. Programs inherit them */
export function pinPages(mapped: readonly { readonly address: number; readonly count: number }[]): number[] {
  const pages = mapped.flatMap(({ address, count }) => Array.from({ length: count }, (_, i) => address + i * PMD_SIZE));
  const pipes: number[] = [];
  try {
    for (let first = 0; first < pages.length; first += PAGES) {
      pipes.push(pipeWith(pages.slice(first, first + PAGES)));
    }
    return pipes;
  } catch (error) {
    for (const fd of pipes) close({ fd });
    throw error;
  }
}

/** A pipe with one byte of each page. @throws SyscallError EPERM (more than a user may have without CAP_SYS_RESOURCE) */
function pipeWith(pages: readonly number[]): number {
  const { reader, writer } = makePipe(O_NONBLOCK);
  try {
    // A buffer for each page; the kernel counts them as pages of 4096 bytes.
    fcntl({ fd: writer, cmd: F_SETPIPE_SZ, arg: pages.length * 4096 });
    for (let done = 0; done < pages.length; ) {
      const some = pages.slice(done, done + AT_ONCE);
      const iov = Buffer.concat(some.map((address) => iovec.write({ iov_base: address, iov_len: 1 })));
      done += vmsplice({ fd: writer, iov, nr_segs: some.length, flags: 0 });
    }
    return reader;
  } catch (error) {
    close({ fd: reader });
    throw error;
  } finally {
    close({ fd: writer });
  }
}
