/** Timers read from a descriptor: timerfd_create(2). They count on from what was left. */

import { TFD_IOC_SET_TICKS, TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET } from '../../abi/eventpoll.ts';
import { O_CLOEXEC, O_NONBLOCK } from '../../abi/fcntl.ts';
import { itimerspec, timespec } from '../../abi/time.ts';
import { FormatError } from '../../errors.ts';
import { readFdinfo } from '../../sys/fdinfo.ts';
import { ioctl } from '../../sys/files.ts';
import { clock_gettime, timerfd_create, timerfd_gettime, timerfd_settime } from '../../sys/poll.ts';
import { type FileKind, infoLine, type OpenFile, restoreOwner, saveOwner } from './file.ts';

export const timerfd: FileKind = {
  type: 'TIMERFD',

  matches: ({ link }) => link === 'anon_inode:[timerfd]',

  save(found) {
    const file = armed(found);
    const [vsec, vnsec] = pair(file, 'it_value');
    const [isec, insec] = pair(file, 'it_interval');
    return {
      tfd: {
        id: file.id,
        flags: file.flags,
        fown: saveOwner(file),
        clockid: Number(infoLine(file, 'clockid')),
        ticks: BigInt(infoLine(file, 'ticks')),
        settime_flags: Number.parseInt(infoLine(file, 'settime flags'), 8),
        ...{ vsec, vnsec, isec, insec },
      },
    };
  },

  restore(entry, restoring) {
    const { clockid, flags, fown, ticks, settime_flags, vsec, vnsec, isec, insec } = entry.tfd!;
    const fd = timerfd_create({ clockid, flags: O_CLOEXEC | (flags & O_NONBLOCK) });
    if (vsec > 0 || vnsec > 0) {
      const left = { tv_sec: vsec, tv_nsec: vnsec };
      const it_interval = { tv_sec: isec, tv_nsec: insec };
      // What is left is relative. Only a timer that is to be cancelled when the clock is set has to be absolute.
      const absolute = (settime_flags & TFD_TIMER_CANCEL_ON_SET) !== 0;
      const utmr = itimerspec.write({ it_interval, it_value: absolute ? fromNow(clockid, left) : left });
      const how = absolute ? TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET : 0;
      timerfd_settime({ ufd: fd, flags: how, utmr, otmr: 0 });
    }
    if (ticks > 0n) {
      const arg = new Uint8Array(8);
      new DataView(arg.buffer).setBigUint64(0, ticks, true);
      ioctl({ fd, request: TFD_IOC_SET_TICKS, arg });
    }
    restoreOwner(restoring, fd, fown);
    return fd;
  },
};

/** One that goes off again and again stands still from when it did until somebody asks it (fs/timerfd.c): then it says what is left. */
function armed(file: OpenFile): OpenFile {
  const is = (name: string) => pair(file, name).some((number) => number > 0);
  if (file.local < 0 || is('it_value') || !is('it_interval')) return file;
  timerfd_gettime({ fd: file.local, curr_value: new Uint8Array(itimerspec.size) });
  return { ...file, info: readFdinfo(file.pid, file.fd) };
}

type Time = { tv_sec: number; tv_nsec: number };

function fromNow(clockid: number, left: Time): Time {
  const tp = new Uint8Array(timespec.size);
  clock_gettime({ clockid, tp });
  const now = timespec.read(tp);
  const tv_nsec = now.tv_nsec + left.tv_nsec;
  return { tv_sec: now.tv_sec + left.tv_sec + Math.floor(tv_nsec / 1e9), tv_nsec: tv_nsec % 1e9 };
}

/** `(0, 49406829)`: seconds and nanoseconds. */
function pair(file: OpenFile, name: string): [number, number] {
  const text = infoLine(file, name);
  const match = /^\((\d+), (\d+)\)$/.exec(text);
  if (match) return [Number(match[1]), Number(match[2])];
  const at = `/proc/${file.pid}/fdinfo/${file.fd}`;
  throw new FormatError({ file: at, field: name, expected: '(seconds, nanoseconds)', found: text });
}
