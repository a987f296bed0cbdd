/** Memory that survives a kernel: how the next kernel can get at ranges that are kept from it. */
import { closeSync, openSync, readSync } from 'node:fs';
import { type Answer, no, partly, unknown, yes } from './answer.ts';
import { driver, kernelConfig } from './config.ts';
import { allows, codeOf, list, read } from './files.ts';
import { resources } from './iomem.ts';

/** Whether /dev/mem opens, and whether it refuses ordinary memory. Opened for reading only; 8 bytes are asked for. */
export function devMem(): Answer {
  if (!allows('/dev/mem', 'exist')) {
    return no('/dev/mem does not exist', 'a kernel with CONFIG_DEVMEM=y (the pmem drivers serve as well)');
  }
  let fd: number;
  try {
    fd = openSync('/dev/mem', 'r');
  } catch (error) {
    const remedy = 'run as root with CAP_SYS_RAWIO, without kernel lockdown';
    return no(`opening /dev/mem: ${codeOf(error)}`, remedy);
  }
  try {
    const page = systemRam();
    if (page === undefined) return yes('/dev/mem opens; /proc/iomem does not show where System RAM is');
    const at = `the page at 0x${page.toString(16)} of System RAM`;
    try {
      readSync(fd, Buffer.alloc(8), 0, 8, page);
      return yes(`/dev/mem opens, and ${at} can be read through it: there is no STRICT_DEVMEM`);
    } catch (error) {
      return yes(`/dev/mem opens for reserved ranges; ${at} is refused with ${codeOf(error)} (STRICT_DEVMEM)`);
    }
  } finally {
    closeSync(fd);
  }
}

/** A page of System RAM above the first megabyte, which has rules of its own. */
function systemRam(): number | undefined {
  const start = resources().find(({ name, start }) => name === 'System RAM' && start >= 0x100000)?.start;
  return start === undefined ? undefined : Math.ceil(start / 4096) * 4096;
}

/** Ranges of e820 type 12 (PRAM) become /dev/pmemN. */
export function pmem(): Answer {
  return drivers(
    [
      ['nd_pmem', '/sys/bus/nd/drivers/nd_pmem'],
      ['nd_e820', '/sys/bus/platform/drivers/e820_pmem'],
    ],
    'a kernel with CONFIG_BLK_DEV_PMEM and CONFIG_X86_PMEM_LEGACY',
  );
}

/** Soft-reserved ranges become /dev/daxN.0, and kmem gives them back as ordinary memory. */
export function dax(): Answer {
  return drivers(
    [
      ['device_dax', '/sys/bus/dax/drivers/device_dax'],
      ['dax_hmem', '/sys/bus/platform/drivers/hmem'],
      ['kmem', '/sys/bus/dax/drivers/kmem'],
    ],
    'a kernel with CONFIG_DEV_DAX, CONFIG_DEV_DAX_HMEM and CONFIG_DEV_DAX_KMEM',
  );
}

function drivers(wanted: readonly (readonly [name: string, registered: string])[], remedy: string): Answer {
  const found = wanted.map(([name, registered]) => {
    return [name, driver(name) ?? (allows(registered, 'exist') ? 'built in' : undefined)] as const;
  });
  const reason = found.map(([name, place]) => `${name}: ${place ?? 'missing'}`).join(', ');
  const missing = found.filter(([, place]) => place === undefined).length;
  if (missing === 0) return yes(reason);
  return missing === found.length ? no(reason, remedy) : partly(reason, remedy);
}

/** The pool of 2 MiB pages, and whether there can be 1 GiB ones. */
export function hugePages(): Answer {
  const folder = '/sys/kernel/mm/hugepages';
  const pool = `${folder}/hugepages-2048kB`;
  if (!allows(pool, 'exist')) return no(`${pool} does not exist`, 'a kernel with CONFIG_HUGETLBFS=y');
  const count = (name: string) => Number(read(`${pool}/${name}`).text);
  const [total, free, overcommit] = [count('nr_hugepages'), count('free_hugepages'), count('nr_overcommit_hugepages')];
  const giant = list(folder).includes('hugepages-1048576kB') ? '1 GiB pages too' : 'no 1 GiB pages';
  const reason = `2 MiB pages: ${total} in the pool, ${free} free, ${overcommit} more on demand; ${giant}`;
  if (free + overcommit > 0) return yes(reason);
  if (allows(`${pool}/nr_overcommit_hugepages`, 'write')) {
    return yes(`${reason}; as many are taken from free memory as are needed`);
  }
  return partly(reason, 'run as root, or reserve them: sysctl vm.nr_hugepages=N');
}

/** Memory that the command line keeps from the kernel. memmap=SIZE$START and SIZE!START: Documentation/admin-guide/kernel-parameters.txt. */
export function bootRegion(): Answer {
  const { text, error } = read('/proc/cmdline');
  if (text === undefined) return unknown(`/proc/cmdline: ${error}`, 'mount /proc');
  const regions = [...text.matchAll(/(?:^|\s)memmap=(\S*[$!]\S*)/g)].map((match) => match[1]!);
  if (regions.length > 0) return yes(`the command line has memmap=${regions.join(' and memmap=')}`);
  return no('the command line has no memmap=SIZE$START', 'start with one, such as memmap=1G$4G (huge pages need none)');
}

/** Live Update Orchestrator: descriptors handed to the next kernel. Not opened: it has one owner, maybe systemd. */
export function liveUpdate(): Answer {
  if (allows('/dev/liveupdate', 'exist')) return yes('/dev/liveupdate exists');
  return no(
    '/dev/liveupdate does not exist',
    'a kernel with CONFIG_LIVEUPDATE=y, started with kho=on liveupdate=on (tideover does not need it)',
  );
}

/** Kexec HandOver: memory that a kernel hands to the one that kexec_file_load gives. */
export function kexecHandover(): Answer {
  const folder = '/sys/kernel/debug/kho';
  if (allows(`${folder}/out`, 'exist')) return yes(`${folder} exists`);
  const remedy = 'a kernel with CONFIG_KEXEC_HANDOVER=y, started with kho=on (tideover does not need it)';
  if (list('/sys/kernel/debug').length > 0) return no('debugfs has no kho/out', remedy);
  const config = kernelConfig();
  if (!config) return unknown('neither debugfs nor a kernel configuration tells', 'mount debugfs, and run as root');
  if (config.get('KEXEC_HANDOVER') !== 'y') return no(`${config.path}: CONFIG_KEXEC_HANDOVER is not set`, remedy);
  if (/\bkho=(on|1|y)\b/.test(read('/proc/cmdline').text ?? '')) {
    return yes('CONFIG_KEXEC_HANDOVER=y, and the kernel was started with kho=on');
  }
  return unknown('CONFIG_KEXEC_HANDOVER=y; whether it is on, debugfs would tell', 'mount debugfs, and run as root');
}
