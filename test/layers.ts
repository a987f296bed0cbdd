/**
 * The rule of the layers, checked: a folder of src/ imports only what stands on a lower level. Run as a program it
 * checks this checkout and exits 1 with a line for each import against the rule.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';

/** Bottom up. Parts of one level do not import each other. errors.ts, fsync.ts, crc32.ts and version.ts belong to no part and serve all. */
const levels: readonly (readonly string[])[] = [
  ['errors.ts'],
  ['version.ts', 'fsync.ts', 'crc32.ts'],
  ['abi'],
  ['mem', 'asm', 'sys', 'image'],
  ['pkram', 'process', 'kexec', 'crash'],
  ['target'],
  ['hibernate', 'capture'],
  ['update'],
  ['cli', 'server'],
];

/** Beyond the levels: these read anybody's image or dump, unprivileged and on any platform. */
const neverSys = new Set(['abi', 'image', 'crash']);

/** errors.ts names errno values. */
const exceptions = new Set(['errors.ts -> abi/errno.ts']);

/** What is wrong with `from` importing `to`, both relative to src/, or undefined. */
export function violation(from: string, to: string): string | undefined {
  const [fromPart, toPart] = [partOf(from), partOf(to)];
  if (fromPart === toPart || exceptions.has(`${from} -> ${to}`)) return undefined;
  const [fromLevel, toLevel] = [levelOf(fromPart), levelOf(toPart)];
  if (fromLevel < 0) return `${fromPart} is in no layer`;
  if (toLevel < 0) return `${toPart} is in no layer`;
  if (neverSys.has(fromPart) && toPart === 'sys') return `${fromPart} never imports sys`;
  if (fromLevel === toLevel) return `${fromPart} and ${toPart} are on one level`;
  if (fromLevel < toLevel) return `${toPart} stands above ${fromPart}`;
  return undefined;
}

/** All violations below `src`, and koffi anywhere but in sys/syscall.ts, one line each. */
export function check(src: string): string[] {
  const found: string[] = [];
  for (const file of sources(src)) {
    const from = relative(src, file);
    for (const specifier of imports(readFileSync(file, 'utf8'))) {
      if (/^(koffi|@koromix)/.test(specifier) && from !== 'sys/syscall.ts') {
        found.push(`${from}: imports ${specifier}: only sys/syscall.ts does`);
      }
      if (!specifier.startsWith('.')) continue;
      const to = relative(src, normalize(join(dirname(file), specifier)));
      const wrong = to.startsWith('..') ? 'leaves src' : violation(from, to);
      if (wrong !== undefined) found.push(`${from}: imports ${to}: ${wrong}`);
    }
  }
  return found;
}

/** Specifiers of static, type-only, re-exporting and dynamic imports. */
export function imports(source: string): string[] {
  const code = source.replace(/\/\*[\s\S]*?\*\//g, '');
  const pattern =
    /(?:^|[;}\n])\s*(?:import|export)\b[^'"`;]*?\bfrom\s*['"]([^'"]+)['"]|\bimport\s*\(?\s*['"]([^'"]+)['"]/g;
  return [...code.matchAll(pattern)].map((match) => (match[1] ?? match[2])!);
}

function sources(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(folder, name))
    .sort();
}

function partOf(path: string): string {
  return path.split('/')[0]!;
}

function levelOf(part: string): number {
  return levels.findIndex((level) => level.includes(part));
}

if (import.meta.main) {
  const found = check(new URL('../src', import.meta.url).pathname);
  for (const line of found) console.error(line);
  process.exitCode = found.length > 0 ? 1 : 0;
}
