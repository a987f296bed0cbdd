/** epoll: include/uapi/linux/eventpoll.h; timerfd's ioctl of linux/timerfd.h; eventfd's flag of linux/eventfd.h */
import { struct, u32, u64 } from './struct.ts';

export const EPOLL_CTL_ADD = 1;

export const epoll_event = struct('epoll_event', 12, { events: u32, data: u64 }, { packed: true });

export const EFD_SEMAPHORE = 1;

export const TFD_TIMER_ABSTIME = 1;
export const TFD_TIMER_CANCEL_ON_SET = 2;
/** _IOW('T', 0, u64): how often it has expired since it was read. */
export const TFD_IOC_SET_TICKS = 0x40085400;
