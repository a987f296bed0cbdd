/**
 * Debian's archive beyond the machine's own release: apt with package lists and sources of its own in the cache, which
 * leaves the machine's package management alone and needs no root. Mirror, proxies and other network settings are the
 * machine's; signatures are verified with the installed archive keyring.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { VerifyError } from '../src/errors.ts';
import { type AptSource, debianArchive, machineSources, type Paragraph, parseParagraphs } from './apt-sources.ts';
import { cacheDirectory, exclusively } from './cache.ts';
import { CommandError, run, say } from './command.ts';
import { requirePackages } from './packages.ts';

/** Suites with kernels other than the machine's own, oldest first. */
const suites = ['bookworm', 'bookworm-backports', 'trixie', 'trixie-backports', 'sid'];

const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** A version of a package that the archive offers. */
export interface Available {
  readonly package: string;
  readonly version: string;
  readonly suite: string;
}

/** A package, exactly. */
export interface Deb extends Available {
  /** Of the .deb. */
  readonly sha256: string;
}

/** The environment with which apt's programs see the private lists. */
type Apt = Readonly<Record<string, string>>;

let opened: Promise<Apt> | undefined;

/** Brings the lists up to date, once in the life of this process. Without a network the lists stay what they are. */
function apt(): Promise<Apt> {
  opened ??= open();
  return opened;
}

async function open(): Promise<Apt> {
  await requirePackages('archive keys');
  return exclusively('apt', async (scratch) => {
    const directory = join(cacheDirectory(), 'apt');
    mkdirSync(join(directory, 'lists', 'partial'), { recursive: true });
    mkdirSync(join(directory, 'archives', 'partial'), { recursive: true });
    const place = (name: string, text: string) => {
      writeFileSync(join(scratch, name), text);
      renameSync(join(scratch, name), join(directory, name));
    };
    const codename = /^VERSION_CODENAME="?([\w.-]+)/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? '';
    place('debian.sources', privateSources(machineSources('/etc/apt'), codename));
    place('apt.conf', configuration(directory, await run(['apt-config', 'dump'])));
    const environment = { APT_CONFIG: join(directory, 'apt.conf') };
    say("reading the lists of Debian's archive");
    try {
      await run(['apt-get', '-q', 'update'], { env: environment, onLine: sayTroubles });
    } catch (error) {
      // Status 100 also means that one of the suites is gone from the mirror; the others are there.
      if (!(error instanceof CommandError)) throw error;
    }
    return environment;
  });
}

function sayTroubles(line: string): void {
  if (/^[EW]:/.test(line)) say(line);
}

/** The machine's Debian entries, and all of `suites` from its mirror. `Targets` leaves out what only people search. */
export function privateSources(machine: readonly AptSource[], codename: string): string {
  const archive = debianArchive(machine, codename);
  const others = suites.filter((suite) => !archive.sources.some((source) => source.suites.includes(suite)));
  const stanza = (uris: readonly string[], of: readonly string[], signedBy: string) =>
    [
      'Types: deb',
      `URIs: ${uris.join(' ')}`,
      `Suites: ${of.join(' ')}`,
      'Components: main',
      'Targets: Packages',
      `Signed-By: ${signedBy || keyring}`,
      '',
    ].join('\n');
  const stanzas = archive.sources.map((source) => stanza(source.uris, source.suites, source.signedBy));
  if (others.length > 0) stanzas.push(stanza(archive.uris, others, keyring));
  return stanzas.join('\n');
}

/**
 * apt.conf(5) for the private lists. Of the machine's own settings (`apt-config dump`) only those of downloading are
 * kept: its hooks, pins and cache settings are about its own packages.
 */
export function configuration(directory: string, dump: string): string {
  const downloading = dump
    .split('\n')
    .filter((line) => /^Acquire::/.test(line) && !/^Acquire::(IndexTargets|Languages|GzipIndexes)\b/.test(line));
  return [
    ...downloading,
    'Acquire::Languages "none";',
    'Acquire::GzipIndexes "true";',
    'Acquire::Retries "3";',
    'APT::Architecture "amd64";',
    'APT::Architectures { "amd64"; };',
    // The cache belongs to this user alone, so apt must not become user _apt.
    'APT::Sandbox::User "";',
    'Dir::Etc::main "/dev/null";',
    'Dir::Etc::parts "/dev/null";',
    `Dir::Etc::sourcelist "${join(directory, 'debian.sources')}";`,
    'Dir::Etc::sourceparts "/dev/null";',
    'Dir::Etc::preferences "/dev/null";',
    'Dir::Etc::preferencesparts "/dev/null";',
    `Dir::State "${directory}";`,
    `Dir::State::lists "${join(directory, 'lists')}";`,
    'Dir::State::status "/dev/null";',
    `Dir::Cache "${directory}";`,
    `Dir::Cache::archives "${join(directory, 'archives')}";`,
    `Dir::Cache::pkgcache "${join(directory, 'pkgcache.bin')}";`,
    'Dir::Cache::srcpkgcache "";',
    '',
  ].join('\n');
}

/** All versions in all suites of the packages whose name begins with `prefix` and that are `wanted`. */
export async function available(prefix: string, wanted: (name: string) => boolean): Promise<Available[]> {
  const env = await apt();
  return exclusively('apt', async () => {
    const names = (await run(['apt-cache', 'pkgnames', prefix], { env })).split('\n').filter(wanted);
    if (names.length === 0) return [];
    return parseMadison(await run(['apt-cache', 'madison', ...names], { env }));
  });
}

/** Reads `apt-cache madison`: `package | version | uri suite/component architecture Packages`, one a line. */
export function parseMadison(text: string): Available[] {
  return text.split('\n').flatMap((line) => {
    const [name, version, source] = line.split('|').map((column) => column.trim());
    const [, place, , kind] = (source ?? '').split(' ');
    if (place === undefined || kind !== 'Packages') return [];
    return [{ package: name!, version: version!, suite: place.slice(0, place.lastIndexOf('/')) }];
  });
}

/** The archive's record of one version of a package, or undefined when no suite has it. */
export async function record(name: string, version: string): Promise<Paragraph | undefined> {
  const env = await apt();
  return exclusively('apt', async () => {
    try {
      return parseParagraphs(await run(['apt-cache', 'show', `${name}=${version}`], { env }))[0];
    } catch (error) {
      if (error instanceof CommandError) return undefined;
      throw error;
    }
  });
}

/**
 * Downloads one version of a package into the empty `directory`, and returns the path of the .deb.
 * @throws CommandError when the archive does not give it, VerifyError when it is not the one that was recorded
 */
export async function download(deb: Deb, directory: string): Promise<string> {
  const { package: name, version, sha256 } = deb;
  const env = await apt();
  return exclusively('apt', async () => {
    say(`downloading ${name} ${version}`);
    const there = () => readdirSync(directory).map((file) => join(directory, file));
    const sayMore = () => {
      const bytes = there().reduce((sum, file) => sum + statSync(file).size, 0);
      say(`downloading ${name} ${version}: ${(bytes / 1e6).toFixed(0)} MB`);
    };
    const ticker = setInterval(sayMore, 10_000);
    try {
      await run(['apt-get', '-q', 'download', `${name}=${version}`], { env, cwd: directory });
    } finally {
      clearInterval(ticker);
    }
    const [file] = there();
    const found = createHash('sha256').update(readFileSync(file!)).digest('hex');
    if (found !== sha256) throw new VerifyError(`${name} ${version}: SHA-256`, sha256, found);
    return file!;
  });
}
