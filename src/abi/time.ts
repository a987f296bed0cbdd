/** Times and timers: include/uapi/linux/time.h and time_types.h */
import { i64n, struct } from './struct.ts';

export const CLOCK_REALTIME = 0;
export const CLOCK_MONOTONIC = 1;
export const CLOCK_PROCESS_CPUTIME_ID = 2;
export const CLOCK_THREAD_CPUTIME_ID = 3;
export const CLOCK_MONOTONIC_RAW = 4;
export const CLOCK_BOOTTIME = 7;
export const CLOCK_REALTIME_ALARM = 8;
export const CLOCK_BOOTTIME_ALARM = 9;
export const CLOCK_TAI = 11;

export const ITIMER_REAL = 0;
export const ITIMER_VIRTUAL = 1;
export const ITIMER_PROF = 2;
export const TIMER_ABSTIME = 1;

/** struct __kernel_timespec, which is timespec on 64 bits. */
export const timespec = struct('timespec', 16, { tv_sec: i64n, tv_nsec: i64n });
export const timeval = struct('timeval', 16, { tv_sec: i64n, tv_usec: i64n });
/** setitimer(2). */
export const itimerval = struct('itimerval', 32, { it_interval: timeval, it_value: timeval });
/** timer_settime(2), timerfd_settime(2). */
export const itimerspec = struct('itimerspec', 32, { it_interval: timespec, it_value: timespec });
