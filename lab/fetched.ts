/**
 * Programs as Debian has them, the newest of all suites: fetched through the machine's own mirror, unpacked below the cache and
 * started with the libraries they were built against, so that nothing is installed.
 */
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type Available, available, download, record } from './apt.ts';
import { cacheDirectory, exclusively } from './cache.ts';
import { run } from './command.ts';
import { compareVersions } from './debian-version.ts';

export interface Fetched {
  /** `4.2.1`: what upstream calls it. */
  readonly version: string;
  /** The packages, unpacked. */
  readonly root: string;
  /** How a program of them is started, by its path below the root; its arguments come behind. */
  command(path: string): readonly [string, ...string[]];
}

/**
 * Fetches them once; a later call of any process finds them in the cache.
 * @param packages the first names the folder in the cache, and its version is that of all
 */
export function fetchPrograms(...packages: readonly [string, ...string[]]): Promise<Fetched> {
  return fetchFrom('', ...packages);
}

/** The same out of one suite and those that begin as it does. */
export async function fetchFrom(suite: string, ...packages: readonly [string, ...string[]]): Promise<Fetched> {
  const [name] = packages;
  const newest = await newestOf(name, suite);
  // Without the epoch, which no path of Debian's has either.
  const root = join(cacheDirectory(), name, newest.version.replace(/^\d+:/, ''));
  if (!existsSync(root)) await exclusively(name, (scratch) => unpackAll(suite, packages, scratch, root));
  const libraries = join(root, 'usr/lib/x86_64-linux-gnu');
  const loader = join(root, 'usr/lib64/ld-linux-x86-64.so.2');
  return {
    version: newest.version.replace(/^\d+:|-.*/g, ''),
    root,
    command: (path) => [loader, '--library-path', libraries, join(root, path)],
  };
}

/**
 * A program for a guest: copies it into a folder, with the libraries that it was built against. There
 * `FOLDER/ld-linux-x86-64.so.2 --library-path FOLDER FOLDER/NAME` starts it.
 *
 * @param program its path below the root
 */
export function copyProgram({ root }: Fetched, program: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const folder of ['lib', 'usr/lib'].map((name) => join(root, name, 'x86_64-linux-gnu')).filter(existsSync)) {
    for (const name of readdirSync(folder).filter((each) => /\.so(\.|$)/.test(each))) {
      if (statSync(join(folder, name)).isFile()) copyFileSync(join(folder, name), join(to, name));
    }
  }
  copyFileSync(join(root, program), join(to, basename(program)));
}

async function newestOf(name: string, suite: string): Promise<Available> {
  const versions = (await available(name, (found) => found === name)).filter((each) => each.suite.startsWith(suite));
  const newest = versions.sort((a, b) => compareVersions(a.version, b.version)).at(-1);
  if (newest === undefined) throw new Error(`${name} is in none of the archive's suites ${suite}`.trimEnd());
  return newest;
}

/** The programs and the libraries that they need, and those that these need. */
async function unpackAll(suite: string, packages: readonly string[], scratch: string, root: string): Promise<void> {
  if (existsSync(root)) return;
  const unpacked = join(scratch, 'root');
  const wanted = [...packages];
  for (const name of wanted) {
    const version = await newestOf(name, suite);
    const paragraph = await record(name, version.version);
    const directory = join(scratch, name);
    mkdirSync(directory);
    const deb = await download({ ...version, sha256: paragraph!.get('sha256')! }, directory);
    await run(['dpkg-deb', '-x', deb, unpacked]);
    for (const library of dependencies(paragraph!.get('depends') ?? '')) {
      if (!wanted.includes(library)) wanted.push(library);
    }
  }
  mkdirSync(join(root, '..'), { recursive: true });
  renameSync(unpacked, root);
}

/** Libraries of a Depends field, the first of alternatives. Interpreters and the like are the machine's. */
function dependencies(depends: string): string[] {
  return depends
    .split(',')
    .map((each) => each.trim().split(/[\s:(|]/)[0]!)
    .filter((name) => name.startsWith('lib'));
}
