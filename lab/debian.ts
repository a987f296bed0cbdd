/** The second kind of guest: Debian 12 with systemd on a disk, for services, initramfs hooks and comparisons. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { UnsupportedError } from '../src/errors.ts';
import { machineSources } from './apt-sources.ts';
import { type BootOptions, commandLine, started } from './boot.ts';
import { cacheDirectory, exclusively } from './cache.ts';
import { run, say } from './command.ts';
import { type Disk, overlayDisk } from './disk.ts';
import { type Kernel, kernel as kernelNamed } from './kernels.ts';
import { requirePackages } from './packages.ts';
import { guestRoot } from './root.ts';
import { Vm } from './vm.ts';

export interface DebianOptions extends BootOptions {
  /** Debian packages beyond a minimal system. Each set is an image of its own. */
  readonly packages?: readonly string[];
  /** A disk of an earlier guest to go on with, from debianDisk; otherwise a new one that ends with the guest. */
  readonly disk?: Disk;
}

const suite = 'bookworm';
const minimal = ['dbus', 'iproute2', 'kmod', 'procps', 'systemd-sysv', 'udev'];
/** Apparent size of the disk; only what is written takes room. */
const IMAGE_BYTES = 4 * 2 ** 30;
const BOOT_TIMEOUT_MS = 600_000;

const settled = 'systemctl is-system-running --wait; /lib/systemd/systemd-networkd-wait-online --timeout=60';

/** Files that make the minimal system a guest: network, names, and a shell on the console. */
const settings: Readonly<Record<string, string>> = {
  'etc/hostname': 'lab\n',
  'etc/hosts': '127.0.0.1 localhost lab\n',
  'etc/fstab': '/dev/vda / ext4 defaults 0 1\n',
  'etc/systemd/network/lab.network':
    '[Match]\nType=ether\n\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nLinkLocalAddressing=no\n',
  'etc/systemd/system/serial-getty@ttyS0.service.d/lab.conf':
    '[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --keep-baud 115200 %I $TERM\n',
};

/** Links to what the lab's initramfs leaves in /run. */
const links: Readonly<Record<string, string>> = {
  'usr/local/bin/node': '/run/lab/root/usr/bin/node',
  'usr/local/bin/tideover': '/run/lab/tideover/bin/tideover',
};

/** A disk with Debian and these packages, to be written to. Remove it after use. */
export async function debianDisk(packages: readonly string[] = []): ReturnType<typeof overlayDisk> {
  return overlayDisk({ path: await debianImage(packages), format: 'raw' });
}

/**
 * Boots Debian and returns when it is ready for commands. Without `disk` it has a new one, which is removed with
 * this process.
 */
export async function bootDebian(options: DebianOptions): Promise<Vm> {
  const kernel = typeof options.kernel === 'string' ? await kernelNamed(options.kernel) : options.kernel;
  const disk = options.disk ?? (await debianDisk(options.packages));
  const modules = await modulesDisk(kernel);
  const disks = [disk, ...(options.disks ?? []), ...modules];
  const append = [commandLine, 'lab.root=/dev/vda', options.append ?? ''].join(' ').trim();
  const initrd = await guestRoot(kernel, options);
  const timeout = options.timeout ?? BOOT_TIMEOUT_MS;
  const vm = await Vm.start({ memory: 1024, ...options, disks }, { kernel: kernel.vmlinuz, initrd, append });
  await started(vm, timeout);
  // The agent is among the first services; a scenario wants the system that a person would log in to.
  if (timeout === 0) return vm;
  try {
    await vm.run(settled, { timeout });
    return vm;
  } catch (error) {
    await vm.close();
    throw error;
  }
}

/** All modules of a kernel, as a disk that the guest's initramfs mounts at /lib/modules. */
export async function modulesDisk(kernel: Kernel): Promise<Disk[]> {
  const { modules, release } = kernel;
  if (modules === undefined) return [];
  const key = createHash('sha256').update(readFileSync(kernel.vmlinuz)).digest('hex').slice(0, 24);
  const image = join(cacheDirectory(), 'roots', `all-modules-${release}-${key}.sqfs`);
  if (!existsSync(image)) {
    await requirePackages('squashfs');
    await exclusively('all-modules', async (scratch) => {
      if (existsSync(image)) return;
      say(`packing the modules of ${release}`);
      const made = join(scratch, 'image');
      const options = ['-noappend', '-no-progress', '-quiet', '-all-root', '-keep-as-directory', '-comp', 'zstd'];
      await run(['mksquashfs', modules, made, ...options, '-Xcompression-level', '3']);
      mkdirSync(join(cacheDirectory(), 'roots'), { recursive: true });
      renameSync(made, image);
    });
  }
  return [{ path: image, format: 'raw', readOnly: true, serial: 'modules' }];
}

/** Image of a file system with Debian. Made through this machine's apt sources, once for each set of packages. */
async function debianImage(packages: readonly string[]): Promise<string> {
  const wanted = [...new Set([...minimal, ...packages])].sort();
  const key = createHash('sha256')
    .update(JSON.stringify(['1', suite, wanted, settings, links]))
    .digest('hex');
  const image = join(cacheDirectory(), 'roots', `debian-${key.slice(0, 24)}.ext4`);
  if (existsSync(image)) return image;
  await requirePackages('debian root', 'disk images');
  if (process.geteuid?.() !== 0) {
    throw new UnsupportedError({
      what: 'a Debian root for guests',
      why: 'its files belong to several users',
      remedy: 'make it once as root: sudo npm run lab -- shell --debian',
    });
  }
  return exclusively('debian', async (scratch) => {
    if (existsSync(image)) return image;
    say(`making a Debian root with ${wanted.join(' ')}`);
    const tree = join(scratch, 'tree');
    const made = join(scratch, 'image');
    const hooks = Object.entries({ ...settings }).map(([path, text]) => {
      const place = `"$1/${path}"`;
      return `--customize-hook=mkdir -p "$(dirname ${place})" && printf '%s' '${text.replaceAll("'", "'\\''")}' >${place}`;
    });
    for (const [path, target] of Object.entries(links)) hooks.push(`--customize-hook=ln -s ${target} "$1/${path}"`);
    hooks.push('--customize-hook=chroot "$1" systemctl -q enable systemd-networkd');
    hooks.push('--customize-hook=chroot "$1" passwd -q -d root');
    const quick = ['--variant=minbase', '--dpkgopt=path-exclude=/usr/share/{doc,man,locale}/*'];
    const options = [...quick, `--include=${wanted.join(',')}`, ...hooks, '--format=directory', '--quiet'];
    await run(['mmdebstrap', ...options, suite, tree, ...aptEntries()]);
    await run(['truncate', '-s', `${IMAGE_BYTES}`, made]);
    await run(['mkfs.ext4', '-q', '-F', '-d', tree, made]);
    mkdirSync(join(cacheDirectory(), 'roots'), { recursive: true });
    renameSync(made, image);
    return image;
  });
}

/** This machine's own entries for the suite, as lines of sources.list(5). */
function aptEntries(): string[] {
  return machineSources('/etc/apt')
    .filter(({ types, suites }) => types.includes('deb') && suites.some((each) => each.startsWith(suite)))
    .flatMap(({ uris, suites, components, signedBy }) => {
      const options = signedBy === '' ? '' : `[signed-by=${signedBy}] `;
      const own = suites.filter((each) => each.startsWith(suite));
      return uris.flatMap((uri) => own.map((each) => `deb ${options}${uri} ${each} ${components.join(' ')}`));
    });
}
