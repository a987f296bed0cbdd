/** Memory mappings of a process: /proc/PID/maps and /proc/PID/smaps, proc_pid_maps(5). */
import { PROT_EXEC, PROT_READ, PROT_WRITE } from '../abi/mman.ts';
import { FormatError } from '../errors.ts';
import { readProcText } from './proc.ts';

/**
 * One mapping. Addresses and offsets are bytes and exact: multiples of 4096 are, up to 2^64, also that of [vsyscall] beyond 2^53.
 */
export interface Vma {
  readonly start: number;
  /** Behind the last byte. */
  readonly end: number;
  /** PROT_* */
  readonly prot: number;
  /** MAP_SHARED instead of MAP_PRIVATE. */
  readonly shared: boolean;
  /** Where `start` lies in the file; of anonymous memory without a meaning. */
  readonly offset: number;
  readonly major: number;
  readonly minor: number;
  /** 0 of anonymous memory. All 64 bits may be used. */
  readonly inode: bigint;
  /**
   * The file, `[heap]` and the like, or nothing. Two names cannot be told from others, because the kernel does not escape them:
   * one with a backslash and three octal digits in it, and one that really ends with " (deleted)". The links of
   * /proc/PID/map_files and fstat(2) tell.
   */
  readonly path: string;
  /** The path ended with " (deleted)", which is taken off. */
  readonly deleted: boolean;
}

/** A mapping with what is known of its pages. */
export interface SmapsVma extends Vma {
  /** `Rss`, `Pss_Dirty`, `Swap`, ... in bytes. */
  readonly sizes: ReadonlyMap<string, number>;
  /** Two letters each, as proc_pid_smaps(5) lists them: `rd`, `wr`, `gd`, `lo`, `dd`, `ht`, ... */
  readonly flags: ReadonlySet<string>;
  /** Whether transparent huge pages could be used. */
  readonly thpEligible: boolean;
  /** The protection key of pkeys(7), or undefined on a processor without them. */
  readonly protectionKey: number | undefined;
}

/** Stands among the VmFlags of a mapping that has a protection key of pkeys(7) other than 0. */
export const KEYED = 'key';

/** A mapping with its VmFlags. */
export type FlaggedVma = Vma &
  Pick<SmapsVma, 'flags'> & {
    /** Of its pages, in bytes, where they are those of hugetlbfs; transparent huge pages do not count. */
    readonly hugePage?: number;
  };

/** Reads the mappings of a process, in order of addresses; those of a running one may change between two lines. */
export function readMaps(pid: number | 'self'): Vma[] {
  const file = `/proc/${pid}/maps`;
  return disjoint(parseMaps(readProcText(file), file));
}

/** Reads the mappings with their pages, which takes the kernel much longer. */
export function readSmaps(pid: number | 'self'): SmapsVma[] {
  const file = `/proc/${pid}/smaps`;
  return parseSmaps(readProcText(file), file);
}

/** Reads the mappings with their flags: smaps without the sizes, of which taking apart costs five times as much. */
export function readFlaggedMaps(pid: number | 'self'): FlaggedVma[] {
  const file = `/proc/${pid}/smaps`;
  return disjoint(parseFlaggedMaps(readProcText(file), file));
}

/**
 * Has each address once. A process that runs may join two mappings between two reads of the file: the kernel goes on at the end of
 * the first one then, with the whole of what that has become (m_next() in fs/proc/task_mmu.c).
 */
export function disjoint<T extends Vma>(mappings: readonly T[]): T[] {
  const found: T[] = [];
  let last = 0;
  for (const each of mappings) {
    if (each.end <= last) continue;
    const twice = Math.max(0, last - each.start);
    found.push(twice === 0 ? each : { ...each, start: last, offset: each.offset + twice });
    last = each.end;
  }
  return found;
}

