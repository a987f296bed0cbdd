/**
 * Signals that are seen while JavaScript does nothing but wait or work: Node tells of them when the work is done. A handler in
 * machine code notes that one came; whoever works looks at the note between two steps.
 */
import { _NSIG, SA_RESTART, SA_RESTORER, sigaction } from '../abi/signal.ts';
import { viewOf } from '../abi/struct.ts';
import { mapCode, Region } from './region.ts';
import { input, int, output, syscall, word } from './syscall.ts';

/** @param act a struct sigaction of the kernel, or 0 @param oact room for one */
const rt_sigaction = syscall('rt_sigaction', 13, { sig: int, act: input, oact: output, sigsetsize: word });

/** The handler, to which the address of the note is put in, and behind it what it returns to. */
const CODE = [
  ...[0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0], // mov rax, note
  ...[0x40, 0x88, 0x38], // mov [rax], dil: the number of the signal
  0xc3, // ret
  ...[0xb8, 0x0f, 0x00, 0x00, 0x00], // mov eax, 15 (rt_sigreturn)
  ...[0x0f, 0x05], // syscall
];
const NOTE = 2;
const RESTORER = 14;

let handler: { readonly address: number; readonly note: Region } | undefined;

function loadHandler(): { readonly address: number; readonly note: Region } {
  if (handler === undefined) {
    const note = new Region(4096);
    const code = Uint8Array.from(CODE);
    viewOf(code).setBigUint64(NOTE, BigInt(note.address), true);
    handler = { address: mapCode(code, 0).address, note };
  }
  return handler;
}

/** Notes signals in place of whoever handles them, who is told when it is disposed of. One at a time. */
export class NotedSignals {
  readonly #before: readonly { readonly sig: number; readonly act: Uint8Array }[];
  readonly #note: Region;

  constructor(signals: readonly number[]) {
    const { address, note } = loadHandler();
    this.#note = note;
    note.bytes[0] = 0;
    const act = sigaction.write({
      sa_handler: address,
      sa_flags: SA_RESTART + SA_RESTORER,
      sa_restorer: address + RESTORER,
      sa_mask: 0n,
    });
    this.#before = signals.map((sig) => {
      const oact = new Uint8Array(sigaction.size);
      rt_sigaction({ sig, act, oact, sigsetsize: _NSIG / 8 });
      return { sig, act: oact };
    });
  }

  /** Whether one of them came. */
  get seen(): boolean {
    return this.#note.bytes[0] !== 0;
  }

  /** Whoever handled them does so again, and gets the last one that came meanwhile. */
  [Symbol.dispose](): void {
    const oact = new Uint8Array(sigaction.size);
    for (const { sig, act } of this.#before) rt_sigaction({ sig, act, oact, sigsetsize: _NSIG / 8 });
    if (this.seen) process.kill(process.pid, this.#note.bytes[0]!);
  }
}
