import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { imagePackage, sourcePackage } from '../../../lab/debian-kernels.ts';
import { jumpKey } from '../../../lab/jump/build.ts';
import { kernel, kernelNames, type Lock } from '../../../lab/kernels.ts';

const cache = mkdtempSync(join(tmpdir(), 'tideover-kernels-'));
process.env.TIDEOVER_LAB_CACHE = cache;
after(() => rmSync(cache, { recursive: true }));

const program = new URL('../../../lab/kernels.ts', import.meta.url).pathname;
const lock = JSON.parse(readFileSync(new URL('../../../lab/kernels.lock.json', import.meta.url), 'utf8')) as Lock;

/** What an earlier run would have left in the cache. */
function fill(key: string, release: string, ...files: string[]): string {
  const directory = join(cache, 'kernels', key);
  mkdirSync(join(directory, 'lib', 'modules', release), { recursive: true });
  for (const file of ['vmlinuz', 'config', ...files]) writeFileSync(join(directory, file), '');
  writeFileSync(join(directory, 'kernel.json'), JSON.stringify({ release, debs: [] }));
  return directory;
}

test('the lock file has packages of each kernel, the one that names it first', () => {
  assert.deepEqual(Object.keys(lock), [...kernelNames]);
  for (const name of kernelNames) {
    const [first, ...others] = lock[name]!;
    const pattern = name === 'jump' ? sourcePackage : imagePackage;
    assert.match(first!.package, pattern);
    for (const deb of [first!, ...others]) {
      assert.match(deb.sha256, /^[0-9a-f]{64}$/);
      assert.equal(deb.version, first!.version);
    }
  }
});

test('a kernel in the cache is taken from there', async () => {
  const [image] = lock['6.12']!;
  const release = imagePackage.exec(image!.package)![1]!;
  const directory = fill(`${image!.package}_${image!.version}`, release);
  assert.deepEqual(await kernel('6.12'), {
    name: '6.12',
    release,
    package: image!.package,
    version: image!.version,
    vmlinuz: join(directory, 'vmlinuz'),
    config: join(directory, 'config'),
    modules: join(directory, 'lib', 'modules', release),
    systemMap: undefined,
    vmlinux: undefined,
  });
});

test('so is the jump kernel, with what a crash tool can be judged by', async () => {
  const [source] = lock.jump!;
  const directory = fill(`jump-${jumpKey(source!)}`, '7.0.0-tide-jump', 'System.map', 'vmlinux.zst');
  const { systemMap, vmlinux, release } = await kernel('jump');
  assert.deepEqual([systemMap, vmlinux], [join(directory, 'System.map'), join(directory, 'vmlinux.zst')]);
  assert.equal(release, '7.0.0-tide-jump');
});

test('the jump kernel is another one when its source is', () => {
  const [source] = lock.jump!;
  assert.equal(jumpKey(source!), jumpKey({ ...source! }));
  assert.notEqual(jumpKey(source!), jumpKey({ ...source!, version: '7.2.0-1' }));
});

test('what was taken for a dropped lock entry is taken again', async () => {
  const taken = [{ package: 'linux-image-6.19.1+deb13-amd64', version: '6.19.1-1', suite: 'sid', sha256: '0' }];
  const directory = fill('linux-image-6.19.1+deb13-amd64_6.19.1-1', '6.19.1+deb13-amd64');
  writeFileSync(join(cache, 'kernels', '6.18.json'), JSON.stringify({ locked: lock['6.18'], taken }));
  assert.equal((await kernel('6.18')).vmlinuz, join(directory, 'vmlinuz'));
});

test('a name that is none is refused with the names there are', () => {
  const { status, stderr } = spawnSync(process.execPath, [program, '5.10'], { encoding: 'utf8' });
  assert.equal(status, 2);
  assert.match(stderr, /no kernel is named 5\.10\nusage: .*6\.1\|6\.12\|6\.18\|7\.2\|jump/);
  assert.equal(spawnSync(process.execPath, [program, '--oldest']).status, 2);
});
