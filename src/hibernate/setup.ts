/**
 * What a machine needs before it can hibernate: the kernel that restores it lies in the initramfs of the normal boot, with its
 * own initramfs and system, and a script that looks for an image before file systems are mounted (initramfs-tools(7)).
 */
import { copyFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { UnsupportedError } from '../errors.ts';
import { readKernel } from '../kexec/kernelfile.ts';
import { readMachine } from '../kexec/machine.ts';
import { systemImage } from '../kexec/system.ts';
import { sizeOf } from '../mem/range.ts';
import { readMachine as readCpu } from '../sys/machine.ts';
import type { Answer } from '../sys/probe/answer.ts';
import { no, yes } from '../sys/probe/answer.ts';
import { kexecJump, kexecLoad, kexecSetting, lockdown } from '../sys/probe/kexec.ts';
import { devMem } from '../sys/probe/preserve.ts';
import { installFiles } from '../sys/systemd.ts';
import { helperEnvironment } from './helper.ts';
import { placeOf } from './place.ts';

/** Where the files for the initramfs lie, and where they are in it. */
const PREPARED = '/var/lib/tideover/hibernate';
const INSIDE = '/tideover';

/** Least memory for a kernel of a distribution, Node and threads that compress. */
const LEAST_REGION = 256 << 20;

export interface Requirement {
  readonly what: string;
  readonly answer: Answer;
}

/** What there must be, and whether it is. Touches nothing. */
export function hibernationRequirements(): Requirement[] {
  const { crashRanges } = readMachine();
  const largest = Math.max(0, ...crashRanges.map(sizeOf));
  const mib = (bytes: number) => `${Math.floor(bytes / 2 ** 20)} MiB`;
  const region =
    largest >= LEAST_REGION
      ? yes(`crashkernel= has reserved ${mib(largest)}`)
      : no(
          `crashkernel= has reserved ${mib(largest)} of ${mib(LEAST_REGION)}`,
          `boot with crashkernel=${LEAST_REGION >> 20}M`,
        );
  const hook = existsSync(HOOK) ? yes(`${HOOK} is there`) : no(`${HOOK} is missing`, 'run: tideover hibernate setup');
  return [
    { what: 'kexec jump', answer: kexecJump() },
    { what: 'kexec_load', answer: kexecLoad() },
    { what: 'kexec allowed', answer: kexecSetting() },
    { what: 'no lockdown', answer: lockdown() },
    { what: '/dev/mem', answer: devMem() },
    { what: 'reserved memory', answer: region },
    { what: 'initramfs hook', answer: hook },
  ];
}

const HOOK = '/etc/initramfs-tools/hooks/tideover';
const SCRIPT = '/etc/initramfs-tools/scripts/local-premount/tideover';

/**
 * Writes what the initramfs is to have. The initramfs itself is made by update-initramfs(8), afterwards.
 *
 * @param to where images go: a disk, or a file of the size that they may have @param root in place of /
 * @returns paths of what was written
 * @throws UnsupportedError where initramfs-tools or a part is missing
 */
export function setUp(
  to: string,
  { kernel, system, root = '/' }: { kernel?: string; system?: string; root?: string },
): string[] {
  if (!existsSync(join(root, 'etc/initramfs-tools'))) {
    throw new UnsupportedError({
      what: 'the initramfs hook',
      why: 'there is no /etc/initramfs-tools',
      remedy: 'install initramfs-tools; or run tideover resume from your own initramfs',
    });
  }
  const file = kernel ?? `/boot/vmlinuz-${readCpu().kernel.release}`;
  const [release] = readKernel(file).version.split(' ');
  const packed = system ?? systemImage();
  const place = placeOf(to);
  const { initrd } = helperEnvironment(release!, place.path, packed);
  const prepared = join(root, PREPARED);
  mkdirSync(prepared, { recursive: true, mode: 0o700 });
  copyFileSync(file, join(prepared, 'kernel'));
  copyFileSync(packed, join(prepared, 'system'));
  writeFileSync(join(prepared, 'initrd'), initrd, { mode: 0o600 });
  writeFileSync(join(prepared, 'extents'), JSON.stringify(place.extents ?? null));
  writeFileSync(join(prepared, 'sector'), `${(place.extents?.[0]?.at ?? 0) / 512}\n`);
  const scripts = new Map(
    Object.entries({ [HOOK]: hookScript(), [SCRIPT]: bootScript() }).map(([path, text]) => [
      path,
      { text, mode: 0o755 },
    ]),
  );
  installFiles(scripts, root);
  return [PREPARED, ...scripts.keys()];
}

/** Run by mkinitramfs(8). */
export function hookScript(): string {
  return `#!/bin/sh
# Puts the kernel that restores a hibernated machine into the initramfs. Written by tideover hibernate setup.
[ "$1" = prereqs ] && exit 0
. /usr/share/initramfs-tools/hook-functions
[ -e ${PREPARED}/system ] || exit 0
mkdir -p "$DESTDIR${INSIDE}/root"
cp ${PREPARED}/* "$DESTDIR${INSIDE}/"
manual_add_modules loop squashfs
`;
}

/**
 * Run in the initramfs before the root file system is mounted. Node is started only where a disk begins as an image does, so that
 * other boots do not wait for it; it runs by the system's own loader, as nothing else of the initramfs is of that system.
 */
export function bootScript(): string {
  return `#!/bin/sh
# Goes on with a hibernated machine, if there is an image of one. Written by tideover hibernate setup.
[ "$1" = prereqs ] && exit 0
t=${INSIDE}
[ -e $t/system ] || exit 0
read -r cmdline </proc/cmdline
read -r sector <$t/sector
case " $cmdline " in *" noresume "*) exit 0 ;; esac
for d in /sys/class/block/*; do
  d=/dev/\${d##*/}
  magic=$(dd if=$d bs=512 skip=$((sector + 1)) count=1 2>/dev/null | head -c 15 | tr -d '\\0')
  [ "$magic" = 'TIDEOVER HIBERN' ] || continue
  modprobe -q loop
  modprobe -q squashfs
  mkdir -p $t/root
  mount -t squashfs -o ro,loop $t/system $t/root || exit 0
  u=$t/root/usr
  $u/lib64/ld-linux-x86-64.so.2 --library-path $u/lib/x86_64-linux-gnu:$u/lib64:$u/lib $u/bin/node \\
    $t/root/opt/tideover/tideover-single.mjs resume --extents $t/extents --kernel $t/kernel --initrd $t/initrd --system $t/system \\
    >/dev/console 2>&1
  umount $t/root
done
exit 0
`;
}
