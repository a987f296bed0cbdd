/**
 * The way into the kernel: a system call is one line that gives its name, number and parameters,
 *
 *     export const openat = syscall('openat', 257, { dirfd, pathname: cstring, flags: openFlags, mode: octal });
 *     const fd = openat({ dirfd: AT_FDCWD, pathname: '/proc/iomem', flags: O_RDONLY, mode: 0 });
 *
 * values are given by name, and a failure throws a SyscallError whose text reads like the call.
 *
 * koffi stands behind this file and nowhere else, and is loaded at the first call. Its errno() is not used: the
 * garbage collector or libuv may clobber the thread's errno between the call and the question. Instead a stub of 26
 * bytes in an executable page does `syscall; ret` and hands back what the kernel left in rax: -errno.
 *
 * Everything is synchronous and per thread: a Worker that imports this module has its own stub and arena.
 */
import { createRequire } from 'node:module';
import { AT_FDCWD } from '../abi/fcntl.ts';
import { bytesOf } from '../abi/text.ts';
import { SyscallError, UnsupportedError } from '../errors.ts';

/** Address of memory in this process: below 2^47 and so exact as a number. */
export type Address = number;

/** How one parameter is passed and printed. `pass` may put bytes into the arena, `after` takes results out of it. */
export interface Parameter<T> {
  pass(value: T): number | bigint;
  show(value: T): string;
  after?(value: T, passed: number | bigint): void;
}

export type Parameters = Record<string, Parameter<never>>;
export type Arguments<P extends Parameters> = { readonly [K in keyof P]: P[K] extends Parameter<infer T> ? T : never };

export interface Syscall<P extends Parameters> {
  /** Performs the call. @returns the kernel's result @throws SyscallError */
  (args: Arguments<P>): number;
  /** Performs the call. @returns the kernel's result, or -errno, for callers to whom a failure is an answer */
  attempt(args: Arguments<P>): number;
  /** Performs the call on another thread, for copies of megabytes: numbers only, as nothing may wait in the arena. */
  async(args: Arguments<P>): Promise<number>;
  /** The error for a result of `attempt`. @param result negative */
  error(args: Arguments<P>, result: number): SyscallError;
  readonly number: number;
}

/** Declares a system call. @param nr its number in arch/x86/entry/syscalls/syscall_64.tbl */
export function syscall<const P extends Parameters>(name: string, nr: number, parameters: P): Syscall<P> {
  const list = Object.entries(parameters) as unknown as [string, Parameter<unknown>][];
  const count = list.length;
  const passed: (number | bigint)[] = [0, 0, 0, 0, 0, 0];

  const attempt = (args: Arguments<P>): number => {
    native ??= loadNative();
    arenaTop = 0;
    for (let i = 0; i < count; i++) passed[i] = list[i]![1].pass(args[list[i]![0]]);
    const result = native.call(nr, passed[0]!, passed[1]!, passed[2]!, passed[3]!, passed[4]!, passed[5]!);
    for (let i = 0; i < count; i++) list[i]![1].after?.(args[list[i]![0]], passed[i]!);
    return result;
  };
  const error = (args: Arguments<P>, result: number) => {
    const shown = list.map(([parameter, kind]) => `${parameter}=${kind.show(args[parameter])}`);
    return new SyscallError(name, `${name}(${shown.join(', ')})`, -result);
  };
  const checked = (args: Arguments<P>): number => {
    const result = attempt(args);
    if (result < 0 && result >= -MAX_ERRNO) throw error(args, result);
    return result;
  };
  const later = async (args: Arguments<P>): Promise<number> => {
    native ??= loadNative();
    const numbers = list.map(([parameter, kind]) => {
      const value: unknown = args[parameter];
      if (typeof value !== 'number') throw new TypeError(`${name}.async: ${parameter} must be a number`);
      return kind.pass(value);
    });
    while (numbers.length < 6) numbers.push(0);
    const { callAsync } = native;
    const result = await new Promise<number>((resolve, reject) => {
      callAsync(nr, ...numbers, (fault: Error | null, value: number) => (fault ? reject(fault) : resolve(value)));
    });
    if (result < 0 && result >= -MAX_ERRNO) throw error(args, result);
    return result;
  };
  return Object.assign(checked, { attempt, async: later, error, number: nr });
}

