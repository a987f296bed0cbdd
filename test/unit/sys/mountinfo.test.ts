import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { textOf } from '../../../src/abi/text.ts';
import { FormatError } from '../../../src/errors.ts';
import { cgroup2Mount, type Mount, parseMountinfo } from '../../../src/sys/mountinfo.ts';

const SAMPLE = `\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
22 27 0:21 / /proc rw,relatime shared:5 master:2 propagate_from:1 - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
34 31 0:31 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
50 27 8:17 /sub\\040dir /mnt/with\\040blank\\011tab\\012line\\134back\\043hash ro,nosuid unbindable - fuse.sshfs host:/a\\040b rw,user_id=0
51 27 0:99 / /mnt/none rw - tmpfs  rw
`;

test('mounts are read with all their fields', () => {
  const mounts = parseMountinfo(SAMPLE, 'sample');
  assert.deepEqual(mounts[1], {
    id: 22,
    parent: 27,
    major: 0,
    minor: 21,
    root: '/',
    mountPoint: '/proc',
    options: ['rw', 'relatime'],
    propagation: ['shared:5', 'master:2', 'propagate_from:1'],
    type: 'proc',
    source: 'proc',
    superOptions: ['rw'],
  });
  assert.equal(mounts[5]!.root, '/sub dir');
  assert.equal(mounts[5]!.mountPoint, '/mnt/with blank\ttab\nline\\back#hash');
  assert.equal(mounts[5]!.source, 'host:/a b');
  assert.equal(mounts[6]!.source, '');
});

test('the cgroup v2 mount is found beside those of version 1', () => {
  assert.equal(cgroup2Mount(parseMountinfo(SAMPLE, 'sample'))?.mountPoint, '/sys/fs/cgroup/unified');
  assert.equal(cgroup2Mount(parseMountinfo(SAMPLE.replace('cgroup2 cgroup2', 'tmpfs x'), 'sample')), undefined);
});

const name = fc.uint8Array({ maxLength: 30 }).map((bytes) => textOf(bytes.filter((byte) => byte !== 0)));

/** mangle_path() of fs/seq_file.c with the characters that show_mountinfo() asks for. */
function mangle(text: string): string {
  return text.replace(/[ \t\n\\#]/g, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, '0')}`);
}

test('any name comes back as it was', () => {
  fc.assert(
    fc.property(name, name, name, (root, mountPoint, source) => {
      const line = `5 1 0:4 ${mangle(`/${root}`)} ${mangle(`/${mountPoint}`)} rw shared:1 - ext4 ${mangle(source)} rw\n`;
      const [mount] = parseMountinfo(line, 'sample') as [Mount];
      assert.deepEqual([mount.root, mount.mountPoint, mount.source], [`/${root}`, `/${mountPoint}`, source]);
    }),
  );
});

test('another text is a FormatError', () => {
  assert.throws(() => parseMountinfo('5 1 0:4 / /mnt rw ext4 /dev/x rw\n', 'sample'), FormatError);
});
