/**
 * Kernels to go to, with their roots and this project's sources, on a disk that every kernel in a guest can read: quicker than
 * copying them into one after the other.
 *
 *     NAME/vmlinuz, NAME/release, NAME/modules   a kernel, and an initramfs with its modules where it has any
 *     root                                       the initramfs with the lab's root, the same for all
 *     tideover/src, tideover/test/lab/guest      programs for guests, with the library that they use
 */
import { copyFileSync, cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../../lab/command.ts';
import type { OwnDisk } from '../../lab/disk.ts';
import { type KernelName, kernel } from '../../lab/kernels.ts';
import { modulesArchive } from '../../lab/modules-archive.ts';
import { requirePackages } from '../../lab/packages.ts';
import { commonArchive } from '../../lab/root.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import type { Vm } from '../../lab/vm.ts';
import { isElf } from '../../src/mem/elf.ts';

const project = new URL('../..', import.meta.url).pathname;
const SERIAL = 'next-kernels';
/** Where the disk is mounted in a guest. */
export const KERNELS = '/tmp/kernels';

/**
 * @param files further files for the disk, by their names there; those that are ELF may be executed
 * @param spareModules modules that are there in each kernel and not loaded
 * @param modules modules that each kernel loads beside those that every guest needs
 */
export async function kernelsDisk(
  names: readonly KernelName[],
  files: Readonly<Record<string, Uint8Array>> = {},
  spareModules: readonly string[] = [],
  modules: readonly string[] = [],
): Promise<OwnDisk> {
  await requirePackages('squashfs');
  const folder = temporaryFolder();
  const [stage, path] = [join(folder, 'stage'), join(folder, 'disk')];
  mkdirSync(stage);
  for (const name of names) {
    const found = await kernel(name);
    mkdirSync(join(stage, name));
    copyFileSync(found.vmlinuz, join(stage, name, 'vmlinuz'));
    writeFileSync(join(stage, name, 'release'), found.release);
    const archive = await modulesArchive(found, modules, spareModules);
    if (archive.length > 0) writeFileSync(join(stage, name, 'modules'), archive);
  }
  writeFileSync(join(stage, 'root'), await commonArchive());
  for (const source of ['src', 'test/lab/guest', 'package.json']) {
    cpSync(join(project, source), join(stage, 'tideover', source), { recursive: true });
  }
  copyFileSync(join(project, 'dist/koffi.node'), join(stage, 'tideover/src/koffi.node'));
  for (const [name, bytes] of Object.entries(files)) {
    writeFileSync(join(stage, name), bytes, { mode: isElf(bytes) ? 0o755 : 0o644 });
  }
  // The large files are compressed already.
  const plain = ['-noI', '-noD', '-noF', '-noX'];
  await run(['mksquashfs', stage, path, '-noappend', '-no-progress', '-quiet', '-all-root', ...plain]);
  removeTemporary(stage);
  return { path, format: 'raw', readOnly: true, serial: SERIAL, remove: () => removeTemporary(folder) };
}

const device = `for d in /sys/block/vd*; do [ "$(cat $d/serial)" = ${SERIAL} ] && echo /dev/\${d##*/}; done`;
/** A shell script that mounts the disk in the kernel that runs now. */
export const MOUNT_KERNELS = `mkdir -p ${KERNELS}; grep -q ' ${KERNELS} ' /proc/mounts || mount -t squashfs -o ro $(${device}) ${KERNELS}`;

export async function mountKernels(vm: Vm): Promise<void> {
  await vm.check(MOUNT_KERNELS);
}

/** Files of a kernel in the guest, and its release. */
export async function nextKernel(vm: Vm, name: KernelName) {
  await mountKernels(vm);
  const folder = `${KERNELS}/${name}`;
  const { release, modules } = await kernel(name);
  const initrds = [`${KERNELS}/root`, ...(modules === undefined ? [] : [`${folder}/modules`])];
  return {
    vmlinuz: `${folder}/vmlinuz`,
    initrds,
    initrdOptions: initrds.map((path) => `--initrd ${path}`).join(' '),
    release,
  };
}
