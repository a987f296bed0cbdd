/** CRIU and crit as Debian has them. Their absence fails a test. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { copyProgram, fetchFrom, fetchPrograms } from './fetched.ts';

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

/** Fetches them once; a later call of any process finds them in the cache. */
export async function fetchCriu(): Promise<Criu> {
  const fetched = await fetchPrograms('criu', 'python3-pycriu', 'python3-protobuf');
  const { root, version } = fetched;
  const command = fetched.command('usr/sbin/criu');
  const [program, ...first] = command;
  return {
    version,
    command,
    criu(...args) {
      execFileSync(program, [...first, ...args], { stdio: ['ignore', 'pipe', 'pipe'], timeout: 300_000 });
    },
    crit: (...args) => python(root, [join(root, 'usr/bin/crit'), ...args]),
    decode: (images) =>
      python(root, ['-c', DECODE, ...images])
        .trimEnd()
        .split('\n'),
    encode: (texts) => void python(root, ['-c', ENCODE, ...texts]),
  };
}

/** CRIU of one suite for a guest: see {@link copyProgram}. */
export async function copyCriu(suite: string, to: string): Promise<void> {
  copyProgram(await fetchFrom(suite, 'criu'), 'usr/sbin/criu', to);
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
    timeout: 300_000,
  });
}
