/** Debian's kernel packages: which one to take for a series, and what a virtual machine needs out of it. */
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { FormatError, UnsupportedError } from '../src/errors.ts';
import { type Available, available, type Deb, download, record } from './apt.ts';
import { run } from './command.ts';
import { compareVersions } from './debian-version.ts';

/**
 * linux-image-RELEASE of the generic flavour, signed; -cloud, -rt, -unsigned and -dbg do not match.
 * Group 1 is the kernel's release, group 2 its series.
 */
export const imagePackage = /^linux-image-((\d+\.\d+)\.\d+[^-]*(?:-\d+)?-amd64)$/;

/** linux-source-SERIES, the tree with Debian's patches. Group 2 is the series. */
export const sourcePackage = /^linux-source-((\d+\.\d+))$/;

/**
 * The newest package of `series` in any suite. When Debian has dropped the series: of the next one, or, when there
 * is none after it, of the last one before it. Undefined when there is no kernel at all.
 * @param pattern whose group 2 is the series in a package's name
 */
export function choose(offers: readonly Available[], pattern: RegExp, series: string): Available | undefined {
  const bySeries = Map.groupBy(offers, (offer) => pattern.exec(offer.package)?.[2] ?? '');
  bySeries.delete('');
  const offered = [...bySeries.keys()].sort(compareVersions);
  const chosen = offered.find((of) => compareVersions(of, series) >= 0) ?? offered.at(-1);
  return bySeries.get(chosen ?? '')?.reduce((a, b) => (compareVersions(a.version, b.version) >= 0 ? a : b));
}

/**
 * The packages that make up the newest stock kernel of a series (see {@link choose}): the image, and those of the same
 * release and version into which Debian has split it since 6.18.
 */
export async function newestImage(series: string): Promise<Deb[]> {
  const image = await newest('linux-image-', imagePackage, series);
  const release = imagePackage.exec(image.package)![1];
  const parts = new Set(['base', 'binary', 'modules'].map((part) => `linux-${part}-${release}`));
  const others = await available('linux-', (name) => parts.has(name));
  return Promise.all([image, ...others.filter(({ version }) => version === image.version)].map(exactly));
}

/** The package of the newest kernel source of a series (see {@link choose}). */
export async function newestSource(series: string): Promise<Deb[]> {
  return [await exactly(await newest('linux-source-', sourcePackage, series))];
}

async function newest(prefix: string, pattern: RegExp, series: string): Promise<Available> {
  const chosen = choose(await available(prefix, (name) => pattern.test(name)), pattern, series);
  if (chosen !== undefined) return chosen;
  throw new UnsupportedError({
    what: `kernel ${series}`,
    why: `the lists of Debian's archive have no ${prefix}* package`,
    remedy: 'look for the trouble with the network or the mirror that apt reported above',
  });
}

async function exactly(offer: Available): Promise<Deb> {
  const found = await record(offer.package, offer.version);
  const sha256 = found?.get('sha256');
  if (sha256 !== undefined) return { ...offer, sha256 };
  throw new FormatError({
    file: `apt's record of ${offer.package} ${offer.version}`,
    field: 'SHA256',
    expected: 'a checksum',
    found: 'none',
  });
}

/** Whether the archive still offers exactly these. */
export async function stillOffered(debs: readonly Deb[]): Promise<boolean> {
  for (const deb of debs) {
    if ((await record(deb.package, deb.version))?.get('sha256') !== deb.sha256) return false;
  }
  return true;
}

/**
 * Downloads a stock kernel and leaves in `into`: vmlinuz, config, lib/modules/RELEASE with the modules as shipped and
 * depmod's files. Debian's System.map is a placeholder and is left out.
 * @returns the kernel's release (uname -r)
 */
export async function unpackImage(debs: readonly Deb[], into: string): Promise<string> {
  const release = imagePackage.exec(debs[0]!.package)![1]!;
  const root = join(into, 'root');
  for (const [index, deb] of debs.entries()) {
    const directory = join(into, `deb${index}`);
    mkdirSync(directory);
    await run(['dpkg-deb', '-x', await download(deb, directory), root]);
    rmSync(directory, { recursive: true });
  }
  // Debian moved /lib into /usr with 6.12, and files from /boot beside the modules with 7.x.
  const first = (what: string, ...places: string[]) => {
    const found = places.map((place) => join(root, place)).find((place) => existsSync(place));
    if (found !== undefined) return found;
    throw new FormatError({
      file: debs.map((deb) => `${deb.package} ${deb.version}`).join(', '),
      field: what,
      expected: places.join(' or '),
      found: 'neither',
    });
  };
  const modules = first('modules', `lib/modules/${release}`, `usr/lib/modules/${release}`);
  const inModules = modules.slice(root.length + 1);
  renameSync(first('kernel', `boot/vmlinuz-${release}`, `${inModules}/vmlinuz`), join(into, 'vmlinuz'));
  renameSync(first('configuration', `boot/config-${release}`, `${inModules}/config`), join(into, 'config'));
  for (const left of ['System.map', 'build', 'source']) rmSync(join(modules, left), { force: true });
  mkdirSync(join(into, 'lib', 'modules'), { recursive: true });
  renameSync(modules, join(into, 'lib', 'modules', release));
  rmSync(root, { recursive: true });
  await run(['depmod', '-b', into, release], { env: { PATH: `${process.env.PATH}:/usr/sbin:/sbin` } });
  return release;
}
