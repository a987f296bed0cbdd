/**
 * Arming: the capture kernel with all that it needs, loaded for a panic. Everything that can be refused is refused before
 * something is loaded.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, release as runningRelease } from 'node:os';
import { dirname } from 'node:path';
import { UnsupportedError } from '../errors.ts';
import { hardwareParameters, OWN_MEMORY_ONLY, parameters } from '../kexec/commandline.ts';
import type { CpioEntry } from '../kexec/cpio.ts';
import { environment } from '../kexec/environment.ts';
import { readKernel } from '../kexec/kernelfile.ts';
import { type KernelFiles, loadCaptureKernel } from '../kexec/kexec.ts';
import { requireKexecLoad, status, unload } from '../kexec/load.ts';
import { CAPTURE_BUNDLE, systemImage } from '../kexec/system.ts';
import { readProcText } from '../sys/proc.ts';
import { type FoundPlace, findPlace, type Place } from '../target/place.ts';
import { findNext, type NextKernel } from './next.ts';
import type { CrashSettings } from './settings.ts';
import { ZRAM } from './swap.ts';

/** What the capture kernel is told, as JSON in its initramfs. */
export interface Orders extends Pick<CrashSettings, 'level' | 'compress' | 'finalAction' | 'failureAction'> {
  readonly host: string;
  readonly places: readonly Place[];
  /** For the action `boot`. */
  readonly next: NextKernel | undefined;
}

export const ORDERS_FILE = '/etc/tideover/crash.json';
const STATE_FILE = '/run/tideover/crash.json';

export interface Armed {
  readonly kernel: string;
  readonly release: string;
  readonly targets: readonly string[];
  /** Bytes: what crashkernel= has reserved, and what of it is left for the capture kernel to run in. */
  readonly reserved: number;
  readonly free: number;
  /** What the user should know of the targets. */
  readonly notes: readonly string[];
}

/**
 * Of what is left when all pieces lie in their place: for the kernel's own structures, Node, and the dump's pages on their
 * way. Measured: see docs/crash.md.
 */
const RUNNING = 48 * 2 ** 20;

/** @param append further words for the capture kernel's command line @throws UnsupportedError before anything is loaded */
export async function arm(settings: CrashSettings, append: readonly string[] = []): Promise<Armed> {
  requireKexecLoad();
  const reserved = status().crashSize;
  if (reserved === 0) {
    throw new UnsupportedError({
      what: 'arming a capture kernel',
      why: 'no memory is reserved for one',
      remedy: 'put crashkernel=192M on the command line of this kernel and start it again',
    });
  }
  const kernel = settings.kernel ?? installedKernel();
  const image = readKernel(kernel);
  const release = image.version.split(' ')[0]!;
  const found = [];
  const wanted = { purpose: 'saving a crash dump to', sshKey: settings.sshKey };
  for (const target of settings.targets) found.push(await findPlace(target, wanted));
  const places = found.map(({ place }) => place);
  const isBoot = [settings.finalAction, settings.failureAction].includes('boot');
  const following = isBoot ? findNext(kernel, settings.nextInitrd ?? installedInitrd(release)) : undefined;
  found.push(...(following?.found ?? []));
  const orders: Orders = {
    host: hostname(),
    places,
    level: settings.level,
    compress: settings.compress,
    finalAction: settings.finalAction,
    failureAction: settings.failureAction,
    next: following?.next,
  };
  const made = environment({
    release,
    system: systemImage({ programs: [...shellFor(orders), ...new Set(found.flatMap(({ programs }) => programs))] }),
    modules: [...new Set([...found.flatMap(({ modules }) => modules), ...settings.extraModules])],
    aliases: [...new Set(found.flatMap(({ aliases }) => aliases)), ZRAM],
    program: CAPTURE_BUNDLE,
    args: ['crash', 'save'],
    files: filesFor(orders, found),
  });
  const free = requireRoom(reserved, image.size + 2 * made.initrd.length + (made.pram?.length ?? 0));
  const files: KernelFiles = {
    kernel,
    initrds: [],
    commandLine: captureCommandLine(readProcText('/proc/cmdline').trim(), [...append, ...parameters(settings.append)]),
    environment: made,
  };
  loadCaptureKernel(files);
  const notes = found.flatMap(({ note }) => note ?? []);
  const armed: Armed = { kernel, release, targets: places.map(({ text }) => text), reserved, free, notes };
  mkdirSync(dirname(STATE_FILE), { recursive: true });
  writeFileSync(STATE_FILE, JSON.stringify(armed));
  return armed;
}

