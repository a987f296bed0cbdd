/**
 * CRIU's protocol of its page server, by which memory goes to another machine while it is saved (criu/page-xfer.c, version 4.2):
 *
 *     saves                                  has the page server
 *     OPEN2, which pagemap      ------->     begins pagemap-N.img and a pages-M.img
 *            <------- one byte: whether there is an earlier image, in which runs that are sent without pages can be
 *     ADD_F, a run, its pages   ------->     writes both; again and again
 *     CLOSE                     ------->     makes all of it last
 *            <------- four bytes: 0
 *
 * And the other way round, where memory stays with whoever saves until it is asked for:
 *
 *     serves what it has stopped             brings pages to those that are restored
 *            <------- GET, a run            again and again
 *     ADD_F, the run, its pages ------->
 *            <------- CLOSE                 all are there
 *     four bytes: 0             ------->
 */
import { struct, u32, u64n, viewOf } from '../abi/struct.ts';
import { FormatError, UnsupportedError } from '../errors.ts';
import { PE_PARENT, PE_PRESENT } from './messages/memory.ts';
import { PagemapWriter } from './pagemap.ts';
import { MemoryImage, PAGE_SIZE, PageRuns } from './pages.ts';
import { type ImageDraft, type ImageStore, memorySource, type Sink } from './store.ts';
import { fileName, images, pagesFile, typeOfFile } from './types.ts';

export const page_server_iov = struct('page_server_iov', 32, {
  /** A command, and above it the flags of a run. */
  cmd: u32,
  __pad: u32,
  nr_pages: u64n,
  vaddr: u64n,
  dst_id: u64n,
});

const PS_IOV_ADD = 1;
const PS_IOV_HOLE = 2;
const PS_IOV_OPEN = 3;
const PS_IOV_OPEN2 = 4;
const PS_IOV_PARENT = 5;
const PS_IOV_ADD_F = 6;
const PS_IOV_GET = 7;
const PS_IOV_CLOSE = 0x1023;
const PS_IOV_FORCE_CLOSE = 0x1024;
const PS_CMD_BITS = 16;
const PS_TYPE_BITS = 8;
const PS_TYPE_PID = 1;
const PS_TYPE_SHMEM = 2;

const SHMEM = /^shmem-(\d+)$/;

/** dst_id: of which pagemap it is, a process id or `shmem-N`. */
function encodePagemap(name: string): number {
  const shared = SHMEM.exec(name)?.[1];
  return Number(shared ?? name) * (1 << PS_TYPE_BITS) + (shared === undefined ? PS_TYPE_PID : PS_TYPE_SHMEM);
}

function decodePagemap(dst_id: number): string | undefined {
  const id = Math.floor(dst_id / (1 << PS_TYPE_BITS));
  const type = dst_id % (1 << PS_TYPE_BITS);
  if (type === PS_TYPE_PID) return `${id}`;
  return type === PS_TYPE_SHMEM ? `shmem-${id}` : undefined;
}

/** What comes from a client becomes files of a draft, which is committed when the client says that it was all. */
export class PageReceiver {
  readonly #draft: ImageDraft;
  readonly #parent: ImageStore | undefined;
  readonly #answer: (bytes: Uint8Array) => void;
  readonly #head = new Uint8Array(page_server_iov.size);
  #filled = 0;
  /** Bytes of pages that are still to come. */
  #left = 0;
  #pagesId = 0;
  #dst: number | undefined;
  #pagemap: PagemapWriter | undefined;
  #pages: Sink | undefined;
  /** What the parent has of that pagemap. */
  #before: PageRuns | undefined;
  /** Bytes of pages that came. */
  bytes = 0;
  isDone = false;

  /** @param parent the image on which that of the draft builds */
  constructor(draft: ImageDraft, parent: ImageStore | undefined, answer: (bytes: Uint8Array) => void) {
    this.#draft = draft;
    this.#parent = parent;
    this.#answer = answer;
  }

