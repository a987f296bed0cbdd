/**
 * An image of checkpointed processes in preserved memory, as `-D pkram:NAME`: a node with an object for each file, and one at the
 * end that has their names, and that of the node with the image that this one builds on, if it does. Nothing of it is there before
 * commit(), and then all of it.
 */
import { FormatError } from '../errors.ts';
import type { ImageInfo } from '../image/info.ts';
import { draftOn, type ImageDraft, type ImageStore, isImageFile, missing, type Sink } from '../image/store.ts';
import { OrderError } from './errors.ts';
import type { ObjectReader } from './load.ts';
import type { Pkram } from './pkram.ts';

/** What nodes that hold an image say of their content. */
export const IMAGE_CONTENT = 'image';

/**
 * Begins an image as a node.
 *
 * @param options `checksums`: also of the pages in the node's own way, beside those that an image has; `parent`: the node with the
 *   image on which this one builds
 * @throws UnsupportedError where there is a node of that name
 */
export function createImage(
  pkram: Pkram,
  name: string,
  info: ImageInfo | undefined,
  { checksums = false, parent }: { checksums?: boolean; parent?: string | undefined } = {},
): ImageDraft {
  const node = pkram.prepareSave(name, { content: IMAGE_CONTENT, checksums });
  const names: string[] = [];
  /** The file whose object is being saved. One is at a time; others are kept until it is done. */
  let current: string | undefined;
  let waiting: { file: string; parts: Uint8Array[] }[] = [];

  const save = (file: string, parts: readonly Uint8Array[]) => {
    const object = node.prepareSaveObject();
    for (const part of parts) object.write(part);
    object.finishSaveObject();
    names.push(file);
  };
  const create = (file: string, size: number | undefined): Sink => {
    if (size !== undefined && current === undefined) {
      current = file;
      const object = node.prepareSaveObject();
      return {
        write: (bytes) => object.write(bytes),
        close() {
          object.finishSaveObject();
          names.push(file);
          current = undefined;
          for (const each of waiting) save(each.file, each.parts);
          waiting = [];
        },
      };
    }
    const parts: Uint8Array[] = [];
    return {
      write: (bytes) => void parts.push(bytes.slice()),
      close: () => (current === undefined ? save(file, parts) : void waiting.push({ file, parts })),
    };
  };
  const commit = () => {
    if (current !== undefined) throw new OrderError(`commit: ${current} is still being written`);
    save('', [Buffer.from(JSON.stringify(parent === undefined ? names : { names, parent }))]);
    node.finishSave();
  };
  const abort = () => node[Symbol.dispose]();
  // Without its names nobody finds the objects.
  const keep = () => 'nothing';
  try {
    return { ...draftOn({ create, commit, abort, keep }, info), commitsAtOnce: true };
  } catch (error) {
    abort();
    throw error;
  }
}

/** The image in a node, which stays on the list. Close it before the node is removed. @throws NoSuchNodeError, FormatError */
export function openImage(pkram: Pkram, name: string): ImageStore {
  return openChained(pkram, name, []);
}

/** @param later nodes with the images that build on it */
function openChained(pkram: Pkram, name: string, later: readonly string[]): ImageStore {
  const peek = pkram.peek(name, { verify: true });
  try {
    const source = `node ${JSON.stringify(name)}`;
    const objects = [...peek.objects()];
    const { names, parent } = readNames(objects.pop(), objects.length, source);
    const files = new Map(names.map((file, i) => [file, objects[i]!]));
    const chain = [...later, name];
    if (parent !== undefined && chain.includes(parent)) {
      throw new FormatError({ file: source, field: 'parent', expected: 'an earlier image', found: parent });
    }
    let earlier: ImageStore | undefined;
    return {
      name: source,
      names: () => [...files.keys()].sort(),
      has: (file) => files.has(file),
      open(file) {
        const object = files.get(file);
        if (object === undefined) throw missing(source, file);
        const read = (into: Uint8Array, position: number) => object.readAt(into, position);
        return { name: `${source}, ${file}`, size: object.byteCount, read, close() {} };
      },
      parent() {
        if (parent !== undefined) earlier ??= openChained(pkram, parent, chain);
        return earlier;
      },
      close() {
        earlier?.close();
        peek[Symbol.dispose]();
      },
    };
  } catch (error) {
    peek[Symbol.dispose]();
    throw error;
  }
}

interface Names {
  readonly names: readonly string[];
  readonly parent: string | undefined;
}

function readNames(object: ObjectReader | undefined, count: number, source: string): Names {
  const fail = (found: string): never => {
    throw new FormatError({ file: source, field: 'names', expected: `${count} names of image files`, found });
  };
  if (object === undefined) return fail('no object');
  let read: unknown;
  try {
    read = JSON.parse(Buffer.from(object.readAll()).toString('utf8'));
  } catch (error) {
    return fail((error as Error).message);
  }
  const { names, parent } = (Array.isArray(read) ? { names: read } : (read ?? {})) as Record<string, unknown>;
  if (!Array.isArray(names) || names.length !== count) return fail('another number');
  if (new Set(names).size !== count || !names.every((name) => typeof name === 'string' && isImageFile(name))) {
    return fail('other names');
  }
  if (parent !== undefined && typeof parent !== 'string') return fail('a parent that is no name');
  return { names, parent };
}
