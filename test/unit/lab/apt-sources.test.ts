import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  debianArchive,
  machineSources,
  parseDeb822Sources,
  parseListSources,
  parseParagraphs,
} from '../../../lab/apt-sources.ts';
import { UnsupportedError } from '../../../src/errors.ts';

const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

test('paragraphs: fields in any case, comments, continuation lines, several empty lines', () => {
  const paragraphs = parseParagraphs('\n# said\nPackage: a\nDESCRIPTION: one\n# inside\n two\n .\n\n\nPackage: b\n');
  assert.deepEqual(
    paragraphs.map((paragraph) => [...paragraph]),
    [
      [
        ['package', 'a'],
        ['description', 'one\ntwo\n.'],
      ],
      [['package', 'b']],
    ],
  );
});

test('a .sources file: lists of words, disabled entries, a key inside', () => {
  const text = `Types: deb deb-src
# a comment between fields
URIs: http://mirror.invalid/debian
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By: ${keyring}

Enabled: no
Types: deb
URIs: http://mirror.invalid/other
Suites: bookworm

Types: deb
URIs: http://mirror.invalid/own
Suites: ./
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
`;
  assert.deepEqual(parseDeb822Sources(text), [
    {
      types: ['deb', 'deb-src'],
      uris: ['http://mirror.invalid/debian'],
      suites: ['bookworm', 'bookworm-updates'],
      components: ['main', 'contrib'],
      signedBy: keyring,
    },
    { types: ['deb'], uris: ['http://mirror.invalid/own'], suites: ['./'], components: [], signedBy: '' },
  ]);
});

test('a .list file: options, comments, flat repositories', () => {
  const text = `# deb http://mirror.invalid/old bookworm main
deb [arch=amd64 signed-by=${keyring}] http://mirror.invalid/debian bookworm main contrib # tail
 deb-src http://mirror.invalid/debian/ bookworm main
deb [ trusted=yes ] file:/srv/packages ./

not an entry
`;
  const source = (type: string, uri: string, suite: string, components: string[], signedBy = '') => {
    return { types: [type], uris: [uri], suites: [suite], components, signedBy };
  };
  assert.deepEqual(parseListSources(text), [
    source('deb', 'http://mirror.invalid/debian', 'bookworm', ['main', 'contrib'], keyring),
    source('deb-src', 'http://mirror.invalid/debian/', 'bookworm', ['main']),
    source('deb', 'file:/srv/packages', './', []),
  ]);
});

test("a machine's entries come from sources.list and both kinds of parts, and from nothing else", () => {
  const etc = mkdtempSync(join(tmpdir(), 'tideover-apt-'));
  try {
    assert.deepEqual(machineSources(etc), []);
    const parts = join(etc, 'sources.list.d');
    mkdirSync(parts);
    writeFileSync(join(etc, 'sources.list'), 'deb http://mirror.invalid/debian one main\n');
    writeFileSync(join(parts, 'a.list'), 'deb http://mirror.invalid/debian two main\n');
    writeFileSync(join(parts, 'b.sources'), 'Types: deb\nURIs: http://mirror.invalid/debian\nSuites: three\n');
    writeFileSync(join(parts, 'c.list.disabled'), 'deb http://mirror.invalid/debian four main\n');
    assert.deepEqual(
      machineSources(etc).flatMap(({ suites }) => suites),
      ['one', 'two', 'three'],
    );
  } finally {
    rmSync(etc, { recursive: true });
  }
});

test("Debian's archive is the entry of the release that its keyring signs", () => {
  const sources = parseDeb822Sources(`Types: deb
URIs: http://other.invalid/debian
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/other.gpg

Types: deb
URIs: http://security.invalid/debian-security
Suites: bookworm-security
Components: main
Signed-By: ${keyring}

Types: deb-src
URIs: http://source.invalid/debian
Suites: bookworm
Components: main
Signed-By: ${keyring}

Types: deb
URIs: mirror+file:///etc/apt/mirrors/debian.list
Suites: bookworm bookworm-updates
Components: main
Signed-By: ${keyring}
`);
  const archive = debianArchive(sources, 'bookworm');
  assert.deepEqual(archive.uris, ['mirror+file:///etc/apt/mirrors/debian.list']);
  assert.deepEqual(
    archive.sources.flatMap(({ suites }) => suites),
    ['bookworm-security', 'bookworm', 'bookworm-updates'],
  );
});

test('without a named keyring, entries of others that use the same suite names are left out', () => {
  const sources = parseListSources(`deb https://a.invalid/linux/debian bookworm stable
deb https://b.invalid/node_20.x bookworm main
deb https://c.invalid/repos/apt bookworm-pgdg main
deb http://d.invalid/debian-security bookworm-security main
deb http://e.invalid/debian/ bookworm main non-free-firmware
`);
  const archive = debianArchive(sources, 'bookworm');
  assert.deepEqual(archive.uris, ['http://e.invalid/debian/']);
  assert.equal(archive.sources.length, 2);
});

test('a release named by its state, and none at all', () => {
  const stable = parseListSources(`deb [signed-by=${keyring}] http://a.invalid/debian stable main`);
  assert.deepEqual(debianArchive(stable, 'bookworm').uris, ['http://a.invalid/debian']);
  const foreign = parseListSources('deb http://a.invalid/ubuntu jammy main');
  assert.throws(() => debianArchive(foreign, 'jammy'), UnsupportedError);
});
