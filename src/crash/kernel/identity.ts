/** What the kernel was, where it ran and since when. */
import { textOf } from '../../abi/text.ts';
import { FormatError } from '../../errors.ts';
import type { Utsname } from '../source.ts';
import type { Vmcoreinfo } from '../vmcoreinfo.ts';
import type { Kernel } from './kernel.ts';
import type { VirtualMemory } from './memory.ts';

/** __NEW_UTS_LEN and a NUL: include/uapi/linux/utsname.h */
const UTS_FIELD = 65;

/** uname(2) of the initial namespace. @throws FormatError, HoleError */
export function readUtsname(memory: VirtualMemory, info: Vmcoreinfo): Utsname {
  const [at, offset] = [info.symbol('init_uts_ns'), info.offset('uts_namespace.name')];
  if (at === undefined || offset === undefined) {
    const expected = 'SYMBOL(init_uts_ns) and OFFSET(uts_namespace.name)';
    throw new FormatError({ file: 'VMCOREINFO', field: 'init_uts_ns', expected, found: 'not both' });
  }
  const bytes = memory.read(at + BigInt(offset), 6 * UTS_FIELD);
  const field = (i: number) => {
    const text = bytes.subarray(i * UTS_FIELD, (i + 1) * UTS_FIELD);
    const end = text.indexOf(0);
    return textOf(end < 0 ? text : text.subarray(0, end));
  };
  return {
    sysname: field(0),
    nodename: field(1),
    release: field(2),
    version: field(3),
    machine: field(4),
    domainname: field(5),
  };
}

export interface Clock {
  /** Of day, when the kernel stopped: seconds since 1970. */
  readonly now: number;
  /** Of day when the log's clock stood at 0, in nanoseconds since 1970. */
  readonly boot: bigint;
}

/** Years 2004 to 2242: what is outside is no time of day. */
const [FIRST_SECOND, LAST_SECOND] = [2 ** 30, 2 ** 33];

/** The kernel's clock of day (kernel/time/timekeeping.c), or undefined where it cannot be found. */
export function readClock({ memory, types, kallsyms, gaps }: Kernel): Clock | undefined {
  return gaps.try('clock', () => {
    const at = kallsyms.find('timekeeper_data') ?? kallsyms.find('tk_core');
    if (at === undefined) return undefined;
    // Without a named type, it is a seqcount_raw_spinlock_t of 4 bytes and a struct timekeeper.
    const keeper = at + (types.has('tk_data', 'timekeeper') ? types.offset('tk_data', 'timekeeper') : 8n);
    const now = Number(memory.u64(keeper + types.offset('timekeeper', 'xtime_sec')));
    const boot = memory.u64(keeper + types.offset('timekeeper', 'offs_real'));
    const isTime = now >= FIRST_SECOND && now < LAST_SECOND && boot / 1_000_000_000n <= BigInt(now);
    return isTime ? { now, boot } : undefined;
  });
}

/** FSHIFT: include/linux/sched/loadavg.h */
const LOAD_UNIT = 2048;

/** Load averages over 1, 5 and 15 minutes, or undefined. */
export function readLoad({ memory, kallsyms, gaps }: Kernel): readonly number[] | undefined {
  return gaps.try('load averages', () => {
    const at = kallsyms.find('avenrun');
    if (at === undefined) return undefined;
    return [0n, 8n, 16n].map((offset) => Math.round((memory.long(at + offset) / LOAD_UNIT) * 100) / 100);
  });
}

/** Letters of the taint flags, by bit: kernel/panic.c, taint_flags. */
const TAINTS = 'PFSRMBUDAWCIOELKXTNJ';

/** `POE`, or nothing. */
export function taintText(mask: bigint): string {
  return [...TAINTS].filter((_, bit) => (mask >> BigInt(bit)) & 1n).join('');
}

/** Flags of the whole kernel. */
export function readTaints({ memory, kallsyms, gaps }: Kernel): bigint | undefined {
  return gaps.try('taints', () => {
    const at = kallsyms.find('tainted_mask');
    return at === undefined ? undefined : memory.u64(at);
  });
}
