/**
 * Preserved memory: nodes with unique names, divided into objects, each with a page stream and a byte stream. The model and
 * the words are those of the PKRAM series (A. Yznaga, "PKRAM: Preserved-over-Kexec RAM", RFC, May 2020).
 *
 *     const pkram = openPkram(FileMedium.open(path));
 *     const save = pkram.prepareSave('cache');
 *     const object = save.prepareSaveObject();
 *     object.savePage(page, index);
 *     object.finishSaveObject();
 *     save.finishSave();
 *
 * Everything is synchronous: what is preserved is often what must not change meanwhile.
 */
import { FormatError, UnsupportedError } from '../errors.ts';
import { NoSuchNodeError, OrderError } from './errors.ts';
import { NODE_WIPING } from './format.ts';
import { type LoadOptions, NodeLoad, type NodeLoadOptions, NodePeek } from './load.ts';
import type { Medium, MediumRange } from './medium.ts';
import { NodeSave, type SaveOptions } from './save.ts';
import { type Entry, Volume, type VolumeOptions } from './volume.ts';

/** What the list says of a node. */
export interface NodeInfo {
  /** undefined where it cannot be read. */
  readonly name: string | undefined;
  readonly id: number;
  readonly content: string | undefined;
  readonly created: Date | undefined;
  readonly writer: string | undefined;
  readonly checksums: boolean | undefined;
  /** Objects that can be loaded, and those that were before a load was broken off. */
  readonly objects: number | undefined;
  readonly objectsTaken: number | undefined;
  /** In the page streams of all objects. */
  readonly pages: number | undefined;
  /** In the byte streams of all objects. */
  readonly bytes: number | undefined;
  /** Bytes of the medium that it holds. */
  readonly held: number;
  /** Why it cannot be loaded, or undefined where it can. */
  readonly fault: string | undefined;
}

export interface PkramStatus {
  readonly medium: string;
  readonly uuid: string;
  /** Rises with each change. */
  readonly sequence: number;
  readonly nodes: number;
  readonly damagedNodes: number;
  /** In bytes. */
  readonly size: number;
  readonly used: number;
  readonly free: number;
  /** Pieces of memory, or of the file, that it consists of. */
  readonly ranges: readonly MediumRange[];
  /** Pages are elsewhere than the superblock says. */
  readonly moved: boolean;
  /** The program and the kernel that made the last change. */
  readonly writer: string;
  readonly kernel: string;
  /** Why nothing can be saved, or undefined where it can. */
  readonly frozen: string | undefined;
}

/**
 * Opens what is preserved in a medium. The medium is closed with it.
 *
 * @throws FormatError where there is no preserved memory in it, UnsupportedError where it is of another version
 */
export function openPkram(medium: Medium, options: VolumeOptions = {}): Pkram {
  try {
    return new Pkram(new Volume(medium, options));
  } catch (error) {
    medium.close();
    throw error;
  }
}

export class Pkram {
  readonly #volume: Volume;

  constructor(volume: Volume) {
    this.#volume = volume;
  }

