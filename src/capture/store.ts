/** Files written to a place, each of which has its name when it is whole. */
import { spawn } from 'node:child_process';
import { closeSync, fsyncSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { MS_NOATIME } from '../abi/mount.ts';
import { ArchiveWriter } from '../crash/archive.ts';
import { filterDump } from '../crash/filter/filter.ts';
import { OutputFile, writeAt } from '../crash/io/output.ts';
import { syncFolder } from '../fsync.ts';
import { sync, umount2 } from '../sys/mount.ts';
import { openBlock } from '../target/block.ts';
import { put } from '../target/http.ts';
import { deviceOf, MOUNT_POINT, mountDirectory, mountNfs } from '../target/mount.ts';
import { connect } from '../target/network.ts';
import type { HttpPlace, Place, SshPlace } from '../target/place.ts';
import { putBySsh } from '../target/ssh.ts';
import type { CrashSettings } from './settings.ts';

type Form = Pick<CrashSettings, 'level' | 'compress'>;

export interface Store {
  write(name: string, bytes: Uint8Array): Promise<void>;
  /** Filters and compresses a dump on its way. */
  dump(name: string, vmcore: string, form: Form, tell: (line: string) => void): Promise<void>;
  /** All is on the disk, or with the server. */
  close(): Promise<void>;
}

/** @param folder `HOST-DATE` @throws the system's errors; Error with what is missing */
export async function openStore(place: Place, folder: string): Promise<Store> {
  if (place.kind === 'block') return blockStore(await deviceOf(place), folder);
  if (place.kind === 'directory') {
    await mountDirectory(place, MS_NOATIME);
    return mountedStore(join(MOUNT_POINT, place.path, folder));
  }
  await connect(place);
  if (place.kind === 'nfs') {
    mountNfs(place);
    return mountedStore(join(MOUNT_POINT, folder));
  }
  if (place.kind === 'ssh') return sshStore(place, `${place.path}/${folder}`);
  return httpStore(place, `${place.url.replace(/\/+$/, '')}/${folder}`);
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

// --- streams -------------------------------------------------------------------------------------------------------

/** Dumps go as a stream, which tideover crash and makedumpfile -R read. Where filtering fails, that comes in place of its end. */
function filtered(vmcore: string, { level, compress }: Form): Readable {
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
  const stream = new Readable({
    read: () => void child.stdout.resume(),
    // Whoever has had enough of it goes on to the next place, where another one filters in the same memory.
    destroy(error, done) {
      child.kill('SIGKILL');
      done(error);
    },
  });
  child.stdout.on('data', (piece: Buffer) => {
    if (!stream.push(piece)) child.stdout.pause();
  });
  child.once('error', (error) => stream.destroy(error));
  child.once('close', (code) => {
    if (code === 0) stream.push(null);
    else stream.destroy(new Error(`filtering the dump ended with ${code}`));
  });
  return stream;
}

/** An archive from the device's first byte on. */
function blockStore(device: string, folder: string): Store {
  const { fd } = openBlock(device, 'write');
  const output = {
    write: (position: number, bytes: Uint8Array) => writeAt(fd, position, bytes),
    sync: () => fsyncSync(fd),
  };
  const archive = new ArchiveWriter(output, folder, new Date());
  return {
    write: (name, bytes) => archive.add(name, [bytes]),
    dump: (name, vmcore, form) => archive.add(name, filtered(vmcore, form)),
    close: async () => closeSync(fd),
  };
}

function sshStore(place: SshPlace, folder: string): Store {
  return {
    write: (name, bytes) => putBySsh(place, folder, name, bytes),
    dump(name, vmcore, form) {
      return putBySsh(place, folder, name, filtered(vmcore, form));
    },
    close: async () => {},
  };
}

function httpStore(place: HttpPlace, url: string): Store {
  return {
    write: (name, bytes) => put(place, `${url}/${name}`, Readable.from([bytes]), { length: bytes.length }),
    dump(name, vmcore, form) {
      return put(place, `${url}/${name}`, filtered(vmcore, form));
    },
    close: async () => {},
  };
}
