/**
 * The lab's kernels by name, made once and kept in the cache:
 *
 *   <cache>/kernels/KEY/       vmlinuz, config, ..., and kernel.json
 *   <cache>/kernels/NAME.json  what was taken in place of a lock entry that Debian has dropped
 *
 * Run as a program it prepares the kernels that are named, or all: `node lab/kernels.ts [--newest] [NAME...]`.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual, parseArgs } from 'node:util';
import { TideoverError } from '../src/errors.ts';
import type { Deb } from './apt.ts';
import { cacheDirectory, exclusively, requireRoom } from './cache.ts';
import { say } from './command.ts';
import { newestImage, newestSource, stillOffered, unpackImage } from './debian-kernels.ts';
import { buildJump, jumpKey } from './jump/build.ts';
import { requirePackages } from './packages.ts';

/** Debian's stock kernels of four series, and one built here that can jump (lab/jump/config). */
export const kernelNames = ['6.1', '6.12', '6.18', '7.2', 'jump'] as const;

export type KernelName = (typeof kernelNames)[number];

/** A kernel on the disk. Paths are absolute; nothing there may be changed. */
export interface Kernel {
  readonly name: KernelName;
  /** uname -r */
  readonly release: string;
  /** Debian package it comes from: the image, or for `jump` the source. */
  readonly package: string;
  readonly version: string;
  /** bzImage */
  readonly vmlinuz: string;
  readonly config: string;
  /** The directory lib/modules/RELEASE, with depmod's files; modules as shipped (.ko or .ko.xz). `jump` has none. */
  readonly modules: string | undefined;
  /** `jump` only: Debian ships a placeholder. */
  readonly systemMap: string | undefined;
  /** `jump` only: the ELF kernel with DWARF, compressed by zstd. */
  readonly vmlinux: string | undefined;
}

/** Packages by kernel: the one that names it first. */
export type Lock = Partial<Record<KernelName, readonly Deb[]>>;

/** What kernel.json records. */
interface Prepared {
  readonly release: string;
  readonly debs: readonly Deb[];
}

const lockFile = join(import.meta.dirname, 'kernels.lock.json');

/** The series whose source `jump` is built from. */
const jumpSeries = '7.2';

/** A stock kernel's package beside what is unpacked from it. */
const roomForImage = 1.5e9;

/**
 * The kernel of this name, ready to boot; at the first call on a machine it is downloaded or built.
 * Without a network it is there if it was there before.
 * @throws TideoverError when it cannot be had
 */
export async function kernel(name: KernelName): Promise<Kernel> {
  return fromCache(name, readLock()[name]) ?? exclusively(`kernel-${name}`, (scratch) => obtain(name, scratch));
}

async function obtain(name: KernelName, scratch: string): Promise<Kernel> {
  // Another run may have prepared it, or recorded another one, while this one waited for its turn.
  const locked = readLock()[name];
  const meanwhile = fromCache(name, locked);
  if (meanwhile !== undefined) return meanwhile;
  if (locked !== undefined && (await stillOffered(locked))) return prepare(name, locked, scratch);
  const taken = await newest(name);
  if (locked !== undefined) {
    say(`kernel ${name}: Debian no longer has ${inWords(locked)}: taking ${inWords(taken)} (--newest records it)`);
  }
  const made = cached(name, taken) ?? (await prepare(name, taken, scratch));
  place(scratch, substituteFile(name), { locked, taken } satisfies Substitute);
  return made;
}

/** The newest kernel of this name, whatever the lock file says; with its packages, to be recorded there. */
async function newestKernel(name: KernelName): Promise<readonly [Kernel, readonly Deb[]]> {
  return exclusively(`kernel-${name}`, async (scratch) => {
    const debs = await newest(name);
    return [cached(name, debs) ?? (await prepare(name, debs, scratch)), debs];
  });
}

/** Says when the series asked for is gone. */
async function newest(name: KernelName): Promise<Deb[]> {
  const series = name === 'jump' ? jumpSeries : name;
  const debs = await (name === 'jump' ? newestSource(series) : newestImage(series));
  if (!debs[0]!.version.startsWith(`${series}.`)) {
    say(`kernel ${name}: Debian has no kernel of series ${series} any more: taking ${inWords(debs)}`);
  }
  return debs;
}

