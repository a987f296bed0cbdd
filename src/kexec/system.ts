/**
 * The system of a kernel that has nothing else: Node, tideover and what else is asked for, with their libraries, in one
 * squashfs. It is made of this machine's own files by mksquashfs(1), and kept for as long as these do not change.
 *
 *     usr/bin/node             without symbols
 *     usr/bin, usr/lib ...     programs and libraries
 *     opt/tideover             the command line in one file, what a capture kernel or one of a hibernation needs of it in others,
 *                              koffi
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { UnsupportedError } from '../errors.ts';
import { readElf } from '../mem/elf.ts';
import { closure, mergedPath, stripped } from './closure.ts';

export interface SystemRequest {
  /** Where images are kept. */
  readonly cache?: string;
  /** The node that goes into it; this one where not given. */
  readonly node?: string;
  /** Folder with the programs and koffi.node; the installed one where not given. */
  readonly bundle?: string;
  /** Paths of further programs and files of this machine. */
  readonly programs?: readonly string[];
}

/** As the kernel's own initramfs sees it. */
export const NODE = '/usr/bin/node';
const FOLDER = '/opt/tideover';
export const BUNDLE = join(FOLDER, 'tideover-single.mjs');
/** The commands that follow a panic: it takes a third of the memory. */
export const CAPTURE_BUNDLE = join(FOLDER, 'tideover-capture.mjs');
/** What the kernels that save and restore a machine do. */
export const HIBERNATE_BUNDLE = join(FOLDER, 'tideover-hibernate.mjs');

const CACHE = '/var/lib/tideover';
const MONTH = 30 * 24 * 3600_000;

/** Path of the image. @throws UnsupportedError where mksquashfs or a library is missing */
export function systemImage(request: SystemRequest = {}): string {
  const { cache = CACHE, node = process.execPath, bundle = bundleFolder(), programs = [] } = request;
  const koffi = join(bundle, 'koffi.node');
  const place = (path: string) => {
    if (path === node) return NODE;
    return path === koffi ? join(FOLDER, 'koffi.node') : mergedPath(path);
  };
  const content = (path: string) => {
    const bytes = readFileSync(path);
    return path === node ? stripped(readElf(bytes, path)) : bytes;
  };
  const files = new Map(closure([node, koffi, ...programs]).map((path) => [place(path), path]));
  for (const program of [BUNDLE, CAPTURE_BUNDLE, HIBERNATE_BUNDLE]) files.set(program, join(bundle, basename(program)));
  const sorted = [...files].sort(([a], [b]) => (a < b ? -1 : 1));
  const hash = createHash('sha256').update('1');
  for (const [to, path] of sorted) hash.update(JSON.stringify([to, sha256(content(path))]));
  const image = join(cache, `system-${hash.digest('hex').slice(0, 24)}.sqfs`);
  if (existsSync(image)) utimesSync(image, new Date(), new Date());
  else make(image, sorted, content);
  removeUnused(cache);
  return image;
}

function make(
  image: string,
  files: readonly (readonly [string, string])[],
  content: (path: string) => Uint8Array,
): void {
  mkdirSync(dirname(image), { recursive: true, mode: 0o700 });
  const scratch = mkdtempSync(join(dirname(image), 'making-'));
  try {
    const stage = join(scratch, 'stage');
    for (const [to, path] of files) {
      const at = join(stage, to);
      mkdirSync(dirname(at), { recursive: true });
      if (to === NODE) writeFileSync(at, content(path), { mode: 0o755 });
      else copyFileSync(path, at);
    }
    const made = join(scratch, 'image');
    // Level 15 packs it to 37 MB in 9 s, level 9 to 40 MB in 2 s: it is memory that is set aside for good.
    const options = ['-noappend', '-no-progress', '-quiet', '-all-root', '-comp', 'zstd', '-Xcompression-level', '15'];
    execFileSync('mksquashfs', [stage, made, ...options], { stdio: ['ignore', 'pipe', 'pipe'] });
    renameSync(made, image);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || (error as NodeJS.ErrnoException).path !== 'mksquashfs') {
      throw error;
    }
    throw new UnsupportedError({
      what: 'packing a system for another kernel',
      why: 'there is no mksquashfs',
      remedy: 'install squashfs-tools',
    });
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** Those of programs and libraries that have been replaced since. */
function removeUnused(cache: string): void {
  for (const name of readdirSync(cache)) {
    const path = join(cache, name);
    if (/^system-[0-9a-f]{24}\.sqfs$/.test(name) && statSync(path).mtimeMs < Date.now() - MONTH)
      rmSync(path, { force: true });
  }
}

/** Where the installed tideover, a checkout of it, or the system of a capture kernel has it. */
function bundleFolder(): string {
  const places = ['.', '..', '../../dist'].map((each) => join(import.meta.dirname, each));
  const found = places.find((folder) => existsSync(join(folder, 'tideover-single.mjs')));
  if (found !== undefined) return found;
  throw new UnsupportedError({
    what: 'packing a system for another kernel',
    why: `tideover-single.mjs is in none of ${places.join(', ')}`,
    remedy: 'install tideover again; in a checkout: npm run build',
  });
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