/** @param file for the message of an error */
export function parseFlaggedMaps(text: string, file: string): FlaggedVma[] {
  const found: FlaggedVma[] = [];
  let [key, size] = [false, 0];
  // Of the two dozen lines of a mapping four are wanted: others are passed over where they stand.
  for (let at = 0, end = 0; at < text.length; at = end + 1) {
    end = text.indexOf('\n', at);
    if (end < 0) end = text.length;
    const first = text[at]!;
    // Names of fields begin with a capital, addresses do not.
    if (first >= 'a' || first <= '9') {
      const line = text.slice(at, end);
      found.push({ ...(parseVma(line) ?? malformed(file, line, 'a mapping')), flags: NO_FLAGS });
    } else if (first === 'V' && text.startsWith('VmFlags:', at)) {
      const last = found.pop() ?? malformed(file, text.slice(at, end), 'a mapping');
      const flags = flagsOf(text.slice(at + 'VmFlags:'.length, end).trim() + (key ? ` ${KEYED}` : ''));
      found.push({ ...last, flags, ...(size > 4096 ? { hugePage: size } : {}) });
      key = false;
    } else if (first === 'K' && text.startsWith('KernelPageSize:', at)) {
      size = 1024 * Number.parseInt(text.slice(at + 'KernelPageSize:'.length, end), 10);
    } else if (first === 'P' && text.startsWith('ProtectionKey:', at)) {
      key = text.slice(at + 'ProtectionKey:'.length, end).trim() !== '0';
    }
  }
  return found;
}

const NO_FLAGS: ReadonlySet<string> = new Set();
/** Most mappings have the flags of some other one. */
const flagSets = new Map<string, ReadonlySet<string>>();

function flagsOf(text: string): ReadonlySet<string> {
  let flags = flagSets.get(text);
  if (flags === undefined) {
    flags = new Set(text.split(' '));
    flagSets.set(text, flags);
  }
  return flags;
}

/** @param file for the message of an error */
export function parseMaps(text: string, file: string): Vma[] {
  return linesOf(text).map((line) => parseVma(line) ?? malformed(file, line, 'a mapping'));
}

/** @param file for the message of an error */
export function parseSmaps(text: string, file: string): SmapsVma[] {
  const found: SmapsVma[] = [];
  let sizes = new Map<string, number>();
  for (const line of linesOf(text)) {
    const vma = parseVma(line);
    if (vma !== undefined) {
      sizes = new Map();
      found.push({ ...vma, sizes, flags: new Set(), thpEligible: false, protectionKey: undefined });
      continue;
    }
    const [, name, value, unit] = /^(\w+): *(.*?)( kB)?$/s.exec(line) ?? malformed(file, line, 'a field');
    const last = found.at(-1) ?? malformed(file, line, 'a mapping');
    if (unit !== undefined) sizes.set(name!, Number(value) * 1024);
    else if (name === 'VmFlags') found[found.length - 1] = { ...last, flags: new Set(value!.trim().split(' ')) };
    else if (name === 'THPeligible') found[found.length - 1] = { ...last, thpEligible: value !== '0' };
    else if (name === 'ProtectionKey') found[found.length - 1] = { ...last, protectionKey: Number(value) };
  }
  return found;
}

const LINE = /^([0-9a-f]+)-([0-9a-f]+) ([r-])([w-])([x-])([sp]) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+)(?: +(.*))?$/s;
const DELETED = ' (deleted)';

function parseVma(line: string): Vma | undefined {
  const match = LINE.exec(line);
  if (match === null) return undefined;
  const name = match[11] ?? '';
  const deleted = name.endsWith(DELETED);
  return {
    start: Number.parseInt(match[1]!, 16),
    end: Number.parseInt(match[2]!, 16),
    prot: (match[3] === 'r' ? PROT_READ : 0) | (match[4] === 'w' ? PROT_WRITE : 0) | (match[5] === 'x' ? PROT_EXEC : 0),
    shared: match[6] === 's',
    offset: Number.parseInt(match[7]!, 16),
    major: Number.parseInt(match[8]!, 16),
    minor: Number.parseInt(match[9]!, 16),
    inode: BigInt(match[10]!),
    // show_map_vma() of fs/proc/task_mmu.c escapes newlines and nothing else.
    path: (deleted ? name.slice(0, -DELETED.length) : name).replaceAll('\\012', '\n'),
    deleted,
  };
}

function linesOf(text: string): string[] {
  return text.split('\n').filter((line) => line !== '');
}

function malformed(file: string, line: string, expected: string): never {
  throw new FormatError({ file, field: 'line', expected, found: JSON.stringify(line) });
}
