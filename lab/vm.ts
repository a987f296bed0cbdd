/** A running guest. */
import type { ChildProcess } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { TideoverError } from '../src/errors.ts';
import { Agent, type Greeting, type Result, type RunOptions } from './agent.ts';
import { run } from './command.ts';
import { Console } from './console.ts';
import { within } from './deadline.ts';
import { quote } from './frames.ts';
import { requirePackages } from './packages.ts';
import { type Load, listenFor, type Machine, type Port, placeFirmware, qemuArguments, startQemu } from './qemu.ts';
import { Qmp } from './qmp.ts';
import { removeTemporary, temporaryFolder } from './temporary.ts';

/** QEMU did not start. */
export class QemuError extends TideoverError {
  readonly code = 'qemu';
}

const QEMU_START_MS = 120_000;
const COPY_TIMEOUT_MS = 300_000;
/** A capture kernel starts, saves a dump and ends, on a machine that is busy. */
const OFF_MS = 600_000;

export class Vm {
  readonly console: Console;
  readonly agent: Agent;
  /** Resolves when QEMU has ended, to its exit status (null when a signal ended it). */
  readonly exited: Promise<number | null>;
  #qmp: Qmp;
  #process: ChildProcess;
  #folder: string;
  #ports = new Map<number, number>();

  private constructor(folder: string, process: ChildProcess, console: Console, qmp: Qmp, agent: Agent) {
    this.#folder = folder;
    this.#process = process;
    this.console = console;
    this.#qmp = qmp;
    this.agent = agent;
    this.exited = ended(process);
    void this.exited.then(() => {
      console.end('the guest has ended');
      agent.end('the guest has ended');
    });
  }

  /** Starts QEMU. The guest is not ready yet: see Agent.ready. */
  static async start(machine: Machine, load?: { kernel: string; initrd: Uint8Array; append: string }): Promise<Vm> {
    await requirePackages('qemu', ...(machine.firmware === 'uefi' ? (['uefi'] as const) : []));
    const folder = temporaryFolder();
    try {
      placeFirmware(machine, folder);
      let files: Load | undefined;
      if (load !== undefined) {
        writeFileSync(join(folder, 'initrd'), load.initrd);
        files = { kernel: load.kernel, initrd: 'initrd', append: load.append };
      }
      const ports: Port[] = ['console', 'serial', 'qmp', ...(machine.virtioPort === false ? [] : (['port'] as const))];
      const listeners = ports.map((port) => listenFor(port, folder));
      await Promise.all(listeners.map(({ ready }) => ready));
      const qemu = startQemu(qemuArguments(machine, files, false), folder);
      const early = ended(qemu.process).then((status) => {
        throw new QemuError(`QEMU ended with status ${status} when it was started: ${qemu.errors()}`);
      });
      try {
        const connected = Promise.all(listeners.map((listener) => listener.connected));
        const [console, serial, qmp, port] = await within(QEMU_START_MS, 'QEMU', Promise.race([connected, early]));
        early.catch(() => {});
        const text = new Console(console!);
        const agent = new Agent(() => text.lastLines());
        agent.listen(serial!);
        if (port !== undefined) agent.listen(port);
        for (const socket of [console!, serial!, qmp!]) socket.on('error', () => socket.destroy());
        return new Vm(folder, qemu.process, text, new Qmp(qmp!), agent);
      } catch (error) {
        qemu.process.kill('SIGKILL');
        for (const listener of listeners) listener.close();
        throw error;
      }
    } catch (error) {
      removeTemporary(folder);
      throw error;
    }
  }

  /** Runs a shell script, or a program with its arguments, to its end: status, stdout and stderr, exactly. */
  run(command: string | readonly string[], options?: RunOptions): Promise<Result> {
    return this.agent.run(command, options);
  }

  /** Runs a command that has to end with status 0 and returns its stdout as text. @throws GuestCommandError */
  async check(command: string | readonly string[], options?: RunOptions): Promise<string> {
    return (await this.agent.check(command, options)).stdout.toString();
  }

  /** Waits for a pattern on the console since the machine was switched on, or since a length of `console.text`. */
  waitFor(pattern: RegExp, milliseconds: number, since = 0): Promise<RegExpExecArray> {
    return this.console.waitFor(pattern, milliseconds, since);
  }

  /** Waits for the agent of another kernel than the one that `before` greeted from. */
  nextKernel(before: Greeting | undefined, milliseconds: number): Promise<Greeting> {
    return this.agent.ready(milliseconds, before);
  }

