/**
 * What a kernel of ours starts with where there is no system for it: the capture kernel after a panic, the kernels of a
 * hibernation. A small initramfs, and Node and tideover in a squashfs (system.ts):
 *
 *     initramfs   /init        a batch of system calls (src/asm/program.ts): no shell, no library
 *                 /modules     what this kernel needs, not compressed
 *                 /etc ...     files of the caller
 *                 /usr, ...    links into /system
 *     squashfs    /system      in memory of its own as /dev/pmem0, and mounted there: it takes no other memory.
 *                              Where the kernel has no driver for that: in the initramfs, mounted by a loop device
 *
 * When the program ends, so does /init, and the kernel panics; with panic= on its command line it starts the machine again.
 */
import { AT_FDCWD, O_RDWR } from '../abi/fcntl.ts';
import { LOOP_CTL_ADD, LOOP_SET_FD } from '../abi/loop.ts';
import { MS_RDONLY } from '../abi/mount.ts';
import { NR } from '../abi/unistd.ts';
import { batchProgram, type Call } from '../asm/program.ts';
import { UnsupportedError } from '../errors.ts';
import { type KernelModules, loadOrderOf, moduleBytes, moduleName, readKernelModules } from '../sys/modules.ts';
import { mapFile } from '../sys/region.ts';
import { type CpioEntry, cpio } from './cpio.ts';
import { BUNDLE, NODE } from './system.ts';

export interface EnvironmentRequest {
  /** Of the kernel: `uname -r`. */
  readonly release: string;
  /** Path of the squashfs, from systemImage(). */
  readonly system: string;
  /** Modules that there must be, by their names: `virtio_blk`. */
  readonly modules: readonly string[];
  /** What is loaded too where modules say that they are for it: `fs-ext4`, a modalias. */
  readonly aliases?: readonly string[];
  /** Its program; the whole command line where not given. */
  readonly program?: string;
  /** Words for tideover: `['crash', 'save']`. */
  readonly args: readonly string[];
  /** Put into the initramfs, with the folders that they lie in. */
  readonly files?: readonly CpioEntry[];
}

export interface Environment {
  readonly initrd: Uint8Array;
  /** For LoadRequest.pram. */
  readonly pram: Uint8Array | undefined;
  /** Paths of the modules, in their order. */
  readonly modules: readonly string[];
}

/** Of the youngest part of its heap, Node keeps 48 MiB otherwise, for each thread. Processes that it starts get them too. */
const NODE_OPTIONS = ['--max-semi-space-size=1'];
const FOLDERS = ['dev', 'etc', 'mnt', 'modules', 'proc', 'root', 'run', 'sys', 'system', 'tmp', 'var'];
const LINKS = {
  usr: 'system/usr',
  opt: 'system/opt',
  bin: 'usr/bin',
  sbin: 'usr/bin',
  lib: 'usr/lib',
  lib64: 'usr/lib64',
};
const IN_PLACE = ['nd_e820', 'nd_pmem', 'squashfs'];
const BY_LOOP = ['loop', 'squashfs'];

/** @throws UnsupportedError that names a module which the kernel does not have */
export function environment(request: EnvironmentRequest): Environment {
  const modules = readKernelModules(request.release);
  const system = mapFile(request.system);
  const inPlace = modules === undefined || has(modules, IN_PLACE);
  const order = modules === undefined ? [] : orderOf(modules, inPlace ? IN_PLACE : BY_LOOP, request);
  const folder = (name: string): CpioEntry => ({ name, mode: 0o40755 });
  const link = ([name, data]: [string, string]): CpioEntry => ({ name, mode: 0o120777, data });
  const paths = order.map((path) => ({ path, at: `modules/${moduleName(path)}.ko` }));
  const init = initProgram(
    paths.map(({ at }) => `/${at}`),
    inPlace,
    request,
  );
  const initrd = cpio([
    ...FOLDERS.map(folder),
    ...Object.entries(LINKS).map(link),
    { name: 'dev/console', mode: 0o20600, device: [5, 1] },
    { name: 'etc/passwd', mode: 0o644, data: 'root:x:0:0:root:/root:/bin/sh\n' },
    { name: 'init', mode: 0o755, data: init },
    ...paths.map(({ path, at }) => ({ name: at, mode: 0o644, data: moduleBytes(path, modules!) })),
    ...(inPlace ? [] : [{ name: SYSTEM_FILE.slice(1), mode: 0o644, data: system }]),
    ...(request.files ?? []),
  ]);
  return { initrd, pram: inPlace ? system : undefined, modules: order };
}

