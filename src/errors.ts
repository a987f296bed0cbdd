import { errnoMessage, errnoName } from './abi/errno.ts';

/** Base of every error that tideover throws on purpose. `code` is stable, the message is for people. */
export abstract class TideoverError extends Error {
  abstract readonly code: string;
  override get name(): string {
    return this.constructor.name;
  }
}

/** A system call failed. The message reads like the call: `close(fd=7): EBADF (Bad file descriptor)`. */
export class SyscallError extends TideoverError {
  readonly code = 'syscall';
  /** Name of the system call, as in its man page. */
  readonly syscall: string;
  /** Positive errno value. */
  readonly errno: number;
  /** `EPERM`, or `E<number>` when the kernel answers with one that errno.h does not have. */
  readonly errnoName: string;

  /** @param call the call with its arguments, as text */
  constructor(syscall: string, call: string, errno: number) {
    super(`${call}: ${errnoName(errno)} (${errnoMessage(errno)})`);
    this.syscall = syscall;
    this.errno = errno;
    this.errnoName = errnoName(errno);
  }
}

/** Bytes that are not what their format says: a damaged, truncated or foreign file. */
export class FormatError extends TideoverError {
  readonly code = 'format';
  /** Path or name of the source. */
  readonly file: string;
  /** Byte offset in it, or undefined where the fault has no single place. */
  readonly offset: number | undefined;
  /** Field as the format's specification names it. */
  readonly field: string;

  constructor(at: { file: string; offset?: number; field: string; expected: string; found: string }) {
    const place = at.offset === undefined ? at.file : `${at.file} at byte ${at.offset}`;
    super(`${place}: ${at.field}: expected ${at.expected}, found ${at.found}`);
    this.file = at.file;
    this.offset = at.offset;
    this.field = at.field;
  }
}

/** Something that cannot be done here or cannot be saved: said before anything is changed. */
export class UnsupportedError extends TideoverError {
  readonly code = 'unsupported';
  readonly what: string;
  readonly pid: number | undefined;
  readonly fd: number | undefined;
  readonly why: string;
  /** What a person can do about it. */
  readonly remedy: string;

  constructor(of: { what: string; pid?: number; fd?: number; why: string; remedy: string }) {
    const who = [of.pid === undefined ? '' : `process ${of.pid}`, of.fd === undefined ? '' : `descriptor ${of.fd}`];
    const place = who.filter((text) => text !== '').join(', ');
    super(`${place === '' ? '' : `${place}: `}${of.what}: ${of.why}; ${of.remedy}`);
    this.what = of.what;
    this.pid = of.pid;
    this.fd = of.fd;
    this.why = of.why;
    this.remedy = of.remedy;
  }
}

/** Data that reads well and is still not what was written: a checksum, a signature or a read-back that differs. */
export class VerifyError extends TideoverError {
  readonly code = 'verify';

  constructor(what: string, expected: string, found: string) {
    super(`${what}: expected ${expected}, found ${found}`);
  }
}

/** Memory that a dump does not hold, and nothing can be said without it. */
export class HoleError extends TideoverError {
  readonly code = 'hole';
  /** Virtual address where the memory that was wanted begins, in hexadecimal. */
  readonly address: string;
  /** Why it is not there: a HoleReason of src/crash/source.ts. */
  readonly reason: string;

  constructor(address: bigint, reason: string, detail?: string) {
    const at = `0x${BigInt.asUintN(64, address).toString(16)}`;
    super(`memory at ${at} is not in the dump: ${reason}${detail === undefined ? '' : ` (${detail})`}`);
    this.address = at;
    this.reason = reason;
  }
}

/** Failed after something was changed, and it could not be put back. */
export class PartialError extends TideoverError {
  readonly code = 'partial';
  /** What is now as it was not before, for a person to go on from. */
  readonly state: string;

  constructor(what: string, state: string, options?: ErrorOptions) {
    super(`${what}: failed halfway: ${state}`, options);
    this.state = state;
  }
}
