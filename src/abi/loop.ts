/** ioctl(2) requests of loop devices: include/uapi/linux/loop.h */

export const LOOP_SET_FD = 0x4c00;
export const LOOP_CTL_ADD = 0x4c80;
