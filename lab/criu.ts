/**
 * CRIU and crit as Debian has them, the newest of all suites: fetched through the machine's own mirror, unpacked below the
 * cache and started with the libraries they were built against, so that nothing is installed. Their absence fails a test.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { available, download, record } from './apt.ts';
import { cacheDirectory, exclusively } from './cache.ts';
import { run } from './command.ts';
import { compareVersions } from './debian-version.ts';

export interface Criu {
  /** `4.2.1` */
  readonly version: string;
  /** How criu is started; its arguments come behind. */
  readonly command: readonly [string, ...string[]];
  /** Runs criu to its end; throws with its last lines where it fails. */
  criu(...args: string[]): void;
  /** Runs crit and returns what it prints. */
  crit(...args: string[]): string;
  /** `crit decode` of many images, by crit's library, in the time that one takes: the texts in the same order. */
  decode(images: readonly string[]): string[];
  /** `crit encode` of many texts, into files of the same names with `.img` behind. */
  encode(texts: readonly string[]): void;
}

const PROGRAMS = ['criu', 'python3-pycriu', 'python3-protobuf'];

/** Fetches them once; a later call of any process finds them in the cache. */
export async function fetchCriu(): Promise<Criu> {
  const newest = await newestOf('criu');
  const root = join(cacheDirectory(), 'criu', newest.version);
  if (!existsSync(root)) await exclusively('criu', (scratch) => unpackAll(scratch, root));
  const libraries = join(root, 'usr/lib/x86_64-linux-gnu');
  const loader = join(root, 'usr/lib64/ld-linux-x86-64.so.2');
  const command = [loader, '--library-path', libraries, join(root, 'usr/sbin/criu')] as const;
  return {
    version: newest.version.replace(/-.*/, ''),
    command,
    criu(...args) {
      execFileSync(loader, [...command.slice(1), ...args], { stdio: ['ignore', 'pipe', 'pipe'], timeout: 120_000 });
    },
    crit: (...args) => python(root, [join(root, 'usr/bin/crit'), ...args]),
    decode: (images) =>
      python(root, ['-c', DECODE, ...images])
        .trimEnd()
        .split('\n'),
    encode: (texts) => void python(root, ['-c', ENCODE, ...texts]),
  };
}

const DECODE = `
import json, sys, pycriu
for name in sys.argv[1:]: print(json.dumps(pycriu.images.load(open(name, "rb"))))
`;
const ENCODE = `
import json, sys, pycriu
for name in sys.argv[1:]: pycriu.images.dump(json.load(open(name)), open(name + ".img", "w+b"))
`;

function python(root: string, args: readonly string[]): string {
  const PYTHONPATH = join(root, 'usr/lib/python3/dist-packages');
  return execFileSync('python3', args, {
    encoding: 'utf8',
    env: { ...process.env, PYTHONPATH, PYTHONDONTWRITEBYTECODE: '1' },
    maxBuffer: 1 << 28,
    timeout: 120_000,
  });
}

interface Version {
  readonly package: string;
  readonly version: string;
  readonly suite: string;
}

async function newestOf(name: string): Promise<Version> {
  const versions = await available(name, (found) => found === name);
  const newest = versions.sort((a, b) => compareVersions(a.version, b.version)).at(-1);
  if (newest === undefined) throw new Error(`${name} is in none of the archive's suites`);
  return newest;
}

/** The programs and the libraries that they need, and those that these need. */
async function unpackAll(scratch: string, root: string): Promise<void> {
  if (existsSync(root)) return;
  const unpacked = join(scratch, 'root');
  const wanted = [...PROGRAMS];
  for (const name of wanted) {
    const version = await newestOf(name);
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
