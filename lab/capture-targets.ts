/** Where armed guests save to: their disk, and servers on this machine that put what comes into a folder. */
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { dumpsOn } from './capture.ts';
import type { OwnDisk } from './disk.ts';
import { HOST } from './qemu.ts';
import { httpServer, nfsServer, type OwnServer, sshServer } from './servers.ts';
import type { Vm } from './vm.ts';

export interface SavedDump {
  readonly path: string;
  /** Sorted. */
  readonly files: readonly string[];
}

export interface CaptureTarget {
  /** For `tideover crash arm --target`. */
  readonly target: string;
  /** What the guest has for it. */
  readonly machine: {
    readonly hostPorts?: Readonly<Record<number, number>>;
    readonly programs?: readonly string[];
    readonly modules?: readonly string[];
  };
  /** Programs of the capture kernel's system. */
  readonly programs: readonly string[];
  /** What is done in the guest before it is armed. */
  prepare(vm: Vm): Promise<void>;
  /** The one dump that came, when the guest is off. @param disk the guest's, from crashDisk() */
  saved(disk: OwnDisk): Promise<SavedDump>;
  close(): void;
}

const none = { machine: {}, programs: [], prepare: async () => {} } as const;

const makers = {
  ext4: async (folder: string): Promise<CaptureTarget> => ({
    ...none,
    target: '/mnt/data/crash',
    saved: async (disk) => (await dumpsOn(disk, folder))[0]!,
    close() {},
  }),
  async nfs(folder: string): Promise<CaptureTarget> {
    const server = await nfsServer(folder);
    const machine = { hostPorts: { 2049: server.port }, modules: ['nfsv4'] };
    return { ...none, ...into(folder, server), target: `nfs:${HOST}:/dumps`, machine };
  },
  async ssh(folder: string): Promise<CaptureTarget> {
    const server = await sshServer();
    return {
      ...into(folder, server),
      target: `ssh:${HOST}:${folder}`,
      machine: { hostPorts: { 22: server.port }, programs: ['ssh', 'ssh-keygen'] },
      programs: ['/usr/bin/ssh'],
      async prepare(vm) {
        await vm.check(`mkdir -p -m 700 ~/.ssh && echo '${HOST} ${server.hostKey}' >~/.ssh/known_hosts`);
        await vm.copyIn(server.key, '/root/.ssh/kdump_id_rsa');
      },
    };
  },
  async http(folder: string): Promise<CaptureTarget> {
    const server = await httpServer(folder);
    return { ...none, ...into(folder, server), target: `http://${HOST}/`, machine: { hostPorts: { 80: server.port } } };
  },
};

export type CaptureTargetName = keyof typeof makers;

function into(folder: string, server: OwnServer) {
  return {
    async saved(): Promise<SavedDump> {
      const [name = ''] = readdirSync(folder);
      return { path: join(folder, name), files: readdirSync(join(folder, name)).sort() };
    },
    close: () => server.close(),
  };
}

/** @param folder a new one, on a file system that has handles of files */
export function captureTarget(name: CaptureTargetName, folder: string): Promise<CaptureTarget> {
  mkdirSync(folder, { recursive: true });
  return makers[name](folder);
}