  /** Copies a file (with its permissions) or a folder of the host to a path in the guest. */
  async copyIn(from: string, to: string, timeout = COPY_TIMEOUT_MS): Promise<void> {
    const { mode } = statSync(from);
    if (!statSync(from).isDirectory()) {
      await this.agent.putFile(from, to, timeout);
      await this.agent.check(`chmod ${(mode & 0o7777).toString(8)} ${quote(to)}`);
      return;
    }
    const archive = join(this.#folder, 'copy.tar');
    const guestArchive = `${to.replace(/\/+$/, '')}.lab.tar`;
    await run(['tar', '-C', from, '-cf', archive, '.']);
    await this.agent.putFile(archive, guestArchive, timeout);
    rmSync(archive);
    const [folder, tar] = [quote(to), quote(guestArchive)];
    await this.agent.check(`mkdir -p ${folder} && tar -C ${folder} -xf ${tar} && rm ${tar}`, { timeout });
  }

  /** Copies a file (with its permissions) or a folder of the guest to a path of the host. */
  async copyOut(from: string, to: string, timeout = COPY_TIMEOUT_MS): Promise<void> {
    const path = quote(from);
    const kind = (await this.check(`[ -d ${path} ] && echo folder || stat -L -c %a ${path}`)).trim();
    if (kind !== 'folder') {
      mkdirSync(dirname(resolve(to)), { recursive: true });
      await this.agent.stream(`cat ${path}`, to, timeout);
      await run(['chmod', kind, to]);
      return;
    }
    const archive = join(this.#folder, `copy-${basename(to)}.tar`);
    await this.agent.stream(`tar -C ${path} -cf - .`, archive, timeout);
    mkdirSync(to, { recursive: true });
    await run(['tar', '-C', to, '-xf', archive]);
    rmSync(archive);
  }

  /** A command of QEMU's machine protocol. @throws QmpError */
  qmp(command: string, args?: Record<string, unknown>): Promise<unknown> {
    return this.#qmp.command(command, args);
  }

  /** Bytes per second that a disk reads and writes; 0 for no limit. @param name of its -drive: disk0 is the first of `disks` */
  async limitDisk(name: string, bps: number): Promise<void> {
    const none = { bps_rd: 0, bps_wr: 0, iops: 0, iops_rd: 0, iops_wr: 0 };
    await this.qmp('block_set_io_throttle', { device: name, bps, ...none });
  }

  /** QEMU's events so far: SHUTDOWN, RESET, GUEST_PANICKED, ... */
  get events(): Qmp['events'] {
    return this.#qmp.events;
  }

  /** A port of the host's loopback that leads to a TCP port of the guest, whichever kernel it runs. */
  async hostPort(guestPort: number): Promise<number> {
    const known = this.#ports.get(guestPort);
    if (known !== undefined) return known;
    const monitor = (line: string) => this.qmp('human-monitor-command', { 'command-line': line }) as Promise<string>;
    // QEMU takes a free port when it is asked for port 0, and says which in its list.
    const refused = await monitor(`hostfwd_add tcp:127.0.0.1:0-:${guestPort}`);
    const row = new RegExp(`HOST_FORWARD\\]\\s+\\d+\\s+127\\.0\\.0\\.1\\s+(\\d+)\\s+\\S+\\s+${guestPort}\\s`);
    const port = row.exec(await monitor('info usernet'))?.[1];
    if (port === undefined) throw new QemuError(`no host port for port ${guestPort} of the guest: ${refused}`);
    this.#ports.set(guestPort, Number(port));
    return Number(port);
  }

  /** What the console has said, as QEMU wrote it. */
  get consoleLog(): Uint8Array {
    return readFileSync(join(this.#folder, 'console.log'));
  }

  /** Waits until the machine has ended by itself. @returns QEMU's exit status @throws TimeLimitError */
  off(milliseconds = OFF_MS): Promise<number | null> {
    return within(milliseconds, 'the machine to end', this.exited, () => this.console.lastLines());
  }

  /** Ends the machine at once, as a power cut does. Disks keep what reached them. */
  async powerCut(): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.exited;
  }

  /** Ends the machine and removes its files; disks are their makers' to remove. */
  async close(): Promise<void> {
    await this.powerCut();
    removeTemporary(this.#folder);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function ended(process: ChildProcess): Promise<number | null> {
  return new Promise((resolve, reject) => {
    if (process.exitCode !== null || process.signalCode !== null) resolve(process.exitCode);
    process.once('exit', (status) => resolve(status));
    process.once('error', (error) => reject(new QemuError(`QEMU could not be started: ${error.message}`)));
  });
}
