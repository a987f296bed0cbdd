import assert from 'node:assert/strict';
import { test } from 'node:test';
import { choose, imagePackage, sourcePackage } from '../../../lab/debian-kernels.ts';

const offer = (name: string, version: string, suite = 'sid') => ({ package: name, version, suite });

const offers = [
  offer('linux-image-6.1.0-47-amd64', '6.1.170-3', 'bookworm'),
  offer('linux-image-6.1.0-50-amd64', '6.1.176-1', 'bookworm-security'),
  offer('linux-image-6.1.0-9-amd64', '6.1.27-1', 'bookworm'),
  offer('linux-image-6.12.95+deb12-amd64', '6.12.95-1~bpo12+1', 'bookworm-backports'),
  offer('linux-image-6.12.107+deb13-amd64', '6.12.107-1', 'trixie'),
  offer('linux-image-6.12.200+deb13-cloud-amd64', '6.12.200-1', 'trixie'),
  offer('linux-image-6.19.14+deb13-amd64', '6.19.14-1~bpo13+1', 'trixie-backports'),
];

const chosen = (series: string) => choose(offers, imagePackage, series)?.package;

test('the newest of a series in any suite, by version and not by name', () => {
  assert.equal(chosen('6.1'), 'linux-image-6.1.0-50-amd64');
  assert.equal(chosen('6.12'), 'linux-image-6.12.107+deb13-amd64');
});

test('a series that is gone: the next one, else the last one', () => {
  assert.equal(chosen('6.2'), 'linux-image-6.12.107+deb13-amd64');
  assert.equal(chosen('6.18'), 'linux-image-6.19.14+deb13-amd64');
  assert.equal(chosen('7.2'), 'linux-image-6.19.14+deb13-amd64');
  assert.equal(choose([], imagePackage, '6.1'), undefined);
  assert.equal(choose([offer('linux-image-amd64', '6.1.176-1')], imagePackage, '6.1'), undefined);
});

test('only the generic signed image has the name of an image', () => {
  const releases = ['6.1.0-50-amd64', '6.12.107+deb13-amd64', '6.12.90+deb12.1-amd64', '7.2.13+deb14-amd64'];
  for (const release of releases) assert.equal(imagePackage.exec(`linux-image-${release}`)?.[1], release);
  const others = [
    'amd64',
    '6.1.0-50-cloud-amd64',
    '6.1.0-50-amd64-unsigned',
    '7.2.13+deb14-rt-amd64',
    '7.2.13+deb14-amd64-dbg',
  ];
  for (const other of others) assert.doesNotMatch(`linux-image-${other}`, imagePackage);
});

test('sources', () => {
  const sources = [
    offer('linux-source-7.2', '7.2.12-1~bpo13+1'),
    offer('linux-source-7.2', '7.2.13-1'),
    offer('linux-source-6.12', '6.12.107-1'),
  ];
  assert.equal(choose(sources, sourcePackage, '7.2')?.version, '7.2.13-1');
  assert.doesNotMatch('linux-source', sourcePackage);
});
