import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { differences, parseConfig } from '../../../lab/jump/fragment.ts';

const fragment = `# about
CONFIG_KEXEC_JUMP=y
CONFIG_NODES_SHIFT=10
CONFIG_LOCALVERSION="-x"
# CONFIG_DRM is not set
`;

test('a configuration with all of it, in any order, and more', () => {
  const config =
    'CONFIG_A=m\nCONFIG_LOCALVERSION="-x"\nCONFIG_NODES_SHIFT=10\n# CONFIG_DRM is not set\nCONFIG_KEXEC_JUMP=y\n';
  assert.deepEqual(differences(fragment, config), []);
});

test('off is as good as not there', () => {
  assert.deepEqual(differences('# CONFIG_DRM is not set\n', 'CONFIG_A=y\n'), []);
});

test('what is missing, off, a module, or has another value', () => {
  assert.deepEqual(differences(fragment, '# CONFIG_KEXEC_JUMP is not set\nCONFIG_NODES_SHIFT=6\nCONFIG_DRM=m\n'), [
    'CONFIG_KEXEC_JUMP: wanted y, is n',
    'CONFIG_NODES_SHIFT: wanted 10, is 6',
    'CONFIG_LOCALVERSION: wanted "-x", is absent',
    'CONFIG_DRM: wanted n, is m',
  ]);
});

test("the jump kernel's fragment names each option once, and those without which it is not the jump kernel", () => {
  const text = readFileSync(new URL('../../../lab/jump/config', import.meta.url), 'utf8');
  const options = parseConfig(text);
  assert.equal(options.size, text.match(/^(# )?CONFIG_/gm)!.length);
  for (const option of ['KEXEC_JUMP', 'KEXEC_HANDOVER', 'LIVEUPDATE', 'DEBUG_INFO_BTF', 'CHECKPOINT_RESTORE']) {
    assert.equal(options.get(`CONFIG_${option}`), 'y', option);
  }
});
