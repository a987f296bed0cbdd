/**
 * Hibernation by kexec jump (Huang Ying, 2007). A is the kernel that is kept, B the one that saves it, C0 what boots afterwards, C the
 * one that puts it back. B and C live in the same region, which A does not use; they may be any kernel.
 *
 *     A ── jump ──> B: memory of A -> image, power off          A: its devices asleep, its file systems frozen
 *     C0: image found, checked ── kexec ──> C: image -> memory of A ── jump back ──> A goes on behind its jump
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, writeFileSync } from 'node:fs';
import type { Compression } from '../crash/codec/page.ts';
import { UnsupportedError } from '../errors.ts';
import { jump, planJump, requireJump } from '../kexec/jump.ts';
import { type Machine, readMachine } from '../kexec/machine.ts';
import { ramOf } from '../kexec/memorymap.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { alignIn, alignOut, formatRange, overlaps, type Range, sizeOf, subtract } from '../mem/range.ts';
import { vmcoreinfoNote } from '../sys/dying.ts';
import { readMachine as readCpu } from '../sys/machine.ts';
import { sync } from '../sys/mount.ts';
import { readProcText } from '../sys/proc.ts';
import { forgetDisk } from './disks.ts';
import { freezeFileSystems } from './filesystems.ts';
import { type HelperFiles, helperRequest } from './helper.ts';
import { runSleepHooks } from './hooks.ts';
import { clearImage } from './image.ts';
import { makeMailbox, type Word } from './mailbox.ts';
import type { SaveOrder } from './order.ts';
import { placeOf, writeSynced } from './place.ts';
import { say } from './say.ts';

export interface HibernateOptions {
  readonly helper: HelperFiles;
  /** Path of the block device, or of the file on one, that gets the image. What is in it is lost. */
  readonly to: string;
  readonly compression: Compression;
  readonly ending: SaveOrder['ending'];
  /** Give up the page cache first. */
  readonly dropCaches: boolean;
  /** Where the helper lives; what crashkernel= has reserved where undefined. */
  readonly region?: Range;
}

/** Where helpers live. @throws UnsupportedError where nothing is reserved */
function helperRegion(machine: Machine, asked?: Range): Range {
  const region = asked ?? machine.crashRanges.toSorted((a, b) => sizeOf(b) - sizeOf(a))[0];
  if (region !== undefined) return region;
  throw new UnsupportedError({
    what: 'hibernating',
    why: 'there is no memory in which the kernel that saves could live',
    remedy: 'boot with crashkernel=320M, or give --region',
  });
}

/** What of the machine is saved: all RAM but the region and the first megabyte, which the jump itself swaps. */
export function savedMemory({ firmware }: Pick<Machine, 'firmware'>, region: Range): Range[] {
  return subtract(ramOf(firmware), [{ start: 0, end: 2 ** 20 }, alignOut(region, PAGE_SIZE)])
    .map((range) => alignIn(range, PAGE_SIZE))
    .filter((range) => range !== undefined);
}

/** Parameters with which a kernel counts on what free pages hold: mm/page_poison.c, mm/debug_page_alloc.c. */
const POISON = /(?:^|\s)(page_poison=(1|on|y)|debug_pagealloc=(1|on|y)|slub_debug\S*P)/;

/** Modules whose devices do not come back. */
const LOST_DEVICES: Readonly<Record<string, string>> = {
  nvidia: 'its driver keeps state in the card and saves it only for suspend of the kernel itself',
  vboxdrv: 'VirtualBox holds processors in a state that is not restored',
  vmmon: 'VMware holds processors in a state that is not restored',
};

/** Why this machine cannot be hibernated, before anything is touched. @throws UnsupportedError */
function requireHibernation(to: string): void {
  requireJump();
  const lost = Object.keys(LOST_DEVICES).find((name) => existsSync(`/sys/module/${name}`));
  if (lost !== undefined) {
    throw new UnsupportedError({
      what: `hibernating with the module ${lost}`,
      why: LOST_DEVICES[lost]!,
      remedy: `unload ${lost}`,
    });
  }
  const mounted = readProcText('/proc/self/mounts')
    .split('\n')
    .find((line) => line.startsWith(`${to} `));
  if (mounted !== undefined || readProcText('/proc/swaps').includes(`${to} `)) {
    throw new UnsupportedError({
      what: `hibernating to ${to}`,
      why: 'it is in use: the image would overwrite it',
      remedy: 'give a partition of its own',
    });
  }
}

/**
 * Hibernates, and comes back when the machine goes on: after a test, after a failure, or when it has been resumed.
 *
 * @returns what has become of it; undefined where the other kernel left no word
 * @throws UnsupportedError, SyscallError as the parts; nothing is changed then but the disk's first block
 */
export function hibernate(options: HibernateOptions): Word | undefined {
  const { helper, to, compression, ending } = options;
  requireHibernation(to);
  const place = placeOf(to);
  const machine = readMachine();
  const region = helperRegion(machine, options.region);
  const memory = savedMemory(machine, region);
  const vmcoreinfo = vmcoreinfoNote();
  const note = { start: vmcoreinfo.address, end: vmcoreinfo.address + vmcoreinfo.size };
  if (overlaps(note, region))
    throw new UnsupportedError({
      what: 'hibernating',
      why: `the region ${formatRange(region)} holds the kernel`,
      remedy: 'give another with --region',
    });
  using mailbox = makeMailbox(region);
  const ticket = randomBytes(16).toString('hex');
  const order: SaveOrder = {
    kind: 'save',
    ticket,
    ...(place.extents && { extents: place.extents }),
    compression,
    keepFree: POISON.test(readProcText('/proc/cmdline')),
    ending,
    region,
    memory,
    firmware: machine.firmware,
    vmcoreinfo,
    mailbox: { address: mailbox.address, cookie: mailbox.cookie },
    release: readCpu().kernel.release,
  };
  const plan = planJump({ ...helperRequest(helper, place.path, order), region }, machine);
  // An image that was there is none any more.
  // A file by its file system, as long as that is mounted; what it holds is secret.
  writeSynced({ path: to }, (output) => clearImage(output, ticket));
  if (place.extents === undefined) forgetDisk(place.path);
  else chmodSync(to, 0o600);
  if (options.dropCaches) {
    sync({});
    writeFileSync('/proc/sys/vm/drop_caches', '3');
  }
  for (const failure of runSleepHooks('pre')) say(failure);
  try {
    jump(plan, freezeFileSystems);
  } finally {
    for (const failure of runSleepHooks('post')) say(failure);
  }
  const word = mailbox.read();
  say(
    `this machine goes on: ${word?.outcome ?? 'nobody said why'}${word?.reason === undefined ? '' : `: ${word.reason}`}`,
  );
  return word;
}
