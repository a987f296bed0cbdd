/** Processes as descriptors: include/uapi/linux/pidfd.h */

/** Flags of pidfd_open(2); PIDFD_THREAD, Linux 6.9: of one thread. */
export const PIDFD_NONBLOCK = 0o4000;
export const PIDFD_THREAD = 0o200;
/** Flags of pidfd_send_signal(2), Linux 6.9. */
export const PIDFD_SIGNAL_THREAD = 0x1;
export const PIDFD_SIGNAL_THREAD_GROUP = 0x2;
export const PIDFD_SIGNAL_PROCESS_GROUP = 0x4;
