/** What the commands that look into a crashed kernel share. */
import type { Btf, Member } from '../crash/kernel/btf.ts';
import type { Kernel } from '../crash/kernel/kernel.ts';
import type { ReadableKernel } from '../crash/kernel/readable.ts';
import type { SymbolPlace } from '../crash/kernel/symbols.ts';
import type { Task } from '../crash/kernel/tasks.ts';
import type { AddressSpace } from '../crash/memory.ts';
import type { PageSource } from '../crash/source.ts';
import { filesOf, openDumpAt } from './dump.ts';
import { UsageError } from './exit.ts';
import type { Io, Output } from './io.ts';

export const vmcore = { name: 'VMCORE', summary: 'the dump' } as const;

/** Of what is missing, so many are told on stderr. */
const MAX_WARNINGS = 10;

/** Of every command that looks into a dump. */
export const inputFlags = {
  more: {
    long: 'more',
    value: 'FILE',
    repeat: true,
    summary: 'another file of the split set that VMCORE is one of; once for each',
  },
  ram: {
    long: 'ram',
    value: 'RANGES',
    summary: 'VMCORE is an image of RAM: of which physical addresses, such as 0x0-0x7fffffff,0x100000000-0x17fffffff',
  },
} as const;

interface InputFlags {
  readonly more: readonly string[];
  readonly ram: string | undefined;
}

export const dumpExits = {
  0: 'Done. Where something is missing, `partial` says so in the JSON and a warning on stderr.',
  2: 'What was asked for is not in this kernel.',
  5: 'The dump is damaged, or does not hold what an answer needs; it is named.',
} as const;

/**
 * Opens a dump for as long as `use` takes; the lines for people must not need it any more.
 *
 * What is missing is added to the result: to an object `partial: true` and `missing`, a list of texts; to a list such an object
 * as its last element. People are warned of it.
 */
export function withKernel(
  io: Io,
  path: string,
  flags: InputFlags,
  use: (kernel: Kernel) => Output | Promise<Output>,
): Promise<Output> {
  return withDump(
    io,
    path,
    flags,
    async (source) => new (await import('../crash/kernel/kernel.ts')).Kernel(source),
    use,
  );
}

/** The same for what needs no symbols or types. */
export function withReadableKernel(
  io: Io,
  path: string,
  flags: InputFlags,
  use: (kernel: ReadableKernel) => Output | Promise<Output>,
): Promise<Output> {
  const open = async (source: PageSource) => new (await import('../crash/kernel/readable.ts')).ReadableKernel(source);
  return withDump(io, path, flags, open, use);
}

async function withDump<K extends ReadableKernel>(
  io: Io,
  path: string,
  { more, ram }: InputFlags,
  open: (source: PageSource) => Promise<K>,
  use: (kernel: K | Kernel) => Output | Promise<Output>,
): Promise<Output> {
  if (io.kernel !== undefined) return withGaps(io, io.kernel, use);
  const source = await openDumpAt(filesOf([path, ...more], { ram }));
  try {
    return await withGaps(io, await open(source), use);
  } finally {
    source.close();
  }
}

/** Of a dump that was open before, people are told only of what is missing beyond what they know. */
async function withGaps<K extends ReadableKernel>(
  io: Io,
  kernel: K,
  use: (kernel: K) => Output | Promise<Output>,
): Promise<Output> {
  const known = kernel.gaps.list.length;
  const output = await use(kernel);
  const missing = kernel.gaps.list;
  if (missing.length === 0) return output;
  const news = missing.slice(known);
  for (const each of news.slice(0, MAX_WARNINGS)) io.warn(each);
  if (news.length > MAX_WARNINGS) io.warn(`and ${news.length - MAX_WARNINGS} more things are missing`);
  const gap = { partial: true, missing };
  const { json, text } = output;
  return { json: Array.isArray(json) ? [...json, gap] : { ...(json as object), ...gap }, text };
}

