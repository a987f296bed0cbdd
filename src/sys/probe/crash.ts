/** What the capture of a crashed kernel needs, and what explains one. */
import { statSync } from 'node:fs';
import { type Answer, no, partly, yes } from './answer.ts';
import { allows, read } from './files.ts';
import { resources } from './iomem.ts';

/** The files of kexec under /sys: /sys/kernel/kexec_NAME, and /sys/kernel/kexec/NAME in newer kernels. */
function kexecFile(name: string): string | undefined {
  return read(`/sys/kernel/kexec/${name}`).text ?? read(`/sys/kernel/kexec_${name}`).text;
}

/** Memory that was set aside at boot for a capture kernel. */
export function crashKernel(): Answer {
  const size = kexecFile('crash_size');
  if (size === undefined) {
    return no('the kernel shows no kexec_crash_size', 'a kernel with CONFIG_CRASH_DUMP=y');
  }
  if (Number(size) === 0) {
    return no('0 bytes are reserved', 'put crashkernel=256M on the command line of the kernel and boot again');
  }
  const ranges = resources()
    .filter((resource) => resource.name === 'Crash kernel')
    .map(({ start, end }) => `0x${start.toString(16)}-0x${(end - 1).toString(16)}`);
  const where = ranges.length === 0 ? '' : ` at ${ranges.join(' and ')}`;
  const loaded = kexecFile('crash_loaded') === '1' ? 'a capture kernel is loaded' : 'no capture kernel is loaded';
  return yes(`${Math.round(Number(size) / 2 ** 20)} MiB are reserved${where}; ${loaded}`);
}

/** Types of the running kernel, with which dumps of it are read without debug symbols. */
export function btf(): Answer {
  const path = '/sys/kernel/btf/vmlinux';
  if (!allows(path, 'exist')) return no(`${path} does not exist`, 'a kernel with CONFIG_DEBUG_INFO_BTF=y');
  if (!allows(path, 'read')) return partly(`${path} exists but may not be read`, 'run as root');
  return yes(`${path}, ${Math.round(statSync(path).size / 1024)} KiB`);
}

/** Where and how long the note is that describes this kernel to whoever reads its dump. */
export function vmcoreinfo(): Answer {
  const path = '/sys/kernel/vmcoreinfo';
  const { text, error } = read(path);
  // Both in hexadecimal, only the first with 0x: vmcoreinfo_show() of kernel/ksysfs.c.
  const [, address, size] = /^0x0*([0-9a-f]+) ([0-9a-f]+)$/.exec(text ?? '') ?? [];
  if (size !== undefined) return yes(`a note of ${Number.parseInt(size, 16)} bytes at 0x${address}`);
  return no(`${path}: ${error ?? text}`, 'a kernel with CONFIG_CRASH_DUMP=y or CONFIG_KEXEC=y');
}
