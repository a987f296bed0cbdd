/** Builds what makes kernels die: the module fault.c for one of Debian's, and the program user.c. */
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { UnsupportedError } from '../../src/errors.ts';
import { download, record } from '../apt.ts';
import { cacheDirectory, exclusively } from '../cache.ts';
import { run, say } from '../command.ts';
import type { Kernel } from '../kernels.ts';
import { requirePackages } from '../packages.ts';

const files = ['fault.c', 'Makefile'] as const;

/** Path of fault.ko, built with the headers that belong to the kernel and kept in the cache. Its types (BTF) are in it. */
export async function faultModule(kernel: Kernel): Promise<string> {
  const hash = createHash('sha256').update(kernel.version);
  for (const file of files) hash.update(readFileSync(join(import.meta.dirname, file)));
  const path = join(cacheDirectory(), 'modules', `fault-${kernel.release}-${hash.digest('hex').slice(0, 12)}.ko`);
  if (existsSync(path)) return path;
  return exclusively('fault', async (scratch) => {
    if (existsSync(path)) return path;
    await requirePackages('kernel build');
    const headers = await unpackHeaders(kernel, scratch);
    const source = join(scratch, 'source');
    mkdirSync(source);
    for (const file of files) copyFileSync(join(import.meta.dirname, file), join(source, file));
    say(`building a module for kernel ${kernel.release}`);
    await run(['make', '-C', headers, `M=${source}`, 'CC=gcc', 'CROSS_COMPILE=', 'modules']);
    mkdirSync(dirname(path), { recursive: true });
    renameSync(join(source, 'fault.ko'), path);
    return path;
  });
}

/** The folder that modules are built with. @throws UnsupportedError where Debian has dropped it */
async function unpackHeaders({ name: series, release, version }: Kernel, scratch: string): Promise<string> {
  const root = join(scratch, 'root');
  const name = `linux-headers-${release}`;
  const paragraph = await record(name, version);
  if (paragraph === undefined) {
    throw new UnsupportedError({
      what: `building a module for kernel ${release}`,
      why: `Debian no longer has ${name} ${version}`,
      remedy: `take a kernel that it has, by: node lab/kernels.ts --newest ${series}`,
    });
  }
  const depends = paragraph.get('depends') ?? '';
  const others = depends.match(/\blinux-(?:headers-[^\s,|(]+-common|kbuild-[^\s,|(]+)/g) ?? [];
  for (const each of [name, ...others]) {
    const directory = join(scratch, each);
    mkdirSync(directory);
    const sha256 = (await record(each, version))?.get('sha256') ?? '';
    await run(['dpkg-deb', '-x', await download({ package: each, version, suite: '', sha256 }, directory), root]);
  }
  // The one path that is not relative.
  const folder = join(root, 'usr', 'src', name);
  const makefile = join(folder, 'Makefile');
  writeFileSync(makefile, readFileSync(makefile, 'utf8').replaceAll('/usr/src/', `${join(root, 'usr', 'src')}/`));
  return folder;
}

/** Makes the program in a folder and returns its path. It needs no library. */
export async function faultProgram(folder: string): Promise<string> {
  await requirePackages('programs under test');
  const path = join(folder, 'user');
  await run(['gcc', '-O1', '-static', '-pthread', '-o', path, join(import.meta.dirname, 'user.c')]);
  return path;
}