  /** Takes what has come. @throws FormatError for what no client says, SyscallError where it cannot be written */
  push(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length; ) {
      if (this.#left > 0) {
        const part = chunk.subarray(at, at + this.#left);
        this.#pages!.write(part);
        this.bytes += part.length;
        this.#left -= part.length;
        at += part.length;
        continue;
      }
      const part = chunk.subarray(at, at + this.#head.length - this.#filled);
      this.#head.set(part, this.#filled);
      this.#filled += part.length;
      at += part.length;
      if (this.#filled < this.#head.length) return;
      this.#filled = 0;
      this.#command(page_server_iov.read(this.#head));
    }
  }

  #command({ cmd, nr_pages, vaddr, dst_id }: ReturnType<typeof page_server_iov.read>): void {
    const command = cmd & ((1 << PS_CMD_BITS) - 1);
    if (this.isDone) throw unexpected('the end of the connection', `command ${command}`);
    switch (command) {
      case PS_IOV_OPEN:
      case PS_IOV_OPEN2:
        this.#open(dst_id);
        if (command === PS_IOV_OPEN2) this.#answer(Uint8Array.of(this.#before === undefined ? 0 : 1));
        return;
      case PS_IOV_PARENT:
        this.#answer(Uint8Array.of(this.#hasParent(dst_id) ? 1 : 0, 0, 0, 0));
        return;
      case PS_IOV_ADD_F:
        this.#add(dst_id, vaddr, nr_pages, cmd >>> PS_CMD_BITS);
        return;
      case PS_IOV_ADD:
      case PS_IOV_HOLE:
        this.#add(dst_id, vaddr, nr_pages, command === PS_IOV_ADD ? PE_PRESENT : PE_PARENT);
        return;
      case PS_IOV_CLOSE:
      case PS_IOV_FORCE_CLOSE:
        this.#close();
        this.#draft.commit();
        this.isDone = true;
        this.#answer(new Uint8Array(4));
        return;
      default:
        throw unexpected('a command', `${command}`);
    }
  }

  #hasParent(dst_id: number): boolean {
    return this.#parent?.has(fileName(images.PAGEMAP, nameOf(dst_id))) === true;
  }

  #open(dst_id: number): void {
    const name = nameOf(dst_id);
    this.#close();
    this.#dst = dst_id;
    if (this.#hasParent(dst_id)) {
      const memory = new MemoryImage(this.#parent!, name);
      memory.close();
      this.#before = memory.runs;
    }
    this.#pagemap = new PagemapWriter(this.#draft.create(fileName(images.PAGEMAP, name)), ++this.#pagesId);
    this.#pages = this.#draft.create(pagesFile(this.#pagesId), 0);
  }

  #add(dst_id: number, vaddr: number, nrPages: number, flags: number): void {
    if (this.#dst !== dst_id) this.#open(dst_id);
    if ((flags & PE_PARENT) !== 0 && !this.#isBefore(vaddr, nrPages * PAGE_SIZE)) {
      throw unexpected('pages', `pages of an earlier image at 0x${vaddr.toString(16)}, which are not here`);
    }
    this.#pagemap!.run(vaddr, nrPages, flags);
    if ((flags & PE_PRESENT) !== 0) this.#left = nrPages * PAGE_SIZE;
  }

  /** Whether the parent has all of it. */
  #isBefore(start: number, size: number): boolean {
    return this.#before !== undefined && this.#before.present(start, start + size) === size;
  }

  #close(): void {
    this.#pagemap?.close();
    this.#pages?.close();
    this.#before = undefined;
    this.#pagemap = undefined;
    this.#pages = undefined;
  }
}

/** @throws FormatError */
function nameOf(dst_id: number): string {
  const name = decodePagemap(dst_id);
  if (name === undefined) throw unexpected('a pagemap', `0x${dst_id.toString(16)}`);
  return name;
}

function unexpected(expected: string, found: string): FormatError {
  return new FormatError({ file: 'page server', field: 'what came', expected, found });
}

/** Of what is sent at a time, in bytes. */
const SERVED = 256 << 10;

/**
 * Gives pages to whoever asks for them, until he says that he has all.
 *
 * @param read gives bytes of the memory of a process, by its id in the image; they are valid until the next call
 * @throws Error where the connection ends before that, FormatError for what no client says
 */
export function servePages(
  connection: Connection,
  read: (id: number, address: number, length: number) => Uint8Array,
): void {
  for (;;) {
    const asked = page_server_iov.read(connection.receive(page_server_iov.size));
    const command = asked.cmd & ((1 << PS_CMD_BITS) - 1);
    if (command === PS_IOV_CLOSE || command === PS_IOV_FORCE_CLOSE) {
      connection.send(new Uint8Array(4));
      return;
    }
    if (command !== PS_IOV_GET) throw unexpected('a request for pages', `command ${command}`);
    const { dst_id, vaddr, nr_pages } = asked;
    connection.send(page_server_iov.write({ ...asked, cmd: PS_IOV_ADD_F | (PE_PRESENT << PS_CMD_BITS) }));
    for (let at = vaddr; at < vaddr + nr_pages * PAGE_SIZE; at += SERVED) {
      connection.send(read(dst_id, at, Math.min(SERVED, vaddr + nr_pages * PAGE_SIZE - at)));
    }
  }
}