/** Results from -4095 to -1 are errors: MAX_ERRNO in include/linux/err.h. */
const MAX_ERRNO = 4095;

// --- parameter kinds -----------------------------------------------------------------------------------------------

/** A number that people read in decimal: descriptors, process ids, counts. */
export const int: Parameter<number> = { pass: asIs, show: String };

/** A number that people read in hexadecimal: masks without names, offsets in memory. */
export const hex: Parameter<number | bigint> = { pass: asSigned, show: asHex };

/** Constants of an abi module; only those of numbers whose names match are meant. */
type Constants = Readonly<Record<string, unknown>>;

/** Bits, shown as `PROT_READ|PROT_WRITE`. `flags(mman, /^PROT_/)` names them after the constants of src/abi/mman.ts. */
export function flags(constants: Constants, names: RegExp): Parameter<number> {
  return {
    pass: asIs,
    show(value) {
      const shown: string[] = [];
      let rest = BigInt.asUintN(64, BigInt(value));
      // A name that covers the bits of another one (O_SYNC those of O_DSYNC) has the greater value and goes first.
      for (const [name, bits] of named(constants, names).sort(([, a], [, b]) => b - a)) {
        const mask = BigInt(bits);
        if (mask === 0n ? value !== 0 : (rest & mask) !== mask) continue;
        shown.unshift(name);
        rest &= ~mask;
      }
      if (rest !== 0n) shown.push(asHex(rest));
      return shown.length === 0 ? '0' : shown.join('|');
    },
  };
}

/** One of several commands: `oneOf(mman, /^MADV_/)`. */
export function oneOf(constants: Constants, names: RegExp): Parameter<number> {
  return {
    pass: asIs,
    show: (value) => named(constants, names).find(([, constant]) => constant === value)?.[0] ?? asHex(value),
  };
}

function named(constants: Constants, names: RegExp): [name: string, value: number][] {
  const isNumber = (entry: [string, unknown]): entry is [string, number] => typeof entry[1] === 'number';
  return Object.entries(constants)
    .filter(isNumber)
    .filter(([name]) => names.test(name));
}

/** The directory of a relative path. */
export const dirfd: Parameter<number> = {
  pass: asIs,
  show: (value) => (value === AT_FDCWD ? 'AT_FDCWD' : String(value)),
};

/** File modes. */
export const octal: Parameter<number> = {
  pass: asIs,
  show: (value) => (value === 0 ? '0' : `0${value.toString(8)}`),
};

/** An address, in this process or in another one. */
export const address: Parameter<number | bigint> = { pass: asSigned, show: asHex };

/** `const char *`: the bytes of text as src/abi/text.ts has it, and a NUL. */
export const cstring: Parameter<string> = {
  pass(value) {
    if (value.includes('\0')) throw new TypeError(`${JSON.stringify(value)} holds a NUL and cannot be a C string`);
    return inArena(bytesOf(value), 1);
  },
  show: (value) => JSON.stringify(value.length > 200 ? `${value.slice(0, 200)}…` : value),
};

/** `const void *`: bytes that the kernel reads, copied through the arena; or the address where they already are. */
export const input: Parameter<Uint8Array | Address> = {
  pass: (value) => (typeof value === 'number' ? value : inArena(value)),
  show: showBuffer,
};

/** `void *`: bytes that the kernel reads and writes, copied there and back; or the address where they are to be. */
export const output: Parameter<Uint8Array | Address> = {
  pass: (value) => (typeof value === 'number' ? value : inArena(value)),
  show: showBuffer,
  after(value, passed) {
    if (typeof value === 'number') return;
    const at = Number(passed) - native!.arenaAddress;
    value.set(native!.arena.subarray(at, at + value.length));
  },
};