/**
 * @param reserved bytes of crashkernel= @param used by kernel, initramfs and system
 * @returns bytes that are left to run in
 * @throws UnsupportedError that says how much is missing
 */
export function requireRoom(reserved: number, used: number): number {
  const free = reserved - used;
  if (free >= RUNNING) return free;
  const mib = (bytes: number) => `${Math.ceil(bytes / 2 ** 20)} MiB`;
  throw new UnsupportedError({
    what: 'arming a capture kernel',
    why: `crashkernel= has reserved ${mib(reserved)}; ${mib(used)} are for kernel and system and ${mib(RUNNING)} to run in: ${mib(RUNNING - free)} are missing`,
    remedy: `boot with crashkernel=${Math.ceil((used + RUNNING) / 2 ** 24) * 16}M`,
  });
}

export function disarm(): void {
  requireKexecLoad();
  unload('crash');
  rmSync(STATE_FILE, { force: true });
}

/** What arm() has loaded; undefined where a capture kernel is loaded that it does not know, or none. */
export function armedWith(): Armed | undefined {
  if (!status().crashLoaded || !existsSync(STATE_FILE)) return undefined;
  return JSON.parse(readFileSync(STATE_FILE, 'utf8')) as Armed;
}

/** The running kernel's file. @throws UnsupportedError where it is in none of the usual places */
export function installedKernel(): string {
  const release = runningRelease();
  const places = [`/boot/vmlinuz-${release}`, `/lib/modules/${release}/vmlinuz`, `/boot/${release}/vmlinuz`];
  const found = places.find((path) => existsSync(path));
  if (found !== undefined) return found;
  throw new UnsupportedError({
    what: 'arming a capture kernel',
    why: `there is no ${places.join(', no ')}`,
    remedy: 'name a kernel with --kernel, or `kernel FILE` in crash.conf',
  });
}

export function installedInitrd(release: string): string | undefined {
  return [`/boot/initrd.img-${release}`, `/boot/initramfs-${release}.img`].find((path) => existsSync(path));
}

/** Small, on one processor, and starting again when all fails. */
const OWN = 'nr_cpus=1 irqpoll reset_devices numa=off cgroup_disable=memory transparent_hugepage=never panic=10';

/** @param running the running kernel's command line: consoles and what its hardware needs */
export function captureCommandLine(running: string, append: readonly string[]): string {
  return [...hardwareParameters(running), OWN, OWN_MEMORY_ONLY, ...append].join(' ');
}

const SHELLS = ['/bin/busybox', '/bin/sh'];

function shellFor({ finalAction, failureAction }: Orders): string[] {
  const isShell = [finalAction, failureAction].includes('shell');
  return isShell ? SHELLS.filter((path) => existsSync(path)).slice(0, 1) : [];
}

/** The orders, and what the places need. One that several of them need is there once. */
function filesFor(orders: Orders, found: readonly FoundPlace[]): CpioEntry[] {
  const own: CpioEntry[] = [
    { name: 'etc/tideover', mode: 0o40700 },
    { name: ORDERS_FILE.slice(1), mode: 0o600, data: JSON.stringify(orders) },
  ];
  const all = [...own, ...found.flatMap(({ files }) => files)];
  return [...new Map(all.map((entry) => [entry.name, entry])).values()];
}
