/** The running kernel's configuration, where the machine keeps it; and which drivers it has, in it or as modules. */
import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { gunzipSync } from 'node:zlib';
import { type Answer, no, yes } from './answer.ts';
import { allows, read } from './files.ts';

export interface KernelConfig {
  readonly path: string;
  /** "y", "m", a number or a text; undefined where it is not set. */
  get(option: string): string | undefined;
}

/** @returns undefined where there is no configuration, or none that may be read */
export function kernelConfig(): KernelConfig | undefined {
  cached ??= { config: findConfig() };
  return cached.config;
}

let cached: { config: KernelConfig | undefined } | undefined;

function configPaths(kernel: string): string[] {
  return [`/boot/config-${kernel}`, `/lib/modules/${kernel}/config`, `/lib/modules/${kernel}/build/.config`];
}

function findConfig(): KernelConfig | undefined {
  const path = ['/proc/config.gz', ...configPaths(release())].find((each) => allows(each, 'read'));
  return path === undefined ? undefined : readConfig(path);
}

function readConfig(path: string): KernelConfig {
  const bytes = readFileSync(path);
  const text = (path.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString('latin1');
  const options = new Map([...text.matchAll(/^CONFIG_(\w+)=(.*)$/gm)].map((match) => [match[1]!, match[2]!] as const));
  return { path, get: (option) => options.get(option) };
}

/** Configuration of another kernel that is installed. @param kernel its release @returns undefined where there is none */
export function configOf(kernel: string): KernelConfig | undefined {
  const path = configPaths(kernel).find((each) => allows(each, 'read'));
  return path === undefined ? undefined : readConfig(path);
}

export function kernelConfigSource(): Answer {
  const config = kernelConfig();
  if (config) return yes(config.path);
  return no(
    `none of these can be read: /proc/config.gz, ${configPaths(release()).join(', ')}`,
    'install the file that comes with the kernel, or use a kernel with CONFIG_IKCONFIG_PROC=y',
  );
}

/** A driver's place: in the kernel, loaded, to be loaded; undefined where it is none of these. */
export function driver(name: string): 'built in' | 'loaded' | 'module' | undefined {
  const folder = `/lib/modules/${release()}`;
  if (moduleNames(`${folder}/modules.builtin`).has(name)) return 'built in';
  // Built-in code appears in /sys/module too where it has parameters, but only a module has a reference count.
  if (allows(`/sys/module/${name}/refcnt`, 'exist')) return 'loaded';
  if (allows(`/sys/module/${name}`, 'exist')) return 'built in';
  if (moduleNames(`${folder}/modules.dep`).has(name)) return 'module';
  return undefined;
}

/** Names of the modules that begin the lines of modules.dep or modules.builtin (depmod(8)), with _ for -. */
export function moduleNames(path: string): Set<string> {
  let names = moduleLists.get(path);
  if (!names) {
    const text = read(path).text ?? '';
    names = new Set([...text.matchAll(/^[^:\n]*?([^/:\n]+)\.ko\b/gm)].map((match) => match[1]!.replaceAll('-', '_')));
    moduleLists.set(path, names);
  }
  return names;
}

const moduleLists = new Map<string, Set<string>>();
