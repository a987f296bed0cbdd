/** Flags of mount(2): include/uapi/linux/mount.h */

export const MS_RDONLY = 1;
export const MS_REMOUNT = 32;
