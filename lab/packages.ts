/** The one place that names Debian packages the project needs on the host, by what they are needed for. */
import { UnsupportedError } from '../src/errors.ts';
import { exclusively } from './cache.ts';
import { CommandError, run, say } from './command.ts';

const packagesFor = {
  /** virtual machines */
  qemu: ['qemu-system-x86'],
  /** UEFI firmware for them */
  uefi: ['ovmf'],
  /** disk images, opened copy-on-write */
  'disk images': ['qemu-utils', 'e2fsprogs'],
  /** the guest root's shell and tools */
  'guest root': ['busybox-static'],
  /** compressed loop roots */
  squashfs: ['squashfs-tools'],
  /** a whole Debian root */
  'debian root': ['mmdebstrap'],
  /** verifying Debian's archive */
  'archive keys': ['debian-archive-keyring'],
  /** unpacking kernels, and depmod(8) */
  kernels: ['kmod', 'xz-utils', 'zstd'],
  /** what the integration tests compile, run and look at */
  'programs under test': ['gcc', 'libc6-dev', 'make', 'python3', 'gdb', 'iproute2'],
  /** pages are looked at in a real browser */
  browser: ['chromium', 'fonts-dejavu-core'],
  /** terminals and what runs in them */
  terminals: ['bsdutils', 'tmux', 'vim-tiny'],
  /** programs that operators run */
  servers: ['memcached', 'nginx', 'postgresql', 'redis-server'],
  /** what the demo keeps */
  database: ['redis-server'],
  /** servers that guests save to */
  'ssh server': ['openssh-client', 'openssh-server'],
  'nfs server': ['nfs-ganesha', 'nfs-ganesha-vfs'],
  /** what makes containers */
  containers: ['runc'],
  /** to compare our codecs with */
  'compression libraries': ['liblzo2-2', 'libsnappy1v5', 'python3'],
  /** Documentation/process/changes.rst of the kernel */
  'kernel build': [
    'bc',
    'bison',
    'flex',
    'gcc',
    'libc6-dev',
    'libelf-dev',
    'libssl-dev',
    'make',
    'pahole',
    'perl',
    'python3',
    'xz-utils',
    'zstd',
  ],
} as const;

export type Purpose = keyof typeof packagesFor;

/**
 * Makes sure that the packages for these purposes are installed: as root by installing them.
 * @throws UnsupportedError that has the one line to type, when not root or not on Debian
 */
export async function requirePackages(...purposes: Purpose[]): Promise<void> {
  const needed = [...new Set(purposes.flatMap((purpose) => packagesFor[purpose] as readonly string[]))];
  if ((await missing(needed)).length === 0) return;
  await exclusively('packages', async () => {
    const absent = await missing(needed);
    if (absent.length === 0) return;
    const what = purposes.join(', ');
    if (process.geteuid?.() !== 0) {
      throw new UnsupportedError({
        what,
        why: `${absent.length === 1 ? 'a Debian package is' : 'Debian packages are'} missing`,
        remedy: `install with: sudo apt-get install --no-install-recommends ${absent.join(' ')}`,
      });
    }
    say(`${what}: installing ${absent.join(' ')}`);
    await install(absent);
  });
}

/** Tried with the package lists as they are, which is the usual case; and once more with new ones. */
async function install(packages: readonly string[]): Promise<void> {
  const options = ['-q', '-y', '-o', 'DPkg::Lock::Timeout=600'];
  const environment = { env: { DEBIAN_FRONTEND: 'noninteractive' }, onLine: say };
  const command = ['apt-get', ...options, 'install', '--no-install-recommends', ...packages];
  try {
    await run(command, environment);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    await run(['apt-get', ...options, 'update'], environment);
    await run(command, environment);
  }
}

async function missing(packages: readonly string[]): Promise<string[]> {
  // dpkg-query ends with 1 when it does not know one of them, and still lists the others.
  const script = 'command -v dpkg-query >/dev/null || exit 2; dpkg-query -l "$@" 2>/dev/null || [ $? = 1 ]';
  const listed = await run(['sh', '-c', script, 'sh', ...packages]).catch((error: unknown) => {
    if (!(error instanceof CommandError) || error.status !== 2) throw error;
    throw new UnsupportedError({
      what: `packages ${packages.join(', ')}`,
      why: 'this machine has no dpkg',
      remedy: 'the lab needs Debian 12 or newer',
    });
  });
  // Columns: what is wanted, what is, name with architecture, ...
  const installed = new Set([...listed.matchAll(/^\wi\s+([^\s:]+)/gm)].map((match) => match[1]));
  return packages.filter((name) => !installed.has(name));
}
