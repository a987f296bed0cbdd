/** Builds the "jump" kernel: Debian's newest kernel source, x86_64_defconfig and the options of `config` beside this file. */
import { createHash } from 'node:crypto';
import { appendFileSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { VerifyError } from '../../src/errors.ts';
import { type Deb, download } from '../apt.ts';
import { requireRoom } from '../cache.ts';
import { CommandError, type CommandOptions, run, say } from '../command.ts';
import { requirePackages } from '../packages.ts';
import { differences } from './fragment.ts';

const fragmentFile = join(import.meta.dirname, 'config');

/** Variables by which a caller's environment could steer the build. */
const steering = ['ARCH', 'CROSS_COMPILE', 'KBUILD_OUTPUT', 'KCFLAGS', 'LLVM', 'MAKEFLAGS'];

/** The tree with its objects, DWARF included. */
const roomForTree = 7e9;

/** What the kernel depends on, as a name: the source's version and the fragment. */
export function jumpKey(source: Deb): string {
  return createHash('sha256')
    .update(`${source.version}\n`)
    .update(readFileSync(fragmentFile))
    .digest('hex')
    .slice(0, 12);
}

/**
 * Builds in `into` and leaves there vmlinuz, config, System.map, and vmlinux.zst with DWARF, to judge readers of a
 * crash dump by. The tree is removed.
 * @returns the kernel's release (uname -r)
 * @throws VerifyError when an option of the fragment did not come out as written
 */
export async function buildJump(source: Deb, into: string): Promise<string> {
  requireRoom(roomForTree, 'building the jump kernel');
  await requirePackages('kernel build');
  const tree = await unpackSource(source, into);
  const make = ['nice', 'make', `-j${availableParallelism()}`];
  const options = {
    cwd: tree,
    // The same source gives the same bytes.
    env: {
      KBUILD_BUILD_TIMESTAMP: '@0',
      KBUILD_BUILD_USER: 'tideover',
      KBUILD_BUILD_HOST: 'lab',
      ...Object.fromEntries(steering.map((name) => [name, undefined])),
    },
  };
  await run([...make, 'x86_64_defconfig'], options);
  appendFileSync(join(tree, '.config'), `\n${readFileSync(fragmentFile, 'utf8')}`);
  await run([...make, 'olddefconfig'], options);
  requireFragment(join(tree, '.config'));
  await compile([...make, 'bzImage'], options);
  const release = readFileSync(join(tree, 'include', 'config', 'kernel.release'), 'utf8').trim();
  renameSync(join(tree, 'arch', 'x86', 'boot', 'bzImage'), join(into, 'vmlinuz'));
  renameSync(join(tree, '.config'), join(into, 'config'));
  renameSync(join(tree, 'System.map'), join(into, 'System.map'));
  await run(['nice', 'zstd', '-q', '-T0', '-9', join(tree, 'vmlinux'), '-o', join(into, 'vmlinux.zst')]);
  rmSync(tree, { recursive: true });
  return release;
}

async function unpackSource(source: Deb, into: string): Promise<string> {
  const [packed, tree] = [join(into, 'source'), join(into, 'tree')];
  mkdirSync(packed);
  mkdirSync(tree);
  await run(['dpkg-deb', '-x', await download(source, packed), packed]);
  const [archive] = readdirSync(join(packed, 'usr', 'src')).filter((name) => name.endsWith('.tar.xz'));
  say(`unpacking ${archive}`);
  await run(['tar', '-xf', join(packed, 'usr', 'src', archive!), '-C', tree, '--strip-components=1']);
  rmSync(packed, { recursive: true });
  return tree;
}

function requireFragment(config: string): void {
  const wrong = differences(readFileSync(fragmentFile, 'utf8'), readFileSync(config, 'utf8'));
  if (wrong.length === 0) return;
  throw new VerifyError(`${fragmentFile}: options after olddefconfig`, 'all as written', `\n  ${wrong.join('\n  ')}`);
}

/** Says every half minute how far it is: on two cores this takes a quarter of an hour. */
async function compile(command: readonly string[], options: CommandOptions): Promise<void> {
  const start = performance.now();
  const lines: string[] = [];
  const elapsed = () => {
    const seconds = Math.round((performance.now() - start) / 1000);
    return `${Math.floor(seconds / 60)}m${String(seconds % 60).padStart(2, '0')}s`;
  };
  say('building the jump kernel, once: about 20 minutes of processor time');
  const ticker = setInterval(() => {
    say(`jump kernel: ${elapsed()}, ${lines.length} steps of about 3400, ${lines.at(-1)?.trim() ?? ''}`);
  }, 30_000);
  try {
    await run(command, { ...options, onLine: (line) => lines.push(line) });
  } catch (error) {
    // With several jobs the error does not stand in the last lines.
    if (!(error instanceof CommandError)) throw error;
    const errors = lines.filter((line) => /error:|Error \d|\*\*\*|FAILED/.test(line));
    throw new CommandError(command, error.status, [...errors.slice(0, 15), ...lines.slice(-5)].join('\n'));
  } finally {
    clearInterval(ticker);
  }
  say(`jump kernel: built in ${elapsed()}`);
}