async function prepare(name: KernelName, debs: readonly Deb[], scratch: string): Promise<Kernel> {
  requireRoom(roomForImage, `unpacking kernel ${name}`);
  await requirePackages('kernels');
  const [made, place] = [join(scratch, 'kernel'), directoryOf(name, debs)];
  mkdirSync(made);
  const release = await (name === 'jump' ? buildJump(debs[0]!, made) : unpackImage(debs, made));
  writeJson(join(made, 'kernel.json'), { release, debs } satisfies Prepared);
  renameSync(made, place);
  say(`kernel ${name}: ${release} is ready`);
  return cached(name, debs)!;
}

/** What a dropped lock entry was replaced by; valid as long as the lock file has that entry. */
interface Substitute {
  readonly locked: readonly Deb[] | undefined;
  readonly taken: readonly Deb[];
}

function fromCache(name: KernelName, locked: readonly Deb[] | undefined): Kernel | undefined {
  const kernel = locked === undefined ? undefined : cached(name, locked);
  if (kernel !== undefined || !existsSync(substituteFile(name))) return kernel;
  const substitute = readJson(substituteFile(name)) as Substitute;
  return isDeepStrictEqual(substitute.locked, locked) ? cached(name, substitute.taken) : undefined;
}

function cached(name: KernelName, debs: readonly Deb[]): Kernel | undefined {
  const directory = directoryOf(name, debs);
  if (!existsSync(directory)) return undefined;
  const { release } = readJson(join(directory, 'kernel.json')) as Prepared;
  const ifThere = (...path: string[]) => [join(directory, ...path)].find((file) => existsSync(file));
  return {
    name,
    release,
    package: debs[0]!.package,
    version: debs[0]!.version,
    vmlinuz: join(directory, 'vmlinuz'),
    config: join(directory, 'config'),
    modules: ifThere('lib', 'modules', release),
    systemMap: ifThere('System.map'),
    vmlinux: ifThere('vmlinux.zst'),
  };
}

function directoryOf(name: KernelName, debs: readonly Deb[]): string {
  const [deb] = debs as [Deb];
  const key = name === 'jump' ? `jump-${jumpKey(deb)}` : `${deb.package}_${deb.version}`;
  return join(kernelsDirectory(), key);
}

function substituteFile(name: KernelName): string {
  return join(kernelsDirectory(), `${name}.json`);
}

function kernelsDirectory(): string {
  const directory = join(cacheDirectory(), 'kernels');
  mkdirSync(directory, { recursive: true });
  return directory;
}

function inWords(debs: readonly Deb[]): string {
  const [{ package: name, version, suite }] = debs as [Deb];
  return `${name} ${version} (${suite})`;
}

function readLock(): Lock {
  return existsSync(lockFile) ? (readJson(lockFile) as Lock) : {};
}

function readJson(file: string): unknown {
  return JSON.parse(readFileSync(file, 'utf8'));
}

function writeJson(file: string, value: unknown): void {
  writeFileSync(file, `${JSON.stringify(value, null, 2)}\n`);
}

function place(scratch: string, file: string, value: unknown): void {
  const made = join(scratch, 'json');
  writeJson(made, value);
  renameSync(made, file);
}

/** `node lab/kernels.ts [--newest] [NAME...]`; --newest takes what Debian has now and writes the lock file. */
async function main(args: readonly string[]): Promise<number> {
  const usage = `usage: node lab/kernels.ts [--newest] [${kernelNames.join('|')}]...\n`;
  let parsed: { values: { newest?: boolean }; positionals: string[] };
  try {
    parsed = parseArgs({ args: [...args], allowPositionals: true, options: { newest: { type: 'boolean' } } });
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${usage}`);
    return 2;
  }
  const names = parsed.positionals.length === 0 ? kernelNames : parsed.positionals;
  const unknown = names.find((name) => !(kernelNames as readonly string[]).includes(name));
  if (unknown !== undefined) {
    process.stderr.write(`no kernel is named ${unknown}\n${usage}`);
    return 2;
  }
  const lock = { ...readLock() };
  for (const name of names as readonly KernelName[]) {
    let ready: Kernel;
    if (parsed.values.newest === true) {
      const [made, debs] = await newestKernel(name);
      ready = made;
      lock[name] = debs;
      writeJson(lockFile, lock);
    } else {
      ready = await kernel(name);
    }
    const row = [name.padEnd(5), ready.release.padEnd(24), ready.version.padEnd(20), ready.vmlinuz];
    process.stdout.write(`${row.join(' ')}\n`);
  }
  return 0;
}

if (import.meta.main) {
  try {
    process.exitCode = await main(process.argv.slice(2));
  } catch (error) {
    if (!(error instanceof TideoverError)) throw error;
    process.stderr.write(`lab: ${error.message}\n`);
    process.exitCode = 1;
  }
}
