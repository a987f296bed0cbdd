/** What the kernels that save and restore do, from their initramfs: the order that they were given. */
import { availableParallelism } from 'node:os';
import {
  LINUX_REBOOT_CMD_POWER_OFF,
  LINUX_REBOOT_CMD_RESTART,
  LINUX_REBOOT_MAGIC1,
  LINUX_REBOOT_MAGIC2,
} from '../abi/reboot.ts';
import { UnsupportedError } from '../errors.ts';
import { jumpBackEntry, planBack } from '../kexec/jump.ts';
import { load, start } from '../kexec/load.ts';
import { readMachine } from '../kexec/machine.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { alignOut } from '../mem/range.ts';
import { readMachine as readCpu } from '../sys/machine.ts';
import { availableMemory } from '../sys/meminfo.ts';
import { sync } from '../sys/mount.ts';
import { readProcText } from '../sys/proc.ts';
import { reboot } from '../sys/reboot.ts';
import { isImageFile, mustFind } from './disks.ts';
import { type Description, isImage, ticketOf } from './image.ts';
import { leaveWord, type Mailbox, readMarks, type Word } from './mailbox.ts';
import type { Order, RestoreOrder, SaveOrder } from './order.ts';
import type { Place } from './place.ts';
import { describeImage, markImage, restoreMemory } from './restore.ts';
import { saveMemory } from './save.ts';
import { say } from './say.ts';
import { openFromThere } from './server.ts';
import { usefulThreads } from './threads.ts';

/** A disk on USB is there after so long at most. */
const DISK_SECONDS = 30;
const MB = 2 ** 20;
/** What a thread takes: a heap, a chunk of pages, and the same compressed. */
const THREAD_BYTES = 24 * MB;

/** Does what was ordered. Does not return: the machine is off, boots, or goes on as the one that was saved. */
export async function obey(order: Order): Promise<never> {
  if (order.kind === 'save') await save(order);
  else await restore(order);
  // Only where reboot(2) came back.
  throw new Error('the machine neither ended nor went on');
}

async function save(order: SaveOrder): Promise<void> {
  const began = Date.now();
  let word: Word;
  try {
    const back = jumpBackEntry(readProcText('/proc/cmdline'));
    if (back === undefined) throw new Error('this kernel was not jumped into');
    const isOurs = (block: Uint8Array) => ticketOf(block) === order.ticket;
    const opened = order.server && (await openFromThere(order.server));
    const disk = opened?.place ?? mustFind('the disk for the image', isOurs, order.extents, DISK_SECONDS);
    const { cpu, kernel } = readCpu();
    const description: Description = {
      id: order.ticket,
      saved: began,
      entry: back.entry,
      region: order.region,
      fiveLevel: back.fiveLevel,
      release: order.release,
      saver: kernel.release,
      cpu: { vendor: cpu.vendor, model: cpu.model, features: cpu.features, count: availableParallelism() },
      firmware: order.firmware,
      fileSystems: readMarks(order.mailbox),
      mailbox: order.mailbox,
    };
    say(`saving ${Math.round(sum(order.memory) / MB)} MB of memory to ${disk.path}`);
    const { memory, vmcoreinfo, compression, keepFree } = order;
    // What goes on now changes its file systems: its image must never be resumed.
    const state = order.ending === 'return' ? 'tested' : 'ready';
    const request = { description, memory, vmcoreinfo, compression, keepFree, state } as const;
    const options = threads('saved');
    const saved = await saveMemory(disk, request, options);
    opened?.close();
    const seconds = (Date.now() - began) / 1000;
    const pages = `${saved.pages} pages (${saved.zero} of them zeros, ${saved.free} free ones left out)`;
    say(`saved ${pages} as ${Math.round(saved.size / MB)} MB in ${seconds.toFixed(1)} s; ${options.spare()}`);
    word = { outcome: 'tested', bytes: saved.size, seconds };
  } catch (error) {
    word = { outcome: 'failed', reason: (error as Error).message };
    say(`could not save the machine, which goes on now: ${word.reason}`);
  }
  if (word.outcome !== 'failed' && order.ending !== 'return') end(order.ending);
  leaveAnswer(order.mailbox, word);
  const { entry } = jumpBackEntry(readProcText('/proc/cmdline'))!;
  goBack(entry);
}

const described = (disk: Place) => ({ disk, ...describeImage(disk) });

/** The image that was meant: other disks may have images too. @throws UnsupportedError */
function findImage(id: string, extents: Place['extents']): ReturnType<typeof described> {
  let found: ReturnType<typeof described> | undefined;
  const isOurs = (block: Uint8Array, path: string) => {
    if (!isImage(block)) return false;
    try {
      found = described({ path, ...(extents && { extents }) });
    } catch {
      // Damaged: the one that was meant was whole a moment ago.
      return false;
    }
    return found.description.id === id;
  };
  mustFind('the image', isOurs, extents, DISK_SECONDS);
  return found!;
}

