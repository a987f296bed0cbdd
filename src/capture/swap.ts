/**
 * Swapping to memory: pages of a program that it has not touched for a while are kept compressed, a third of their size, by zram.
 * Without it a capture kernel has nothing but Node's own code to make room of, which is read again a moment later.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { swapon } from '../sys/swap.ts';

/** The module; kernels without it do without. */
export const ZRAM = 'zram';

const DEVICE = '/dev/zram0';
const ATTRIBUTE = '/sys/block/zram0/disksize';
const PAGE = 4096;
/** As much as compressed pages of this much fit into what there is. */
const SIZE = 96 << 20;

/** Does nothing where there is no such device. @throws the system's errors */
export function swapToMemory(): void {
  if (!existsSync(ATTRIBUTE)) return;
  writeFileSync(ATTRIBUTE, `${SIZE}`);
  writeFileSync(DEVICE, header(SIZE));
  // It takes no longer to read than to find out what to drop: vm.swappiness above 100 (Documentation/admin-guide/sysctl/vm.rst).
  writeFileSync('/proc/sys/vm/swappiness', '150');
  writeFileSync('/proc/sys/vm/page-cluster', '0');
  swapon({ path: DEVICE, swapflags: 0 });
}

/** union swap_header of include/linux/swap.h: version and last page after the first KiB, the magic at the page's end. */
function header(size: number): Buffer {
  const page = Buffer.alloc(PAGE);
  page.writeUInt32LE(1, 1024);
  page.writeUInt32LE(size / PAGE - 1, 1028);
  page.write('SWAPSPACE2', PAGE - 10, 'latin1');
  return page;
}
