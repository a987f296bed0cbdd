/** Identity and state of a process or thread: /proc/PID/stat and /proc/PID/status, proc_pid_stat(5), proc_pid_status(5). */
import { FormatError } from '../errors.ts';
import { readProcText, readTaskText } from './proc.ts';

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
  const text = readTaskText(file);
  // It is asked for again and again, and of a process that stands still says the same.
  if (text !== lastText) [lastText, lastStat] = [text, parseStat(text, file)];
  return lastStat!;
}

let lastText: string | undefined;
let lastStat: Stat | undefined;

/** @param file for the message of an error */
export function parseStat(text: string, file: string): Stat {
  // The name stands in brackets as it is and may hold brackets, blanks and newlines; no field behind it does.
  const open = text.indexOf(' (');
  const close = text.lastIndexOf(') ');
  const rest = text.slice(close + 2).trimEnd();
  if (open < 0 || close < open || !BEHIND_NAME.test(rest)) {
    throw new FormatError({ file, field: 'line', expected: '52 fields', found: JSON.stringify(text.slice(0, 400)) });
  }
  return new StatFields(Number(text.slice(0, open)), text.slice(open + 2, close), rest.split(' ')) as unknown as Stat;
}

/** Most is never asked for: a field becomes a number when it is. */
class StatFields {
  readonly pid: number;
  readonly comm: string;
  readonly #fields: readonly string[];

  /** @param fields from `state` on, the third */
  constructor(pid: number, comm: string, fields: readonly string[]) {
    this.pid = pid;
    this.comm = comm;
    this.#fields = fields;
  }

  get state(): string {
    return this.#fields[0]!;
  }

  static {
    for (const [name, number] of Object.entries(FIELDS)) {
      Object.defineProperty(StatFields.prototype, name, {
        enumerable: true,
        get(this: StatFields) {
          return Number(this.#fields[number - 3]);
        },
      });
    }
  }
}

/** State, and numbers up to the field exit_code at least. */
const BEHIND_NAME = /^\S+(?: -?\d+){49,}$/;

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
  /** The lines that tell who it is, Uid to Groups and CapInh to NoNewPrivs: the same in those that are the same. */
  readonly identity: string;
  /** `VmPeak`, `VmRSS`, `RssAnon`, ... in bytes; a kernel thread and a zombie have none. */
  readonly sizes: ReadonlyMap<string, number>;
}

/** @param pid a process, or `PID/task/TID` for a thread */
export function readStatus(pid: number | string): Status {
  const file = `/proc/${pid}/status`;
  return parseStatus(readTaskText(file), file);
}

/** @param file for the message of an error */
export function parseStatus(text: string, file: string): Status {
  return new StatusText(text, file);
}

/**
 * Most is never asked for, and a process may have thousands of threads: a field is looked for when it is.
 * @throws FormatError where it is missing
 */
class StatusText implements Status {
  readonly #text: string;
  readonly #file: string;

  constructor(text: string, file: string) {
    this.#text = `\n${text}`;
    this.#file = file;
  }

  get Name(): string {
    return unescapeName(this.#field('Name'));
  }

  get Umask(): number | undefined {
    const umask = this.#find('Umask');
    return umask === undefined ? undefined : Number.parseInt(umask, 8);
  }

  get State(): string {
    return this.#field('State')[0]!;
  }

  get Tgid(): number {
    return this.#number('Tgid');
  }

  get Pid(): number {
    return this.#number('Pid');
  }

  get PPid(): number {
    return this.#number('PPid');
  }

  get TracerPid(): number {
    return this.#number('TracerPid');
  }

  get Uid(): number[] {
    return this.#numbers('Uid');
  }

  get Gid(): number[] {
    return this.#numbers('Gid');
  }

  get Groups(): number[] {
    return this.#numbers('Groups');
  }

  get NStgid(): number[] {
    return this.#numbers('NStgid');
  }

  get NSpid(): number[] {
    return this.#numbers('NSpid');
  }

  get NSpgid(): number[] {
    return this.#numbers('NSpgid');
  }

  get NSsid(): number[] {
    return this.#numbers('NSsid');
  }

  get Threads(): number {
    return this.#number('Threads');
  }

  get SigPnd(): bigint {
    return this.#mask('SigPnd');
  }

  get ShdPnd(): bigint {
    return this.#mask('ShdPnd');
  }

  get SigBlk(): bigint {
    return this.#mask('SigBlk');
  }

  get SigIgn(): bigint {
    return this.#mask('SigIgn');
  }

  get SigCgt(): bigint {
    return this.#mask('SigCgt');
  }

  get CapInh(): bigint {
    return this.#mask('CapInh');
  }

  get CapPrm(): bigint {
    return this.#mask('CapPrm');
  }

  get CapEff(): bigint {
    return this.#mask('CapEff');
  }

  get CapBnd(): bigint {
    return this.#mask('CapBnd');
  }

  get CapAmb(): bigint {
    return this.#mask('CapAmb');
  }

  get NoNewPrivs(): boolean {
    return this.#field('NoNewPrivs') === '1';
  }

  // A kernel without CONFIG_SECCOMP has no such lines, Linux before 5.9 not the second one.
  get Seccomp(): number {
    return Number(this.#find('Seccomp') ?? 0);
  }

  get Seccomp_filters(): number {
    return Number(this.#find('Seccomp_filters') ?? 0);
  }

  get identity(): string {
    const text = this.#text;
    const lines = (first: string, after: string) =>
      text.slice(text.indexOf(`\n${first}:`), text.indexOf(`\n${after}:`));
    return lines('Uid', 'NStgid') + lines('CapInh', 'Seccomp');
  }

  get sizes(): ReadonlyMap<string, number> {
    const sized = this.#text.matchAll(/^(\w+):\s*(\d+) kB$/gm);
    return new Map([...sized].map(([, name, value]) => [name!, Number(value) * 1024]));
  }

  #find(name: string): string | undefined {
    const text = this.#text;
    const line = text.indexOf(`\n${name}:`);
    if (line < 0) return undefined;
    let from = line + name.length + 2;
    while (text[from] === '\t' || text[from] === ' ') from++;
    const end = text.indexOf('\n', from);
    return text.slice(from, end < 0 ? text.length : end);
  }

  #field(name: keyof Status): string {
    const value = this.#find(name);
    if (value === undefined) {
      throw new FormatError({ file: this.#file, field: name, expected: 'a line', found: 'none' });
    }
    return value;
  }

  #number(name: keyof Status): number {
    return Number(this.#field(name));
  }

  #numbers(name: keyof Status): number[] {
    return (this.#field(name).match(/\d+/g) ?? []).map(Number);
  }

  #mask(name: keyof Status): bigint {
    return BigInt(`0x${this.#field(name)}`);
  }
}

/** proc_task_name() of fs/proc/array.c escapes newlines and backslashes, here and not in stat. */
function unescapeName(name: string): string {
  return name.replace(/\\([n\\])/g, (_, letter: string) => (letter === 'n' ? '\n' : '\\'));
}

/** How many processes and threads were made since the system's start: `processes` of /proc/stat, proc_stat(5). */
export function readForks(): number {
  return Number(/^processes (\d+)$/m.exec(readProcText('/proc/stat'))![1]);
}
