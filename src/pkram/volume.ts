/**
 * A medium that is open: its node list and its free pages, and the commit by which one list takes the place of the other.
 *
 * Everything that a list reaches is left alone until another list counts: a change is written to free pages, then the
 * superblock, then what only the old list reached is free. So at each moment the medium holds one whole list.
 */
import { randomBytes } from 'node:crypto';
import { release as kernelRelease } from 'node:os';
import { FormatError, UnsupportedError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { useProcessor } from '../sys/crc32.ts';
import { NoRoomError, OrderError } from './errors.ts';
import * as format from './format.ts';
import type { Medium } from './medium.ts';
import { type Node, type NodeRun, readNode, walkNode } from './node.ts';
import { type Run, Space } from './space.ts';
import { readSuperblock, type Superblock, writeSuperblock } from './superblock.ts';

export interface VolumeOptions {
  /** Most bytes that may be in use, nodes and what describes them; default is what there is. */
  readonly limit?: number;
  /** Name and version of the program, for what it writes. */
  readonly writer?: string;
  /** The same medium, read before and closed since: where nothing has been written meanwhile its list is not read again. */
  readonly before?: Volume | undefined;
}

/** An entry of the node list. */
export interface Entry {
  readonly id: number;
  /** Of the node's own page. */
  readonly address: number;
  readonly flags: number;
  /** undefined where it cannot be read. */
  readonly node: Node | undefined;
  /** Why the node cannot be loaded; with undefined it can. */
  readonly fault: FormatError | UnsupportedError | undefined;
  /** Pages that it holds, in bytes; of a damaged node what could be found. */
  readonly held: number;
  /** The same pages of a node that cannot be walked any more. */
  readonly runs: readonly NodeRun[] | undefined;
}

type NodeEntry = ReturnType<typeof format.node_entry.read>;

/** Bytes that are written at once when contents are wiped. */
const WIPE_CHUNK = 1 << 20;
const ENTRIES_PER_PAGE = Math.floor((format.CRC_AT - format.ENTRIES_AT) / format.node_entry.size);

export class Volume {
  readonly medium: Medium;
  readonly writer: string;
  #space: Space;
  readonly #limit: number;
  #block: Superblock;
  #entries: Entry[] = [];
  #listPages: Run[] = [];
  /** Why the medium must not be written to. */
  #frozen: Error | undefined;
  #isClosed = false;
  /** Names of saves that are not finished. */
  readonly saving = new Set<string>();
  /** Ids of nodes that are being loaded, and so off the list. */
  readonly loading = new Set<number>();
  /** How often nodes are peeked into, by id. */
  readonly peeking = new Map<number, number>();

  /** @throws FormatError, UnsupportedError where there is no list of nodes to be found */
  constructor(medium: Medium, { limit = Number.POSITIVE_INFINITY, writer = 'tideover', before }: VolumeOptions = {}) {
    useProcessor();
    this.medium = medium;
    this.writer = writer;
    this.#limit = limit;
    this.#block = readSuperblock(medium);
    medium.attach(this.#block.ranges);
    this.#space = new Space(medium.size / PAGE_SIZE);
    this.#space.claim({ first: 0, count: format.DATA_START / PAGE_SIZE });
    if (!medium.writable) this.#frozen = refusal(medium, 'it was opened to be read only', 'open it to be written');
    if (before === undefined || !this.#takeOver(before)) this.#readList();
    if (this.#frozen !== undefined) return;
    this.#finishWipes();
    if (this.hasMoved) this.#commit(this.#entries);
  }

  /** Writes an empty list to a medium whose ranges are attached. What was there is lost. */
  static format(medium: Medium, writer = 'tideover'): void {
    const uuid = randomBytes(16);
    const empty = {
      uuid,
      ranges: medium.ranges,
      nodeList: 0,
      nodeCount: 0,
      nextId: 1,
      writer,
      kernel: kernelRelease(),
    };
    // Both, so that nothing of an earlier medium in the same place is found.
    for (const sequence of [1, 2]) writeSuperblock(medium, { ...empty, sequence });
  }

  get entries(): readonly Entry[] {
    return this.#entries;
  }

  get uuid(): string {
    return Buffer.from(this.#block.uuid).toString('hex');
  }

  /** Rises with each commit. */
  get sequence(): number {
    return this.#block.sequence;
  }

  /** The kernel under which the medium was last written, and the program. */
  get written(): { writer: string; kernel: string } {
    return { writer: this.#block.writer, kernel: this.#block.kernel };
  }

  /** Whether the medium lies elsewhere than its table of ranges says. Where it can be written to, the next commit puts that right. */
  get hasMoved(): boolean {
    return JSON.stringify(this.#block.ranges) !== JSON.stringify(this.medium.ranges);
  }

  /** In bytes. */
  get free(): number {
    return this.#space.free * PAGE_SIZE;
  }

  /** In bytes. */
  get used(): number {
    return this.medium.size - this.free;
  }

  /** Why nothing can be written, or undefined where it can. */
  get frozen(): Error | undefined {
    return this.#frozen;
  }

  /** @throws OrderError after close() */
  demandOpen(): void {
    if (this.#isClosed) throw new OrderError(`${this.medium.name}: it is closed`);
  }

  /** @throws Error where the medium must not be written to */
  demandWritable(): void {
    this.demandOpen();
    if (this.#frozen !== undefined) throw this.#frozen;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.medium.close();
  }

  // --- room ------------------------------------------------------------------------------------------------------

  /** Takes free pages in one piece, at most `wanted`. @throws NoRoomError */
  allocate(wanted: number): Run {
    // The list must always be able to be written anew, even to remove a node when all is full.
    const kept = Math.ceil((this.#entries.length + 1) / ENTRIES_PER_PAGE) + 2;
    const allowed = Math.floor((this.#limit - this.used) / PAGE_SIZE) - kept;
    if (allowed <= 0) throw new NoRoomError(`${this.medium.name}: the limit of ${this.#limit} bytes is reached`);
    const count = Math.min(wanted, allowed);
    if (this.#space.free < count + kept && this.medium.grow((count + kept) * PAGE_SIZE)) {
      this.#space.extend(this.medium.size / PAGE_SIZE);
    }
    const run = this.#space.free <= kept ? undefined : this.#space.allocate(Math.min(count, this.#space.free - kept));
    if (run !== undefined) return run;
    const { name, whyFull: why = 'no more are to be had' } = this.medium;
    const [reason, cause] = typeof why === 'string' ? [why, undefined] : [`${why.why}; ${why.remedy}`, why];
    throw new NoRoomError(`${name}: there is no room: ${this.used} bytes are in use, and ${reason}`, { cause });
  }

  /** Has at least so many bytes free, for what is to be saved later. @throws NoRoomError */
  reserve(bytes: number): void {
    const lacking = bytes - this.free;
    if (lacking <= 0) return;
    if (!this.medium.grow(lacking))
      throw new NoRoomError(`${this.medium.name}: there is no room for ${bytes} bytes more`);
    this.#space.extend(this.medium.size / PAGE_SIZE);
    // What is not on its table of ranges is not there for the next one to open it.
    this.#commit(this.#entries);
  }

  /** Takes a page for metadata of a node. @returns its address @throws NoRoomError */
  allocatePage(): number {
    return this.allocate(1).first * PAGE_SIZE;
  }

  /** Gives pages back that no list reaches. */
  giveBack(runs: readonly Run[]): void {
    for (const run of runs) {
      this.#space.release(run);
      this.medium.release(run.first * PAGE_SIZE, run.count * PAGE_SIZE);
    }
  }

  // --- changes ---------------------------------------------------------------------------------------------------

  nextId(): number {
    const id = this.#block.nextId;
    this.#block = { ...this.#block, nextId: id + 1 };
    return id;
  }

  add(entry: Entry): void {
    this.#commit([...this.#entries, entry]);
  }

  /** Puts an entry in the place of the one with its id. */
  replace(entry: Entry): void {
    this.#commit(this.#entries.map((each) => (each.id === entry.id ? entry : each)));
  }

  /** Takes a node off the list for good and frees its pages. @param wipe overwrite them first */
  remove(entry: Entry, wipe: boolean): void {
    const runs = entry.runs ?? this.#runsOf(entry);
    if (wipe) {
      // While the list says so, the next one to open the medium goes on with it, and finds what to wipe by the metadata.
      this.replace({ ...entry, flags: entry.flags | format.NODE_WIPING });
      for (const metadata of [false, true]) this.#wipe(runs.filter((run) => run.metadata === metadata));
    }
    this.#commit(this.#entries.filter(({ id }) => id !== entry.id));
    this.giveBack(runs);
  }

  /** All pages that a node holds. */
  #runsOf({ address, node }: Entry): NodeRun[] {
    const runs: NodeRun[] = [{ first: address / PAGE_SIZE, count: 1, metadata: true }];
    if (node !== undefined) walkNode(this.medium, node, (run) => runs.push(run));
    return runs;
  }

  #commit(entries: Entry[]): void {
    this.demandWritable();
    const sequence = this.#block.sequence + 1;
    const pages: Run[] = [];
    const list = new format.ListWriter<NodeEntry>(
      this.medium,
      format.KIND_NODE_LIST,
      format.node_entry,
      sequence,
      () => {
        const run = this.#space.allocate(1);
        if (run === undefined) throw new NoRoomError(`${this.medium.name}: there is no room for the node list`);
        pages.push(run);
        return run.first * PAGE_SIZE;
      },
    );
    try {
      for (const { id, address, flags } of entries) list.add({ node: address, id, flags });
      list.finish();
    } catch (error) {
      for (const run of pages) this.#space.release(run);
      throw error;
    }
    const block = {
      ...this.#block,
      sequence,
      ranges: this.medium.ranges,
      nodeList: list.first,
      nodeCount: entries.length,
      writer: this.writer,
      kernel: kernelRelease(),
    };
    try {
      writeSuperblock(this.medium, block);
    } catch (error) {
      // Whether it counts is not known: what it reaches and what the one before reaches must both be left alone.
      const why = `its superblock could not be written (${error instanceof Error ? error.message : error})`;
      this.#frozen = refusal(this.medium, why, 'open it again');
      throw error;
    }
    const old = this.#listPages;
    [this.#block, this.#entries, this.#listPages] = [block, entries, pages];
    this.giveBack(old);
  }

  #wipe(runs: readonly Run[]): void {
    const zeros = new Uint8Array(WIPE_CHUNK);
    for (const { first, count } of runs) {
      const end = (first + count) * PAGE_SIZE;
      for (let at = first * PAGE_SIZE; at < end; at += WIPE_CHUNK) {
        this.medium.write(at, zeros.subarray(0, Math.min(WIPE_CHUNK, end - at)));
      }
    }
    this.medium.sync();
  }

  // --- opening ---------------------------------------------------------------------------------------------------

  /** What an earlier one knows, which is of no more use then. @returns whether it is of the same list */
  #takeOver(before: Volume): boolean {
    const isSame = before.uuid === this.uuid && before.sequence === this.sequence;
    if (before.#space.pages * PAGE_SIZE !== this.medium.size) return false;
    if (!isSame || before.#isUncertain) return false;
    [this.#space, this.#entries, this.#listPages] = [before.#space, before.#entries, before.#listPages];
    return true;
  }

  /** Whether what is free is not known for certain. */
  get #isUncertain(): boolean {
    const isFrozen = this.#frozen !== undefined && this.medium.writable;
    const isDamaged = this.listFault !== undefined || this.#entries.some(({ fault }) => fault !== undefined);
    return isFrozen || isDamaged || this.saving.size > 0 || this.loading.size > 0;
  }

  #readList(): void {
    const { nodeList, nodeCount, sequence } = this.#block;
    const list = { kind: format.KIND_NODE_LIST, entry: format.node_entry, owner: sequence, count: nodeCount };
    const names = new Set<string>();
    try {
      const onPage = (address: number) => this.#claim({ first: address / PAGE_SIZE, count: 1 }, this.#listPages);
      // What the list itself stands on comes first, so that no damaged node claims it.
      const found = [...format.readList(this.medium, { ...list, first: nodeList }, onPage)];
      for (const { node, id, flags } of found) this.#entries.push(this.#readEntry(node, id, flags, names));
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      // Pages of nodes that are not found any more look free.
      this.#frozen ??= refusal(this.medium, `its node list is damaged (${error.message})`, 'load what is left');
      this.listFault = error;
    }
  }

  /** Why the node list ends early. */
  listFault: FormatError | undefined;

  #readEntry(address: number, id: number, flags: number, names: Set<string>): Entry {
    const runs: NodeRun[] = [];
    const claim = (run: NodeRun) => this.#claim(run, runs);
    let node: Node | undefined;
    let fault: FormatError | UnsupportedError | undefined;
    try {
      if (format.isPlace(this.medium, address, PAGE_SIZE))
        claim({ first: address / PAGE_SIZE, count: 1, metadata: true });
      if ((flags & ~format.NODE_WIPING) !== 0) {
        const why = `it has flags that this program does not know (0x${flags.toString(16)})`;
        throw new UnsupportedError({ what: `node ${id} in ${this.medium.name}`, why, remedy: 'use a newer tideover' });
      }
      node = readNode(this.medium, address, id);
      if (names.has(node.name)) format.damaged(this.medium, address, 'name', 'one that no other node has', node.name);
      names.add(node.name);
      walkNode(this.medium, node, claim);
    } catch (error) {
      if (!(error instanceof FormatError || error instanceof UnsupportedError)) throw error;
      fault = error;
      if (error instanceof UnsupportedError) {
        const why = `it holds a node that this program does not know (${error.message})`;
        this.#frozen ??= refusal(this.medium, why, 'load that node with the program that saved it');
      }
    }
    const held = runs.reduce((sum, { count }) => sum + count * PAGE_SIZE, 0);
    return { id, address, flags, node, fault, held, runs: fault === undefined ? undefined : runs };
  }

  #claim<R extends Run>(run: R, into: R[]): void {
    if (!this.#space.claim(run)) {
      const found = `${run.count} pages from there that something else holds`;
      format.damaged(this.medium, run.first * PAGE_SIZE, 'pages', 'pages of its own', found);
    }
    into.push(run);
  }

  #finishWipes(): void {
    for (const entry of this.#entries.filter(({ flags }) => flags === format.NODE_WIPING)) {
      // Its object list may be overwritten already; then what is left cannot be found, and what was found is wiped.
      this.remove(entry, true);
    }
  }
}

function refusal(medium: Medium, why: string, remedy: string): UnsupportedError {
  return new UnsupportedError({ what: `writing to ${medium.name}`, why, remedy });
}
