/** What ramoops keeps over a reset of the machine: files as the next kernel shows them, and the memory itself, are the end of the log. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { boot } from '../../lab/boot.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';

const tideover = new URL('../../bin/tideover', import.meta.url).pathname;
const folder = temporaryFolder();
after(() => removeTemporary(folder));
const BOOT_MS = 300_000;
const [ADDRESS, SIZE] = [0x1000_0000, 0x2_0000];
const ramoops = `mkdir -p /tmp/pstore; modprobe ramoops mem_address=${ADDRESS} mem_size=${SIZE} record_size=32768 ecc=1 && mount -t pstore none /tmp/pstore`;

function dmesg(path: string, ...flags: string[]): string {
  return execFileSync(tideover, ['crash', 'dmesg', path, ...flags], { encoding: 'utf8' });
}

test('the log of a kernel that died, out of ramoops', async () => {
  const vm = await boot({
    kernel: '7.2',
    memory: 512,
    reboot: true,
    spareModules: ['ramoops'],
    append: `memmap=${SIZE / 1024}K$0x${ADDRESS.toString(16)}`,
  });
  const image = join(folder, 'ram');
  const files = join(folder, 'pstore');
  mkdirSync(files);
  try {
    await vm.check(ramoops);
    const first = vm.agent.greeting!;
    await vm.check('echo "<6>said by the test: α" >/dev/kmsg');
    void vm.run('echo c >/proc/sysrq-trigger').catch(() => {});
    await vm.nextKernel(first, BOOT_MS);
    await vm.qmp('pmemsave', { val: ADDRESS, size: SIZE, filename: image });
    await vm.check(ramoops);
    await vm.copyOut('/tmp/pstore', files);
  } finally {
    await vm.close();
  }
  const names = readdirSync(files);
  assert.ok(names.includes('dmesg-ramoops-0'), `${names}`);
  const shown = dmesg(join(files, 'dmesg-ramoops-0'));
  assert.match(shown, /^\[ +\d+\.\d{6}\] said by the test: α$/m);
  assert.match(shown, /Kernel panic - not syncing: sysrq triggered crash/);
  // The kernel's own unpacking, ours of what stands in memory, and a folder.
  assert.equal(dmesg(image), shown);
  assert.equal(dmesg(files), shown);
  // The kernel's parity: what is hurt behind it is as it was.
  const hurt = readFileSync(image);
  for (const at of [0, 5, 12, 13, 14, 15, 500, 501, 4000]) hurt[at]! ^= 0xff;
  writeFileSync(image, hurt);
  assert.equal(dmesg(image, '--ecc', '1'), shown);
  const text = readFileSync(join(files, 'dmesg-ramoops-0'), 'utf8');
  assert.match(text, /\nECC: No errors detected\n$/);
  const lines = text
    .replace(/\nECC: .*\n$/, '')
    .trimEnd()
    .split('\n')
    .slice(1);
  const json = JSON.parse(dmesg(files, '--json')) as { level: number; time: number; text: string }[];
  const back = json.map(({ level, time, text }) => `<${level}>[${time.toFixed(6).padStart(12)}] ${text}`);
  const plain = lines.map((line) =>
    line.replace(/^<(\d+)>/, (_, priority) => `<${Number(priority) & 7}>`).replace(/\]\[ *[TC]\d+\]/, ']'),
  );
  assert.deepEqual(back, plain);
});
