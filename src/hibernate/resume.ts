/** In a kernel that has booted as always, before file systems are mounted: looks for an image and starts what restores it. */
import { UnsupportedError } from '../errors.ts';
import { isInstruction } from '../image/info.ts';
import { planInRegion } from '../kexec/jump.ts';
import { load, requireKexecLoad, start, unload } from '../kexec/load.ts';
import { type Machine, readMachine } from '../kexec/machine.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { formatRange, subtract } from '../mem/range.ts';
import { type Machine as Cpu, readMachine as readCpu } from '../sys/machine.ts';
import { sync } from '../sys/mount.ts';
import { findDevice } from '../target/identity.ts';
import { findDisk } from './disks.ts';
import { type HelperFiles, helperRequest } from './helper.ts';
import { type Description, isImage, isUnfinished } from './image.ts';
import { changedFileSystem } from './marks.ts';
import { type BoundPlace, openReader, type Place } from './place.ts';
import { describeImage } from './restore.ts';
import { type FoundServer, findServer, isServer, openFromHere } from './server.ts';

/**
 * Resumes; does not return then.
 *
 * @param from disk of the image, or a place on a server, or the disk that setup was given, whatever it is called here; where
 *   undefined, it is looked for on all disks
 * @param seconds to wait for a disk with one @param sshKey a key without a passphrase
 * @returns where there is nothing to resume: why
 * @throws UnsupportedError where the image does not fit this machine, FormatError where it is damaged. Nothing has changed then.
 */
export async function resume(
  helper: HelperFiles,
  from: string | BoundPlace | undefined,
  seconds: number,
  sshKey: string,
): Promise<string> {
  const why =
    typeof from === 'string' && isServer(from)
      ? loadFromServer(helper, await findServer(from, sshKey))
      : loadFromDisk(helper, from, seconds);
  if (why !== undefined) return why;
  try {
    sync({});
    start();
    throw new Error('the kernel that was started came back');
  } finally {
    // This boot goes on and mounts file systems: nothing is to put the machine back under them later.
    unload();
  }
}

function loadFromDisk(helper: HelperFiles, from: string | BoundPlace | undefined, seconds: number): string | undefined {
  const [only, bound] = typeof from === 'string' ? [from] : [undefined, from];
  const among = bound && (() => [findDevice(bound.disk)].filter((path) => path !== undefined));
  const named = only === undefined ? among : () => [only];
  const extents = bound?.extents;
  const at = extents?.[0]?.at;
  const path = findDisk(isImage, at, seconds, named);
  if (path !== undefined) return loadRestorer(helper, { path, ...(extents && { extents }) });
  const cut = findDisk(isUnfinished, at, 0, named);
  if (cut !== undefined) return `there is no image; saving one to ${cut} was cut off`;
  const other = bound && extents === undefined ? findDisk(isImage) : undefined;
  if (other === undefined) return 'there is no image';
  return `there is no image on the disk that tideover hibernate setup was given; to take the one on ${other}: tideover resume --from ${other}`;
}

function loadFromServer(helper: HelperFiles, server: FoundServer): string | undefined {
  const { place, close } = openFromHere(server);
  try {
    const block = new Uint8Array(PAGE_SIZE);
    const reader = openReader(place);
    reader.read(0, block);
    reader.close();
    if (isImage(block)) return loadRestorer(helper, place, server);
    return `there is no image at ${place.path}${isUnfinished(block) ? '; saving one was cut off' : ''}`;
  } finally {
    close();
  }
}

/** @returns where it is not to be resumed: why */
function loadRestorer(helper: HelperFiles, place: Place, server?: FoundServer): string | undefined {
  const disk = place.path;
  const { description, state } = describeImage(place);
  if (state === 'used') return `${disk}: the image has been resumed before`;
  if (state === 'tested') return `${disk}: the image was a test, after which its machine went on`;
  if (state === 'failed') return `${disk}: the image could not be restored before; look at it with tideover image show`;
  requireKexecLoad();
  const machine = readMachine();
  const changed = changedFileSystem(description.fileSystems);
  const misfit =
    changed === undefined
      ? misfitOf(description, machine, readCpu())
      : `the file system that was mounted at ${changed} has been mounted since: what the machine knows of it is not true`;
  if (misfit !== undefined) {
    throw new UnsupportedError({
      what: `resuming from ${disk}`,
      why: misfit,
      remedy:
        changed === undefined
          ? 'boot as the machine was when it was saved, or go on without it; the image stays'
          : 'go on without the image, which stays to be looked at',
    });
  }
  const request = helperRequest(helper, server ?? disk, {
    kind: 'restore',
    id: description.id,
    ...(place.extents && { extents: place.extents }),
    ...(server && { server: server.place }),
  });
  load(planInRegion({ ...request, region: description.region }, machine));
  return undefined;
}

/** Why an image cannot be put into this machine, or undefined where it can. */
export function misfitOf(
  saved: Description,
  machine: Machine,
  { cpu, kernel }: Pick<Cpu, 'cpu' | 'kernel'>,
): string | undefined {
  if (cpu.vendor !== saved.cpu.vendor || cpu.model !== saved.cpu.model) {
    return `it was saved on a ${saved.cpu.model}, and this is a ${cpu.model}`;
  }
  // Kernels keep instructions from programs, each in its own way: where this is another one, the one that restores looks at them.
  const isSameKernel = kernel.release === saved.saver;
  const missing = saved.cpu.features.find(
    (each) => isSameKernel && isInstruction(each) && !cpu.features.includes(each),
  );
  if (missing !== undefined) return `the processor no longer has ${missing}`;
  const [stray] = subtract(saved.firmware, machine.firmware);
  const map = (entries: Description['firmware']) => entries.map((each) => `${formatRange(each)} ${each.type}`);
  const [was, is] = [map(saved.firmware), map(machine.firmware)];
  const different = was.find((line) => !is.includes(line)) ?? is.find((line) => !was.includes(line));
  if (stray !== undefined || different !== undefined) {
    return `the firmware's memory map is another one than then, at ${different ?? formatRange(stray!)}`;
  }
  if (machine.fiveLevel !== saved.fiveLevel) {
    return `page tables have ${machine.fiveLevel ? 5 : 4} levels here, and had ${saved.fiveLevel ? 5 : 4}`;
  }
  return undefined;
}
