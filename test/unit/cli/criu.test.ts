/** CRIU's options, as people and scripts type them. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { checkpoint } from '../../../src/cli/commands/checkpoint.ts';
import { restore } from '../../../src/cli/commands/restore.ts';
import { criuGuide } from '../../../src/cli/criu/guide.ts';
import { criuOptions, isGlobal, refuseUnbuilt } from '../../../src/cli/criu/options.ts';
import { parse } from '../../../src/cli/parse.ts';
import { globalFlags, tree } from '../../../src/cli/tree.ts';
import { UnsupportedError } from '../../../src/errors.ts';

/** What a command gets of a command line. */
function flagsOf(words: readonly string[]): Record<string, unknown> {
  const settings = { json: false, verbose: 0, quiet: false, color: 'auto' as const };
  const request = parse(tree, globalFlags, words, settings, { width: 80, color: () => false });
  assert.ok(request.kind === 'run');
  return { ...request.input.flags, verbosity: settings.verbose };
}

test('docs/process.md is what the options say; else run: node scripts/docs.ts', () => {
  const written = readFileSync(new URL('../../../docs/process.md', import.meta.url), 'utf8');
  assert.equal(written, criuGuide());
});

test('every option of CRIU is understood by both commands, and is what the table says', () => {
  for (const { long, short, value, optional, state, harmless } of criuOptions) {
    for (const name of ['dump', 'restore']) {
      const forms = [
        ...(value === undefined || optional !== undefined ? [[`--${long}`]] : []),
        ...(value === undefined ? [] : [[`--${long}=12`], ...(optional === undefined ? [[`--${long}`, '12']] : [])]),
        ...(short === undefined
          ? []
          : [[`-${short}`, ...(value === undefined || optional !== undefined ? [] : ['12'])]]),
      ];
      for (const form of forms) {
        const flags = flagsOf([name, ...form]);
        const refuse = () => refuseUnbuilt(flags);
        const given = form.some((word) => word.includes('12')) ? '12' : optional;
        if (state !== 'unbuilt' || (given !== undefined && harmless?.includes(given))) refuse();
        else
          assert.throws(
            refuse,
            (error) => error instanceof UnsupportedError && error.what === `--${long}`,
            `${name} ${form}`,
          );
      }
      for (const each of harmless ?? []) refuseUnbuilt(flagsOf([name, `--${long}=${each}`]));
      if (value === undefined && !isGlobal(long)) assert.equal(Boolean(flagsOf([name, `--no-${long}`])[long]), false);
    }
    const declared = [checkpoint, restore].some(({ flags }) =>
      Object.values(flags ?? {}).some((flag) => flag.long === long && !flag.hidden),
    );
    if (!isGlobal(long)) assert.equal(declared, state === 'same' || state === 'differs', long);
  }
});

test('no option is in the table twice', () => {
  const names = criuOptions.flatMap(({ long, short }) => (short === undefined ? [long] : [long, `-${short}`]));
  assert.deepEqual(
    names.filter((name, i) => names.indexOf(name) !== i),
    [],
  );
});

test("what CRIU's regression programs ask for", () => {
  const asked = [
    '--cgroup-root name=zdtmtst:/prefix',
    '--external mnt[/zdtm/static/mnt_ext_manual.test]:ZDTM',
    '--external mnt[]:s',
    '--ghost-fiemap --ghost-limit 8M',
    '--no-ghost-fiemap --ghost-limit 1G',
    '--manage-cgroups --cgroup-yard ../../external_yard',
    '--manage-cgroups=full',
    '--manage-cgroups=ignore',
    '--network-lock nftables --tcp-established',
    '--tcp-close --skip-in-flight --allow-uprobes',
    '--enable-external-masters --ext-mount-map auto',
    '--enable-fs nfsd --ext-unix-sk --file-locks',
    '--force-irmap --irmap-scan-path /zdtm/static --link-remap',
    '--external veth[zdtmvthc0]:zdtmvthh0@zdtmbr0 --external netdev[zdtmvthc0]:zdtmvthc1',
    '--join-ns net:/var/run/netns/criu-net-lock-test',
    '--lsm-mount-context=system_u:object_r:container_file_t:s0:c204,c495',
    '--no-mntns-compat-mode --mntns-compat-mode',
    '-v4 -o dump.log --no-default-config -D image --timeout 10',
    '--verbosity=4 --display-stats --log-pid',
  ];
  for (const line of asked) {
    for (const name of ['dump', 'restore']) flagsOf([name, ...line.split(' ')]);
  }
  assert.equal(flagsOf(['dump', '--verbosity=4']).verbosity, 4);
  assert.deepEqual(flagsOf(['restore', '--manage-cgroups', '-d'])['manage-cgroups'], ['soft']);
});
