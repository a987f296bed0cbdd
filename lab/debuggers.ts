/**
 * drgn and crash as Debian has them, and the debug symbols of Debian's kernels, to compare with: a gigabyte to fetch and half of one to keep for
 * each kernel. They are fetched for benches and the full form of the tests.
 */
import { existsSync, mkdirSync, realpathSync, renameSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { UnsupportedError } from '../src/errors.ts';
import { available, download, record } from './apt.ts';
import { cacheDirectory, exclusively, requireRoom } from './cache.ts';
import { run } from './command.ts';
import { fetchPrograms } from './fetched.ts';

/** Of an unpacked package and its vmlinux. */
const ROOM = 4 * 2 ** 30;

export interface Debugger {
  readonly version: string;
  /** How it is started; its arguments come behind. */
  readonly command: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string>>;
}

export async function fetchCrash(): Promise<Debugger> {
  const { version, command } = await fetchPrograms('crash');
  return { version, command: command('usr/bin/crash'), env: {} };
}

/** A Python in which `import drgn` works; its arguments come behind. */
export async function fetchDrgn(): Promise<Debugger> {
  const { version, command, root } = await fetchPrograms('python3-drgn', 'python3.14-minimal', 'libpython3.14-stdlib');
  const env = { PYTHONHOME: join(root, 'usr'), PYTHONPATH: join(root, 'usr/lib/python3/dist-packages') };
  return { version, command: command('usr/bin/python3.14'), env: { ...env, PYTHONDONTWRITEBYTECODE: '1' } };
}

/** The vmlinux with DWARF of one of Debian's kernels, by its release: fetched once, kept in the cache. */
export async function fetchVmlinux(release: string): Promise<string> {
  const path = join(cacheDirectory(), 'debug', release, 'vmlinux');
  if (!existsSync(path)) await exclusively(`debug-${release}`, (scratch) => unpack(release, scratch, path));
  return path;
}

async function unpack(release: string, scratch: string, path: string): Promise<void> {
  if (existsSync(path)) return;
  const name = `linux-image-${release}-dbg`;
  const [offer] = await available(name, (each) => each === name);
  const sha256 = offer && (await record(name, offer.version))?.get('sha256');
  if (offer === undefined || sha256 === undefined) {
    const why = `the archive has no ${name} any more`;
    throw new UnsupportedError({ what: `debug symbols of ${release}`, why, remedy: 'take a newer kernel' });
  }
  requireRoom(ROOM, name);
  mkdirSync(join(scratch, 'deb'));
  const deb = await download({ ...offer, sha256 }, join(scratch, 'deb'));
  const members = './usr/lib/debug/*/vmlinux*';
  await run([
    'sh',
    '-c',
    'dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --wildcards "$3"',
    'sh',
    deb,
    scratch,
    members,
  ]);
  // One of the two is a link to the other; which, has changed.
  const folder = join(scratch, 'usr/lib/debug');
  const found = realpathSync(join(folder, `boot/vmlinux-${release}`));
  mkdirSync(dirname(path), { recursive: true });
  renameSync(found, path);
}

/** What drgn says of a dump: of each task its return addresses, and how many bytes the log has. */
export interface DrgnView {
  /** By PID, the innermost first; null where it could not be unwound. */
  readonly stacks: Readonly<Record<string, readonly string[] | null>>;
  readonly log: number;
}

/** @param vmlinux with the symbols of the dump's kernel */
export async function drgnView({ command, env }: Debugger, dump: string, vmlinux: string): Promise<DrgnView> {
  return JSON.parse(await run([...command, '-c', LOOK, dump, vmlinux], { env })) as DrgnView;
}

/** Opens a dump, formats all stacks and reads the log. A frame of an inlined function has the address of the one that it is in. */
const LOOK = `
import drgn, json, sys
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.printk import get_dmesg
prog = drgn.Program()
prog.set_core_dump(sys.argv[1])
prog.load_debug_info([sys.argv[2]])
stacks = {}
for task in for_each_task(prog):
    try:
        trace = prog.stack_trace(task)
        str(trace)
        stacks[task.pid.value_()] = [hex(frame.pc) for frame in trace if not frame.is_inline]
    except (LookupError, ValueError, drgn.FaultError):
        stacks[task.pid.value_()] = None
print(json.dumps({"stacks": stacks, "log": len(get_dmesg(prog))}))
`;
