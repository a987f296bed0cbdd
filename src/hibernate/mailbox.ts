/**
 * A page of the process that waits for its machine to go on, by its physical address: the kernel that saved it or woke it leaves
 * a word there. A cookie in front of it shows that the page is still that one.
 */
import { randomBytes } from 'node:crypto';
import { MADV_DONTFORK } from '../abi/mman.ts';
import { TideoverError, UnsupportedError, VerifyError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { contains, type Range } from '../mem/range.ts';
import { pinPages } from '../pkram/pin.ts';
import { close } from '../sys/files.ts';
import { madvise, mlock } from '../sys/memory.ts';
import { Pagemap, pfnOf } from '../sys/pagemap.ts';
import { Region } from '../sys/region.ts';
import type { FileSystemMark } from './marks.ts';
import { PhysicalWindows } from './physical.ts';

export interface Mailbox {
  /** Physical, of a page. */
  readonly address: number;
  /** 32 hex digits, at the page's beginning. */
  readonly cookie: string;
}

/** The machine could not be saved, and goes on. */
export class NotSavedError extends TideoverError {
  readonly code = 'not-saved';
}

/** What has become of the machine meanwhile. */
export interface Word {
  readonly outcome: 'tested' | 'failed' | 'resumed';
  /** Why it failed. */
  readonly reason?: string;
  /** Of the image: bytes, and seconds that it took to write or restore it. */
  readonly bytes?: number;
  readonly seconds?: number;
}

/** A mailbox of this process. @param outside it does not lie there, where another kernel is going to live */
export function makeMailbox(
  outside: Range,
): Mailbox & { tell(marks: readonly FileSystemMark[]): void; read(): Word | undefined } & Disposable {
  const pages = 64;
  const region = new Region(pages * PAGE_SIZE);
  region.bytes.fill(1);
  mlock({ addr: region.address, len: region.size });
  // The kernel moves what is locked too, when it looks for memory in one piece, and loading a kernel makes it look. What is held by a
  // pipe stays; but a program that is started meanwhile would have half of it, and this one be given another page when it writes.
  madvise({ addr: region.address, length: region.size, advice: MADV_DONTFORK });
  const pipes = pinPages(
    Array.from({ length: pages }, (_, i) => ({ address: region.address + i * PAGE_SIZE, count: 1 })),
  );
  const release = () => {
    for (const fd of pipes) close({ fd });
    region[Symbol.dispose]();
  };
  using pagemap = new Pagemap('self');
  const entries = pagemap.read(region.address, region.address + region.size);
  const index = Array.from({ length: pages }, (_, i) => i).find((i) => {
    const address = pfnOf(entries, i) * PAGE_SIZE;
    return address >= 2 ** 20 && !contains(outside, address);
  });
  if (index === undefined) {
    release();
    throw new UnsupportedError({
      what: 'a page for the answer of the kernel that saves',
      why: 'none has a physical address outside of the region',
      remedy: 'run as root; or reserve the region at boot with crashkernel=',
    });
  }
  const cookie = randomBytes(16).toString('hex');
  const page = region.bytes.subarray(index * PAGE_SIZE, (index + 1) * PAGE_SIZE);
  page.fill(0);
  page.set(Buffer.from(cookie));
  return {
    address: pfnOf(entries, index) * PAGE_SIZE,
    cookie,
    tell(marks) {
      const fitting = marks.slice(0, MARKS);
      page.set(
        Buffer.from(JSON.stringify(fitting.map((mark) => ({ ...mark, at: mark.at.slice(0, AT_LENGTH) })))),
        cookie.length,
      );
    },
    read() {
      const said = textIn(page, cookie.length);
      return said.startsWith('{') ? (JSON.parse(said) as Word) : undefined;
    },
    [Symbol.dispose]: release,
  };
}

/** Marks, and characters of where each was mounted, that surely fit into a page; JSON takes up to 6 bytes for one. */
const [MARKS, AT_LENGTH] = [12, 30];

function textIn(page: Uint8Array, from: number): string {
  const text = Buffer.from(page).toString('utf8', from);
  return text.slice(0, text.indexOf('\0'));
}

function isMailbox(page: Uint8Array, cookie: string): boolean {
  return Buffer.from(page.subarray(0, cookie.length)).toString('latin1') === cookie;
}

/** What tell() has said in another kernel's memory. @throws VerifyError where that is not there: an image would not be safe */
export function readMarks({ address, cookie }: Mailbox, device?: string): FileSystemMark[] {
  const windows = new PhysicalWindows([{ start: address, end: address + PAGE_SIZE }], 'read', device);
  try {
    const page = windows.at(address, PAGE_SIZE)!;
    if (!isMailbox(page, cookie)) {
      throw new VerifyError(
        `the page at 0x${address.toString(16)}`,
        'what the machine says of its file systems',
        'another page',
      );
    }
    const said = textIn(page, cookie.length);
    return said.startsWith('[') ? (JSON.parse(said) as FileSystemMark[]) : [];
  } finally {
    windows.close();
  }
}

/** Leaves a word in another kernel's memory. @returns whether the mailbox was there */
export function leaveWord({ address, cookie }: Mailbox, word: Word, device?: string): boolean {
  const windows = new PhysicalWindows([{ start: address, end: address + PAGE_SIZE }], 'write', device);
  try {
    const page = windows.at(address, PAGE_SIZE)!;
    if (!isMailbox(page, cookie)) return false;
    const reason = word.reason?.slice(0, 2000);
    const text = Buffer.from(JSON.stringify({ ...word, ...(reason !== undefined && { reason }) }));
    page.fill(0, cookie.length);
    page.set(text, cookie.length);
    return true;
  } finally {
    windows.close();
  }
}