const SYSTEM_FILE = '/system.sqfs';

function has({ dependencies, builtin }: KernelModules, names: readonly string[]): boolean {
  const known = new Set([...builtin, ...[...dependencies.keys()].map(moduleName)]);
  return names.every((name) => known.has(name));
}

function orderOf(
  modules: KernelModules,
  own: readonly string[],
  { release, modules: wanted, aliases = [] }: EnvironmentRequest,
) {
  try {
    return loadOrderOf([...own, ...wanted], aliases, modules);
  } catch (error) {
    if (!(error instanceof UnsupportedError)) throw error;
    throw new UnsupportedError({ what: `${error.what} of kernel ${release}`, why: error.why, remedy: error.remedy });
  }
}

/** Modules that fail to load are passed over: there may be no such device, and what must be there is missed later. */
function initProgram(modules: readonly string[], inPlace: boolean, request: EnvironmentRequest): Uint8Array {
  const mount = (source: string, target: string, type: string, flags = 0): Call => ({
    nr: NR.mount,
    args: [source, target, type, flags, 0],
    orSay: `tideover: cannot mount ${source} at ${target}\n`,
  });
  const open = (path: string, orSay?: string): Call => ({
    nr: NR.openat,
    args: [AT_FDCWD, path, path === WAIT_PROBE ? 0 : O_RDWR],
    ...(orSay !== undefined && { orSay }),
  });
  const load = (path: string): Call[] => {
    const file: Call = { nr: NR.openat, args: [AT_FDCWD, path, 0] };
    const fd = { resultOf: file };
    return [
      file,
      { nr: NR.finit_module, args: [fd, '', 0] },
      { nr: NR.close, args: [fd] },
      { nr: NR.unlink, args: [path] },
    ];
  };
  const [control, probe] = [open('/dev/loop-control'), open(WAIT_PROBE)];
  const loop = open('/dev/loop0', 'tideover: there is no loop device\n');
  const file = open(SYSTEM_FILE, `tideover: there is no ${SYSTEM_FILE}\n`);
  const system = inPlace
    ? [
        // Devices of libnvdimm come by and by; reading this waits for them (drivers/nvdimm/bus.c).
        probe,
        { nr: NR.read, args: [{ resultOf: probe }, new Uint8Array(64), 64] },
        mount('/dev/pmem0', '/system', 'squashfs', MS_RDONLY),
      ]
    : [
        control,
        { nr: NR.ioctl, args: [{ resultOf: control }, LOOP_CTL_ADD, 0] },
        loop,
        file,
        { nr: NR.ioctl, args: [{ resultOf: loop }, LOOP_SET_FD, { resultOf: file }] },
        mount('/dev/loop0', '/system', 'squashfs', MS_RDONLY),
      ];
  return batchProgram([
    mount('proc', '/proc', 'proc'),
    mount('sysfs', '/sys', 'sysfs'),
    mount('devtmpfs', '/dev', 'devtmpfs'),
    ...modules.flatMap(load),
    ...system,
    {
      nr: NR.execve,
      args: [
        NODE,
        ['node', ...NODE_OPTIONS, request.program ?? BUNDLE, ...request.args],
        ['PATH=/usr/bin', 'HOME=/root', 'TERM=linux', 'MALLOC_ARENA_MAX=1'],
      ],
      orSay: `tideover: cannot start ${NODE}\n`,
    },
  ]);
}

const WAIT_PROBE = '/sys/bus/nd/devices/ndbus0/wait_probe';
