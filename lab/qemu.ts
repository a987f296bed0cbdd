/** QEMU's command line for a guest, and the process. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, copyFileSync, openSync, readFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { accelerator } from './accelerator.ts';
import type { Disk } from './disk.ts';

export interface Machine {
  /** MB */
  readonly memory?: number;
  readonly cpus?: number;
  readonly firmware?: 'bios' | 'uefi';
  /** Virtio disks: /dev/vda, /dev/vdb, ... */
  readonly disks?: readonly Disk[];
  /** False for a guest without a network card. */
  readonly network?: boolean;
  /** TCP ports at which the guest reaches HOST, and the ports of the host's loopback that they lead to. */
  readonly hostPorts?: Readonly<Record<number, number>>;
  /** False for a guest whose agent has the second serial port only. */
  readonly virtioPort?: boolean;
  /** True for a guest that starts again from its firmware when it resets; otherwise a reset ends QEMU. */
  readonly reboot?: boolean;
  readonly extraArguments?: readonly string[];
}

/** What the firmware hands over to. Without it, the firmware boots from a disk. */
export interface Load {
  readonly kernel: string;
  readonly initrd: string;
  readonly append: string;
}

/** Sockets of a machine that listen in its folder, by their names there. */
export type Port = 'console' | 'serial' | 'port' | 'qmp';

const firmware = '/usr/share/OVMF';

/** The host, as the guest sees its services. */
export const HOST = '10.0.2.100';

/**
 * Arguments for a machine whose files stand in `folder`, which is QEMU's working directory.
 * @param terminal the console is this process's terminal, with ^A x to leave
 */
export function qemuArguments(machine: Machine, load: Load | undefined, terminal: boolean): string[] {
  const { memory = 512, cpus = 1, disks = [], network = true, virtioPort = true, hostPorts = {} } = machine;
  const socket = (id: Port) => ['-chardev', `socket,id=${id},path=${id}`];
  const args = ['-name', 'tideover-lab', '-no-user-config', '-nodefaults', '-display', 'none'];
  args.push('-machine', 'q35', ...accelerator().arguments, '-m', `${memory}`, '-smp', `${cpus}`);
  if (machine.reboot !== true) args.push('-no-reboot');
  if (terminal) args.push('-chardev', 'stdio,id=console,mux=on,signal=off', '-mon', 'chardev=console,mode=readline');
  else args.push('-chardev', 'socket,id=console,path=console,logfile=console.log');
  args.push('-serial', 'chardev:console');
  if (!terminal) {
    args.push(...socket('serial'), '-serial', 'chardev:serial', ...socket('qmp'), '-mon', 'chardev=qmp,mode=control');
    if (virtioPort) args.push('-device', 'virtio-serial-pci', ...socket('port'));
    if (virtioPort) args.push('-device', 'virtserialport,chardev=port,name=lab');
  }
  args.push('-device', 'virtio-rng-pci', '-device', 'pvpanic-pci', '-action', 'panic=none');
  // restrict: the guest reaches nothing but what is forwarded to it. No boot ROM: nothing boots from this card.
  // By a command, because only then QEMU connects anew for each connection of the guest's.
  const services = Object.entries(hostPorts).map(
    ([port, own]) => `,guestfwd=tcp:${HOST}:${port}-cmd:/bin/busybox nc 127.0.0.1 ${own}`,
  );
  const net = `user,id=net,restrict=on${services.join('')}`;
  if (network) args.push('-netdev', net, '-device', 'virtio-net-pci,netdev=net,romfile=');
  if (machine.firmware === 'uefi') {
    args.push('-drive', `if=pflash,format=raw,readonly=on,file=${firmware}/OVMF_CODE_4M.fd`);
    args.push('-drive', 'if=pflash,format=raw,file=efivars');
  }
  for (const [i, { path, format, readOnly, serial }] of disks.entries()) {
    const only = readOnly ? ',readonly=on' : '';
    args.push('-drive', `file=${path.replaceAll(',', ',,')},format=${format},if=none,id=disk${i}${only}`);
    args.push('-device', `virtio-blk-pci,drive=disk${i}${serial === undefined ? '' : `,serial=${serial}`}`);
  }
  if (load) args.push('-kernel', load.kernel, '-initrd', load.initrd, '-append', load.append);
  return [...args, ...(machine.extraArguments ?? [])];
}

/** UEFI variables of a machine's own. */
export function placeFirmware(machine: Machine, folder: string): void {
  if (machine.firmware === 'uefi') copyFileSync(`${firmware}/OVMF_VARS_4M.fd`, join(folder, 'efivars'));
}

/**
 * Starts QEMU so that it does not outlive this process, by whatever signal that ends: the kernel kills it
 * (PR_SET_PDEATHSIG). A death before that is arranged leaves QEMU without the sockets that it connects to, and it ends.
 *
 * @returns the process, and how to read what it said on stderr
 */
export function startQemu(args: readonly string[], folder: string): { process: ChildProcess; errors(): string } {
  const log = join(folder, 'qemu.log');
  const errors = openSync(log, 'w');
  const command = ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...args];
  const process = spawn('setpriv', command, { cwd: folder, stdio: ['ignore', 'ignore', errors] });
  closeSync(errors);
  return { process, errors: () => readFileSync(log, 'utf8').trim() };
}

/** Listens on a socket in `folder` for the one connection that QEMU makes to it when it starts. */
export function listenFor(
  port: Port,
  folder: string,
): { ready: Promise<void>; connected: Promise<Socket>; close(): void } {
  const server = createServer();
  const connected = new Promise<Socket>((resolve, reject) => {
    server.once('connection', (socket) => {
      server.close();
      resolve(socket);
    });
    server.once('error', reject);
  });
  const ready = new Promise<void>((resolve, reject) => {
    server.listen(join(folder, port), resolve);
    server.once('error', reject);
  });
  return { ready, connected, close: () => server.close() };
}
