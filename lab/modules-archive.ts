/** The modules that a kernel needs in a guest, as an archive to put behind another one. Cached for each kernel. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, renameSync } from 'node:fs';
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { zstdDecompressSync } from 'node:zlib';
import { type CpioEntry, cpio } from '../src/kexec/cpio.ts';
import { loadOrder, moduleName, parseModulesBuiltin, parseModulesDep } from '../src/sys/modules.ts';
import { cacheDirectory, exclusively } from './cache.ts';
import { run } from './command.ts';
import type { Kernel } from './kernels.ts';

/** What any guest needs: its root, its disks, its network card, the lab's channel, the panic device. */
const basic = ['loop', 'squashfs', 'overlay', 'ext4', 'virtio_pci', 'virtio_blk', 'virtio_net', 'virtio_console'];

/** Devices that a guest can do without. crc32c_generic is what ext4 asks for by an alias where crc32c is no library. */
const useful = ['virtio_rng', 'pvpanic_pci', 'crc32c_generic'];

/**
 * lab/modules/RELEASE with the modules uncompressed (busybox has no xz), lab.order with those to load at start in
 * their order, and what modprobe(8) needs to load the others.
 *
 * @param more names of modules beyond the ones that every guest needs
 * @param spare names of modules that are there and not loaded
 */
export async function modulesArchive(
  kernel: Kernel,
  more: readonly string[],
  spare: readonly string[] = [],
): Promise<Uint8Array> {
  if (kernel.modules === undefined) return new Uint8Array(0);
  const folder = kernel.modules;
  const text = (name: string) => readFileSync(join(folder, name), 'utf8');
  const dependencies = parseModulesDep(text('modules.dep'));
  const builtin = parseModulesBuiltin(text('modules.builtin'));
  const known = new Set([...builtin, ...[...dependencies.keys()].map(moduleName)]);
  const names = [...basic, ...useful.filter((name) => known.has(name)), ...more];
  const order = loadOrder(names, dependencies, builtin);
  const all = [...new Set([...order, ...loadOrder(spare, dependencies, builtin)])];

  const hash = createHash('sha256').update(JSON.stringify([kernel.release, order, all, text('modules.dep')]));
  hash.update(readFileSync(kernel.vmlinuz));
  const name = `modules-${kernel.release}-${hash.digest('hex').slice(0, 24)}.cpio`;
  const archive = join(cacheDirectory(), 'roots', name);
  if (existsSync(archive)) return readFile(archive);

  return exclusively('modules', async (scratch) => {
    if (existsSync(archive)) return readFile(archive);
    const top = `lab/modules/${kernel.release}`;
    const chosen = new Set(all.map(moduleName));
    const aliases = text('modules.alias')
      .split('\n')
      .filter((line) => chosen.has(line.split(' ').at(-1)!));
    const needs = all.map((path) => `${plain(path)}: ${(dependencies.get(path) ?? []).map(plain).join(' ')}`);
    const list = (file: string, lines: readonly string[]): CpioEntry => {
      return { name: `${top}/${file}`, mode: 0o644, data: lines.map((line) => `${line}\n`).join('') };
    };
    const modules = await contents(folder, all, scratch);
    const files = [...modules].map(([path, data]) => ({ name: `${top}/${plain(path)}`, mode: 0o644, data }));
    const made = cpio([
      ...foldersOf(files).map((each) => ({ name: each, mode: 0o40755 })),
      ...files,
      list('lab.order', order.map(plain)),
      list('modules.dep', needs),
      list('modules.alias', aliases),
      list('modules.builtin', text('modules.builtin').trimEnd().split('\n')),
    ]);
    await writeFile(join(scratch, name), made);
    await mkdir(dirname(archive), { recursive: true });
    renameSync(join(scratch, name), archive);
    return made;
  });
}

/** Path of a module in the guest. */
function plain(path: string): string {
  return path.replace(/\.(xz|zst)$/, '');
}

function foldersOf(files: readonly CpioEntry[]): string[] {
  const folders = new Set<string>();
  for (const { name } of files) {
    const parts = name.split('/').slice(0, -1);
    for (let i = 1; i <= parts.length; i++) folders.add(parts.slice(0, i).join('/'));
  }
  return [...folders].sort();
}

/** Contents of modules by their paths in `folder`. */
async function contents(folder: string, paths: readonly string[], scratch: string): Promise<Map<string, Uint8Array>> {
  const compressed = paths.filter((path) => path.endsWith('.xz'));
  for (const [i, path] of compressed.entries()) await copyFile(join(folder, path), join(scratch, `${i}.xz`));
  if (compressed.length > 0) await run(['xz', '-d', ...compressed.map((_, i) => join(scratch, `${i}.xz`))]);
  const found = new Map<string, Uint8Array>();
  for (const path of paths) {
    const i = compressed.indexOf(path);
    const bytes = await readFile(i < 0 ? join(folder, path) : join(scratch, `${i}`));
    found.set(path, path.endsWith('.zst') ? zstdDecompressSync(bytes) : bytes);
  }
  return found;
}