  /** The nodes on the list, the damaged ones included. */
  nodes(): NodeInfo[] {
    this.#volume.demandOpen();
    return this.#listed().map(({ id, node, fault, held }) => ({
      name: node?.name,
      id,
      content: node?.content,
      created: node?.created,
      writer: node?.writer,
      checksums: node?.checksums,
      objects: node && node.objectCount - node.objectsTaken,
      objectsTaken: node?.objectsTaken,
      pages: node?.pageCount,
      bytes: node?.byteCount,
      held,
      fault: fault?.message,
    }));
  }

  status(): PkramStatus {
    const volume = this.#volume;
    volume.demandOpen();
    return {
      medium: volume.medium.name,
      uuid: volume.uuid,
      sequence: volume.sequence,
      nodes: this.#listed().length,
      damagedNodes: this.#listed().filter(({ fault }) => fault !== undefined).length,
      size: volume.medium.size,
      used: volume.used,
      free: volume.free,
      ranges: volume.medium.ranges,
      moved: volume.hasMoved,
      ...volume.written,
      frozen: volume.frozen?.message,
    };
  }

  /** Why the node list ends early: further nodes may have been there. */
  get listFault(): string | undefined {
    return this.#volume.listFault?.message;
  }

  /**
   * Begins to save a node.
   *
   * @throws UnsupportedError where there is a node of that name or one is being saved, where the name cannot be one, and where
   * the medium cannot be written to
   */
  prepareSave(name: string, options: SaveOptions = {}): NodeSave {
    const volume = this.#volume;
    volume.demandWritable();
    const saving = volume.saving.has(name);
    if (saving || volume.entries.some((entry) => entry.node?.name === name)) {
      throw new UnsupportedError({
        what: `saving node ${JSON.stringify(name)} in ${volume.medium.name}`,
        why: saving ? 'a node of that name is being saved' : 'there is a node of that name already',
        remedy: 'load it, remove it, or choose another name',
      });
    }
    return new NodeSave(volume, name, options);
  }

  /** Takes a node off the list, to load it. @throws NoSuchNodeError; FormatError, UnsupportedError where it cannot be loaded */
  prepareLoad(name: string, options: NodeLoadOptions = {}): NodeLoad {
    this.#volume.demandWritable();
    const entry = this.#whole(name);
    this.#demandUnpeeked(entry, 'prepareLoad');
    return new NodeLoad(this.#volume, entry, options);
  }

  /** Looks into a node that stays on the list. @throws NoSuchNodeError; FormatError, UnsupportedError where it cannot be loaded */
  peek(name: string, options: LoadOptions = {}): NodePeek {
    this.#volume.demandOpen();
    return new NodePeek(this.#volume, this.#whole(name), options);
  }

  /**
   * Removes a node without loading it; also a damaged one.
   *
   * @param node its name, or its id where the name cannot be read
   * @param options `wipe`: overwrite what it holds. If that is broken off, the next one to open the medium goes on with it.
   * @throws NoSuchNodeError
   */
  remove(node: string | number, { wipe = false }: { wipe?: boolean } = {}): void {
    this.#volume.demandWritable();
    const entry = this.#listed().find((each) => (typeof node === 'number' ? each.id : each.node?.name) === node);
    if (entry === undefined) throw new NoSuchNodeError(String(node), this.#volume.medium.name);
    this.#demandUnpeeked(entry, 'remove');
    this.#volume.remove(entry, wipe);
  }

  /** Has at least so many bytes free, for what is to be saved later. @throws NoRoomError */
  reserve(bytes: number): void {
    this.#volume.demandWritable();
    this.#volume.reserve(bytes);
  }

  /**
   * Others may change the medium from now on, while it stays open to be read: nodes that are peeked into, and are not removed
   * meanwhile.
   */
  unlock(): void {
    this.#volume.medium.unlock?.();
  }

  /** Closes the medium. Pages that were handed out where they lie are gone; what was not finished leaves no trace. */
  close(): void {
    this.#volume.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #listed(): Entry[] {
    const { entries, loading } = this.#volume;
    return entries.filter(({ id, flags }) => (flags & NODE_WIPING) === 0 && !loading.has(id));
  }

  #whole(name: string): Entry {
    const entry = this.#listed().find(({ node }) => node?.name === name);
    if (entry === undefined) throw new NoSuchNodeError(name, this.#volume.medium.name);
    if (entry.fault instanceof FormatError) {
      const file = `node ${JSON.stringify(name)} in ${this.#volume.medium.name}`;
      throw new FormatError({ file, field: 'node', expected: 'whole', found: `damage (${entry.fault.message})` });
    }
    if (entry.fault !== undefined) throw entry.fault;
    return entry;
  }

  #demandUnpeeked({ id }: Entry, call: string): void {
    if (this.#volume.peeking.has(id)) throw new OrderError(`${call}: the node is being peeked into`);
  }
}