async function restore({ id, extents, server }: RestoreOrder): Promise<void> {
  const began = Date.now();
  let tried: Place | undefined;
  try {
    const found = server ? described((await openFromThere(server)).place) : findImage(id, extents);
    const { disk, description, state, size } = found;
    if (description.id !== id || state !== 'ready') {
      throw new UnsupportedError({
        what: disk.path,
        why: `its image is another one, or ${state}`,
        remedy: 'boot again',
      });
    }
    tried = disk;
    if (readMachine().fiveLevel !== description.fiveLevel) throw new Error('page tables are of another depth here');
    const { cpu, kernel } = readCpu();
    const missing = description.cpu.features.find((feature) => !cpu.features.includes(feature));
    // Kernels name features differently.
    if (missing !== undefined && kernel.release === description.saver) {
      throw new UnsupportedError({
        what: disk.path,
        why: `the processor no longer has ${missing}`,
        remedy: 'boot without it',
      });
    }
    say(`restoring ${description.release}, saved ${new Date(description.saved).toISOString()}, from ${disk.path}`);
    const options = threads('restored');
    const { pages, zero } = await restoreMemory(disk, options);
    const seconds = (Date.now() - began) / 1000;
    say(`restored ${pages} pages and zeroed ${zero} in ${seconds.toFixed(1)} s; ${options.spare()}`);
    leaveAnswer(description.mailbox, { outcome: 'resumed', bytes: size, seconds });
    goBack(description.entry, disk);
  } catch (error) {
    say(`could not restore the machine: ${(error as Error).message}`);
    // Otherwise the next boot would come here again.
    if (tried !== undefined) markImage(tried, 'failed');
    end('reboot');
  }
}

/**
 * The restoring alone, in a kernel that lives in the region of the image and of its memory uses nothing else. Does not return.
 *
 * @param path of an image, or of a dump that holds all pages, as a copy of /proc/vmcore does
 * @param entry where its kernel takes over, for a dump; an image says so itself
 * @throws FormatError, VerifyError where it is damaged, UnsupportedError where it was used before. Memory may have been overwritten.
 */
export async function restoreAlone(path: string, entry: number | undefined): Promise<never> {
  const place = { path };
  const described = isImageFile(path) ? describeImage(place) : undefined;
  const to = described?.description.entry ?? entry;
  if (to === undefined) {
    throw new UnsupportedError({
      what: path,
      why: 'it does not say where its kernel takes over',
      remedy: 'give --entry',
    });
  }
  if (described !== undefined && described.state !== 'ready') {
    throw new UnsupportedError({
      what: path,
      why: `the image is ${described.state}`,
      remedy: 'it is restored once only',
    });
  }
  const started = Date.now();
  // A copy of /proc/vmcore may hold what the jump itself swaps, and where this kernel lives.
  const own = [{ start: 0, end: 2 ** 20 }, ...readMachine().systemRam.map((range) => alignOut(range, PAGE_SIZE))];
  const { pages, zero } = await restoreMemory(place, threads('restored'), described === undefined ? own : []);
  say(`restored ${pages} pages and zeroed ${zero} in ${((Date.now() - started) / 1000).toFixed(1)} s`);
  if (described !== undefined) {
    leaveAnswer(described.description.mailbox, { outcome: 'resumed', bytes: described.size });
  }
  goBack(to, described && place);
  throw new Error('the machine did not go on');
}

function leaveAnswer(mailbox: Mailbox, word: Word): void {
  if (!leaveWord(mailbox, word)) say('the page that the machine waits at is not there: it goes on without an answer');
}

/**
 * Into the kernel whose memory is all there again.
 *
 * @param used the image that it comes from: from here on it is never resumed again, whatever happens
 */
function goBack(entry: number, used?: Place): void {
  load(planBack(entry, readMachine()));
  if (used !== undefined) markImage(used, 'used');
  sync({});
  start();
}

function end(how: 'poweroff' | 'reboot'): void {
  sync({});
  const cmd = how === 'poweroff' ? LINUX_REBOOT_CMD_POWER_OFF : LINUX_REBOOT_CMD_RESTART;
  reboot({ magic: LINUX_REBOOT_MAGIC1, magic2: LINUX_REBOOT_MAGIC2, cmd, arg: 0 });
}

/**
 * As many as are of use, and there is room for; a word on the console at every tenth; at the end, how much of the region was
 * never needed.
 */
function threads(done: string) {
  let shown = 0;
  let least = availableMemory();
  const began = Date.now();
  return {
    threads: Math.max(1, Math.min(usefulThreads(), Math.floor((0.75 * least) / THREAD_BYTES))),
    spare: () => `${Math.round(least / MB)} MB of the region were left`,
    onProgress(at: number, total: number) {
      least = Math.min(least, availableMemory());
      const tenth = Math.floor((10 * at) / total);
      if (tenth <= shown || tenth === 10) return;
      shown = tenth;
      const rate = at / MB / ((Date.now() - began) / 1000);
      say(`${tenth * 10}% ${done}, ${Math.round(rate)} MB/s`);
    },
  };
}

function sum(ranges: SaveOrder['memory']): number {
  return ranges.reduce((bytes, { start, end }) => bytes + end - start, 0);
}
