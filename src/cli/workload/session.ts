/** A workload in the foreground: what it writes is shown until it ends, and what is typed goes into its terminal. */
import { setTimeout } from 'node:timers/promises';
import { __WALL, WNOHANG, waitStatus } from '../../abi/wait.ts';
import { BY_SIGNAL } from '../../asm/init.ts';
import { close, write } from '../../sys/files.ts';
import { wait4 } from '../../sys/process.ts';
import { Follower, setWindow, takeMaster } from '../../update/attach.ts';
import { findWorkload } from '../../update/workload.ts';
import type { Io } from '../io.ts';

/** Ctrl-\ */
const DETACH = 0x1c;
/** Milliseconds between two looks into the log. */
const EVERY = 20;

/** How a session ended. */
export type Ending = { readonly kind: 'ended'; readonly status: number | undefined } | { readonly kind: 'detached' };

export interface SessionOptions {
  readonly name: string;
  readonly pid: number;
  readonly log: string;
  /** Descriptor by which the init has the master of its terminal. */
  readonly terminal: number | undefined;
  /** It is a child of this process. */
  readonly child: boolean;
  /** Where in the log to begin, in bytes; negative: before its end. */
  readonly from: number;
}

/** @returns when the workload has ended, or the user leaves it */
export async function session(io: Io, of: SessionOptions): Promise<Ending> {
  using follower = new Follower(of.log, of.from);
  using keys = of.terminal === undefined ? undefined : new Keys(takeMaster(of.pid, of.terminal));
  const show = () => {
    for (let part = follower.next(); part.length > 0; part = follower.next()) process.stdout.write(part.slice());
  };
  for (;;) {
    const status = of.child ? statusOf(of.pid) : findWorkload(of.name)?.pid === of.pid ? undefined : 'unknown';
    show();
    if (status !== undefined) return { kind: 'ended', status: status === 'unknown' ? undefined : status };
    if (keys?.detached || io.signal.aborted) return { kind: 'detached' };
    await setTimeout(EVERY);
  }
}

/** @returns the exit status of a child that has ended, and is reaped */
function statusOf(pid: number): number | undefined {
  const wstatus = new Uint8Array(4);
  if (wait4.attempt({ pid, wstatus, options: WNOHANG | __WALL, rusage: 0 }) !== pid) return undefined;
  const status = waitStatus(new DataView(wstatus.buffer).getInt32(0, true));
  return status.kind === 'exited' ? status.code : BY_SIGNAL + (status.kind === 'killed' ? status.signal : 0);
}

/** What is typed here, into the master of a terminal. */
class Keys {
  readonly #master: number;
  detached = false;

  constructor(master: number) {
    this.#master = master;
    const { stdin, stdout } = process;
    if (stdin.isTTY) stdin.setRawMode(true);
    stdin.on('data', this.#typed).on('end', this.#end);
    stdout.on('resize', this.#resize);
    this.#resize();
  }

  readonly #typed = (bytes: Buffer) => {
    const at = bytes.indexOf(DETACH);
    const buf = at < 0 ? bytes : bytes.subarray(0, at);
    if (buf.length > 0) write({ fd: this.#master, buf, count: buf.length });
    if (at >= 0) this.detached = true;
  };

  readonly #end = () => {
    this.detached = true;
  };

  readonly #resize = () => {
    const { rows, columns, isTTY } = process.stdout;
    if (isTTY) setWindow(this.#master, rows, columns);
  };

  [Symbol.dispose](): void {
    const { stdin, stdout } = process;
    stdin.off('data', this.#typed).off('end', this.#end);
    stdout.off('resize', this.#resize);
    if (stdin.isTTY) stdin.setRawMode(false);
    stdin.pause();
    close({ fd: this.#master });
  }
}
