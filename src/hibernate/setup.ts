/**
 * What a machine needs before it can hibernate: the kernel that restores it lies in the initramfs of the normal boot, with its
 * own initramfs and system, and a script that looks for an image before file systems are mounted (initramfs-tools(7)).
 */
import { copyFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { UnsupportedError } from '../errors.ts';
import { readKernel } from '../kexec/kernelfile.ts';
import { type Machine, readMachine } from '../kexec/machine.ts';
import { systemImage } from '../kexec/system.ts';
import { sizeOf } from '../mem/range.ts';
import { readMachine as readCpu } from '../sys/machine.ts';
import type { Answer } from '../sys/probe/answer.ts';
import { no, partly, unknown, yes } from '../sys/probe/answer.ts';
import { kexecJump, kexecLoad, kexecSetting, lockdown } from '../sys/probe/kexec.ts';
import { devMem } from '../sys/probe/preserve.ts';
import { attemptSystemctl, installFiles, runsSystemd } from '../sys/systemd.ts';
import { knownLosses } from './drivers.ts';
import { helperEnvironment } from './helper.ts';
import { savedMemory } from './hibernate.ts';
import { boundPlaceOf, placeOf } from './place.ts';
import { estimateImage, roomIn } from './room.ts';

/** Where the files for the initramfs lie, and where they are in it. */
const PREPARED = '/var/lib/tideover/hibernate';
const INSIDE = '/tideover';

/** Least memory for a kernel of a distribution, Node and threads that compress. */
const LEAST_REGION = 256 << 20;

const RESERVED = 'reserved memory';
const HOOKED = 'initramfs hook';

export interface Requirement {
  readonly what: string;
  readonly answer: Answer;
}

/** What there must be, and whether it is. Touches nothing. @param to where images go, if that is to be looked at too */
export function hibernationRequirements(to?: string): Requirement[] {
  const machine = readMachine();
  const largest = Math.max(0, ...machine.crashRanges.map(sizeOf));
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
    { what: RESERVED, answer: region },
    { what: 'drivers', answer: drivers() },
    { what: HOOKED, answer: hook },
    ...(to === undefined ? [] : [{ what: 'room for the image', answer: room(to, machine) }]),
  ];
}

function drivers(): Answer {
  const [loss] = knownLosses();
  if (loss === undefined) return yes('none is loaded of which is known that it does not survive');
  return no(`${loss.what}: ${loss.why}`, loss.remedy);
}

/** As much as there is in memory now: compressed, it is less. */
function room(to: string, machine: Machine): Answer {
  const place = placeOf(to);
  const mb = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;
  const remedy = 'give a larger place, --compress zstd or --drop-caches';
  const [region] = machine.crashRanges.toSorted((a, b) => sizeOf(b) - sizeOf(a));
  const needed = region && estimateImage(savedMemory(machine, region), 'none', false);
  if (needed === undefined) return unknown(`${to} has ${mb(roomIn(place))}; what is needed is not known`, remedy);
  const found = `${to} has ${mb(roomIn(place))}; without compression about ${mb(needed)} would be needed now`;
  return needed <= roomIn(place) ? yes(found) : partly(found, remedy);
}

const HOOK = '/etc/initramfs-tools/hooks/tideover';
const SCRIPT = '/etc/initramfs-tools/scripts/local-premount/tideover';
const UNIT = '/etc/systemd/system/tideover-hibernate.service';
const GRUB = '/etc/default/grub.d/tideover-hibernate.cfg';

/**
 * Writes what the initramfs is to have, a service that hibernates, and for GRUB the parameter that reserves memory, where none is
 * reserved. The initramfs itself is made by update-initramfs(8), afterwards.
 *
 * @param to where images go: a disk, or a file of the size that they may have @param root in place of /
 * @param program of tideover, as systemd starts it
 * @returns paths of what was written, and what is left to do
 * @throws UnsupportedError where initramfs-tools or a part is missing
 */
export function setUp(
  to: string,
  program: string,
  { kernel, system, root = '/' }: { kernel?: string; system?: string; root?: string },
): { readonly written: string[]; readonly todo: string[] } {
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
  writeFileSync(join(prepared, 'place'), JSON.stringify(boundPlaceOf(place)));
  writeFileSync(join(prepared, 'sector'), `${(place.extents?.[0]?.at ?? 0) / 512}\n`);
  const missing = hibernationRequirements().filter(({ what, answer }) => what !== HOOKED && answer.answer === 'no');
  const reserve = missing.some(({ what }) => what === RESERVED) && existsSync(join(root, 'etc/default/grub'));
  const files = {
    [HOOK]: { text: hookScript(), mode: 0o755 },
    [SCRIPT]: { text: bootScript(), mode: 0o755 },
    [UNIT]: { text: unitText(program, to), mode: 0o644 },
    ...(reserve && { [GRUB]: { text: grubText(), mode: 0o644 } }),
  };
  installFiles(Object.entries(files), root);
  if (root === '/' && runsSystemd()) attemptSystemctl('daemon-reload');
  const todo = missing
    .filter(({ what }) => !reserve || what !== RESERVED)
    .map(({ what, answer }) => `${what}: ${answer.remedy}`);
  const written = [PREPARED, ...Object.keys(files)];
  return {
    written,
    todo: ['run: update-initramfs -u', ...(reserve ? ['run: update-grub, and boot again'] : []), ...todo],
  };
}

/** As systemd-hibernate.service: what is to run before and after sleep hangs on sleep.target (systemd.special(7)). */
function unitText(program: string, to: string): string {
  const escaped = to.replaceAll('%', '%%').replaceAll('$', '$$$$').replaceAll('"', '\\"');
  return `[Unit]
Description=Power off with all that runs, by tideover
DefaultDependencies=no
Requires=sleep.target
After=sleep.target

[Service]
Type=oneshot
NotifyAccess=main
ExecStart=${program} hibernate --to "${escaped}"
`;
}

function grubText(): string {
  return `# Memory for the kernel that saves a machine which hibernates. Written by tideover hibernate setup.
GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT crashkernel=${LEAST_REGION >> 20}M"
`;
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
block() {
  dd if=$d bs=512 skip=$((sector + $1)) count=1 2>/dev/null
}
for d in /sys/class/block/*; do
  d=/dev/\${d##*/}
  case $(block 1) in
    'TIDEOVER HIBERN'*) ;;
    *)
      case $(block 7) in
        'tideover hibernation image: unfinished'*)
          echo "tideover: saving this machine to $d was cut off: it boots as always" >/dev/console ;;
      esac
      continue ;;
  esac
  modprobe -q loop
  modprobe -q squashfs
  mkdir -p $t/root
  mount -t squashfs -o ro,loop $t/system $t/root || exit 0
  u=$t/root/usr
  $u/lib64/ld-linux-x86-64.so.2 --library-path $u/lib/x86_64-linux-gnu:$u/lib64:$u/lib $u/bin/node \\
    $t/root/opt/tideover/tideover-single.mjs resume --place $t/place --kernel $t/kernel --initrd $t/initrd --system $t/system \\
    >/dev/console 2>&1
  umount $t/root
done
exit 0
`;
}
