/**
 * Files of an image that have not the name by which they were opened: deleted ones, which CRIU calls ghosts, and those that have
 * only another name left. They get it for as long as the restore needs it.
 */
import {
  fchmodSync,
  fchownSync,
  ftruncateSync,
  futimesSync,
  lchownSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  unlinkSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { AT_FDCWD, O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW, O_RDWR } from '../abi/fcntl.ts';
import { S_IFDIR, S_IFMT, S_IFREG } from '../abi/stat.ts';
import { UnsupportedError } from '../errors.ts';
import { isRecord, readBlob, records } from '../image/file.ts';
import type { reg_file_entry } from '../image/messages/descriptors.ts';
import { ghost_chunk_entry, ghost_file_entry } from '../image/messages/files.ts';
import type { Value } from '../image/proto.ts';
import { type ImageStore, withSource } from '../image/store.ts';
import { entriesOf } from '../image/tree.ts';
import { fileName, images } from '../image/types.ts';
import { close, mknodat } from '../sys/files.ts';
import { makeFolders, removeEmpty } from '../sys/folder.ts';
import { writeAt } from './files/holes.ts';
import { openNamed } from './files/path.ts';
import type { Restoring } from './restoring.ts';

type Regular = Value<typeof reg_file_entry>;

export class Nameless {
  readonly #store: ImageStore;
  readonly #restoring: Restoring;
  /** By the id of a file without its name: the deleted one that is made again, or the one that has its other name. */
  readonly #ghosts: ReadonlyMap<number, number>;
  readonly #links: ReadonlyMap<number, number>;
  /** The first name that a deleted one got: others are links to it. */
  readonly #made = new Map<number, string>();

  /** @throws UnsupportedError where one is kept in another way */
  constructor(store: ImageStore, restoring: Restoring) {
    this.#store = store;
    this.#restoring = restoring;
    const remaps = store.has(fileName(images.REMAP_FPATH)) ? entriesOf(store, images.REMAP_FPATH) : [];
    const kept = (type: (typeof remaps)[number]['remap_type']) =>
      new Map(remaps.filter((each) => each.remap_type === type).map(({ orig_id, remap_id }) => [orig_id, remap_id]));
    this.#ghosts = kept('GHOST');
    this.#links = kept('LINKED');
    const other = remaps.find(({ orig_id }) => !this.#ghosts.has(orig_id) && !this.#links.has(orig_id));
    if (other === undefined) return;
    throw new UnsupportedError({
      what: `file ${other.orig_id} of the image`,
      why: `it is kept by another name (${other.remap_type}), which cannot be restored yet`,
      remedy: 'restore it with CRIU',
    });
  }

  /** The path by which such a file can be opened; undefined for one that has its name. */
  pathOf({ id, name }: Regular): string | undefined {
    const link = this.#links.get(id);
    if (link !== undefined) return this.#restoring.once(`link ${link} ${name}`, () => this.#makeLink(link, name));
    const ghost = this.#ghosts.get(id);
    if (ghost === undefined) return undefined;
    return this.#restoring.once(`ghost ${ghost} ${name}`, () => {
      const path = this.#makeGhost(ghost, name);
      if (!this.#made.has(ghost)) this.#made.set(ghost, path);
      return path;
    });
  }

  /** Makes a deleted file again, with its content. */
  #makeGhost(id: number, name: string): string {
    const file = fileName(images.GHOST_FILE, id);
    return withSource(this.#store, file, (source) =>
      this.#restoring.root.within(() => {
        let path = name;
        let fd = -1;
        let times: [number, number] | undefined;
        for (const record of records(source)) {
          if (isRecord(record, ghost_file_entry)) {
            const { mode, uid, gid, size, atim, mtim, rdev, symlnk_target } = record.value;
            if (symlnk_target !== undefined) {
              path = this.#createGhost(id, name, false, (at) => symlinkSync(symlnk_target, at));
              lchownSync(path, uid, gid);
              continue;
            }
            const kind = mode & S_IFMT;
            path = this.#createGhost(id, name, kind === S_IFDIR, (at) => {
              if (kind === S_IFDIR) mkdirSync(at);
              else if (kind === S_IFREG) makeNode(at, S_IFREG | 0o600, 0);
              else makeNode(at, mode, rdev ?? 0);
            });
            if (atim !== undefined && mtim !== undefined) times = [Number(atim.tv_sec), Number(mtim.tv_sec)];
            if (kind !== S_IFREG && kind !== S_IFDIR) {
              lchownSync(path, uid, gid);
              continue;
            }
            // Its name may be in a directory of another user, who could have it lead elsewhere by now.
            fd = openNamed(path, (kind === S_IFDIR ? O_DIRECTORY : O_RDWR) | O_NOFOLLOW | O_CLOEXEC);
            if (kind === S_IFREG && size !== undefined) ftruncateSync(fd, size);
            if (record.blobSize > 0) writeAt(fd, readBlob(source, record), 0);
            fchownSync(fd, uid, gid);
            fchmodSync(fd, mode & 0o7777);
          } else if (isRecord(record, ghost_chunk_entry)) {
            writeAt(fd, readBlob(source, record), record.value.off);
          }
        }
        // What was written has changed them.
        if (times !== undefined && fd < 0) lutimesSync(path, ...times);
        if (times !== undefined && fd >= 0) futimesSync(fd, ...times);
        if (fd >= 0) close({ fd });
        return path;
      }),
    );
  }

  /** Its name, for as long as that is free; the one that the checkpoint gave it goes with the restore. */
  #makeLink(id: number, name: string): string {
    const other = this.#restoring.entry(id).reg!.name;
    if (this.#restoring.first(`remap ${other}`))
      this.#restoring.atLast(() => this.#restoring.root.within(() => rmSync(other)));
    try {
      this.#restoring.root.within(() => linkSync(other, name));
    } catch {
      return other;
    }
    this.#restoring.atEnd(() => this.#restoring.root.within(() => unlinkSync(name)));
    return name;
  }

  /** Under its own name, so that it is seen under that after it is deleted again; or, if that is taken, under one beside it. */
  #createGhost(id: number, name: string, directory: boolean, create: (path: string) => void): string {
    const before = this.#made.get(id);
    // The directory that it was in may be gone as well.
    const parents = makeFolders(dirname(name));
    this.#restoring.atEnd(() => this.#restoring.root.within(() => removeEmpty(parents)));
    const make = (path: string): string => {
      if (before !== undefined && !directory) linkSync(before, path);
      else create(path);
      this.#restoring.atEnd(() => this.#restoring.root.within(() => (directory ? rmdirSync(path) : unlinkSync(path))));
      return path;
    };
    try {
      return make(name);
    } catch {
      return make(`${name}.${process.pid}.ghost`);
    }
  }
}

/** Makes a file with the very mode that is asked for. */
function makeNode(pathname: string, mode: number, dev: number): void {
  const before = process.umask(0);
  try {
    mknodat({ dirfd: AT_FDCWD, pathname, mode, dev });
  } finally {
    process.umask(before);
  }
}
