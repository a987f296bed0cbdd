/** Numbers of devices: include/linux/kdev_t.h. The kernel gives a major number 12 bits and a minor one 20. */

/**
 * new_encode_dev(), as mknod(2), stat(2) and /proc/PID/stat have it: minor in bits 0-7 and 20-31, major in bits 8-19. Numbers of this
 * size are the same for makedev(3).
 */
export function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

/** new_decode_dev() */
export function decodeDevice(device: number): { readonly major: number; readonly minor: number } {
  return { major: (device >>> 8) & 0xfff, minor: (device & 0xff) | ((device >>> 12) & 0xfff00) };
}

/** MKDEV(), as the kernel itself keeps it, and images of CRIU: minor in bits 0-19, major above. */
export function internalDevice(major: number, minor: number): number {
  return ((major << 20) | minor) >>> 0;
}
