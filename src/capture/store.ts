/** Files written to a place, each of which has its name when it is whole. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { MS_NOATIME } from '../abi/mount.ts';
import { filterDump } from '../crash/filter/filter.ts';
import { OutputFile, writeAt } from '../crash/io/output.ts';
import { hasCarrier, networkInterfaces } from '../sys/devices.ts';
import { setUp } from '../sys/interface.ts';
import { mount, sync, umount2 } from '../sys/mount.ts';
import { findDevice } from './identity.ts';
import type { BlockPlace, DirectoryPlace, HttpPlace, Network, Place, SshPlace } from './place.ts';
import type { CrashSettings } from './settings.ts';

type Form = Pick<CrashSettings, 'level' | 'compress'>;

export interface Store {
  /** undefined where there is room for a dump alone, which has the log in it. */
  readonly write?: (name: string, bytes: Uint8Array) => Promise<void>;
  /** Filters and compresses a dump on its way. */
  dump(name: string, vmcore: string, form: Form, tell: (line: string) => void): Promise<void>;
  /** All is on the disk, or with the server. */
  close(): Promise<void>;
}

export const MOUNT_POINT = '/mnt';
const DEVICE_MS = 30_000;
const NETWORK_MS = 60_000;

/** @param folder `HOST-DATE` @throws the system's errors; Error with what is missing */
export async function openStore(place: Place, folder: string): Promise<Store> {
  if (place.kind === 'block') return blockStore(await deviceOf(place));
  if (place.kind === 'directory') {
    await mountDirectory(place, MS_NOATIME);
    return mountedStore(join(MOUNT_POINT, place.path, folder));
  }
  await connect(place.network);
  if (place.kind === 'nfs') {
    mountNfs(place.server, place.exported, place.network.address);
    return mountedStore(join(MOUNT_POINT, folder));
  }
  if (place.kind === 'ssh') return sshStore(place, `${place.path}/${folder}`);
  return httpStore(place, `${place.url.replace(/\/+$/, '')}/${folder}`);
}

/** Mounts the file system that a directory is in, at MOUNT_POINT. @param mountflags MS_* */
export async function mountDirectory(place: DirectoryPlace, mountflags: number): Promise<void> {
  const options = place.type === 'btrfs' ? 'subvolid=5' : '';
  mount({
    source: await deviceOf(place),
    target: MOUNT_POINT,
    filesystemtype: place.type,
    mountflags,
    data: Buffer.from(`${options}\0`),
  });
}

function deviceOf({ text, device }: DirectoryPlace | BlockPlace): Promise<string> {
  return until(() => findDevice(device), DEVICE_MS, `the disk of ${text}`);
}

// --- file systems --------------------------------------------------------------------------------------------------

function mountedStore(folder: string): Store {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    syncFolder(dirname(folder));
  } catch (error) {
    // The kernel that follows may lie on it, and is read from a mount of its own.
    umount2({ target: MOUNT_POINT, flags: 0 });
    throw error;
  }
  return {
    async write(name, bytes) {
      const file = new OutputFile(join(folder, name));
      try {
        file.write(0, bytes);
        file.commit();
      } catch (error) {
        file.abort();
        throw error;
      }
    },
    async dump(name, vmcore, form, tell) {
      let told = Date.now();
      await filterDump({ paths: [vmcore] }, [join(folder, name)], {
        to: 'kdump',
        compression: form.compress,
        level: form.level,
        flattened: false,
        verify: false,
        threads: 1,
        onProgress(done, total) {
          if (Date.now() - told < PROGRESS_MS) return;
          told = Date.now();
          tell(`${name}: ${Math.floor((100 * done) / total)}%`);
        },
      });
    },
    async close() {
      sync({});
      umount2({ target: MOUNT_POINT, flags: 0 });
    },
  };
}

const PROGRESS_MS = 2000;

function syncFolder(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Without mount.nfs(8): the kernel takes addresses as they are. The newest version that the server speaks. */
function mountNfs(server: string, exported: string, client: string): void {
  const versions = ['4.2', '4.1', '4.0', '3'];
  for (const version of versions) {
    const how = version === '3' ? 'nolock,mountproto=tcp,proto=tcp' : `clientaddr=${client}`;
    const data = Buffer.from(`vers=${version},addr=${server},${how},hard\0`);
    try {
      mount({ source: `${server}:${exported}`, target: MOUNT_POINT, filesystemtype: 'nfs', mountflags: 0, data });
      return;
    } catch (error) {
      if (version === versions.at(-1)) throw error;
    }
  }
}

// --- streams -------------------------------------------------------------------------------------------------------

/** Dumps go as a stream, which tideover crash and makedumpfile -R read. */
function filtered(vmcore: string, { level, compress }: Form) {
  const args = [
    process.argv[1]!,
    'crash',
    'filter',
    '-F',
    `--${compress}`,
    '-d',
    String(level),
    '--num-threads',
    '1',
    vmcore,
  ];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'close').then(([code]) => {
    if (code !== 0) throw new Error(`filtering the dump ended with ${code}`);
  });
  return { stream: child.stdout, ended };
}

