/**
 * Open files that are not part of the image: a checkpoint is told of them (CRIU's `--external`), and whoever restores brings them
 * along (`--inherit-fd`). Both name them in CRIU's words:
 *
 *     file[MNT:INODE]   both in hexadecimal      pipe[INODE], pipe:[INODE]      unix[INODE], socket[INODE], socket:[INODE]
 *
 * and a restore also by their path, without the first slash or with it.
 */
import { UnsupportedError } from '../../errors.ts';
import type { FileEntry, OpenFile } from './file.ts';

/** Descriptors of this process by what they stand for, as normalKey() has it. */
export type Inherited = ReadonlyMap<string, number>;

/** One form for all spellings, or undefined for what is not an open file of these kinds. */
export function normalKey(key: string): string | undefined {
  const match = /^(file|pipe|unix|socket):?\[([\da-f:]+)\]$/i.exec(key);
  if (match === null) return undefined;
  const kind = match[1] === 'unix' ? 'socket' : match[1]!;
  return `${kind}[${match[2]!.toLowerCase()}]`;
}

/** What an open file is called. */
function keyOf({ link, stat, info }: OpenFile): string | undefined {
  return link.startsWith('/') ? `file[${info.mnt_id.toString(16)}:${stat.stx_ino.toString(16)}]` : normalKey(link);
}

/** The name of an open file by which it was said not to be part of the image. */
export function externalKey(file: OpenFile, external: readonly string[]): string | undefined {
  const key = keyOf(file);
  return key !== undefined && external.some((each) => normalKey(each) === key) ? key : undefined;
}

/** Whether a file of an image is not part of it, and what it is called: all names under which it may be brought. */
export function namesOf({ reg, pipe, usk }: FileEntry): { names: string[]; external: boolean } {
  if (reg !== undefined) {
    const path = reg.name.replace(/^\//, '');
    return { names: [normalKey(reg.name) ?? path, path], external: reg.ext === true };
  }
  if (pipe !== undefined) return { names: [`pipe[${pipe.pipe_id}]`], external: pipe.external === true };
  if (usk !== undefined) return { names: [`socket[${usk.ino}]`], external: usk.external === true };
  return { names: [], external: false };
}

/** What to say of a file that nobody brings. */
export function notBrought(name: string): UnsupportedError {
  return new UnsupportedError({
    what: name,
    why: 'it is not part of the image, as the checkpoint was told',
    remedy: `bring it: --inherit-fd 'fd[N]:${name}', where N is a descriptor that tideover is started with`,
  });
}