/** What the command decides: a number, an address, or bytes that are copied there and back. */
export const word: Parameter<number | bigint | Uint8Array> = {
  pass: (value) => (typeof value === 'object' ? inArena(value) : asSigned(value)),
  show: (value) => (typeof value === 'object' ? showBuffer(value) : asHex(value)),
  after(value, passed) {
    if (typeof value === 'object') output.after!(value, passed);
  },
};

function asIs(value: number): number {
  return value;
}

function asSigned(value: number | bigint): number | bigint {
  return typeof value === 'bigint' ? BigInt.asIntN(64, value) : value;
}

function asHex(value: number | bigint): string {
  return value < 0 ? String(value) : `0x${value.toString(16)}`;
}

function showBuffer(value: Uint8Array | Address): string {
  return typeof value === 'number' ? asHex(value) : `[${value.length} bytes]`;
}

// --- the arena: where arguments lie while the kernel reads them ----------------------------------------------------

const ARENA_SIZE = 1 << 20;
let arenaTop = 0;

/**
 * Copies bytes into the arena for the duration of one call: JavaScript's own buffers have no address to hand out.
 *
 * @param nuls zero bytes to put behind them
 */
function inArena(bytes: Uint8Array, nuls = 0): Address {
  const { arena, arenaAddress } = native!;
  const at = arenaTop;
  const end = at + bytes.length + nuls;
  if (end > ARENA_SIZE) {
    throw new RangeError(`${end} bytes of arguments in one system call; large buffers go into a Region`);
  }
  arena.set(bytes, at);
  arena.fill(0, end - nuls, end);
  arenaTop = (end + 15) & ~15;
  return arenaAddress + at;
}

// --- koffi ---------------------------------------------------------------------------------------------------------

/** A function in machine code; `async` calls it on another thread, with a callback (error, result) behind the arguments. */
export type NativeFunction = ((...args: (number | bigint)[]) => number) & { async(...args: unknown[]): void };

/** How arguments are passed: an integer, or the address of bytes, which must not be kept. */
export type ArgumentType = 'int64_t' | 'void *';

/** The part of koffi's interface that is used here. */
interface Koffi {
  /** null: all that the process has loaded, as dlsym(3) finds it */
  load(path: string | null): { func(signature: string): NativeFunction; symbol(name: string, type: 'void'): bigint };
  view(at: bigint, length: number): ArrayBuffer;
  address(bytes: Uint8Array): bigint;
  proto(signature: string): unknown;
  decode(at: bigint, type: unknown): NativeFunction;
}

interface Native {
  readonly koffi: Koffi;
  readonly call: (nr: number, ...args: (number | bigint)[]) => number;
  readonly callAsync: (...args: unknown[]) => void;
  readonly arena: Uint8Array;
  readonly arenaAddress: Address;
}

let native: Native | undefined;

const MMAP = 9;
const MPROTECT = 10;
const PAGE = 4096;

/**
 * From the C calling convention (rdi, rsi, rdx, rcx, r8, r9, stack) to the kernel's (rax; rdi, rsi, rdx, r10, r8, r9):
 * System V psABI, appendix A.2. The kernel clobbers rcx and r11, which are the caller's to lose.
 */
const STUB = Uint8Array.of(
  ...[0x48, 0x89, 0xf8], // mov rax, rdi
  ...[0x48, 0x89, 0xf7], // mov rdi, rsi
  ...[0x48, 0x89, 0xd6], // mov rsi, rdx
  ...[0x48, 0x89, 0xca], // mov rdx, rcx
  ...[0x4d, 0x89, 0xc2], // mov r10, r8
  ...[0x4d, 0x89, 0xc8], // mov r8, r9
  ...[0x4c, 0x8b, 0x4c, 0x24, 0x08], // mov r9, [rsp+8]
  ...[0x0f, 0x05], // syscall
  0xc3, // ret
);

