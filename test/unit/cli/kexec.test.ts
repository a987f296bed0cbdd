/** kexec-tools' way to say what to do: switches, of which one is given, and the kernel anywhere. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { main } from '../../../src/cli/app.ts';
import { tree } from '../../../src/cli/tree.ts';

async function run(...args: string[]) {
  const got = { stdout: '', stderr: '' };
  const stream = (name: keyof typeof got) => ({
    isTTY: false,
    columns: 80,
    write: (text: string) => {
      got[name] += text;
    },
  });
  const exit = await main(['kexec', ...args], { stdout: stream('stdout'), stderr: stream('stderr'), env: {} }, tree);
  return { exit, ...got };
}

for (const [args, message] of [
  [[], /what to do is missing/],
  [['-l'], /KERNEL is missing/],
  [['-p', '--append', 'x'], /KERNEL is missing/],
  [['laod'], /'laod' is no command of kexec/],
  [['-e', 'vmlinuz'], /'vmlinuz' is no command of kexec/],
  [['-l', '-e', 'vmlinuz'], /one of -l, -p, -e, -u and -S/],
  [['-u', '-l', 'vmlinuz'], /one of -l, -p, -e, -u and -S/],
  [['-l', 'vmlinuz', 'initrd'], /takes at most 1, and these were given: vmlinuz, initrd/],
  [['-l', 'vmlinuz', '--append=a', '--command-line=b'], /--append and --command-line are the same/],
  [['-l', 'vmlinuz', '--mem-min=1G'], /--mem-min 1G: not an address/],
  [['-c', '-s', '-l', 'vmlinuz'], /exclude each other/],
] as const) {
  test(`'kexec ${args.join(' ')}' is a wrong usage`, async () => {
    const { exit, stderr } = await run(...args);
    assert.equal(exit, 2);
    assert.match(stderr, message);
  });
}
