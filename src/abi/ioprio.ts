/** Priority of a thread's input and output: include/uapi/linux/ioprio.h */

export const IOPRIO_WHO_PROCESS = 1;
