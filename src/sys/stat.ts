/** Identity and state of a process or thread: /proc/PID/stat and /proc/PID/status, proc_pid_stat(5), proc_pid_status(5). */
import { FormatError } from '../errors.ts';
import { readProcText } from './proc.ts';

/** Fields of /proc/PID/stat under their names in proc_pid_stat(5). Times are in ticks of 1/100 s, addresses in bytes. */
export interface Stat {
  readonly pid: number;
  readonly comm: string;
  /** `R`, `S`, `D`, `Z`, `T`, `t`, `X`, `I`, ... */
  readonly state: string;
  readonly ppid: number;
  readonly pgrp: number;
  readonly session: number;
  readonly tty_nr: number;
  readonly tpgid: number;
  readonly flags: number;
  readonly utime: number;
  readonly stime: number;
  readonly priority: number;
  readonly nice: number;
  readonly num_threads: number;
  /** Since the system's start. */
  readonly starttime: number;
  readonly vsize: number;
  readonly exit_signal: number;
  readonly processor: number;
  readonly rt_priority: number;
  readonly policy: number;
  // The rest is 0 to those without ptrace access.
  readonly startcode: number;
  readonly endcode: number;
  readonly startstack: number;
  readonly start_data: number;
  readonly end_data: number;
  readonly start_brk: number;
  readonly arg_start: number;
  readonly arg_end: number;
  readonly env_start: number;
  readonly env_end: number;
  /** As wait(2) tells it. */
  readonly exit_code: number;
}

/** Numbers of the fields, counted from 1 as the man page does; pid, comm and state are the first three. */
const FIELDS = {
  ...{ ppid: 4, pgrp: 5, session: 6, tty_nr: 7, tpgid: 8, flags: 9, utime: 14, stime: 15, priority: 18, nice: 19 },
  ...{ num_threads: 20, starttime: 22, vsize: 23, startcode: 26, endcode: 27, startstack: 28, exit_signal: 38 },
  ...{ processor: 39, rt_priority: 40, policy: 41, start_data: 45, end_data: 46, start_brk: 47, arg_start: 48 },
  ...{ arg_end: 49, env_start: 50, env_end: 51, exit_code: 52 },
} as const;

/** @param pid a process, or `PID/task/TID` for a thread */
export function readStat(pid: number | string): Stat {
  const file = `/proc/${pid}/stat`;
  return parseStat(readProcText(file), file);
}

/** @param file for the message of an error */
export function parseStat(text: string, file: string): Stat {
  // The name stands in brackets as it is and may hold brackets, blanks and newlines; no field behind it does.
  const open = text.indexOf(' (');
  const close = text.lastIndexOf(') ');
  const rest = text
    .slice(close + 2)
    .trimEnd()
    .split(' ');
  if (
    open < 0 ||
    close < open ||
    rest.length < FIELDS.exit_code - 2 ||
    !rest.slice(1).every((v) => /^-?\d+$/.test(v))
  ) {
    throw new FormatError({ file, field: 'line', expected: '52 fields', found: JSON.stringify(text.slice(0, 400)) });
  }
  const numbers = Object.entries(FIELDS).map(([name, number]) => [name, Number(rest[number - 3])]);
  return {
    pid: Number(text.slice(0, open)),
    comm: text.slice(open + 2, close),
    state: rest[0]!,
    ...(Object.fromEntries(numbers) as { [Name in keyof typeof FIELDS]: number }),
  };
}

