/** Which modules a kernel must load, and in which order, by the files that depmod(8) writes; and their content. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { UnsupportedError } from '../errors.ts';
import { readProcText } from './proc.ts';

/** Path of a module, relative to its kernel's folder, to the paths of those it needs. */
export type ModuleDependencies = ReadonlyMap<string, readonly string[]>;

/** Reads modules.dep(5). */
export function parseModulesDep(text: string): ModuleDependencies {
  return new Map(
    text
      .split('\n')
      .filter((line) => line.includes(':'))
      .map((line) => {
        const [path, needs] = line.split(':', 2) as [string, string];
        return [path, needs.split(' ').filter((each) => each !== '')];
      }),
  );
}

/** Reads modules.builtin: names of modules that are part of the kernel. */
export function parseModulesBuiltin(text: string): ReadonlySet<string> {
  return new Set(
    text
      .split('\n')
      .filter((line) => line !== '')
      .map(moduleName),
  );
}

/** `kernel/drivers/net/virtio-net.ko.xz` is `virtio_net`, as in /proc/modules. */
export function moduleName(path: string): string {
  return path
    .replace(/^.*\//, '')
    .replace(/\.ko(\.(xz|zst|gz))?$/, '')
    .replaceAll('-', '_');
}

/**
 * Paths of the modules with these names and of all they need, each after those that it needs. Built-in modules need
 * no loading and are left out.
 *
 * @throws UnsupportedError that names a module which the kernel has neither as a file nor built in
 */
export function loadOrder(
  names: readonly string[],
  dependencies: ModuleDependencies,
  builtin: ReadonlySet<string>,
): string[] {
  const pathOf = new Map([...dependencies.keys()].map((path) => [moduleName(path), path]));
  const order = new Set<string>();
  const pending = new Set<string>();
  const add = (path: string) => {
    // A circle cannot be loaded by anyone; depmod refuses to write one.
    if (order.has(path) || pending.has(path)) return;
    pending.add(path);
    for (const needed of dependencies.get(path) ?? []) add(needed);
    order.add(path);
  };
  for (const given of names) {
    const name = moduleName(given);
    const path = pathOf.get(name);
    if (path !== undefined) add(path);
    else if (!builtin.has(name)) {
      throw new UnsupportedError({
        what: `kernel module ${name}`,
        why: 'this kernel has it neither as a module nor built in',
        remedy: 'choose another kernel or do without it',
      });
    }
  }
  return [...order];
}

/** What a kernel's folder below /lib/modules says. */
export interface KernelModules {
  readonly folder: string;
  readonly dependencies: ModuleDependencies;
  readonly builtin: ReadonlySet<string>;
  /** modules.alias: patterns of fnmatch(3), and the module that each leads to. */
  readonly aliases: readonly (readonly [pattern: string, module: string])[];
  /** modules.softdep: what is better loaded before or beside a module, as names or aliases. */
  readonly softDependencies: ReadonlyMap<string, readonly string[]>;
}

/** @returns undefined for a kernel that has no modules, or none here */
export function readKernelModules(release: string): KernelModules | undefined {
  const folder = `/lib/modules/${release}`;
  const text = (name: string) => {
    const file = join(folder, name);
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  };
  if (!existsSync(join(folder, 'modules.dep'))) return undefined;
  const lines = (name: string, pattern: RegExp) => [...text(name).matchAll(pattern)];
  return {
    folder,
    dependencies: parseModulesDep(text('modules.dep')),
    builtin: parseModulesBuiltin(text('modules.builtin')),
    aliases: lines('modules.alias', /^alias (\S+) (\S+)$/gm).map(([, pattern, name]) => [pattern!, moduleName(name!)]),
    softDependencies: new Map(
      lines('modules.softdep', /^softdep (\S+) (.*)$/gm).map(([, name, needs]) => [
        moduleName(name!),
        needs!.split(' ').filter((each) => each !== '' && each !== 'pre:' && each !== 'post:'),
      ]),
    ),
  };
}

/** Names of the modules that an alias leads to: a modalias of sysfs, `fs-ext4`, `crypto-crc32c`. */
export function aliased(alias: string, { aliases }: KernelModules): string[] {
  const plain = alias.replaceAll('-', '_');
  const fits = (pattern: string) =>
    /[*?[]/.test(pattern) ? fnmatch(pattern, alias) : pattern.replaceAll('-', '_') === plain;
  return [...new Set(aliases.filter(([pattern]) => fits(pattern)).map(([, name]) => name))];
}

/**
 * Paths of modules in the order in which they are to be loaded, with all they need. What is asked for by an alias, or
 * by another module softly, may be missing: it can be built in, which no list says.
 *
 * @param names of modules that there must be @param aliases as `aliased` takes them
 * @throws UnsupportedError as `loadOrder`
 */
export function loadOrderOf(names: readonly string[], aliases: readonly string[], modules: KernelModules): string[] {
  const { dependencies, builtin, softDependencies } = modules;
  const known = new Set([...dependencies.keys()].map(moduleName));
  const wanted: string[] = [];
  const seen = new Set<string>();
  const add = (name: string) => {
    if (seen.has(name)) return;
    seen.add(name);
    for (const soft of softDependencies.get(name) ?? []) addSoft(soft);
    wanted.push(name);
  };
  const addSoft = (name: string) => {
    const plain = moduleName(name);
    if (known.has(plain)) add(plain);
    for (const each of aliased(name, modules)) if (known.has(each)) add(each);
  };
  // A module's soft dependencies count also where it is itself needed by another one.
  for (const each of loadOrder(names, dependencies, builtin)) add(moduleName(each));
  for (const alias of aliases) addSoft(alias);
  const required = names.map(moduleName).filter((name) => !seen.has(name));
  return loadOrder([...wanted, ...required], dependencies, builtin);
}

/**
 * A module as finit_module(2) takes it on any kernel: not compressed.
 *
 * @param path relative to the kernel's folder @throws UnsupportedError where there is no program to unpack it with
 */
export function moduleBytes(path: string, { folder }: Pick<KernelModules, 'folder'>): Uint8Array {
  const file = join(folder, path);
  const bytes = readFileSync(file);
  if (path.endsWith('.zst')) return zstdDecompressSync(bytes);
  if (path.endsWith('.gz')) return gunzipSync(bytes);
  if (!path.endsWith('.xz')) return bytes;
  try {
    return execFileSync('xz', ['-dc', file], { maxBuffer: 2 ** 28, stdio: ['ignore', 'pipe', 'pipe'] });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new UnsupportedError({
      what: `kernel module ${file}`,
      why: 'it is compressed by xz',
      remedy: 'install xz-utils',
    });
  }
}

/** fnmatch(3) without flags, as libkmod matches aliases. */
function fnmatch(pattern: string, text: string): boolean {
  if (!text.startsWith(/^[^*?[]*/.exec(pattern)![0])) return false;
  const source = pattern.replace(/\*|\?|\[[^\]]*\]|[^*?[]/g, (part) => {
    if (part === '*') return '[^]*';
    if (part === '?') return '[^]';
    return part.length > 1 ? part.replace(/^\[!/, '[^') : part.replace(/[\\^$.|+(){}\]]/, '\\$&');
  });
  return new RegExp(`^${source}$`).test(text);
}

/** Modules that are loaded, by name, and how many use each: /proc/modules. None in a kernel without modules. */
export function loadedModules(): ReadonlyMap<string, number> {
  if (!existsSync('/proc/modules')) return new Map();
  const rows = readProcText('/proc/modules').trimEnd().split('\n');
  return new Map(rows.filter((row) => row !== '').map((row) => [row.split(' ')[0]!, Number(row.split(' ')[2])]));
}
