/**
 * Hibernation by kexec jump (Huang Ying, 2007). A is the kernel that is kept, B the one that saves it, C0 what boots afterwards, C the
 * one that puts it back. B and C live in the same region, which A does not use; they may be any kernel.
 *
 *     A ── jump ──> B: memory of A -> image, power off          A: its devices asleep, its file systems frozen
 *     C0: image found, checked ── kexec ──> C: image -> memory of A ── jump back ──> A goes on behind its jump
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import type { Compression } from '../crash/codec/page.ts';
import { SyscallError, UnsupportedError } from '../errors.ts';
import { jump, planJump, requireJump } from '../kexec/jump.ts';
import { type Machine, readMachine } from '../kexec/machine.ts';
import { ramOf } from '../kexec/memorymap.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { alignIn, alignOut, formatRange, overlaps, type Range, sizeOf, subtract } from '../mem/range.ts';
import { blockDevice } from '../sys/devices.ts';
import { vmcoreinfoNote } from '../sys/dying.ts';
import { readMachine as readCpu } from '../sys/machine.ts';
import { sync } from '../sys/mount.ts';
import { readProcText } from '../sys/proc.ts';
import { forgetDisk, heldOn, isInUse } from './disks.ts';
import { requireDrivers } from './drivers.ts';
import { freezeFileSystems } from './filesystems.ts';
import { type HelperFiles, helperRequest } from './helper.ts';
import { clearImage } from './image.ts';
import { makeMailbox, NotSavedError, type Word } from './mailbox.ts';
import { markOf } from './marks.ts';
import type { SaveOrder } from './order.ts';
import { type Place, placeOf, writeSynced } from './place.ts';
import { estimateImage, roomIn } from './room.ts';
import { say } from './say.ts';
import { type FoundServer, findServer, isServer, type OpenPlace, openFromHere } from './server.ts';
import { afterSleep, beforeSleep } from './wake.ts';

export interface HibernateOptions {
  readonly helper: HelperFiles;
  /** What gets the image: path of a block device, or of a file on one, or a place on a server. What is in it is lost. */
  readonly to: string;
  /** For ssh: a key without a passphrase. */
  readonly sshKey: string;
  readonly compression: Compression;
  readonly ending: SaveOrder['ending'];
  /** Give up the page cache first. */
  readonly dropCaches: boolean;
  /** Try also where the image seems to be larger than its place. */
  readonly force: boolean;
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
    remedy: 'boot with crashkernel=256M, or give --region',
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

/** Why this machine cannot be hibernated to a disk, or a server, before anything is touched. @throws UnsupportedError */
function requireHibernation(to: string): void {
  requireJump();
  requireDrivers();
  if (isServer(to)) return;
  if (isInUse(to) || readProcText('/proc/swaps').includes(`${to} `)) {
    throw new UnsupportedError({
      what: `hibernating to ${to}`,
      why: 'it is in use: the image would overwrite it',
      remedy: 'give a partition of its own',
    });
  }
  const held = heldOn(to);
  if (held === undefined) return;
  throw new UnsupportedError({
    what: `hibernating to ${to}`,
    why: `it holds ${held}, which the image would overwrite`,
    remedy: `give a partition of its own; or if nothing on it is needed: dd if=/dev/zero of=${to} bs=68K count=1 conv=notrunc`,
  });
}

/** Where it is to become too large, says so. @throws NotSavedError */
function requireRoom(place: Place, estimated: number | undefined): void {
  const room = roomIn(place);
  if (estimated === undefined || estimated <= room) return;
  const mb = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;
  throw new NotSavedError(
    `${place.path}: the image is going to have about ${mb(estimated)}, and there is room for ${mb(room)}; ` +
      'give a larger place, --compress zstd or --drop-caches; or try with --force: where it has no room, the machine goes on',
  );
}

/**
 * Hibernates, and comes back when the machine goes on: after a test, after a failure, or when it has been resumed.
 *
 * @returns what has become of it; undefined where the other kernel left no word
 * @throws NotSavedError where the image seems to be larger than its place; UnsupportedError, SyscallError as the parts. Nothing is
 *   changed then but the disk's first block
 */
