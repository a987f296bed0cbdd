/** The files of this machine that a program needs to run: itself, its interpreter, and its shared libraries. */
import { closeSync, existsSync, globSync, openSync, readFileSync, readSync, realpathSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { Elf64_Ehdr, PT_NULL } from '../abi/elf.ts';
import { UnsupportedError } from '../errors.ts';
import { dynamic, type ElfFile, interpreter, isElf, readElf } from '../mem/elf.ts';

/** ld.so(8): searched after everything that is configured. */
const trustedFolders = [
  '/lib/x86_64-linux-gnu',
  '/usr/lib/x86_64-linux-gnu',
  '/lib64',
  '/usr/lib64',
  '/lib',
  '/usr/lib',
];

/**
 * Paths of all files that the given ones need, with them, as the dynamic linker finds them by ld.so(8): RPATH,
 * RUNPATH, the folders of ld.so.conf(5), the trusted folders. Libraries that a program opens by itself later (dlopen)
 * are not found; they are given as files of their own. A script needs what its first line names. LD_LIBRARY_PATH
 * does not count: the guest has none.
 *
 * @param files paths of programs, libraries or scripts; other files need nothing
 * @throws UnsupportedError that names a library which this machine does not have
 */
export function closure(files: readonly string[]): string[] {
  const configured = [...configuredFolders('/etc/ld.so.conf'), ...trustedFolders];
  const found = new Set<string>();
  const loaders = new Set<string>();

  const add = (path: string, rpaths: readonly string[]) => {
    if (found.has(path)) return;
    found.add(path);
    const elf = open(path);
    if (elf === undefined) {
      const script = firstLine(path);
      // One whose interpreter this machine lacks does not run here either.
      if (script !== undefined && existsSync(script)) add(script, []);
      return;
    }
    const wants = dynamic(elf);
    const loader = interpreter(elf);
    if (loader !== undefined) {
      loaders.add(basename(loader));
      add(loader, []);
    }
    if (wants === undefined) return;
    // RUNPATH is for the object's own libraries; RPATH, where there is no RUNPATH, for all below it too.
    const own = folders(wants.runpath, path);
    const inherited = wants.runpath === undefined ? [...folders(wants.rpath, path), ...rpaths] : rpaths;
    const search = wants.runpath === undefined ? inherited : own;
    for (const name of wants.needed) {
      // The interpreter is in the process already when a library asks for it by name.
      if (!loaders.has(name)) add(locate(name, [...search, ...configured], path), inherited);
    }
  };

  for (const file of files) add(file, []);
  return [...found];
}

/**
 * The same program without section headers and whatever stands after the last segment (symbols, debug information):
 * nothing that running it needs.
 */
export function stripped(elf: ElfFile): Uint8Array {
  const ends = elf.segments.map(({ type, offset, filesz }) => (type === PT_NULL ? 0 : offset + filesz));
  const bytes = elf.bytes.slice(0, Math.max(Elf64_Ehdr.size, ...ends));
  const header = Elf64_Ehdr.read(bytes);
  Elf64_Ehdr.write({ ...header, e_shoff: 0n, e_shnum: 0, e_shstrndx: 0 }, bytes);
  return bytes;
}

/** Folders of a ld.so.conf(5), its includes followed. */
export function configuredFolders(file: string): string[] {
  if (!existsSync(file)) return [];
  return readFileSync(file, 'utf8')
    .split('\n')
    .map((line) => line.replace(/#.*/, '').trim())
    .flatMap((line) => {
      const include = /^include\s+(.*)$/.exec(line)?.[1];
      if (include === undefined) return line === '' || line.startsWith('hwcap') ? [] : [line];
      return globSync(join(dirname(file), include))
        .sort()
        .flatMap(configuredFolders);
    });
}

function folders(list: string | undefined, path: string): string[] {
  if (list === undefined) return [];
  const origin = dirname(realpathSync(path));
  return list
    .split(':')
    .filter((folder) => folder !== '')
    .map((folder) => folder.replace(/\$(ORIGIN|\{ORIGIN\})/g, origin));
}

function locate(name: string, search: readonly string[], neededBy: string): string {
  if (name.includes('/')) return name;
  const path = search.map((folder) => join(folder, name)).find((candidate) => open(candidate) !== undefined);
  if (path !== undefined) return path;
  throw new UnsupportedError({
    what: `library ${name}`,
    why: `${neededBy} needs it and it is in none of ${[...new Set(search)].join(', ')}`,
    remedy: 'install the package that has it',
  });
}

function open(path: string): ElfFile | undefined {
  if (!existsSync(path) || !isElf(head(path))) return undefined;
  return readElf(readFileSync(path), path);
}

/** The program that runs a script, by its first line (execve(2), "Interpreter scripts"). */
function firstLine(path: string): string | undefined {
  return /^#!\s*(\S+)/.exec(Buffer.from(head(path)).toString('latin1'))?.[1];
}

function head(path: string): Uint8Array {
  const bytes = new Uint8Array(256);
  const fd = openSync(path, 'r');
  try {
    return bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, 0));
  } finally {
    closeSync(fd);
  }
}

/** Where a file stands on a system whose /bin, /sbin, /usr/sbin, /lib and /lib64 are links into /usr. */
export function mergedPath(path: string): string {
  return path.replace(/^\/(usr\/)?s?bin\//, '/usr/bin/').replace(/^\/lib(64)?\//, '/usr/lib$1/');
}
