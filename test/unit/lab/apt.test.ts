import assert from 'node:assert/strict';
import { test } from 'node:test';
import { configuration, parseMadison, privateSources } from '../../../lab/apt.ts';
import { parseDeb822Sources, parseListSources } from '../../../lab/apt-sources.ts';

test('madison: binary packages with version and suite', () => {
  const text = `linux-image-amd64 |   7.2.13-1 | http://mirror.invalid/debian sid/main amd64 Packages
linux-image-amd64 | 6.1.176-1~x | http://mirror.invalid/debian-security bookworm-security/main amd64 Packages
     linux |   7.2.13-1 | http://mirror.invalid/debian sid/main Sources

`;
  assert.deepEqual(parseMadison(text), [
    { package: 'linux-image-amd64', version: '7.2.13-1', suite: 'sid' },
    { package: 'linux-image-amd64', version: '6.1.176-1~x', suite: 'bookworm-security' },
  ]);
});

test("private sources: the machine's Debian entries, and each other suite once, from its mirror", () => {
  const machine = parseListSources(`deb http://a.invalid/debian bookworm main contrib
deb http://b.invalid/debian-security bookworm-security main
deb [signed-by=/k/other.gpg] http://c.invalid/debian bookworm main
`);
  const written = parseDeb822Sources(privateSources(machine, 'bookworm'));
  const suites = written.flatMap(({ uris, suites }) => suites.map((suite) => `${uris} ${suite}`));
  assert.deepEqual(suites, [
    'http://a.invalid/debian bookworm',
    'http://b.invalid/debian-security bookworm-security',
    'http://a.invalid/debian bookworm-backports',
    'http://a.invalid/debian trixie',
    'http://a.invalid/debian trixie-backports',
    'http://a.invalid/debian sid',
  ]);
  for (const { components, signedBy } of written) {
    assert.deepEqual(components, ['main']);
    assert.match(signedBy, /debian-archive-keyring/);
  }
});

test("configuration: of the machine's settings those of downloading, and nothing that runs or pins", () => {
  const dump = `APT::Update::Post-Invoke:: "rm -f /important";
Acquire::http::Proxy "http://proxy.invalid:3128";
Acquire::Check-Valid-Until "false";
Acquire::GzipIndexes "true";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "true";
Dir::Cache::pkgcache "";
`;
  const lines = configuration('/cache/apt', dump).split('\n');
  assert.ok(lines.includes('Acquire::http::Proxy "http://proxy.invalid:3128";'));
  assert.ok(lines.includes('Acquire::Check-Valid-Until "false";'));
  assert.ok(lines.includes('Dir::Cache::pkgcache "/cache/apt/pkgcache.bin";'));
  assert.deepEqual(
    lines.filter((line) => /Invoke|IndexTargets/.test(line)),
    [],
  );
});
