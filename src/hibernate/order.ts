/**
 * What the kernel that saves, or restores, is told to do: a file in its initramfs. The command line has room for 2 KB only, and
 * the machine's memory map alone may be longer.
 */
import { readFileSync } from 'node:fs';
import type { Compression } from '../crash/codec/page.ts';
import { cpio } from '../kexec/cpio.ts';
import type { E820Entry } from '../mem/e820.ts';
import type { Range } from '../mem/range.ts';
import type { NetworkPlace } from '../target/place.ts';
import type { Mailbox } from './mailbox.ts';
import type { Place } from './place.ts';

export interface SaveOrder {
  readonly kind: 'save';
  /** What stands in the first block of where the image goes, so that it is found whatever it is called there. */
  readonly ticket: string;
  /** Of the file on that disk. */
  readonly extents?: Place['extents'];
  /** In place of a disk. */
  readonly server?: NetworkPlace;
  readonly compression: Compression;
  /** Save free pages too: what they hold matters to the machine. */
  readonly keepFree: boolean;
  /** `return`: into the machine that was saved, which is still there. */
  readonly ending: 'poweroff' | 'reboot' | 'return';
  readonly region: Range;
  /** What is saved: whole pages. */
  readonly memory: readonly Range[];
  readonly firmware: readonly E820Entry[];
  /** Where the kernel keeps its VMCOREINFO note. */
  readonly vmcoreinfo: { readonly address: number; readonly size: number };
  readonly mailbox: Mailbox;
  readonly release: string;
}

export interface RestoreOrder {
  readonly kind: 'restore';
  /** Of the image. */
  readonly id: string;
  readonly extents?: Place['extents'];
  /** In place of a disk. */
  readonly server?: NetworkPlace;
}

export type Order = SaveOrder | RestoreOrder;

const FILE = 'tideover/order.json';

/** An archive to follow the initramfs of the kernel that gets the order. */
export function orderArchive(order: Order): Uint8Array {
  return cpio([
    { name: 'tideover', mode: 0o40700 },
    { name: FILE, mode: 0o600, data: JSON.stringify(order) },
  ]);
}

/** The order that this kernel was started with. @throws the system's error ENOENT where there is none */
export function readOrder(): Order {
  return JSON.parse(readFileSync(`/${FILE}`, 'utf8')) as Order;
}
