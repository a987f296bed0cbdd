/** For scenarios in which the kernel is changed under a program (guest/kept.c) and its client. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { type KernelName, kernel } from '../../lab/kernels.ts';
import { requirePackages } from '../../lab/packages.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import type { Vm } from '../../lab/vm.ts';
import type { UpdateRecord } from '../../src/update/record.ts';
import { nextKernel } from './next-kernels.ts';

export const SLOW = { timeout: 600_000 };

/** Modules that a tree with connections needs of a kernel. */
export const KEPT_MODULES = ['nf_tables', 'inet_diag', 'tcp_diag', 'udp_diag', 'unix_diag'];
/** What makes preserved memory ordinary memory again. */
export const SPARE_MODULES = ['device_dax', 'dax_hmem', 'kmem'];

/** A program of test/lab/guest in C, for any guest. */
export async function guestProgram(name: string): Promise<Uint8Array> {
  await requirePackages('programs under test');
  const folder = temporaryFolder();
  try {
    const program = join(folder, name);
    const source = new URL(`guest/${name}.c`, import.meta.url).pathname;
    execFileSync('gcc', ['-O1', '-static', '-o', program, source]);
    return readFileSync(program);
  } finally {
    removeTemporary(folder);
  }
}

/** Waits until the program takes connections. */
export async function untilKeptListens(vm: Vm, port = 7000): Promise<void> {
  const hex = port.toString(16).toUpperCase();
  // 0A: it listens.
  const look = `for i in $(seq 1200); do grep -q ':${hex} .* 0A ' /proc/net/tcp && exit; sleep 0.1; done; exit 1`;
  await vm.check(look, SLOW);
}

/** Changes the kernel, and returns when the next one is there, or another one that it ends in. */
export async function change(vm: Vm, name: KernelName, given: string, endsIn = name): Promise<void> {
  const { vmlinuz, initrdOptions } = await nextKernel(vm, name);
  const { release } = await kernel(endsIn);
  const before = vm.agent.greeting;
  const options = `--kernel ${vmlinuz} ${initrdOptions} ${given}`;
  const failed = vm.check(`tideover update ${options}`, SLOW).then(
    () => assert.fail('it came back'),
    (error) => error,
  );
  const next = vm.nextKernel(before, SLOW.timeout);
  const first = await Promise.race([
    next,
    failed.then((error) => (/another kernel/.test(error.message) ? next : Promise.reject(error))),
  ]);
  assert.equal(first.release, release);
}

/** Waits for the end of the update, in a state. @returns the process id of the first tree */
export async function restoredPid(vm: Vm, state = 'done'): Promise<number> {
  return (await untilEnded(vm, state)).trees[0]!.newPid!;
}

/** Waits for the end of the update, in a state. @returns its record */
export async function untilEnded(vm: Vm, state = 'done'): Promise<UpdateRecord> {
  const file = '/var/lib/tideover/update.json';
  const ended = `grep -Eqs '"state": "(done|back|incomplete)"' ${file}`;
  await vm.check(`for i in $(seq 600); do ${ended} && exit; sleep 1; done; cat ${file}; exit 1`, SLOW);
  const record = JSON.parse(await vm.check(`cat ${file}`));
  assert.equal(record.state, state, JSON.stringify(record));
  return record;
}

/** Talks over one connection all the time, from outside of the guest. */

export class Client {
  readonly #socket: Socket;
  #asked = 0;
  #answered = 0;
  #longest = 0;
  #last = performance.now();
  #fault: string | undefined;
  #text = '';
  /** Of the program in its namespace: the same all the time. */
  #pid: string | undefined;
  readonly #pulse: NodeJS.Timeout;

  constructor(port: number) {
    this.#socket = connect(port, '127.0.0.1');
    this.#socket.on('data', (bytes) => this.#take(bytes.toString()));
    this.#socket.on('error', (error) => this.#fail(error.message));
    this.#socket.on('close', () => this.#fail('the connection was closed'));
    this.#pulse = setInterval(() => this.#socket.write(`${this.#asked++}\n`), 50);
  }

  /** Lines that were answered, each once and in their order, and the longest time without an answer in ms. */
  get said(): { answered: number; longest: number } {
    if (this.#fault !== undefined) throw new Error(this.#fault);
    return { answered: this.#answered, longest: this.#longest };
  }

  /** The same number, also when the connection has ended. */
  get answered(): number {
    return this.#answered;
  }

  /** Waits for further answers. */
  async more(count: number, milliseconds = 300_000): Promise<void> {
    const [wanted, until] = [this.#answered + count, performance.now() + milliseconds];
    while (this.#answered < wanted) {
      if (this.#fault !== undefined) throw new Error(this.#fault);
      if (performance.now() > until) throw new Error(`no more answers after ${this.#answered} of ${this.#asked}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  end(): void {
    clearInterval(this.#pulse);
    this.#socket.removeAllListeners('close').destroy();
  }

  #take(text: string): void {
    const lines = (this.#text + text).split('\n');
    this.#text = lines.pop()!;
    for (const line of lines) {
      this.#pid ??= line.split(' ')[2];
      if (line !== `${this.#answered} ${this.#answered + 1} ${this.#pid} whole`)
        this.#fail(`answer ${this.#answered}: ${line}`);
      this.#answered++;
    }
    const now = performance.now();
    this.#longest = Math.max(this.#longest, now - this.#last);
    this.#last = now;
  }

  #fail(fault: string): void {
    this.#fault ??= fault;
    clearInterval(this.#pulse);
  }
}
