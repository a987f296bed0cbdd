/** What setup writes for the next boots, in place of this machine's own folders. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { type BoundPlace, boundPlaceOf } from '../../../src/hibernate/place.ts';
import { setUp } from '../../../src/hibernate/setup.ts';
import { readMachine } from '../../../src/kexec/machine.ts';
import { findDevice } from '../../../src/target/identity.ts';
import { bzImage } from '../../unit/kexec/images.ts';
import { rootTest } from '../root.ts';

const run = (program: string, ...args: string[]) => execFileSync(program, args, { encoding: 'utf8' }).trim();

rootTest('setup writes what initramfs-tools, systemd and GRUB read, and says what is left to do', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tideover-setup-'));
  const at = (path: string) => join(folder, path);
  for (const name of ['kernel', 'system', 'disk']) writeFileSync(at(name), name);
  writeFileSync(at('kernel'), bzImage());
  truncateSync(at('disk'), 8 << 20);
  writeFileSync(at('larger'), '');
  truncateSync(at('larger'), 9 << 20);
  const [device, other] = ['disk', 'larger'].map((name) => run('losetup', '--find', '--show', at(name))) as [
    string,
    string,
  ];
  const root = at('root');
  const set = () => setUp(device, '/opt/tideover/bin/tideover', { kernel: at('kernel'), system: at('system'), root });
  try {
    assert.throws(set, /there is no \/etc\/initramfs-tools; install initramfs-tools/);
    mkdirSync(join(root, 'etc/initramfs-tools'), { recursive: true });
    const isReserved = readMachine().crashRanges.length > 0;
    assert.ok(!set().written.some((path) => path.includes('grub')), 'there is no GRUB');
    mkdirSync(join(root, 'etc/default'));
    writeFileSync(join(root, 'etc/default/grub'), 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n');
    const { written, todo } = set();
    for (const path of written) statSync(join(root, path));
    assert.equal(todo[0], 'run: update-initramfs -u');
    const cfg = 'etc/default/grub.d/tideover-hibernate.cfg';
    assert.equal(written.includes(`/${cfg}`), !isReserved);
    if (!isReserved) {
      assert.equal(todo[1], 'run: update-grub, and boot again');
      // As grub-mkconfig(8) reads it: after the file that it adds to.
      const script = `. ${root}/etc/default/grub; . ${root}/${cfg}; echo "$GRUB_CMDLINE_LINUX_DEFAULT"`;
      assert.equal(run('sh', '-c', script), 'quiet crashkernel=256M');
    }
    const unit = readFileSync(join(root, 'etc/systemd/system/tideover-hibernate.service'), 'utf8');
    assert.match(unit, new RegExp(`^ExecStart=/opt/tideover/bin/tideover hibernate --to "${device}"$`, 'm'));
    const prepared = (name: string) => join(root, 'var/lib/tideover/hibernate', name);
    assert.ok(readFileSync(prepared('kernel')).equals(readFileSync(at('kernel'))));
    assert.ok(readFileSync(prepared('system')).equals(readFileSync(at('system'))));
    assert.equal(statSync(prepared('initrd')).mode & 0o777, 0o600);
    assert.equal(readFileSync(prepared('sector'), 'utf8'), '0\n');
    const bound: BoundPlace = JSON.parse(readFileSync(prepared('place'), 'utf8'));
    assert.equal(bound.extents, undefined);
    const names = [other, device].map((path) => basename(path));
    assert.equal(findDevice(bound.disk, names), device);
    assert.equal(findDevice(boundPlaceOf({ path: other }).disk, names), other);
  } finally {
    run('losetup', '--detach', device, other);
    rmSync(folder, { recursive: true });
  }
});
