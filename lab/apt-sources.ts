/** apt's source files in both their formats (sources.list(5)), and which of a machine's entries are Debian's archive. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { UnsupportedError } from '../src/errors.ts';

/** One entry. Lists hold at least one element, except `components` of a flat repository. */
export interface AptSource {
  readonly types: readonly string[];
  readonly uris: readonly string[];
  readonly suites: readonly string[];
  readonly components: readonly string[];
  /** Path of the keyring, or '' where the entry names none or carries the key itself. */
  readonly signedBy: string;
}

/** Fields of one paragraph of a deb822(5) file, by lower-cased name; continuation lines are joined by newlines. */
export type Paragraph = ReadonlyMap<string, string>;

/** Reads a deb822(5) file: .sources files, package records. */
export function parseParagraphs(text: string): Paragraph[] {
  const paragraphs: Map<string, string>[] = [];
  let paragraph: Map<string, string> | undefined;
  let name = '';
  for (const line of text.split('\n')) {
    if (line.startsWith('#')) continue;
    if (line.trim() === '') {
      paragraph = undefined;
    } else if (/^\s/.test(line)) {
      paragraph?.set(name, `${paragraph.get(name)}\n${line.trim()}`);
    } else {
      const colon = line.indexOf(':');
      if (colon < 1) continue;
      if (paragraph === undefined) {
        paragraph = new Map();
        paragraphs.push(paragraph);
      }
      name = line.slice(0, colon).toLowerCase();
      paragraph.set(name, line.slice(colon + 1).trim());
    }
  }
  return paragraphs;
}

/** Enabled entries of a .sources file. */
export function parseDeb822Sources(text: string): AptSource[] {
  return parseParagraphs(text)
    .filter((paragraph) => !/^(no|false|without|off|disable|0)$/i.test(paragraph.get('enabled') ?? 'yes'))
    .map((paragraph) => {
      const words = (field: string) => (paragraph.get(field) ?? '').split(/\s+/).filter((word) => word !== '');
      const signedBy = paragraph.get('signed-by') ?? '';
      return {
        types: words('types'),
        uris: words('uris'),
        suites: words('suites'),
        components: words('components'),
        signedBy: signedBy.startsWith('/') ? signedBy : '',
      };
    })
    .filter(({ types, uris, suites }) => types.length > 0 && uris.length > 0 && suites.length > 0);
}

/** Entries of a .list file: `deb [option=value ...] uri suite component...`, one a line. */
export function parseListSources(text: string): AptSource[] {
  const entries: AptSource[] = [];
  for (const line of text.split('\n')) {
    const match = /^\s*(deb|deb-src)\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)([^#]*)/.exec(line);
    if (match === null) continue;
    const [, type, options = '', uri, suite, components] = match;
    entries.push({
      types: [type!],
      uris: [uri!],
      suites: [suite!],
      components: components!.split(/\s+/).filter((word) => word !== ''),
      signedBy: /(?:^|\s)signed-by=(\/\S*)/i.exec(options)?.[1] ?? '',
    });
  }
  return entries;
}

/** All entries of the machine's apt configuration below `etc`, normally /etc/apt. */
export function machineSources(etc: string): AptSource[] {
  const parts = join(etc, 'sources.list.d');
  const files = [
    join(etc, 'sources.list'),
    ...namesIn(parts)
      .sort()
      .map((name) => join(parts, name)),
  ];
  return files.flatMap((file) => {
    if (file.endsWith('.sources')) return parseDeb822Sources(readFileSync(file, 'utf8'));
    if (file.endsWith('.list')) return parseListSources(textOf(file));
    return [];
  });
}

/** Debian's own binary packages among `sources`, and where to get its other suites. */
export interface DebianArchive {
  readonly sources: readonly AptSource[];
  /** URIs of the entry that carries the machine's own release: a mirror of the whole archive. */
  readonly uris: readonly string[];
}

/**
 * Finds Debian's archive among a machine's entries: signed with its keyring, or, where no keyring is named, by what
 * the entry looks like, since others use the names of Debian's suites too.
 * @param codename the machine's release (VERSION_CODENAME of os-release(5))
 * @throws UnsupportedError when there is none, as on another distribution
 */
export function debianArchive(sources: readonly AptSource[], codename: string): DebianArchive {
  const looksDebian = ({ uris, suites, components }: AptSource) =>
    components.includes('main') &&
    uris.every((uri) => /\/debian(-security)?(\/|\.list$|$)/.test(uri)) &&
    suites.some((suite) => suite === codename || suite.startsWith(`${codename}-`));
  const debian = sources.filter(
    (source) =>
      source.types.includes('deb') &&
      (source.signedBy === '' ? looksDebian(source) : /\/debian-archive-[^/]*$/.test(source.signedBy)),
  );
  const release =
    debian.find(({ suites }) => suites.includes(codename)) ??
    debian.find(({ suites }) => suites.some((suite) => /^((old)*stable|testing|unstable|sid)$/.test(suite)));
  if (release === undefined) {
    throw new UnsupportedError({
      what: "Debian's package archive",
      why: `the machine's apt configuration has no entry for suite ${codename} signed with Debian's keyring`,
      remedy: 'add one below /etc/apt/sources.list.d (sources.list(5)); the lab takes its kernels from there',
    });
  }
  return { sources: debian, uris: release.uris };
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

/** sources.list itself is usually absent where .sources files are used. */
function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