/** Addresses in JSON and in what people read. */
export function hex(address: bigint | number): string {
  return `0x${address.toString(16)}`;
}

/** `name+0x1f [module]` of an address, or undefined. */
export function symbolText(place: SymbolPlace | undefined): string | undefined {
  if (place === undefined) return undefined;
  const name = place.offset === 0 ? place.name : `${place.name}+${hex(place.offset)}`;
  return place.module === undefined ? name : `${name} [${place.module}]`;
}

/** An address as crash takes it: hexadecimal with or without 0x, or a symbol, with `+` and a number behind it if need be. */
export function addressOf(kernel: Kernel, text: string): bigint {
  const [, base, offset] = /^([^+]+)(?:\+((?:0x)?[0-9a-f]+))?$/i.exec(text) ?? [];
  const symbol = base === undefined ? undefined : kernel.symbols.find(base);
  const more = offset === undefined ? 0n : BigInt(offset);
  if (symbol !== undefined) return BigInt.asUintN(64, symbol + more);
  if (base !== undefined && /^(?:0x)?[0-9a-f]{1,16}$/i.test(base))
    return BigInt(`0x${base.replace(/^0x/i, '')}`) + more;
  throw new UsageError(`'${text}' is neither an address nor a symbol of this kernel`);
}

/** Tasks by PID, address of the task_struct, or command. */
export function tasksOf(kernel: Kernel, texts: readonly string[]): Task[] {
  return texts.flatMap((text) => {
    const isPid = /^\d{1,7}$/.test(text);
    const address = /^0x[0-9a-f]{1,16}$|^[0-9a-f]{16}$/i.test(text)
      ? BigInt(`0x${text.replace(/^0x/i, '')}`)
      : undefined;
    const found = kernel.tasks.filter((task) => {
      if (address !== undefined) return task.address === address;
      return isPid ? task.pid === Number(text) : task.comm === text;
    });
    if (found.length === 0) throw new UsageError(`there is no task '${text}' in the dump`);
    return found;
  });
}

/** The task that crashed the kernel, or the first that ran on a CPU. */
export function currentTask(kernel: Kernel): Task {
  const task = kernel.panicTask ?? kernel.tasks.find(({ running }) => running);
  if (task !== undefined) return task;
  throw new UsageError('the dump does not say which task crashed; name one');
}

/** A type, or a member of one, under the name by which it was asked for. */
export interface FoundType extends Member {
  readonly btf: Btf;
}

/** TYPE or TYPE.MEMBER of the kernel, or else of a module. */
export function findType(kernel: Kernel, text: string): FoundType {
  const [name = '', ...path] = text.replace(/^(?:struct|union|enum) /, '').split('.');
  for (const types of [kernel.types, ...kernel.moduleTypes.values()]) {
    const type = types.named(name);
    if (type === undefined) continue;
    const found = { btf: types.btf, name: text };
    if (path.length === 0) return { ...found, type, bitOffset: 0, bitSize: 0 };
    if (!types.has(name, path.join('.'))) throw new UsageError(`${name} has no member '${path.join('.')}'`);
    return { ...types.member(name, path.join('.')), ...found };
  }
  throw new UsageError(`there is no type '${name}' in this kernel or its modules`);
}

/** The memory of the task that is named. */
export function userSpaceOf(kernel: Kernel, text: string): AddressSpace {
  const [task] = tasksOf(kernel, [text]);
  if (task!.mm === 0n) throw new UsageError(`task ${task!.pid} (${task!.comm}) has no memory of its own`);
  return kernel.userSpace(task!);
}

/** A whole number of things that is asked for. */
export function countOf(text: string | undefined, what: string, otherwise: number): number {
  if (text === undefined) return otherwise;
  const count = Number(text);
  if (/^(0x[0-9a-f]+|\d+)$/i.test(text) && Number.isSafeInteger(count) && count > 0) return count;
  throw new UsageError(`${what}: '${text}' is no number of things`);
}
