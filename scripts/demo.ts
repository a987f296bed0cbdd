/**
 * `npm run demo`: what tideover is about, in front of the user's eyes. For now: what this machine can do, and the same
 * root on two kernels in throw-away virtual machines.
 */
import { execFileSync } from 'node:child_process';
import { accelerator } from '../lab/accelerator.ts';
import { boot } from '../lab/boot.ts';
import { kernel } from '../lab/kernels.ts';
import { requirePackages } from '../lab/packages.ts';
import { TideoverError } from '../src/errors.ts';

const root = new URL('..', import.meta.url).pathname;
const start = performance.now();

try {
  say('What this machine can do (tideover check):');
  execFileSync('./tideover', ['check'], { cwd: root, stdio: 'inherit' });

  await requirePackages('qemu', 'guest root', 'squashfs', 'kernels');
  const how = accelerator().name === 'kvm' ? 'under KVM' : 'under software emulation';
  say(`The same root on two kernels, in virtual machines ${how}:`);
  for (const name of ['6.1', '6.12'] as const) {
    const { release } = await kernel(name);
    const begun = performance.now();
    process.stderr.write(`  Linux ${release}: booting ...\n`);
    const vm = await boot({ kernel: name, memory: 512 });
    try {
      const seconds = ((performance.now() - begun) / 1000).toFixed(1);
      const said = (await vm.check('uname -r; node --version; tideover --version')).trim().split('\n');
      console.log(`  Linux ${said[0]}: ready after ${seconds} s; Node ${said[1]}, tideover ${said[2]}`);
      const { rows } = JSON.parse(await vm.check('tideover check --json')) as { rows: Row[] };
      for (const id of ['pagemap_scan', 'kexec_load', 'kexec_file_load']) {
        const row = rows.find((each) => each.id === id);
        if (row !== undefined) console.log(`    ${row.title.padEnd(16)} ${row.answer.padEnd(8)} ${row.reason}`);
      }
    } finally {
      await vm.close();
    }
  }
  say(`Done in ${((performance.now() - start) / 1000).toFixed(0)} s. Nothing was left running.`);
  console.log('  npm run lab -- shell --kernel 6.12    a guest to play in');
  console.log('  ./tideover --help                     all commands');
} catch (error) {
  if (!(error instanceof TideoverError)) throw error;
  console.error(`demo: ${error.message}`);
  process.exitCode = 1;
}

interface Row {
  readonly id: string;
  readonly title: string;
  readonly answer: string;
  readonly reason: string;
}

function say(text: string): void {
  console.log(`\n${text}\n`);
}
