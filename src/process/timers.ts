/** Timers of a process: setitimer(2), timer_create(2). They count on from what was left. */

import {
  PR_TIMER_CREATE_RESTORE_IDS,
  PR_TIMER_CREATE_RESTORE_IDS_OFF,
  PR_TIMER_CREATE_RESTORE_IDS_ON,
} from '../abi/prctl.ts';
import { SIGEV_THREAD_ID, sigevent } from '../abi/signal.ts';
import { ITIMER_PROF, ITIMER_REAL, ITIMER_VIRTUAL, itimerspec, itimerval } from '../abi/time.ts';
import { NR } from '../abi/unistd.ts';
import { FormatError } from '../errors.ts';
import type { itimer_entry, posix_timer_entry, task_timers_entry } from '../image/messages/task.ts';
import type { Value } from '../image/proto.ts';
import { readTaskText } from '../sys/proc.ts';
import type { Ids } from './ids.ts';
import type { Remote } from './remote.ts';

type Timers = Value<typeof task_timers_entry>;
type IntervalTimer = Value<typeof itimer_entry>;
type PosixTimer = Value<typeof posix_timer_entry>;

/** Asks for all timers of a process. */
export function saveTimers(remote: Remote, ids: Ids): () => Timers {
  const [real, virt, prof] = [ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF].map((which) =>
    saveIntervalTimer(remote, which),
  );
  const posix = listPosixTimers(remote.scratch.pid, ids).map((timer) => savePosixTimer(remote, timer));
  return () => ({ real: real!(), virt: virt!(), prof: prof!(), posix: posix.map((each) => each()) });
}

/** Adds the calls that make and start them; the last thing before a process goes on. */
export function restoreTimers(remote: Remote, { real, virt, prof, posix }: Timers): void {
  restoreIntervalTimer(remote, ITIMER_REAL, real);
  restoreIntervalTimer(remote, ITIMER_VIRTUAL, virt);
  restoreIntervalTimer(remote, ITIMER_PROF, prof);
  restorePosixTimers(remote, posix);
}

function saveIntervalTimer(remote: Remote, which: number): () => IntervalTimer {
  const { address, bytes } = remote.room(itimerval.size);
  remote.call(NR.getitimer, which, address);
  return () => {
    const { it_interval, it_value } = itimerval.read(bytes);
    return {
      isec: it_interval.tv_sec,
      iusec: it_interval.tv_usec,
      vsec: it_value.tv_sec,
      vusec: it_value.tv_usec,
    };
  };
}

function restoreIntervalTimer(remote: Remote, which: number, { isec, iusec, vsec, vusec }: IntervalTimer): void {
  const it_interval = { tv_sec: isec, tv_usec: iusec };
  const left = { tv_sec: vsec, tv_usec: vusec };
  const over = vsec === 0 && vusec === 0;
  if (over && isec === 0 && iusec === 0) return;
  // Between going off and the delivery of its signal nothing is left; with that it would begin anew (dequeue_signal() of the kernel).
  const value = itimerval.write({ it_interval, it_value: over ? it_interval : left });
  remote.call(NR.setitimer, which, remote.put(value), 0);
}

type ListedTimer = Omit<PosixTimer, 'overrun' | 'isec' | 'insec' | 'vsec' | 'vnsec'>;

/** SIGEV_* by their names in /proc/PID/timers: proc_pid_timers(5). */
const NOTIFY: Readonly<Record<string, number>> = { signal: 0, none: 1, thread: 2 };

/** /proc/PID/timers of CONFIG_CHECKPOINT_RESTORE, one block of four lines a timer. */
function listPosixTimers(pid: number, ids: Ids): ListedTimer[] {
  const file = `/proc/${pid}/timers`;
  const text = readTaskText(file, 'many');
  const pattern = /ID: (\d+)\nsignal: (\d+)\/([0-9a-f]+)\nnotify: (\w+)\/(tid|pid)\.(\d+)\nClockID: (-?\d+)\n/g;
  const found = [...text.matchAll(pattern)].map(([, id, signal, value, notify, whom, number, clock]) => {
    const timer = {
      it_id: Number(id),
      clock_id: Number(clock) >>> 0,
      si_signo: Number(signal),
      it_sigev_notify: NOTIFY[notify!]! | (whom === 'tid' ? SIGEV_THREAD_ID : 0),
      sival_ptr: BigInt(`0x${value}`),
    };
    return whom === 'tid' ? { ...timer, notify_thread_id: ids.inside(Number(number)) } : timer;
  });
  if (found.length !== (text.match(/^ID:/gm)?.length ?? 0)) {
    throw new FormatError({
      file,
      field: 'timer',
      expected: 'ID, signal, notify and ClockID',
      found: text.slice(0, 200),
    });
  }
  // The kernel lists the newest first.
  return found.sort((a, b) => a.it_id - b.it_id);
}

function savePosixTimer(remote: Remote, timer: ListedTimer): () => PosixTimer {
  const { address, bytes } = remote.room(itimerspec.size);
  remote.call(NR.timer_gettime, timer.it_id, address);
  const overrun = remote.call(NR.timer_getoverrun, timer.it_id);
  return () => {
    const { it_interval, it_value } = itimerspec.read(bytes);
    return {
      ...timer,
      overrun: remote.result(overrun),
      isec: it_interval.tv_sec,
      insec: it_interval.tv_nsec,
      vsec: it_value.tv_sec,
      vnsec: it_value.tv_nsec,
    };
  };
}

/**
 * Programs know their timers by number. Since Linux 6.15 the kernel takes a number that is asked for; before, numbers only
 * grew, so that timers are made and deleted until the number is reached.
 */
function restorePosixTimers(remote: Remote, timers: readonly PosixTimer[]): void {
  if (timers.length === 0) return;
  const chosen = remote.attempt(NR.prctl, PR_TIMER_CREATE_RESTORE_IDS, PR_TIMER_CREATE_RESTORE_IDS_ON);
  remote.run();
  const choose = remote.result(chosen) === 0;
  let next = 0;
  for (const timer of timers) {
    const event = sigevent.write({
      sigev_value: timer.sival_ptr,
      sigev_signo: timer.si_signo,
      sigev_notify: timer.it_sigev_notify,
      sigev_notify_thread_id: timer.notify_thread_id ?? 0,
    });
    const create = (wanted: number): void => {
      const number = new Uint8Array(4);
      new DataView(number.buffer).setInt32(0, wanted, true);
      remote.call(NR.timer_create, timer.clock_id | 0, remote.put(event), remote.put(number));
    };
    if (!choose) {
      for (; next < timer.it_id; next++) {
        if (remote.free < 1024 || remote.freeRecords < 8) remote.run();
        create(0);
        remote.call(NR.timer_delete, next);
      }
      next++;
    }
    create(timer.it_id);
    const value = itimerspec.write({
      it_interval: { tv_sec: timer.isec, tv_nsec: timer.insec },
      it_value: { tv_sec: timer.vsec, tv_nsec: timer.vnsec },
    });
    remote.call(NR.timer_settime, timer.it_id, 0, remote.put(value), 0);
  }
  if (choose) remote.call(NR.prctl, PR_TIMER_CREATE_RESTORE_IDS, PR_TIMER_CREATE_RESTORE_IDS_OFF);
}
