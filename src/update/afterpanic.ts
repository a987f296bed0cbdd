/** From a capture kernel, when all is saved, to a normal one: on the machine's own memory map, with preserved memory left alone. */

import { machineOf, type NextKernel, readOnDisk } from '../capture/next.ts';
import { isBzImage, readBzImage } from '../kexec/bootimage.ts';
import { load, start } from '../kexec/load.ts';
import { planLoad } from '../kexec/plan.ts';
import { readVmlinux } from '../kexec/vmlinux.ts';
import { preservedFor, withLocation } from './preserved.ts';

/** Comes back only by an error. @throws UnsupportedError, FormatError, SyscallError as the parts */
export async function bootNext(next: NextKernel): Promise<void> {
  const bytes = await readOnDisk(next.kernel);
  const image = isBzImage(bytes) ? readBzImage(bytes, next.kernel.name) : readVmlinux(bytes, next.kernel.name);
  const initrd = next.initrd === undefined ? new Uint8Array(0) : await readOnDisk(next.initrd);
  const preserved = preservedFor(undefined, { release: image.version.split(' ')[0]!, commandLine: next.commandLine });
  const commandLine = withLocation(next.commandLine, preserved.parameters);
  load(planLoad({ image, initrd, commandLine, reserve: preserved.reserve }, machineOf(next)));
  start();
}