export async function hibernate(options: HibernateOptions): Promise<Word | undefined> {
  const { helper, to, compression, ending } = options;
  requireHibernation(to);
  if (options.dropCaches) {
    sync({});
    writeFileSync('/proc/sys/vm/drop_caches', '3');
  }
  const server = isServer(to) ? await findServer(to, options.sshKey) : undefined;
  const place = server === undefined ? placeOf(to) : { path: to };
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
  const keepFree = POISON.test(readProcText('/proc/cmdline'));
  using mailbox = makeMailbox(region);
  const ticket = randomBytes(16).toString('hex');
  const order: SaveOrder = {
    kind: 'save',
    ticket,
    ...(place.extents && { extents: place.extents }),
    ...(server && { server: server.place }),
    compression,
    keepFree,
    ending,
    region,
    memory,
    firmware: machine.firmware,
    vmcoreinfo,
    mailbox: { address: mailbox.address, cookie: mailbox.cookie },
    release: readCpu().kernel.release,
  };
  const plan = planJump({ ...helperRequest(helper, server ?? place.path, order), region }, machine);
  // What is loaded is part of the machine's memory too. A server says how much room it has when it has none.
  if (server === undefined && !options.force) {
    const estimated = estimateImage(memory, compression, keepFree);
    requireRoom(place, estimated && estimated + plan.segments.reduce((sum, { bytes }) => sum + bytes.length, 0));
  }
  // An image that was there is none any more.
  // A file by its file system, as long as that is mounted; what it holds is secret.
  if (server !== undefined) clearOn(server);
  else {
    writeSynced({ path: to }, (output) => clearImage(output, ticket));
    if (place.extents === undefined) forgetDisk(place.path);
    else chmodSync(to, 0o600);
  }
  const { awake, failed } = beforeSleep();
  for (const failure of failed) say(failure);
  let word: Word | undefined;
  try {
    jump(plan, () => freezeAndMark(mailbox));
    word = mailbox.read();
  } finally {
    for (const failure of afterSleep(awake, word?.outcome ?? 'not saved')) say(failure);
  }
  if (word?.outcome === 'failed') clearAgain(to, server);
  say(
    `this machine goes on: ${word?.outcome ?? 'nobody said why'}${word?.reason === undefined ? '' : `: ${word.reason}`}`,
  );
  return word;
}

/** Marks go by the mailbox: the order is loaded already. */
function freezeAndMark(mailbox: ReturnType<typeof makeMailbox>): Disposable {
  const still = freezeFileSystems();
  try {
    const devices = still.frozen.map(({ major, minor, source, mountPoint }) => ({
      path: major === 0 ? source : `/dev/${basename(blockDevice(`${major}:${minor}`)).replaceAll('!', '/')}`,
      mountPoint,
    }));
    mailbox.tell(devices.flatMap(({ path, mountPoint }) => markOf(path, mountPoint) ?? []));
    return still;
  } catch (error) {
    still[Symbol.dispose]();
    throw error;
  }
}

/** What was not saved is not to be missed by the next boot. The disk, or the server, may be why. */
function clearAgain(to: string, server: FoundServer | undefined): void {
  try {
    if (server !== undefined) clearOn(server);
    else writeSynced({ path: to }, (output) => clearImage(output));
  } catch (error) {
    say(`${server?.place.text ?? to}: ${(error as Error).message}`);
  }
}

/** Shows too that the server lets us write. Where this kernel has no NFS, the one that saves has it, and clears it first of all. */
function clearOn(server: FoundServer): void {
  let opened: OpenPlace;
  try {
    opened = openFromHere(server);
  } catch (error) {
    if (error instanceof SyscallError && error.errnoName === 'ENODEV') return;
    throw error;
  }
  try {
    writeSynced(opened.place, (output) => clearImage(output));
  } finally {
    opened.close();
  }
}
