/** The machine itself. These rows inform; no job depends on them alone. */
import { cpus, machine, release, totalmem } from 'node:os';
import { type Answer, no, unknown, yes } from './answer.ts';
import { allows, list, read } from './files.ts';

export function processors(): Answer {
  const online = read('/sys/devices/system/cpu/online').text;
  const model = cpus()[0]?.model.trim() ?? 'an unnamed processor';
  const flags = new Set(/^flags\s*:\s*(.*)$/m.exec(read('/proc/cpuinfo').text ?? '')?.[1]?.split(' '));
  if (flags.size === 0) return unknown('/proc/cpuinfo shows no flags', 'mount /proc');
  const interesting = ['avx2', 'avx512f', 'amx_tile', 'sha_ni', 'la57', 'pdpe1gb', 'user_shstk', 'hypervisor'];
  const present = interesting.filter((flag) => flags.has(flag));
  return yes(
    `${cpus().length} online (${online ?? '?'}), ${model}; ${present.join(' ') || 'none of the newer features'}`,
  );
}

export function memory(): Answer {
  const available = /^MemAvailable:\s*(\d+) kB/m.exec(read('/proc/meminfo').text ?? '')?.[1];
  const block = read('/sys/devices/system/memory/block_size_bytes').text;
  const parts = [`${mebibytes(totalmem())} MiB`];
  if (available !== undefined) parts.push(`${mebibytes(Number(available) * 1024)} MiB available`);
  parts.push(
    block === undefined ? 'no memory hotplug' : `memory blocks of ${mebibytes(Number.parseInt(block, 16))} MiB`,
  );
  parts.push(`${list('/sys/devices/system/node').filter((name) => /^node\d+$/.test(name)).length || 1} NUMA node(s)`);
  return yes(parts.join(', '));
}

function mebibytes(bytes: number): number {
  return Math.round(bytes / 2 ** 20);
}

/** sd_booted(3): the folder exists where systemd is the init. */
export function systemd(): Answer {
  if (allows('/run/systemd/system', 'exist')) return yes('/run/systemd/system exists');
  return no('/run/systemd/system does not exist', 'none needed: a kernel change then syncs and remounts by itself');
}

/** What builds the distribution's initramfs, into which hooks go. */
export function initramfsTools(): Answer {
  const tools = ['update-initramfs', 'dracut', 'mkinitcpio', 'booster'];
  const folders = new Set([...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/usr/bin', '/sbin', '/bin']);
  for (const tool of tools) {
    for (const folder of folders) if (folder && allows(`${folder}/${tool}`, 'exist')) return yes(`${folder}/${tool}`);
  }
  return no(
    `none of ${tools.join(', ')} is installed`,
    'install initramfs-tools or dracut to resume from the initramfs',
  );
}

export function kernel(): { release: string; machine: string; cmdline: string | undefined } {
  return { release: release(), machine: machine(), cmdline: read('/proc/cmdline').text };
}