/** Pages that whoever has saved a process still has. */
export class RemotePages {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Fills `into` from the memory of a process. @param id of it in the image @throws FormatError for another answer */
  read(into: Uint8Array, id: number, vaddr: number): void {
    const nr_pages = into.length / PAGE_SIZE;
    this.#connection.send(page_server_iov.write({ cmd: PS_IOV_GET, nr_pages, vaddr, dst_id: id }));
    const head = page_server_iov.read(this.#connection.receive(page_server_iov.size));
    const command = head.cmd & ((1 << PS_CMD_BITS) - 1);
    if (command !== PS_IOV_ADD_F || head.vaddr !== vaddr || head.nr_pages !== nr_pages) {
      throw unexpected(`${nr_pages} pages at 0x${vaddr.toString(16)}`, `command ${command}, ${head.nr_pages} pages`);
    }
    into.set(this.#connection.receive(into.length));
  }

  /** All are there: what was saved ends on the other side. */
  close(): void {
    this.#connection.send(page_server_iov.write({ cmd: PS_IOV_CLOSE }));
    this.#connection.receive(4);
  }
}

/** A connection to a page server. Both wait until all is done. */
export interface Connection {
  send(bytes: Uint8Array): void;
  receive(length: number): Uint8Array;
}

/**
 * A draft whose pagemaps and pages go to a page server, and all else to the other one. Pages must come behind their pagemap.
 *
 * @throws Error where the server does not say that it has all, when the draft is sealed
 */
export function sendingDraft(draft: ImageDraft, connection: Connection): ImageDraft {
  const maps = new Map<string, { name: string; runs: PageRuns }>();
  const command = (cmd: number, of: { nr_pages?: number; vaddr?: number; dst_id?: number } = {}): void =>
    connection.send(page_server_iov.write({ cmd, ...of }));
  let sealed = false;
  const seal = (): void => {
    if (!sealed) {
      command(PS_IOV_CLOSE);
      const status = viewOf(connection.receive(4)).getInt32(0, true);
      if (status !== 0) throw new Error(`the page server has not got everything: ${status}`);
    }
    sealed = true;
    draft.seal();
  };
  return {
    sendsMemory: true,
    seal,
    commit() {
      seal();
      draft.commit();
    },
    abort: () => draft.abort(),
    keep: () => draft.keep(),
    create(file, size) {
      if (typeOfFile(file) === images.PAGEMAP) {
        const name = file.slice('pagemap-'.length, -'.img'.length);
        const parts: Uint8Array[] = [];
        return {
          write: (bytes) => parts.push(bytes.slice()),
          close() {
            const runs = PageRuns.read(memorySource(file, Buffer.concat(parts)));
            maps.set(pagesFile(runs.pagesId), { name, runs });
          },
        };
      }
      const map = maps.get(file);
      return map === undefined ? draft.create(file, size) : sendPages(map, connection, command);
    },
  };
}

function sendPages(
  { name, runs }: { name: string; runs: PageRuns },
  connection: Connection,
  command: (cmd: number, of: { nr_pages: number; vaddr: number; dst_id: number }) => void,
): Sink {
  const dst_id = encodePagemap(name);
  command(PS_IOV_OPEN2, { nr_pages: 0, vaddr: 0, dst_id });
  const hasParent = connection.receive(1)[0] !== 0;
  if (runs.hasParent && !hasParent) {
    throw new UnsupportedError({
      what: 'page server',
      why: `it has no earlier image with pagemap-${name}.img`,
      remedy: 'start it with --prev-images-dir, as seen from its own images directory',
    });
  }
  let [run, left] = [0, 0];
  /** Begins the next run that has pages; runs without any are told as they are. */
  const next = (): void => {
    while (left === 0 && run < runs.length) {
      const flags = runs.flags[run]!;
      command(PS_IOV_ADD_F | (flags << PS_CMD_BITS), {
        ...{ nr_pages: runs.size[run]! / PAGE_SIZE, vaddr: runs.vaddr[run]!, dst_id },
      });
      if ((flags & PE_PRESENT) !== 0) left = runs.size[run]!;
      run++;
    }
  };
  return {
    write(bytes) {
      for (let at = 0; at < bytes.length; ) {
        next();
        const part = bytes.subarray(at, at + left);
        connection.send(part);
        left -= part.length;
        at += part.length;
      }
    },
    close: next,
  };
}