function loadNative(): Native {
  const koffi = loadKoffi();
  const libc = koffi.load('libc.so.6');
  const bootstrap = libc.func('int64_t syscall(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t)');
  const map = (length: number): Address => {
    const at = bootstrap(MMAP, 0, length, 0x3 /* READ|WRITE */, 0x22 /* PRIVATE|ANONYMOUS */, -1, 0);
    if (at < 0) throw new Error(`mmap of ${length} bytes for system calls failed`);
    return at;
  };
  const code = map(PAGE);
  new Uint8Array(koffi.view(BigInt(code), PAGE)).set(STUB);
  if (bootstrap(MPROTECT, code, PAGE, 0x5 /* READ|EXEC */, 0, 0, 0) !== 0) {
    throw new UnsupportedError({
      what: 'system calls',
      why: 'this system does not let a process make memory executable',
      remedy: 'allow it (SELinux: execmem)',
    });
  }
  const stub = functionAt(koffi, code, Array(7).fill('int64_t'));
  const arenaAddress = map(ARENA_SIZE);
  return {
    koffi,
    call: stub,
    callAsync: stub.async,
    arena: new Uint8Array(koffi.view(BigInt(arenaAddress), ARENA_SIZE)),
    arenaAddress,
  };
}

/** The .node file lies beside the bundle or one folder above a module of the library; else the package brings it. */
function loadKoffi(): Koffi {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new UnsupportedError({
      what: 'system calls',
      why: `this is ${process.platform} on ${process.arch}`,
      remedy: 'run this part on Linux on x86-64 (images and dumps are read anywhere)',
    });
  }
  const require = createRequire(import.meta.url);
  for (const place of ['./koffi.node', '../koffi.node', '@koromix/koffi-linux-x64/linux_x64/koffi.node', 'koffi']) {
    try {
      return require(place) as Koffi;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'MODULE_NOT_FOUND') throw error;
    }
  }
  throw new UnsupportedError({
    what: 'system calls',
    why: 'koffi.node is missing beside the program',
    remedy: 'install tideover again, with its dependencies',
  });
}

function functionAt(koffi: Koffi, at: Address, parameters: readonly ArgumentType[]): NativeFunction {
  const name = `tideover_code_${parameters.map((each) => (each === 'int64_t' ? 'i' : 'p')).join('')}`;
  const type = prototypes.get(name) ?? koffi.proto(`int64_t ${name}(${parameters.join(', ')})`);
  prototypes.set(name, type);
  return koffi.decode(BigInt(at), type);
}

/** koffi keeps a type name for ever and refuses to define it twice. */
const prototypes = new Map<string, unknown>();

// --- for the rest of src/sys ---------------------------------------------------------------------------------------

/** The memory at an address, seen as bytes. Whoever unmaps it must drop the view before: reading it then is fatal. */
export function viewMemory(at: Address, length: number): Uint8Array {
  native ??= loadNative();
  return new Uint8Array(native.koffi.view(BigInt(at), length));
}

/** Where bytes of JavaScript's lie. They stay there as long as somebody has them: asked for, V8 takes them off its own heap. */
export function addressOf(bytes: Uint8Array): Address {
  native ??= loadNative();
  return Number(native.koffi.address(bytes));
}

/** A callable for machine code at an address, after the C convention with 64-bit integers. */
export function callableAt(at: Address, parameters: number): NativeFunction {
  native ??= loadNative();
  return functionAt(native.koffi, at, Array(parameters).fill('int64_t'));
}

/** The same, for code that is given bytes too. */
export function callableWith(
  at: Address,
  parameters: readonly ArgumentType[],
): (...args: (number | Uint8Array | Uint32Array)[]) => number {
  native ??= loadNative();
  return functionAt(native.koffi, at, parameters) as unknown as ReturnType<typeof callableWith>;
}

/**
 * A function of the libraries in this process, as dlsym(3) finds it. Node lets add-ons call those that are part of it.
 *
 * @returns undefined where there is none of that name
 */
export function symbolAt(name: string): Address | undefined {
  native ??= loadNative();
  try {
    return Number(native.koffi.load(null).symbol(name, 'void'));
  } catch {
    return undefined;
  }
}
