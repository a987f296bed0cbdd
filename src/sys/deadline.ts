/**
 * A time limit for system calls that wait and know none, wait4(2) above all: a timer interrupts them by a signal that Node has no
 * use for, and they fail with EINTR. Trying again and again instead would give the processor away each time, for
 * milliseconds on a machine with much to do.
 */
import { _NSIG, SA_RESTORER, SIGEV_THREAD_ID, sigaction, sigevent } from '../abi/signal.ts';
import { CLOCK_MONOTONIC, itimerspec } from '../abi/time.ts';
import { gettid } from './process.ts';
import { mapCode } from './region.ts';
import { input, int, output, syscall } from './syscall.ts';

const rt_sigaction = syscall('rt_sigaction', 13, { sig: int, act: input, oact: output, sigsetsize: int });
const timer_create = syscall('timer_create', 222, { clockid: int, sevp: input, timerid: output });
const timer_settime = syscall('timer_settime', 223, { timerid: int, flags: int, new_value: input, old_value: output });

/** The last one; libraries take real-time signals from the first on. */
const SIGNAL = _NSIG;

/** A handler that does nothing, and what it returns to. */
const CODE = Uint8Array.of(
  0xc3, // ret
  ...[0xb8, 0x0f, 0x00, 0x00, 0x00], // mov eax, 15 (rt_sigreturn)
  ...[0x0f, 0x05], // syscall
);
const RESTORER = 1;

/** The call may not have begun when the timer first says that the time is over. In ns. */
const AGAIN = 5_000_000;

let timer: number | undefined;

function loadTimer(): number {
  const { address } = mapCode(CODE, 0);
  const act = sigaction.write({
    sa_handler: address,
    sa_flags: SA_RESTORER,
    sa_restorer: address + RESTORER,
    sa_mask: 0n,
  });
  rt_sigaction({ sig: SIGNAL, act, oact: 0, sigsetsize: _NSIG / 8 });
  const sevp = sigevent.write({
    sigev_signo: SIGNAL,
    sigev_notify: SIGEV_THREAD_ID,
    sigev_notify_thread_id: gettid({}),
  });
  const timerid = new Uint8Array(4);
  timer_create({ clockid: CLOCK_MONOTONIC, sevp, timerid });
  return new DataView(timerid.buffer).getInt32(0, true);
}

/**
 * Begins to interrupt what this thread does, or stops doing so.
 *
 * @param timeout in milliseconds from now on, or 0 for never
 */
export function interruptAfter(timeout: number): void {
  timer ??= loadTimer();
  const ns = Math.max(1, Math.round(timeout * 1e6));
  const new_value =
    timeout === 0
      ? itimerspec.write({})
      : itimerspec.write({
          it_interval: { tv_sec: 0, tv_nsec: AGAIN },
          it_value: { tv_sec: Math.floor(ns / 1e9), tv_nsec: ns % 1e9 },
        });
  timer_settime({ timerid: timer, flags: 0, new_value, old_value: 0 });
}