/** The stream from the device's first byte on, its header last: without it a reader finds no dump. */
function blockStore(device: string): Store {
  return {
    async dump(_, vmcore, form) {
      const fd = openSync(device, 'r+');
      try {
        const { stream, ended } = filtered(vmcore, form);
        let position = 0;
        const header = Buffer.alloc(HEADER_SIZE);
        writeAt(fd, 0, header);
        fsyncSync(fd);
        for await (const piece of stream as AsyncIterable<Buffer>) {
          const inHeader = Math.max(0, Math.min(piece.length, HEADER_SIZE - position));
          piece.copy(header, position, 0, inHeader);
          writeAt(fd, position + inHeader, piece.subarray(inHeader));
          position += piece.length;
        }
        await ended;
        fsyncSync(fd);
        writeAt(fd, 0, header);
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
    },
    close: async () => {},
  };
}

/** Of a stream of makedumpfile: MAX_SIZE_MDF_HEADER. */
const HEADER_SIZE = 4096;

function sshStore({ login, host }: SshPlace, folder: string): Store {
  const options = [
    'BatchMode=yes',
    'IdentitiesOnly=yes',
    `HostKeyAlias=${host}`,
    'ConnectTimeout=30',
    'ServerAliveInterval=15',
  ];
  const run = async (script: string, input: Readable) => {
    const args = ['-i', '/root/.ssh/key', ...options.flatMap((option) => ['-o', option]), login, script];
    const child = spawn('ssh', args, { stdio: ['pipe', 'inherit', 'inherit'] });
    const closed = once(child, 'close');
    await pipeline(input, child.stdin);
    const [code] = await closed;
    if (code !== 0) throw new Error(`ssh ${login} ended with ${code}`);
  };
  const put = async (name: string, input: Readable, whole: Promise<void> = Promise.resolve()) => {
    const [path, part] = [quote(`${folder}/${name}`), quote(`${folder}/.${name}.partial`)];
    await Promise.all([run(`umask 077 && mkdir -p ${quote(folder)} && cat >${part} && sync`, input), whole]);
    // By a call of its own: to the other end a connection that breaks is the end of the stream.
    await run(`mv ${part} ${path} && sync`, Readable.from([]));
  };
  return {
    write: (name, bytes) => put(name, Readable.from([bytes])),
    dump(name, vmcore, form) {
      const { stream, ended } = filtered(vmcore, form);
      return put(name, stream, ended);
    },
    close: async () => {},
  };
}

function httpStore(place: HttpPlace, url: string): Store {
  const put = async (name: string, input: Readable, length?: number) => {
    const target = new URL(`${url}/${name}`);
    const lookup = (_: string, options: { all?: boolean }, done: (...args: unknown[]) => void) =>
      options.all ? done(null, [{ address: place.server, family: 4 }]) : done(null, place.server, 4);
    const headers = length === undefined ? {} : { 'Content-Length': length };
    const request = target.protocol === 'https:' ? httpsRequest : httpRequest;
    const sent = request(target, { method: 'PUT', headers, lookup: lookup as never });
    const answered = once(sent, 'response');
    await pipeline(input, sent);
    const [response] = (await answered) as [import('node:http').IncomingMessage];
    response.resume();
    const code = response.statusCode ?? 0;
    if (code < 200 || code > 299) throw new Error(`PUT ${target}: ${code} ${response.statusMessage}`);
  };
  return {
    write: (name, bytes) => put(name, Readable.from([bytes]), bytes.length),
    async dump(name, vmcore, form) {
      const { stream, ended } = filtered(vmcore, form);
      await Promise.all([put(name, stream), ended]);
    },
    close: async () => {},
  };
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

// --- getting there -------------------------------------------------------------------------------------------------

async function connect(network: Network): Promise<void> {
  const card = () => networkInterfaces().find(({ address }) => address === network.mac);
  const { name } = await until(card, DEVICE_MS, `the network card ${network.mac}`);
  setUp(Number(readFileSync(`/sys/class/net/${name}/ifindex`, 'latin1')), network);
  await until(() => hasCarrier(name) || undefined, NETWORK_MS, `a link on ${name}`);
}

/** Devices come by and by after their drivers. */
async function until<T>(look: () => T | undefined, milliseconds: number, what: string): Promise<T> {
  for (const end = Date.now() + milliseconds; ; await delay(200)) {
    const found = look();
    if (found !== undefined) return found;
    if (Date.now() > end) throw new Error(`there is no sign of ${what} after ${milliseconds / 1000} s`);
  }
}
