/** Bounds on what headers may ask for, so that a damaged one costs neither memory nor time. Real dumps stay far below. */

/** Program headers: /proc/vmcore has one for each piece of memory, a filtered ELF file one for each run of pages. */
export const MAX_SEGMENTS = 2 ** 20;
/** Bytes of notes: 8192 CPUs have 3 MB of NT_PRSTATUS and 4 MB of QEMU's own. */
export const MAX_NOTES = 64 * 2 ** 20;
/** Pages that bitmaps describe: 64 TiB of physical addresses. */
export const MAX_PAGES = 2 ** 34;
/** One past the highest physical address: 52 bits (Intel SDM Vol. 3, 4.1.4). */
export const PHYSICAL_END = 2 ** 52;
