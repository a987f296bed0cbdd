import assert from 'node:assert/strict';
import { test } from 'node:test';
import { captureCommandLine, requireRoom } from '../../../src/capture/arm.ts';
import { defaults, parseSettings } from '../../../src/capture/settings.ts';
import { FormatError } from '../../../src/errors.ts';
import { contentOf } from '../../../src/target/identity.ts';

test('the keys of kdump.conf mean what they mean there', () => {
  const text = `
auto_reset_crashkernel yes
# to the server first
nfs storage:/export/crash
ssh kdump@backup   # and then there
path /srv/crash
core_collector makedumpfile -l --message-level 7 -d 17
final_action poweroff
failure_action shell
extra_modules mlx5_core  bonding
`;
  assert.deepEqual(parseSettings(text, 'crash.conf'), {
    ...defaults,
    targets: ['nfs:storage:/export/crash', 'ssh:kdump@backup:/srv/crash'],
    level: 17,
    compress: 'lzo',
    finalAction: 'poweroff',
    failureAction: 'shell',
    extraModules: ['mlx5_core', 'bonding'],
  });
});

test('without targets it is the path, and without that /var/crash', () => {
  assert.deepEqual(parseSettings('path /srv', 'crash.conf').targets, ['/srv']);
  assert.deepEqual(parseSettings('', 'crash.conf'), defaults);
  assert.deepEqual(parseSettings('target /a\ntarget http://b/c', 'crash.conf').targets, ['/a', 'http://b/c']);
});

test('what is wrong is named with its line', () => {
  for (const [text, message] of [
    ['level 31\nlevle 3', /line 2.*levle/s],
    ['level 32', /line 1, level.*0 to 31.*32/s],
    ['compress gzip', /zstd, lzo, zlib, snappy/],
    ['target', /line 1, target.*a value/s],
  ] as const) {
    assert.throws(
      () => parseSettings(text, 'crash.conf'),
      (error: Error) => error instanceof FormatError && message.test(error.message),
    );
  }
});

test('the capture kernel keeps consoles and what the hardware needs, and not what is for the running system', () => {
  const running =
    'BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro quiet crashkernel=192M console=ttyS0 hugepages=512 pci=nomsi panic=0 systemd.unit=x';
  const words = captureCommandLine(running, ['own=1']).split(' ');
  assert.deepEqual(words.slice(0, 2), ['console=ttyS0', 'pci=nomsi']);
  assert.ok(['nr_cpus=1', 'panic=10', 'acpi_no_memhotplug'].every((word) => words.includes(word)));
  assert.equal(words.at(-1), 'own=1');
});

test('file systems are known by their identifiers', () => {
  const head = Buffer.alloc(0x11000);
  assert.equal(contentOf(head), undefined);
  head.writeUInt16LE(0xef53, 1024 + 56);
  head.fill(0xab, 1024 + 104, 1024 + 120);
  assert.equal(contentOf(head), `ext:${'ab'.repeat(16)}`);
});

test('where crashkernel= is too small, it is said how much is missing', () => {
  assert.equal(requireRoom(192 << 20, 100 << 20), 92 << 20);
  assert.throws(
    () => requireRoom(128 << 20, 100 << 20),
    /reserved 128 MiB; 100 MiB .* 20 MiB are missing.*crashkernel=160M/s,
  );
});
