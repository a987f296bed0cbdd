/** Descriptors that tell of events: poll(2), eventfd(2), signalfd(2), timerfd_create(2), epoll_create(2). */
import { Errno } from '../abi/errno.ts';
import { POLLIN, pollfd } from '../abi/poll.ts';
import { hex, input, int, output, syscall } from './syscall.ts';

const pollCall = syscall('poll', 7, { fds: output, nfds: int, timeout: int });

/**
 * @param events POLL* to ask for
 * @param timeout in ms, -1 for ever
 * @returns those and the errors that one descriptor has; none when the time is over or a signal came
 */
export function poll(fd: number, events: number, timeout = 0): number {
  const fds = pollfd.write({ fd, events, revents: 0 });
  const result = pollCall.attempt({ fds, nfds: 1, timeout });
  if (result === -Errno.EINTR) return 0;
  if (result < 0) throw pollCall.error({ fds, nfds: 1, timeout }, result);
  return pollfd.read(fds).revents;
}

/** Waits until one of them can be read or is closed. @param timeout in ms, -1 for ever @returns those of which that is so */
export function pollReadable(fds: readonly number[], timeout: number): number[] {
  const all = new Uint8Array(fds.length * pollfd.size);
  for (const [i, fd] of fds.entries()) pollfd.write({ fd, events: POLLIN, revents: 0 }, all, i * pollfd.size);
  const result = pollCall.attempt({ fds: all, nfds: fds.length, timeout });
  if (result === -Errno.EINTR) return [];
  if (result < 0) throw pollCall.error({ fds: all, nfds: fds.length, timeout }, result);
  return fds.filter((_, i) => pollfd.read(all, i * pollfd.size).revents !== 0);
}

/** @param initval of 32 bits @returns a descriptor */
export const eventfd2 = syscall('eventfd2', 290, { initval: int, flags: hex });
/** @param fd -1 for a new one @param mask 8 bytes @returns a descriptor */
export const signalfd4 = syscall('signalfd4', 289, { fd: int, mask: input, sizemask: int, flags: hex });
/** @returns a descriptor */
export const timerfd_create = syscall('timerfd_create', 283, { clockid: int, flags: hex });
/** @param utmr an itimerspec */
export const timerfd_gettime = syscall('timerfd_gettime', 287, { fd: int, curr_value: output });
export const timerfd_settime = syscall('timerfd_settime', 286, { ufd: int, flags: hex, utmr: input, otmr: output });
/** @param tp room for a timespec */
export const clock_gettime = syscall('clock_gettime', 228, { clockid: int, tp: output });
/** @param tp a timespec */
export const clock_settime = syscall('clock_settime', 227, { clockid: int, tp: input });
/** @returns a descriptor */
export const epoll_create1 = syscall('epoll_create1', 291, { flags: hex });