/** Fields of /proc/PID/status; names as there. Masks of signals have signal n at bit n - 1. */
export interface Status {
  readonly Name: string;
  readonly Umask: number | undefined;
  /** The letter alone. */
  readonly State: string;
  readonly Tgid: number;
  readonly Pid: number;
  readonly PPid: number;
  /** 0: not traced. */
  readonly TracerPid: number;
  /** Real, effective, saved, file system. */
  readonly Uid: readonly number[];
  readonly Gid: readonly number[];
  readonly Groups: readonly number[];
  /** Ids in each pid namespace, outermost first. */
  readonly NStgid: readonly number[];
  readonly NSpid: readonly number[];
  readonly NSpgid: readonly number[];
  readonly NSsid: readonly number[];
  readonly Threads: number;
  readonly SigPnd: bigint;
  readonly ShdPnd: bigint;
  readonly SigBlk: bigint;
  readonly SigIgn: bigint;
  readonly SigCgt: bigint;
  readonly CapInh: bigint;
  readonly CapPrm: bigint;
  readonly CapEff: bigint;
  readonly CapBnd: bigint;
  readonly CapAmb: bigint;
  readonly NoNewPrivs: boolean;
  /** SECCOMP_MODE_*: 0 none, 1 strict, 2 filter. */
  readonly Seccomp: number;
  readonly Seccomp_filters: number;
  /** `VmPeak`, `VmRSS`, `RssAnon`, ... in bytes; a kernel thread and a zombie have none. */
  readonly sizes: ReadonlyMap<string, number>;
}

/** @param pid a process, or `PID/task/TID` for a thread */
export function readStatus(pid: number | string): Status {
  const file = `/proc/${pid}/status`;
  return parseStatus(readProcText(file), file);
}

/** @param file for the message of an error @throws FormatError where a field is missing */
export function parseStatus(text: string, file: string): Status {
  const fields = new Map<string, string>();
  for (let at = 0, end = 0; at < text.length; at = end + 1) {
    end = text.indexOf('\n', at);
    if (end < 0) end = text.length;
    const colon = text.indexOf(':', at);
    let from = colon + 1;
    while (text[from] === '\t' || text[from] === ' ') from++;
    fields.set(text.slice(at, colon), text.slice(from, end));
  }
  const field = (name: keyof Status): string => {
    const value = fields.get(name);
    if (value === undefined) {
      throw new FormatError({ file, field: name, expected: 'a line', found: 'none' });
    }
    return value;
  };
  const number = (name: keyof Status) => Number(field(name));
  const numbers = (name: keyof Status) => (field(name).match(/\d+/g) ?? []).map(Number);
  const mask = (name: keyof Status) => BigInt(`0x${field(name)}`);
  const umask = fields.get('Umask');
  return {
    Name: unescapeName(field('Name')),
    Umask: umask === undefined ? undefined : Number.parseInt(umask, 8),
    State: field('State')[0]!,
    Tgid: number('Tgid'),
    Pid: number('Pid'),
    PPid: number('PPid'),
    TracerPid: number('TracerPid'),
    Uid: numbers('Uid'),
    Gid: numbers('Gid'),
    Groups: numbers('Groups'),
    NStgid: numbers('NStgid'),
    NSpid: numbers('NSpid'),
    NSpgid: numbers('NSpgid'),
    NSsid: numbers('NSsid'),
    Threads: number('Threads'),
    SigPnd: mask('SigPnd'),
    ShdPnd: mask('ShdPnd'),
    SigBlk: mask('SigBlk'),
    SigIgn: mask('SigIgn'),
    SigCgt: mask('SigCgt'),
    CapInh: mask('CapInh'),
    CapPrm: mask('CapPrm'),
    CapEff: mask('CapEff'),
    CapBnd: mask('CapBnd'),
    CapAmb: mask('CapAmb'),
    NoNewPrivs: field('NoNewPrivs') === '1',
    // A kernel without CONFIG_SECCOMP has no such lines, Linux before 5.9 not the second one.
    Seccomp: Number(fields.get('Seccomp') ?? 0),
    Seccomp_filters: Number(fields.get('Seccomp_filters') ?? 0),
    get sizes() {
      const sized = [...fields].filter(([, value]) => value.endsWith(' kB'));
      return new Map(sized.map(([name, value]) => [name, Number(value.slice(0, -3)) * 1024]));
    },
  };
}

/** proc_task_name() of fs/proc/array.c escapes newlines and backslashes, here and not in stat. */
function unescapeName(name: string): string {
  return name.replace(/\\([n\\])/g, (_, letter: string) => (letter === 'n' ? '\n' : '\\'));
}
